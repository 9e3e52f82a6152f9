"""Run all checks of one experiment. `FAMILIES` lists the check functions, except attribution and provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from llm_energy_measure.domain.findings import Finding, Outcome
from llm_energy_measure.verification.attribution import RULE, Attribution, attribution_of
from llm_energy_measure.verification.ceilings import check_ceilings
from llm_energy_measure.verification.completeness import check_completeness_of
from llm_energy_measure.verification.consistency import check_consistency
from llm_energy_measure.verification.counters import check_counters
from llm_energy_measure.verification.coverage import check_sensor_time
from llm_energy_measure.verification.devices import check_devices
from llm_energy_measure.verification.gpu_identity import check_gpu_identity
from llm_energy_measure.verification.plausibility import check_plausibility
from llm_energy_measure.verification.processes import Evidence
from llm_energy_measure.verification.provenance import check_provenance
from llm_energy_measure.verification.suspicions import check_identical_readings
from llm_energy_measure.verification.timing import check_time
from llm_energy_measure.verification.windows import check_windows
from llm_energy_measure.verification.zeros import check_zeros

FAMILIES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
    check_gpu_identity,
    check_completeness_of,
    check_sensor_time,
    check_time,
    check_windows,
    check_plausibility,
    check_ceilings,
    check_counters,
    check_devices,
    check_consistency,
    check_zeros,
    check_identical_readings,
)
"""The checks that need only an `Evidence`. `verify_evidence` runs attribution and provenance separately."""


class Verification(Struct, frozen=True, kw_only=True):
    """The result of all checks of one experiment.

    Attributes:
        attribution: The energy with each joule counted once.
        rule: The attribution rule, as `name@version`.
        findings: All findings, including passed ones.
        to_store: The findings that an aggregate stores: all except passed ones.
        outcomes: Outcome by code. Several findings with one code have the same outcome.
    """

    attribution: Attribution
    findings: list[Finding]
    to_store: list[Finding]
    outcomes: dict[str, Outcome]
    rule: str = RULE


def verify_evidence(evidence: Evidence) -> Verification:
    """Return the results of all checks of one experiment. No content of the records makes this function raise.

    Args:
        evidence: The records of the experiment and the facts derived from them.
    """
    attribution = attribution_of(evidence.processes, evidence.assume)
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
