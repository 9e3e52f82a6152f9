"""Time: the processes ran together, by clocks that agree, for as long as they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llm_energy_measure.domain.schema import timestamp_problems
from llm_energy_measure.verification.codes import SUSPICION, failed, not_checked, passed, passed_by, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from llm_energy_measure.domain.experiment import ClockEvidence
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.verification.processes import Evidence

CLOCK_TOLERANCE_SEC = 1.0
"""Seconds that two readings of clocks may differ: NTP keeps hosts to milliseconds, steps are whole seconds."""

DURATION_TOLERANCE = 0.05
"""Fraction that a duration may differ from end - start; never less than `CLOCK_TOLERANCE_SEC`."""

OFFSET_AGREEMENT = 0.1
"""How closely starts and ends of two hosts have to be shifted alike, as a fraction of the shift."""

# A reading that is off by more (three centuries, in seconds) is no clock's.
_NO_CLOCK_SEC = 1e10


class Offset(NamedTuple):
    """How far the wall clock of a host is ahead of the store's.

    Attributes:
        error_sec: How far that may be wrong, in seconds.
        is_at_end: Whether it was read at the end of a process.
        ahead_sec: How far, in seconds.
    """

    error_sec: float
    is_at_end: bool
    ahead_sec: float

    @property
    def least_sec(self) -> float:
        """How far it is ahead at least, in seconds."""
        return self.ahead_sec - self.error_sec

    @property
    def most_sec(self) -> float:
        """How far it is ahead at most, in seconds."""
        return self.ahead_sec + self.error_sec


def check_time(evidence: Evidence) -> Iterator[Finding]:
    """Whether the processes' times can be right, and are those of one run."""
    yield from _impossible_spans(evidence)
    if len(evidence.is_naive) > 1:
        message = "some timestamps have a UTC offset and some have none; start and end can't be told"
        yield failed("time.mixed_offsets", message)
    else:
        yield passed("time.mixed_offsets")
    yield _naive(evidence)
    offsets = _offsets(evidence)
    apart = _clocks_apart(offsets)
    yield _overlap(evidence, {} if apart is None else offsets)
    yield _durations(evidence)
    yield _clock_jump(evidence)
    yield apart or _clock_offset(evidence, offsets)


def _impossible_spans(evidence: Evidence) -> Sequence[Finding]:
    """Reversed spans, negative durations and stamps that can't be compared: a finding each."""
    code = "time.impossible_span"
    # Of a run with both ends in order, a duration, and no window beside it there is nothing to ask.
    asked = [
        process.record
        for process in evidence.processes
        if process.run is None
        or process.run[1] < process.run[0]
        or (process.record.timestamps.duration_sec or 0.0) < 0
        or process.energy.window is not None
    ]
    impossible = [(record.process_index, problem) for record in asked for problem in timestamp_problems(record)]
    if not impossible:
        return (passed(code),)
    return [failed(code, f"process {process}: {problem}", processes=[process]) for process, problem in impossible]


def _naive(evidence: Evidence) -> Finding:
    code = "time.naive_stamps"
    if True not in evidence.is_naive:
        return passed(code)
    if len(evidence.hosts) > 1:
        message = f"stamps of {len(evidence.hosts)} hosts have no UTC offset: which came first depends on their zones"
        return failed(code, message, found=float(len(evidence.hosts)))
    return not_checked(code, "the stamps have no UTC offset; those of one host can be compared with each other alone")


def _overlap(evidence: Evidence, offsets: Mapping[str | None, Offset]) -> Finding:
    """One instant that all processes ran at; `found` is the common time as a fraction of the whole.

    With offsets, which hosts have whose clocks are apart, the store's clock tells the time.
    """
    code = "time.no_overlap"
    processes, starts, ends = evidence.processes, evidence.starts, evidence.ends
    if reason := _why_not_in_order(evidence, offsets):
        return not_checked(code, reason)
    begin = starts[0]
    if not offsets and evidence.started and evidence.ended:
        # By one clock the outermost stamps say it all.
        outermost = *evidence.started, *evidence.ended
        first_start, last_start, first_end, last_end = [(stamp - begin).total_seconds() for stamp in outermost]
        if first_end - last_start > 0:
            return passed_by(code, (first_end - last_start) / (last_end - first_start))
    ahead = {one.record.process_index: offsets[one.host].ahead_sec for one in processes if one.host in offsets}
    # In seconds, which can hold what no date can.
    started, ended = (
        [
            (stamp - begin).total_seconds() - ahead.get(process.record.process_index, 0.0)
            for process, stamp in zip(processes, stamps, strict=True)
        ]
        for stamps in (starts, ends)
    )
    common = min(ended) - max(started)
    if common > 0:
        return passed_by(code, common / (max(ended) - min(started)))
    first = processes[ended.index(min(ended))].record.process_index
    last = processes[started.index(max(started))].record.process_index
    message = (
        f"process {first} had ended {seconds(-common)} before process {last} started"
        f"{' by the clock of the store' if ahead else ''}: the processes did not run together, and no throughput of "
        "all of them was ever reached"
    )
    return failed(code, message, expected="a common instant", found=0.0, processes=[first, last])


def _why_not_in_order(evidence: Evidence, offsets: Mapping[str | None, Offset]) -> str:
    """What keeps the processes' times from being set in order, if anything does."""
    number = len(evidence.processes)
    if number == 1:
        return "a single process overlaps with nothing"
    if min(len(evidence.starts), len(evidence.ends)) < number:
        return f"some process has no {'end' if len(evidence.ends) < number else 'start'}"
    if len(evidence.is_naive) > 1:
        return "some stamps have a UTC offset and some have none"
    unknown = [host or "without a name" for host in evidence.hosts if host not in offsets] if offsets else []
    return f"the hosts' clocks are apart, and that of host {unknown[0]} is not known" if unknown else ""


def _durations(evidence: Evidence) -> Finding:
    code = "time.duration_mismatch"
    wrong: list[tuple[int, float, float]] = []
    checked = False
    for process in evidence.processes:
        duration = process.record.timestamps.duration_sec
        if process.run is None or duration is None:
            continue
        checked = True
        start, end = process.run
        length = (end - start).total_seconds()
        off = abs(duration - length)
        if off > CLOCK_TOLERANCE_SEC and off > DURATION_TOLERANCE * abs(length):
            wrong.append((process.record.process_index, duration, length))
    if not wrong:
        return passed(code) if checked else not_checked(code, "no process has both an end and a duration")
    index, duration, length = wrong[0]
    message = f"process {index} says that it lasted {seconds(duration)}, and its stamps are {seconds(length)} apart"
    return failed(code, message, expected=length, found=duration, processes=(entry[0] for entry in wrong))


def _clock_jump(evidence: Evidence) -> Finding:
    """Wall minus monotonic time is one constant a boot, unless the wall clock was set."""
    code = "time.clock_jump"
    offsets: dict[str, list[tuple[float, int]]] = {}
    for record in evidence.records:
        clock = record.clock
        if clock is None:
            continue
        key = clock.boot_id or f"process {record.process_index}"
        for wall, monotonic in (
            (clock.wall_start_sec, clock.monotonic_start_sec),
            (clock.wall_end_sec, clock.monotonic_end_sec),
        ):
            if wall is not None and monotonic is not None:
                offsets.setdefault(key, []).append((wall - monotonic, record.process_index))
    if not any(len(readings) > 1 for readings in offsets.values()):
        return not_checked(code, "no process has readings of both clocks")
    for readings in offsets.values():
        (least, one), (greatest, other) = min(readings), max(readings)
        if greatest - least > CLOCK_TOLERANCE_SEC:
            where = f"of process {one}" if one == other else f"between processes {one} and {other}"
            message = f"the wall clock {where} was set by {seconds(greatest - least)} while they ran"
            return failed(code, message, expected=0.0, found=greatest - least, processes={one, other})
    return passed(code)


def _offsets(evidence: Evidence) -> dict[str | None, Offset]:
    """How far the hosts' clocks are ahead of their store's, by the most exact reading of each; where that is known.

    Hosts share no clock but that one: each monotonic clock counts from its own boot. It carries a reading of the store
    to the instant of a wall clock's, and tells how long the reading took.
    """
    if len(evidence.hosts) == 1:
        return {}
    clocks = [record.clock for record in evidence.records if record.clock is not None]
    if len({clock.store_id for clock in clocks if clock.store_id is not None}) != 1 or _store_was_set(clocks):
        return {}
    found: dict[str | None, Offset] = {}
    for host, processes in evidence.hosts.items():
        readings = [
            Offset(clock.store_error_sec, is_at_end, wall - store)
            for process in processes
            if (clock := process.record.clock) is not None
            and clock.store_id is not None
            and clock.store_error_sec is not None
            for is_at_end, wall, store in (
                (False, clock.wall_start_sec, clock.store_start_sec),
                (True, clock.wall_end_sec, clock.store_end_sec),
            )
            if wall is not None and store is not None and abs(wall - store) < _NO_CLOCK_SEC
        ]
        if readings:
            found[host] = min(readings)
    return found


def _store_was_set(clocks: Sequence[ClockEvidence]) -> bool:
    """Whether the store's clock was set meanwhile, by a monotonic one: what was read before and after differs then."""
    shifts: dict[str | int, list[tuple[float, float]]] = {}
    for index, clock in enumerate(clocks):
        for store, monotonic in (
            (clock.store_start_sec, clock.monotonic_start_sec),
            (clock.store_end_sec, clock.monotonic_end_sec),
        ):
            if store is not None and monotonic is not None and clock.store_error_sec is not None:
                shift, error_sec = store - monotonic, clock.store_error_sec
                shifts.setdefault(clock.boot_id or index, []).append((shift - error_sec, shift + error_sec))
    return any(
        max(least for least, _ in of_boot) - min(most for _, most in of_boot) > CLOCK_TOLERANCE_SEC
        for of_boot in shifts.values()
    )


def _clocks_apart(offsets: Mapping[str | None, Offset]) -> Finding | None:
    """The finding that the clocks of two hosts are further apart than readings can be wrong; None if none are."""
    if not offsets:
        return None
    # They are one host where its interval lies within all others': then no two are apart.
    ahead = max(offsets, key=lambda host: offsets[host].least_sec)
    behind = min(offsets, key=lambda host: offsets[host].most_sec)
    if offsets[ahead].least_sec - offsets[behind].most_sec <= CLOCK_TOLERANCE_SEC:
        return None
    apart_sec = offsets[ahead].ahead_sec - offsets[behind].ahead_sec
    error_sec = offsets[ahead].error_sec + offsets[behind].error_sec
    message = (
        f"the clock of host {ahead or 'without a name'} is {seconds(apart_sec)} ahead of that of host "
        f"{behind or 'without a name'}, within {error_sec:.3g} s, by the clock of the store that both wrote to"
    )
    return failed("time.clock_offset", message, expected=0.0, found=apart_sec)


def _clock_offset(evidence: Evidence, offsets: Mapping[str | None, Offset]) -> Finding:
    """Whether clocks agree; where nothing tells, whether a host's spans look like those of another, shifted.

    That can be by a clock, or by a later start.
    """
    code = "time.clock_offset"
    if len(evidence.hosts) == 1 or len(offsets) == len(evidence.hosts):
        return passed(code)
    if len(evidence.is_naive) > 1:
        return not_checked(code, "some stamps have a UTC offset and some have none")
    if min(len(evidence.starts), len(evidence.ends)) < len(evidence.processes):
        return not_checked(code, "some process has no start or no end")
    if shifted := _shifted(evidence):
        return shifted
    unknown = next(host for host in evidence.hosts if host not in offsets)
    return not_checked(code, f"the clock of host {unknown or 'without a name'} was not compared with the others'")


def _shifted(evidence: Evidence) -> Finding | None:
    """The suspicion that the clock of a host is off, whose span is that of the first host, shifted."""
    # None is shifted further than the first start is from the last.
    if evidence.started is None or (evidence.started[1] - evidence.started[0]).total_seconds() <= CLOCK_TOLERANCE_SEC:
        return None
    spans: list[tuple[str | None, datetime, datetime]] = []
    for host, processes in evidence.hosts.items():
        runs = [process.run for process in processes if process.run is not None]
        spans.append((host, min([start for start, _ in runs]), max([end for _, end in runs])))
    first, start, end = spans[0]
    for host, other_start, other_end in spans[1:]:
        shift, other_shift = (other_start - start).total_seconds(), (other_end - end).total_seconds()
        alike = abs(shift - other_shift) <= OFFSET_AGREEMENT * abs(shift)
        if alike and abs(shift) > max(CLOCK_TOLERANCE_SEC, DURATION_TOLERANCE * (end - start).total_seconds()):
            message = (
                f"host {host} started and ended {seconds(abs(shift))} {'after' if shift > 0 else 'before'} host "
                f"{first}: its processes started at another time, or its clock differs"
            )
            return not_checked("time.clock_offset", SUSPICION, message, expected=0.0, found=shift)
    return None
