"""Experiments whose processes were all killed are listed, and their checkpoints can be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import run

SCRIPT = """
import os, sys
from llm_energy_measure import record
with record("exp_7", results_dir=sys.argv[1], sources=[], environ={}, checkpoint_sec=None) as run:
    run.add_tokens(input=1, output=2)
    run._checkpoint()
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    return tmp_path


def test_killed_experiment_is_listed_as_interrupted(results: Path) -> None:
    assert "exp_7" not in run("-o", results, "results", "list").out
    listed = run("-o", results, "results", "list", "--all").out
    [row] = [line for line in listed.splitlines() if line.startswith("exp_7")]
    assert "interrupted" in row


def test_aggregate_names_a_killed_experiment_and_the_command(results: Path) -> None:
    every = run("-o", results, "aggregate", "--all")
    assert every.status == 0
    assert "exp_7: no process has a result" in every.err
    assert "0 aggregated, 0 skipped, 0 failed, 1 interrupted" in every.err
    one = run("-o", results, "aggregate", "exp_7")
    assert one.status == 1
    assert "run 'llm-energy-measure aggregate exp_7 --no-strict' to use the last checkpoints" in one.err


def test_no_strict_uses_the_checkpoints_of_a_killed_experiment(results: Path) -> None:
    done = run("-o", results, "aggregate", "--all", "--no-strict")
    assert done.status == 0
    assert "0 of 1 processes" in done.out
    assert "3 tokens" in done.out
