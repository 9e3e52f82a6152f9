"""Latency statistics pooled over processes."""

from __future__ import annotations

import pytest

from llm_energy_measure.domain.latency import LatencyMeasurements, pool_latency
from tests.support import factories


def test_pool_latency_returns_none_without_samples() -> None:
    assert pool_latency([]) is None
    assert pool_latency([LatencyMeasurements(), factories.latency([], [], [])]) is None


def test_percentiles_are_computed_from_pooled_samples() -> None:
    slow, quick = factories.latency([100.0] * 9, [], []), factories.latency([1.0], [], [])
    stats = pool_latency([slow, quick])
    assert stats is not None
    assert stats.ttft_median_ms == 100.0
    assert stats.ttft_mean_ms == pytest.approx(90.1)


def test_each_kind_of_sample_is_pooled_separately() -> None:
    stats = pool_latency([factories.latency([], [], [7.0, 1.0]), factories.latency([], [2.0], [])])
    assert stats is not None
    assert stats.ttft_samples == 0
    assert stats.ttft_mean_ms is stats.ttft_p99_ms is stats.ttft_min_ms is stats.ttft_max_ms is None
    assert (stats.itl_mean_ms, stats.itl_median_ms, stats.itl_p95_ms, stats.itl_p99_ms, stats.itl_samples) == (
        *(2.0, 2.0, 2.0, 2.0, 1),
    )
    assert stats.itl_full_mean_ms == 4.0
    assert stats.itl_full_p99_ms == pytest.approx(6.94)


def test_pool_latency_does_not_change_the_samples() -> None:
    measured = factories.latency([3.0, 1.0], [2.0, 1.0], [9.0, 8.0])
    pool_latency([measured, measured])
    assert measured == factories.latency([3.0, 1.0], [2.0, 1.0], [9.0, 8.0])
