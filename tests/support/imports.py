"""Import files of other tools in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_energy_measure import importers

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult


def read_all(path: Path | list[Path], **options: Any) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    """Return all records and entries of an import, after a check that the counts of the report are right."""
    imported = importers.read(path, **options)
    records = list(imported)
    counts, entries = imported.report.counts, imported.report.entries
    assert counts["kept"] + counts["repaired"] == len(records)
    assert counts["kept"] + counts["repaired"] + counts["refused"] == counts["seen"] == len(entries)
    return records, entries


def codes(entries: list[importers.Entry]) -> list[str]:
    """Return the reason codes of the entries."""
    return [entry.code for entry in entries]


def outcomes(entries: list[importers.Entry]) -> list[tuple[int | None, str, str]]:
    """Return row, outcome and reason code of the entries."""
    return [(entry.row, entry.outcome, entry.code) for entry in entries]
