"""Energy of one counter that several processes read, each over its own window.

The value of the counter is unknown at the starts and ends of the windows (the edges). Each reading is the increase of
the counter over one window. Between two neighbouring edges, the counter increases by at least 0 and at most by a power
cap times the time. The bounds are the least and the greatest increase under these difference constraints.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import attrgetter

from msgspec import Struct

from llm_energy_measure.verification.energy_windows import Window
from llm_energy_measure.verification.readings import Reading

SAME_COUNTER = 0.25
"""Fraction by which readings may differ from the energy of their counter. Larger differences are a contradiction."""

SAME_INDEX = 0.125
"""Like `SAME_COUNTER`, if only an index identifies the GPU: some tools number the GPUs of each process from 0."""

CAP_FACTOR = 3.0
"""Assumed maximum power, as a multiple of the mean power of a reading, if no power limit is known."""

POINT_ERROR = 0.04
"""Greatest relative distance of an estimate from each of the two bounds, if windows overlap in part."""

# A window counts as equal to the union of the windows if it covers at least this fraction of the union.
_NEARLY_EQUAL = 0.8
# The mean power is extended to the union of the windows only if the union is at most this multiple of the longest
# window.
_SHORT_UNION = 1.05
# Runs start together if their starts differ by at most this fraction of the shortest run.
_SAME_START = 0.05
# Tolerances that are tried, in order, until the readings of one counter are consistent.
_TOLERANCES = (0.0, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.125, 0.16, 0.2, 0.25)
# The cost of Bellman-Ford grows with the square of the number of edges. Above this number of windows, a cheaper method
# gives wider bounds.
_MAX_WINDOWS = 48
_EDGES = attrgetter("start", "end")


class Counted(Struct, frozen=True, gc=False):
    """Energy of one counter.

    Attributes:
        low_j: Least energy, in joules.
        high_j: Greatest energy, in joules.
        point_j: Best estimate, in joules; None if the windows don't allow an estimate.
        basis: Reason of the estimate; empty without an estimate.
        agrees: Whether the readings can be of one counter.
    """

    low_j: float
    high_j: float
    point_j: float | None
    basis: str = ""
    agrees: bool = True


def count_once(readings: Sequence[Reading], limit_w: float | None = None, tolerance: float = SAME_COUNTER) -> Counted:
    """Return the energy of one counter over the union of the windows of its readings.

    Args:
        readings: At least one reading of the counter.
        limit_w: Greatest power of the hardware that the counter measures, in watts; None if unknown.
        tolerance: Fraction by which a reading may differ from the energy of the counter.
    """
    readings = distinct(readings)
    if len(readings) == 1:
        energy_j = readings[0].energy_j
        return Counted(energy_j, energy_j, energy_j)
    windows = [reading.window for reading in readings]
    energies = [reading.energy_j for reading in readings]
    total_j = math.fsum(energies)
    in_order = are_comparable(windows)
    if in_order and are_separate(windows):
        return Counted(total_j, total_j, total_j)
    if not in_order or not all(window.is_exact for window in windows):
        return _of_unknown_windows(readings, total_j)
    spans = [(window.start, window.end) for window in windows]
    cap_w = _cap(spans, energies, limit_w)
    union = max(end for _, end in spans) - min(start for start, _ in spans)
    if min(end - start for start, end in spans) >= _NEARLY_EQUAL * union:
        counted = _of_equal_windows(spans, energies, union, cap_w, tolerance)
    elif len(spans) > _MAX_WINDOWS:
        counted = Counted(most_without_overlap(readings), total_j, None, "mean_power")
    else:
        counted = _of_overlapping_windows(spans, energies, cap_w, tolerance)
    if counted is None:
        return Counted(most_without_overlap(readings), total_j, None, agrees=False)
    # The largest reading may be right, although the tolerance of a smaller reading excludes it.
    high_j = min(max(counted.high_j, *energies), total_j)
    return Counted(min(counted.low_j, total_j), high_j, counted.point_j, counted.basis, counted.agrees)


def distinct(readings: Sequence[Reading]) -> list[Reading]:
    """Return readings without copies. Readings of equal energy and window are copies of one reading."""
    if len({reading.energy_j for reading in readings}) == len(readings):
        return list(readings)
    by_key: dict[tuple[float | None, ...], Reading] = {}
    for reading in readings:
        window = reading.window
        times = (window.start, window.end, window.started)
        key = (reading.energy_j, window.length_sec, *(None if math.isnan(time) else time for time in times))
        by_key.setdefault(key, reading)
    return list(by_key.values())


def _of_equal_windows(
    spans: Sequence[tuple[float, float]], energies: Sequence[float], union: float, cap_w: float, tolerance: float
) -> Counted | None:
    """Return the bounds if each window is nearly the union; None if the readings contradict each other.

    Each window covers at least `_NEARLY_EQUAL` of the union, so each reading lacks only the energy of the rest of the
    union.
    """
    largest = max(energies)
    remainders = [cap_w * (union - (end - start)) for start, end in spans]
    needed = max((largest - own - more) / (largest + own) for own, more in zip(energies, remainders, strict=True))
    if needed > tolerance:
        return None
    # With the needed tolerance, both bounds are equal. Twice this tolerance gives a range of plausible energies.
    slack = max(0.0, 2 * needed)
    low = largest * (1 - slack)
    high = min(own * (1 + slack) + more for own, more in zip(energies, remainders, strict=True))
    is_same = union * (1 - 1e-9) <= min(end - start for start, end in spans)
    if is_same:
        low, high = min(energies), max(energies)
    point = _estimate(spans, energies, low, high)
    return Counted(low, high, point, "mean_of_readings" if is_same else "mean_power")


def _estimate(
    spans: Sequence[tuple[float, float]], energies: Sequence[float], low_j: float, high_j: float
) -> float | None:
    """Return an estimate within the bounds, in joules; None if the windows don't allow one.

    If the union is at most `_SHORT_UNION` times as long as some windows, the estimate is the mean power of these
    windows times the length of the union, limited to the bounds. Otherwise, the power at each instant is the mean power
    of the windows that contain the instant, and the estimate is limited to energies within `POINT_ERROR` of both
    bounds. None if no energy is within this distance.
    """
    union = max(end for _, end in spans) - min(start for start, _ in spans)
    whole = [
        energy * union / (end - start)
        for energy, (start, end) in zip(energies, spans, strict=True)
        if union <= _SHORT_UNION * (end - start)
    ]
    if whole:
        return min(max(math.fsum(whole) / len(whole), low_j), high_j)
    least, greatest = max(low_j, (1 - POINT_ERROR) * high_j), min(high_j, (1 + POINT_ERROR) * low_j)
    return min(max(_at_mean_power(spans, energies), least), greatest) if least <= greatest else None


def _at_mean_power(spans: Sequence[tuple[float, float]], energies: Sequence[float]) -> float:
    """Return the energy over the union of the windows, in joules.

    The power at each instant is the mean power of the windows that contain the instant.
    """
    powers = [(start, end, energy / (end - start)) for (start, end), energy in zip(spans, energies, strict=True)]
    total = 0.0
    for start, end in pairwise(sorted({edge for span in spans for edge in span})):
        own = [power for first, last, power in powers if first <= start and end <= last]
        total += (end - start) * math.fsum(own) / len(own) if own else 0.0
    return total


def _of_overlapping_windows(
    spans: Sequence[tuple[float, float]], energies: Sequence[float], cap_w: float, tolerance: float
) -> Counted | None:
    """Return the bounds by difference constraints; None if the readings contradict each other.

    The tolerance is twice the first one of `_TOLERANCES` with which the readings are consistent.
    """
    edges = sorted({edge for span in spans for edge in span})
    segments = [
        (end - start, any(first <= start and end <= last for first, last in spans)) for start, end in pairwise(edges)
    ]
    place = {edge: index for index, edge in enumerate(edges)}
    placed = [(place[start], place[end], energy) for (start, end), energy in zip(spans, energies, strict=True)]
    for needed in _TOLERANCES:
        if needed > tolerance:
            return None
        if _increase(segments, placed, cap_w, needed, greatest=True) is None:
            continue
        # With only the needed tolerance, the bounds can be equal. Twice this tolerance gives a plausible range.
        high = _increase(segments, placed, cap_w, 2 * needed, greatest=True)
        low = _increase(segments, placed, cap_w, 2 * needed, greatest=False)
        if low is None or high is None:
            return None
        return Counted(low, high, _estimate(spans, energies, low, high), "mean_power")
    return None


def _increase(
    segments: Sequence[tuple[float, bool]],
    readings: Sequence[tuple[int, int, float]],
    cap_w: float,
    tolerance: float,
    *,
    greatest: bool,
) -> float | None:
    """Return the least or greatest increase of the counter from first to last edge, in joules; None if no value fits.

    Source: difference constraints as shortest paths; Cormen et al., Introduction to Algorithms, section 22.4.

    Args:
        segments: Length of each segment between two edges, in seconds, and whether a window contains it.
        readings: Index of the first and the last edge of each reading, and its energy in joules.
        cap_w: Greatest power, in watts.
        tolerance: Fraction by which a reading may differ from the increase.
        greatest: Whether to return the greatest increase, and not the least one.
    """
    constraints: list[tuple[int, int, float]] = []
    for index, (length, is_covered) in enumerate(segments):
        constraints += [(index, index + 1, cap_w * length if is_covered else 0.0), (index + 1, index, 0.0)]
    for first, last, energy in readings:
        constraints += [(first, last, energy * (1 + tolerance)), (last, first, -energy * (1 - tolerance))]
    number = len(segments) + 1
    source, target = (0, number - 1) if greatest else (number - 1, 0)
    # Without this slack, rounding errors could make readings that agree exactly look contradictory.
    slack = 1e-9 * max(energy for _, _, energy in readings)
    distances = [math.inf] * number
    distances[source] = 0.0
    for _ in range(number):
        changed = False
        for start, end, weight in constraints:
            if distances[start] + weight < distances[end] - slack:
                distances[end] = distances[start] + weight
                changed = True
        if not changed:
            return distances[target] if greatest else -distances[target]
    return None


def _of_unknown_windows(readings: Sequence[Reading], total_j: float) -> Counted:
    """Return the bounds if windows are unknown, or known only to be inside a run.

    The lower bound is the largest reading, or the greatest sum of readings of runs that don't overlap. If the
    processes did not run together, the upper bound is the sum of all readings.

    If the processes ran together, the readings outside the lower bound add at most half of their energy. If the
    processes also started together, the longest window contains the others, so the estimate is the lower bound. If they
    did not start together and the windows can be separate (`can_be_separate`), the upper bound is the sum.
    """
    largest = most_without_overlap(readings)
    windows = [reading.window for reading in readings]
    if not ran_together(windows):
        return Counted(largest, total_j, None)
    starts = [window.start if math.isnan(window.started) else window.started for window in windows]
    lengths = [window.length_sec for window in windows if window.length_sec is not None]
    started_together = bool(lengths) and max(starts) - min(starts) <= _SAME_START * min(lengths)
    if not started_together and can_be_separate(windows):
        return Counted(largest, total_j, None)
    point = largest if started_together else None
    return Counted(largest, largest + (total_j - largest) / 2, point, "largest_reading")


def _cap(spans: Sequence[tuple[float, float]], energies: Sequence[float], limit_w: float | None) -> float:
    """Return the assumed greatest power of the counter, in watts; at least the mean power of each reading."""
    greatest = max(energy / (end - start) for energy, (start, end) in zip(energies, spans, strict=True))
    return max(limit_w, 1.25 * greatest) if limit_w is not None else CAP_FACTOR * greatest


def least_energy(readings: Sequence[Reading], limit_w: float | None = None) -> float:
    """Return the least energy of readings that may cover the same hardware, in joules.

    The energy is at least the greatest sum of readings that don't overlap in time. If a reading overlaps earlier
    readings for a part of its window, the reading adds at least its energy outside this part.
    """
    if not are_comparable([reading.window for reading in readings]):
        return max([reading.energy_j for reading in readings])
    total, until = 0.0, -math.inf
    spans = [(one.window.start, one.window.end, place, one.energy_j) for place, one in enumerate(distinct(readings))]
    for start, end, _, energy_j in sorted(spans):
        least_j, common = energy_j, min(until, end) - start
        if common > 0.0:
            power = energy_j / (end - start)
            least_j -= common * (max(limit_w, 1.25 * power) if limit_w is not None else CAP_FACTOR * power)
        if least_j > 0.0:
            total += least_j
        until = max(until, end)
    return max(_most_without_overlap(readings), total)


def most_without_overlap(readings: Sequence[Reading]) -> float:
    """Return the greatest sum of readings that don't overlap in time (J); the largest reading if times are unknown."""
    if not are_comparable([reading.window for reading in readings]):
        return max(reading.energy_j for reading in readings)
    return _most_without_overlap(readings)


def _most_without_overlap(readings: Sequence[Reading]) -> float:
    """Return the greatest sum of readings that don't overlap in time, in joules. Their times must be known.

    Source: weighted interval scheduling; Kleinberg and Tardos, Algorithm Design (2005), section 6.1.
    """
    windows = [reading.window for reading in readings]
    if max([window.start for window in windows]) < min([window.end for window in windows]):
        return max([reading.energy_j for reading in readings])
    by_end = sorted(readings, key=lambda reading: reading.window.end)
    ends = tuple(reading.window.end for reading in by_end)
    best = [0.0]
    for index, reading in enumerate(by_end):
        before = best[bisect_right(ends, reading.window.start, 0, index)]
        best.append(max(best[-1], before + reading.energy_j))
    return best[-1]


def union_sec(windows: Sequence[Window]) -> float | None:
    """Return the length of the union of windows in seconds, or an upper bound of the length; None if unknown."""
    if are_comparable(windows):
        total, until = 0.0, -math.inf
        for window in sorted(windows, key=_EDGES):
            total += max(0.0, window.end - max(window.start, until))
            until = max(until, window.end)
        return total
    lengths = [window.length_sec for window in windows if window.length_sec is not None]
    if len(lengths) < len(windows):
        return None
    longest, together = max(lengths), math.fsum(lengths)
    return longest + (together - longest) / 2 if ran_together(windows) else together


def ran_together(windows: Sequence[Window]) -> bool:
    """Return True if each run overlaps the next run by at least half of the shorter run; False if unknown."""
    runs = _runs(windows)
    if any(math.isnan(start) or math.isnan(end) for start, end, _ in runs):
        return False
    if len({window.is_naive for window in windows}) > 1:
        return False
    return all(
        min(one[1], other[1]) - other[0] >= 0.5 * min(one[1] - one[0], other[1] - other[0])
        for one, other in pairwise(runs)
    )


def can_be_separate(windows: Sequence[Window]) -> bool:
    """Return True if two neighbouring windows can overlap by less than half of the shorter window.

    A window can be at any place in its run. Neighbours have consecutive starts of their runs.
    """
    for (start, end, length), (later, last, other) in pairwise(_runs(windows)):
        least = min(start + length - (last - other), later + other - (end - length))
        if least < 0.5 * min(length, other):
            return True
    return False


def _runs(windows: Sequence[Window]) -> list[tuple[float, float, float]]:
    """Return start, end and least window length (s) of each run, sorted by start; NaN if unknown."""
    runs: list[tuple[float, float, float]] = []
    for window in windows:
        start, end = window.start, window.end
        if math.isnan(start) or math.isnan(end):
            start = window.started
            end = start + (window.length_sec or math.nan)
        runs.append((start, end, min(window.shortest_sec or math.inf, end - start)))
    return sorted(runs)


def are_comparable(windows: Sequence[Window]) -> bool:
    """Return True if windows can be put in order: all are known, and all have a UTC offset or all have none."""
    return len({window.is_naive for window in windows}) == 1 and not any(map(math.isnan, [w.start for w in windows]))


def are_separate(windows: Iterable[Window]) -> bool:
    """Return True if no two windows overlap. The windows must be comparable; see `are_comparable`."""
    ordered = sorted(windows, key=_EDGES)
    return all(one.end <= other.start for one, other in pairwise(ordered))
