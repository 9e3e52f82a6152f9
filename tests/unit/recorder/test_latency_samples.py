"""Latencies of many requests: bounded memory, true counts, and a uniform choice of samples."""

from __future__ import annotations

import time
import tracemalloc
from statistics import mean

import pytest

from llm_energy_measure.domain.latency import MAX_SAMPLES, LatencyMeasurements, pool_latency
from llm_energy_measure.domain.statistics import percentile
from llm_energy_measure.recorder.latency_samples import RequestLatencies, Samples
from llm_energy_measure.results.store import codec
from tests.support import factories

TOKENS = 100


def add_requests(latencies: RequestLatencies, requests: range) -> None:
    """Add requests whose TTFT is 1 ms times their number and whose gaps grow from 1 ms to 99 ms."""
    for number in requests:
        times = [number * 1e-3 + gap * (gap + 1) / 2e3 for gap in range(TOKENS)]
        latencies.add(0.0, times, is_warmup=False)


def test_samples_are_exact_up_to_the_limit() -> None:
    samples = Samples()
    samples.add([float(value) for value in range(MAX_SAMPLES)])
    assert (samples.is_exact, samples.count, samples.sketch()) == (True, MAX_SAMPLES, None)
    assert samples.kept == [float(value) for value in range(MAX_SAMPLES)]
    samples.add([1.0])
    assert (samples.is_exact, samples.count, len(samples.kept)) == (False, MAX_SAMPLES + 1, MAX_SAMPLES)


@pytest.mark.parametrize("batch", [1, 99, 30_000])
def test_kept_samples_are_a_uniform_choice(batch: int) -> None:
    samples, total = Samples(), 200_000
    for start in range(0, total, batch):
        samples.add([float(value) for value in range(start, min(start + batch, total))])
    assert len(set(samples.kept)) == MAX_SAMPLES
    assert mean(samples.kept) == pytest.approx(total / 2, rel=0.02)
    # The standard error of each decile's share of 1,000 samples is 30.
    for decile in range(10):
        share = sum(decile * total / 10 <= value < (decile + 1) * total / 10 for value in samples.kept)
        assert 850 < share < 1_150


def test_equal_samples_give_equal_records() -> None:
    first, second = RequestLatencies(), RequestLatencies()
    add_requests(first, range(1, 300))
    add_requests(second, range(1, 300))
    assert first.measurements() == second.measurements()


def test_copy_does_not_change_with_the_original() -> None:
    latencies = RequestLatencies()
    add_requests(latencies, range(1, 300))
    before, copied = latencies.measurements().ttft_ms.copy(), latencies.copy()
    add_requests(latencies, range(300, 600))
    assert copied.requests == 299
    assert copied.measurements().ttft_ms == before
    assert copied.measurements().count("itl_full_ms") == 299 * 99


def test_many_requests_need_bounded_memory_and_a_small_file() -> None:
    latencies = RequestLatencies()
    add_requests(latencies, range(1, 300))
    tracemalloc.start()
    try:
        add_requests(latencies, range(300, 3_001))
        grown_mib = tracemalloc.get_traced_memory()[0] / 2**20
    finally:
        tracemalloc.stop()
    assert grown_mib < 5
    measured = latencies.measurements()
    assert (measured.request_count, measured.total_output_tokens, measured.excluded_tokens) == (3_000, 300_000, 6_000)
    assert (measured.count("ttft_ms"), measured.count("itl_full_ms")) == (3_000, 297_000)
    record = factories.raw(inference_metrics=factories.inference(latency_measurements=measured))
    assert len(codec.encode_raw(record)) < 3e6
    assert min(checkpoint_cpu_sec(latencies) for _ in range(3)) < 0.05
    assert_percentiles_within_one_percent(measured, 3_000)


def checkpoint_cpu_sec(latencies: RequestLatencies) -> float:
    """Return the CPU time of the part of a checkpoint that grows with the requests."""
    start = time.thread_time()
    measured = latencies.copy().measurements()
    codec.encode_raw(factories.raw(inference_metrics=factories.inference(latency_measurements=measured)))
    return time.thread_time() - start


def assert_percentiles_within_one_percent(measured: LatencyMeasurements, requests: int) -> None:
    """Compare the pooled statistics of `add_requests` with the exact percentiles of the same samples."""
    pooled = pool_latency([measured])
    assert pooled is not None
    assert (pooled.ttft_samples, pooled.itl_samples) == (requests, requests * (TOKENS - 3))
    ttft = [float(number) for number in range(1, requests + 1)]
    gaps = [float(gap) for gap in range(2, TOKENS - 1) for _ in range(requests)]
    gaps_full = [float(gap) for gap in range(1, TOKENS) for _ in range(requests)]
    for exact, percent, found in (
        (ttft, 50, pooled.ttft_median_ms),
        (ttft, 95, pooled.ttft_p95_ms),
        (ttft, 99, pooled.ttft_p99_ms),
        (gaps, 50, pooled.itl_median_ms),
        (gaps, 95, pooled.itl_p95_ms),
        (gaps, 99, pooled.itl_p99_ms),
        (gaps_full, 99, pooled.itl_full_p99_ms),
    ):
        assert found == pytest.approx(percentile(exact, percent), rel=0.01)
