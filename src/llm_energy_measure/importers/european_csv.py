"""Convert CSV files of European spreadsheets, which have semicolons between the cells and decimal commas."""

from __future__ import annotations

import csv
import io
import re

from llm_energy_measure.importers.json_text import BOM
from llm_energy_measure.importers.limits import MAX_CELL

_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+(?:[eE][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?")
"""A number such as 1.234, which is 1234 in a file with decimal commas."""


def has_semicolons(start: bytes) -> bool:
    """Return True if a file with these first bytes may be a table with semicolons between the cells."""
    header = start[:MAX_CELL].removeprefix(BOM).partition(b"\n")[0]
    return b";" in header and b"," not in header and b"\t" not in header and header[:1] not in (b"{", b"[")


def convert_semicolons(data: bytes) -> bytes | None:
    """Convert a table with semicolons to CSV with commas and decimal points.

    Returns:
        The converted file, with the same number of lines. None if the file has no semicolons, or is not CSV in UTF-8.
        Also None if a cell has a line end, a row has another number of cells than the header, or a number is ambiguous.
    """
    if not has_semicolons(data):
        return None
    try:
        text = data.removeprefix(BOM).decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=";", strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    if any(len(row) != len(rows[0]) for row in rows if row) or any("\n" in cell for row in rows for cell in row):
        return None
    has_decimal_commas = any(_DECIMAL_COMMA.fullmatch(cell) for row in rows for cell in row)
    if has_decimal_commas and any(_THOUSANDS.fullmatch(cell) for row in rows for cell in row):
        return None
    converted = io.StringIO(newline="")
    writer = csv.writer(converted, lineterminator="\n")
    for row in rows:
        writer.writerow([cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in row])
    return converted.getvalue().encode()
