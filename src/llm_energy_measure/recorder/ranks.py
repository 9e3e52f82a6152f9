"""Rank of a process and number of processes, from the environment variables of its launcher. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import Launcher
from llm_energy_measure.exceptions import ConfigurationError

_DOING = "cannot determine the rank of this process"


class ProcessRank(Struct, frozen=True, kw_only=True):
    """Rank of a process among the processes of its experiment.

    Attributes:
        process_index: Rank, from 0.
        world_size: Number of processes.
        local_world_size: Number of processes on the host; None if unknown.
        launcher: The launcher that started the process; None if there was none.
    """

    process_index: int
    world_size: int
    local_world_size: int | None = None
    launcher: Launcher | None = None


class _Variables(NamedTuple):
    """Names of the environment variables that launchers of one family set; `""` for a fact that they do not give."""

    launcher: str
    rank: str
    size: str
    local_rank: str
    local_size: str
    node: str


# Source: the torchrun manual (torch.distributed.run, Environment Variables); accelerate and deepspeed set the
# same variables.
_TORCH = _Variables("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")

# Source: srun(1), OUTPUT ENVIRONMENT VARIABLES.
_SLURM = _Variables("slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "", "SLURMD_NODENAME")

# Source: MPICH, Hydra process manager. Intel MPI also sets MPI_LOCALRANKID and MPI_LOCALNRANKS.
_PMI = _Variables("mpi", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "")

# The first family whose rank is set is used. Inner launchers come first, because the innermost launcher started the
# process: torchrun runs inside `srun` or `mpirun`, and `mpirun` runs inside a SLURM batch job.
_FAMILIES = (
    _TORCH,
    # Source: Open MPI manual, "Environment variables set for launched processes". No variable names the node.
    _Variables(
        "mpi",
        *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        "",
    ),
    # Source: MVAPICH2 user guide, "Environment variables". MVAPICH 3 uses the same names.
    _Variables(
        "mpi",
        *("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
        "",
    ),
    _PMI,
    # Source: flux-environment(7).
    _Variables("flux", "FLUX_TASK_RANK", "FLUX_JOB_SIZE", "FLUX_TASK_LOCAL_ID", "", ""),
    _SLURM,
)


def find_rank(
    environ: Mapping[str, str],
    *,
    process_index: int | None = None,
    world_size: int | None = None,
    attempt: int | None = None,
) -> ProcessRank:
    """Return the rank of the process with these environment variables; rank 0 of 1 if no launcher sets a rank.

    Args:
        environ: The environment variables.
        process_index: Rank, from 0; overrides the launcher's.
        world_size: Number of processes, at least 1; overrides the launcher's.
        attempt: Number of earlier starts of the experiment; overrides the launcher's.

    Raises:
        ConfigurationError: The variables contradict each other or are not numbers, or the rank is not below the number
            of processes.

    Example:
        >>> rank = find_rank({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})
        >>> rank.process_index, rank.world_size, rank.launcher.local_rank
        (3, 4, 1)
    """
    family = _family(environ, is_given=process_index is not None and world_size is not None)
    rank = size = local_rank = local_size = node = None
    if family is not None:
        rank, size = _number(environ, family.rank), _number(environ, family.size)
        local_rank, local_size = _number(environ, family.local_rank), _number(environ, family.local_size)
        node = environ.get(family.node) or environ.get("SLURMD_NODENAME") or environ.get("SLURM_NODEID") or None
    if family is _SLURM:
        local_size, size = _slurm_local_size(environ), _slurm_size(environ)
    names = f"{family.rank} and {family.size}" if family else "process_index and world_size"
    rank, size = _checked(
        rank if process_index is None else process_index, size if world_size is None else world_size, names
    )
    launcher = Launcher(
        name=_launcher_name(environ, family),
        job_id=_job_id(environ),
        step_id=environ.get("SLURM_STEP_ID") or None,
        node=node,
        local_rank=local_rank,
        attempt=_attempt(environ) if attempt is None else attempt,
    )
    return ProcessRank(
        process_index=rank,
        world_size=size,
        local_world_size=local_size,
        launcher=launcher if launcher != Launcher() else None,
    )


def _checked(rank: int | None, size: int | None, names: str) -> tuple[int, int]:
    """Return rank and number of processes; 0 and 1 if both are unknown. Raise an error if they are contradictory."""
    if (rank is None) != (size is None):
        found = f"the rank is {rank}, and the number of processes is {size}"
        raise ConfigurationError(_DOING, found, f"set both {names}, or neither")
    rank, size = 0 if rank is None else rank, 1 if size is None else size
    if not 0 <= rank < size <= MAX_PROCESSES:
        found = f"rank {rank} of {size} processes is not possible"
        advice = f"correct {names}: 0 <= rank < number of processes <= {MAX_PROCESSES:,}"
        raise ConfigurationError(_DOING, found, advice)
    return rank, size


def _family(environ: Mapping[str, str], *, is_given: bool) -> _Variables | None:
    """Return the launcher family to use; None if no launcher sets a rank.

    If the caller gives rank and size (`is_given`), contradictory variables are not an error.
    """
    for family in _FAMILIES:
        if environ.get(family.rank) or (family is _TORCH and environ.get(family.size)):
            # A batch script also has SLURM_PROCID, although the script is not a task of a step.
            in_step = bool(environ.get("SLURM_STEP_ID"))
            if family is _SLURM and not in_step:
                continue
            if family is _PMI and in_step and environ.get(_SLURM.rank):
                return _pmi_or_slurm(environ, is_given=is_given)
            return family
    return None


def _pmi_or_slurm(environ: Mapping[str, str], *, is_given: bool) -> _Variables:
    """Return the launcher family of this process, which is a task of a SLURM step and also has PMI variables."""
    pmi = _number(environ, _PMI.rank), _number(environ, _PMI.size)
    slurm = _number(environ, _SLURM.rank), _slurm_size(environ)
    if pmi == slurm:
        return _SLURM  # srun --mpi=pmi2 sets both; SLURM's variables also give the local rank
    # Hydra starts one SLURM task per node, and its own processes from there. So the sizes contradict each other only
    # if a node has several SLURM tasks.
    if pmi[1] != slurm[1] and max(_slurm_tasks(environ), default=1) > 1 and not is_given:
        found = f"{_PMI.rank} and {_PMI.size} give rank {pmi[0]} of {pmi[1]}, but SLURM gives {slurm[0]} of {slurm[1]}"
        raise ConfigurationError(_DOING, found, "unset the variables that do not belong to this run")
    return _PMI


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "") if name else ""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 7:  # MAX_PROCESSES has 7 digits
        raise ConfigurationError(_DOING, f"{name} is {text!r}", "set it to a whole number from 0")
    return int(text)


def _slurm_size(environ: Mapping[str, str]) -> int | None:
    """Return the number of tasks of the step if SLURM gives it, else of the job."""
    return _number(environ, "SLURM_STEP_NUM_TASKS") or _number(environ, _SLURM.size)


def _slurm_local_size(environ: Mapping[str, str]) -> int | None:
    """Return the number of tasks of the step on this node; None if unknown."""
    node, counts = _number(environ, "SLURM_NODEID"), _slurm_tasks(environ)
    return counts[node] if node is not None and node < len(counts) else None


def _slurm_tasks(environ: Mapping[str, str]) -> list[int]:
    """Return the number of tasks of the step on each node, from a text such as `4(x2),3`; empty if unreadable."""
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
    if environ.get("TORCHELASTIC_RUN_ID"):
        return "torchrun"
    return "ray" if environ.get("RAY_JOB_ID") else "environment"


def _job_id(environ: Mapping[str, str]) -> str | None:
    """Return the id of the job, equal in all its processes and different in a rerun; None if unknown."""
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', '')}"
    # torchrun uses "none" if the user gives no run id.
    schedulers = "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"
    names = (*schedulers, "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "RAY_JOB_ID")
    return next((value for name in names if (value := environ.get(name)) and value != "none"), None)


def _attempt(environ: Mapping[str, str]) -> int | None:
    """Return a number that grows with each restart by the scheduler or by torchrun; None if neither states one."""
    scheduler = _number(environ, "SLURM_RESTART_COUNT")
    elastic = _number(environ, "TORCHELASTIC_RESTART_COUNT")
    if scheduler is None or elastic is None:
        return elastic if scheduler is None else scheduler
    # After a restart of the job, the number must exceed the numbers of all earlier torchrun restarts.
    return scheduler * ((_number(environ, "TORCHELASTIC_MAX_RESTARTS") or 0) + 1) + elastic
