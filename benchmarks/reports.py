"""Measure `results report`: time, memory and size of the page.

Usage: python benchmarks/reports.py [--experiments N ...] [--folder FOLDER]

Each experiment has 2 processes and a configuration of about 60 keys. Each configuration has 4 repeats. The default
sizes are 5, 300 and 20,000 experiments. The catalogue is up to date before the measurement. Each measurement is a
separate process. The table shows its wall time, its processor time (user and system), its peak memory and the size of
the page.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import COMMAND, make_results

MEASURED = """
import resource, sys
from llm_energy_measure.cli.main import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def measure(results: Path, target: Path) -> tuple[float, float, float]:
    """Write a report, and return wall time in seconds, processor time in seconds and peak memory in MiB."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", MEASURED, "-o", str(results), "results", "report", "--to", str(target)]
    done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begin, processor, int(done.stderr.split()[-1]) / 1024


def main() -> None:
    """Make the results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, nargs="+", default=[5, 300, 20_000])
    parser.add_argument("--folder", type=Path, help="Folder for the results; those that exist are used.")
    options = parser.parse_args()
    print("experiments  wall time  processor time  peak memory  page")
    with tempfile.TemporaryDirectory(dir=".") as temporary:
        for number in options.experiments:
            results = (options.folder or Path(temporary)) / str(number)
            if not (results / "aggregated").exists():
                make_results(results, number)
            subprocess.run(
                [*COMMAND, "-o", str(results), "results", "list", "--limit", "1", "-q"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            target = Path(temporary) / "report.html"
            wall, processor, memory = measure(results, target)
            size = target.stat().st_size / 1000
            print(f"{number:11,}  {wall:7.1f} s  {processor:12.1f} s  {memory:7.0f} MiB  {size:,.0f} kB")


if __name__ == "__main__":
    main()
