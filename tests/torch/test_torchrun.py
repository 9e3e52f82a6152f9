"""Recordings under the real torchrun. `make test-torch` runs these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.verify import verify_experiment
from tests.support.aggregation import aggregate_one
from tests.support.recordings import assert_gap_is_stated

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SEC = 300
WORKER = """
import os, signal, sys, time
from pathlib import Path
import torch
from llm_energy_measure import record
from tests.support.recorded import wait_for
from tests.support.replay import steady_watts

results, crash, end = sys.argv[1], int(sys.argv[2]), sys.argv[3]
gate = Path(results).parent / "gate"
gate.mkdir(exist_ok=True)
with record("exp_7", model_name="m", config={"a": 1}, results_dir=results, checkpoint_sec=0.1,
            sources=[steady_watts(50.0)]) as run:
    run.add_tokens(input=10, output=30)
    wait_for(gate, str(run.rank.process_index), size=run.rank.world_size)
    time.sleep(0.5)
    if run.rank.process_index == crash:
        if end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise MemoryError("of the device")
    if crash >= 0:
        time.sleep(60)
"""


def torchrun(folder: Path, processes: int, *, crash: int = -1, end: str = "-", restarts: int = 0) -> int:
    (folder / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = ["--max-restarts", str(restarts), str(folder / "worker.py"), str(folder / "results"), str(crash), end]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], env=environ, check=False, timeout=PATIENCE_SEC)
    return done.returncode


@pytest.mark.parametrize("processes", [2, 4])
def test_all_processes_save_and_the_host_counts_once(tmp_path: Path, processes: int) -> None:
    assert torchrun(tmp_path, processes) == 0
    repository = FileSystemRepository(tmp_path / "results")
    results = repository.load_all_raw("exp_7")
    assert [result.process_index for result in results] == list(range(processes))
    assert [result.world_size for result in results] == [processes] * processes
    assert {result.launcher.name for result in results if result.launcher} == {"torchrun"}
    assert {result.backend for result in results} == {"pytorch"}
    # A process that ends after the reader takes the sensor over.
    assert any(result.energy_metrics.total_energy_j is not None for result in results)
    outcome = aggregate_one(repository, "exp_7")
    assert outcome.aggregated is not None
    assert outcome.aggregated.total_tokens == 40 * processes
    assert_gap_is_stated(outcome.aggregated)
    assert verify_experiment(repository, "exp_7").outcome == "passed"
    manifest = repository.load_manifest("exp_7")
    assert manifest is not None
    assert manifest.expected_processes == processes


@pytest.mark.parametrize("end", ["kill", "raise"])
def test_killed_or_failed_process_costs_one_result(tmp_path: Path, end: str) -> None:
    """torchrun ends the other processes by SIGTERM, and each saves its result."""
    assert torchrun(tmp_path, 4, crash=2, end=end) == 1
    repository = FileSystemRepository(tmp_path / "results")
    recovery = repository.recover_raw("exp_7")
    statuses = {result.process_index: result.status for result in recovery.results}
    interrupted = dict.fromkeys((0, 1, 3), "interrupted")
    assert statuses == (interrupted if end == "kill" else {**interrupted, 2: "failed"})
    assert [record.process_index for record in recovery.partials] == ([2] if end == "kill" else [])
    result = aggregate_results("exp_7", recovery.results, manifest=recovery.manifest, partials=recovery.partials)
    assert result.total_tokens == 160
    assert result.completeness is not None
    assert result.completeness.coverage == (0.75 if end == "kill" else 1.0)


def test_restart_archives_the_earlier_attempt(tmp_path: Path) -> None:
    assert torchrun(tmp_path, 2, crash=1, end="raise", restarts=1) == 1
    folders = sorted(path.name for path in (tmp_path / "results" / "raw").iterdir())
    assert folders == [".exp_7~attempt-0", "exp_7"]
    manifest = FileSystemRepository(tmp_path / "results").load_manifest("exp_7")
    assert manifest is not None
    assert manifest.attempt == 1
