"""Ranges of energy: the least and the greatest energy that the records admit, and one energy if they determine it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

AGREEMENT = 0.05
"""Greatest width of a range in which all explanations agree, as a fraction of the upper end."""

# Two sums of the same thousands of floats in different orders differ by less than this fraction.
_ROUNDING = 1e-12
_NO_BASIS: frozenset[str] = frozenset()


class EnergyRange(Struct, frozen=True, gc=False):
    """Range of an energy, and one energy if the records determine it.

    Attributes:
        low_j: Least energy, in joules.
        high_j: Greatest energy, in joules.
        point_j: Energy (the point of the range), in joules; None if the records do not determine it.
        basis: Reasons of the point; empty if the point is a sum of readings of recorded scope.
    """

    low_j: float
    high_j: float
    point_j: float | None
    basis: frozenset[str] = _NO_BASIS

    @property
    def middle_j(self) -> float:
        """The point, or the middle of the range, in joules."""
        return self.point_j if self.point_j is not None else (self.low_j + self.high_j) / 2

    @property
    def is_narrow(self) -> bool:
        """True if the width is at most `AGREEMENT` times the upper end."""
        return self.high_j - self.low_j <= AGREEMENT * self.high_j


ZERO = EnergyRange(0.0, 0.0, 0.0)


def exactly(energy_j: float, basis: frozenset[str] = _NO_BASIS) -> EnergyRange:
    """Return the range of a known energy: its two ends and its point are equal."""
    return EnergyRange(energy_j, energy_j, energy_j, basis)


def added(ranges: Iterable[EnergyRange]) -> EnergyRange:
    """Return the range of a sum of independent energies.

    The sum has a point if each energy has one. The sum also has a point if the widths of the ranges without a point add
    up to at most `AGREEMENT` times the upper end of the sum.
    """
    known = [one for one in ranges if one.high_j]
    if len(known) == 1:
        return known[0]
    low, high = math.fsum([one.low_j for one in known]), math.fsum([one.high_j for one in known])
    basis: frozenset[str] = _NO_BASIS.union(*[one.basis for one in known])
    undecided = [one for one in known if one.point_j is None]
    if not undecided:
        return EnergyRange(low, high, math.fsum([one.point_j or 0.0 for one in known]), basis)
    point = None
    if math.fsum([one.high_j - one.low_j for one in undecided]) <= AGREEMENT * high:
        point = math.fsum([one.middle_j for one in known])
        basis |= {"agreement"}
    return EnergyRange(low, high, point, basis)


def either(ranges: Sequence[EnergyRange]) -> EnergyRange:
    """Return the range that contains the ranges of all explanations, with a point if the explanations agree."""
    first = ranges[0]
    if all(one == first or _differs_by_rounding(one, first) for one in ranges[1:]):
        return first
    low, high = min(one.low_j for one in ranges), max(one.high_j for one in ranges)
    merged = EnergyRange(low, high, None)
    points = [one.point_j for one in ranges if one.point_j is not None]
    if not merged.is_narrow:
        return merged
    basis = _NO_BASIS.union(*(one.basis for one in ranges)) | {"agreement"}
    middle = (min(points) + max(points)) / 2 if points else (low + high) / 2
    return EnergyRange(low, high, middle, basis)


def _differs_by_rounding(one: EnergyRange, other: EnergyRange) -> bool:
    """Return True if two ranges differ only by rounding: sums in another order can differ in the last digits."""
    if (one.point_j is None) != (other.point_j is None) or one.basis != other.basis:
        return False
    pairs = (one.low_j, other.low_j), (one.high_j, other.high_j), (one.point_j or 0.0, other.point_j or 0.0)
    return all(math.isclose(first, second, rel_tol=_ROUNDING) for first, second in pairs)
