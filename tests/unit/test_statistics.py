"""Means, percentiles and intervals compared with SciPy, NumPy and the standard library."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st

from llm_energy_measure.domain.statistics import mean, percentile, sample_statistics

readings = st.floats(-1e12, 1e12, allow_subnormal=False)


@given(st.lists(readings, min_size=1), st.floats(0, 100))
def test_percentile_equals_numpy(samples: list[float], percent: float) -> None:
    expected = float(np.percentile(samples, percent))
    scale = max(abs(sample) for sample in samples)
    assert percentile(sorted(samples), percent) == pytest.approx(expected, rel=1e-12, abs=scale * 1e-12)


@given(st.lists(readings, min_size=1), st.floats(0, 100))
def test_percentile_is_within_range_of_samples(samples: list[float], percent: float) -> None:
    found = percentile(sorted(samples), percent)
    assert found is not None
    assert min(samples) <= found <= max(samples)
    assert percentile(sorted(samples), 0) == min(samples)
    assert percentile(sorted(samples), 100) == max(samples)


@given(st.lists(readings, min_size=1))
@example([0.1, 0.1, 0.1])
@example([5e-324])
def test_mean_is_within_range_of_samples(samples: list[float]) -> None:
    centre = mean(samples)
    assert centre is not None
    assert min(samples) <= centre <= max(samples)
    assert centre == pytest.approx(statistics.fmean(samples), rel=1e-12, abs=1e-12)


def test_mean_rounds_the_sum_once() -> None:
    assert mean([1e16, 1.0, -1e16]) == 1 / 3


def test_mean_and_percentile_of_no_samples_are_none() -> None:
    assert mean([]) is percentile([], 50) is None


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=20))
def test_standard_deviation_equals_standard_library(samples: list[float]) -> None:
    found = sample_statistics(samples)
    scale = max(abs(sample) for sample in samples)
    assert found.n == len(samples)
    assert found.mean == pytest.approx(statistics.fmean(samples), rel=1e-12, abs=scale * 1e-12)
    assert found.std == pytest.approx(statistics.stdev(samples), rel=1e-9, abs=scale * 1e-12)


@pytest.mark.parametrize("samples", [[9.0, 10.0, 12.5], [3.0, 4.0], [float(x**2) for x in range(30)]])
def test_confidence_interval_equals_scipy(samples: list[float]) -> None:
    found = sample_statistics(samples)
    error = scipy.stats.sem(samples)
    low, high = scipy.stats.t.interval(0.95, len(samples) - 1, loc=np.mean(samples), scale=error)
    assert found.ci_95_lower == pytest.approx(low, rel=1e-9)
    assert found.ci_95_upper == pytest.approx(high, rel=1e-9)
    assert found.cv == pytest.approx(statistics.stdev(samples) / statistics.fmean(samples), rel=1e-12)


def test_one_sample_has_a_mean_but_no_standard_deviation() -> None:
    one = sample_statistics([4.5])
    assert (one.n, one.mean, one.std, one.ci_95_lower, one.ci_95_upper, one.cv) == (1, 4.5, None, None, None, None)
    assert sample_statistics([]).mean is None


def test_equal_samples_have_zero_std_and_zero_mean_has_no_cv() -> None:
    assert sample_statistics([0.1] * 3).std == 0.0
    assert sample_statistics([-1.0, 1.0]).cv is None
