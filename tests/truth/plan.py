"""What defines a class of simulated experiments: the boards, the layout, the sensors, and the recorded evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CPU_MODEL_W = 112.5
"""Power that a common model states for every CPU."""


@dataclass(frozen=True)
class Model:
    """A model of board: its name as a driver gives it, and the power that its firmware enforces, in watts.

    Attributes:
        name: Name as a driver gives it.
        limit_w: Power that the firmware enforces, in watts.
        dies: GPUs that one sensor covers.
        has_cpu: Whether the GPU's sensor covers the CPU of the module.
    """

    name: str
    limit_w: float
    dies: int = 1
    has_cpu: bool = False


A100 = Model("NVIDIA A100-PCIE-40GB", 250)
A100_LOWERED = Model("NVIDIA A100-PCIE-40GB", 150)
A100_SXM = Model("NVIDIA A100-SXM4-80GB", 400)
H100 = Model("NVIDIA H100 80GB HBM3", 700)
L4 = Model("NVIDIA L4", 72)
UNKNOWN_BOARD = Model("Example Accelerator 9", 500)
AMBIGUOUS_A100 = Model("NVIDIA A100", 400)
RTX_4090 = Model("NVIDIA GeForce RTX 4090", 450)
RTX_4090_RAISED = Model("NVIDIA GeForce RTX 4090", 600)
RTX_3090_RAISED = Model("NVIDIA GeForce RTX 3090", 420)
H100_PCIE = Model("NVIDIA H100 PCIe", 350)
GH200 = Model("NVIDIA GH200 480GB", 900, has_cpu=True)
GH200_GPU_ONLY = Model("NVIDIA GH200 480GB", 700)
MI250X = Model("AMD Instinct MI250X", 560, dies=2)

GpuReading = Literal["own", "host", "visible", "driven", "share", "rank0", "mixed", "none"]
HostReading = Literal["none", "each", "rank0", "constant", "share"]
Windows = Literal[
    "same", "staggered", "slightly_staggered", "partial", "nested", "same_start", "serial", "touching", "waves"
]


@dataclass(frozen=True)
class Evidence:
    """What the records say about the world.

    Attributes:
        scope: Whether the scope of each reading is recorded.
        cpu_scope: Whether the scope of the readings of CPU and memory is recorded.
        host: Whether the hostname is recorded.
        boot: Whether the boot id is recorded.
        containers: Whether each process records the hostname of its own container.
        uuid: Whether the UUIDs of boards are recorded.
        index: `real` is the index on the host, `zero` is 0 in each process (CUDA_VISIBLE_DEVICES), `null` is unknown.
        local_rank: Whether the local rank is recorded.
        tool: Tool that wrote the originals; None for our recorder.
        boards: `bare` is the model's name, `all` is `N x BOARD`, `one` is `1 x BOARD`, `none` is no name.
        devices: Whether boards are listed, and whether with energies.
        window: `full` has the energy window; `duration` has the run and the window's length; `run` has a run that is
            equal to the window; `short` has that run and a shorter duration; `field` has a longer run, a duration of
            0 s, and the inference time; `length` has one common start, no end, and the window's length.
        limit: Whether the enforced limit is recorded.
        naive: Whether times have no UTC offset.
        only_total: Whether only the total energy is recorded.
        zero: Whether a process without a reading records 0 J instead of null.
        sensors: Whether each sensor's reading is listed.
        lost_facts: Probability that one record lacks one of these facts, although the other records have it.
    """

    scope: bool = False
    cpu_scope: bool = False
    host: bool = False
    boot: bool = False
    containers: bool = False
    uuid: bool = False
    index: Literal["real", "zero", "null"] = "real"
    local_rank: bool = False
    tool: str | None = None
    boards: Literal["bare", "all", "one", "none"] = "bare"
    devices: Literal["no", "listed", "energies"] = "no"
    window: Literal["full", "duration", "run", "short", "field", "length"] = "run"
    limit: bool = False
    naive: bool = True
    only_total: bool = False
    zero: bool = False
    sensors: bool = False
    lost_facts: float = 0.0


FULL = Evidence(
    scope=True, host=True, boot=True, uuid=True, local_rank=True, window="full", limit=True, naive=False, sensors=True
)
NONE = Evidence()


@dataclass(frozen=True)
class Plan:
    """A class of experiments.

    Attributes:
        model: Model of all boards.
        hosts: Number of hosts.
        boards: Boards of each host.
        ranks: Ranks of each host; None for one on each die of each board.
        gpu: What the GPU reading of a rank covers. `own`: the board of the rank; `host`: all boards of its host;
            `visible`: the boards of its group; `share`: what the process draws on its board; `rank0`: all boards, in
            local rank 0 only; `mixed`: all boards in local rank 0, the own board in the others.
            `driven`: all boards that the rank drives.
        group: Ranks and boards of a group for `visible`.
        cpu: What the CPU reading of a rank covers. `each`: the host, in each rank; `rank0`: the host, in local rank 0;
            `constant`: the host, in each rank, as a model of one constant power; `share`: what the process draws.
        ram: As `cpu`.
        rest: As `cpu`, for energy that only the total contains.
        overhead: What the sensor of a host's GPUs covers besides its boards, as a fraction of their limits.
        driven: Boards that each rank drives.
        cyclic: Whether consecutive ranks are on different hosts, as with SLURM's cyclic distribution.
        windows: How the windows of the ranks overlap.
        load: Least and greatest mean power of a board, as a fraction of the limit.
        spread: Relative difference of power between boards.
        ripple: Relative variation of power over time.
        noise: Standard deviation of a reading, relative to the true energy.
        missing: Number of ranks whose record is lost.
        mig: Whether each rank runs on a MIG slice of its board.
        evidence: What is recorded.
        board_w: Exact power of each board in watts, instead of `load`.
        seconds: Least and greatest length of the longest window.
    """

    model: Model = A100
    hosts: int = 1
    boards: int = 4
    ranks: int | None = None
    gpu: GpuReading = "own"
    group: int = 1
    cpu: HostReading = "none"
    ram: HostReading = "none"
    rest: HostReading = "none"
    overhead: float = 0.0
    driven: int = 1
    cyclic: bool = False
    windows: Windows = "same"
    load: tuple[float, float] = (0.3, 0.95)
    spread: float = 0.1
    ripple: float = 0.15
    noise: float = 0.0
    missing: int = 0
    mig: bool = False
    evidence: Evidence = NONE
    board_w: tuple[float, ...] = ()
    seconds: tuple[float, float] = (60.0, 300.0)

    @property
    def ranks_per_host(self) -> int:
        """Ranks of each host."""
        return self.boards * self.model.dies // self.driven if self.ranks is None else self.ranks

    def place_of(self, rank: int) -> tuple[int, int]:
        """Host and local rank of a rank."""
        if self.cyclic:
            return rank % self.hosts, rank // self.hosts
        return divmod(rank, self.ranks_per_host)

    def drives(self, local: int, board: int) -> bool:
        """Whether a rank of a host computes on a board of this host."""
        first = self.board_of(local)
        return first <= board < first + self.driven

    def board_of(self, local: int) -> int:
        """Index of the board that a rank of a host uses."""
        if self.driven > 1:
            return local * self.driven
        per_board = max(1, self.ranks_per_host // self.boards)
        return min(local // per_board, self.boards - 1)
