"""Implied power: what a process's energy says that its sensor saw, beside what the boards can draw.

Power is energy over the energy window. Where no energy window is recorded, the longest time that is known of the
process stands in: the power is then a lower bound, which can prove too much and never too little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from llm_energy_measure.verification.boards import boards_named
from llm_energy_measure.verification.codes import failed, not_checked, passed, seconds, watts
from llm_energy_measure.verification.gpus import (
    UNCERTAIN,
    host_boards,
    names_gpu,
    proves_board,
)
from llm_energy_measure.verification.processes import Process, comparable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm_energy_measure.domain.findings import Finding

TOLERANCE = 0.05
"""Fraction by which power may exceed the limits: NVML documents its power as accurate to within 5 %."""

_TWO = 2


class HostPower(Struct, frozen=True, kw_only=True, dict=True):
    """The GPU power that the processes of one host imply, and what its boards can draw, where something depends on it.

    Attributes:
        host: The host; None if it is unnamed.
        processes: Its processes.
        readers: Those that measured GPU energy, more than 0.
        unscoped: Of these, those of which nobody knows what their sensors saw, or which device.
        over_counted: Of these, those that imply more power together than the boards can draw, in groups of one time.
    """

    host: str | None
    processes: Sequence[Process]
    readers: list[Process]
    unscoped: list[Process]
    over_counted: list[list[Process]]

    @cached_property
    def limit(self) -> HostLimit:
        """What its boards can draw together; of most hosts nobody has to know."""
        return (
            _host_limit(self.processes)
            if self.readers
            else HostLimit(watts=None, knows_all=False, why_not="no process has GPU energy")
        )


class HostLimit(NamedTuple):
    """What the boards of a host can draw together.

    Attributes:
        watts: The limit; None if that is unknown.
        knows_all: Whether these are known to be all of its boards.
        why_not: What about the boards is unknown; beside a limit, whether they are so many.
    """

    watts: float | None
    knows_all: bool
    why_not: str


def power_of_host(host: str | None, processes: Sequence[Process]) -> HostPower:
    """What the processes of one host imply."""
    readers = [process for process in processes if process.energy.gpu_energy_j]
    unscoped = [
        process
        for process in readers
        if process.gpu_scope is None or (process.gpu_scope == "device" and process.boards.sensor is None)
    ]
    power = HostPower(host=host, processes=processes, readers=readers, unscoped=unscoped, over_counted=[])
    if len(unscoped) >= _TWO and (limit_w := power.limit.watts) is not None:
        power.over_counted.extend(_over_counted(unscoped, limit_w))
    return power


def check_power(
    powers: Sequence[HostPower], counted_again_j: Mapping[tuple[str | None, int], float]
) -> Iterator[Finding]:
    """Whether the processes of each host, and each process, imply less than their boards can draw.

    Args:
        powers: What is implied, host by host.
        counted_again_j: What the plain sum has too much of each group of processes that measured one host, in joules,
            by host and first process.
    """
    yield from _check_hosts(powers, counted_again_j)
    yield from _check_processes(powers)


def _check_hosts(
    powers: Sequence[HostPower], counted_again_j: Mapping[tuple[str | None, int], float]
) -> Iterator[Finding]:
    code = "energy.over_counted"
    failures = [(power, group) for power in powers for group in power.over_counted]
    for power, readers in failures:
        k, together, limit = len(readers), _power(readers), power.limit.watts
        yield failed(
            code,
            f"{k} processes{_on(power.host)} imply {watts(together)} of GPU power together, and its boards can draw "
            f"{watts(limit)}: each measured the whole host, whose energy the plain sum counts {k} times",
            expected=limit,
            found=together,
            effect_j=counted_again_j.get((power.host, readers[0].index)),
            processes=(reader.index for reader in readers),
        )
    if failures:
        return
    open_ones = [reason for power in powers if (reason := _why_not_checked(power))]
    yield not_checked(code, open_ones[0]) if open_ones else passed(code)


def _why_not_checked(power: HostPower) -> str:
    readers = power.unscoped
    if len(readers) < _TWO:
        return ""
    if power.limit.why_not:
        return power.limit.why_not
    unknown = [reader.index for reader in readers if reader.window_sec is None]
    return f"no energy window is known of process {', '.join(map(str, unknown[:8]))}" if unknown else ""


def _check_processes(powers: Sequence[HostPower]) -> Iterator[Finding]:
    """Failed for each host whose processes saw more than their own boards."""
    code = "energy.exceeds_devices"
    reasons: list[str] = []
    failures: list[Finding] = []
    any_reader = False
    for power in powers:
        beyond = []
        for reader in power.readers:
            any_reader = True
            limit = power.limit.watts if reader.gpu_scope == "host" else reader.boards.limit_w
            if limit is not None and reader.gpu_scope == "host" and not power.limit.knows_all:
                reasons.append("how many boards the host has is not known")
            elif limit is None:
                reasons.append(power.limit.why_not or f"no power limit is known of {_board(reader)!r}")
            elif reader.gpu_w is not None and reader.gpu_w > limit * (1 + TOLERANCE):
                beyond.append((reader, limit))
            elif reader.gpu_scope != "host" and not reader.boards.is_certain:
                reasons.append(UNCERTAIN)
            elif reader.window_sec is None:
                reasons.append(f"no energy window is known of process {reader.index}")
        failures += [_beyond_devices(code, power, beyond)] if beyond else []
        failures += _shared_boards(code, power)
    if failures:
        yield from failures
        return
    if not any_reader:
        yield not_checked(code, "no process has GPU energy")
    else:
        yield not_checked(code, reasons[0]) if reasons else passed(code)


def _beyond_devices(code: str, power: HostPower, beyond: Sequence[tuple[Process, float]]) -> Finding:
    worst, limit = max(beyond, key=lambda pair: ((pair[0].gpu_w or 0.0) / pair[1], -pair[0].index))
    others = f" ({len(beyond) - 1} more exceed theirs)" if len(beyond) > 1 else ""
    whose = "the host's boards" if worst.gpu_scope == "host" else _boards(worst)
    too_much = [
        max(0.0, (reader.energy.gpu_energy_j or 0.0) - limit_w * reader.length_sec)
        for reader, limit_w in beyond
        if reader.length_sec is not None
    ]
    return failed(
        code,
        f"process {worst.index}{_on(power.host)} implies {watts(worst.gpu_w)} of GPU power over "
        f"{seconds(worst.length_sec)}{others}, and {whose} can draw {watts(limit)}: it saw more than them",
        expected=limit,
        found=worst.gpu_w,
        effect_j=math.fsum(too_much),
        processes=(reader.index for reader, _ in beyond),
    )


def _shared_boards(code: str, power: HostPower) -> Iterator[Finding]:
    """Shares that processes claim of their boards, and that are more than the boards together."""
    readers = [reader for reader in power.readers if reader.gpu_scope == "process"]
    if len(readers) < _TWO or power.limit.watts is None:
        return
    together = _power(readers)
    if together > power.limit.watts * (1 + TOLERANCE):
        yield failed(
            code,
            f"{len(readers)} processes{_on(power.host)} claim {watts(together)} of GPU power as their own shares, and "
            f"its boards can draw {watts(power.limit.watts)}",
            expected=power.limit.watts,
            found=together,
            processes=(reader.index for reader in readers),
        )


def _over_counted(readers: Sequence[Process], limit_w: float) -> list[list[Process]]:
    """Groups of processes that ran at one time and imply more power together than the limit."""
    left, groups = list(readers), []
    while len(left) >= _TWO and _power(left) > limit_w * (1 + TOLERANCE):
        peak = _at_the_peak(left)
        if len(peak) < _TWO or _power_by_sensor(peak) <= limit_w * (1 + TOLERANCE):
            break
        groups.append(peak)
        left = [reader for reader in left if reader not in peak]
    return groups


def _at_the_peak(readers: Sequence[Process]) -> list[Process]:
    """Of processes those that ran at the instant of the greatest power; all, unless it is known when each ran."""
    if not comparable([reader.span for reader in readers]):
        return list(readers)
    starts = sorted({reader.span[0] for reader in readers if reader.span})
    running = (
        [reader for reader in readers if reader.span and reader.span[0] <= start < reader.span[1]] for start in starts
    )
    return max(running, key=_power)


def _power_by_sensor(readers: Sequence[Process]) -> float:
    """Power of several processes in watts, that of GPUs which several of them name counted once."""
    by_sensor: dict[object, float] = {}
    for reader in readers:
        key = ("process", reader.index) if reader.boards.sensor is None else reader.boards.sensor
        by_sensor[key] = max(by_sensor.get(key, 0.0), reader.gpu_w or 0.0)
    return math.fsum(by_sensor.values())


def _host_limit(processes: Sequence[Process]) -> HostLimit:
    """What the boards of a host can draw together, each counted once; whether they are all; what is unknown of them.

    What states the boards of the whole host does so for all of its processes. Of boards that nothing identifies, each
    process has its own, if it proves one: that is the most there can be.
    """
    stated: dict[str, float] = {}
    single: dict[object, float] = {}
    uncertain = ""
    for process in processes:
        record, own = process.record, process.gpus
        if not process.energy.gpu_energy_j and not names_gpu(record):
            continue
        boards = host_boards(record)
        if boards is not None:
            name, limit = boards
            if limit is None:
                return HostLimit(watts=None, knows_all=False, why_not=f"no power limit is known of the board {name!r}")
            stated[name] = max(limit, stated.get(name, 0.0))
            continue
        several, is_certain = (process.boards.number, process.boards.is_certain) if len(own) == 1 else (1, True)
        uncertain = uncertain or ("" if is_certain else UNCERTAIN)
        for position, gpu in enumerate(own):
            unidentified = gpu.sensor is None or several > 1
            if unidentified and not proves_board(record):
                continue
            if gpu.limit_w is None:
                board = f"the board {gpu.board!r}" if gpu.board else f"the board of process {record.process_index}"
                return HostLimit(watts=None, knows_all=False, why_not=f"no power limit is known of {board}")
            key = ("process", record.process_index, position) if unidentified else gpu.sensor
            single[key] = max(gpu.limit_w * several, single.get(key, 0.0))
    if not stated and not single:
        return HostLimit(watts=None, knows_all=False, why_not="how many boards the host has is not known")
    limit_w = max(math.fsum(stated.values()), math.fsum(single.values()))
    return HostLimit(watts=limit_w, knows_all=bool(stated), why_not=uncertain)


def _power(readers: Sequence[Process]) -> float:
    """Power that several processes imply together, in watts, as far as it is known."""
    return math.fsum(reader.gpu_w for reader in readers if reader.gpu_w is not None)


def _on(host: str | None) -> str:
    return f" on host {host}" if host is not None else ""


def _board(reader: Process) -> str | None:
    """Name of its boards; None if unknown."""
    name = reader.gpus[0].board
    return boards_named(name).model_name if name else None


def _boards(reader: Process) -> str:
    board = _board(reader) or "board"
    return f"its {reader.boards.number} x {board}" if reader.boards.number > 1 else f"its one {board}"
