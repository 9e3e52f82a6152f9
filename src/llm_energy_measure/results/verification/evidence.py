"""What the checks see of an experiment."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from llm_energy_measure.domain.experiment import CompletenessReport, Manifest, RawProcessResult
from llm_energy_measure.domain.metrics import CLAIMED

if TYPE_CHECKING:
    from collections.abc import Sequence

_TWO = 2


class Evidence(Struct, frozen=True, kw_only=True, dict=True):
    """The facts of one experiment, from which every finding follows and nothing else does.

    Attributes:
        experiment_id: The experiment's id.
        records: Its readable results, at least one, by process index.
        report: What was expected and what was found.
        manifest: What was written down before the run, if anything was.
    """

    experiment_id: str
    records: list[RawProcessResult]
    report: CompletenessReport
    manifest: Manifest | None = None

    @cached_property
    def hosts(self) -> dict[str | None, list[RawProcessResult]]:
        """The results by host; see `by_host`."""
        return by_host(self.records)


def by_host(records: Sequence[RawProcessResult]) -> dict[str | None, list[RawProcessResult]]:
    """Results by host, in their order.

    A host without a name is told by the boot of its machine, else by the launcher's name of the node. Where fewer than
    two hosts are told apart, one host is assumed for all: an unknown one can't be told from it. Beside several hosts
    the unknown ones are taken as one more.
    """
    names = [record.host for record in records]
    if None in names:
        for fact in (_boot, _node):
            names = _named_by(names, [fact(record) for record in records])
    told = set(names) - {None}
    if len(told) < _TWO:
        return {next(iter(told), None): list(records)}
    groups: dict[str | None, list[RawProcessResult]] = {}
    for name, record in zip(names, records, strict=True):
        groups.setdefault(name, []).append(record)
    return groups


def _named_by(names: Sequence[str | None], facts: Sequence[str | None]) -> list[str | None]:
    """Hosts with the unnamed named by a fact: as a host that has it, or by itself if every named host has another."""
    known: dict[str | None, str] = {
        fact: name for name, fact in zip(names, facts, strict=True) if name is not None and fact is not None
    }
    all_told = all(fact is not None for name, fact in zip(names, facts, strict=True) if name is not None)
    return [name or known.get(fact) or (fact if all_told else None) for name, fact in zip(names, facts, strict=True)]


def _boot(record: RawProcessResult) -> str | None:
    return record.clock.boot_id or None if record.clock is not None else None


def _node(record: RawProcessResult) -> str | None:
    return record.launcher.node or None if record.launcher is not None else None


def read_elsewhere(record: RawProcessResult, peers: Sequence[RawProcessResult]) -> bool:
    """Whether what a process did not read itself is read by its peers: it left each such sensor to another process.

    Args:
        record: The process.
        peers: The processes of its host.
    """
    unread = [sensor for sensor in record.energy_metrics.sensors or () if sensor.energy_j is None]
    if not unread or any(CLAIMED not in sensor.problems for sensor in unread):
        return False
    read = {
        (sensor.source, sensor.instance)
        for peer in peers
        for sensor in peer.energy_metrics.sensors or ()
        if sensor.energy_j is not None
    }
    return all((sensor.source, sensor.instance) in read for sensor in unread)
