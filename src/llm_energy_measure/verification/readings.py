"""Readings: what each process read, sensor by sensor, and which readings of one sensor are the same joules."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Literal

from msgspec import UNSET, Struct

from llm_energy_measure.domain.metrics import EnergyMetrics, Scope
from llm_energy_measure.verification.processes import Process, Span, comparable

if TYPE_CHECKING:
    from collections.abc import Sequence


SUM_TOLERANCE = 1e-6
"""Fraction of a total that its components may leave or exceed by rounding."""

Component = Literal["gpu", "cpu", "ram", "rest"]
COMPONENTS: tuple[Literal["gpu", "cpu", "ram"], ...] = ("gpu", "cpu", "ram")


Energies = dict[Component, list[float]]
"""Energies in joules, by component."""


class Reading(Struct, frozen=True, kw_only=True, gc=False):
    """Energy that one process read from one sensor.

    Attributes:
        process: Index of the process.
        component: What it is the energy of; `rest` is what of a total is none of the components.
        energy_j: Energy, in joules.
        scope: What the sensor saw; None if unknown.
        sensor: The GPU's sensor, within its host; None if it is no GPU's or nothing identifies it.
        gpu: Name of the GPU.
        is_shared: Whether other GPUs have the same sensor.
        knows_sensor: Whether GPUs of other sensors are known to have other ones; see `Gpu`.
        span: Start and end of the window, where both are known and can be compared.
    """

    process: int
    component: Component
    energy_j: float
    scope: Scope | None
    sensor: str | int | None = None
    gpu: str | int | None = None
    is_shared: bool = False
    knows_sensor: bool = True
    span: Span | None = None


def readings_of(process: Process) -> list[Reading]:
    """What one process read, sensor by sensor; together they are its total. Empty if that is unknown."""
    energy, whole_scope = process.energy, process.energy.total_scope
    if energy.total_energy_j is None:
        return []
    gpu_j, cpu_j, ram_j, rest_j = _parts_of(energy)
    readings = _gpu_readings(process, gpu_j, process.gpu_scope) if gpu_j else []
    index, span = process.record.process_index, process.span
    taken_over = windows_of_sensors(energy)
    if cpu_j:
        scope = energy.cpu_scope or whole_scope
        readings.append(
            Reading(
                process=index, component="cpu", energy_j=cpu_j, scope=_of_whole(scope), span=taken_over.get("cpu", span)
            )
        )
    if ram_j:
        scope = energy.ram_scope or whole_scope
        readings.append(
            Reading(
                process=index, component="ram", energy_j=ram_j, scope=_of_whole(scope), span=taken_over.get("ram", span)
            )
        )
    if rest_j:
        if whole_scope == "device" and energy.gpu_energy_j is None:
            # A total of devices alone, without its components, is the GPUs'.
            readings += _gpu_readings(process, rest_j, "device")
        else:
            readings.append(
                Reading(process=index, component="rest", energy_j=rest_j, scope=_of_whole(whole_scope), span=span)
            )
    return readings


def windows_of_sensors(energy: EnergyMetrics) -> dict[str, Span]:
    """Return the time spans of sensors that the process read for a part of its window, by component and by instance.

    A component has a span here only if the process read all sensors of the component for one span.
    """
    if energy.sensors is None or all(sensor.window is UNSET for sensor in energy.sensors):
        return {}
    found: dict[str, Span] = {}
    by_component: dict[str, set[Span | None]] = {}
    for sensor in energy.sensors:
        span = None if sensor.window is UNSET else sensor.window.span
        if sensor.energy_j is not None:
            by_component.setdefault(sensor.component, set()).add(span)
        if span is not None and sensor.instance is not None:
            found[sensor.instance] = span
    return found | {name: span for name, (span, *others) in by_component.items() if span is not None and not others}


def energies_of(readings: Sequence[Reading]) -> Energies:
    """The energies of readings."""
    energies: Energies = {}
    for reading in readings:
        energies.setdefault(reading.component, []).append(reading.energy_j)
    return energies


def energies_apart(processes: Sequence[Process]) -> Energies | None:
    """The energies of one host's readings, where no two can be of the same joules; None where that has to be seen.

    They can't where each GPU has a sensor of its own, which one process reads, and the rest are processes' own shares,
    or a component of the host that one process reads for all. Most hosts are so, and nothing of them is in doubt: their
    readings need not be set beside each other, which is most of the work of attribution.
    """
    gpu: list[float] = []
    cpu: list[float] = []
    ram: list[float] = []
    sensors: list[str | int] = []
    cpu_scopes: list[Scope | None] = []
    ram_scopes: list[Scope | None] = []
    for process in processes:
        energy, whole_scope = process.energy, process.energy.total_scope
        if not energy.total_energy_j:
            continue
        gpu_j, cpu_j, ram_j, rest_j = _parts_of(energy)
        if rest_j and whole_scope != "process":
            return None
        if gpu_j:
            gpu.append(gpu_j)
            own = process.gpus[0] if len(process.gpus) == 1 else None
            if process.gpu_scope == "device" and own is not None and own.knows_sensor and own.sensor is not None:
                sensors.append(own.sensor)
            elif process.gpu_scope != "process" or own is None:
                return None
        if cpu_j:
            cpu.append(cpu_j)
            cpu_scopes.append(energy.cpu_scope or whole_scope)
        if ram_j:
            ram.append(ram_j)
            ram_scopes.append(energy.ram_scope or whole_scope)
    if len(set(sensors)) < len(sensors) or not _are_shares(cpu_scopes) or not _are_shares(ram_scopes):
        return None
    energies: Energies = {"gpu": gpu, "cpu": cpu, "ram": ram}
    return {component: joules for component, joules in energies.items() if joules}


def _are_shares(scopes: Sequence[Scope | None]) -> bool:
    """Whether readings of one component are processes' own shares, or one that is the host's."""
    return scopes.count("process") == len(scopes) or scopes == ["host"]


def _parts_of(energy: EnergyMetrics) -> tuple[float, float, float, float]:
    """What a known total is made of, in joules: GPUs, CPUs, memory, and what is none of these; 0 where it has none."""
    total = energy.total_energy_j or 0.0
    gpu_j, cpu_j, ram_j = energy.gpu_energy_j or 0.0, energy.cpu_energy_j or 0.0, energy.ram_energy_j or 0.0
    rest = total - math.fsum((gpu_j, cpu_j, ram_j))
    if rest < -SUM_TOLERANCE * total:
        gpu_j, cpu_j, ram_j, rest = 0.0, 0.0, 0.0, total  # they are no parts of this total
    return gpu_j, cpu_j, ram_j, rest if rest > SUM_TOLERANCE * total else 0.0


def _of_whole(scope: Scope | None) -> Scope | None:
    """The scope of a CPU, a memory or a whole: which package or module its sensor saw is not recorded."""
    return None if scope == "device" else scope


def _gpu_readings(process: Process, joules: float, scope: Scope | None) -> list[Reading]:
    """The GPU energy of a process, GPU by GPU where it is known so; a host's is one reading of all of its GPUs."""
    index, span, gpus, devices = process.record.process_index, process.span, process.gpus, process.energy.devices
    if scope == "host":
        return [Reading(process=index, component="gpu", energy_j=joules, scope=scope, span=span)]
    parts: list[float] | None = None
    if devices and len(gpus) == len(devices) > 1:
        parts = [device.energy_j or 0.0 for device in devices]
        if abs(math.fsum(parts) - joules) > SUM_TOLERANCE * joules:
            parts = None
    taken_over = windows_of_sensors(process.energy)
    if len(gpus) == 1 or parts is not None:
        return [
            Reading(
                process=index,
                component="gpu",
                energy_j=part,
                scope=scope,
                sensor=gpu.sensor,
                gpu=gpu.name,
                is_shared=gpu.is_shared,
                knows_sensor=gpu.knows_sensor,
                span=taken_over.get(str(gpu.name), span),
            )
            for gpu, part in zip(gpus, parts or [joules], strict=True)
        ]
    # One figure for several GPUs: the set of them is the sensor.
    names = [gpu.sensor for gpu in gpus]
    sensor = None if None in names else " + ".join(sorted(map(str, names)))
    return [Reading(process=index, component="gpu", energy_j=joules, scope=scope, sensor=sensor, gpu=sensor, span=span)]


def overlap(one: Reading, other: Reading) -> bool:
    """Whether two readings are of one time, in part; without comparable windows they are taken to be."""
    if one.span is None or other.span is None or not comparable([one.span, other.span]):
        return True
    return one.span[0] < other.span[1] and other.span[0] < one.span[1]


def lies_within(inner: Reading, outer: Reading) -> bool:
    """Whether the window of one reading lies within another's; without comparable windows it is taken to."""
    if inner.span is None or outer.span is None or not comparable([inner.span, outer.span]):
        return True
    return outer.span[0] <= inner.span[0] and inner.span[1] <= outer.span[1]


def dropped_of(same: Sequence[Reading]) -> list[Reading]:
    """Readings of one sensor whose joules others have: all but those that don't overlap and come to the most.

    Without comparable windows all are taken to be of one time. Of equals the longest window counts, whatever the number
    of its process.
    """
    ordered = sorted(same, key=_longest_first)
    in_order = comparable([reading.span for reading in ordered])
    kept = _most_without_overlap(ordered) if in_order else [max(ordered, key=lambda reading: reading.energy_j)]
    chosen = {id(reading) for reading in kept}
    return [reading for reading in ordered if id(reading) not in chosen]


def _longest_first(reading: Reading) -> tuple[float, str, int]:
    """Place of a reading among equals; an unknown window can be any."""
    if reading.span is None:
        return -math.inf, "", reading.process
    start, end = reading.span
    return (start - end).total_seconds(), start.isoformat(), reading.process


def _most_without_overlap(readings: Sequence[Reading]) -> list[Reading]:
    """Of readings with windows, those that don't overlap and come to the most energy.

    Source: weighted interval scheduling; Kleinberg and Tardos, Algorithm Design (2005), section 6.1.
    """
    by_end = sorted(((reading.span, reading) for reading in readings if reading.span), key=lambda pair: pair[0][1])
    ends = [span[1] for span, _ in by_end]
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for index, (span, reading) in enumerate(by_end):
        before, chosen = best[bisect_right(ends, span[0], 0, index)]
        with_it = before + reading.energy_j
        best.append((with_it, (*chosen, index)) if with_it > best[-1][0] else best[-1])
    return [by_end[index][1] for index in best[-1][1]] or [readings[0]]


def possible_more(same: Sequence[Reading], dropped: Sequence[Reading]) -> float:
    """How much of what was dropped may be joules of its own: windows that only partly overlap share a part."""
    known = [reading.span for reading in same if reading.span is not None]
    if len(known) < len(same) or not comparable(known):
        return 0.0
    if any(outer[0] <= min(s[0] for s in known) and outer[1] >= max(s[1] for s in known) for outer in known):
        return 0.0
    distinct = {(reading.span, reading.energy_j) for reading in same}
    kept = math.fsum(r.energy_j for r in same) - math.fsum(r.energy_j for r in dropped)
    return max(0.0, math.fsum(joules for _, joules in distinct) - kept)
