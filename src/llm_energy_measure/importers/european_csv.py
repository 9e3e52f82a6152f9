"""Convert CSV files of European spreadsheets: semicolons between the cells, and a comma before the decimals."""

from __future__ import annotations

import csv
import io
import re

from llm_energy_measure.importers.json_text import BOM
from llm_energy_measure.importers.limits import MAX_CELL

_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+(?:[eE][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?")
"""A number such as 1.234, which is 1234 in a file with decimal commas."""


def convert_semicolons(data: bytes) -> bytes | None:
    """Return a file with semicolons as CSV with commas and decimal points.

    Returns:
        The converted file, with as many lines; None if the file has no semicolons, if a row has another number of
        cells than the header, or if the meaning of a number is ambiguous.
    """
    header = data[:MAX_CELL].removeprefix(BOM).partition(b"\n")[0]
    if b";" not in header or b"," in header or b"\t" in header or header[:1] in (b"{", b"["):
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
