"""Time of `results merge` and of `import` of many small files, with durable writes.

Usage: python benchmarks/many_files.py [EXPERIMENTS] [FILES]    (default 1000 experiments of 8 processes, 6500 logs)

Most of the wall time is sync; it depends on the disk. `cp -r` with one sync at the end is the floor.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _results import make_raw
from importing import write_log

EXPERIMENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
FILES = int(sys.argv[2]) if len(sys.argv) > 2 else 6_500


def measure(name: str, *command: str) -> None:
    """Run a command, and print its wall time and its processor time."""
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall_sec = time.monotonic() - start
    if status:
        message = f"{name} failed"
        raise SystemExit(message)
    print(f"{name:40} {wall_sec:7.1f} s wall, {used.ru_utime + used.ru_stime:6.1f} s processor time", flush=True)


def main() -> None:
    """Create the files, and measure."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("BENCHMARK_DIR")))
    program = (sys.executable, "-m", "llm_energy_measure", "-q")
    try:
        make_raw(folder / "node", EXPERIMENTS)
        what = f"{EXPERIMENTS:,} experiments"
        measure(f"cp -r and sync, {what}", "sh", "-c", f"cp -r {folder}/node {folder}/copy && sync")
        measure(f"merge, {what}", *program, "-o", f"{folder}/all", "results", "merge", f"{folder}/node")
        measure(f"merge again, {what}", *program, "-o", f"{folder}/all", "results", "merge", f"{folder}/node")
        write_log(folder / "log.csv", FILES, 1)
        header, *rows = (folder / "log.csv").read_text().splitlines()
        for number, row in enumerate(rows):
            path = folder / "logs" / f"run_{number:05d}" / "emissions.csv"
            path.parent.mkdir(parents=True)
            path.write_text(f"{header}\n{row}\n")
        what = f"{FILES:,} files"
        measure(f"import, {what}", *program, "-o", f"{folder}/imported", "import", f"{folder}/logs")
        measure(f"import again, {what}", *program, "-o", f"{folder}/imported", "import", f"{folder}/logs")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
