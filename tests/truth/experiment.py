"""Simulated experiments: a plan becomes a world, the world is read by sensors, and some evidence is recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from llm_energy_measure.domain.experiment import ClockEvidence, ImportOrigin, Launcher, RawProcessResult
from llm_energy_measure.domain.metrics import (
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    Scope,
    SensorReading,
    Timestamps,
)
from tests.truth.world import (
    Board,
    Coverage,
    Host,
    Source,
    Span,
    constant_power,
    covered_energy_j,
    varying_power,
)

if TYPE_CHECKING:
    from random import Random

CPU_MODEL_W = 112.5
"""Power that a common model states for every CPU."""

START = datetime(2026, 1, 16, 19, 39, 58, tzinfo=UTC)


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

GpuReading = Literal["own", "host", "visible", "share", "rank0", "mixed", "none"]
HostReading = Literal["none", "each", "rank0", "constant", "share"]
Windows = Literal["same", "staggered", "slightly_staggered", "partial", "nested", "same_start", "serial", "touching"]


@dataclass(frozen=True)
class Evidence:
    """What the records say about the world.

    Attributes:
        scope: Whether the scope of each reading is recorded.
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
    """

    scope: bool = False
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
        group: Ranks and boards of a group for `visible`.
        cpu: What the CPU reading of a rank covers. `each`: the host, in each rank; `rank0`: the host, in local rank 0;
            `constant`: the host, in each rank, as a model of one constant power; `share`: what the process draws.
        ram: As `cpu`.
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
        return self.boards * self.model.dies if self.ranks is None else self.ranks

    def board_of(self, local: int) -> int:
        """Index of the board that a rank of a host uses."""
        per_board = max(1, self.ranks_per_host // self.boards)
        return min(local // per_board, self.boards - 1)


@dataclass(frozen=True)
class Reading:
    """What one process measured of one component.

    Attributes:
        scope: Scope of its sensor.
        covers: What each of its parts covers, one part for each board where boards are read one by one.
        energies_j: What the sensor reports of each part, in joules, with noise.
    """

    scope: Scope
    covers: tuple[Coverage, ...]
    energies_j: tuple[float, ...]

    @property
    def energy_j(self) -> float:
        return sum(self.energies_j)


@dataclass(frozen=True)
class Rank:
    """One process: where and when it runs, and what it measured."""

    index: int
    local: int
    host: Host
    board: Board
    window: Span
    run: Span
    listed: tuple[Board, ...]
    gpu: Reading | None
    cpu: Reading | None
    ram: Reading | None

    @property
    def readings(self) -> list[Reading]:
        return [reading for reading in (self.gpu, self.cpu, self.ram) if reading is not None]


@dataclass(frozen=True)
class Experiment:
    """A simulated experiment.

    Attributes:
        records: What the processes recorded.
        truth_j: Energy of what the sensors covered within the union of their windows, each joule once.
        noiseless_plain_j: Sum over all readings, had they no noise.
        plain_j: Sum over all recorded readings.
        readers: Number of processes with a reading.
        meta: Facts for the report of a failure.
    """

    records: list[RawProcessResult]
    truth_j: float
    noiseless_plain_j: float
    plain_j: float
    readers: int
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def is_honest(self) -> bool:
        """Whether the readings count each joule once; noise changes no coverage, so it is left out here."""
        return abs(self.noiseless_plain_j - self.truth_j) <= 0.01 * self.truth_j


def simulate(plan: Plan, rng: Random) -> Experiment:
    """Run one experiment of a class."""
    windows = _windows(plan, rng)
    horizon = (min(start for start, _ in windows) - 20, max(end for _, end in windows) + 20)
    hosts = [_host(plan, rng, index, windows, horizon) for index in range(plan.hosts)]
    ranks = [
        _rank(plan, rng, index, hosts[index // plan.ranks_per_host], window) for index, window in enumerate(windows)
    ]
    kept = sorted(rng.sample(ranks, len(ranks) - plan.missing), key=lambda rank: rank.index)
    readings = [reading for rank in kept for reading in rank.readings]
    covers = [cover for reading in readings for cover in reading.covers]
    return Experiment(
        records=[_record(plan, rng, rank, len(ranks)) for rank in kept],
        truth_j=covered_energy_j(covers),
        noiseless_plain_j=sum(cover.energy_j for cover in covers),
        plain_j=sum(reading.energy_j for reading in readings),
        readers=sum(bool(rank.readings) for rank in kept),
        meta={
            "windows": [tuple(round(edge, 1) for edge in rank.window) for rank in kept],
            "readings_j": [round(sum(reading.energy_j for reading in rank.readings)) for rank in kept],
        },
    )


def _windows(plan: Plan, rng: Random) -> list[Span]:
    """The energy window of each rank."""
    count = plan.hosts * plan.ranks_per_host
    length = rng.uniform(*plan.seconds)
    serial_step = length + rng.uniform(1, 30)
    starts = {"staggered": rng.uniform(0.08, 0.3) * length, "serial": serial_step, "touching": 0.99 * length}
    if plan.windows in starts:
        step = starts[plan.windows]
        return [(step * index, step * index + length) for index in range(count)]
    windows = [_window(plan.windows, rng, length) for _ in range(count)]
    if plan.windows == "nested":
        windows[rng.randrange(count)] = (0.0, length)
    return windows


def _window(kind: Windows, rng: Random, length: float) -> Span:
    """The window of one rank that is independent of the other ranks."""
    jitter = 0.002 * length
    start, end = rng.uniform(-jitter, jitter), length + rng.uniform(-jitter, jitter)
    match kind:
        case "slightly_staggered":
            start = rng.uniform(0, 0.04) * length
            end = start + length
        case "partial":
            start = rng.uniform(0, 0.6) * length
            end = start + rng.uniform(0.5, 1) * length
        case "nested":
            start, end = rng.uniform(0.02, 0.3) * length, rng.uniform(0.6, 0.98) * length
        case "same_start":
            end = rng.uniform(0.65, 1) * length
    return start, end


def _host(plan: Plan, rng: Random, index: int, windows: list[Span], horizon: Span) -> Host:
    first = index * plan.ranks_per_host
    ranks = range(first, first + plan.ranks_per_host)
    load = rng.uniform(*plan.load)
    boards = []
    for board in range(plan.boards):
        users = {rank: windows[rank] for rank in ranks if plan.board_of(rank - first) == board}
        boards.append(_board(plan, rng, host=index, index=board, users=users, horizon=horizon, load=load))
    cpu_share_of: dict[int, Source] = {}
    cpu: tuple[Source, ...]
    if plan.cpu == "constant":
        cpu = (Source(f"cpu of host {index}", constant_power(horizon, CPU_MODEL_W)),)
    else:
        level = rng.uniform(60, 200)
        cpu_share_of = {
            rank: Source(
                f"cpu share of rank {rank}",
                varying_power(
                    rng,
                    horizon,
                    [windows[rank]],
                    level_w=level * rng.uniform(0.6, 1.4) / len(ranks),
                    ripple=plan.ripple,
                    ceiling_w=1e3,
                ),
            )
            for rank in ranks
        }
        idle = Source(f"idle cpu of host {index}", constant_power(horizon, rng.uniform(20, 80)))
        cpu = (idle, *cpu_share_of.values())
    ram = (Source(f"ram of host {index}", constant_power(horizon, rng.uniform(10, 40))),)
    name = f"node-{rng.randrange(10**6)}-{index}"
    return Host(name, f"boot-{rng.getrandbits(64):016x}", tuple(boards), cpu, ram, cpu_share_of)


def _board(
    plan: Plan, rng: Random, *, host: int, index: int, users: dict[int, Span], horizon: Span, load: float
) -> Board:
    limit = plan.model.limit_w
    exact = plan.board_w[host * plan.boards + index] if plan.board_w else None
    idle_w = 0.0 if exact is not None else rng.uniform(0.06, 0.12) * limit
    level = exact if exact is not None else min(limit, limit * load * (1 + plan.spread * rng.uniform(-1, 1)))
    ripple = 0.0 if exact is not None else plan.ripple
    ceiling = max(limit, level)
    shares = [1.0 if exact is not None else rng.uniform(0.7, 1.3) for _ in users]
    share_of = {}
    for (rank, window), share in zip(users.items(), shares, strict=True):
        part = share / sum(shares)
        power = varying_power(
            rng,
            horizon,
            [window],
            level_w=max(level - idle_w, 0.02 * limit) * part,
            ripple=ripple,
            ceiling_w=(ceiling - idle_w) * part,
        )
        share_of[rank] = Source(f"gpu {index} of host {host}, rank {rank}", power)
    idle = Source(f"idle gpu {index} of host {host}", constant_power(horizon, idle_w))
    uuid = f"GPU-{rng.getrandbits(128):032x}"
    return Board(index, uuid, (idle, *share_of.values()), share_of)


def _rank(plan: Plan, rng: Random, index: int, host: Host, window: Span) -> Rank:
    local = index % plan.ranks_per_host
    board = host.boards[plan.board_of(local)]
    first = local // plan.group * plan.group
    visible = host.boards[first : first + plan.group]
    listed, scope = _gpu_coverage(plan, local, host, board, visible)

    def measured(scope: Scope, *parts: tuple[Source, ...]) -> Reading:
        covers = tuple(Coverage(sources, window) for sources in parts)
        energies = tuple(max(0.0, cover.energy_j * (1 + plan.noise * rng.gauss())) for cover in covers)
        return Reading(scope, covers, energies)

    gpu = None
    if scope == "process":
        gpu = measured(scope, (board.share_of[index],))
    elif scope is not None:
        module = host.cpu if plan.model.has_cpu else ()
        parts = [(*seen.sources, *(module if position == 0 else ())) for position, seen in enumerate(listed)]
        gpu = measured(scope, *parts)
    if scope == "process" or scope is None:
        listed = (board,)

    def of_host(kind: HostReading, whole: tuple[Source, ...]) -> Reading | None:
        if kind == "none" or (kind == "rank0" and local):
            return None
        if kind == "share":
            return measured("process", (host.cpu_share_of[index],))
        if kind == "constant":
            covers = (Coverage(whole, window),)
            return Reading("host", covers, (covers[0].energy_j,))
        return measured("host", whole)

    before, after = (rng.uniform(0, 4), rng.uniform(0, 1)) if plan.evidence.window != "field" else (25.0, 2.0)
    is_exact = plan.evidence.window in ("run", "short")
    run = window if is_exact else (window[0] - before, window[1] + after)
    return Rank(
        index, local, host, board, window, run, listed, gpu, of_host(plan.cpu, host.cpu), of_host(plan.ram, host.ram)
    )


def _gpu_coverage(
    plan: Plan, local: int, host: Host, board: Board, visible: tuple[Board, ...]
) -> tuple[tuple[Board, ...], Scope | None]:
    """The boards that a rank reads, and the scope of the reading; None if the rank reads none."""
    reads_all = plan.gpu == "host" or (plan.gpu in ("rank0", "mixed") and local == 0)
    if plan.gpu == "none" or (plan.gpu == "rank0" and local):
        return (), None
    if reads_all:
        return host.boards, "host"
    return (visible if plan.gpu == "visible" else (board,)), "process" if plan.gpu == "share" else "device"


def _record(plan: Plan, rng: Random, rank: Rank, world_size: int) -> RawProcessResult:
    evidence = plan.evidence
    index = _gpu_id(plan, rank)
    names = {"bare": plan.model.name, "all": f"{plan.boards} x {plan.model.name}", "one": f"1 x {plan.model.name}"}
    length = rank.window[1] - rank.window[0]
    inference_sec = length * rng.uniform(0.97, 1.0)
    tokens = 40 * max(1, round(length))
    uuid = None
    if evidence.uuid:
        slice_of = plan.ranks_per_host // plan.boards
        uuid = f"MIG-{rank.board.uuid}/{rank.local % slice_of + 1}/0" if plan.mig else rank.board.uuid
    host_name = f"pod-{rank.host.name}-{rank.index}" if evidence.containers else rank.host.name
    return RawProcessResult(
        experiment_id="simulated",
        backend="pytorch",
        process_index=rank.index,
        gpu_id=index,
        gpu_name=names.get(evidence.boards),
        config_name="simulated",
        model_name="example/model",
        timestamps=_stamps(evidence, rank.run),
        inference_metrics=InferenceMetrics(
            total_tokens=2 * tokens,
            input_tokens=tokens,
            output_tokens=tokens,
            inference_time_sec=inference_sec,
            tokens_per_second=2 * tokens / inference_sec,
        ),
        energy_metrics=_energy(plan, rank),
        compute_metrics=None,
        world_size=world_size if evidence.host or plan.missing else None,
        host=host_name if evidence.host else None,
        gpu_is_mig=True if plan.mig else None,
        gpu_mig_profile="3g.20gb" if plan.mig else None,
        gpu_uuid=uuid,
        gpu_power_limit_w=float(plan.model.limit_w) if evidence.limit else None,
        clock=ClockEvidence(boot_id=rank.host.boot_id) if evidence.boot else None,
        launcher=Launcher(local_rank=rank.local) if evidence.local_rank else None,
        origin=ImportOrigin(tool=evidence.tool) if evidence.tool else None,
    )


def _gpu_id(plan: Plan, rank: Rank) -> int | None:
    if plan.evidence.index != "real":
        return 0 if plan.evidence.index == "zero" else None
    if plan.model.dies == 1:
        return rank.board.index
    per_board = max(1, plan.ranks_per_host // plan.boards)
    return rank.board.index * plan.model.dies + rank.local % per_board % plan.model.dies


def _stamps(evidence: Evidence, span: Span) -> Timestamps:
    start = START.replace(tzinfo=None) if evidence.naive else START
    if evidence.window == "length":
        return Timestamps(start=start, end=None, duration_sec=None)
    return Timestamps(
        start=start + timedelta(seconds=span[0]),
        end=start + timedelta(seconds=span[1]),
        duration_sec=span[1] - span[0],
    )


def _energy(plan: Plan, rank: Rank) -> EnergyMetrics:
    evidence = plan.evidence
    length = rank.window[1] - rank.window[0]
    durations = {"full": length, "duration": length, "run": length, "short": 0.4 * length, "field": 0.0}
    durations["length"] = length
    if not rank.readings:
        claimed = SensorReading(source="nvml", component="gpu", scope="host", problems=["claimed"])
        return EnergyMetrics(
            total_energy_j=0.0 if evidence.zero else None,
            duration_sec=durations[evidence.window],
            window=_stamps(evidence, rank.window) if evidence.window == "full" else None,
            sensors=[claimed] if evidence.sensors else None,
        )
    total = sum(reading.energy_j for reading in rank.readings)
    fields: dict[str, Any] = {}
    for name, reading, kind in (("gpu", rank.gpu, ""), ("cpu", rank.cpu, plan.cpu), ("ram", rank.ram, plan.ram)):
        if reading is None or evidence.only_total:
            continue
        fields[f"{name}_energy_j"] = reading.energy_j
        if name != "ram":
            fields[f"{name}_power_w"] = reading.energy_j / length
        if evidence.scope:
            fields[f"{name}_scope"] = reading.scope
            fields[f"{name}_provenance"] = "modelled" if kind == "constant" else "measured"
    scopes = {reading.scope for reading in rank.readings}
    if evidence.scope and len(scopes) == 1:
        fields["total_scope"] = scopes.pop()
    return EnergyMetrics(
        total_energy_j=total,
        duration_sec=durations[evidence.window],
        window=_stamps(evidence, rank.window) if evidence.window == "full" else None,
        devices=_devices(plan, rank),
        **fields,
    )


def _devices(plan: Plan, rank: Rank) -> list[DeviceEnergy] | None:
    evidence = plan.evidence
    if evidence.devices == "no" or rank.gpu is None:
        return None
    energies: tuple[float | None, ...] = rank.gpu.energies_j
    if evidence.devices == "listed":
        energies = (None,) * len(rank.listed)
    return [
        DeviceEnergy(
            gpu_id=board.index if evidence.index == "real" else None,
            gpu_uuid=board.uuid if evidence.uuid else None,
            gpu_name=plan.model.name,
            gpu_power_limit_w=float(plan.model.limit_w) if evidence.limit else None,
            energy_j=energy,
        )
        for board, energy in zip(rank.listed, energies, strict=True)
    ]
