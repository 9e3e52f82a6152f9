"""Rank and number of processes from the variables of each launcher."""

from __future__ import annotations

import pytest

from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.recorder.ranks import ProcessRank, find_rank

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "3",
}
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_NODEID": "1",
    "SLURMD_NODENAME": "node-b",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_NODE_RANK": "0",
    "PMIX_NAMESPACE": "prterun-node-a-17@1",
}
MVAPICH = {
    "MV2_COMM_WORLD_RANK": "1",
    "MV2_COMM_WORLD_SIZE": "2",
    "MV2_COMM_WORLD_LOCAL_RANK": "1",
    "MV2_COMM_WORLD_LOCAL_SIZE": "2",
}
FLUX = {"FLUX_TASK_RANK": "2", "FLUX_JOB_SIZE": "4", "FLUX_TASK_LOCAL_ID": "0", "FLUX_JOB_ID": "f2TQ"}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}


def values(rank: ProcessRank) -> tuple[object, ...]:
    launcher = rank.launcher
    assert launcher is not None
    where = launcher.name, launcher.job_id, launcher.step_id, launcher.node, launcher.local_rank, launcher.attempt
    return rank.process_index, rank.world_size, rank.local_world_size, *where


def test_process_without_launcher_is_rank_0_of_1() -> None:
    assert find_rank({"PATH": "/bin"}) == ProcessRank(process_index=0, world_size=1)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (TORCHRUN, (5, 8, 4, "torchrun", None, None, "1", 1, 0)),
        ({**TORCHRUN, "TORCHELASTIC_RUN_ID": "abc"}, (5, 8, 4, "torchrun", "abc", None, "1", 1, 0)),
        ({"RANK": "0", "WORLD_SIZE": "2"}, (0, 2, None, "environment", None, None, None, None, None)),
        (SRUN, (3, 4, 2, "slurm", "4711", "0", "node-b", 1, None)),
        ({**SRUN, "SLURM_RESTART_COUNT": "2"}, (3, 4, 2, "slurm", "4711", "0", "node-b", 1, 2)),
        (
            {**SRUN, "SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "9"},
            (3, 4, 2, "slurm", "4700_9", "0", "node-b", 1, None),
        ),
        (OPEN_MPI, (2, 4, 2, "mpi", "prterun-node-a-17@1", None, None, 0, None)),
        ({**SRUN, **OPEN_MPI}, (2, 4, 2, "mpi", "4711", "0", "node-b", 0, None)),
        (HYDRA, (1, 2, 2, "mpi", None, None, None, 1, None)),
        (MVAPICH, (1, 2, 2, "mpi", None, None, None, 1, None)),
        (FLUX, (2, 4, None, "flux", "f2TQ", None, None, 0, None)),
        ({**TORCHRUN, "RAY_JOB_ID": "01", "TORCHELASTIC_RUN_ID": ""}, (5, 8, 4, "ray", "01", None, "1", 1, 0)),
    ],
)
def test_rank_of_each_launcher(environ: dict[str, str], expected: tuple[object, ...]) -> None:
    assert values(find_rank(environ)) == expected


def test_torchrun_inside_srun_gives_the_rank_and_slurm_the_job() -> None:
    srun = {**SRUN, "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_RESTART_COUNT": "1"}
    found = values(find_rank({**srun, **TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"}))
    # The first start of the job has four attempts, so the second start begins with attempt 4.
    assert found == (5, 8, 4, "torchrun", "4711", "0", "1", 1, 1 * 4 + 2)


PROXIES = {**SRUN, "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}


def test_hydra_inside_slurm_gives_the_rank() -> None:
    """Hydra starts one task per node. Each task starts the processes of its node."""
    hydra = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
    assert values(find_rank({**PROXIES, **hydra})) == (5, 8, 4, "mpi", "4711", "0", "node-b", 1, None)


def test_srun_with_equal_pmi_variables_is_slurm() -> None:
    assert find_rank({**SRUN, "PMI_RANK": "3", "PMI_SIZE": "4"}) == find_rank(SRUN)


def test_contradictory_pmi_and_slurm_are_refused() -> None:
    stale = {**SRUN, "PMI_RANK": "0", "PMI_SIZE": "1"}
    with pytest.raises(ConfigurationError, match="PMI_SIZE give rank 0 of 1, but SLURM gives 3 of 4; unset"):
        find_rank(stale)
    assert find_rank(stale, process_index=1, world_size=2).process_index == 1


def test_size_is_that_of_the_step_and_not_of_the_job() -> None:
    assert find_rank({**SRUN, "SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "4"}).world_size == 4


def test_batch_script_is_rank_0_of_1_of_its_job() -> None:
    batch = {"SLURM_JOB_ID": "4711", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    found = find_rank(batch)
    assert (found.process_index, found.world_size) == (0, 1)
    assert found.launcher is not None
    assert found.launcher.job_id == "4711"


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [("2", None), ("3,1", 1), ("2(x2),1", 2), ("x", None), ("4(xx)", None), ("9(x99999999)", None), ("", None)],
)
def test_number_of_tasks_on_this_node(tasks: str, expected: int | None) -> None:
    assert find_rank({**SRUN, "SLURM_STEP_TASKS_PER_NODE": tasks}).local_world_size == expected


def test_arguments_override_the_launcher() -> None:
    found = find_rank(TORCHRUN, process_index=1, world_size=2, attempt=7)
    assert values(found)[:2] == (1, 2)
    assert values(found)[-1] == 7


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "4", "WORLD_SIZE": "4"}, r"rank 4 of 4 processes is not possible; correct RANK and WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, r"rank 0 of 0 processes is not possible"),
        ({"RANK": "one", "WORLD_SIZE": "4"}, r"RANK is 'one'; set it to a whole number"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, r"RANK is '-1'"),
        ({"RANK": "1" * 30, "WORLD_SIZE": "4"}, r"RANK is '1+'"),
        ({"RANK": "1"}, r"the rank is 1, and the number of processes is None; set both RANK and WORLD_SIZE"),
        ({"WORLD_SIZE": "4"}, r"the rank is None, and the number of processes is 4"),
        (
            {**SRUN, "SLURM_PROCID": "4"},
            r"rank 4 of 4 processes is not possible; correct SLURM_PROCID and SLURM_NTASKS",
        ),
    ],
)
def test_wrong_variables_are_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        find_rank(environ)


def test_rank_without_number_of_processes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="set both process_index and world_size"):
        find_rank({}, process_index=1)
