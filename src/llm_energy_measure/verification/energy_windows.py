"""Energy windows: the time spans over which each process, or one of its sensors, measured energy."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from msgspec import UNSET, Struct

from llm_energy_measure.domain.metrics import EnergyMetrics
from llm_energy_measure.verification.processes import Process, Span

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - for times without a UTC offset
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)


class Window(Struct, frozen=True, gc=False):
    """The time span over which a process measured energy. Times are in seconds since 1970-01-01.

    Attributes:
        start: Start of the energy window, or of the run that contains it; NaN if unknown.
        end: End of the energy window or of this run; NaN if unknown.
        is_exact: Whether `start` and `end` are those of the energy window.
        length_sec: Longest known time of the process, in seconds; None if unknown.
        started: Start of the run, even if its end is unknown; NaN if the start is unknown.
        is_naive: Whether the times have no UTC offset.
        shortest_sec: Shortest length that an inexact window can have, in seconds; None if exact or unknown.
    """

    start: float
    end: float
    is_exact: bool
    length_sec: float | None
    started: float
    is_naive: bool
    shortest_sec: float | None = None


def window_of(process: Process, handed_over: Span | None = None) -> Window:
    """Return the window of a process, or of one sensor that the process read for a part of its window.

    Args:
        process: The process.
        handed_over: Start and end of the readings of this sensor; None for the window of the process.
    """
    span, length_sec, started = process.span, process.length_sec, process.record.timestamps.start
    if handed_over is not None:
        span, length_sec = handed_over, (handed_over[1] - handed_over[0]).total_seconds()
    first = started if span is None else span[0]
    if first is None:
        return Window(math.nan, math.nan, is_exact=False, length_sec=length_sec, started=math.nan, is_naive=False)
    is_naive = first.tzinfo is None
    epoch = _EPOCH if is_naive else _EPOCH_UTC
    is_same = started is not None and (started.tzinfo is None) == is_naive
    since = (started - epoch).total_seconds() if started is not None and is_same else math.nan
    if span is None:
        return Window(
            math.nan,
            math.nan,
            is_exact=False,
            length_sec=length_sec,
            started=since,
            is_naive=is_naive,
            shortest_sec=_shortest_sec(process),
        )
    start, end = (span[0] - epoch).total_seconds(), (span[1] - epoch).total_seconds()
    is_exact = process.knows_window or handed_over is not None
    shortest_sec = None if is_exact else _shortest_sec(process)
    return Window(start, end, is_exact, length_sec, since, is_naive, shortest_sec)


def _shortest_sec(process: Process) -> float | None:
    """Return the shorter of energy window and inference time, in seconds; None if both are unknown."""
    inference = process.record.inference_metrics
    times = (process.window_sec, inference.inference_time_sec if inference is not None else None)
    return min((time for time in times if time), default=None)


def spans_of_sensors(energy: EnergyMetrics) -> dict[str, Span]:
    """Return the time spans of sensors that the process read for a part of its window, by component and by instance.

    A component has a span only if the process read all sensors of the component over the same span.
    """
    if energy.sensors is None or all(sensor.window is UNSET for sensor in energy.sensors):
        return {}
    found: dict[str, Span] = {}
    by_component: dict[str, set[Span | None]] = {}
    for sensor in energy.sensors:
        span = None if sensor.window is UNSET else sensor.window.span
        span = None if span is None or span[0] >= span[1] else span
        if sensor.energy_j is not None:
            by_component.setdefault(sensor.component, set()).add(span)
        if span is not None and sensor.instance is not None:
            found[sensor.instance] = span
    return found | {name: span for name, (span, *others) in by_component.items() if span is not None and not others}
