"""Student's t distribution compared with SciPy, for whole and fractional degrees of freedom."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st

from llm_energy_measure.domain.student_t import t_quantile, t_tail

DEGREES = [1, 1.0001, 1.5, 2, 2.37, 3, 4, 5, 9, 10.5, 29, 30, 99, 100, 199, 201.3, 1000, 20_000, 1e6]
PROBABILITIES = [1e-9, 1e-4, 0.025, 0.1, 0.3, 0.499, 0.5, 0.5001, 0.6, 0.9, 0.95, 0.975, 0.995, 0.9999]


@pytest.mark.parametrize("degrees", DEGREES)
def test_t_quantile_equals_scipy(degrees: float) -> None:
    for probability in PROBABILITIES:
        expected = float(scipy.stats.t.ppf(probability, degrees))
        assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12), probability


@given(st.floats(1e-4, 1 - 1e-4), st.floats(1, 1e5))
def test_t_quantile_equals_scipy_for_random_arguments(probability: float, degrees: float) -> None:
    expected = float(scipy.stats.t.ppf(probability, degrees))
    assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.floats(-60, 60), st.floats(0.1, 1e5))
@example(0.0, 1.0)
@example(1e-200, 3.0)
@example(1e200, 3.0)
@example(-38.0, 1e5)
def test_t_tail_equals_scipy(t: float, degrees: float) -> None:
    expected = 2 * float(scipy.stats.t.sf(abs(t), degrees))
    assert t_tail(t, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(st.floats(1e-6, 0.5), st.floats(1, 1e5))
def test_tail_of_quantile_is_the_probability(probability: float, degrees: float) -> None:
    assert t_tail(t_quantile(probability, degrees), degrees) == pytest.approx(2 * probability, rel=1e-9)


def test_tail_of_an_infinite_value_is_zero() -> None:
    assert t_tail(math.inf, 3.5) == t_tail(-math.inf, 3.5) == 0.0


@pytest.mark.parametrize(
    ("probability", "degrees"),
    [(0.0, 1), (1.0, 1), (-0.1, 1), (1.5, 1), (math.nan, 1), (0.9, 0), (0.9, 0.5), (0.9, math.nan), (0.9, math.inf)],
)
def test_t_quantile_rejects_arguments_out_of_range(probability: float, degrees: float) -> None:
    with pytest.raises(ValueError, match="cannot compute the t quantile"):
        t_quantile(probability, degrees)


@pytest.mark.parametrize(("t", "degrees"), [(math.nan, 1), (1.0, 0), (1.0, -1), (1.0, math.nan)])
def test_t_tail_rejects_arguments_out_of_range(t: float, degrees: float) -> None:
    with pytest.raises(ValueError, match="cannot compute the tail"):
        t_tail(t, degrees)
