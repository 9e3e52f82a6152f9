"""Tables of a report: cells with the text that people read and the exact number behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from llm_energy_measure.analysis.energies import CORRECTED, Energy
from llm_energy_measure.domain import formatting
from llm_energy_measure.domain.units import ratio

Alignment = Literal["left", "right"]


class Cell(Struct, frozen=True):
    """One cell.

    Attributes:
        text: The text that people read.
        value: The number behind the text, in base units; the upper end of a range. None for text and unknown numbers.
        low: The lower end of a range. None if the number is no range.
        target: Id of the row or section that the cell links to. None without a link.
    """

    text: str
    value: float | None = None
    low: float | None = None
    target: str | None = None


class Header(Struct, frozen=True):
    """The title and the alignment of a column. Numbers are aligned right."""

    title: str
    alignment: Alignment = "left"


class Row(Struct, frozen=True):
    """One row, and its id in the document. None if nothing links to it."""

    cells: list[Cell]
    anchor: str | None = None


class Table(Struct, frozen=True, kw_only=True):
    """One table.

    Attributes:
        name: Id of the table in the document.
        caption: What the table shows.
        headers: One header for each column. The first column names the row.
        rows: The rows.
        notes: Sentences below the table.
    """

    name: str
    caption: str
    headers: list[Header]
    rows: list[Row]
    notes: list[str] = []


def with_unit(value: float | None, unit: str) -> str:
    """Return a number with four digits and its unit. Milliseconds and kilograms get no second prefix.

    Example:
        >>> with_unit(1525.0, "ms"), with_unit(1525.0, "J")
        ('1525 ms', '1.525 kJ')
    """
    if value is None or unit.startswith(("J", "W", "FLOP", "token")):
        return formatting.quantity(value, unit)
    return f"{formatting.quantity(value)} {unit}".rstrip()


def number(value: float | None, unit: str = "") -> Cell:
    """Return the cell of a number in a base unit."""
    return Cell(with_unit(value, unit), value)


def count(value: int | None) -> Cell:
    """Return the cell of a whole number."""
    return Cell(formatting.count(value), value)


def energy(found: Energy) -> Cell:
    """Return the cell of an energy: a range where it is undetermined, `≥` for a lower bound, `*` for a corrected one.

    Example:
        >>> energy(Energy(low_j=300.0, high_j=600.0)).text
        '300 J to 600 J'
    """
    return per(found, 1, "J")


def per(found: Energy, denominator: float | None, unit: str) -> Cell:
    """Return the cell of an energy divided by a number of tokens or requests, with the signs `≥` and `*` of the energy.

    Example:
        >>> per(Energy(low_j=300.0, high_j=300.0, is_partial=True), 600, "J/token").text
        '≥ 500 mJ/token'
    """
    low, high = (ratio(end_j, denominator) for end_j in (found.low_j, found.high_j))
    if low is None or high is None:
        return Cell(formatting.UNKNOWN)
    # If whole processes are missing, their tokens are missing too, so that the ratio is no lower bound.
    at_least = found.is_partial if unit != "J" else found.is_lower_bound
    low_text, high_text = formatting.quantity(low, unit), formatting.quantity(high, unit)
    if found.is_undetermined:
        text = f"≥ {low_text} (recorded: {low_text} to {high_text})" if at_least else f"{low_text} to {high_text}"
        return Cell(text, high, low)
    mark = f"{CORRECTED} " if found.is_corrected else ""
    return Cell(f"{mark}{'≥ ' if at_least else ''}{low_text}", low)


def limited(rows: Sequence[Row], most: int, noun: str, advice: str | None = None) -> tuple[list[Row], list[str]]:
    """Return the first rows, and a note if rows are left out.

    Args:
        rows: All rows.
        most: Greatest number of rows.
        noun: What a row is, in the plural.
        advice: How to see all rows. None if no command prints all these rows.
    """
    if len(rows) <= most:
        return list(rows), []
    advice = advice or f"To see the other {noun}, make a report of fewer experiments with --where."
    return list(rows[:most]), [f"The table shows {most:,} of {len(rows):,} {noun}. {advice}"]
