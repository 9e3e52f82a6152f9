"""Checks of provenance: which energy a sensor measured, and which a model or constant produced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.metrics import EnergyMetrics
from llm_energy_measure.verification.attribution import Attribution
from llm_energy_measure.verification.codes import failed, joules, listed, not_checked, passed
from llm_energy_measure.verification.processes import Evidence

# Energies in joules by component.
Parts = dict[str, list[float]]

# The search uses `find`: `in` on bytes first tries to convert this value to an integer, which takes most of its time.
_VERSION = b'"schema_version"'


def check_provenance(evidence: Evidence, attribution: Attribution) -> Iterator[Finding]:
    """Report modelled energy, unknown provenance, warnings of the measuring tool, and missing schema versions."""
    kinds = _kinds(evidence.energies)
    yield _modelled(evidence, attribution, any_modelled=any("modelled" in kind for kind in kinds))
    yield _unknown(kinds.values())
    yield _tool_warning(evidence)
    yield _schema_version(evidence)


def _parts(energy: EnergyMetrics) -> list[tuple[str, float, str | None]]:
    """Return component, energy (J) and provenance of each part of a total; the total itself if it has no components."""
    of_total = energy.total_provenance
    parts: list[tuple[str, float, str | None]] = []
    if energy.gpu_energy_j:
        parts.append(("GPU", energy.gpu_energy_j, energy.gpu_provenance or of_total))
    if energy.cpu_energy_j:
        parts.append(("CPU", energy.cpu_energy_j, energy.cpu_provenance or of_total))
    if energy.ram_energy_j:
        parts.append(("RAM", energy.ram_energy_j, energy.ram_provenance or of_total))
    if not parts and energy.total_energy_j:
        parts.append(("total", energy.total_energy_j, of_total))
    return parts


def _modelled(evidence: Evidence, attribution: Attribution, *, any_modelled: bool) -> Finding:
    """Report the modelled energy in the plain sum, and in the attributed energy if the two sums differ."""
    code = "provenance.modelled"
    modelled: Parts = {}
    others: Parts = {}
    for energy in evidence.energies if any_modelled else ():
        for name, part, provenance in _parts(energy) if energy.total_energy_j is not None else ():
            (modelled if provenance == "modelled" else others).setdefault(name, []).append(part)
    if not modelled:
        return passed(code)
    energy_j = math.fsum(part for parts in modelled.values() for part in parts)
    names = " and ".join("the total" if name == "total" else name for name in modelled)
    message = (
        f"the plain sum contains {joules(energy_j)} of modelled energy ({names}){_share(energy_j, attribution.plain_j)}"
    )
    if attribution.energy_j is not None and attribution.energy_j != attribution.plain_j:
        least_j, most_j = _attributed(attribution, modelled, others)
        up_to = "up to " if least_j < most_j else ""
        message += f"; the attributed energy contains {up_to}{joules(most_j)}{_share(most_j, attribution.energy_j)}"
    return not_checked(code, "no sensor measured the modelled energy", message, found=energy_j)


def _attributed(attribution: Attribution, modelled: Parts, others: Parts) -> tuple[float, float]:
    """Return the least and greatest modelled energy (J) in the attributed energy."""
    kept = {"GPU": attribution.gpu_j, "CPU": attribution.cpu_j, "RAM": attribution.ram_j, "total": attribution.energy_j}
    least, most = 0.0, 0.0
    for name, parts in modelled.items():
        attributed_j = kept[name] or 0.0
        most += min(attributed_j, math.fsum(parts))
        least += max(0.0, attributed_j - math.fsum(others.get(name, ())))
    return least, most


def _share(part_j: float, total_j: float | None) -> str:
    return f", {part_j / total_j:.0%} of it" if total_j and part_j <= total_j else ""


def _kinds(energies: Sequence[EnergyMetrics]) -> dict[tuple[str | bool | None, ...], EnergyMetrics]:
    """Return one `EnergyMetrics` per combination of known components and provenances, in order of first appearance."""
    return {
        (
            energy.total_energy_j is None,
            not energy.total_energy_j,
            energy.total_provenance,
            not energy.gpu_energy_j,
            energy.gpu_provenance,
            not energy.cpu_energy_j,
            energy.cpu_provenance,
            not energy.ram_energy_j,
            energy.ram_provenance,
        ): energy
        for energy in energies
    }


def _unknown(kinds: Iterable[EnergyMetrics]) -> Finding:
    code = "provenance.unknown"
    unknown = dict.fromkeys(
        name
        for energy in kinds
        if energy.total_energy_j is not None
        for name, _, provenance in _parts(energy)
        if provenance is None
    )
    reason = f"some records do not state whether {', '.join(unknown)} energy was measured, integrated or modelled"
    return not_checked(code, reason) if unknown else passed(code)


def _tool_warning(evidence: Evidence) -> Finding:
    code = "provenance.tool_warning"
    warned = [record for record in evidence.records if record.energy_measurement_warning]
    if not warned:
        return passed(code)
    message = f"process {warned[0].process_index}: {warned[0].energy_measurement_warning}"[:500]
    reason = "the measuring tool recorded a warning"
    return not_checked(code, reason, message, processes=(record.process_index for record in warned))


def _schema_version(evidence: Evidence) -> Finding:
    code = "provenance.schema_version"
    without = [
        record.process_index
        for record, stored in zip(evidence.records, evidence.stored, strict=True)
        if stored is not None and stored.data.find(_VERSION) < 0
    ]
    if not without:
        return passed(code)
    message = f"process {listed(without)} has no schema_version; the file was read as {SCHEMA_VERSION}"
    return failed(code, message, expected="a version", processes=without)
