"""Errors before the block of a recording runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import ConfigurationError, RecorderError, ResultExistsError, StorageError
from llm_energy_measure.results import FileSystemRepository
from tests.support.children import open_folder, outcome_in_child
from tests.support.recordings import BlockError, file_names, load_result, make_recording, torchrun_environ

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.replay import ManualClock


__all__ = ["open_folder"]  # a fixture


def test_rerun_with_a_used_id_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock):
        pass
    with pytest.raises(ResultExistsError, match="process 0 already has a result"), make_recording(repository, clock):
        pytest.fail("the block must not run")
    with (
        pytest.raises(ResultExistsError, match="expected_processes is 1 in its manifest and 4 in this process"),
        make_recording(repository, clock, environ=torchrun_environ(1, 4)),
    ):
        pytest.fail("the block must not run")


def test_other_configuration_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock, environ=torchrun_environ(0, 2), config={"a": 1, "b": 2}):
        pass
    with make_recording(repository, clock, environ=torchrun_environ(1, 2), config={"b": 2, "a": 1}):
        pass
    with (
        pytest.raises(ResultExistsError, match="config_digest"),
        make_recording(repository, clock, environ=torchrun_environ(1, 2), config={"a": 2}),
    ):
        pytest.fail("the block must not run")


def test_later_attempt_archives_the_earlier_one(repository: FileSystemRepository, clock: ManualClock) -> None:
    with pytest.raises(BlockError), make_recording(repository, clock, environ=torchrun_environ(0, 1)):
        raise BlockError
    with make_recording(repository, clock, environ=torchrun_environ(0, 1, TORCHELASTIC_RESTART_COUNT="1")):
        clock.now += 1.0
    assert load_result(repository).status == "completed"
    assert sorted(path.name for path in (repository.base_path / "raw").iterdir()) == [".exp_7~attempt-0", "exp_7"]


@pytest.mark.parametrize(
    ("environ", "error", "message"),
    [
        ({"RANK": "4", "WORLD_SIZE": "4"}, ConfigurationError, "rank 4 of 4 processes is not possible"),
        ({"RANK": "4"}, ConfigurationError, "set both RANK and WORLD_SIZE, or neither"),
    ],
)
def test_contradictory_rank_is_refused(
    repository: FileSystemRepository,
    clock: ManualClock,
    environ: Mapping[str, str],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message), make_recording(repository, clock, environ=environ):
        pytest.fail("the block must not run")
    assert not repository.base_path.exists()


def test_second_process_with_the_same_rank_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        make_recording(repository, clock, environ=torchrun_environ(1, 2)),
        pytest.raises(RecorderError, match=r"already records this rank; give each process its own rank"),
        make_recording(repository, clock, environ=torchrun_environ(1, 2)),
    ):
        pytest.fail("the block must not run")
    assert file_names(repository) == ["manifest.json", "process_1.json"]


def test_unwritable_directory_is_found_before_the_run(open_folder: Path, clock: ManualClock) -> None:
    open_folder.chmod(0o555)

    def work() -> None:
        with make_recording(FileSystemRepository(open_folder / "results"), clock):
            os._exit(3)  # the block must not run

    refused = outcome_in_child(work, unprivileged=True)
    assert isinstance(refused, StorageError)
    assert "check the permissions" in str(refused)


def test_unknown_source_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        pytest.raises(ConfigurationError, match="there is no such source; choose from nvml"),
        make_recording(repository, clock, sources=["x"]),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval_sec": 0},
        {"interval_sec": -1},
        {"interval_sec": "1"},
        {"checkpoint_sec": 0},
        {"idle_sec": -1},
        {"idle_sec": float("nan")},
        {"idle_sec": None},
        {"w_per_core": -3},
        {"w_per_core": float("nan")},
        {"model_name": None},
        {"backend": 3},
        {"host": 5},
        {"config_name": ""},
        {"process_index": 0.5},
        {"attempt": "1"},
        {"sources": "rapl"},
        {"sources": [3]},
        {"gpus": 0},
        {"gpus": "0,1"},
    ],
)
def test_wrong_argument_is_refused_at_the_call(
    repository: FileSystemRepository, clock: ManualClock, wrong: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot record 'exp_7': {next(iter(wrong))} is .*; (choose|give)"):
        make_recording(repository, clock, **wrong)
