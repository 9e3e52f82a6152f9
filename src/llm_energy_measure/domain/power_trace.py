"""Samples of the power of one device over time, and their integral."""

from __future__ import annotations

import bisect
import itertools
import math
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple, overload

from msgspec import Struct, structs

GAP_SEC = 3.0
GAP_FACTOR = 3.0
"""A step between two samples is a gap if it exceeds `GAP_SEC` seconds and `GAP_FACTOR` times the median step.

Source: InferenceX `aggregate_power.py`, which uses 3 s.
"""

_DOUBLE, _INTEGER = struct.Struct("<d"), struct.Struct("<q")


class PowerTrace(Struct, frozen=True, kw_only=True):
    """Power samples of one device, in order of time.

    All sequences have one value per sample, and need not be in memory. `nan` is an unknown temperature or clock, and an
    empty text an unknown throttle reason.

    Attributes:
        device: GPU index, GPU UUID, or another name of the device; empty if unknown.
        times: Seconds since the start of the record; negative before the start. Two samples have different times.
        powers: Watts, at least 0.
        temperatures: Degrees Celsius. None if no temperature is known.
        clocks: Clock of the streaming multiprocessors, in megahertz. None if no clock is known.
        throttles: Throttle reasons, as the tool writes them. None if no sample has throttle reasons.
    """

    device: str
    times: Sequence[float]
    powers: Sequence[float]
    temperatures: Sequence[float] | None = None
    clocks: Sequence[float] | None = None
    throttles: Sequence[str] | None = None

    def between(self, start: float, end: float) -> PowerTrace:
        """Return the samples from the last one at or before `start` to the first one at or after `end`."""
        return self._slice(*_places(self.times, start, end))

    def moved(self, seconds: float) -> PowerTrace:
        """Return the samples with `seconds` added to all times."""
        return structs.replace(self, times=_MovedTimes(self.times, seconds))

    def _slice(self, low: int, high: int) -> PowerTrace:
        return PowerTrace(
            device=self.device,
            times=self.times[low:high],
            powers=self.powers[low:high],
            temperatures=None if self.temperatures is None else self.temperatures[low:high],
            clocks=None if self.clocks is None else self.clocks[low:high],
            throttles=None if self.throttles is None else self.throttles[low:high],
        )


class _MovedTimes(Sequence[float]):
    """Times with `seconds` added to each time, rounded to microseconds."""

    def __init__(self, times: Sequence[float], seconds: float) -> None:
        self._times = times
        self._seconds = seconds

    def __len__(self) -> int:
        return len(self._times)

    @overload
    def __getitem__(self, index: int) -> float: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[float]: ...

    def __getitem__(self, index: int | slice) -> float | Sequence[float]:
        if isinstance(index, slice):
            return _MovedTimes(self._times[index], self._seconds)
        return round(self._times[index] + self._seconds, 6)

    def __iter__(self) -> Iterator[float]:
        return (round(time + self._seconds, 6) for time in self._times)


class CounterTrace(Struct, frozen=True, kw_only=True):
    """Readings of the energy counter of one device, in order of time.

    Attributes:
        device: As in `PowerTrace`.
        times: Seconds since the start of the record.
        joules: The counter, in joules.
    """

    device: str
    times: Sequence[float]
    joules: Sequence[float]

    def between(self, start: float, end: float) -> CounterTrace:
        """Return the readings from the last one at or before `start` to the first one at or after `end`."""
        low, high = _places(self.times, start, end)
        return CounterTrace(device=self.device, times=self.times[low:high], joules=self.joules[low:high])


class PowerLog(Struct, frozen=True, kw_only=True):
    """The samples of the devices of one host.

    Attributes:
        traces: Power samples, one trace per device.
        counters: Energy counters, one trace per device that has a counter.
        uuids: UUID by index, for devices that are identified by their index in the traces.
        is_host: True if each trace covers a whole server, not one device.
    """

    traces: list[PowerTrace]
    counters: list[CounterTrace] = []
    uuids: dict[str, str] = {}
    is_host: bool = False

    @property
    def series(self) -> list[PowerTrace | CounterTrace]:
        """All traces and counters."""
        return [*self.traces, *self.counters]


class Integral(NamedTuple):
    """Integral of the samples in a window.

    Attributes:
        value: The integral: joules for samples in watts.
        samples: Number of samples in the window, its edges included.
        gaps: Number of gaps in the window.
        longest_gap_sec: Length of the longest gap, in seconds; 0 without a gap.
    """

    value: float
    samples: int
    gaps: int = 0
    longest_gap_sec: float = 0.0


def integrate(times: Sequence[float], values: Sequence[float], start: float, end: float) -> Integral | None:
    """Return the integral by the trapezoidal rule, or None if the samples do not cover the window.

    The values at the edges of the window are interpolated. The sequences are read in order, so that they may be files.

    Args:
        times: Times of the samples in seconds, in order, each once.
        values: One value per time, such as watts.
        start: Start of the window, in seconds.
        end: End of the window, in seconds; after `start`.

    Example:
        >>> integrate([0.0, 1.0, 2.0], [100.0, 100.0, 200.0], 0.5, 2.0)
        Integral(value=200.0, samples=2, gaps=0, longest_gap_sec=0.0)
    """
    if not times or not times[0] <= start < end <= times[-1]:
        return None
    gap_sec = _gap_sec(times)
    total, gaps, longest = 0.0, 0, 0.0
    samples = bisect.bisect_right(times, end) - bisect.bisect_left(times, start)
    before, value = start, interpolate(times, values, start)
    low, high = bisect.bisect_right(times, start), bisect.bisect_left(times, end)
    inside = zip(times[low:high], values[low:high], strict=True)
    for after, next_value in itertools.chain(inside, [(end, interpolate(times, values, end))]):
        total += (after - before) * (value + next_value) / 2
        if after - before > gap_sec:
            gaps, longest = gaps + 1, max(longest, after - before)
        before, value = after, next_value
    return Integral(total, samples, gaps, longest)


def _gap_sec(times: Sequence[float]) -> float:
    """Return the time between two samples above which there is a gap, in seconds."""

    def steps() -> Iterator[float]:
        return (later - earlier for earlier, later in itertools.pairwise(times))

    number, short = len(times) - 1, sum(step <= GAP_SEC / GAP_FACTOR for step in steps())
    # If most steps are at most GAP_SEC / GAP_FACTOR, then GAP_FACTOR * median is at most GAP_SEC, so the median is not
    # needed. The median takes several passes, because the steps may not fit into memory.
    return GAP_SEC if 2 * short > number else max(GAP_SEC, GAP_FACTOR * median(steps, number))


def median(values: Callable[[], Iterable[float]], number: int) -> float:
    """Return the median of positive numbers in constant memory, with up to eight passes over them.

    Args:
        values: Function that returns all numbers at each call.
        number: Number of values, at least 1.
    """
    middle = _value_of_rank(values, number // 2)
    return middle if number % 2 else (_value_of_rank(values, number // 2 - 1) + middle) / 2


def _value_of_rank(values: Callable[[], Iterable[float]], rank: int) -> float:
    """Return the number with a rank, counted from 0 in ascending order. All numbers are positive.

    As integers, the bits of positive doubles have the same order as the doubles. Each pass over the numbers finds 16 of
    the 64 bits, the most significant bits first.
    """
    known = 0
    for shift in (48, 32, 16, 0):
        counts = [0] * 65_536
        for value in values():
            (bits,) = _INTEGER.unpack(_DOUBLE.pack(value))
            if bits >> (shift + 16) == known:
                counts[(bits >> shift) & 0xFFFF] += 1
        digit = 0
        while rank >= counts[digit]:
            rank -= counts[digit]
            digit += 1
        known = known << 16 | digit
    found: float = _DOUBLE.unpack(_INTEGER.pack(known))[0]
    return found


def _places(times: Sequence[float], start: float, end: float) -> tuple[int, int]:
    """Return the slice from the last time at or before `start` to the first one at or after `end`."""
    return max(bisect.bisect_right(times, start) - 1, 0), bisect.bisect_left(times, end) + 1


def interpolate(times: Sequence[float], values: Sequence[float], moment: float) -> float:
    """Return the value at a moment between the first and the last sample, by linear interpolation."""
    after = bisect.bisect_left(times, moment)
    if times[after] == moment:
        return values[after]
    share = (moment - times[after - 1]) / (times[after] - times[after - 1])
    return values[after - 1] + (values[after] - values[after - 1]) * share


def mean_of_equal_times(times: Sequence[float], columns: Sequence[Sequence[float]]) -> list[array[float]]:
    """Return times and columns in order of time, with one value per time: the mean of its known values.

    Args:
        times: Times in seconds, in any order.
        columns: Values by column, one per time; `nan` is unknown.

    Example:
        >>> [list(column) for column in mean_of_equal_times([1.0, 0.0, 1.0], [[5.0, 1.0, 7.0]])]
        [[0.0, 1.0], [1.0, 6.0]]
    """
    found = [array("d") for _ in range(len(columns) + 1)]
    for row in merge_equal_times(sorted(zip(times, *columns, strict=True), key=itemgetter(0))):
        for column, value in zip(found, row, strict=True):
            column.append(value)
    return found


def merge_equal_times(rows: Iterable[Sequence[float]]) -> Iterator[Sequence[float]]:
    """Yield one row for each time, with the mean of the known values of each column.

    Args:
        rows: Rows of a time and values, in order of time; `nan` is unknown.
    """
    for moment, group in itertools.groupby(rows, key=itemgetter(0)):
        values = zip(*group, strict=True)
        yield [moment, *map(mean_of_known, itertools.islice(values, 1, None))]


def mean_of_known(values: Iterable[float]) -> float:
    """Return the mean of the values that are not `nan`; `nan` if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
