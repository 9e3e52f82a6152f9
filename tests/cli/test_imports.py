"""A budget of imports per command, so that no command waits for modules that it does not use."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.cli.main import bundle as bundle_command
from llm_energy_measure.cli.main import cli
from llm_energy_measure.cli.main import results as results_command

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = """
import sys
from llm_energy_measure.cli.main import main
try:
    main()
except SystemExit:
    print(*sys.modules, file=sys.stderr)
"""

# Each of these imports costs milliseconds to a second. A command may import only those in its budget below.
HEAVY = {
    *("asyncio", "concurrent.futures.process", "ctypes", "csv", "duckdb", "email", "importlib.metadata"),
    *("json", "logging", "msgspec", "multiprocessing", "numpy", "pandas", "polars", "pyarrow", "pydoc", "pygments"),
    *("rich", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "tomllib", "torch", "unittest", "xml", "zoneinfo"),
}
AGGREGATION = {"llm_energy_measure.results.aggregation", "llm_energy_measure.results.batch.verify"}

RECORDS = {"msgspec", "json"}
# The recorder looks for installed sensor packages, and runs a command.
RECORDER = {"csv", "ctypes", "email", "importlib.metadata", "logging", "socket", "subprocess", "tempfile"}
# numpy and pyarrow import most of these modules. The commands prevent pyarrow from importing pandas.
ANALYTICS = HEAVY - {"asyncio", "concurrent.futures.process", "duckdb", "pandas", "polars", "rich", "torch"}

# matplotlib imports most of these modules.
REPORT = HEAVY - {"duckdb", "pandas", "polars", "pyarrow", "torch"}
# A signature needs a program and a file; the numbers of a table are in CSV; names are in a temporary database.
BUNDLE = {"csv", "ctypes", "sqlite3", "subprocess", "tempfile"}

# By command: the heavy modules it may import, whether it may import the aggregation, and its maximum of modules.
BUDGETS: dict[str, tuple[set[str], bool, int]] = {
    "--version": (set(), False, 130),
    "--help": (set(), False, 140),
    "results --help": (set(), False, 140),
    "schema raw": ({"msgspec"}, False, 160),
    "aggregate --all --no-strict": ({*RECORDS, "ctypes"}, True, 260),
    "record --experiment recorded --no-energy -- true": ({*RECORDS, *RECORDER}, False, 310),
    "doctor": ({*RECORDS, *RECORDER}, False, 300),
    "import {folder}/raw --dry-run": ({*RECORDS, "csv", "subprocess", "tempfile"}, True, 300),
    "results list": ({*RECORDS, "sqlite3", "rich"}, False, 280),
    "results list --json --where tokens>1": ({*RECORDS, "sqlite3"}, False, 240),
    "results list --by model --json": ({*RECORDS, "sqlite3"}, False, 240),
    "results show llama_c0": ({*RECORDS, "rich"}, True, 295),
    "results configs --json": ({*RECORDS, "sqlite3"}, False, 240),
    "results repeats --json": ({*RECORDS, "sqlite3", "csv"}, False, 250),
    "results compare id=llama_c0 id=llama_c1": ({*RECORDS, "sqlite3", "rich"}, False, 290),
    "results report --to {folder}/report.html": (REPORT, True, 900),
    "results plot --x config.batch_size --y energy": ({*RECORDS, "sqlite3", "csv"}, False, 290),
    "results order a b": ({"msgspec"}, False, 180),
    "results export --to -": ({*RECORDS, "csv", "sqlite3"}, False, 250),
    "results export --to {folder}/data --format parquet": (ANALYTICS, False, 650),
    "results sql SELECT/**/1 --format json": ({*ANALYTICS, "duckdb"}, False, 700),
    "results tag llama_c0 a=b": (RECORDS, False, 220),
    "results check": (RECORDS, False, 220),
    "results verify --all": (RECORDS, True, 260),
    "results merge {folder}": ({*RECORDS, "ctypes", "logging"}, False, 230),
    "results sync {folder}/other": ({*RECORDS, "ctypes", "logging"}, False, 250),
    "results delete mistral --yes": (RECORDS, False, 220),
    "bundle create --to {folder}/a.zip": ({*RECORDS, *BUNDLE}, True, 310),
    "bundle verify {folder}": ({*RECORDS, *BUNDLE}, True, 290),
    "bundle open {folder}/raw --to {folder}/a": ({*RECORDS, *BUNDLE}, True, 290),
}


def test_every_command_has_a_budget() -> None:
    names = {*cli.lazy, *(f"results {name}" for name in results_command.lazy)} - {"results", "bundle"}
    names |= {f"bundle {name}" for name in bundle_command.lazy}
    assert {name for name in names if not any(line.startswith(name) for line in BUDGETS)} == set()


def test_the_budget_detects_an_additional_import(results: Path) -> None:
    """A command that imports pandas is detected."""
    command = COMMAND.replace("try:\n", "import pandas\ntry:\n")
    done = subprocess.run(
        [sys.executable, "-c", command, "-o", str(results), "--version"], capture_output=True, check=True, text=True
    )
    imported = set(done.stderr.splitlines()[-1].split())
    assert "pandas" in imported & HEAVY
    assert len(imported) > BUDGETS["--version"][2]


@pytest.mark.parametrize("line", BUDGETS)
def test_a_command_stays_within_its_budget(results: Path, line: str) -> None:
    heavy, aggregates, most = BUDGETS[line]
    arguments = line.format(folder=results).split()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "-o", str(results), *arguments], capture_output=True, check=True, text=True
    )
    imported = set(done.stderr.splitlines()[-1].split())
    assert imported & HEAVY <= heavy
    assert aggregates or not imported & AGGREGATION
    assert len(imported) <= most, sorted(imported)
