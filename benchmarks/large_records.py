"""Memory and time of large and hostile files, each command in a process of its own.

The large raw file has 100,000 requests with all latencies (340 MB). The hostile files are one of 60 MB with 20 million
empty objects, and a sparse one of 500 MB. The goal is a peak of at most 3 times the file plus 100 MB.

Usage: python benchmarks/large_records.py [REQUESTS]    (default 100000)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _results import record
from msgspec.structs import replace

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.results.store.codec import encode_raw

REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
MAKE = sys.argv[2:]
"""Name of a file to create, and its path. A child process inherits the peak memory of its parent, so the parent creates
none."""

GAPS_PER_REQUEST = 62
COMMANDS = (
    ["results", "list", "--all"],
    ["aggregate", "--all"],
    ["results", "show", "exp"],
    ["results", "verify", "exp"],
)


def single() -> RawProcessResult:
    """Return a raw result of an experiment of one process."""
    return replace(record(0, 0), experiment_id="exp", world_size=1)


def large() -> bytes:
    """Return a raw result with all latencies of the requests, spelled as Python's json does."""
    gaps = [10 + (number % 9973) / 7 for number in range(REQUESTS * GAPS_PER_REQUEST)]
    first = [100 + (number % 997) / 7 for number in range(REQUESTS)]
    latency = LatencyMeasurements(
        ttft_ms=first, itl_full_ms=gaps, itl_trimmed_ms=gaps, request_count=REQUESTS, streaming_mode=True
    )
    small = single()
    inference = (
        None if small.inference_metrics is None else replace(small.inference_metrics, latency_measurements=latency)
    )
    return encode_raw(replace(small, inference_metrics=inference))


def hostile() -> bytes:
    """Return a raw result with an unknown field of 20 million empty objects."""
    return encode_raw(single()).removesuffix(b"\n}") + b', "more": [' + b"{}," * 20_000_000 + b"{}]}"


def measure(name: str, folder: Path, size: int) -> None:
    """Run each command and print its peak memory, its time and its first message."""
    for arguments in COMMANDS:
        command = [sys.executable, "-m", "llm_energy_measure", "-q", "-o", str(folder), *arguments]
        start = time.monotonic()
        with tempfile.TemporaryFile() as messages:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages)
            _, _, used = os.wait4(process.pid, 0)
            messages.seek(0)
            output = messages.read().decode().splitlines()
        peak_mb = used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)
        goal_mb = 3 * size / 1e6 + 100
        message = next((line for line in output if line.startswith(("error", "warning"))), "")
        print(
            f"{name:8} {' '.join(arguments):20} {time.monotonic() - start:6.1f} s  {peak_mb:6.0f} MB "
            f"(goal {goal_mb:5.0f} MB)  {message[:100]}",
            flush=True,
        )


def make(name: str, path: Path) -> None:
    """Create a file."""
    path.write_bytes({"large": large, "hostile": hostile, "sparse": lambda: b'{"schema_version": '}[name]())
    if name == "sparse":
        with path.open("r+b") as file:
            file.truncate(500_000_000)


def main() -> None:
    """Create the files and run the commands."""
    for name in ("large", "hostile", "sparse"):
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as base:
            path = Path(base) / "raw" / "exp" / "process_0.json"
            path.parent.mkdir(parents=True)
            subprocess.run([sys.executable, __file__, str(REQUESTS), name, str(path)], check=True)
            measure(name, Path(base), path.stat().st_size)


if __name__ == "__main__":
    if MAKE:
        make(MAKE[0], Path(MAKE[1]))
    else:
        main()
