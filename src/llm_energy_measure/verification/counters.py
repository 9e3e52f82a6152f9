"""Checks of energy counters: resets, wraps, lost sensors, and cumulative readings used as the energy of a window."""

from __future__ import annotations

import math
from collections.abc import Iterator

from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.metrics import COUNTER_RESET, SAMPLING_GAP, SENSOR_LOST, EnergyMetrics, SensorReading
from llm_energy_measure.verification.codes import failed, joules, not_checked, passed
from llm_energy_measure.verification.processes import Evidence
from llm_energy_measure.verification.readings import COMPONENTS

TOLERANCE = 0.01
"""Greatest relative difference between a sensor's energy and its counter, or between a component and its sensors."""

_CODES = ("counter.reset", "counter.wrap", "counter.cumulative", "counter.lost", "counter.gap", "counter.mismatch")
_CODE_OF_PROBLEM = {COUNTER_RESET: "counter.reset", SENSOR_LOST: "counter.lost", SAMPLING_GAP: "counter.gap"}
_MESSAGES = {
    "counter.reset": "was reset within the window; the energy before the reset is lost",
    "counter.lost": "was lost within the window; the energy after the loss is missing",
    "counter.gap": "was not sampled for some time; the energy over the gap is interpolated",
}


def check_counters(evidence: Evidence) -> Iterator[Finding]:
    """Check that the energy of each sensor agrees with its counter, if a process recorded sensor readings."""
    if not evidence.any_sensors:
        yield not_checked("counter.recorded", "no process recorded sensor readings")
        return
    found: dict[str, tuple[str, float | None, float | None, list[int]]] = {}
    for record in evidence.records:
        for sensor in record.energy_metrics.sensors or ():
            for code, message, expected, value in _problems(sensor):
                name = f"{sensor.source}{f' {sensor.instance}' if sensor.instance else ''}"
                sentence = f"sensor {name} of process {record.process_index} {message}"
                found.setdefault(code, (sentence, expected, value, []))[3].append(record.process_index)
        for message, expected, value in _mismatches(record.energy_metrics):
            sentence = f"process {record.process_index} {message}"
            found.setdefault("counter.mismatch", (sentence, expected, value, []))[3].append(record.process_index)
    yield passed("counter.recorded")
    for code in _CODES:
        if code in found:
            sentence, expected, value, processes = found[code]
            yield failed(code, sentence, expected=expected, found=value, processes=set(processes))
        else:
            yield passed(code)


def _mismatches(energy: EnergyMetrics) -> Iterator[tuple[str, float, float]]:
    """Yield message, expected and found energy (J) of each component that differs from its sensors.

    A component agrees if it equals the sum of all its sensors, or the sum of the sensors of one source. A component is
    not compared if the energy of a sensor is unknown, for example because another process read the sensor.
    """
    for name in COMPONENTS:
        joules_of: float | None = getattr(energy, f"{name}_energy_j")
        sensors = [sensor for sensor in energy.sensors or () if sensor.component == name]
        read = {id(sensor): value for sensor in sensors if (value := _read_j(sensor)) is not None}
        if joules_of is None or not sensors or len(read) < len(sensors):
            continue
        by_source: dict[str, float] = {}
        for sensor in sensors:
            by_source[sensor.source] = by_source.get(sensor.source, 0.0) + read[id(sensor)]
        sums = [math.fsum(read.values()), *by_source.values()]
        if not any(abs(joules_of - one) <= TOLERANCE * one for one in sums):
            message = f"has {joules(joules_of)} of {name.upper()} energy, but its sensors read {joules(sums[0])}"
            yield message, sums[0], joules_of


def _read_j(sensor: SensorReading) -> float | None:
    """Return the energy of a sensor in joules, recorded or else from its counter; None if unknown."""
    if sensor.energy_j is not None or sensor.problems:
        return sensor.energy_j
    return None if (counted := _counted_j(sensor)) is None or counted < 0 else counted


def _counted_j(sensor: SensorReading) -> float | None:
    """Return the increase of a counter (end - start + wraps x range), in joules; None without both readings."""
    if sensor.counter_start_j is None or sensor.counter_end_j is None:
        return None
    return sensor.counter_end_j - sensor.counter_start_j + (sensor.wraps or 0) * (sensor.counter_range_j or 0.0)


def _problems(sensor: SensorReading) -> Iterator[tuple[str, str, float | None, float | None]]:
    """Yield code, message, expected and found value (J) of each problem of one sensor reading."""
    for problem in sensor.problems:
        if code := _CODE_OF_PROBLEM.get(problem):
            yield code, _MESSAGES[code], None, None
    start, end, energy_j = sensor.counter_start_j, sensor.counter_end_j, sensor.energy_j
    counted = _counted_j(sensor)
    if start is None or end is None or counted is None:
        return
    if counted < 0:
        if not sensor.counter_range_j:
            message = f"went back from {joules(start)} to {joules(end)}; it was reset, so the energy is unknown"
            yield "counter.reset", message, start, end
        else:
            counted_wraps = (
                "no wrap was counted" if not sensor.wraps else f"too few wraps were counted ({sensor.wraps})"
            )
            message = f"went back from {joules(start)} to {joules(end)}; it wrapped, but {counted_wraps}"
            yield "counter.wrap", message, counted % sensor.counter_range_j, energy_j
        return
    if energy_j is None or abs(energy_j - counted) <= TOLERANCE * counted:
        return
    if abs(energy_j - end) <= TOLERANCE * end:
        message = f"reports its end reading {joules(energy_j)} as energy; the window's energy is {joules(counted)}"
        yield "counter.cumulative", message, counted, energy_j
    elif COUNTER_RESET not in sensor.problems:
        message = f"reports {joules(energy_j)}, but its counter increased by {joules(counted)}"
        yield "counter.wrap", message, counted, energy_j
