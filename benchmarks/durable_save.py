"""Measure a durable save of one raw result against a plain write and against the bare system calls.

Usage: python benchmarks/durable_save.py [FOLDER] [RUNS]

FOLDER selects the disk (default: a temporary folder in the current one). The three ways take turns, so that drift
affects all of them equally. RUNS is 300 by default.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.results import FileSystemRepository

if TYPE_CHECKING:
    from collections.abc import Callable

EXPERIMENT = "exp_7"
LIMIT_RATIO = 1.3
START = datetime(2026, 1, 16, tzinfo=UTC)


def record(process_index: int) -> RawProcessResult:
    """Return a result with the size of real results."""
    return RawProcessResult(
        experiment_id=EXPERIMENT,
        process_index=process_index,
        gpu_id=process_index,
        config_name="baseline",
        model_name="meta-llama/Llama-3.2-1B",
        timestamps=Timestamps(start=START, end=START + timedelta(seconds=40), duration_sec=40.0),
        inference_metrics=InferenceMetrics(
            total_tokens=8192,
            input_tokens=4096,
            output_tokens=4096,
            inference_time_sec=9.5,
            tokens_per_second=862.5,
            latency_per_token_ms=1.16,
        ),
        energy_metrics=EnergyMetrics(total_energy_j=1971.5, duration_sec=9.5),
        compute_metrics=ComputeMetrics(flops_total=2e13),
        effective_config={"batch_size": 8, "decoder": {"temperature": 1.0}},
    )


def plain(folder: Path, number: int, data: bytes) -> None:
    """Write as most programs do: a kill leaves a torn file, and a crash of the machine can lose the file."""
    (folder / f"process_{number}.json").write_bytes(data)


def bare(folder: Path, number: int, data: bytes) -> None:
    """Make only the system calls that a durable, exclusive save needs."""
    path = f"{folder}/process_{number}.json"
    temp = f"{folder}/.process_{number}.json~"
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    os.link(temp, path)
    os.unlink(temp)  # noqa: PTH108 - the bare system call
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def file_system_of(folder: Path) -> str:
    """Return the type of the file system of a folder, from /proc/mounts."""
    found = ("", "unknown")
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return found[1]
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        if folder.resolve().is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(folder: Path, runs: int) -> dict[str, list[float]]:
    """Return the times of each way in seconds. The ways take turns, and each has its own folder."""
    repository = FileSystemRepository(folder / "ours")
    data = repository.save_raw(EXPERIMENT, record(0)).read_bytes()
    ways = {"plain": folder / "plain", "bare": folder / "bare"}
    for way in ways.values():
        way.mkdir()
    times: dict[str, list[float]] = {"plain write": [], "bare system calls": [], "save_raw": []}
    for number in range(1, runs + 1):
        result = record(number)
        times["plain write"].append(seconds(lambda number=number: plain(ways["plain"], number, data)))
        times["bare system calls"].append(seconds(lambda number=number: bare(ways["bare"], number, data)))
        times["save_raw"].append(seconds(lambda result=result: repository.save_raw(EXPERIMENT, result)))
    print(f"one raw result of {len(data)} bytes, {runs} runs of each in turn, Python {sys.version.split()[0]}")
    return times


def main() -> None:
    """Measure and print."""
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    folder = Path(tempfile.mkdtemp(prefix=".durable-save-", dir=base))
    try:
        kind = file_system_of(folder)
        times = measure(folder, runs)
    finally:
        shutil.rmtree(folder)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"file system: {kind}")
    for name, values in times.items():
        ratio = medians[name] / medians["bare system calls"]
        least, p90 = min(values) * 1e3, statistics.quantiles(values, n=10)[-1] * 1e3
        print(f"{medians[name] * 1e3:8.3f} ms median {least:8.3f} least {p90:8.3f} p90 {ratio:7.2f} x bare   {name}")
    print(f"the promise: save_raw at most {LIMIT_RATIO} x the bare system calls, on a disk file system")


if __name__ == "__main__":
    main()
