"""Experiments that read one sensor at the same time: each experiment counts all joules of the sensor.

A lock lets only one process of an experiment read a shared sensor. Several experiments on one machine have no common
lock, so the sum of their energies counts joules several times. Two readings are of one sensor if boot id, source and
instance are equal. The times of the readings are compared on the monotonic clock of the boot, which does not change if
the wall clock is set.

Imported records have no boot id. Two of their energies are of one sensor if the records name the same host and both
energies cover the host, or if the records name the same GPU. Without a host name the machine is unknown, so host
energies are not compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC

from msgspec import UNSET, Struct

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.metrics import SensorReading
from llm_energy_measure.verification.codes import failed, joules, seconds

CODE = "attribution.concurrent_experiments"

TOLERANCE = 0.01
"""Largest common time that is no finding, as a fraction of the time in which a process read the sensor."""

CLOCK_STEP_SEC = 1.0
"""Common time of imported records that is no finding, in addition to `TOLERANCE`: some tools write whole seconds."""

_MAX_NAMES = 3


class SensorUse(Struct, frozen=True, kw_only=True, gc=False):
    """The reading of one sensor by one process.

    Attributes:
        experiment_id: The experiment.
        sensor: Boot id and name of the sensor. For imported records, the host in place of the boot id.
        start: Start of the reading in seconds, on the monotonic clock of the boot or, for imported records, on the wall
            clock.
        end: End of the reading, in seconds.
        energy_j: Energy of the sensor in this time, in joules.
        idle_power_w: Idle power of all sensors of the process, in watts; None if unknown.
        clock_step_sec: Error of start and end, in seconds.
    """

    experiment_id: str
    sensor: tuple[str, str]
    start: float
    end: float
    energy_j: float
    idle_power_w: float | None
    clock_step_sec: float = 0.0


class SharedEnergy(Struct, kw_only=True):
    """Time and energy that an experiment has in common with other experiments that read the same sensors.

    Attributes:
        others: Ids of the other experiments, sorted.
        common_sec: Longest time in which another experiment also read one sensor of this experiment, in seconds.
        common_j: Energy of the shared sensors while other experiments also read them, in joules. The other experiments
            count this energy too.
        equal_j: Part of this experiment in the energy of the shared sensors, in joules. At each instant, the
            experiments that read a sensor share its power equally.
        least_j: Like `equal_j`, without the idle energy; None if the idle power is unknown.
        all_j: Energy of the shared sensors, in joules.
    """

    others: list[str]
    common_sec: float
    common_j: float
    equal_j: float
    least_j: float | None
    all_j: float


def sensor_uses(experiment_id: str, records: Iterable[RawProcessResult]) -> Iterator[SensorUse]:
    """Yield the readings of sensors that other processes of the machine can read too."""
    for record in records:
        is_recorded = record.clock is not None and record.clock.boot_id is not None
        yield from (_recorded_uses if is_recorded else _stated_uses)(experiment_id, record)


def _recorded_uses(experiment_id: str, record: RawProcessResult) -> Iterator[SensorUse]:
    """Yield the readings of sensors that a record of this tool contains."""
    clock, sensors = record.clock, record.energy_metrics.sensors
    if clock is None or clock.boot_id is None or not sensors:
        return
    if clock.monotonic_start_sec is None or clock.monotonic_end_sec is None:
        return
    boards = {
        device.gpu_uuid: f"GPU {device.gpu_id}"
        for device in record.energy_metrics.devices or ()
        if device.mig_profile is not None and device.gpu_id is not None
    }
    for reading in sensors:
        if reading.energy_j is None or reading.scope not in ("device", "host"):
            continue
        # A MIG slice has the counter of its board.
        name = boards.get(reading.instance) or reading.instance
        yield SensorUse(
            experiment_id=experiment_id,
            sensor=(clock.boot_id, f"{reading.source} {name or reading.component}"),
            start=clock.monotonic_start_sec + _begin_sec(record, reading),
            end=clock.monotonic_end_sec,
            energy_j=reading.energy_j,
            idle_power_w=record.energy_metrics.idle_power_w,
        )


def _stated_uses(experiment_id: str, record: RawProcessResult) -> Iterator[SensorUse]:
    """Yield the energies of a record without boot id that cover a named host or a named GPU."""
    metrics = record.energy_metrics
    span = (metrics.window or record.timestamps).span
    if span is None:
        return
    # Local times without a UTC offset can be compared only with each other.
    clock = "local" if span[0].tzinfo is None else "UTC"
    start, end = (moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() for moment in span)
    for sensor, energy_j in _stated_energies(record):
        yield SensorUse(
            experiment_id=experiment_id,
            sensor=(sensor[0], f"{sensor[1]} {clock}"),
            start=start,
            end=end,
            energy_j=energy_j,
            idle_power_w=metrics.idle_power_w,
            clock_step_sec=CLOCK_STEP_SEC,
        )


def _stated_energies(record: RawProcessResult) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield sensor and energy in joules of each component that covers the named host, and of each named GPU."""
    metrics = record.energy_metrics
    parts = {name: getattr(metrics, f"{name}_energy_j") for name in ("gpu", "cpu", "ram")}
    if all(energy_j is None for energy_j in parts.values()):
        parts = {"total": metrics.total_energy_j}
    for name, energy_j in parts.items():
        if energy_j is not None and record.host is not None and getattr(metrics, f"{name}_scope") == "host":
            yield (f"host {record.host}", name), energy_j
    if metrics.gpu_scope != "device":
        return
    boards = {device.gpu_uuid: device.energy_j for device in metrics.devices or ()}
    if not any(energy_j is not None for energy_j in boards.values()):
        boards = {record.gpu_uuid: metrics.gpu_energy_j}
    for uuid, energy_j in boards.items():
        if uuid is not None and energy_j is not None:
            yield (f"GPU {uuid}", "gpu"), energy_j


def _begin_sec(record: RawProcessResult, reading: SensorReading) -> float:
    """Return how long after the start of the run a process began to read a sensor, in seconds."""
    if reading.window is UNSET or reading.window.duration_sec is None or record.timestamps.duration_sec is None:
        return 0.0
    return max(0.0, record.timestamps.duration_sec - reading.window.duration_sec)


def shared_energies(uses: Iterable[SensorUse]) -> dict[str, SharedEnergy]:
    """Return the shared energy by experiment id, for experiments that read one sensor at the same time."""
    by_sensor: dict[tuple[str, str], list[SensorUse]] = {}
    for use in uses:
        if use.end > use.start:
            by_sensor.setdefault(use.sensor, []).append(use)
    parts: dict[str, list[_Part]] = {}
    for own in by_sensor.values():
        for part in _parts(own):
            use = part.use
            if part.common_sec > use.clock_step_sec + TOLERANCE * (use.end - use.start):
                parts.setdefault(part.use.experiment_id, []).append(part)
    return {experiment_id: _shared(own) for experiment_id, own in parts.items()}


class _Part(Struct):
    """One reading, and the time in which other experiments also read the sensor.

    If several processes of one experiment read the sensor at one instant, `own_sec`, `own_common_sec` and `equal_sec`
    divide this instant by their number. Their sums over the processes count each joule once.
    """

    use: SensorUse
    others: set[str]
    common_sec: float = 0.0
    own_sec: float = 0.0
    own_common_sec: float = 0.0
    equal_sec: float = 0.0


def _parts(uses: Sequence[SensorUse]) -> list[_Part]:
    """Return one part per reading of a sensor, in the order of `uses`; empty if one experiment read the sensor."""
    if len({use.experiment_id for use in uses}) < 2:
        return []
    parts = [_Part(use, set()) for use in uses]
    instants = [(part.use.start, 1, place) for place, part in enumerate(parts)]
    instants += [(part.use.end, 0, place) for place, part in enumerate(parts)]
    active: dict[int, _Part] = {}
    before = math.nan
    for now, begins, place in sorted(instants):  # at one instant, ends come first
        names = Counter(part.use.experiment_id for part in active.values())
        if now > before:
            for part in active.values():
                own_sec = (now - before) / names[part.use.experiment_id]
                part.own_sec += own_sec
                part.equal_sec += own_sec / len(names)
                if len(names) > 1:
                    part.common_sec += now - before
                    part.own_common_sec += own_sec
                    part.others |= names.keys()
        if begins:
            active[place] = parts[place]
        else:
            del active[place]
        before = now
    return parts


def _shared(parts: Sequence[_Part]) -> SharedEnergy:
    others = set().union(*(part.others for part in parts)) - {part.use.experiment_id for part in parts}
    powers = [part.use.energy_j / (part.use.end - part.use.start) for part in parts]
    equal_j = math.fsum(power_w * part.equal_sec for power_w, part in zip(powers, parts, strict=True))
    # `idle_power_w` covers all sensors of a process, so it is subtracted once per process and not once per sensor.
    idle = {(part.use.sensor[0], part.use.start): part for part in parts}
    is_known = all(part.use.idle_power_w is not None for part in parts)
    idle_j = math.fsum((part.use.idle_power_w or 0.0) * part.equal_sec for part in idle.values())
    return SharedEnergy(
        others=sorted(others),
        common_sec=max(part.common_sec for part in parts),
        common_j=math.fsum(power_w * part.own_common_sec for power_w, part in zip(powers, parts, strict=True)),
        equal_j=equal_j,
        least_j=max(0.0, equal_j - idle_j) if is_known else None,
        all_j=math.fsum(power_w * part.own_sec for power_w, part in zip(powers, parts, strict=True)),
    )


def describe(shared: SharedEnergy) -> str:
    """Return one sentence about the energy that an experiment has in common with others."""
    names = ", ".join(map(repr, shared.others[:_MAX_NAMES]))
    more = f" and {len(shared.others) - _MAX_NAMES} more" if len(shared.others) > _MAX_NAMES else ""
    least = "0 J (the idle power is unknown)" if shared.least_j is None else joules(shared.least_j)
    return (
        f"{names}{more} read the same sensors during {seconds(shared.common_sec)}, so {joules(shared.common_j)} "
        f"count in each of these experiments; the part of this experiment is between {least} and "
        f"{joules(shared.all_j)}, and equal shares give {joules(shared.equal_j)}"
    )


def concurrency_findings(uses: Iterable[SensorUse]) -> dict[str, Finding]:
    """Return the finding of each experiment whose sensors another experiment read at the same time."""
    return {
        experiment_id: failed(
            CODE, describe(shared), expected=shared.equal_j, found=shared.all_j, effect_j=shared.common_j
        )
        for experiment_id, shared in shared_energies(uses).items()
    }
