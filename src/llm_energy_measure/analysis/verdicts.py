"""Verdicts on an estimated ratio: worse, better, equivalent or undecided, and how many repeats would decide."""

from __future__ import annotations

import math
from typing import Literal

from llm_energy_measure.domain.ratio_tests import RatioEstimate

Verdict = Literal["worse", "better", "equivalent", "undecided"]

DEFAULT_MARGIN = 0.03
"""Relative difference that matters, if the user states no other one."""

MOST_REPEATS = 1000
"""Greatest number of further repeats that is computed."""

_SIGNIFICANCE = 0.05
# Quantiles of the normal distribution at this level, rounded down.
_NORMAL_TWO_SIDED = 1.9599
_NORMAL_ONE_SIDED = 1.6448


def verdict_of(
    estimate: RatioEstimate, adjusted_p: float, p_equivalent: float, margin: float, *, is_lower_better: bool
) -> Verdict:
    """Return the verdict on the candidate.

    The verdict is `worse` or `better` if the adjusted p-value is less than 0.05 and the ratio is beyond the margin. The
    verdict is `equivalent` if the 90 % interval of the ratio is within the margin. Otherwise, it is `undecided`.

    Args:
        estimate: The estimated ratio.
        adjusted_p: p-value, adjusted for the number of rows.
        p_equivalent: Greater p-value of the two one-sided tests of equivalence at the margin.
        margin: Relative difference that matters.
        is_lower_better: Whether lower values are better.
    """
    if adjusted_p < _SIGNIFICANCE and _is_beyond(estimate, margin):
        return "worse" if (estimate.log_ratio > 0) == is_lower_better else "better"
    return "equivalent" if p_equivalent < _SIGNIFICANCE else "undecided"


def further_repeats(estimate: RatioEstimate, p_values: tuple[float, float], margin: float) -> int | None:
    """Return the further repeats per side (or blocks) that would decide the verdict if ratio and spread stay the same.

    Args:
        estimate: The undecided estimate.
        p_values: p-value before and after the adjustment. The factor of the adjustment stays the same.
        margin: Relative difference that matters.

    Returns:
        The least number; None if it is greater than `MOST_REPEATS`.
    """
    factor = p_values[1] / p_values[0] if p_values[0] > 0 else 1.0
    is_beyond = _is_beyond(estimate, margin)

    def is_decided(repeats: int) -> bool:
        later = estimate.with_more(repeats)
        return (later.p_different() * factor if is_beyond else later.p_equivalent(margin)) < _SIGNIFICANCE

    # A normal test, which assumes a known spread, needs fewer repeats. The search starts just below its number.
    distance = abs(estimate.log_ratio) if is_beyond else math.log1p(margin) - abs(estimate.log_ratio)
    largest_error = distance / (_NORMAL_TWO_SIDED if is_beyond else _NORMAL_ONE_SIDED)
    if math.fsum(estimate.variances) > (MOST_REPEATS + max(estimate.counts)) * largest_error**2:
        return None
    low = max(0, math.ceil(math.fsum(estimate.variances) / largest_error**2) - max(estimate.counts) - 1)
    high, step = low + 1, 1
    while not is_decided(high):
        if high >= MOST_REPEATS:
            return None
        low, high, step = high, high + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_decided(middle) else (middle, high)
    return high if high <= MOST_REPEATS else None


def _is_beyond(estimate: RatioEstimate, margin: float) -> bool:
    return abs(estimate.log_ratio) > math.log1p(margin)
