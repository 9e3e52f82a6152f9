"""Measure processor time and peak memory of `bundle create`, `bundle verify` and `bundle open`.

Usage: python benchmarks/bundles.py [--experiments N ...] [--folder FOLDER]

By default, N is 1,000 and 10,000. Each experiment has 2 processes. The results and bundles are in FOLDER (default: a
temporary folder in the current one); results that exist there are used again. Each command is a separate process. The
peak memory is the maximum resident set of the command.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from _installed import compile_package
from _results import name_of, record

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.codec import encode_raw

PROCESSES = 2
COMMAND = (sys.executable, "-m", "llm_energy_measure")
STATUS_OF_UNSIGNED = 11


def make_results(folder: Path, experiments: int) -> None:
    """Write and aggregate the experiments."""
    for number in range(experiments):
        experiment_folder = folder / "raw" / name_of(number)
        experiment_folder.mkdir(parents=True)
        for process in range(PROCESSES):
            made = msgspec.structs.replace(record(number, process), world_size=PROCESSES)
            (experiment_folder / f"process_{process}.json").write_bytes(encode_raw(made))
    for outcome in aggregate_all(FileSystemRepository(folder)):
        if outcome.error is not None:
            raise outcome.error


def measure(*arguments: object, allowed: int = 0) -> tuple[float, float]:
    """Run a command, and return its processor time in seconds and its peak memory in MiB."""
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        messages = child.stderr.read() if child.stderr is not None else b""
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, allowed):
        raise SystemExit(messages.decode())
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print a table of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    compile_package()
    folder = options.folder or Path(tempfile.mkdtemp(dir=".", prefix="bundles-"))
    print(f"{'experiments':>11}  {'command':<14}  {'time (s)':>8}  {'memory (MiB)':>12}  {'bundle (MB)':>11}")
    try:
        for number in options.experiments:
            results, bundle, opened = folder / f"results-{number}", folder / f"{number}.zip", folder / f"open-{number}"
            if not results.exists():
                # In a process of its own: the peak memory of this process would count as that of its children.
                maker = multiprocessing.get_context("spawn").Process(target=make_results, args=(results, number))
                maker.start()
                maker.join()
            measure("-o", results, "results", "list", "--refresh")  # the catalogue is up to date
            bundle.unlink(missing_ok=True)
            shutil.rmtree(opened, ignore_errors=True)
            all_of_them, half = ("--where", "config = sweep"), ("--where", "tokens > 16500")
            for name, arguments in (
                ("create", ("-o", results, "bundle", "create", "--to", bundle)),
                ("create, all", ("-o", results, "bundle", "create", *all_of_them, "--to", f"{bundle}.where")),
                ("create, half", ("-o", results, "bundle", "create", *half, "--to", f"{bundle}.where")),
                ("verify", ("bundle", "verify", bundle)),
                ("open", ("bundle", "open", bundle, "--to", opened)),
                ("verify folder", ("bundle", "verify", opened)),
            ):
                Path(f"{bundle}.where").unlink(missing_ok=True)
                seconds, memory = measure(*arguments, allowed=STATUS_OF_UNSIGNED)
                size = bundle.stat().st_size / 1e6
                print(f"{number:>11,}  {name:<14}  {seconds:>8.1f}  {memory:>12.0f}  {size:>11.1f}", flush=True)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
