"""The benchmark that `docs/performance.md` names runs; its figures are none of a test's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_benchmark_measures_each_part_that_it_is_asked_for(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "bulk.py"
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
