"""Energy for records that have none: of the record of the same time, which gives it to one measurement only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.metrics import Timestamps
    from llm_energy_measure.importers.loss import Remarks

_JOINED = "joined"
"""Name in `effective_config` of where the energy came from."""

_SAME_TIME_SEC = 2.0
_SAME_TIME = 0.05
"""Two records are of the same time if both ends agree to this part of the duration, or to two seconds."""


class Energies:
    """Records with energy, for those of the same time that have none.

    Args:
        records: Records with energy.
        takers: All that is to be imported: a record that is of the time of several of them gives its energy to none,
            since each joule counts once and nobody knows whose it is.
    """

    def __init__(self, records: Iterable[RawProcessResult] = (), takers: Iterable[RawProcessResult] = ()) -> None:
        """Find out which records are of the time of which takers."""
        self._records = tuple(records)
        self._takers: list[set[str]] = [set() for _ in self._records]
        for taker in takers if self._records else ():
            if taker.energy_metrics.total_energy_j is None:
                for number in self._of_time(taker):
                    self._takers[number].add(taker.experiment_id)

    def joined(self, record: RawProcessResult, remarks: Remarks) -> RawProcessResult:
        """The record with the energy of the one record of the same time, if there is one and no other takes it."""
        if record.energy_metrics.total_energy_j is not None:
            return record
        if not self._records:
            remarks.note("no_energy", "a client measures none; --join takes it from a record of the same time")
            return record
        found = self._of_time(record)
        if len(found) != 1:
            remarks.note("energy_unjoined", self._why_not_one(record, len(found)))
            return record
        source = self._records[found[0]]
        if others := self._takers[found[0]] - {record.experiment_id}:
            which = f"{source.experiment_id}, is of the time of {min(others)} too"
            remarks.note("energy_unjoined", f"the energy record of its time, {which}, and nothing says whose it is")
            return record
        remarks.repair("energy_joined", f"the energy is that of {source.experiment_id}, which is of the same time")
        return msgspec.structs.replace(
            record,
            energy_metrics=source.energy_metrics,
            host=source.host,
            gpu_id=source.gpu_id,
            gpu_uuid=source.gpu_uuid,
            gpu_name=source.gpu_name,
            effective_config=record.effective_config | {_JOINED: msgspec.to_builtins(source.origin)},
        )

    def _of_time(self, record: RawProcessResult) -> list[int]:
        """Which of the records are of the time of another."""
        return [number for number, other in enumerate(self._records) if _same_time(record.timestamps, other.timestamps)]

    def _why_not_one(self, record: RawProcessResult, found: int) -> str:
        said = f"{found} of {len(self._records)} energy records are of the same time"
        zones = [{_has_zone(other.timestamps), _has_zone(record.timestamps)} for other in self._records]
        if others := sum(both == {True, False} for both in zones):
            said += f"; {others} can't be compared, since of this record and them one has a time zone and one has none"
        return said


def unjoined(record: RawProcessResult, like: RawProcessResult) -> RawProcessResult:
    """The record without the energy that was joined to it, if any was; what that replaced is as in another record."""
    if _JOINED not in record.effective_config or like.energy_metrics.total_energy_j is not None:
        return record
    return msgspec.structs.replace(
        record,
        energy_metrics=like.energy_metrics,
        host=like.host,
        gpu_id=like.gpu_id,
        gpu_uuid=like.gpu_uuid,
        gpu_name=like.gpu_name,
        effective_config={name: value for name, value in record.effective_config.items() if name != _JOINED},
    )


def _has_zone(stamps: Timestamps) -> bool | None:
    """Whether start and end have a time zone; None if there is none of them, or they differ."""
    known = {stamp.tzinfo is not None for stamp in (stamps.start, stamps.end) if stamp is not None}
    return known.pop() if len(known) == 1 else None


def _same_time(one: Timestamps, other: Timestamps) -> bool:
    stamps = one.start, one.end, other.start, other.end
    if None in stamps or _has_zone(one) is not _has_zone(other) or None in (_has_zone(one), _has_zone(other)):
        return False
    ends = zip((one.start, one.end), (other.start, other.end), strict=True)
    apart = [abs((mine - theirs).total_seconds()) for mine, theirs in ends if mine is not None and theirs is not None]
    return max(apart) <= max(_SAME_TIME_SEC, _SAME_TIME * (one.duration_sec or 0.0))
