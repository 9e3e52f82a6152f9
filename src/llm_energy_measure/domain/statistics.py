"""Means, percentiles and Student's t intervals.

Sums are rounded once (`math.fsum`), so that the order of the processes does not change a result.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution.

    Args:
        probability: Probability of a value below the quantile, between 0 and 1 (both excluded).
        degrees: Degrees of freedom, at least 1.

    Raises:
        ValueError: An argument is out of range.

    Source: closed form of the distribution in Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and
        26.7.4, inverted by bisection. The tests compare it with SciPy (relative tolerance 1e-9).

    Example:
        >>> round(t_quantile(0.975, 1), 4)
        12.7062
    """
    if not 0 < probability < 1 or degrees < 1:
        msg = f"cannot compute the t quantile for probability {probability!r} and {degrees!r} degrees of freedom"
        raise ValueError(msg)
    two_sided = abs(2 * probability - 1)
    low, high = 0.0, math.pi / 2
    # The angle atan(t / sqrt(degrees)) has a finite range, and 60 bisections reach the precision of a double.
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _t_within(angle, degrees) < two_sided else (low, angle)
    return math.copysign(math.tan((low + high) / 2) * math.sqrt(degrees), probability - 0.5)


def _t_within(angle: float, degrees: int) -> float:
    """Return the probability that |t| < sqrt(degrees) * tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2 == 1
    term = (cosine if odd else 1.0) if degrees > 1 else 0.0
    total = term
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
