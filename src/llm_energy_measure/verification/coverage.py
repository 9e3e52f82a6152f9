"""Check that the processes of a host together read each shared sensor for as long as they ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from msgspec import UNSET

from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.metrics import SENSOR_LOCKED, SensorReading
from llm_energy_measure.verification.codes import failed, passed
from llm_energy_measure.verification.processes import Evidence, Process, Span, comparable

CODE = "completeness.sensor_time"

TOLERANCE = 0.01
"""Largest accepted time in which no process reads the sensor, as a fraction of the time of the runs.

This time is accepted, because processes do not start at the same instant.
"""


def check_sensor_time(evidence: Evidence) -> Iterator[Finding]:
    """Check each sensor that at least one process left to another process."""
    if not evidence.any_sensors:
        return
    found: list[tuple[str, float, float, set[int]]] = []
    for host, processes in evidence.hosts.items():
        for name, read_sec, run_sec, indices in _coverage(processes):
            if run_sec - read_sec > TOLERANCE * run_sec:
                where = f" of host {host}" if len(evidence.hosts) > 1 else ""
                found.append((f"{name}{where}", read_sec, run_sec, indices))
    if not found:
        yield passed(CODE)
        return
    name, read_sec, run_sec, indices = max(found, key=lambda one: one[2] - one[1])
    others = f", and {len(found) - 1} more sensors were not read all the time" if len(found) > 1 else ""
    decimals = 1 if run_sec - read_sec >= 0.1 else 3
    covered = f"{read_sec:.{decimals}f} of {run_sec:.{decimals}f} s"
    message = f"{name} energy covers {covered}, so the total is a lower bound{others}"
    yield failed(CODE, message, expected=run_sec, found=read_sec, processes=indices)


def _coverage(processes: Iterable[Process]) -> Iterator[tuple[str, float, float, set[int]]]:
    """Yield name, time in which a process read the sensor, time of the runs, and process indices of each shared sensor.

    The times are lengths of unions of time spans, in seconds.
    """
    sensors: dict[tuple[str, str, object], list[tuple[Process, SensorReading]]] = {}
    for process in processes:
        boards = {str(gpu.name): gpu.sensor for gpu in process.gpus if gpu.is_shared}  # MIG slices share a sensor
        for reading in process.energy.sensors or ():
            key = reading.component, reading.source, boards.get(str(reading.instance)) or reading.instance
            sensors.setdefault(key, []).append((process, reading))
    for (component, source, instance), own in sensors.items():
        if not any(SENSOR_LOCKED in reading.problems or reading.window is not UNSET for _, reading in own):
            continue
        runs = [process.span for process, _ in own]
        read = [_span(process, reading) for process, reading in own if reading.energy_j is not None]
        if read and comparable(runs) and comparable(read):
            name = f"{'host' if own[0][1].scope == 'host' else ''} {component} ({source} {instance or ''}".strip() + ")"
            yield name, _length_sec(read), _length_sec(runs), {process.index for process, _ in own}


def _span(process: Process, reading: SensorReading) -> Span | None:
    return process.span if reading.window is UNSET else reading.window.span


def _length_sec(spans: Iterable[Span | None]) -> float:
    """Return the length of the union of these time spans, in seconds."""
    total, reached = timedelta(), None
    for start, end in sorted(span for span in spans if span is not None):
        begin = start if reached is None or start > reached else reached
        if end > begin:
            total += end - begin
            reached = end
    return total.total_seconds()
