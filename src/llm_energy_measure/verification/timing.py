"""Checks of times: runs overlap, durations agree with timestamps, and the clocks of the hosts agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from llm_energy_measure.domain.experiment import ClockEvidence
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.schema import timestamp_problems
from llm_energy_measure.verification.codes import SUSPICION, failed, not_checked, passed, passed_by, seconds
from llm_energy_measure.verification.processes import Evidence

CLOCK_TOLERANCE_SEC = 1.0
"""Greatest difference between two clocks that passes, in seconds.

NTP keeps the clocks of hosts equal to milliseconds. Clock errors that matter are whole seconds.
"""

DURATION_TOLERANCE = 0.05
"""Greatest relative difference between a duration and end - start; `CLOCK_TOLERANCE_SEC` is allowed in any case."""

OFFSET_AGREEMENT = 0.1
"""Greatest difference between shifts of start and end that count as equal, as a fraction of the shift of the start."""

MIN_OVERLAP = 0.5
"""Least overlap of two processes with consecutive starts that counts as concurrent, as a part of the shorter run."""

# Three centuries in seconds. A greater difference between two clocks comes from a damaged record.
_MAX_CLOCK_DIFFERENCE_SEC = 1e10


class Offset(NamedTuple):
    """Difference between the wall clock of a host and the clock of the store. The smallest error sorts first.

    Attributes:
        error_sec: Uncertainty of `ahead_sec`, in seconds, at least 0.
        is_at_end: Whether the clocks were read at the end of a process.
        ahead_sec: Wall clock minus clock of the store, in seconds.
    """

    error_sec: float
    is_at_end: bool
    ahead_sec: float

    @property
    def lower_sec(self) -> float:
        """Least possible difference, in seconds."""
        return self.ahead_sec - self.error_sec

    @property
    def upper_sec(self) -> float:
        """Greatest possible difference, in seconds."""
        return self.ahead_sec + self.error_sec


def check_time(evidence: Evidence) -> Iterator[Finding]:
    """Check that the times of the processes are possible and belong to one run."""
    yield from _impossible_spans(evidence)
    if len(evidence.is_naive) > 1:
        message = "some timestamps have a UTC offset and some have none, so start and end of the experiment are unknown"
        yield failed("time.mixed_offsets", message)
    else:
        yield passed("time.mixed_offsets")
    yield _naive_timestamps(evidence)
    offsets = _clock_offsets(evidence)
    disagreement = _clock_disagreement(offsets)
    yield from _overlaps(evidence, {} if disagreement is None else offsets)
    yield _durations(evidence)
    yield _clock_jump(evidence)
    yield disagreement or _unproven_offset(evidence, offsets)


def _impossible_spans(evidence: Evidence) -> Sequence[Finding]:
    """Return one finding per reversed span, negative duration and pair of timestamps that can't be compared."""
    code = "time.impossible_span"
    # Fast path for most records: end not before start, duration not negative, and no energy window.
    suspects = [
        process.record
        for process in evidence.processes
        if process.run is None
        or process.run[1] < process.run[0]
        or (process.record.timestamps.duration_sec or 0.0) < 0
        or process.energy.window is not None
    ]
    impossible = [(record.process_index, problem) for record in suspects for problem in timestamp_problems(record)]
    if not impossible:
        return (passed(code),)
    return [failed(code, f"process {process}: {problem}", processes=[process]) for process, problem in impossible]


def _naive_timestamps(evidence: Evidence) -> Finding:
    code = "time.naive_stamps"
    if True not in evidence.is_naive:
        return passed(code)
    if len(evidence.hosts) > 1:
        message = (
            f"timestamps of {len(evidence.hosts)} hosts have no UTC offset, so their order depends on the time zones "
            "of the hosts"
        )
        return failed(code, message, found=float(len(evidence.hosts)))
    reason = "the timestamps have no UTC offset; they can only be compared with timestamps of the same host"
    return not_checked(code, reason)


def _overlaps(evidence: Evidence, offsets: Mapping[str | None, Offset]) -> Iterator[Finding]:
    """Check that all processes ran at one instant, and that neighbours (by start) overlap by half of the shorter run.

    Args:
        evidence: The evidence of the experiment.
        offsets: Clock offset of each host if the clocks disagree; the times are then corrected to the store's clock.
            Empty if the clocks are not known to disagree.
    """
    processes, starts, ends = evidence.processes, evidence.starts, evidence.ends
    if reason := _why_not_comparable(evidence, offsets):
        yield not_checked("time.no_overlap", reason)
        yield not_checked("time.short_overlap", reason)
        return
    begin = starts[0]
    if not offsets and evidence.started and evidence.ended:
        # Fast path for most experiments: without corrections, the earliest and latest timestamps can decide.
        extremes = *evidence.started, *evidence.ended
        first_start, last_start, first_end, last_end = [(time - begin).total_seconds() for time in extremes]
        common, whole = first_end - last_start, last_end - first_start
        if common > 0 and common >= MIN_OVERLAP * whole:
            yield passed_by("time.no_overlap", common / whole)
            yield passed("time.short_overlap")
            return
    # Corrected times are in seconds, because they can leave the range of datetime.
    runs: list[_Run] = []
    for process, start, end in zip(processes, starts, ends, strict=True):
        ahead_sec = offsets[process.host].ahead_sec if offsets else 0.0
        start_sec, end_sec = ((time - begin).total_seconds() - ahead_sec for time in (start, end))
        runs.append(_Run(start_sec, end_sec, process.index))
    by_clock = " by the clock of the store" if offsets else ""
    common_instant, neighbours = _common_instant(runs, by_clock), _neighbours(runs, by_clock)
    yield common_instant
    if neighbours.outcome == common_instant.outcome == "failed":
        yield not_checked("time.short_overlap", "not all processes ran at one time; see time.no_overlap")
    else:
        yield neighbours


class _Run(NamedTuple):
    """Start and end of a process, in seconds since a common instant, and its index. The earliest start sorts first."""

    start_sec: float
    end_sec: float
    process: int


def _common_instant(runs: Sequence[_Run], by_clock: str) -> Finding:
    """Check that all processes ran at one instant. `found` is the common time divided by the whole time."""
    code = "time.no_overlap"
    first, last = min(runs, key=lambda run: run.end_sec), max(runs, key=lambda run: run.start_sec)
    common = first.end_sec - last.start_sec
    if common > 0:
        return passed_by(code, common / (max(run.end_sec for run in runs) - min(run.start_sec for run in runs)))
    message = (
        f"process {first.process} ended {seconds(-common)} before process {last.process} started{by_clock}; the "
        "processes did not all run concurrently, so their throughputs don't add up"
    )
    return failed(code, message, expected="a common instant", found=0.0, processes=[first.process, last.process])


def _neighbours(runs: Sequence[_Run], by_clock: str) -> Finding:
    """Check the overlap of each pair of neighbours in the order of starts, as a part of the shorter run."""
    code = "time.short_overlap"
    least, pair = math.inf, (runs[0], runs[1])
    for one, other in pairwise(sorted(runs)):
        overlap = min(one.end_sec, other.end_sec) - other.start_sec
        shorter = min(one.end_sec - one.start_sec, other.end_sec - other.start_sec)
        part = overlap / shorter if shorter > 0 else 0.0
        if part < least:
            least, pair = part, (one, other)
    if least >= MIN_OVERLAP:
        return passed_by(code, least)
    one, other = pair
    overlap = max(0.0, min(one.end_sec, other.end_sec) - other.start_sec)
    message = (
        f"processes {one.process} and {other.process} overlap by {seconds(overlap)}{by_clock}, less than half of the "
        "shorter run; the processes did not run concurrently"
    )
    return failed(code, message, expected=MIN_OVERLAP, found=max(0.0, least), processes=[one.process, other.process])


def _why_not_comparable(evidence: Evidence, offsets: Mapping[str | None, Offset]) -> str:
    """Return why the times of the processes can't be compared; empty if they can."""
    number = len(evidence.processes)
    if number == 1:
        return "the experiment has one process"
    if min(len(evidence.starts), len(evidence.ends)) < number:
        return f"at least one process has no {'end' if len(evidence.ends) < number else 'start'}"
    if len(evidence.is_naive) > 1:
        return "some timestamps have a UTC offset and some have none"
    unknown = [host for host in evidence.hosts if host not in offsets] if offsets else []
    return f"the clocks of the hosts disagree, and the clock of {_named(unknown[0])} is unknown" if unknown else ""


def _named(host: str | None) -> str:
    return "the host without a name" if host is None else f"host {host}"


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
        difference = abs(duration - length)
        if difference > CLOCK_TOLERANCE_SEC and difference > DURATION_TOLERANCE * abs(length):
            wrong.append((process.record.process_index, duration, length))
    if not wrong:
        return passed(code) if checked else not_checked(code, "no process has both an end and a duration")
    index, duration, length = wrong[0]
    message = f"process {index} has a duration of {seconds(duration)}, but end - start is {seconds(length)}"
    return failed(code, message, expected=length, found=duration, processes=(entry[0] for entry in wrong))


def _clock_jump(evidence: Evidence) -> Finding:
    """Check that wall time minus monotonic time is constant within each boot; it changes if the wall clock is set."""
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
            message = f"the wall clock {where} jumped by {seconds(greatest - least)} during the run"
            return failed(code, message, expected=0.0, found=greatest - least, processes={one, other})
    return passed(code)


def _clock_offsets(evidence: Evidence) -> dict[str | None, Offset]:
    """Return the clock offset of each host with readings of the store's clock, from its most exact reading.

    The clock of the store is the only clock that hosts share: each monotonic clock starts at the boot of its host.
    Empty for one host, if the records name several stores, and if the clock of the store was set during the run.
    """
    if len(evidence.hosts) == 1:
        return {}
    clocks = [record.clock for record in evidence.records if record.clock is not None]
    if len({clock.store_id for clock in clocks if clock.store_id is not None}) != 1 or _was_store_clock_set(clocks):
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
            if wall is not None and store is not None and abs(wall - store) < _MAX_CLOCK_DIFFERENCE_SEC
        ]
        if readings:
            found[host] = min(readings)
    return found


def _was_store_clock_set(clocks: Sequence[ClockEvidence]) -> bool:
    """Return whether store time minus monotonic time changed within a boot, so the store's clock was set."""
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


def _clock_disagreement(offsets: Mapping[str | None, Offset]) -> Finding | None:
    """Return the finding that two clocks differ by more than tolerance and reading errors; None if all agree."""
    if not offsets:
        return None
    # If one host has both extremes, its interval is inside all others, and the difference below is not positive.
    ahead = max(offsets, key=lambda host: offsets[host].lower_sec)
    behind = min(offsets, key=lambda host: offsets[host].upper_sec)
    if offsets[ahead].lower_sec - offsets[behind].upper_sec <= CLOCK_TOLERANCE_SEC:
        return None
    difference_sec = offsets[ahead].ahead_sec - offsets[behind].ahead_sec
    error_sec = offsets[ahead].error_sec + offsets[behind].error_sec
    message = (
        f"the clock of {_named(ahead)} is {seconds(difference_sec)} (+- {error_sec:.3g} s) ahead of the clock of "
        f"{_named(behind)}; both are compared with the clock of the shared store"
    )
    return failed("time.clock_offset", message, expected=0.0, found=difference_sec)


def _unproven_offset(evidence: Evidence, offsets: Mapping[str | None, Offset]) -> Finding:
    """Return the finding for hosts without a proven clock difference.

    If a host has no reading of the store's clock, the check searches for equal shifts of start and end. Both a wrong
    clock and a later start of the processes give equal shifts, so equal shifts prove nothing.
    """
    code = "time.clock_offset"
    if len(evidence.hosts) == 1 or len(offsets) == len(evidence.hosts):
        return passed(code)
    if len(evidence.is_naive) > 1:
        return not_checked(code, "some timestamps have a UTC offset and some have none")
    if min(len(evidence.starts), len(evidence.ends)) < len(evidence.processes):
        return not_checked(code, "at least one process has no start or no end")
    if shifted := _shifted(evidence):
        return shifted
    unknown = next(host for host in evidence.hosts if host not in offsets)
    return not_checked(code, f"no usable reading of the store's clock exists for {_named(unknown)}")


def _shifted(evidence: Evidence) -> Finding | None:
    """Return the suspicion that a clock is wrong: start and end of a host have the same shift against the first host.

    None if no host has equal shifts.
    """
    # No shift is above the difference between the earliest and the latest start, so a small difference ends the check.
    if evidence.started is None or (evidence.started[1] - evidence.started[0]).total_seconds() <= CLOCK_TOLERANCE_SEC:
        return None
    spans: list[tuple[str | None, datetime, datetime]] = []
    for host, processes in evidence.hosts.items():
        runs = [process.run for process in processes if process.run is not None]
        spans.append((host, min([start for start, _ in runs]), max([end for _, end in runs])))
    first, start, end = spans[0]
    for host, other_start, other_end in spans[1:]:
        shift, other_shift = (other_start - start).total_seconds(), (other_end - end).total_seconds()
        is_equal = abs(shift - other_shift) <= OFFSET_AGREEMENT * abs(shift)
        if is_equal and abs(shift) > max(CLOCK_TOLERANCE_SEC, DURATION_TOLERANCE * (end - start).total_seconds()):
            message = (
                f"{_named(host)} started and ended {seconds(abs(shift))} {'after' if shift > 0 else 'before'} "
                f"{_named(first)}: its processes started at another time, or its clock is wrong"
            )
            return not_checked("time.clock_offset", SUSPICION, message, expected=0.0, found=shift)
    return None
