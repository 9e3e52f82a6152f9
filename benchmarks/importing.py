"""How long CodeCarbon rows take to become records, beside `csv.DictReader` alone, and whether that is linear in rows.

Usage: python benchmarks/importing.py [ROWS]    (default 100000; a quarter and a half of it are measured too)

Times are of the processor and not of the wall, since other work on the machine counts otherwise; each is the least of
three. Nothing is stored: a raw result is synced to the disk one by one, which `durable_save.py` measures.
"""

from __future__ import annotations

import csv
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure import importers
from llm_energy_measure.results.columns import CODECARBON_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
CUMULATIVE = 100
"""Rows of one run, where a log is cumulative."""

NAMES = [column.name for column in CODECARBON_COLUMNS]
CELLS = {
    "project_name": "llama",
    "experiment_id": "5b0fa12a-3dd7-45bb-9766-cc326314d9f1",
    "emissions": "6.99e-08",
    "emissions_rate": "5.41e-08",
    "cpu_power": "41.95754100488428",
    "gpu_power": "343.95754100488428",
    "ram_power": "10.0",
    "water_consumed": "0.0",
    "country_name": "Canada",
    "country_iso_code": "CAN",
    "region": "quebec",
    "os": "Linux-5.15.0-113-generic-x86_64-with-glibc2.35",
    "python_version": "3.10.12",
    "codecarbon_version": "3.3.0",
    "cpu_count": "128",
    "cpu_model": "AMD EPYC 7742 64-Core Processor",
    "gpu_count": "4",
    "gpu_model": "4 x NVIDIA A100-PCIE-40GB",
    "longitude": "-71.2",
    "latitude": "46.8",
    "ram_total_size": "503.531551361084",
    "tracking_mode": "machine",
    "cpu_utilization_percent": "4.5",
    "gpu_utilization_percent": "97.5",
    "ram_utilization_percent": "3.5",
    "ram_used_gb": "17.6",
    "on_cloud": "N",
    "pue": "1.0",
    "wue": "0.0",
}


def write_log(path: Path, rows: int, rows_a_run: int) -> None:
    """A log of so many rows, of which each run has so many, growing."""
    rng = random.Random(20260116)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, NAMES, restval="")
        writer.writeheader()
        for row in range(rows):
            run, step = divmod(row, rows_a_run)
            parts = [rng.random() * 1e-6 + step for _ in range(3)]
            energy = dict(zip(("cpu_energy", "gpu_energy", "ram_energy"), map(repr, parts), strict=True))
            stamp = f"2026-01-24T{run // 3600 % 24:02}:{run // 60 % 60:02}:{run % 60:02}"
            figures = {**energy, "energy_consumed": repr(sum(parts)), "timestamp": stamp, "duration": str(10.0 + step)}
            writer.writerow({**CELLS, **figures, "run_id": f"{run:08}-6618-4c6f-823e-14390da28c8d"})


def least_sec(work: Callable[[], int], expected: int) -> float:
    """Processor time of the quickest round; the work has to come to what is expected."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        found = work()
        times.append(time.process_time() - start)
        if found != expected:
            message = f"{found} rows or records instead of {expected}"
            raise SystemExit(message)
    return min(times)


def count_plain(path: Path) -> int:
    """Rows that `csv.DictReader` sees."""
    with path.open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def count_imported(path: Path) -> int:
    """Records that the importer makes."""
    return sum(1 for _ in importers.read(path))


def main() -> None:
    """Measure and print."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    folder = Path(tempfile.mkdtemp())
    print(f"least of {ROUNDS} rounds, processor time, Python {sys.version.split()[0]}")
    try:
        for rows_a_run in (1, CUMULATIVE):
            what = "a run a row" if rows_a_run == 1 else f"{rows_a_run} cumulative rows a run"
            for rows in (most // 4, most // 2, most):
                path = folder / "emissions.csv"
                write_log(path, rows, rows_a_run)
                plain = least_sec(lambda path=path: count_plain(path), rows)
                imported = least_sec(lambda path=path: count_imported(path), -(-rows // rows_a_run))
                print(
                    f"{rows:8,} rows, {path.stat().st_size / 1e6:5.1f} MB, {what}: "
                    f"csv.DictReader {rows / plain:9,.0f} rows/s, import {rows / imported:8,.0f} rows/s, "
                    f"{imported / plain:5.1f} x as long, {imported / rows * 1e6:5.1f} us a row"
                )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
