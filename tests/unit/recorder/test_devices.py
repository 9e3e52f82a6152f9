"""Which GPUs are a process's own."""

from __future__ import annotations

import pytest

from llm_energy_measure.recorder.devices import ROCM_VARIABLES, own_devices, spare_devices, visible_devices
from llm_energy_measure.recorder.place import find_place


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
def test_what_the_environment_shows(text: str | None, expected: list[str] | None) -> None:
    assert visible_devices({} if text is None else {"CUDA_VISIBLE_DEVICES": text}) == expected


def test_amd_has_names_of_its_own() -> None:
    environ = {"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"}
    assert visible_devices(environ, ROCM_VARIABLES) == ["1"]


@pytest.mark.parametrize(
    ("visible", "local_rank", "local_size", "expected"),
    [
        (["0", "1", "2", "3"], 2, 4, ["2"]),  # torchrun: all see all
        (["2"], 2, 4, ["2"]),  # SLURM with a GPU bound to each task
        (["0", "1", "2", "3"], 1, 2, ["1"]),  # two processes, on cuda:0 and cuda:1
        (["0", "1", "2", "3"], 0, 1, ["0", "1", "2", "3"]),  # one process for all: tensor parallel
        (["0"], 1, 2, ["0"]),  # two processes on one GPU
        ([], 0, 2, []),
        (["0", "1"], 5, 4, ["0", "1"]),
    ],
)
def test_the_share_of_a_process(visible: list[str], local_rank: int, local_size: int, expected: list[str]) -> None:
    environ = {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(local_size)}
    assert own_devices(visible, find_place(environ)) == expected


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_the_shares_of_a_host_and_what_is_left_are_all_of_it(size: int) -> None:
    visible = [str(index) for index in range(8)]
    places = [
        find_place({"RANK": str(rank), "WORLD_SIZE": "8", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)})
        for rank in range(size)
    ]
    shares = [own_devices(visible, place) for place in places]
    assert shares == [[str(rank)] for rank in range(size)]
    assert [spare_devices(visible, place) for place in places] == [visible[size:]] * size


def test_nobody_says_how_many_processes_the_host_has() -> None:
    assert own_devices(["0", "1"], find_place({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})) == ["0", "1"]
    assert own_devices(["0", "1"], find_place({})) == ["0", "1"]
    assert spare_devices(["0", "1"], find_place({})) == []
