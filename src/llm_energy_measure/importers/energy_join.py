"""Join the energy of one record to a record without energy that ran at the same time.

Most client benchmarks measure no energy, while an energy tracker on the server measures no requests. Each energy record
is joined to at most one run, because each joule counts once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import Timestamps
from llm_energy_measure.importers.report import Notes

_JOINED_FIELDS = ("energy_metrics", "host", "gpu_id", "gpu_uuid", "gpu_name")
_JOINED = "joined"
"""Key in `effective_config` that contains the origin of the joined energy."""

_TOLERANCE_SEC = 2.0
_RELATIVE_TOLERANCE = 0.05
"""Two runs match if their starts and their ends differ by at most 5 % of the duration, or by at most two seconds."""


class EnergyJoin:
    """Energy records, and the runs that each of them matches in time.

    Args:
        energy_records: Records with energy.
        runs: All records that will be imported. An energy record that matches several runs is joined to none of them.
    """

    def __init__(self, energy_records: Iterable[RawProcessResult] = (), runs: Iterable[RawProcessResult] = ()) -> None:
        self._records = tuple(energy_records)
        self._runs_of: list[set[str]] = [set() for _ in self._records]
        for run in runs if self._records else ():
            if run.energy_metrics.total_energy_j is None:
                for number in self._matches(run):
                    self._runs_of[number].add(run.experiment_id)

    def joined(self, record: RawProcessResult, notes: Notes) -> RawProcessResult:
        """Return the record with the energy of the only record that matches it in time; note why if there is none."""
        if record.energy_metrics.total_energy_j is not None:
            return record
        if not self._records:
            notes.add("no_energy", "the result has no energy; pass --join PATH to add it from an energy record")
            return record
        matches = self._matches(record)
        if len(matches) != 1:
            notes.add("energy_unjoined", self._why_not_one(record, len(matches)))
            return record
        energy = self._records[matches[0]]
        if others := self._runs_of[matches[0]] - {record.experiment_id}:
            found = f"the energy record {energy.experiment_id} also matches {min(others)} in time"
            notes.add("energy_unjoined", f"{found}, so its energy is ambiguous; import one of the two runs")
            return record
        notes.repair("energy_joined", f"the energy comes from {energy.experiment_id}, which ran at the same time")
        config = record.effective_config | {_JOINED: msgspec.to_builtins(energy.origin)}
        return msgspec.structs.replace(record, **_joined_fields(energy), effective_config=config)

    def _matches(self, run: RawProcessResult) -> list[int]:
        """Return the numbers of the energy records that match a run in time."""
        return [number for number, other in enumerate(self._records) if _matches(run.timestamps, other.timestamps)]

    def _why_not_one(self, run: RawProcessResult, matches: int) -> str:
        found = f"{matches} of {len(self._records)} energy records match the run in time, and exactly one is needed"
        zones = [{_has_zone(other.timestamps), _has_zone(run.timestamps)} for other in self._records]
        if mixed := sum(both == {True, False} for both in zones):
            found += f"; {mixed} cannot be compared, because only one of the two has a time zone"
        return found


def without_joined_energy(record: RawProcessResult, unjoined: RawProcessResult) -> RawProcessResult:
    """Return a stored record as it was before energy was joined to it.

    Args:
        record: The stored record.
        unjoined: The same run as it was imported now; it has the values that the energy record replaced.
    """
    if _JOINED not in record.effective_config or unjoined.energy_metrics.total_energy_j is not None:
        return record
    config = {name: value for name, value in record.effective_config.items() if name != _JOINED}
    return msgspec.structs.replace(record, **_joined_fields(unjoined), effective_config=config)


def _joined_fields(record: RawProcessResult) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _JOINED_FIELDS}


def _has_zone(span: Timestamps) -> bool | None:
    """Return whether the timestamps have a time zone; None if they are unknown or differ."""
    known = {moment.tzinfo is not None for moment in (span.start, span.end) if moment is not None}
    return known.pop() if len(known) == 1 else None


def _matches(one: Timestamps, other: Timestamps) -> bool:
    """True if both runs have the same start and end, within the tolerance."""
    if None in (_has_zone(one), _has_zone(other)) or _has_zone(one) is not _has_zone(other):
        return False
    if one.start is None or one.end is None or other.start is None or other.end is None:
        return False
    difference_sec = max(abs((one.start - other.start).total_seconds()), abs((one.end - other.end).total_seconds()))
    return difference_sec <= max(_TOLERANCE_SEC, _RELATIVE_TOLERANCE * (one.duration_sec or 0.0))
