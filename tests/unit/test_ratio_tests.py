"""Welch's test, the paired t test, equivalence and Holm's adjustment, compared with SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.ratio_tests import (
    RatioEstimate,
    geometric_mean,
    holm,
    paired_ratio,
    welch_ratio,
)

energies = st.floats(1e-6, 1e9, allow_subnormal=False)
samples = st.lists(energies, min_size=2, max_size=12)
pairs = st.lists(st.tuples(energies, energies), min_size=3, max_size=12)
EXACT = 1e-9


def spread_out(*sides: list[float]) -> bool:
    """Return True if the spread of the logarithms is far above the rounding errors of their sums."""
    return all(np.std(np.log(side)) > 1e-3 for side in sides)


@given(samples, samples)
def test_welch_equals_scipy(base: list[float], candidate: list[float]) -> None:
    if not spread_out(base, candidate):
        return
    found = welch_ratio(base, candidate)
    expected = scipy.stats.ttest_ind(np.log(candidate), np.log(base), equal_var=False)
    assert found.degrees == pytest.approx(expected.df, rel=EXACT)
    assert found.p_different() == pytest.approx(expected.pvalue, rel=EXACT)
    assert found.ratio == pytest.approx(scipy.stats.gmean(candidate) / scipy.stats.gmean(base), rel=EXACT)
    for confidence in (0.9, 0.95):
        interval = expected.confidence_interval(confidence)
        assert np.log(found.interval(confidence)) == pytest.approx([interval.low, interval.high], rel=EXACT, abs=EXACT)


@given(pairs)
def test_paired_test_equals_scipy(values: list[tuple[float, float]]) -> None:
    base, candidate = map(list, zip(*values, strict=True))
    if not spread_out([new / old for old, new in values]):
        return
    found = paired_ratio(base, candidate)
    expected = scipy.stats.ttest_rel(np.log(candidate), np.log(base))
    assert found.degrees == expected.df
    assert found.p_different() == pytest.approx(expected.pvalue, rel=EXACT)
    interval = expected.confidence_interval(0.95)
    assert np.log(found.interval()) == pytest.approx([interval.low, interval.high], rel=EXACT, abs=EXACT)


@given(samples, samples, st.floats(0.001, 2))
def test_equivalence_equals_two_one_sided_tests_of_scipy(
    base: list[float], candidate: list[float], margin: float
) -> None:
    if not spread_out(base, candidate):
        return
    old, new, limit = np.log(base), np.log(candidate), math.log1p(margin)
    above = scipy.stats.ttest_ind(new, old - limit, equal_var=False, alternative="greater").pvalue
    below = scipy.stats.ttest_ind(new, old + limit, equal_var=False, alternative="less").pvalue
    found = welch_ratio(base, candidate)
    p_value = found.p_equivalent(margin)
    assert p_value == pytest.approx(max(above, below), rel=EXACT)
    low, high = found.interval(0.90)
    if abs(p_value - 0.05) > EXACT:
        assert (p_value < 0.05) == (1 / (1 + margin) < low and high < 1 + margin)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_equals_its_definition(p_values: list[float]) -> None:
    """A hypothesis is rejected at its adjusted p-value, and at no lower level."""
    found = holm(p_values)
    for index, p_value in enumerate(p_values):
        smaller = sorted(p_values)[: sorted(p_values).index(p_value) + 1]
        steps = [(len(p_values) - rank) * p for rank, p in enumerate(smaller)]
        assert found[index] == pytest.approx(min(1.0, max(steps)), rel=1e-12)


def test_holm_equals_published_example() -> None:
    """R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")."""
    assert holm([0.05, 0.01, 0.02, 0.04, 0.03]) == pytest.approx([0.09, 0.05, 0.08, 0.09, 0.09])
    assert holm([]) == []


@given(samples, samples)
def test_swapping_the_sides_inverts_the_ratio(base: list[float], candidate: list[float]) -> None:
    found, swapped = welch_ratio(base, candidate), welch_ratio(candidate, base)
    assert swapped.ratio * found.ratio == pytest.approx(1, rel=1e-12)
    assert swapped.p_different() == pytest.approx(found.p_different(), rel=EXACT)
    assert swapped.p_equivalent(0.03) == pytest.approx(found.p_equivalent(0.03), rel=EXACT)
    low, high = found.interval()
    assert swapped.interval() == pytest.approx((1 / high, 1 / low), rel=EXACT)


@given(pairs, st.data())
def test_factor_of_a_block_changes_no_paired_result(values: list[tuple[float, float]], data: st.DataObject) -> None:
    factors = data.draw(st.lists(st.sampled_from([0.25, 0.5, 2.0, 8.0]), min_size=len(values), max_size=len(values)))
    base, candidate = map(list, zip(*values, strict=True))
    found = paired_ratio(
        [value * factor for value, factor in zip(base, factors, strict=True)],
        [value * factor for value, factor in zip(candidate, factors, strict=True)],
    )
    assert found == paired_ratio(base, candidate)


def test_equal_values_without_resolution_have_no_error() -> None:
    found = welch_ratio([2.0, 2.0, 2.0], [3.0, 3.0])
    assert (found.standard_error, found.degrees, found.p_different()) == (0.0, 3.0, 0.0)
    assert welch_ratio([2.0, 2.0], [2.0, 2.0]).p_different() == 1.0


def test_resolution_replaces_a_smaller_spread() -> None:
    found = welch_ratio([2.0, 2.0, 2.0], [2.0, 2.0, 2.0], (0.01, 0.02))
    assert found.variances == pytest.approx((1e-4, 4e-4))
    assert found.standard_error == pytest.approx(math.sqrt(5e-4 / 3))
    assert welch_ratio([1.0, 2.0], [1.0, 2.0], (0.01, 0.01)) == welch_ratio([1.0, 2.0], [1.0, 2.0])
    assert paired_ratio([1.0, 2.0], [1.0, 2.0], 0.01).variances == pytest.approx((1e-4,))


@given(samples, samples, st.integers(1, 50))
def test_more_repeats_shrink_the_interval(base: list[float], candidate: list[float], more: int) -> None:
    found = welch_ratio(base, candidate, (0.001, 0.001))
    later = found.with_more(more)
    assert later.ratio == found.ratio
    assert later.standard_error < found.standard_error
    assert later.p_different() <= found.p_different()


@given(samples)
def test_geometric_mean_equals_scipy(values: list[float]) -> None:
    assert geometric_mean(values) == pytest.approx(float(scipy.stats.gmean(values)), rel=1e-12)


def test_interval_beyond_the_largest_float_is_infinite() -> None:
    low, high = welch_ratio([1e-300, 1e300], [1e300, 1e-300, 1.0]).interval()
    assert 0 < low < 1e-300
    assert high == math.inf
    assert RatioEstimate(log_ratio=800.0, variances=(1.0,), counts=(3,)).ratio == math.inf


def test_degrees_of_freedom_are_at_least_one() -> None:
    estimate = RatioEstimate(log_ratio=0.1, variances=(1e-300, 1.0), counts=(5, 2))
    assert estimate.degrees == 1.0
    assert estimate.interval()[0] > 0
