"""Student's t distribution with any number of degrees of freedom, including fractions.

SciPy is not a dependency: the import of `scipy.stats` takes longer than a command of this package. The tests compare
these functions with SciPy (relative tolerance 1e-9).
"""

from __future__ import annotations

import math
from functools import lru_cache

_TINY = 1e-300  # replaces a denominator of 0
_PRECISION = 4e-16
_MAX_TERMS = 100_000


def t_tail(t: float, degrees: float) -> float:
    """Return the probability that |T| > |t|, the p-value of a two-sided t test.

    Args:
        t: Value of the statistic. An infinite value has the tail 0.
        degrees: Degrees of freedom, greater than 0.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.1: the tail is the incomplete beta function
        I_x(degrees / 2, 1 / 2) at x = degrees / (degrees + t^2).

    Example:
        >>> round(t_tail(2.0, 4.5), 6)
        0.108258
    """
    if not degrees > 0 or math.isnan(t):
        msg = f"cannot compute the tail of t = {t!r} for {degrees!r} degrees of freedom"
        raise ValueError(msg)
    a = degrees / 2
    square = t / degrees * t
    if square == 0 or math.isinf(square):
        return 0.0 if square else 1.0
    # x^a (1 - x)^(1/2) / B(a, 1/2), where x = 1 / (1 + square). log1p keeps the precision if x is nearly 1.
    front = math.exp(-(a + 0.5) * math.log1p(square) - _log_beta_half(a)) * math.sqrt(square)
    x = 1 / (1 + square)
    if x < (a + 1) / (a + 2.5):
        return front * _beta_fraction(a, 0.5, x) / a
    return 1 - 2 * front * _beta_fraction(0.5, a, square * x)


@lru_cache(maxsize=4096)
def t_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution.

    Args:
        probability: Probability of a value below the quantile, between 0 and 1 (both excluded).
        degrees: Degrees of freedom, at least 1.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> round(t_quantile(0.975, 1), 4)
        12.7062
    """
    if not 0 < probability < 1 or not 1 <= degrees < math.inf:
        msg = f"cannot compute the t quantile for probability {probability!r} and {degrees!r} degrees of freedom"
        raise ValueError(msg)
    tail = 2 * min(probability, 1 - probability)
    root = math.sqrt(degrees)
    log_half_density = -_log_beta_half(degrees / 2)
    # Newton's method for the angle whose cotangent is t / root. The tail is a convex function of this angle, and it
    # increases from 0. So a step from an angle above the solution never passes the solution, and the steps converge for
    # all arguments. For fractional degrees, the start is the quantile of the next whole number, which is often in the
    # cache. This quantile is smaller, so the angle is above the solution.
    t = 0.0 if degrees == math.ceil(degrees) else t_quantile(max(probability, 1 - probability), math.ceil(degrees))
    angle = math.atan2(root, t)
    for _ in range(200):
        density = 2 * math.exp(log_half_density - (degrees - 1) / 2 * math.log1p(t / degrees * t))
        angle -= (t_tail(t, degrees) - tail) / density
        previous, t = t, root / math.tan(angle)
        if abs(t - previous) <= 1e-13 * t + 1e-15 * root:
            break
    return math.copysign(t, probability - 0.5)


def _log_beta_half(a: float) -> float:
    """Return the logarithm of the beta function B(a, 1/2)."""
    if a < 100:
        return math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
    # The difference of two large values of lgamma loses digits, and this series does not.
    return 0.5 * math.log(math.pi / a) + 1 / (8 * a) - 1 / (192 * a**3) + 1 / (640 * a**5)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function. It converges fast for x < (a + 1) / (a + b + 2).

    Source: Press et al., Numerical Recipes, 3rd edition, 6.4 (DLMF 8.17.22), by the modified method of Lentz.
    """
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or _TINY)
    fraction = d
    for m in range(1, _MAX_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or _TINY)
            c = 1 + term / c or _TINY
            fraction *= c * d
        if abs(c * d - 1) <= _PRECISION:
            break
    return fraction
