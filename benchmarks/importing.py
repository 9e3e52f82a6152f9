"""Measure the import of CodeCarbon rows and of power samples against `csv.DictReader` alone, for three sizes.

Usage: python benchmarks/importing.py [ROWS]    (default 100000; a quarter and a half of it are measured too)

The times are processor times, which other work on the machine hardly changes, and the least of three. The import stores
no record; `durable_save.py` measures saves.
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
"""Number of rows per run of a cumulative log."""

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


def write_log(path: Path, rows: int, rows_per_run: int) -> None:
    """Write a log with this many rows. The energy grows over the rows of one run."""
    rng = random.Random(20260116)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, NAMES, restval="")
        writer.writeheader()
        for row in range(rows):
            run, step = divmod(row, rows_per_run)
            parts = [rng.random() * 1e-6 + step for _ in range(3)]
            energy = dict(zip(("cpu_energy", "gpu_energy", "ram_energy"), map(repr, parts), strict=True))
            timestamp = f"2026-01-24T{run // 3600 % 24:02}:{run // 60 % 60:02}:{run % 60:02}"
            figures = {
                **energy,
                "energy_consumed": repr(sum(parts)),
                "timestamp": timestamp,
                "duration": str(10.0 + step),
            }
            writer.writerow({**CELLS, **figures, "run_id": f"{run:08}-6618-4c6f-823e-14390da28c8d"})


def write_power_log(path: Path, rows: int) -> None:
    """Write a log of nvidia-smi with this many samples of four GPUs."""
    rng = random.Random(20260116)
    with path.open("w", newline="") as file:
        file.write("timestamp, index, power.draw [W], temperature.gpu\n")
        for row in range(rows):
            tick, gpu = divmod(row, 4)
            clock = f"{tick // 3600 % 24:02}:{tick // 60 % 60:02}:{tick % 60:02}.000"
            day = 24 + tick // 86400
            file.write(f"2026/01/{day:02} {clock}, {gpu}, {rng.uniform(90, 400):.2f} W, {40 + row % 9}\n")


def least_sec(work: Callable[[], int], expected: int) -> float:
    """Return the processor time of the fastest round, in seconds; exit if the work returns another number."""
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
    """Return the number of rows that `csv.DictReader` reads."""
    with path.open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def count_imported(path: Path) -> int:
    """Return the number of imported records."""
    return sum(1 for _ in importers.read(path))


def main() -> None:
    """Measure and print."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    folder = Path(tempfile.mkdtemp())
    print(f"least of {ROUNDS} rounds, processor time, Python {sys.version.split()[0]}")
    try:
        kinds: list[tuple[str, Callable[[Path, int], None], Callable[[int], int]]] = [
            ("one row per run", lambda path, rows: write_log(path, rows, 1), lambda rows: rows),
            (
                f"{CUMULATIVE} cumulative rows per run",
                lambda path, rows: write_log(path, rows, CUMULATIVE),
                lambda rows: -(-rows // CUMULATIVE),
            ),
            ("samples of a power log", write_power_log, lambda _: 1),
        ]
        for what, write, records in kinds:
            for rows in (most // 4, most // 2, most):
                path = folder / "log.csv"
                write(path, rows)
                plain = least_sec(lambda path=path: count_plain(path), rows)
                imported = least_sec(lambda path=path: count_imported(path), records(rows))
                print(
                    f"{rows:8,} rows, {path.stat().st_size / 1e6:5.1f} MB, {what}: "
                    f"csv.DictReader {rows / plain:9,.0f} rows/s, import {rows / imported:8,.0f} rows/s, "
                    f"{imported / plain:5.1f} x as long, {imported / rows * 1e6:5.1f} us per row"
                )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
