"""Measure the commands that the catalogue and the dataset answer, and aggregation and verification of all experiments.

Usage: python benchmarks/tables.py [--experiments N] [--folder FOLDER] [--runs N] [--files field|own]

Each experiment (default 20,000) has 2 processes and a configuration of about 60 keys. Each configuration has 4 repeats.
The raw files have the spelling of the field's tool; `--files own` uses files that this package wrote. If FOLDER
(default: a temporary folder in the current one) already has aggregates, the benchmark uses them and their raw files.
The catalogue and the dataset are up to date before the measurement. Each measurement is a separate process, and the
commands take turns. The table shows medians of processor time (user and system, with worker processes) over N runs
(default 5), with start-up. `aggregate --all --force` and `results verify --all` follow at the end, with at most 3 runs,
because each `aggregate --force` makes the catalogue and the dataset stale. The energy of these records is undetermined,
so that only `repeats --energy plain` has groups.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from _installed import compile_package
from _results import Files, encode, name_of, record

from llm_energy_measure.results import FileSystemRepository, aggregate_all

PROCESSES = 2
REPEATS = 4
MAX_CHECK_RUNS = 3
MAX_VERIFY_RATIO = 1.5
COMMAND = (sys.executable, "-m", "llm_energy_measure")


def configuration(number: int) -> dict[str, Any]:
    """Return a configuration of 60 keys, of which six vary. Repeats differ in seed and `cycle_id`."""
    sweep, cycle = divmod(number, REPEATS)
    sections = {
        f"section_{section}": {f"option_{option}": (section * option) % 7 * 0.5 for option in range(8)}
        for section in range(6)
    }
    return {
        **sections,
        "batching_options": {"batch_size": 2 ** (sweep % 6), "strategy": "static", "dynamic_batching": False},
        "decoder_config": {"top_k": 50, "temperature": sweep % 11 / 10, "do_sample": True},
        "sweep": {"number": sweep, "name": f"sweep {sweep}"},
        "seed": number,
        "cycle_id": cycle,
    }


def make_results(folder: Path, experiments: int, files: Files) -> None:
    """Write and aggregate the experiments."""
    for number in range(experiments):
        experiment_folder = folder / "raw" / name_of(number)
        experiment_folder.mkdir(parents=True)
        for process in range(PROCESSES):
            made = record(number, process)
            model = record(number // REPEATS, process)  # the model and the precision are those of the configuration
            made = msgspec.structs.replace(
                made,
                effective_config=configuration(number),
                world_size=PROCESSES,
                host="node-0",
                model_name=model.model_name,
                compute_metrics=model.compute_metrics,
            )
            (experiment_folder / f"process_{process}.json").write_bytes(encode(made, files))
    for _ in aggregate_all(FileSystemRepository(folder)):
        pass


PANDAS = """
import sys
import pandas, pyarrow.parquet
from llm_energy_measure.catalogue.frames import to_pandas
from llm_energy_measure.results import FileSystemRepository
if len(sys.argv) > 2:
    {body}
"""
TO_PANDAS = PANDAS.format(body="frame = to_pandas(FileSystemRepository(sys.argv[1]))")
READ_PARQUET = PANDAS.format(body="frame = pandas.read_parquet(sys.argv[1] + '/dataset/experiments')")


def commands(folder: Path, target: Path) -> dict[str, list[str]]:
    """Return the measured commands by name."""
    tool = [*COMMAND, "-q", "-o", str(folder)]
    return {
        "start-up (results list --limit 0)": [*tool, "results", "list", "--limit", "0"],
        "results repeats --format json": [*tool, "results", "repeats", "--format", "json"],
        "results repeats --energy plain": [*tool, "results", "repeats", "--energy", "plain", "--format", "json"],
        "results configs": [*tool, "results", "configs"],
        "results list --where config.batch_size": [*tool, "results", "list", "--where", "config.batch_size = 8"],
        "results export --to CSV": [*tool, "results", "export", "--to", str(target / "table.csv")],
        "imports of pandas": [sys.executable, "-c", TO_PANDAS, str(folder)],
        "to_pandas, with imports": [sys.executable, "-c", TO_PANDAS, str(folder), "run"],
        "pandas.read_parquet, with imports": [sys.executable, "-c", READ_PARQUET, str(folder), "run"],
    }


def check_commands(folder: Path) -> dict[str, list[str]]:
    """Return the commands that read all raw files by name: aggregation, which makes the catalogue stale, first."""
    tool = [*COMMAND, "-q", "-o", str(folder)]
    return {
        "aggregate --all --force": [*tool, "aggregate", "--all", "--force"],
        "results verify --all": [*tool, "results", "verify", "--all"],
    }


def processor_sec(command: list[str]) -> float:
    """Return the processor time of a command and its children, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def take_turns(measured: dict[str, list[str]], runs: int) -> dict[str, list[float]]:
    """Run the commands in turn, and return the processor times of each in seconds, by name."""
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(runs):
        for name, command in measured.items():
            seconds[name].append(processor_sec(command))
    return seconds


@contextlib.contextmanager
def results_folder(wanted: str | None, experiments: int, files: Files) -> Iterator[Path]:
    """Yield a folder with the aggregated experiments."""
    with contextlib.ExitStack() as stack:
        folder = Path(wanted or stack.enter_context(tempfile.TemporaryDirectory(dir=os.curdir)))
        if not (folder / "aggregated").exists():
            make_results(folder, experiments, files)
        yield folder


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experiments", type=int, default=20_000)
    parser.add_argument("--folder")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--files", choices=("field", "own"), default="field")
    arguments = parser.parse_args()
    compile_package()
    is_existing = arguments.folder is not None and (Path(arguments.folder) / "aggregated").exists()
    kind = "existing" if is_existing else arguments.files
    wanted = (arguments.folder, arguments.experiments, arguments.files)
    with results_folder(*wanted) as folder, tempfile.TemporaryDirectory() as target:
        measured = commands(folder, Path(target))
        for command in measured.values():  # the first run brings the catalogue and the dataset up to date
            processor_sec(command)
        seconds = take_turns(measured, arguments.runs)
        check_runs = min(arguments.runs, MAX_CHECK_RUNS)
        checks = take_turns(check_commands(folder), check_runs)
    print(f"{arguments.experiments:,} experiments of {PROCESSES} processes, {kind} files, processor time")
    for runs, found in ((arguments.runs, seconds), (check_runs, checks)):
        print(f"median of {runs}")
        for name, values in found.items():
            print(f"{name:<42}{statistics.median(values):>8.2f} s")
    aggregation, verification = map(statistics.median, checks.values())
    ratio = verification / aggregation
    print(f"the promise: verify is at most {MAX_VERIFY_RATIO} x aggregate --force ({ratio:.2f} x)")


if __name__ == "__main__":
    main()
