"""Run one launcher with one fault, and say what became of the results and of the energy."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.verification.verdicts import verdict_of
from tests.launchers.launchers import MPI_ENVIRON, ROOT, Launcher
from tests.launchers.worker import EXPERIMENT, WATTS

PATIENCE_SEC = 180
FAULTS = ("none", "uneven", "raise", "kill", "term")
"""No fault; rank 0 ends first; rank 1 raises; rank 1 gets SIGKILL; the launcher gets SIGTERM (SLURM: `scancel`)."""


class Outcome(NamedTuple):
    """What became of one run.

    Attributes:
        status: Exit status of the launcher.
        results: Status of each process that has a result, by rank.
        checkpoints: Ranks of processes that left only a checkpoint.
        launchers: Names of the launcher in the records.
        energy: Recorded energy divided by the true energy of the time in which a process recorded; None if unknown.
        verdict: Verdict on the aggregate.
        is_lower_bound: Whether the aggregate is a lower bound.
    """

    status: int
    results: dict[int, str | None]
    checkpoints: list[int]
    launchers: set[str | None]
    energy: float | None
    verdict: str
    is_lower_bound: bool | None


def run(launcher: Launcher, fault: str, folder: Path, processes: int = 2) -> Outcome:
    """Run a launcher in an empty folder."""
    results = folder / "results"
    command = [*launcher.command(processes), str(results), fault]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environ = {**os.environ, **MPI_ENVIRON, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    if fault == "term":
        _wait_for(folder / "ready", started)
        launcher.terminate(started)
    try:
        _, errors = started.communicate(timeout=PATIENCE_SEC)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        _, errors = started.communicate()
    _wait_for_writers(results)
    if not (results / "raw").exists():
        raise AssertionError(f"{launcher.name} started no process: {errors.decode(errors='replace')[-2000:]}")
    return outcome_of(results, started.returncode)


def _wait_for(path: Path, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SEC
    while not path.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)


def _wait_for_writers(results: Path) -> None:
    """Some launchers end before their processes: wait until no process holds the lock of its rank."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = [msgspec.json.decode(path.read_bytes())["pid"] for path in results.glob("raw/*/claim-process_*.json")]
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.1)


def outcome_of(results: Path, status: int) -> Outcome:
    """Return the outcome of a run from its results directory."""
    recovery = FileSystemRepository(results).recover_raw(EXPERIMENT)
    records = [*recovery.results, *recovery.partials]
    spans = [
        (record.clock.monotonic_start_sec, record.clock.monotonic_end_sec)
        for record in records
        if record.clock is not None
    ]
    aggregated = aggregate_results(
        EXPERIMENT, recovery.results, manifest=recovery.manifest, partials=recovery.partials, strict=False
    )
    energy = None
    if aggregated.total_energy_j is not None:
        true_sec = max(end or 0.0 for _, end in spans) - min(start or 0.0 for start, _ in spans)
        energy = aggregated.total_energy_j / (WATTS * true_sec)
    return Outcome(
        status=status,
        results={record.process_index: record.status for record in recovery.results},
        checkpoints=[record.process_index for record in recovery.partials],
        launchers={record.launcher.name if record.launcher is not None else None for record in records},
        energy=energy,
        verdict=verdict_of(aggregated),
        is_lower_bound=aggregated.is_lower_bound,
    )
