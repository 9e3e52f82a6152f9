"""Groups of readings: by time, by scope, by sensor, and relative to the windows of other readings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter

from llm_energy_measure.verification.overlap import are_comparable
from llm_energy_measure.verification.readings import Component, Reading, Source

_EDGES = attrgetter("window.start", "window.end", "process")


def by_time(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Return groups of readings, so that windows of different groups don't overlap; one group if times are unknown."""
    if len({reading.process for reading in readings}) <= 1 or not are_comparable([one.window for one in readings]):
        return [list(readings)]
    groups: list[list[Reading]] = []
    until = -math.inf
    for reading in sorted(readings, key=_EDGES):
        window = reading.window
        if window.start >= until:
            groups.append([])
        groups[-1].append(reading)
        until = max(until, window.end)
    return groups


def processes_of(readings: Iterable[Reading]) -> tuple[int, ...]:
    """Return the indices of the processes of readings, in order."""
    return tuple(sorted({reading.process for reading in readings}))


def by_scope(
    component: Component, readings: Iterable[Reading]
) -> tuple[list[Reading], list[Reading], list[Reading], list[Reading]]:
    """Return the readings by scope: of the host, of identified GPUs, shares of processes, and of unknown hardware."""
    hosts: list[Reading] = []
    devices: list[Reading] = []
    shares: list[Reading] = []
    unknown: list[Reading] = []
    for reading in readings:
        if reading.scope == "host":
            hosts.append(reading)
        elif reading.scope == "process":
            shares.append(reading)
        elif reading.scope == "device" and reading.sensors and component == "gpu":
            devices.append(reading)
        else:
            unknown.append(reading)
    return hosts, devices, shares, unknown


def placed(hosts: Sequence[Reading], parts: Sequence[Reading]) -> tuple[list[Reading], list[Reading], list[Reading]]:
    """Return the parts whose windows are inside the windows of host readings, outside of them, and partly inside.

    If the times can't be compared, all parts count as inside.
    """
    if not are_comparable([reading.window for reading in (*hosts, *parts)]):
        return list(parts), [], []
    merged: list[tuple[float, float]] = []
    for start, end in sorted((reading.window.start, reading.window.end) for reading in hosts):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    # The energy window of a host reading can lie anywhere in its run if it can be shorter than 0.9 times the run. Then
    # it may not cover the whole exact window of another reading, even if this window is inside the run.
    is_within_runs = all(
        (reading.window.shortest_sec or math.inf) < 0.9 * (reading.window.end - reading.window.start)
        for reading in hosts
    )
    placed: tuple[list[Reading], list[Reading], list[Reading]] = ([], [], [])
    for part in parts:
        start, end = part.window.start, part.window.end
        common = math.fsum(max(0.0, min(end, until) - max(start, since)) for since, until in merged)
        outside = (end - start) - common
        # Processes of one run start and end at slightly different times, so 2 % of a window may be outside.
        place = 0 if outside <= 0.02 * (end - start) else 1 if common <= 0 else 2
        if place == 0 and part.window.is_exact and is_within_runs:
            place = 2
        placed[place].append(part)
    return placed


def by_sensors(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Return the readings in groups. Readings that share a sensor, directly or through other readings, are together."""
    groups: list[tuple[set[str | int], list[Reading]]] = []
    of_sensor: dict[str | int, int] = {}
    for reading in readings:
        touched = sorted({of_sensor[sensor] for sensor in reading.sensors if sensor in of_sensor})
        if not touched:
            place = len(groups)
            groups.append((set(reading.sensors), [reading]))
        else:
            place = touched[0]
            groups[place][0].update(reading.sensors)
            groups[place][1].append(reading)
            for other in touched[1:]:
                sensors, own = groups[other]
                groups[place][0].update(sensors)
                groups[place][1].extend(own)
                groups[other] = (set(), [])
        for sensor in groups[place][0]:
            of_sensor[sensor] = place
    return [own for _, own in groups if own]


def code_of_gpu(readings: Sequence[Reading]) -> str:
    """Return the code of the finding that several readings are of one GPU, or of GPUs that share a sensor."""
    if any(reading.is_shared for reading in readings) and len({reading.gpu for reading in readings}) > 1:
        return "attribution.shared_sensor"
    return "attribution.repeated_gpu"


def basis_of(readings: Sequence[Reading], unknown: str = "") -> frozenset[str]:
    """Return the reasons for the scopes of readings; no reason for a scope that the record states.

    Args:
        readings: The readings.
        unknown: Reason for readings of unknown scope; empty for no reason.
    """
    return _basis(frozenset([reading.source for reading in readings]), unknown)


@lru_cache(maxsize=64)
def _basis(sources: frozenset[Source | None], unknown: str) -> frozenset[str]:
    words = {"recorded": "", "listed": "listed_devices", "tool": "tool_scope", "assumed": "assumed", None: unknown}
    return frozenset(words[source] for source in sources) - {""}
