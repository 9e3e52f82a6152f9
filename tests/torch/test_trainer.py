"""The example with the real Trainer of transformers. `make test-torch` runs this test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy_measure.results import FileSystemRepository

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 32 * 16


@pytest.mark.parametrize("processes", [1, 2])
def test_example_records_a_real_training(tmp_path: Path, processes: int) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    script = str(ROOT / "examples/trainer/train.py")
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(launcher if processes > 1 else []), script, str(tmp_path), "4"]
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=600)
    assert "energy_j" in done.stdout
    results = FileSystemRepository(tmp_path).load_all_raw("train_1")
    assert [result.status for result in results] == ["completed"] * processes
    counted = [result.inference_metrics.input_tokens for result in results if result.inference_metrics is not None]
    assert counted == [TOKENS]  # the trainer counts over all processes
    assert all(result.energy_metrics.total_energy_j for result in results)
