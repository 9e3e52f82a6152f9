"""Measure what recording costs the recorded process, and compare each figure with its floor.

Usage: python benchmarks/recording.py [SECONDS]    (default 10: how long the CPU time of the sampler is measured)

docs/explanation/performance.md contains the printed table.
"""

from __future__ import annotations

import gc
import heapq
import os
import random
import statistics
import sys
import tempfile
import time
from array import array
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure import record
from llm_energy_measure.domain.latency import pool_latency
from llm_energy_measure.domain.statistics import percentile
from llm_energy_measure.recorder.latency_samples import RequestLatencies
from llm_energy_measure.recorder.sources.rapl import Rapl

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.recorder.recording import Recording

CALLS = 200_000
ROUNDS = 15
HERTZ = 10
SERVED_REQUESTS = 100_000
SERVED_TOKENS = 100


def powercap(folder: Path) -> Path:
    """Write the powercap files of a machine with two processors and separate memory counters: four counters."""
    for socket in range(2):
        for name, part in ((f"package-{socket}", ""), ("dram", ":0")):
            zone = folder / f"intel-rapl:{socket}{part}"
            zone.mkdir(parents=True)
            (zone / "name").write_text(name)
            (zone / "energy_uj").write_text("123456789")
            (zone / "max_energy_range_uj").write_text("262143328850")
    return folder


def make_recording(folder: Path, experiment: str, *, is_sampled: bool) -> Recording:
    """Return a recording of four counters, sampled at 10 Hz or not at all."""
    return record(
        experiment,
        results_dir=folder / "results",
        sources=[Rapl(folder / "powercap")],
        interval_sec=1 / HERTZ if is_sampled else None,
        checkpoint_sec=None,
        environ={},
    )


def nanoseconds(call: Callable[[], object], calls: int = CALLS) -> float:
    """Return the median time of one call in nanoseconds, without the time of the loop."""

    def loop(work: Callable[[], object]) -> float:
        start = time.perf_counter_ns()
        for _ in range(calls):
            work()
        return (time.perf_counter_ns() - start) / calls

    def nothing() -> None:
        """Do nothing: the floor is a call of a Python function."""

    return statistics.median(loop(call) - loop(nothing) for _ in range(ROUNDS))


def cpu_fraction(seconds: float) -> float:
    """Return the CPU time of this process while its main thread sleeps, as a fraction of one core."""
    start, cpu_start = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - cpu_start) / (time.perf_counter() - start)


def calls_of(run: Recording) -> list[tuple[str, float, float]]:
    """Return name, time and floor of each call inside the block, in microseconds per call."""
    instants: list[float] = []
    counts = {"input": 0, "output": 0}

    def add_instant() -> None:
        instants.append(time.monotonic())

    def count() -> None:
        counts["input"] += 3
        counts["output"] += 5

    rows = [("`add_tokens(input, output)`", nanoseconds(lambda: run.add_tokens(3, 5)), nanoseconds(count))]
    with run.request() as request:
        rows.append(("`request.token()`", nanoseconds(request.token), nanoseconds(add_instant)))

    def one_phase() -> None:
        with run.phase("decode"):
            pass

    path = next(Path(run_folder(run)).glob("powercap/*/energy_uj"))

    def read_eight() -> None:
        for _ in range(8):  # four counters, at the start and at the end
            path.read_bytes()

    rows.append(("`phase(name)`, four counters", nanoseconds(one_phase, 500), nanoseconds(read_eight, 500)))
    return [(name, cost / 1e3, floor / 1e3) for name, cost, floor in rows]


def run_folder(run: Recording) -> Path:
    """Return the folder of the benchmark."""
    return Path(run.repository.base_path).parent


def start_and_end_ms(folder: Path) -> tuple[float, float]:
    """Return the median times to enter and to leave the block, in milliseconds."""
    entering, leaving = [], []
    for number in range(ROUNDS):
        recording = make_recording(folder, f"ends-{number}", is_sampled=False)
        start = time.perf_counter()
        with recording:
            entered = time.perf_counter()
        entering.append(entered - start)
        leaving.append(time.perf_counter() - entered)
    return statistics.median(entering) * 1e3, statistics.median(leaving) * 1e3


def serving(folder: Path) -> str:
    """Return one sentence about a run of many requests: time of `token()`, file and memory."""
    calls = SERVED_REQUESTS * SERVED_TOKENS
    times_ns = array("q", bytes(8 * calls))  # all memory is in use before the run
    with record("serving", results_dir=folder / "results", sources=[], checkpoint_sec=1.0, environ={}) as run:
        gc.collect()  # or the requests of earlier measurements are freed during this one
        before_mib = resident_mib()
        for number in range(SERVED_REQUESTS):
            with run.request() as request:
                for token in range(SERVED_TOKENS):
                    start = time.perf_counter_ns()
                    request.token()
                    times_ns[number * SERVED_TOKENS + token] = time.perf_counter_ns() - start
        grown_mib = resident_mib() - before_mib
        checkpoint_ms = nanoseconds(run._checkpoint, 5) / 1e6  # noqa: SLF001 - the recorder calls it in a thread
    longest_ns = heapq.nlargest(calls // 1000 + 1, times_ns)
    size_mb = (folder / "results/raw/serving/process_0.json").stat().st_size / 1e6
    return (
        f"{SERVED_REQUESTS:,} requests of {SERVED_TOKENS} tokens: token() takes "
        f"{longest_ns[-1] / 1e6:.3g} ms at p99.9 and {longest_ns[0] / 1e6:.3g} ms at worst; "
        f"a checkpoint takes {checkpoint_ms:.3g} ms; the file has {size_mb:.2g} MB; memory grows by {grown_mib:.0f} MiB"
    )


def percentile_error() -> float:
    """Return the largest relative error of the stored percentiles of many requests with log-normal latencies."""
    latencies, draw = RequestLatencies(), random.Random(1)
    ttft_ms, gaps_ms = array("d"), array("d")
    for _ in range(SERVED_REQUESTS):
        first_ms, *gaps = (draw.lognormvariate(3, 1) for _ in range(SERVED_TOKENS))
        latencies.add(0.0, [arrival_ms / 1e3 for arrival_ms in accumulate([first_ms, *gaps])], is_warmup=False)
        ttft_ms.append(first_ms)
        gaps_ms.extend(gaps[1:-1])
    pooled = pool_latency([latencies.measurements()])
    errors = []
    for kind, samples_ms in (("ttft", ttft_ms), ("itl", gaps_ms)):
        ordered = sorted(samples_ms)
        for name, percent in (("median", 50), ("p95", 95), ("p99", 99)):
            exact_ms = percentile(ordered, percent) or 0.0
            errors.append(abs(getattr(pooled, f"{kind}_{name}_ms") - exact_ms) / exact_ms)
    return max(errors)


def resident_mib() -> float:
    """Return the memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        powercap(folder / "powercap")
        with make_recording(folder, "calls", is_sampled=False) as run:
            rows = calls_of(run)
        with make_recording(folder, "idle", is_sampled=False):
            floor = cpu_fraction(seconds)
        with make_recording(folder, "sampled", is_sampled=True):
            sampled = cpu_fraction(seconds)
        enter_ms, leave_ms = start_and_end_ms(folder)
        served = serving(folder)
    error = percentile_error()
    print(f"Python {sys.version.split()[0]}, medians of {ROUNDS} rounds, sampler measured for {seconds:g} s\n")
    print("| operation | cost | floor | the floor is | promise |")
    print("|---|---|---|---|---|")
    floors = ("two counts in a dict", "`list.append(time.monotonic())`", "reading one such file eight times")
    promises = ("< 2 us", "< 2 us", "")
    for (what, cost, under), is_floor, promise in zip(rows, floors, promises, strict=True):
        print(f"| {what} | {cost:.2f} us | {under:.2f} us | {is_floor} | {promise} |")
    print(
        f"| sampling four counters at {HERTZ} Hz | {sampled:.3%} of a core | {floor:.3%} | the same without a sampler"
        " | < 1 % |"
    )
    print(f"| entering the block | {enter_ms:.1f} ms | | manifest and locks, durable | |")
    print(f"| leaving the block | {leave_ms:.1f} ms | | the result, durable | |")
    print(f"\n{served}; percentiles are within {error:.2%} of exact")


if __name__ == "__main__":
    main()
