"""Measure the peak memory of imports: a long table, long logs, and a folder of many files.

Usage: python benchmarks/import_memory.py [ROWS [FILES]]    (default 1000000 rows of a table, 100000 files)

A separate process reads each input and keeps no record, as the command does. The peak is `ru_maxrss` of this process
and contains the memory before the import, which is printed too. A tenth of each input is measured for comparison.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from importing import write_log

if TYPE_CHECKING:
    from collections.abc import Callable

MAPPING = ["experiment_id=id", "process_index=rank", "world_size=size", "energy_j=kwh*3.6e6", "model_name=model"]
CHILD = """
import resource, sys
from llm_energy_measure import importers
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
records = sum(1 for _ in importers.read(sys.argv[1], mapping=sys.argv[2:]))
print(records, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_table(path: Path, rows: int) -> None:
    """Write a table with four processes per experiment, ordered by rank: rows of one experiment are far apart."""
    with path.open("w") as file:
        file.write("id,rank,size,kwh,model\n")
        for rank in range(4):
            for number in range(rows // 4):
                file.write(f"run-{number:07},{rank},4,0.{number % 1000:03}25,meta-llama/Llama-3.2-1B\n")


def write_power_log(path: Path, rows: int) -> None:
    """Write a log of nvidia-smi with four GPUs, eight samples per second."""
    with path.open("w") as file:
        file.write("timestamp, index, power.draw [W], temperature.gpu\n")
        for row in range(rows):
            file.write(f"{1_770_000_000 + row / 8:.3f}, {row % 4}, {300 + row % 7}.00 W, 45\n")


def write_files(folder: Path, files: int) -> None:
    """Write results of vLLM, one per file, in one folder."""
    folder.mkdir()
    result = {"model_id": "m", "tokenizer_id": "m", "num_prompts": 8, "request_rate": "inf", "duration": 100.0}
    for number in range(files):
        document = {"date": "20260816-160853", "label": f"run {number}", **result, "padding": "x" * 1000}
        (folder / f"{number:06}.json").write_text(json.dumps(document))


def measure(what: str, path: Path, number: int, expected: int, mapping: list[str]) -> None:
    """Import a path in a separate process, and print the peak."""
    command = [sys.executable, "-c", CHILD, str(path), *mapping]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records, before, peak = map(int, done.stdout.split())
    if records != expected:
        message = f"{records} records instead of {expected}"
        raise SystemExit(message)
    print(f"{number:9,} {what}: peak {peak / 1024:5.0f} MiB, {before / 1024:.0f} MiB of it before the import")


def main() -> None:
    """Measure and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    files = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    shapes: list[tuple[str, Callable[[Path, int], None], int, list[str]]] = [
        ("rows of a table that names its experiments", write_table, rows, MAPPING),
        ("rows of CodeCarbon, one per run", lambda path, number: write_log(path, number, 1), 100_000, []),
        ("rows of a power log of four GPUs", write_power_log, rows, []),
        ("files in a folder", write_files, files, []),
    ]
    for what, write, most, mapping in shapes:
        for number in (most // 10, most):
            folder = Path(tempfile.mkdtemp())
            try:
                write(folder / "source", number)
                measure(what, folder / "source", number, 1 if write is write_power_log else number, mapping)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
