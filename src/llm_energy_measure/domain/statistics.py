"""Means, percentiles and Student's t intervals.

Sums are rounded once (`math.fsum`), so that the order of the processes does not change a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from llm_energy_measure.domain.student_t import t_quantile

CONFIDENCE = 0.95
"""Confidence level of all intervals in this package."""


class SampleStatistics(Struct, frozen=True, kw_only=True):
    """Mean and spread of repeated measurements, in the unit of the samples.

    Attributes:
        n: Number of samples, at least 0.
        mean: Arithmetic mean. None without samples.
        std: Sample standard deviation (n - 1 in the denominator), at least 0. None for fewer than two samples.
        ci_95_lower: Lower limit of the 95 % confidence interval of the mean (Student's t). None if `std` is None.
        ci_95_upper: Upper limit of this interval. None if `std` is None.
        cv: Coefficient of variation, std / mean. None if `std` is None or the mean is 0.
    """

    n: int
    mean: float | None = None
    std: float | None = None
    ci_95_lower: float | None = None
    ci_95_upper: float | None = None
    cv: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half of the width of the interval. None if it is unknown."""
        return None if self.ci_95_upper is None or self.mean is None else self.ci_95_upper - self.mean


def mean(samples: Sequence[float]) -> float | None:
    """Return the arithmetic mean, or None without samples. It is never outside the range of the samples."""
    if not samples:
        return None
    try:
        total = math.fsum(samples) / len(samples)
    except OverflowError:
        total = math.fsum(sample / len(samples) for sample in samples)
    # Both the sum and the quotient are rounded, so the mean can exceed the range by one unit in the last place.
    return min(max(total, min(samples)), max(samples))


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the percentile by linear interpolation between the two nearest ranks, or None without samples.

    Args:
        ordered: Samples in ascending order.
        percent: 0 to 100.

    Source: Hyndman and Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996),
        definition 7, the default of NumPy, R and Excel.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
        2.5
    """
    if not ordered:
        return None
    rank = (len(ordered) - 1) * percent / 100
    below = math.floor(rank)
    low, high = ordered[below], ordered[math.ceil(rank)]
    return min(low + (high - low) * (rank - below), high)


def sample_statistics(samples: Sequence[float]) -> SampleStatistics:
    """Return mean, standard deviation, 95 % confidence interval and coefficient of variation of the samples.

    Args:
        samples: Independent finite values in one unit.

    Example:
        >>> sample_statistics([9.0, 10.0, 11.0]).std
        1.0
    """
    n = len(samples)
    centre = mean(samples)
    if centre is None or n < 2:
        return SampleStatistics(n=n, mean=centre)
    # hypot scales its arguments, so that their squares cannot overflow or underflow.
    std = math.hypot(*(x - centre for x in samples)) / math.sqrt(n - 1)
    half_width = t_quantile((1 + CONFIDENCE) / 2, n - 1) * std / math.sqrt(n)
    return SampleStatistics(
        n=n,
        mean=centre,
        std=std,
        ci_95_lower=centre - half_width,
        ci_95_upper=centre + half_width,
        cv=std / centre if centre else None,
    )
