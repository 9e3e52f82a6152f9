"""Samples of the power of one device over time, and their integral."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct, structs

GAP_SEC = 3.0
GAP_FACTOR = 3.0
"""Two samples have a gap between them if their distance exceeds `GAP_SEC` and `GAP_FACTOR` intervals.

Source: InferenceX `aggregate_power.py`, which uses 3 s.
"""


class PowerTrace(Struct, frozen=True, kw_only=True):
    """Power samples of one device, in order of time.

    All sequences have one value per sample. `nan` is an unknown temperature or clock, and an empty text an unknown
    throttle reason.

    Attributes:
        device: GPU index, GPU UUID, or another name of the device; empty if unknown.
        times: Seconds since the start of the record; negative before the start. Two samples have different times.
        powers: Watts, at least 0.
        temperatures: Degrees Celsius. None if no sample has one.
        clocks: Clock of the streaming multiprocessors, in megahertz. None if no sample has one.
        throttles: Throttle reasons, as the tool writes them. None if no sample has one.
    """

    device: str
    times: array[float]
    powers: array[float]
    temperatures: array[float] | None = None
    clocks: array[float] | None = None
    throttles: list[str] | None = None

    def between(self, start: float, end: float) -> PowerTrace:
        """Return the samples from the last one at or before `start` to the first one at or after `end`."""
        return self._slice(*_places(self.times, start, end))

    def moved(self, seconds: float) -> PowerTrace:
        """Return the samples with all times later by some seconds."""
        return structs.replace(self, times=array("d", (round(time + seconds, 6) for time in self.times)))

    def _slice(self, low: int, high: int) -> PowerTrace:
        return PowerTrace(
            device=self.device,
            times=self.times[low:high],
            powers=self.powers[low:high],
            temperatures=None if self.temperatures is None else self.temperatures[low:high],
            clocks=None if self.clocks is None else self.clocks[low:high],
            throttles=None if self.throttles is None else self.throttles[low:high],
        )


class CounterTrace(Struct, frozen=True, kw_only=True):
    """Readings of the energy counter of one device, in order of time.

    Attributes:
        device: As in `PowerTrace`.
        times: Seconds since the start of the record.
        joules: The counter, in joules.
    """

    device: str
    times: array[float]
    joules: array[float]

    def between(self, start: float, end: float) -> CounterTrace:
        """Return the readings from the last one at or before `start` to the first one at or after `end`."""
        low, high = _places(self.times, start, end)
        return CounterTrace(device=self.device, times=self.times[low:high], joules=self.joules[low:high])


class PowerLog(Struct, frozen=True, kw_only=True):
    """The samples of the devices of one host.

    Attributes:
        traces: Power samples, one trace per device.
        counters: Energy counters, one trace per device that has one.
        uuids: UUIDs of the devices that the traces name by index.
        is_host: Whether each trace covers a whole server, and not a device.
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
        gaps: Length of each gap in the window, in seconds.
    """

    value: float
    samples: int
    gaps: list[float]


def integrate(times: Sequence[float], values: Sequence[float], start: float, end: float) -> Integral | None:
    """Return the integral by the trapezoidal rule, or None if the samples do not cover the window.

    The values at the edges of the window are interpolated.

    Args:
        times: Times of the samples in seconds, in order, each once.
        values: One value per time, such as watts.
        start: Start of the window, in seconds.
        end: End of the window, in seconds; after `start`.

    Example:
        >>> integrate([0.0, 1.0, 2.0], [100.0, 100.0, 200.0], 0.5, 2.0)
        Integral(value=200.0, samples=2, gaps=[])
    """
    if not times or not times[0] <= start < end <= times[-1]:
        return None
    steps = (later - earlier for earlier, later in itertools.pairwise(times))
    gap_sec = max(GAP_SEC, GAP_FACTOR * statistics.median(steps))
    low, high = bisect.bisect_right(times, start), bisect.bisect_left(times, end)
    total, gaps = 0.0, []
    before, value = start, interpolate(times, values, start)
    for index in range(low, high + 1):
        at_edge = index == high
        after = end if at_edge else times[index]
        next_value = interpolate(times, values, end) if at_edge else values[index]
        total += (after - before) * (value + next_value) / 2
        if after - before > gap_sec:
            gaps.append(after - before)
        before, value = after, next_value
    samples = bisect.bisect_right(times, end) - bisect.bisect_left(times, start)
    return Integral(total, samples, gaps)


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
    """Return times and columns in order of time, with the mean of the known values of each time.

    Args:
        times: Times in seconds, in any order.
        columns: Values by column, one per time; `nan` is unknown.

    Example:
        >>> [list(column) for column in mean_of_equal_times([1.0, 0.0, 1.0], [[5.0, 1.0, 7.0]])]
        [[0.0, 1.0], [1.0, 6.0]]
    """
    order: Sequence[int] = range(len(times))
    if any(later < earlier for earlier, later in itertools.pairwise(times)):
        order = sorted(order, key=times.__getitem__)
    found = [array("d") for _ in range(len(columns) + 1)]
    for moment, group in itertools.groupby(order, key=times.__getitem__):
        members = list(group)
        found[0].append(moment)
        for column, values in zip(found[1:], columns, strict=True):
            known = [values[index] for index in members if not math.isnan(values[index])]
            column.append(sum(known) / len(known) if known else math.nan)
    return found
