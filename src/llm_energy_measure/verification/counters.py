"""Counters: readings of energy counters that began anew, ran over, or were taken for the energy of the window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_energy_measure.domain.metrics import COUNTER_RESET, SAMPLING_GAP, SENSOR_LOST
from llm_energy_measure.verification.codes import failed, joules, not_checked, passed
from llm_energy_measure.verification.readings import COMPONENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.domain.metrics import EnergyMetrics, SensorReading
    from llm_energy_measure.verification.processes import Evidence

TOLERANCE = 0.01
"""Fraction that a sensor's energy may differ from the difference of its counter."""

_CODES = ("counter.reset", "counter.wrap", "counter.cumulative", "counter.lost", "counter.gap", "counter.mismatch")
_SAID = {COUNTER_RESET: "counter.reset", SENSOR_LOST: "counter.lost", SAMPLING_GAP: "counter.gap"}
_WORDS = {
    "counter.reset": "was set back within the window: what it counted before is lost",
    "counter.lost": "was lost within the window: the energy after that is missing",
    "counter.gap": "was not sampled for a time: power in the gap is a guess",
}


def check_counters(evidence: Evidence) -> Iterator[Finding]:
    """Whether each sensor's energy follows from its counter. Without sensor readings nothing can be said."""
    if not evidence.any_sensors:
        yield not_checked("counter.recorded", "no process recorded the readings of its sensors")
        return
    found: dict[str, tuple[str, float | None, float | None, list[int]]] = {}
    for record in evidence.records:
        for sensor in record.energy_metrics.sensors or ():
            for code, message, expected, value in _problems(sensor):
                name = f"{sensor.source}{f' {sensor.instance}' if sensor.instance else ''}"
                sentence = f"sensor {name} of process {record.process_index} {message}"
                found.setdefault(code, (sentence, expected, value, []))[3].append(record.process_index)
        for words, expected, value in _mismatches(record.energy_metrics):
            sentence = f"process {record.process_index} {words}"
            found.setdefault("counter.mismatch", (sentence, expected, value, []))[3].append(record.process_index)
    yield passed("counter.recorded")
    for code in _CODES:
        if code in found:
            sentence, expected, value, processes = found[code]
            yield failed(code, sentence, expected=expected, found=value, processes=set(processes))
        else:
            yield passed(code)


def _mismatches(energy: EnergyMetrics) -> Iterator[tuple[str, float, float]]:
    """Words, expected and found energy of each component that is not what its sensors read, all or those of one source.

    A reading that failed, or was left to another process, says nothing of the energy.
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
            words = f"has {joules(joules_of)} of {name.upper()} energy, and its sensors read {joules(sums[0])}"
            yield words, sums[0], joules_of


def _read_j(sensor: SensorReading) -> float | None:
    """Energy that a sensor read, by its own account or by its counter's; None if neither tells, or it had a problem."""
    if sensor.energy_j is not None or sensor.problems:
        return sensor.energy_j
    return None if (counted := _counted_j(sensor)) is None or counted < 0 else counted


def _counted_j(sensor: SensorReading) -> float | None:
    """Difference of a counter's readings, its wraps added; None without both readings."""
    if sensor.counter_start_j is None or sensor.counter_end_j is None:
        return None
    return sensor.counter_end_j - sensor.counter_start_j + (sensor.wraps or 0) * (sensor.counter_range_j or 0.0)


def _problems(sensor: SensorReading) -> Iterator[tuple[str, str, float | None, float | None]]:
    """Code, words, expected and found value of what is wrong with one reading."""
    for problem in sensor.problems:
        if problem in _SAID:
            code = _SAID[problem]
            yield code, _WORDS[code], None, None
    start, end, energy_j = sensor.counter_start_j, sensor.counter_end_j, sensor.energy_j
    counted = _counted_j(sensor)
    if start is None or end is None or counted is None:
        return
    if counted < 0:
        if sensor.counter_range_j is None:
            words = f"went back from {joules(start)} to {joules(end)}: it was set back, and the energy is unknown"
            yield "counter.reset", words, start, end
        else:
            words = f"went from {joules(start)} to {joules(end)} over its range, and no wrap was counted"
            yield "counter.wrap", words, end - start + sensor.counter_range_j, energy_j
        return
    if energy_j is None or abs(energy_j - counted) <= TOLERANCE * counted:
        return
    if abs(energy_j - end) <= TOLERANCE * end:
        words = f"gave {joules(energy_j)}, its counter's reading, for a window in which it counted {joules(counted)}"
        yield "counter.cumulative", words, counted, energy_j
    elif COUNTER_RESET not in sensor.problems:
        words = f"gave {joules(energy_j)}, and its counter counted {joules(counted)}"
        yield "counter.wrap", words, counted, energy_j
