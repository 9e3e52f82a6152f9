"""The verdict on an experiment: one word. All commands take it from `verdict_of`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from llm_energy_measure.domain.experiment import AggregatedSummary, Integrity
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.verification.codes import DOUBLE_COUNT_CODES

Verdict = Literal[
    "complete",
    "partial",
    "over-counted",
    "failed",
    "undetermined",
    "stale",
    "pending",
    "interrupted",
    "external",
    "unsealed",
    "altered",
    "unreadable",
]
"""One word about an experiment. `VERDICTS` has the meanings."""

VERDICTS: dict[Verdict, str] = {
    "complete": "all processes are present, no check found an error, and the energy is known",
    "partial": "the energy is a lower bound: data are missing",
    "over-counted": "the plain sum counts some energy more than once",
    "failed": "a check found an error; 'results verify' explains it",
    "undetermined": "the energy is a range: the records don't show if several processes read the same hardware",
    "stale": "raw files changed after the aggregation",
    "pending": "the experiment is not aggregated yet",
    "interrupted": "no process has a result: all were killed, or have not ended",
    "external": "another tool made the aggregate",
    "unsealed": "an earlier release made the aggregate, so edits can't be detected; run 'aggregate --force'",
    "altered": "another program changed values of the aggregate; 'results verify' names them",
    "unreadable": "the aggregate can't be read, or no raw file can be read",
}
"""Meaning of each verdict."""


def verdict_of(
    result: AggregatedSummary, findings: Iterable[Finding] | None = None, *, integrity: Integrity | None = None
) -> Verdict:
    """Return the verdict on a result that was made from the current raw files. Warnings don't change the verdict.

    Args:
        result: The aggregated result of the experiment.
        findings: The findings about the experiment. By default, the findings that the result stores.
        integrity: The integrity of the stored aggregate. None if the result is not stored.
    """
    problems = [one for one in ((result.findings or ()) if findings is None else findings) if one.problem]
    if any(one.code in DOUBLE_COUNT_CODES for one in problems):
        return "over-counted"
    if result.is_lower_bound:
        return "partial"
    if any(one.problem == "error" for one in problems):
        return "failed"
    if result.attribution_status == "undetermined":
        return "undetermined"
    return "unsealed" if integrity == "unsealed" else "complete"
