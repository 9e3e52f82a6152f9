"""Compare the numbers of a published table with a bundle.

A printed number is right if the value of the bundle rounds to it at the printed digits: `222.7` stands for any value
from 222.65 to 222.75.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from msgspec import Struct

from llm_energy_measure.bundle.outcomes import Problem
from llm_energy_measure.bundle.snapshot import Snapshot
from llm_energy_measure.domain.configuration import PREFIX
from llm_energy_measure.exceptions import ConfigurationError, ResultsError
from llm_energy_measure.results.exporters import table_of

_MAX_BYTES = 100_000_000
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")
_TYPESETTING = str.maketrans({"\u2212": "-", "\u00a0": "", "\u202f": "", "\u2009": ""})


class PublishedTable(Struct, frozen=True, kw_only=True):
    """A published table in CSV.

    Attributes:
        key: The column with the ids of the experiments.
        columns: The columns whose numbers are compared.
        rows: Line number and cells by column, for each row.
        other_columns: The columns that are not compared.
    """

    key: str
    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]
    other_columns: list[str]


def read_table(path: str | Path, key: str, columns: Sequence[str] | None = None) -> PublishedTable:
    """Return a table in CSV.

    Args:
        path: The file, in UTF-8, with a header.
        key: The column with the ids of the experiments.
        columns: The columns to compare. By default, all columns with the name of an exported column.

    Raises:
        ConfigurationError: The file cannot be read, a column is missing, or no column can be compared.
    """
    doing = f"cannot read the table {path}"
    try:
        if Path(path).stat().st_size > _MAX_BYTES:
            raise ConfigurationError(doing, f"it has more than {_MAX_BYTES:,} bytes", "pass the table of the paper")
        text = Path(path).read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise ConfigurationError(doing, error.strerror or str(error), "pass another file to --table") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(doing, f"it is not CSV in UTF-8: {error}", "save it as CSV in UTF-8") from error
    if len(set(header)) != len(header):
        raise ConfigurationError(doing, "two columns have the same name", "rename one of them")
    listed = ", ".join(header) or "none"
    for name in (key, *(columns or ())):
        if name not in header:
            raise ConfigurationError(doing, f"it has no column {name!r}", f"use one of its columns: {listed}")
    for line, row in rows:
        if None in row or None in row.values():
            found = f"line {line} does not have {len(header)} cells"
            raise ConfigurationError(doing, found, "write as many cells as there are columns")
    known = {column for column in table_of([]).names if column != "experiment_id"}
    compared = [name for name in columns or header if name != key and (name in known or name.startswith(PREFIX))]
    if not compared or (columns is not None and len(compared) < len(columns)):
        unknown = next((name for name in columns or () if name not in compared), None)
        found = "no column has the name of an exported column" if unknown is None else f"{unknown!r} is not exported"
        advice = "use the names of 'results export', for example total_energy_j or attributed_energy_j"
        raise ConfigurationError(doing, found, advice)
    return PublishedTable(
        key=key,
        columns=compared,
        rows=[(line, {str(name): str(cell).strip() for name, cell in row.items()}) for line, row in rows],
        other_columns=[name for name in header if name != key and name not in compared],
    )


class Comparison:
    """The comparison of a table with the experiments of a bundle.

    Attributes:
        compared: Number of cells that were compared.
        notes: Sentences for the user that do not change the outcome.
    """

    def __init__(self, table: PublishedTable) -> None:
        """Compare nothing yet."""
        self.compared = 0
        self.notes: list[str] = []
        self._table = table
        self._by_id: dict[str, list[tuple[int, dict[str, str]]]] = {}
        for line, row in table.rows:
            self._by_id.setdefault(row[table.key], []).append((line, row))
        self._known: set[str] = set()
        self._problems: list[Problem] = []
        self._without_row: list[str] = []

    def compare(self, snapshot: Snapshot) -> None:
        """Compare the rows of one experiment."""
        values, own_id = _values_of(snapshot)
        rows = self._by_id.get(snapshot.folder) or self._by_id.get(own_id)
        self._known |= {snapshot.folder, own_id}
        if rows is None:
            self._without_row.append(snapshot.folder)
            return
        for line, row in rows:
            for name in self._table.columns:
                self._compare_cell(f"{snapshot.folder}, line {line}, {name}", row[name], values, name)

    def _compare_cell(self, place: str, cell: str, values: dict[str, object] | None, name: str) -> None:
        if not cell:
            return
        self.compared += 1
        if values is None:
            self._problems.append(Problem("table.differs", place, f"the table has {cell}, the bundle has no aggregate"))
            return
        value = values.get(name)
        if not agrees(cell, value):
            shown = "no value" if value is None else value
            self._problems.append(Problem("table.differs", place, f"the table has {cell}, the bundle has {shown}"))

    def finish(self) -> list[Problem]:
        """Return the problems of all experiments, and add the notes."""
        for own_id, rows in self._by_id.items():
            if own_id not in self._known:
                message = f"line {rows[0][0]} of the table has an experiment that the bundle does not have"
                self._problems.append(Problem("table.unknown", own_id, message))
        if self._without_row:
            self.notes.append(f"the table has no row for: {', '.join(self._without_row)}")
        if self._table.other_columns:
            self.notes.append(f"columns that are not compared: {', '.join(self._table.other_columns)}")
        return self._problems


def _values_of(snapshot: Snapshot) -> tuple[dict[str, object] | None, str]:
    """Return the exported values of an experiment and its id. The values are None without a readable aggregate."""
    try:
        result = snapshot.repository().load_aggregated(snapshot.folder)
    except ResultsError:
        return None, snapshot.folder
    if result is None:
        return None, snapshot.folder
    table = table_of([result])
    return dict(zip(table.names, next(iter(table.rows)), strict=True)), result.experiment_id


def agrees(cell: str, value: object) -> bool:
    """Return True if a value rounds to a printed cell.

    Example:
        >>> agrees("222.7", 222.6501), agrees("222.7", 222.64), agrees("1,468", 1468), agrees("2e2", 222.0)
        (True, False, True, True)
    """
    if value is None:
        return False
    if isinstance(value, bool) or not isinstance(value, int | float):
        return cell == str(value)
    printed = _number(cell)
    if printed is None or not math.isfinite(value):
        return False
    exponent = printed.as_tuple().exponent
    half = Decimal(1).scaleb(int(exponent)) / 2
    # The float 0.15 is not exactly half way between 0.1 and 0.2, so the limit is one unit in the last place wider.
    slack = Decimal(math.ulp(value))
    return abs(Decimal(value) - printed) <= half + slack


def _number(cell: str) -> Decimal | None:
    """Return the number in a printed cell. None if the cell is no finite number."""
    text = cell.translate(_TYPESETTING)
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    # A float has at most 309 digits before the point, and 1074 after it.
    is_sensible = number.is_finite() and len(text) <= 400 and abs(number.adjusted()) <= 400
    return number if is_sensible else None
