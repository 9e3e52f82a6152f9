"""All checks of one experiment: the one list of families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from llm_energy_measure.domain.findings import Finding, Outcome
from llm_energy_measure.verification.attribution import RULE, Attribution, attribution_of
from llm_energy_measure.verification.completeness import check_completeness_of
from llm_energy_measure.verification.consistency import check_likeness
from llm_energy_measure.verification.counters import check_counters
from llm_energy_measure.verification.plausibility import check_plausibility
from llm_energy_measure.verification.provenance import check_provenance
from llm_energy_measure.verification.suspicions import check_identical_readings
from llm_energy_measure.verification.timing import check_time
from llm_energy_measure.verification.windows import check_windows
from llm_energy_measure.verification.zeros import check_zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llm_energy_measure.verification.processes import Evidence

FAMILIES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
    check_completeness_of,
    check_time,
    check_windows,
    check_plausibility,
    check_counters,
    check_likeness,
    check_zeros,
    check_identical_readings,
)
"""The checks that need the evidence alone, a function a family; power, attribution and provenance come before."""


class Verification(Struct, frozen=True, kw_only=True):
    """What the evidence of one experiment says.

    Attributes:
        attribution: Its energy with every joule counted once.
        rule: The rule that attributed, as `name@version`.
        findings: Every finding, those that passed included.
        to_store: The findings that an aggregate keeps: those that passed follow from the rest.
        outcomes: The outcome of each check that was made, by code; only what failed can have several findings.
    """

    attribution: Attribution
    findings: list[Finding]
    to_store: list[Finding]
    outcomes: dict[str, Outcome]
    rule: str = RULE


def verify_evidence(evidence: Evidence) -> Verification:
    """Every finding about an experiment; nothing that is in the evidence makes it raise.

    Args:
        evidence: What is known of the experiment.
    """
    attribution = attribution_of(evidence.hosts)
    findings = [*attribution.findings]
    for check in FAMILIES:
        findings += check(evidence)
    findings += check_provenance(evidence, attribution)
    to_store: list[Finding] = []
    outcomes: dict[str, Outcome] = {}
    for finding in findings:
        outcomes[finding.code] = finding.outcome
        if finding.outcome != "passed":
            to_store.append(finding)
    return Verification(attribution=attribution, findings=findings, to_store=to_store, outcomes=outcomes)
