"""Where a process stands among the processes of its experiment, as its launcher told it. Pure: an environment in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import Launcher
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_DOING = "cannot tell which process of the experiment this is"


class Place(Struct, frozen=True, kw_only=True):
    """Where a process stands among the processes of its experiment.

    Attributes:
        process_index: Its rank, from 0.
        world_size: Number of processes.
        local_world_size: Number of processes on its host; None if unknown.
        launcher: What started it.
    """

    process_index: int
    world_size: int
    local_world_size: int | None = None
    launcher: Launcher | None = None


class _Variables(NamedTuple):
    """The names under which one family of launchers says where a process stands; `""` where it doesn't."""

    launcher: str
    rank: str
    size: str
    local_rank: str
    local_size: str
    node: str


# Source: the torchrun manual (torch.distributed.run, Environment Variables); accelerate and deepspeed set the same.
_TORCH = _Variables("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")

# Source: srun(1), OUTPUT ENVIRONMENT VARIABLES.
_SLURM = _Variables("slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "", "SLURMD_NODENAME")

# Source: MPICH, Hydra process manager; Intel MPI sets MPI_LOCALRANKID and MPI_LOCALNRANKS beside.
_PMI = _Variables("mpi", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "")

# In the order in which they are asked: whoever is closer to the process knows better. torchrun inside `srun` or
# `mpirun` stands first, `mpirun` inside a batch job before SLURM. The first whose rank is set is believed.
_FAMILIES = (
    _TORCH,
    # Source: Open MPI manual, "Environment variables set for launched processes". None of them names the node.
    _Variables(
        "mpi",
        *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        "",
    ),
    _PMI,
    _SLURM,
)


def find_place(
    environ: Mapping[str, str],
    *,
    process_index: int | None = None,
    world_size: int | None = None,
    attempt: int | None = None,
) -> Place:
    """Where the process with this environment stands; alone, rank 0 of 1, where no launcher says anything.

    Args:
        environ: The environment variables.
        process_index: Its rank, from 0, if the caller knows better.
        world_size: Number of processes, at least 1, if the caller knows better.
        attempt: How often the experiment was started before, if the caller knows better.

    Raises:
        ConfigurationError: The variables contradict each other, or hold no numbers.

    Example:
        >>> place = find_place({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})
        >>> place.process_index, place.world_size, place.launcher.local_rank
        (3, 4, 1)
    """
    family = _family(environ, is_told=process_index is not None and world_size is not None)
    rank = size = local_rank = local_size = node = None
    if family is not None:
        rank, size = _number(environ, family.rank), _number(environ, family.size)
        local_rank, local_size = _number(environ, family.local_rank), _number(environ, family.local_size)
        node = environ.get(family.node) or environ.get("SLURMD_NODENAME") or environ.get("SLURM_NODEID") or None
    if family is _SLURM:
        local_size, size = _slurm_local_size(environ), _slurm_size(environ)
    rank = process_index if process_index is not None else rank
    size = world_size if world_size is not None else size
    named = f"{family.rank} and {family.size}" if family else "process_index and world_size"
    if (rank is None) != (size is None):
        found = f"the rank is {rank}, and the number of processes is {size}"
        raise ConfigurationError(_DOING, found, f"set both {named}, or neither")
    rank, size = 0 if rank is None else rank, 1 if size is None else size
    if not 0 <= rank < size <= MAX_PROCESSES:
        found = f"process {rank} of {size} can't be"
        raise ConfigurationError(_DOING, found, f"correct {named}: 0 <= rank < number of processes")
    launcher = Launcher(
        name=_launcher_name(environ, family),
        job_id=_job_id(environ),
        step_id=environ.get("SLURM_STEP_ID") or None,
        node=node,
        local_rank=local_rank,
        attempt=attempt if attempt is not None else _attempt(environ),
    )
    return Place(
        process_index=rank,
        world_size=size,
        local_world_size=local_size,
        launcher=launcher if launcher != Launcher() else None,
    )


def _family(environ: Mapping[str, str], *, is_told: bool) -> _Variables | None:
    """The launcher that is believed; where the caller has told rank and size, nothing hangs on it."""
    for family in _FAMILIES:
        if environ.get(family.rank) or (family is _TORCH and environ.get(family.size)):
            # A batch script has a SLURM_PROCID too, and is no task of a step.
            in_step = bool(environ.get("SLURM_STEP_ID"))
            if family is _SLURM and not in_step:
                continue
            if family is _PMI and in_step and environ.get(_SLURM.rank):
                return _pmi_or_slurm(environ, is_told=is_told)
            return family
    return None


def _pmi_or_slurm(environ: Mapping[str, str], *, is_told: bool) -> _Variables:
    """Who started a task of a SLURM step that has ranks of PMI, too."""
    pmi = _number(environ, _PMI.rank), _number(environ, _PMI.size)
    slurm = _number(environ, _SLURM.rank), _slurm_size(environ)
    if pmi == slurm:
        return _SLURM  # srun itself (--mpi=pmi2), which also tells the local rank
    # Hydra starts one task of SLURM a node, and its own processes from there.
    if pmi[1] != slurm[1] and max(_slurm_tasks(environ), default=1) > 1 and not is_told:
        found = f"{_PMI.rank} and {_PMI.size} say {pmi[0]} of {pmi[1]}, SLURM says {slurm[0]} of {slurm[1]}"
        raise ConfigurationError(_DOING, found, "unset those that are not of this run")
    return _PMI


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "") if name else ""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 7:
        raise ConfigurationError(_DOING, f"{name} is {text!r}", "set it to a whole number from 0")
    return int(text)


def _slurm_size(environ: Mapping[str, str]) -> int | None:
    """Tasks of the step, not of the job, where both are told."""
    return _number(environ, "SLURM_STEP_NUM_TASKS") or _number(environ, _SLURM.size)


def _slurm_local_size(environ: Mapping[str, str]) -> int | None:
    """Tasks of the step on this node."""
    node, counts = _number(environ, "SLURM_NODEID"), _slurm_tasks(environ)
    return counts[node] if node is not None and node < len(counts) else None


def _slurm_tasks(environ: Mapping[str, str]) -> list[int]:
    """Tasks of the step on each node: SLURM lists them such as `4(x2),3`. Empty where it can't be read."""
    counts: list[int] = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        number, _, times = part.partition("(x")
        times = times.rstrip(")") or "1"
        if not (number.isdecimal() and times.isdecimal()) or int(times) > MAX_PROCESSES:
            return []
        counts += [int(number)] * int(times)
    return counts


def _launcher_name(environ: Mapping[str, str], family: _Variables | None) -> str | None:
    if family is not _TORCH:
        return family.launcher if family else None
    return "torchrun" if environ.get("TORCHELASTIC_RUN_ID") else "environment"


def _job_id(environ: Mapping[str, str]) -> str | None:
    """The job: what all its processes have alike and a rerun has not."""
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', '')}"
    # "none" is what torchrun calls a run that nobody named.
    names = (
        "SLURM_JOB_ID",
        "TORCHELASTIC_RUN_ID",
        "PMIX_NAMESPACE",
        "OMPI_MCA_ess_base_jobid",
        "PBS_JOBID",
        "LSB_JOBID",
    )
    return next((value for name in names if (value := environ.get(name)) and value != "none"), None)


def _attempt(environ: Mapping[str, str]) -> int | None:
    """How often the job was started before: by the scheduler, and by torchrun inside each of its starts."""
    scheduler = _number(environ, "SLURM_RESTART_COUNT")
    elastic = _number(environ, "TORCHELASTIC_RESTART_COUNT")
    if scheduler is None or elastic is None:
        return elastic if scheduler is None else scheduler
    # A later start of the job is later than every restart within an earlier one.
    return scheduler * ((_number(environ, "TORCHELASTIC_MAX_RESTARTS") or 0) + 1) + elastic
