"""The benchmark of `docs/explanation/performance.md` runs. No test checks its figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def test_benchmark_measures_the_requested_parts(tmp_path: Path) -> None:
    script = BENCHMARKS / "bulk.py"
    command = [
        sys.executable,
        str(script),
        "100",
        "--folder",
        str(tmp_path),
        "--runs",
        "1",
        "--only",
        "aggregate,unchanged",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("aggregate 100 x 8, durable and verified", "aggregate --all of 100, nothing changed", "the promise: "):
        assert line in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aggregated", "raw", "sizes.json"]


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("*.py")))
def test_benchmark_imports_existing_names(script: str) -> None:
    code = f"import runpy, sys; sys.path.insert(0, {str(BENCHMARKS)!r}); runpy.run_path({str(BENCHMARKS / script)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
