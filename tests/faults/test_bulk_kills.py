"""A sweep that is killed at any instant: what it made is whole, and the next one goes on with the rest."""

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
PATIENCE_SEC = 30
SWEEP = """
import sys
from llm_energy_measure.results import FileSystemRepository, aggregate_all
if __name__ == "__main__":
    for outcome in aggregate_all(FileSystemRepository(sys.argv[1]), jobs=int(sys.argv[2])):
        print(outcome.experiment_id, flush=True)
"""


@pytest.mark.parametrize("patience_sec", [0.0, 0.1, 0.3, 0.5])
def test_an_interrupt_that_reaches_all_of_its_processes_is_said_once(tmp_path: Path, patience_sec: float) -> None:
    """As Ctrl-C does in a terminal: the workers leave it to the process that started them."""
    for number in range(12 * EXPERIMENTS):
        name = f"exp_{number:03d}"
        (tmp_path / "raw" / name).mkdir(parents=True)
        (tmp_path / "raw" / name / "process_0.json").write_bytes(encode_raw(factories.raw(name)))
    arguments = ["-o", str(tmp_path), "aggregate", "--all", "--jobs", "3", "--json"]
    command = [sys.executable, "-m", "llm_energy_measure", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as sweep:
        assert sweep.stdout is not None
        sweep.stdout.readline()  # it is at work
        time.sleep(patience_sec)
        os.killpg(sweep.pid, signal.SIGINT)
        said = sweep.communicate(timeout=PATIENCE_SEC)[1].decode()
    assert said.strip() in (
        "error: interrupted; what was finished stays",
        f"{12 * EXPERIMENTS} aggregated, 0 skipped, 0 failed",
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_sweep_leaves_whole_aggregates_and_is_gone_on_with(tmp_path: Path, jobs: int) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    for number in range(EXPERIMENTS):
        for record in factories.raws(2, f"exp_{number:02d}"):
            repository.save_raw(record.experiment_id, record)
    whole = FileSystemRepository(tmp_path / "whole")
    shutil.copytree(repository.base_path, whole.base_path)
    list(aggregate_all(whole))
    (tmp_path / "sweep.py").write_text(SWEEP)
    for patience_sec in (0.0, 0.01, 0.03):
        command = [sys.executable, str(tmp_path / "sweep.py"), str(repository.base_path), str(jobs)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as sweep:
            assert sweep.stdout is not None
            sweep.stdout.readline()  # it is at work
            time.sleep(patience_sec)
            os.killpg(sweep.pid, signal.SIGKILL)
        for name in repository.list_aggregated():
            assert repository.read_aggregated(name) == whole.read_aggregated(name)
    outcomes = list(aggregate_all(repository))
    assert len(outcomes) == EXPERIMENTS
    assert {outcome.result for outcome in outcomes} <= {"aggregated", "current"}
    for name in whole.list_aggregated():
        assert repository.read_aggregated(name) == whole.read_aggregated(name)
    assert {finding.code for finding in check_store(repository)} <= {"leftover.file", "leftover.in_use"}


def test_an_interruption_while_a_file_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    repository.save_raw("exp_7", factories.raw("exp_7"))
    made = os.open

    def interrupted(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = made(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT and ".json" in path:
            os.close(descriptor)
            raise KeyboardInterrupt  # Ctrl-C comes as soon as the system call is done
        return descriptor

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(aggregate_all(repository))
    monkeypatch.undo()
    assert list((tmp_path / "results" / "aggregated").iterdir()) == []


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_sweep_that_started_them(tmp_path: Path, ending: signal.Signals) -> None:
    """Only the sweep itself is killed; a pipe that its workers hold open would keep whoever reads it waiting."""
    repository = FileSystemRepository(tmp_path / "results")
    for number in range(EXPERIMENTS):
        repository.save_raw(f"exp_{number:02d}", factories.raw(f"exp_{number:02d}"))
    (tmp_path / "sweep.py").write_text(SWEEP)
    command = [sys.executable, str(tmp_path / "sweep.py"), str(repository.base_path), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as sweep:
        assert sweep.stdout is not None
        sweep.stdout.readline()  # its workers are at work
        sweep.send_signal(ending)
        try:
            sweep.communicate(timeout=PATIENCE_SEC)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(sweep.pid, signal.SIGKILL)
