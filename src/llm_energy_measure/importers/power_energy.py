"""Compute the energy of a power log in a window, and select the samples of the window."""

from __future__ import annotations

import bisect
import itertools
import math
from typing import NamedTuple

from llm_energy_measure.domain.metrics import (
    COUNTER_RESET,
    SAMPLING_GAP,
    DeviceEnergy,
    EnergyMetrics,
    Provenance,
    SensorReading,
)
from llm_energy_measure.domain.power_trace import CounterTrace, PowerLog, PowerTrace, integrate, interpolate
from llm_energy_measure.importers.record_parts import component
from llm_energy_measure.importers.report import Notes, RefusedInputError

SOURCE = "power-log"
Window = tuple[float, float]
"""Start and end in seconds, with the same origin as the times of the log."""


class _Found(NamedTuple):
    """Energy of a device in joules, number of samples, window of the energy, and problem of the samples."""

    energy_j: float | None
    samples: int
    window: Window
    provenance: Provenance
    problem: str | None = None


def window_of(log: PowerLog) -> Window:
    """Return the earliest and the latest time of all samples. Raise RefusedInputError if there are no samples."""
    times = [trace.times for trace in log.series]
    if not times:
        found = "no row has a time and a power; check the columns of the query"
        raise RefusedInputError("no_measurement", found)
    return min(found[0] for found in times), max(found[-1] for found in times)


def covers(log: PowerLog, window: Window) -> bool:
    """Return True if each device has samples at or before the start, and at or after the end, of the window."""
    return bool(log.series) and all(_covers(trace, window) for trace in log.series)


def _covers(trace: PowerTrace | CounterTrace, window: Window) -> bool:
    return trace.times[0] <= window[0] < window[1] <= trace.times[-1]


def energy_in_window(log: PowerLog, window: Window | None, notes: Notes) -> tuple[EnergyMetrics, PowerLog]:
    """Return the energy of the devices in a window, and the samples of the window.

    Args:
        log: The samples.
        window: The window; None for all samples of each device.
        notes: Gets notes about gaps, and about counters that fell.

    Raises:
        RefusedInputError: The samples do not cover the window, or a device has a single sample.
    """
    if window is not None and not covers(log, window):
        raise RefusedInputError("impossible_value", _describe_uncovered(log, window))
    counters = {counter.device: counter for counter in log.counters}
    traces = {trace.device: trace for trace in log.traces}
    found = {
        device: _energy_of(device, traces.get(device), counters.get(device), window, notes)
        for device in dict.fromkeys([*traces, *counters])
    }
    start = min(one.window[0] for one in found.values())
    end = max(one.window[1] for one in found.values())
    known = [one.energy_j for one in found.values() if one.energy_j is not None]
    total_j = math.fsum(known) if known else None
    provenances = {one.provenance for one in found.values() if one.energy_j is not None}
    provenance: Provenance | None = provenances.pop() if len(provenances) == 1 else None
    parts = component("total", total_j, "host" if log.is_host else "device", provenance)
    if not log.is_host:
        parts |= component("gpu", total_j, "device", provenance)
    energy = EnergyMetrics(
        **parts,
        duration_sec=end - start,
        gpu_power_w=None if log.is_host or total_j is None else total_j / (end - start),
        devices=None if log.is_host else [_device(device, one, log.uuids) for device, one in found.items()],
        sensors=[_reading(device, one, is_host=log.is_host) for device, one in found.items()],
    )
    if window is not None:
        inside = [trace.between(*window) for trace in log.traces]
        readings = [counter.between(*window) for counter in log.counters]
        log = PowerLog(traces=inside, counters=readings, uuids=log.uuids, is_host=log.is_host)
    return energy, log


def _describe_uncovered(log: PowerLog, window: Window) -> str:
    trace = next(trace for trace in log.series if not _covers(trace, window))
    found = f"the samples of GPU {trace.device or '0'} last {trace.times[-1] - trace.times[0]:.1f} s"
    missing = max(trace.times[0] - window[0], 0.0), max(window[1] - trace.times[-1], 0.0)
    found += f" and lack {missing[0]:.1f} s at the start and {missing[1]:.1f} s at the end of the window"
    return f"{found}; use a window inside the log (--from, --to)"


def _energy_of(
    device: str, trace: PowerTrace | None, counter: CounterTrace | None, window: Window | None, notes: Notes
) -> _Found:
    """Return the energy of one device: from its counter, or from its power if the counter fell or is missing."""
    what = f"GPU {device or '0'}"
    if counter is not None:
        found = _of_counter(counter, window)
        if found.energy_j is not None:
            return found
        message = f"the energy counter of {what} fell: it wrapped or was reset"
        if trace is None:
            message += ", so the energy of this GPU is null and not in the total"
            notes.warn("counter_fell", message, is_repair=True)
            return found
        notes.add("counter_fell", f"{message}, so the energy of this GPU is the integral of its power")
    if trace is None:
        raise RefusedInputError("no_measurement", f"{what} has no power")
    start, end = window or (trace.times[0], trace.times[-1])
    integral = integrate(trace.times, trace.powers, start, end)
    if integral is None:
        raise RefusedInputError("no_measurement", f"{what} has one sample; an energy needs two")
    if integral.gaps:
        message = f"{what} has {integral.gaps} gaps of up to {integral.longest_gap_sec:.1f} s"
        notes.warn("sampling_gap", f"{message}, in which the power is interpolated")
    problem = SAMPLING_GAP if integral.gaps else None
    return _Found(integral.value, integral.samples, (start, end), "integrated", problem)


def _of_counter(counter: CounterTrace, window: Window | None) -> _Found:
    """Return the increase of a counter in a window; the energy is None if the counter fell."""
    start, end = window or (counter.times[0], counter.times[-1])
    low, high = bisect.bisect_left(counter.times, start), bisect.bisect_right(counter.times, end)
    inside = counter.joules[low:high]
    # The value at an edge of the window is interpolated from the readings before and after this edge.
    used = counter.between(start, end).joules
    if any(later < earlier for earlier, later in itertools.pairwise(used)):
        return _Found(None, len(inside), (start, end), "measured", COUNTER_RESET)
    first, last = (interpolate(counter.times, counter.joules, edge) for edge in (start, end))
    return _Found(last - first, len(inside), (start, end), "measured")


def _device(device: str, found: _Found, uuids: dict[str, str]) -> DeviceEnergy:
    is_uuid = device.startswith(("GPU-", "MIG-")) and " " not in device
    return DeviceEnergy(
        gpu_id=int(device) if device.isdecimal() and len(device) < 6 else None,
        gpu_uuid=device if is_uuid else uuids.get(device),
        energy_j=found.energy_j,
        provenance=None if found.energy_j is None else found.provenance,
    )


def _reading(device: str, found: _Found, *, is_host: bool) -> SensorReading:
    length_sec = found.window[1] - found.window[0]
    return SensorReading(
        source=SOURCE,
        instance=device or None,
        component="total" if is_host else "gpu",
        scope="host" if is_host else "device",
        provenance=found.provenance,
        energy_j=found.energy_j,
        samples=found.samples,
        sampling_rate_hz=(found.samples - 1) / length_sec
        if found.samples > 1 and found.provenance == "integrated"
        else None,
        problems=[found.problem] if found.problem else [],
    )
