"""How much memory an import takes at its peak: of one long table, of one long log, and of a folder of many files.

Usage: python benchmarks/import_memory.py [ROWS [FILES]]    (default 1000000 rows of a table, 100000 files)

Each is read by a process of its own, which lets go of each record at once, as the command does. Its peak is told by the
kernel (`ru_maxrss`), what it had before it read anything included. A tenth of each is measured beside it.
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
    """Four processes an experiment, all of rank 0 first: no two rows of one stand together."""
    with path.open("w") as file:
        file.write("id,rank,size,kwh,model\n")
        for rank in range(4):
            for number in range(rows // 4):
                file.write(f"run-{number:07},{rank},4,0.{number % 1000:03}25,meta-llama/Llama-3.2-1B\n")


def write_files(folder: Path, files: int) -> None:
    """Results of vLLM, each in a file of its own, all in one folder."""
    folder.mkdir()
    result = {"model_id": "m", "tokenizer_id": "m", "num_prompts": 8, "request_rate": "inf", "duration": 100.0}
    for number in range(files):
        document = {"date": "20260816-160853", "label": f"run {number}", **result, "padding": "x" * 1000}
        (folder / f"{number:06}.json").write_text(json.dumps(document))


def measure(what: str, path: Path, expected: int, mapping: list[str]) -> None:
    """Read it in a process of its own, and print its peak."""
    command = [sys.executable, "-c", CHILD, str(path), *mapping]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records, before, peak = map(int, done.stdout.split())
    if records != expected:
        message = f"{records} records instead of {expected}"
        raise SystemExit(message)
    print(f"{expected:9,} {what}: peak {peak / 1024:5.0f} MiB, {before / 1024:.0f} MiB of them before")


def main() -> None:
    """Measure and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    files = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    shapes: list[tuple[str, Callable[[Path, int], None], int, list[str]]] = [
        ("rows of a table that names its experiments", write_table, rows, MAPPING),
        ("rows of CodeCarbon, each a run", lambda path, number: write_log(path, number, 1), 100_000, []),
        ("files in a folder", write_files, files, []),
    ]
    for what, write, most, mapping in shapes:
        for number in (most // 10, most):
            folder = Path(tempfile.mkdtemp())
            try:
                write(folder / "original", number)
                measure(what, folder / "original", number, mapping)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
