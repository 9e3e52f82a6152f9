"""The clock of the store in a recording."""

from __future__ import annotations

import contextlib
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure import record
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore
from tests.support.recordings import load_result, make_recording, torchrun_environ
from tests.support.replay import START_WALL, ManualClock, OtherMachineClock, ReplaySource, sensor

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.findings import Finding


def two_hosts(repository: FileSystemRepository, *ahead_sec: float) -> list[RawProcessResult]:
    """Return simultaneous results of two hosts in one store, whose wall clocks are ahead by these seconds."""
    with contextlib.ExitStack() as stack:
        for index, seconds in enumerate(ahead_sec):
            machine = OtherMachineClock(f"node-{index}", seconds)
            environ = torchrun_environ(0, len(ahead_sec), RANK=str(index), LOCAL_WORLD_SIZE="1")
            stack.enter_context(
                record(
                    "exp_7",
                    environ=environ,
                    repository=repository,
                    clock=machine,
                    host=machine.machine,
                    sources=[],
                    checkpoint_sec=None,
                )
            )
    return repository.load_all_raw("exp_7")


def finding_of(code: str, results: list[RawProcessResult]) -> Finding:
    [finding] = [finding for finding in aggregate_results("exp_7", results).findings or () if finding.code == code]
    return finding


def test_store_clock_shows_the_offset_between_hosts(repository: FileSystemRepository) -> None:
    finding = finding_of("time.clock_offset", two_hosts(repository, 0.0, 500.0))
    assert finding.outcome == "failed"
    assert finding.found == pytest.approx(500.0, abs=5.0)  # a busy machine delays the readings
    assert re.search(r"host node-1 is (49|50)[0-9]\S* s \(.*\) ahead of the clock of host node-0", finding.message)


def test_small_offset_between_hosts_is_no_finding(repository: FileSystemRepository) -> None:
    results = two_hosts(repository, 0.0, 0.2)
    findings = aggregate_results("exp_7", results).findings or []
    assert "time.clock_offset" not in {finding.code for finding in findings}, "a passed check is not stored"
    clocks = [result.clock for result in results]
    assert len({clock.store_id for clock in clocks if clock is not None}) == 1


def test_clocks_of_two_stores_are_not_compared(tmp_path: Path) -> None:
    one, other = (two_hosts(FileSystemRepository(tmp_path / name), 0.0, 5.0) for name in ("a", "b"))
    assert finding_of("time.clock_offset", [one[0], other[1]]).outcome == "not_checked"


class LoggedStore(LocalStore):
    """A store that logs each access to the folder of the experiment. A reading of its clock is one."""

    def __init__(self, root: Path, log: list[str]) -> None:
        super().__init__(root)
        self.log = log

    def path(self, key: str) -> Path:
        if key == "raw/exp_7":
            self.log.append("store")
        return super().path(key)


def test_store_clock_is_read_outside_the_block(tmp_path: Path, clock: ManualClock) -> None:
    log: list[str] = []

    def read() -> float:
        log.append("sensor")
        return clock.monotonic()

    repository = FileSystemRepository(tmp_path, store=LoggedStore(tmp_path, log))
    with make_recording(repository, clock, sources=[ReplaySource(sensor(read))]):
        log.append("block")
        clock.now += 4.0
    inside = log[log.index("sensor") : len(log) - log[::-1].index("sensor")]
    assert "store" not in inside
    assert log.index("store") < log.index("sensor") < log.index("block")
    assert log[::-1].index("store") < log[::-1].index("sensor")
    found = load_result(repository).clock
    assert found is not None
    assert found.store_start_sec is not None
    assert found.store_end_sec is not None
    assert found.store_error_sec is not None
    assert found.store_error_sec < 0.1


def test_checkpoint_has_the_store_clock_of_the_start_only(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run:
        run._checkpoint()
        partial = repository.load_raw(repository.base_path / "raw" / "exp_7" / "partial-process_0.json")
    assert partial.clock is not None
    assert partial.clock.store_start_sec is not None
    assert partial.clock.store_end_sec is None


def test_result_is_kept_if_the_store_clock_fails(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock):
        shutil.rmtree(repository.base_path)
    found = load_result(repository).clock
    assert found is not None
    assert (found.store_start_sec is None, found.store_end_sec is None) == (False, True)


def test_store_in_memory_has_no_clock(tmp_path: Path, clock: ManualClock) -> None:
    repository = FileSystemRepository(tmp_path, store=MemoryStore())
    with make_recording(repository, clock) as run:
        pass
    assert run.result is not None
    assert run.result.clock is not None
    assert (run.result.clock.store_id, run.result.clock.store_start_sec, run.result.clock.store_error_sec) == (
        None,
    ) * 3
    assert run.result.clock.wall_start_sec == START_WALL
