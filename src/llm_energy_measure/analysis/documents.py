"""Tables of experiments for papers: LaTeX and Markdown, with one unit per column and signs such as `≥` at energies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from llm_energy_measure.analysis.energies import NOTES, Energy, EnergyKind, energy_of, require_unit
from llm_energy_measure.analysis.markup import latex_table, markdown_table
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.domain import formatting
from llm_energy_measure.domain.configuration import PREFIX
from llm_energy_measure.results.columns import SUMMARY_COLUMNS
from llm_energy_measure.results.exporters import Table

Form = Literal["latex", "markdown"]

ENERGY = "attributed_energy_j"
"""The column whose energies have signs such as `≥`."""

COLUMNS = (
    *("experiment_id", "model_name", "precision", "gpus", "total_tokens", ENERGY),
    *("attributed_joules_per_output_token", "verdict"),
)
"""The columns of a document if the user chooses no columns."""

_TITLES = {
    "experiment_id": "id",
    "model_name": "model",
    "config_name": "configuration",
    "gpus": "GPU",
    "total_tokens": "tokens",
    ENERGY: "energy",
    "total_energy_j": "plain sum",
    "attributed_gpu_energy_j": "GPU energy",
    "attributed_joules_per_token": "energy per token",
    "attributed_joules_per_output_token": "energy per output token",
    "attributed_tokens_per_joule": "tokens per energy",
    "avg_tokens_per_second": "throughput of a process",
    "start_time": "start",
}
_UNITS = {column.name: column.unit for column in SUMMARY_COLUMNS}


def column_names(words: Sequence[str]) -> list[str]:
    """Return the column name for each name that the user types; `energy` and `energy_j` both give `ENERGY`."""
    return [ENERGY if word in ("energy", "energy_j") else word for word in words]


class Document(Struct, frozen=True):
    """A table for people.

    Attributes:
        headers: Title with unit, and alignment of each column.
        rows: Cells.
        notes: Sentences below the table, such as explanations of the signs.
    """

    headers: list[tuple[str, str]]
    rows: list[list[str]]
    notes: list[str]

    def encoded(self, form: Form) -> bytes:
        """Return the table as LaTeX for the package booktabs, or as Markdown, in UTF-8."""
        lines = (latex_table if form == "latex" else markdown_table)(self.headers, self.rows, self.notes)
        return "".join(f"{line}\n" for line in lines).encode()


def document_of(
    table: Table,
    summaries: Sequence[ExperimentSummary] | None = None,
    *,
    energy: EnergyKind = "attributed",
    unit: str | None = None,
) -> Document:
    """Return an exported table as a document with the same columns and rows.

    Args:
        table: The table.
        summaries: The experiments in the order of the rows, for signs such as `≥`. None: no signs.
        energy: Kind of the energy in the column `ENERGY`.
        unit: Unit of energies and of energies per token. None: the function chooses a unit for each column.

    Raises:
        ConfigurationError: The unit is unknown, or the user chose a unit and no column has an energy.
    """
    require_unit(unit, [_UNITS.get(name, "") for name in table.names])
    rows = list(table.rows)
    headers, columns = [], []
    notes: list[str] = []
    for index, name in enumerate(table.names):
        values = [row[index] for row in rows]
        if name == ENERGY and summaries is not None:
            shown = [energy_of(row, energy) for row in summaries]
            scale = formatting.energy_scale([one.shown_j for one in shown], unit)
            headers.append((f"{_TITLES[name]} [{scale[1]}]", "right"))
            columns.append([one.cell(scale).removesuffix(f" {scale[1]}") for one in shown])
            notes += _notes(shown)
            continue
        is_number = all(
            value is None or (isinstance(value, int | float) and type(value) is not bool) for value in values
        )
        own = _UNITS.get(name, "")
        scale = _scale(values, own, unit) if is_number else (1.0, own)
        title = _title(name, table.names)
        has_unit = scale[1] and scale[1] != "token"
        headers.append((f"{title} [{scale[1]}]" if has_unit else title, "right" if is_number else "left"))
        columns.append([_cell(value, scale[0]) for value in values])
    return Document(headers, [list(row) for row in zip(*columns, strict=True)], notes)


def _title(name: str, names: Sequence[str]) -> str:
    """Return the title of a column: the last part of a configuration key, unless two columns have the same part."""
    if not name.startswith(PREFIX):
        return _TITLES.get(name, name.replace("_", " "))
    last = name.rpartition(".")[2]
    is_clear = sum(other.startswith(PREFIX) and other.rpartition(".")[2] == last for other in names) == 1
    return last if is_clear else name.removeprefix(PREFIX)


def _scale(values: Sequence[Any], own: str, unit: str | None) -> tuple[float, str]:
    known = [value for value in values if value is not None]
    if own == "J":
        return formatting.energy_scale(known, unit)
    return formatting.scale(known, own, unit)


def _cell(value: Any, factor: float) -> str:
    if isinstance(value, float):
        return formatting.number(value / factor)
    if isinstance(value, int) and not isinstance(value, bool):
        return formatting.count(value) if factor == 1 else formatting.number(value / factor)
    return formatting.date_time(value) if isinstance(value, datetime) else formatting.cell(value)


def _notes(shown: Sequence[Energy]) -> Iterator[str]:
    signs = {character for one in shown for character in one.cell()}
    notes: Mapping[str, str] = {**NOTES, "≥": "≥ lower bound: the energy of some processes is missing"}
    yield from (note for sign, note in notes.items() if sign in signs)
