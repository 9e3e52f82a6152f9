"""Readings: the energy that each process read from each sensor, with the scope of the sensor and the time span."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from llm_energy_measure.domain.metrics import EnergyMetrics, Scope
from llm_energy_measure.verification.energy_windows import Window, spans_of_sensors, window_of
from llm_energy_measure.verification.gpus import Gpu
from llm_energy_measure.verification.processes import Process
from llm_energy_measure.verification.tools import ToolScope, tool_scope

SUM_TOLERANCE = 1e-6
"""Greatest difference between a total and the sum of its components that is rounding, as a fraction of the total."""

Component = Literal["gpu", "cpu", "ram", "rest"]
COMPONENTS: tuple[Literal["gpu", "cpu", "ram"], ...] = ("gpu", "cpu", "ram")

Source = Literal["recorded", "listed", "tool", "assumed"]
"""Source of the scope of a reading: the record, its list of GPUs with energies, the manual of the tool, the user."""

Energies = dict[Component, list[float]]
"""Energies in joules, by component."""


class Reading(Struct, frozen=True, kw_only=True, gc=False):
    """Energy that one process read from one sensor.

    Attributes:
        process: Index of the process.
        component: Component that used the energy; `rest` is the part of a total outside GPU, CPU and memory.
        energy_j: Energy, in joules; more than 0.
        scope: Scope of the sensor; None if unknown.
        source: Source of the scope; None if the scope is unknown.
        window: Time span of the reading.
        sensors: Identities of the GPU sensors, unique within the host; empty if unknown.
        index: Index of the GPU on its host; None if unknown, or if the reading covers several GPUs.
        is_by_index: Whether the sensors are identified by an index alone.
        gpu: Name of the GPU, for messages.
        is_shared: Whether other GPUs have the same sensor.
        knows_sensor: Whether the record shows which GPUs share the sensors; see `Gpu`.
        limit_w: Greatest power of the boards that the sensors measure, in watts; None if unknown.
        stated_w: CPU power that the record states, in watts; None if the record states none.
        is_whole: Whether the reading is all energy of the process: a total without components.
    """

    process: int
    component: Component
    energy_j: float
    scope: Scope | None
    source: Source | None
    window: Window
    sensors: tuple[str | int, ...] = ()
    index: int | None = None
    is_by_index: bool = False
    gpu: str | int | None = None
    is_shared: bool = False
    knows_sensor: bool = True
    limit_w: float | None = None
    stated_w: float | None = None
    is_whole: bool = False

    @property
    def power_w(self) -> float | None:
        """Mean power over the longest known time, in watts; None if no time is known."""
        length_sec = self.window.length_sec
        return self.energy_j / length_sec if length_sec else None


def readings_of(process: Process, assumed: Scope | None = None) -> list[Reading]:
    """Return the readings of one process, which add up to its total energy; empty if this total is unknown or 0 J.

    Args:
        process: The process.
        assumed: Scope of the GPU energy that the user states, for records that state none.
    """
    energy, whole_scope = process.energy, process.energy.total_scope
    if not energy.total_energy_j:
        return []
    gpu_j, cpu_j, ram_j, rest_j = parts_of(energy)
    documented = tool_scope(process.record.origin)
    window, handed_over = window_of(process), spans_of_sensors(energy)
    index = process.record.process_index
    gpu_scope, gpu_source = _gpu_scope(process, documented, assumed)
    readings = _gpu_readings(process, gpu_j, gpu_scope, gpu_source, window) if gpu_j else []
    others: tuple[tuple[Component, float, Scope | None], ...]
    others = ("cpu", cpu_j, energy.cpu_scope), ("ram", ram_j, energy.ram_scope)
    for component, energy_j, recorded in others:
        if energy_j:
            scope, source = _scope_of(component, recorded or whole_scope, documented)
            if scope is None and component == "cpu" and energy.cpu_provenance == "measured":
                scope, source = "host", "recorded"  # a CPU counter measures the package, not one process
            readings.append(
                Reading(
                    process=index,
                    component=component,
                    energy_j=energy_j,
                    scope=scope,
                    source=source,
                    window=window_of(process, handed_over[component]) if component in handed_over else window,
                    stated_w=energy.cpu_power_w if component == "cpu" else None,
                )
            )
    if rest_j:
        is_whole = not readings
        if is_whole and energy.gpu_energy_j is None and "device" in (whole_scope, None if whole_scope else gpu_scope):
            # A total of scope `device` without components is the energy of the GPUs.
            return _gpu_readings(process, rest_j, "device", "recorded" if whole_scope else gpu_source, window)
        scope, source = _scope_of("rest", whole_scope, None)
        if scope is None and is_whole and whole_scope is None:
            scope, source = _of_whole(gpu_scope), gpu_source
        readings.append(
            Reading(
                process=index,
                component="rest",
                energy_j=rest_j,
                scope=scope,
                source=source if scope else None,
                window=window,
                is_whole=is_whole,
            )
        )
    return readings


def _gpu_scope(
    process: Process, documented: ToolScope | None, assumed: Scope | None
) -> tuple[Scope | None, Source | None]:
    """Return the scope of the GPU energy, and its source. GPUs with separate energies have the scope `device`."""
    if process.gpu_scope is not None:
        return process.gpu_scope, "recorded"
    devices = process.energy.devices
    if devices and all(
        device.energy_j is not None and (device.gpu_uuid is not None or device.gpu_id is not None) for device in devices
    ):
        return "device", "listed"
    if documented is not None and documented.gpu is not None:
        return documented.gpu, "tool"
    return assumed, None if assumed is None else "assumed"


def _scope_of(
    component: Component, recorded: Scope | None, documented: ToolScope | None
) -> tuple[Scope | None, Source | None]:
    """Return the scope of the CPU, the memory or the rest, and its source."""
    if (scope := _of_whole(recorded)) is not None:
        return scope, "recorded"
    scope = None if documented is None else (documented.cpu if component == "cpu" else documented.ram)
    return scope, None if scope is None else "tool"


def separate_energies(processes: Sequence[Process]) -> Energies | None:
    """Return the energies of one host whose readings can't contain the same joule; None if readings must be compared.

    Readings can't contain the same joule if two conditions are met. Each GPU has its own sensor, which only one process
    reads. Each other reading is the share of a process, or a component of the host that only one process reads.
    Comparing readings is most of the cost of attribution. Most hosts with complete records don't need the comparison.
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
        gpu_j, cpu_j, ram_j, rest_j = parts_of(energy)
        if rest_j:
            return None
        if gpu_j:
            gpu.append(gpu_j)
            own = process.gpus[0] if len(process.gpus) == 1 else None
            if process.gpu_scope != "device" or own is None or not own.knows_sensor or own.sensor is None:
                return None
            sensors.append(own.sensor)
        if cpu_j:
            cpu.append(cpu_j)
            cpu_scopes.append(energy.cpu_scope or whole_scope)
        if ram_j:
            ram.append(ram_j)
            ram_scopes.append(energy.ram_scope or whole_scope)
    are_named = len({type(sensor) for sensor in sensors}) <= 1 and len(set(sensors)) == len(sensors)
    if not are_named or not _are_shares(cpu_scopes) or not _are_shares(ram_scopes):
        return None
    energies: Energies = {"gpu": gpu, "cpu": cpu, "ram": ram}
    return {component: joules for component, joules in energies.items() if joules}


def _are_shares(scopes: Sequence[Scope | None]) -> bool:
    """Return True if the readings of one component are shares of processes, or one reading of the host."""
    return scopes.count("process") == len(scopes) or scopes == ["host"]


def parts_of(energy: EnergyMetrics) -> tuple[float, float, float, float]:
    """Return the parts of a known total, in joules: GPUs, CPUs, memory, and the rest; 0 for an unknown part."""
    total = energy.total_energy_j or 0.0
    gpu_j, cpu_j, ram_j = energy.gpu_energy_j or 0.0, energy.cpu_energy_j or 0.0, energy.ram_energy_j or 0.0
    if energy.gpu_energy_j is None and energy.devices:
        gpu_j = math.fsum(device.energy_j or 0.0 for device in energy.devices)
    rest = total - math.fsum((gpu_j, cpu_j, ram_j))
    if rest < -SUM_TOLERANCE * total:
        gpu_j, cpu_j, ram_j, rest = 0.0, 0.0, 0.0, total  # components above the total can't be its parts
    return gpu_j, cpu_j, ram_j, rest if rest > SUM_TOLERANCE * total else 0.0


def _of_whole(scope: Scope | None) -> Scope | None:
    """Return the scope of CPU, memory or total; None for `device`, because the records do not name this device."""
    return None if scope == "device" else scope


def _gpu_readings(
    process: Process, joules: float, scope: Scope | None, source: Source | None, window: Window
) -> list[Reading]:
    """Return the GPU energy of a process: one reading per GPU if their energies are known, else one for all GPUs."""
    gpus, devices = process.gpus, process.energy.devices
    index = process.record.process_index
    if scope == "host":
        reading = Reading(
            process=index, component="gpu", energy_j=joules, scope=scope, source=source, window=window, limit_w=None
        )
        return [reading]
    handed_over = spans_of_sensors(process.energy)

    def own_window(gpu: Gpu) -> Window:
        span = handed_over.get(str(gpu.name)) if handed_over else None
        return window if span is None else window_of(process, span)

    if len(gpus) == 1:
        limit_w = process.boards.limit_w
        return [_of_gpu(index, gpus[0], joules, limit_w, scope=scope, source=source, window=own_window(gpus[0]))]
    # Separate readings of unnamed GPUs could look like readings of one GPU, so only named GPUs have separate ones.
    if devices and len(gpus) == len(devices) and all(gpu.sensor is not None for gpu in gpus):
        parts = [device.energy_j or 0.0 for device in devices]
        if abs(math.fsum(parts) - joules) <= SUM_TOLERANCE * joules:
            return [
                _of_gpu(index, gpu, part, gpu.limit_w, scope=scope, source=source, window=own_window(gpu))
                for gpu, part in zip(gpus, parts, strict=True)
                if part
            ]
    # One figure for several GPUs.
    sensors = [gpu.sensor for gpu in gpus]
    reading = Reading(
        process=index,
        component="gpu",
        energy_j=joules,
        scope=scope,
        source=source,
        window=window,
        sensors=() if None in sensors else tuple(dict.fromkeys(s for s in sensors if s is not None)),
        is_by_index=any(gpu.is_by_index for gpu in gpus),
        gpu=", ".join(str(gpu.name) for gpu in gpus if gpu.name is not None) or None,
        is_shared=any(gpu.is_shared for gpu in gpus),
        knows_sensor=all(gpu.knows_sensor for gpu in gpus),
        limit_w=process.boards.limit_w,
    )
    return [reading]


def _of_gpu(
    process: int,
    gpu: Gpu,
    energy_j: float,
    limit_w: float | None,
    *,
    scope: Scope | None,
    source: Source | None,
    window: Window,
) -> Reading:
    """Return the reading of one GPU."""
    return Reading(
        process=process,
        component="gpu",
        energy_j=energy_j,
        scope=scope,
        source=source,
        window=window,
        sensors=() if gpu.sensor is None else (gpu.sensor,),
        index=gpu.index,
        is_by_index=gpu.is_by_index,
        gpu=gpu.name,
        is_shared=gpu.is_shared,
        knows_sensor=gpu.knows_sensor,
        limit_w=limit_w,
    )
