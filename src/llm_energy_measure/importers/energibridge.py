"""Import CSV logs of EnergiBridge: energy counters of the CPU, and power samples of GPUs, for one command.

`PP0` and `PP1` are parts of `PACKAGE`, and `COREi` are parts of `CPU`, so the parts are not imported. `PACKAGE` covers
only the CPU socket of core 0. The tool does not correct the wrap of a counter, so the energy of a counter that falls is
unknown.

Source: EnergiBridge; `Delta` in ms, `Time` in ms since 1970, counters in J, powers in W or mW.
"""

from __future__ import annotations

import itertools
import math
import re
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import (
    COUNTER_RESET,
    SAMPLING_GAP,
    Component,
    DeviceEnergy,
    EnergyMetrics,
    Provenance,
    Scope,
    SensorReading,
    Timestamps,
)
from llm_energy_measure.domain.power_trace import (
    CounterTrace,
    PowerLog,
    PowerTrace,
    integrate,
    interpolate,
    mean_of_equal_times,
)
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.record_parts import component, imported_record
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource, split_row
from llm_energy_measure.importers.values import from_epoch, identifier, parse_number

TOOL = "energibridge"

_COUNTERS: dict[str, Component] = {
    "PACKAGE_ENERGY (J)": "cpu",
    "CPU_ENERGY (J)": "cpu",
    "DRAM_ENERGY (J)": "ram",
}
_POWERS: dict[str, Component] = {
    "SYSTEM_POWER (Watts)": "total",
    "CPU_POWER (Watts)": "cpu",
    "GPU_POWER (Watts)": "gpu",
}
_GPU = re.compile(r"GPU([0-9]{1,3})_POWER \(mWatts\)")


class _Reading(NamedTuple):
    """The energy of one sensor in the window, in joules, with the column and the component of the sensor."""

    column: str
    component: Component
    scope: Scope
    provenance: Provenance
    energy_j: float | None
    samples: int
    problem: str | None
    gpu_id: int | None = None


def _columns(header: list[str]) -> list[str]:
    """Return the columns with an energy or a power that is imported."""
    return [name for name in header if name in _COUNTERS or name in _POWERS or _GPU.fullmatch(name)]


def _recognises(source: ImportSource) -> bool:
    return source.header[:2] == ["Delta", "Time"] and bool(_columns(source.header))


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for the log."""
    [source] = sources
    notes = Notes()
    names = _columns(source.header)
    times, values = _series(source, names, notes)
    if len(times) < 2:
        raise RefusedInputError("no_measurement", "the log has fewer than two different times; an energy needs two")
    edges = [None if edge is None else _seconds(edge) for edge in (options.window_start, options.window_end)]
    start, end = (times[0] if edges[0] is None else edges[0]), (times[-1] if edges[1] is None else edges[1])
    if not times[0] <= start < end <= times[-1]:
        found = f"the log lasts from {_moment(times[0]).isoformat()} to {_moment(times[-1]).isoformat()}"
        raise RefusedInputError("impossible_value", f"{found}; use a window inside it (--from, --to)")
    relative = array("d", (round(moment - start, 6) for moment in times))
    duration_sec = round(end - start, 6)
    readings, traces = [], []
    for name, column in zip(names, values, strict=True):
        reading, trace = _reading(name, relative, column, duration_sec, notes)
        readings.append(reading)
        traces += [trace] if trace is not None and reading.gpu_id is not None else []
    if traces:
        notes.power_log = PowerLog(traces=traces)
    record = imported_record(
        identifier(TOOL, source.sha256[:12], *(f"{edge:.3f}" for edge in edges if edge is not None)),
        gpu_id=int(traces[0].device) if len(traces) == 1 else None,
        energy_measurement_warning=notes.warning,
        timestamps=Timestamps(start=_moment(start), end=_moment(end), duration_sec=duration_sec),
        energy_metrics=_energy(readings, duration_sec),
        origin=source.origin(TOOL),
    )
    yield report.record(source.path, record, notes)


def _series(source: ImportSource, names: list[str], notes: Notes) -> tuple[array[float], list[array[float]]]:
    """Return times in seconds since 1970 and the values of the columns, in order of time; `nan` for unknown values."""
    positions = [source.header.index(name) for name in names]
    moments, columns = array("d"), [array("d") for _ in names]
    ignored = 0
    for _, text in source.rows():
        cells = [cell.strip() for cell in split_row(text) or []]
        number = parse_number(cells[1]) if len(cells) == len(source.header) else None
        if number is None or from_epoch(number / 1e3) is None:
            ignored += 1
            continue
        moments.append(number / 1e3)
        for position, column in zip(positions, columns, strict=True):
            value = parse_number(cells[position])
            column.append(value if value is not None and value >= 0 else math.nan)
    if ignored:
        found = f"{ignored} rows without a valid time, or with a wrong number of cells, were left out"
        notes.repair("damaged_cells", found)
    times, *values = mean_of_equal_times(moments, columns)
    return times, values


def _seconds(edge: datetime) -> float:
    """Return an edge of the window in seconds since 1970. Raise RefusedInputError if it has no UTC offset."""
    if edge.tzinfo is None:
        raise RefusedInputError(
            "impossible_value", "write --from and --to with a UTC offset, like the times of the log"
        )
    return edge.timestamp()


def _moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _reading(
    name: str, times: array[float], column: array[float], duration_sec: float, notes: Notes
) -> tuple[_Reading, PowerTrace | None]:
    """Return the energy of a column from second 0 to the duration, and the samples if the column is a power."""
    known = [index for index, value in enumerate(column) if not math.isnan(value)]
    own_times = array("d", (times[index] for index in known))
    values = array("d", (column[index] for index in known))
    covers = len(known) > 1 and own_times[0] <= 0.0 and own_times[-1] >= duration_sec
    if not covers:
        found = f"{name} has no value at the start or the end of the window"
        notes.warn("partial_total", f"{found}, so its energy is null", is_repair=True)
    if name in _COUNTERS:
        return _of_counter(name, own_times, values, duration_sec if covers else None, notes), None
    gpu = _GPU.fullmatch(name)
    if gpu:
        values = array("d", (value / 1e3 for value in values))
    integral = integrate(own_times, values, 0.0, duration_sec) if covers else None
    if integral is not None and integral.gaps:
        found = f"{name} has {integral.gaps} gaps of up to {integral.longest_gap_sec:.1f} s"
        notes.warn("sampling_gap", f"{found}, in which the power is interpolated")
    reading = _Reading(
        name,
        "gpu" if gpu else _POWERS[name],
        "device" if gpu else "host",
        "integrated",
        None if integral is None else integral.value,
        0 if integral is None else integral.samples,
        SAMPLING_GAP if integral is not None and integral.gaps else None,
        int(gpu[1]) if gpu else None,
    )
    trace = PowerTrace(device=gpu[1] if gpu else name, times=own_times, powers=values)
    return reading, trace.between(0.0, duration_sec) if known else None


def _of_counter(
    name: str, times: array[float], values: array[float], duration_sec: float | None, notes: Notes
) -> _Reading:
    """Return the reading of a counter. Its energy is None if the counter fell or does not cover the window.

    Args:
        name: Name of the column.
        times: Times of the values, in seconds since the start of the window.
        values: Values of the counter, in joules.
        duration_sec: Length of the window; None if the values do not cover the window.
        notes: Gets a note if the counter fell.
    """
    inside = [
        value for time, value in zip(times, values, strict=True) if duration_sec is None or 0.0 <= time <= duration_sec
    ]
    # The value at an edge of the window is interpolated from the values before and after this edge.
    counter = CounterTrace(device=name, times=times, joules=values)
    used = inside if duration_sec is None else counter.between(0.0, duration_sec).joules
    energy_j, problem = None, None
    if any(later < earlier for earlier, later in itertools.pairwise(used)):
        found = f"{name} fell within the run: its counter wrapped or was reset"
        notes.warn("counter_fell", f"{found}, so its energy is null", is_repair=True)
        problem = COUNTER_RESET
    elif duration_sec is not None:
        energy_j = interpolate(times, values, duration_sec) - interpolate(times, values, 0.0)
    return _Reading(name, _COUNTERS[name], "host", "measured", energy_j, len(inside), problem)


def _energy(readings: list[_Reading], duration_sec: float) -> EnergyMetrics:
    """Return the energies. The total is the energy of the system sensor, or else the sum of the components."""
    parts: dict[str, Any] = {}
    found: dict[str, list[_Reading]] = {}
    for reading in readings:
        if reading.energy_j is not None:
            found.setdefault(reading.component, []).append(reading)
    for name, of_part in found.items():
        parts |= _component(name, of_part)
    if "total" not in found:
        parts |= _component("total", [one for of_part in found.values() for one in of_part])
    gpus = [reading for reading in readings if reading.gpu_id is not None]
    powers: dict[str, Any] = {
        f"{name}_power_w": sum(one.energy_j or 0.0 for one in found[name]) / duration_sec
        for name in ("gpu", "cpu")
        if name in found
    }
    return EnergyMetrics(
        **parts,
        **powers,
        duration_sec=duration_sec,
        devices=[
            DeviceEnergy(
                gpu_id=one.gpu_id,
                energy_j=one.energy_j,
                provenance=None if one.energy_j is None else "integrated",
            )
            for one in gpus
        ]
        or None,
        sensors=[
            SensorReading(
                source=TOOL,
                instance=one.column,
                component=one.component,
                scope=one.scope,
                provenance=one.provenance,
                energy_j=one.energy_j,
                samples=one.samples,
                sampling_rate_hz=(one.samples - 1) / duration_sec if one.samples > 1 else None,
                problems=[one.problem] if one.problem else [],
            )
            for one in readings
        ],
    )


def _component(name: str, readings: list[_Reading]) -> dict[str, Any]:
    """Return the sum of the readings. Scope and provenance are None if the readings have different ones."""
    known = [one.energy_j for one in readings if one.energy_j is not None]
    scopes, provenances = {one.scope for one in readings}, {one.provenance for one in readings}
    return component(
        name,
        math.fsum(known) if known else None,
        scopes.pop() if len(scopes) == 1 else None,
        provenances.pop() if len(provenances) == 1 else None,
    )


FORMAT = Format(
    name=TOOL,
    looks_for="a CSV header Delta,Time with an energy in J or a power in Watts",
    recognises=_recognises,
    read=_read,
    covers="host (CPU of one socket, memory): measured; GPUs are devices: integrated",
    unknown="model, tokens, host name",
)
