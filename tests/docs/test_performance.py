"""The benchmark of `docs/explanation/performance.md` runs. No test checks its figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_benchmarks_import_existing_names() -> None:
    """One process runs all files: the traceback of an error names the file."""
    scripts = sorted(map(str, BENCHMARKS.glob("*.py")))
    assert len(scripts) > 10
    code = f"import runpy, sys; sys.path.insert(0, {str(BENCHMARKS)!r}); [*map(runpy.run_path, {scripts})]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
