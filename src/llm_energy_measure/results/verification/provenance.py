"""Provenance: which joules a sensor counted, and which a constant made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.results.completeness import listed
from llm_energy_measure.results.verification.codes import failed, joules, not_checked, passed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.results.verification.evidence import Evidence

_COMPONENTS = ("gpu", "cpu", "ram")


def check_provenance(evidence: Evidence) -> Iterator[Finding]:
    """What of the total was modelled, what nobody says the origin of, and what the measuring tool warned of."""
    yield _modelled(evidence)
    yield _unknown(evidence)
    yield _tool_warning(evidence)
    yield _schema_version(evidence)


def _parts(record: RawProcessResult) -> Iterator[tuple[str, float, str | None]]:
    """Component, energy and provenance of what a total is made of; the total itself if it has no components."""
    energy = record.energy_metrics
    any_part = False
    for name in _COMPONENTS:
        part = getattr(energy, f"{name}_energy_j")
        if part:
            any_part = True
            yield name.upper(), part, getattr(energy, f"{name}_provenance") or energy.total_provenance
    if not any_part and energy.total_energy_j:
        yield "total", energy.total_energy_j, energy.total_provenance


def _modelled(evidence: Evidence) -> Finding:
    code = "provenance.modelled"
    modelled: dict[str, list[float]] = {}
    for record in evidence.records:
        if record.energy_metrics.total_energy_j is not None:
            for name, part, provenance in _parts(record):
                if provenance == "modelled":
                    modelled.setdefault(name, []).append(part)
    if not modelled:
        return passed(code)
    totals = [total for record in evidence.records if (total := record.energy_metrics.total_energy_j) is not None]
    energy_j, plain = math.fsum(part for parts in modelled.values() for part in parts), math.fsum(totals)
    names = " and ".join("the whole" if name == "total" else name for name in modelled)
    share = f", {energy_j / plain:.0%} of it" if plain and energy_j <= plain else ""
    message = f"the total contains {joules(energy_j)} of modelled energy ({names}){share}"
    return not_checked(code, "no sensor measured what is modelled", message, found=energy_j)


def _unknown(evidence: Evidence) -> Finding:
    code = "provenance.unknown"
    unknown = dict.fromkeys(name for record in evidence.records for name, _, origin in _parts(record) if origin is None)
    if not unknown:
        return passed(code)
    return not_checked(code, f"nobody says whether {', '.join(unknown)} energy was measured, integrated or modelled")


def _tool_warning(evidence: Evidence) -> Finding:
    code = "provenance.tool_warning"
    warned = [record for record in evidence.records if record.energy_measurement_warning]
    if not warned:
        return passed(code)
    message = f"process {warned[0].process_index}: {warned[0].energy_measurement_warning}"[:500]
    reason = "what the measuring tool itself had to say"
    return not_checked(code, reason, message, processes=(record.process_index for record in warned))


def _schema_version(evidence: Evidence) -> Finding:
    code = "provenance.schema_version"
    without = [
        record.process_index
        for record in evidence.records
        if record.stored is not None and b'"schema_version"' not in record.stored.data
    ]
    if not without:
        return passed(code)
    message = f"process {listed(without)}: no schema_version, read as {SCHEMA_VERSION}"
    return failed(code, message, expected="a version", processes=without)
