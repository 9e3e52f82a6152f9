"""Tests of the ratio of two geometric means: Welch's test, the paired t test, equivalence, and Holm's adjustment.

All tests use the natural logarithms of the values. Energies and times are positive, and their errors are relative, so
the logarithms are closer to a normal distribution with a constant spread.

Sources:
    B. L. Welch, "The generalization of 'Student's' problem when several different population variances are involved",
        Biometrika 34 (1947): the degrees of freedom for unequal variances.
    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing the
        equivalence of average bioavailability", Journal of Pharmacokinetics and Biopharmaceutics 15 (1987).
    T. Kalibera and R. Jones, "Rigorous benchmarking in reasonable time", ISMM (2013): the repeat at the highest level
        that varies is the unit of observation, and the result is a ratio of means with an interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from llm_energy_measure.domain.statistics import CONFIDENCE
from llm_energy_measure.domain.student_t import t_quantile, t_tail

_LARGEST_LOGARITHM = 709.0  # natural logarithm of the largest float, rounded down


class RatioEstimate(Struct, frozen=True, kw_only=True):
    """The estimated ratio of two geometric means, on the scale of natural logarithms.

    Attributes:
        log_ratio: Logarithm of the ratio of the candidate to the base.
        variances: Sample variances of the logarithms: one for each side, or only one, of the differences within pairs.
        counts: Number of values behind each variance, at least 2.
    """

    log_ratio: float
    variances: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def ratio(self) -> float:
        """The ratio of the candidate to the base; infinite if it is too large for a float."""
        return _exp(self.log_ratio)

    @property
    def standard_error(self) -> float:
        """Standard error of `log_ratio`. It is 0 if all values of each side are equal."""
        return math.sqrt(math.fsum(self._squared_errors()))

    @property
    def degrees(self) -> float:
        """Degrees of freedom by Welch and Satterthwaite. For one variance, they are its count - 1."""
        parts = self._squared_errors()
        largest = max(parts)
        if largest == 0:
            return float(sum(self.counts) - len(self.counts))
        # The parts are divided by the largest part, so that not all squares underflow.
        shares = [part / largest for part in parts]
        squares = math.fsum(share**2 / (n - 1) for share, n in zip(shares, self.counts, strict=True))
        # The exact value is at least 1; rounding could give slightly less.
        return max(1.0, math.fsum(shares) ** 2 / squares)

    def _squared_errors(self) -> list[float]:
        return [variance / n for variance, n in zip(self.variances, self.counts, strict=True)]

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the confidence interval of the ratio. A limit that is too large for a float is infinite."""
        half_width = t_quantile((1 + confidence) / 2, self.degrees) * self.standard_error
        return _exp(self.log_ratio - half_width), _exp(self.log_ratio + half_width)

    def p_different(self) -> float:
        """Return the two-sided p-value of the hypothesis that the ratio is 1."""
        return t_tail(_divided(self.log_ratio, self.standard_error), self.degrees)

    def p_equivalent(self, margin: float) -> float:
        """Return the greater p-value of two one-sided tests that the ratio is within the margin.

        Args:
            margin: Relative margin, greater than 0. A margin of 0.03 accepts ratios from 1 / 1.03 to 1.03. These limits
                are symmetric, so that base and candidate can be swapped.

        Source: Schuirmann (1987). The p-value is less than 0.05 if the 90 % interval is within the margin.
        """
        distance = math.log1p(margin) - abs(self.log_ratio)
        tail = t_tail(_divided(distance, self.standard_error), self.degrees) / 2
        return tail if distance > 0 else 1 - tail

    def with_more(self, repeats: int) -> RatioEstimate:
        """Return the estimate with more repeats of each side (or more pairs), if ratio and variances do not change."""
        return msgspec.structs.replace(self, counts=tuple(n + repeats for n in self.counts))


def _exp(value: float) -> float:
    """Return e to the power of a value, never 0, and infinity instead of an OverflowError."""
    return math.exp(max(value, -_LARGEST_LOGARITHM)) if value < _LARGEST_LOGARITHM else math.inf


def _divided(value: float, error: float) -> float:
    """Return value / error. The result is infinite for an error of 0, unless the value is 0 too."""
    return value / error if error else math.copysign(math.inf, value) if value else 0.0


def welch_ratio(
    base: Sequence[float], candidate: Sequence[float], smallest_errors: tuple[float, float] = (0.0, 0.0)
) -> RatioEstimate:
    """Return the ratio of the geometric means of two independent samples, by Welch's test on the logarithms.

    Args:
        base: At least two values greater than 0.
        candidate: At least two values greater than 0, in the unit of the base.
        smallest_errors: Least relative standard deviation of each side, from the sensor's resolution. It replaces a
            smaller standard deviation of the sample.

    Example:
        >>> estimate = welch_ratio([100.0, 102.0, 98.0], [110.0, 109.0, 112.0])
        >>> round(estimate.ratio, 4), round(estimate.degrees, 2), round(estimate.p_different(), 5)
        (1.1034, 3.55, 0.00335)
    """
    (base_mean, base_variance), (mean, variance) = _log_moments(base), _log_moments(candidate)
    return RatioEstimate(
        log_ratio=mean - base_mean,
        variances=(max(base_variance, smallest_errors[0] ** 2), max(variance, smallest_errors[1] ** 2)),
        counts=(len(base), len(candidate)),
    )


def paired_ratio(base: Sequence[float], candidate: Sequence[float], smallest_error: float = 0.0) -> RatioEstimate:
    """Return the ratio of the geometric means of pairs, by the paired t test on the logarithms.

    A factor that is common to both values of a pair has no effect.

    Args:
        base: At least two values greater than 0, for example the geometric mean of each block.
        candidate: The values of the same blocks, in the same order.
        smallest_error: Least relative standard deviation of the ratio of a pair. It replaces a smaller standard
            deviation of the sample.

    Example:
        >>> estimate = paired_ratio([100.0, 200.0, 50.0], [110.0, 219.0, 56.0])
        >>> round(estimate.ratio, 4), estimate.degrees, round(estimate.p_different(), 4)
        (1.1049, 2.0, 0.0047)
    """
    mean, variance = _log_moments([new / old for old, new in zip(base, candidate, strict=True)])
    return RatioEstimate(log_ratio=mean, variances=(max(variance, smallest_error**2),), counts=(len(base),))


def ratio_of_means(base: Sequence[float], candidate: Sequence[float]) -> float:
    """Return the ratio of the geometric means of candidate and base. Each of them has at least one value."""
    return _exp(_mean_log(candidate) - _mean_log(base))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of at least one value; each value is greater than 0."""
    return _exp(_mean_log(values))


def _mean_log(values: Sequence[float]) -> float:
    return math.fsum(map(math.log, values)) / len(values)


def _log_moments(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample variance (n - 1) of the natural logarithms."""
    logarithms = [math.log(value) for value in values]
    mean = math.fsum(logarithms) / len(logarithms)
    return mean, math.fsum((value - mean) ** 2 for value in logarithms) / (len(logarithms) - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for multiple tests by Holm's step-down method, in the order of the arguments.

    At the level 0.05, the probability that at least one true hypothesis is rejected is at most 5 %.

    Source: Holm (1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    greatest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        greatest = min(1.0, max(greatest, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = greatest
    return adjusted
