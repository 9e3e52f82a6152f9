"""Measure the wall time of short commands as whole processes, against Python and click alone.

Usage: python benchmarks/start_up.py [RUNS]    (default 15; the commands take turns, so that drift affects all equally)
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from _installed import compile_package

from llm_energy_measure.results import FileSystemRepository, aggregate_all

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "results" / "raw" / "smollm2_b1_c0"
EXPERIMENTS = 100
LIMIT_SEC = 0.25


def make_results(folder: Path) -> None:
    """Write a hundred aggregated experiments with two processes each, with the size of real results."""
    repository = FileSystemRepository(folder)
    for number in range(EXPERIMENTS):
        name = f"exp_{number:03d}"
        for path in sorted(EXAMPLE.glob("process_*.json")):
            record = msgspec.structs.replace(repository.load_raw(path), experiment_id=name)
            repository.save_raw(name, record)
    if any(outcome.error for outcome in aggregate_all(repository)):
        raise SystemExit("start_up: an experiment could not be aggregated")


def wall_sec(command: list[str]) -> float:
    """Return the wall time of one run of a command, in seconds. The command must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    compile_package()
    folder = Path(tempfile.mkdtemp())
    try:
        make_results(folder)
        tool = str(Path(sys.executable).with_name("llm-energy-measure"))
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            'python -c "import click"': [sys.executable, "-c", "import click"],
            "llm-energy-measure --help": [tool, "--help"],
            f"llm-energy-measure results list, {EXPERIMENTS} experiments": [tool, "-o", str(folder), "results", "list"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for command in commands.values():
            wall_sec(command)  # fills the caches; not counted
        for _ in range(runs):
            for name, command in commands.items():
                times[name].append(wall_sec(command))
    finally:
        shutil.rmtree(folder)
    floor = statistics.median(times["python -c pass"])
    print(f"whole processes, {runs} runs each in turn, Python {sys.version.split()[0]}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{median * 1e3:7.1f} ms median  {min(values) * 1e3:7.1f} least  {median / floor:5.1f} x pass   {name}")
    print(f"the promise: --help and results list within {LIMIT_SEC * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
