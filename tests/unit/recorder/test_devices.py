"""The GPUs that belong to a process."""

from __future__ import annotations

import pytest

from llm_energy_measure.recorder.devices import ROCM_VARIABLES, own_devices, unused_devices, visible_devices
from llm_energy_measure.recorder.ranks import find_rank


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", ["0"]),
        (" 3, 1 ", ["3", "1"]),
        ("0,1,-1,2", ["0", "1"]),
        ("1,1", ["1"]),
        ("GPU-8932f937,MIG-3f2c", ["GPU-8932f937", "MIG-3f2c"]),
    ],
)
def test_visible_devices_of_a_variable(text: str | None, expected: list[str] | None) -> None:
    assert visible_devices({} if text is None else {"CUDA_VISIBLE_DEVICES": text}) == expected


def test_rocm_variables_are_read_in_order() -> None:
    environ = {"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"}
    assert visible_devices(environ, ROCM_VARIABLES) == ["1"]


@pytest.mark.parametrize(
    ("visible", "local_rank", "local_size", "expected"),
    [
        (["0", "1", "2", "3"], 2, 4, ["2"]),  # torchrun: each process sees all GPUs
        (["2"], 2, 4, ["2"]),  # SLURM that binds one GPU to each task
        (["0", "1", "2", "3"], 1, 2, ["1"]),  # two processes on cuda:0 and cuda:1
        (["0", "1", "2", "3"], 0, 1, ["0", "1", "2", "3"]),  # one tensor-parallel process uses all GPUs
        (["0"], 1, 2, ["0"]),  # two processes on one GPU
        ([], 0, 2, []),
        (["0", "1"], 5, 4, ["0", "1"]),
    ],
)
def test_own_devices_of_a_process(visible: list[str], local_rank: int, local_size: int, expected: list[str]) -> None:
    environ = {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(local_size)}
    assert own_devices(visible, find_rank(environ)) == expected


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_own_and_unused_devices_are_all_visible_devices(size: int) -> None:
    visible = [str(index) for index in range(8)]
    ranks = [
        find_rank({"RANK": str(rank), "WORLD_SIZE": "8", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)})
        for rank in range(size)
    ]
    own = [own_devices(visible, rank) for rank in ranks]
    assert own == [[str(rank)] for rank in range(size)]
    assert [unused_devices(visible, rank) for rank in ranks] == [visible[size:]] * size


def test_unknown_number_of_local_processes_gives_all_devices() -> None:
    assert own_devices(["0", "1"], find_rank({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})) == ["0", "1"]
    assert own_devices(["0", "1"], find_rank({})) == ["0", "1"]
    assert unused_devices(["0", "1"], find_rank({})) == []
