"""Tests of a bulk aggregation that is killed: its aggregates are complete, and the next run does the others."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.store.codec import encode_raw
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

EXPERIMENTS = 60
PATIENCE_SEC = 120
BULK_AGGREGATION = """
import sys
from llm_energy_measure.results import FileSystemRepository, aggregate_all
if __name__ == "__main__":
    for outcome in aggregate_all(FileSystemRepository(sys.argv[1]), jobs=int(sys.argv[2])):
        print(outcome.experiment_id, flush=True)
"""


@pytest.mark.parametrize("delay_sec", [0.0, 0.1, 0.3, 0.5])
def test_interrupt_of_all_processes_prints_one_message(tmp_path: Path, delay_sec: float) -> None:
    """Ctrl-C in a terminal interrupts all processes of the group; only the parent process prints."""
    for number in range(12 * EXPERIMENTS):
        name = f"exp_{number:03d}"
        (tmp_path / "raw" / name).mkdir(parents=True)
        (tmp_path / "raw" / name / "process_0.json").write_bytes(encode_raw(factories.raw(name)))
    arguments = ["-o", str(tmp_path), "aggregate", "--all", "--jobs", "3", "--json"]
    command = [sys.executable, "-m", "llm_energy_measure", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # wait until the aggregation has started
        time.sleep(delay_sec)
        os.killpg(process.pid, signal.SIGINT)
        message = process.communicate(timeout=PATIENCE_SEC)[1].decode()
    assert message.strip() in (
        "error: interrupted; finished work is kept",
        f"{12 * EXPERIMENTS} aggregated, 0 skipped, 0 failed",
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_next_aggregation_completes_a_killed_one(tmp_path: Path, jobs: int) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    for number in range(EXPERIMENTS):
        for record in factories.raws(2, f"exp_{number:02d}"):
            repository.save_raw(record.experiment_id, record)
    expected = FileSystemRepository(tmp_path / "expected")
    shutil.copytree(repository.base_path, expected.base_path)
    list(aggregate_all(expected))
    (tmp_path / "bulk_aggregation.py").write_text(BULK_AGGREGATION)
    for delay_sec in (0.0, 0.01, 0.03):
        command = [sys.executable, str(tmp_path / "bulk_aggregation.py"), str(repository.base_path), str(jobs)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout is not None
            process.stdout.readline()  # wait until the aggregation has started
            time.sleep(delay_sec)
            os.killpg(process.pid, signal.SIGKILL)
        for name in repository.list_aggregated():
            assert repository.read_aggregated(name) == expected.read_aggregated(name)
    outcomes = list(aggregate_all(repository))
    assert len(outcomes) == EXPERIMENTS
    assert {outcome.result for outcome in outcomes} <= {"aggregated", "current"}
    for name in expected.list_aggregated():
        assert repository.read_aggregated(name) == expected.read_aggregated(name)
    assert {finding.code for finding in check_store(repository)} <= {"leftover.file", "leftover.in_use"}


def test_interrupt_during_the_creation_of_a_file_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    repository.save_raw("exp_7", factories.raw("exp_7"))
    real_open = os.open

    def interrupted(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = real_open(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT and ".json" in path:
            os.close(descriptor)
            raise KeyboardInterrupt  # as if Ctrl-C arrived directly after the system call
        return descriptor

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(aggregate_all(repository))
    monkeypatch.undo()
    assert list((tmp_path / "results" / "aggregated").iterdir()) == []


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, ending: signal.Signals) -> None:
    """Only the parent is killed. A worker that stays alive would keep the pipe open, and the reader would wait."""
    repository = FileSystemRepository(tmp_path / "results")
    for number in range(EXPERIMENTS):
        repository.save_raw(f"exp_{number:02d}", factories.raw(f"exp_{number:02d}"))
    (tmp_path / "bulk_aggregation.py").write_text(BULK_AGGREGATION)
    command = [sys.executable, str(tmp_path / "bulk_aggregation.py"), str(repository.base_path), "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # wait until the workers have started
        process.send_signal(ending)
        try:
            process.communicate(timeout=PATIENCE_SEC)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
