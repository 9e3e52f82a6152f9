"""Recordings with a manual clock and a sensor of constant power, for tests of `record`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_energy_measure import record
from tests.support.replay import steady_watts

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import AggregatedSummary, RawProcessResult
    from llm_energy_measure.recorder.recording import Recording
    from llm_energy_measure.results import FileSystemRepository
    from tests.support.replay import ManualClock

EXPERIMENT = "exp_7"


class BlockError(Exception):
    """Raised inside the block of a recording."""


def torchrun_environ(index: int, count: int, **more: str) -> dict[str, str]:
    """Return the variables that torchrun sets for a process, if all processes run on one host."""
    ranks = {"RANK": str(index), "WORLD_SIZE": str(count), "LOCAL_RANK": str(index), "LOCAL_WORLD_SIZE": str(count)}
    return {**ranks, **more}


def make_recording(repository: FileSystemRepository, clock: ManualClock, **changes: Any) -> Recording:
    """Return a recording of 50 W of CPU power without threads; `changes` are other arguments of `record`."""
    arguments: dict[str, Any] = {
        "model_name": "m",
        "environ": {},
        "repository": repository,
        "clock": clock,
        "sources": [steady_watts(50.0, clock)],
        "interval_sec": None,
        "checkpoint_sec": None,
        **changes,
    }
    return record(arguments.pop("experiment", EXPERIMENT), **arguments)


def file_names(repository: FileSystemRepository) -> list[str]:
    """Return the names of all files in the folder of the experiment."""
    return sorted(path.name for path in (repository.base_path / "raw" / EXPERIMENT).iterdir())


def load_result(repository: FileSystemRepository, index: int = 0) -> RawProcessResult:
    """Return the saved result of a process."""
    return repository.load_raw(repository.base_path / "raw" / EXPERIMENT / f"process_{index}.json")


def assert_gap_is_stated(result: AggregatedSummary) -> None:
    """In so short a run, a process can end more than 1 % after the reader and before it has saved its result."""
    warnings = result.aggregation.warnings
    assert all("energy covers" in text for text in warnings)
    assert result.is_lower_bound is bool(warnings)
