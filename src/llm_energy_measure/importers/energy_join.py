"""Join the energy of an energy record to a run that has no energy and was measured at the same time.

Most client benchmarks measure no energy, and an energy tracker on the server measures no requests. A run gets the
energy of the only energy record with the same start and end. From a power log, a run gets the energy between the start
and the end of the run. To count each joule once, a record is joined to at most one run, and a power log only to runs
that do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import Timestamps
from llm_energy_measure.domain.power_trace import PowerLog
from llm_energy_measure.importers.power_energy import covers, energy_in_window
from llm_energy_measure.importers.report import Notes, RefusedInputError

_JOINED_FIELDS = ("energy_metrics", "host", "gpu_id", "gpu_uuid", "gpu_name", "energy_measurement_warning")
_JOINED = "joined"
"""Key in `effective_config` that contains the origin of the joined energy."""

_TOLERANCE_SEC = 2.0
_RELATIVE_TOLERANCE = 0.05
"""A run matches an energy record if both their starts and their ends differ by at most 2 s, or 5 % of the duration."""


class EnergySource(NamedTuple):
    """A record with energy, and its samples if it is a power log."""

    record: RawProcessResult
    log: PowerLog | None = None


class EnergyJoin:
    """Energy records, and the runs that each of them matches in time.

    Args:
        sources: Records with energy. A power log with samples matches each run whose window it covers.
        runs: All records that will be imported. An energy record that matches several runs is joined to none of them,
            except a power log, if the runs do not overlap.
        window: Start and end that the user stated. They replace the start and the end of each run whose duration is
            unknown, or differs from the length of the window by at most 2 s or 5 %.
    """

    def __init__(
        self,
        sources: Iterable[RawProcessResult | EnergySource] = (),
        runs: Iterable[RawProcessResult] = (),
        window: tuple[datetime | None, datetime | None] = (None, None),
    ) -> None:
        self._sources = [one if isinstance(one, EnergySource) else EnergySource(one) for one in sources]
        self._window = window
        self._runs_of: list[dict[str, Timestamps]] = [{} for _ in self._sources]
        for run in runs if self._sources else ():
            if run.energy_metrics.total_energy_j is None:
                for number in self._matches(run):
                    self._runs_of[number][run.experiment_id] = self._span_of(run)

    def joined(self, record: RawProcessResult, notes: Notes) -> RawProcessResult:
        """Return the record with the energy of the only energy record that matches it in time.

        A record with energy is returned unchanged. A record is also returned unchanged if no or several energy records
        match, if the energy record also matches another run, or if its samples give no energy. The notes then get the
        reason.
        """
        if record.energy_metrics.total_energy_j is not None:
            return record
        if not self._sources:
            notes.add("no_energy", "the result has no energy; pass --join PATH to add it from an energy record")
            return record
        matches = self._matches(record)
        if len(matches) != 1:
            notes.add("energy_unjoined", self._why_not_one(record, len(matches)))
            return record
        [number] = matches
        source, span = self._sources[number], self._span_of(record)
        if other := self._other_run(number, record, span):
            found = f"the energy record {source.record.experiment_id} also matches {other} in time"
            notes.add("energy_unjoined", f"{found}; it is unknown which run used the energy; import only one run")
            return record
        try:
            fields = self._fields(source, span, notes)
        except RefusedInputError as error:
            notes.add("energy_unjoined", error.message)
            return record
        found = "ran at the same time" if source.log is None else "covers the window of the run"
        notes.repair("energy_joined", f"the energy comes from {source.record.experiment_id}, which {found}")
        warnings = (record.energy_measurement_warning, fields["energy_measurement_warning"])
        fields["energy_measurement_warning"] = "; ".join(filter(None, warnings)) or None
        config = record.effective_config | {_JOINED: msgspec.to_builtins(source.record.origin)}
        if record.timestamps.start is None and record.timestamps.end is None:
            fields["timestamps"] = span
        return msgspec.structs.replace(record, **fields, effective_config=config)

    def _fields(self, source: EnergySource, span: Timestamps, notes: Notes) -> dict[str, Any]:
        """Return the fields that the run gets from the energy record, by name."""
        fields = _joined_fields(source.record)
        window = _window_in(source, span)
        if source.log is not None and window is not None:
            before = len(notes.warnings)
            fields["energy_metrics"], log = energy_in_window(source.log, window, notes)
            notes.power_log = _moved(log, -window[0])
            fields["energy_measurement_warning"] = "; ".join(notes.warnings[before:]) or None
        return fields

    def _span_of(self, run: RawProcessResult) -> Timestamps:
        """Return start, end and duration of a run, or the window of the user if it fits the duration of the run."""
        start, end = self._window
        own = run.timestamps
        if start is None or end is None or (start.tzinfo is None) != (end.tzinfo is None):
            return own
        length_sec = (end - start).total_seconds()
        if own.duration_sec is not None and abs(own.duration_sec - length_sec) > _tolerance_sec(length_sec):
            return own
        return Timestamps(
            start=start, end=end, duration_sec=length_sec if own.duration_sec is None else own.duration_sec
        )

    def _matches(self, run: RawProcessResult) -> list[int]:
        """Return the indices of the energy records that match a run in time."""
        span = self._span_of(run)
        return [number for number, source in enumerate(self._sources) if _matches(source, span)]

    def _other_run(self, number: int, record: RawProcessResult, span: Timestamps) -> str | None:
        """Return the id of another run that would get the same energy; None if there is no other run."""
        others = {name: other for name, other in self._runs_of[number].items() if name != record.experiment_id}
        if self._sources[number].log is not None:
            others = {name: other for name, other in others.items() if _overlap(other, span)}
        return min(others, default=None)

    def _why_not_one(self, run: RawProcessResult, matches: int) -> str:
        found = f"{matches} of {len(self._sources)} energy records match the run in time, and exactly one is needed"
        span = self._span_of(run)
        if span.start is None or span.end is None:
            return f"{found}; the run has no start and end, so state them with --from and --to"
        zones = [{_has_zone(source.record.timestamps), _has_zone(span)} for source in self._sources]
        if mixed := sum(both == {True, False} for both in zones):
            found += f"; {mixed} cannot be compared with the run, because only one of the two has a time zone"
            found += "; state the times of the run with --from and --to"
            found += ", with a UTC offset only if the energy record has one"
        elif not matches:
            found += f"; the run lasted from {span.start.isoformat()} to {span.end.isoformat()}"
            logs = [source.record.timestamps.span for source in self._sources if source.log is not None]
            if len(logs) == 1 and logs[0] is not None:
                found += f", and the power log from {logs[0][0].isoformat()} to {logs[0][1].isoformat()}"
        return found


def without_joined_energy(record: RawProcessResult, unjoined: RawProcessResult) -> RawProcessResult:
    """Return a stored record as it was before energy was joined to it.

    Args:
        record: The stored record.
        unjoined: The same run, imported again now. It has the values before the energy was joined.
    """
    if _JOINED not in record.effective_config or unjoined.energy_metrics.total_energy_j is not None:
        return record
    config = {name: value for name, value in record.effective_config.items() if name != _JOINED}
    fields = _joined_fields(unjoined) | {"timestamps": unjoined.timestamps}
    return msgspec.structs.replace(record, **fields, effective_config=config)


def _joined_fields(record: RawProcessResult) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _JOINED_FIELDS}


def _has_zone(span: Timestamps) -> bool | None:
    """Return whether the timestamps have a time zone; None if they are unknown, or only one of them has one."""
    known = {moment.tzinfo is not None for moment in (span.start, span.end) if moment is not None}
    return known.pop() if len(known) == 1 else None


def _tolerance_sec(duration_sec: float) -> float:
    return max(_TOLERANCE_SEC, _RELATIVE_TOLERANCE * duration_sec)


def _matches(source: EnergySource, run: Timestamps) -> bool:
    """True if the source is a power log that covers the run, or has the same start and end within a tolerance."""
    span = source.record.timestamps
    if None in (_has_zone(span), _has_zone(run)) or _has_zone(span) is not _has_zone(run):
        return False
    if span.start is None or span.end is None or run.start is None or run.end is None:
        return False
    window = _window_in(source, run)
    if source.log is not None and window is not None and covers(source.log, window):
        return True
    difference_sec = max(abs((span.start - run.start).total_seconds()), abs((span.end - run.end).total_seconds()))
    return difference_sec <= _tolerance_sec(span.duration_sec or 0.0)


def _window_in(source: EnergySource, run: Timestamps) -> tuple[float, float] | None:
    """Return start and end of a run in seconds since the start of the energy record."""
    origin = source.record.timestamps.start
    if source.log is None or origin is None or run.start is None or run.end is None:
        return None
    low, high = (run.start - origin).total_seconds(), (run.end - origin).total_seconds()
    return (low, high) if low < high else None


def _overlap(one: Timestamps, other: Timestamps) -> bool:
    """True if two runs overlap in time, or if their times cannot be compared."""
    if one.span is None or other.span is None or _has_zone(one) is not _has_zone(other):
        return True
    return max(one.span[0], other.span[0]) < min(one.span[1], other.span[1])


def _moved(log: PowerLog, seconds: float) -> PowerLog:
    """Return the power samples with `seconds` added to all times, without the counters."""
    return msgspec.structs.replace(log, traces=[trace.moved(seconds) for trace in log.traces], counters=[])
