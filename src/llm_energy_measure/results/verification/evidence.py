"""What the checks see of an experiment."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from llm_energy_measure.domain.experiment import CompletenessReport, Manifest, RawProcessResult, StoredBytes
from llm_energy_measure.domain.metrics import EnergyMetrics, InferenceMetrics
from llm_energy_measure.results.verification.processes import Process, Span, by_host, processes_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Evidence(Struct, frozen=True, kw_only=True):
    """The facts of one experiment, from which every finding follows and nothing else does; see `evidence_of`.

    What several checks look at is taken from the records once, a list a figure, in the order of the records. Most
    processes of most experiments are unremarkable: a check asks such a list first whether any process can be amiss, and
    only then goes through them one by one.

    Attributes:
        experiment_id: The experiment's id.
        records: Its readable results, at least one, by process index.
        report: What was expected and what was found.
        manifest: What was written down before the run, if anything was.
        processes: The processes that left the records; see `processes_of`.
        hosts: They by host; see `by_host`.
        energies: The energy of each process.
        works: The work of each process; None if it counted none.
        totals_j: The total energy of each process, in joules; None if unknown.
        starts: When processes started, as far as that is known.
        ends: When processes ended, as far as that is known.
        started: The earliest and the latest of the starts; None unless all known stamps can be compared.
        ended: The earliest and the latest of the ends; likewise.
        is_naive: Whether their stamps have no UTC offset: of some that may be true, and of others not.
        stored: The file of each record; None if it came from none.
        any_sensors: Whether any process recorded the readings of its sensors.
    """

    experiment_id: str
    records: list[RawProcessResult]
    report: CompletenessReport
    manifest: Manifest | None
    processes: list[Process]
    hosts: dict[str | None, list[Process]]
    energies: list[EnergyMetrics]
    works: list[InferenceMetrics | None]
    totals_j: list[float | None]
    starts: list[datetime]
    ends: list[datetime]
    started: Span | None
    ended: Span | None
    is_naive: set[bool]
    stored: list[StoredBytes | None]
    any_sensors: bool


def evidence_of(
    experiment_id: str, records: Sequence[RawProcessResult], report: CompletenessReport, manifest: Manifest | None
) -> Evidence:
    """The evidence of an experiment; see `Evidence` for the arguments."""
    processes = processes_of(records)
    energies = [record.energy_metrics for record in records]
    spans = [record.timestamps for record in records]
    starts = [span.start for span in spans if span.start is not None]
    ends = [span.end for span in spans if span.end is not None]
    is_naive = {stamp.tzinfo is None for stamp in starts + ends}
    in_order = len(is_naive) == 1
    return Evidence(
        experiment_id=experiment_id,
        records=list(records),
        report=report,
        manifest=manifest,
        processes=processes,
        hosts=by_host(processes),
        energies=energies,
        works=[record.inference_metrics for record in records],
        totals_j=[energy.total_energy_j for energy in energies],
        starts=starts,
        ends=ends,
        started=(min(starts), max(starts)) if starts and in_order else None,
        ended=(min(ends), max(ends)) if ends and in_order else None,
        is_naive=is_naive,
        stored=[record.stored for record in records],
        any_sensors=any(energy.sensors for energy in energies),
    )
