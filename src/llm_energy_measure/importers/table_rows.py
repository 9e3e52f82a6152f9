"""Rows of a table, in the form that it came in: CSV, JSON lines, a list of JSON objects, Parquet.

Each form can go to a row again, so that nothing but the file itself has to be held.
"""

from __future__ import annotations

import csv
import io
import json
import math
from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.importers.cells import GREATEST_WHOLE
from llm_energy_measure.importers.json_text import parsed
from llm_energy_measure.importers.limits import MAX_BYTES, MAX_CELL, RefusedFileError, require_once, require_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_energy_measure.importers.bounded import Original
    from llm_energy_measure.importers.mapping import Cell

PARQUET = b"PAR1"

Row = dict[str, "Cell"] | RefusedFileError
"""The cells of a row by column, or what is wrong with it."""


class Table(ABC):
    """A table in memory, in the form that it came in."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[int, int, Row]]:
        """Line or number of each row, where it stands, and its content."""

    @abstractmethod
    def at(self, place: int) -> Row | None:
        """The row that stands there; None if the line is blank."""


def table_of(original: Original, needed: set[str]) -> Table:
    """The file as a table, once it is known to have the columns that are needed."""
    if original.data.startswith(PARQUET):
        return _Parquet(original, needed)
    if not original.items and not original.first_fields:
        return _Csv(original, needed)
    table = _JsonItems(original) if original.items else _JsonLines(original)
    _require_keys(table, needed)
    return table


def _require_columns(needed: set[str], columns: list[str]) -> None:
    require_once(columns, needed)
    if missing := sorted(needed - set(columns)):
        found = f"there is no column {', '.join(missing)}; the columns are {', '.join(columns[:20])}"
        raise RefusedFileError("missing_field", found)


def _require_keys(table: Table, needed: set[str]) -> None:
    """Refuse a table of objects in which a column is in none of them: in one it may be left out, as a blank is."""
    missing, found = set(needed), None
    for _, _, row in table.rows():
        if isinstance(row, dict):
            found = row if found is None else found
            missing.difference_update(row)
        if not missing:
            return
    if found is not None:
        sentence = f"no object has {', '.join(sorted(missing))}; the first has {', '.join(list(found)[:20])}"
        raise RefusedFileError("missing_field", sentence)


class _Lines(Table):
    """A table of lines; a place is a position in the bytes."""

    first = 1
    start = 0

    def __init__(self, original: Original) -> None:
        """Stand before the first line."""
        self.data = original.data
        self.file = io.BytesIO(original.data)  # shares the bytes
        original.require_lines()

    def rows(self) -> Iterator[tuple[int, int, Row]]:
        """As `Table` says; the line is that at which a row begins, since a quoted cell can have several."""
        line, place = self.first, self.start
        while place < len(self.data):
            row, end = self.at(place), self.file.tell()
            if row is not None:
                yield line, place, row
            line += self.data.count(b"\n", place, end)
            place = end

    def __iter__(self) -> Iterator[str]:
        """The lines from here on, as text; for the csv module, which goes on where it is set to."""
        return self

    def __next__(self) -> str:
        """The next line."""
        if not (line := self.file.readline()):
            raise StopIteration
        return line.decode(errors="replace")


class _Csv(_Lines):
    """A CSV with a header."""

    first = 2

    def __init__(self, original: Original, needed: set[str]) -> None:
        """Require the columns that are needed."""
        super().__init__(original)
        self.header = original.header
        _require_columns(needed, self.header)
        self.file.readline()
        self.start = self.file.tell()
        self.reader = csv.reader(self, strict=True)

    def at(self, place: int) -> Row | None:
        """As `Table` says."""
        self.file.seek(place)
        try:
            cells = next(self.reader)
        except csv.Error as error:
            # What a quote that never closes took with it is read again, from the next line on.
            self.file.seek(place)
            return RefusedFileError("torn", _no_row(error, len(next(self))))
        if not cells:
            return None
        if len(cells) != len(self.header):
            return RefusedFileError("torn", f"it has {len(cells)} cells under {len(self.header)} columns")
        return {name: cell.strip() or None for name, cell in zip(self.header, cells, strict=True)}


def _no_row(error: csv.Error, length: int) -> str:
    """What is wrong with a line that the csv module refuses."""
    if length > MAX_CELL:
        return f"one of its cells has more than {MAX_CELL} characters"
    if "end of data" in str(error) or "field larger" in str(error):
        return "a quote in it never closes"
    return f"it is no row ({error})"


class _JsonLines(_Lines):
    """An object of JSON a line."""

    def at(self, place: int) -> Row | None:
        """As `Table` says."""
        self.file.seek(place)
        data = self.file.readline()
        return _object(data, "the line") if data.strip() else None


class _JsonItems(Table):
    """One list of JSON objects, or one object over several lines; a place is the number of an object, from 0."""

    def __init__(self, original: Original) -> None:
        """Require that there are not too many."""
        self.items = original.items
        require_rows(len(self.items))

    def rows(self) -> Iterator[tuple[int, int, Row]]:
        """As `Table` says."""
        return ((place + 1, place, self.at(place)) for place in range(len(self.items)))

    def at(self, place: int) -> Row:
        """As `Table` says."""
        return _object(bytes(self.items[place]), f"object {place + 1}")


def _object(data: bytes, what: str) -> Row:
    """The cells of a JSON object."""
    try:
        document = parsed(data, what)
    except RefusedFileError as refused:
        return refused if refused.code == "ambiguous_key" else RefusedFileError("torn", refused.sentence)
    return _cells(document.items()) if isinstance(document, dict) else RefusedFileError("torn", "it is no JSON object")


class _Parquet(Table):
    """A file of Parquet; a place is the number of a row, from 0."""

    def __init__(self, original: Original, needed: set[str]) -> None:
        """Load the columns that are needed, once they are known to be small."""
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            found = f"reading Parquet needs pyarrow: pip install {EXTRA_PACKAGES['parquet']}"
            raise RefusedFileError("missing_extra", found) from error
        try:
            meta = pq.read_metadata(pa.BufferReader(original.data))
            size = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
            # A column of lists or objects is no leaf of that name.
            leaves = [meta.schema.column(index) for index in range(meta.num_columns)]
            _require_columns(needed, [leaf.path for leaf in leaves])
            # A number that stands a million times in a row takes no bytes in the file, and eight each in memory.
            size = max(size, 8 * meta.num_rows * len(needed))
            if size > MAX_BYTES or any(leaf.path in needed and leaf.length > MAX_CELL for leaf in leaves):
                found = f"it has {size} bytes when unpacked, and at most {MAX_BYTES // 2**20} MiB are read, of cells"
                raise RefusedFileError("too_large", f"{found} of at most {MAX_CELL} characters; split it")
            # Texts that stand once in the file and in a million rows of it stay one text in memory.
            texts = [leaf.path for leaf in leaves if leaf.path in needed and leaf.physical_type == "BYTE_ARRAY"]
            file = pq.ParquetFile(pa.BufferReader(original.data), read_dictionary=texts)
            self.table = file.read(columns=sorted(needed))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RefusedFileError("unreadable", f"it is no Parquet that can be read ({error})") from error
        require_rows(self.table.num_rows)
        self.columns = [(name, self.table.column(name)) for name in self.table.column_names]

    def rows(self) -> Iterator[tuple[int, int, Row]]:
        """As `Table` says."""
        return ((place + 1, place, self.at(place)) for place in range(self.table.num_rows))

    def at(self, place: int) -> Row:
        """As `Table` says."""
        try:
            return _cells((name, _plain(column[place])) for name, column in self.columns)
        except (OverflowError, ValueError) as error:
            return RefusedFileError("torn", f"a value in it can't be read ({error})")


def _plain(scalar: Any) -> Any:
    """A value of Parquet; of a text that is too long no more than shows that it is."""
    scalar = scalar.value if hasattr(scalar, "dictionary") else scalar
    if hasattr(scalar, "as_buffer") and scalar.is_valid and scalar.as_buffer().size > 4 * MAX_CELL:
        return "?" * (MAX_CELL + 1)
    return scalar.as_py()


def _cells(found: Iterable[tuple[str, Any]]) -> Row:
    """The cells of a row, or that one of them is too long."""
    cells = {name: _cell(value) for name, value in found}
    long = next((name for name, cell in cells.items() if isinstance(cell, str) and len(cell) > MAX_CELL), None)
    if long is None:
        return cells
    return RefusedFileError("torn", f"{long[:40]} has more than {MAX_CELL} characters")


def _cell(value: Any) -> Cell:
    """A value as text, as a number, or as unknown."""
    if isinstance(value, bool) or value is None:
        return None if value is None else str(value).lower()
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return float(value) if isinstance(value, float) or abs(value) < GREATEST_WHOLE else str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value.strip() or None if isinstance(value, str) else json.dumps(value, default=str)
