"""Read the rows of a table in one of four forms: CSV, JSON lines, a list of JSON objects, Parquet.

A row can be parsed again from its position, so no list of parsed rows is in memory. Only for `rows_path` and Parquet,
the parsed values stay in memory.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.importers.json_text import at_path, parse_json
from llm_energy_measure.importers.limits import MAX_BYTES, MAX_CELL, require_rows, require_unique_columns
from llm_energy_measure.importers.mapping import Cell
from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import MAX_INTEGER

PARQUET = b"PAR1"
"""First bytes of a Parquet file."""

TableRow = dict[str, "Cell"] | RefusedInputError
"""The cells of a row by column, or the reason why the row is refused."""


class Table(NamedTuple):
    """Access to the rows of a table. The file stays in memory in its own form, and rows are parsed when they are read.

    Attributes:
        rows: Yields the line or number of each row, its position, and its content.
        at: Returns the row at a position; None if the line is blank.
    """

    rows: Callable[[], Iterator[tuple[int, int, TableRow]]]
    at: Callable[[int], TableRow | None]


class MissingColumnsError(RefusedInputError):
    """A table lacks columns.

    Attributes:
        columns: Names of the missing columns, sorted.
    """

    def __init__(self, columns: list[str], found: str) -> None:
        self.columns = columns
        super().__init__("missing_field", f"{found}; change --map")


def open_table(source: ImportSource, needed: set[str], rows_path: str | None = None) -> Table:
    """Return the file as a table.

    Args:
        source: The file.
        needed: Names of the needed columns, and paths in braces, such as `{gpus.0.energy}`.
        rows_path: Path to the list of rows in a JSON document; None if the document consists of the rows.

    Raises:
        MissingColumnsError: A needed column is missing.
        RefusedInputError: The table exceeds a limit.
    """
    if rows_path is not None:
        table = _nested_table(source, needed, rows_path)
        _require_keys(table, needed)
        return table
    if source.start.startswith(PARQUET):
        return _parquet_table(source, needed)
    if not source.items and not source.first_fields:
        return _csv_table(source, needed)
    items = source.items
    table = _json_lines_table(source, needed)
    if items:  # one list of objects, or one object on several lines
        table = _numbered_table(
            len(items), lambda number: _parse_row(bytes(items[number]), f"object {number + 1}", needed)
        )
    _require_keys(table, needed)
    return table


def _require_columns(needed: set[str], columns: list[str]) -> None:
    require_unique_columns(columns, needed)
    if missing := sorted(needed - set(columns)):
        found = f"there is no column {', '.join(missing)}; the columns are {', '.join(columns[:20])}"
        raise MissingColumnsError(missing, found)


def _require_keys(table: Table, needed: set[str]) -> None:
    """Refuse a table of objects if a needed key is in none of them. A key that only some objects have is allowed."""
    missing, first = set(needed), None
    for _, _, row in table.rows():
        if isinstance(row, dict):
            first = row if first is None else first
            missing.difference_update(row)
        if not missing:
            return
    if first is not None:
        found = f"no object has {', '.join(sorted(missing))}; the first object has {', '.join(list(first)[:20])}"
        raise MissingColumnsError(sorted(missing), found)


def _line_table(
    source: ImportSource, lines: io.BytesIO, parse: Callable[[], TableRow | None], header_lines: int = 0
) -> Table:
    """Return a table of lines; a position is an offset in the bytes.

    Args:
        source: The file.
        lines: Lines of the table.
        parse: Returns the row at the current position of `lines`; None if the line is blank.
        header_lines: Number of lines before the first row.
    """
    source.require_lines()
    start = sum(len(lines.readline()) for _ in range(header_lines))

    def at(position: int) -> TableRow | None:
        lines.seek(position)
        return parse()

    def rows() -> Iterator[tuple[int, int, TableRow]]:
        # A quoted cell can contain line ends, so a row can have several lines. The first line is the line of the row.
        line, position = 1 + header_lines, start
        while position < len(source.data):
            row, end = at(position), lines.tell()
            if row is not None:
                yield line, position, row
            line += source.data.count(b"\n", position, end)
            position = end

    return Table(rows, at)


def _numbered_table(length: int, at: Callable[[int], TableRow]) -> Table:
    """Return a table whose rows have indices; a position is an index from 0."""
    require_rows(length)
    return Table(lambda: ((number + 1, number, at(number)) for number in range(length)), at)


def _csv_table(source: ImportSource, needed: set[str]) -> Table:
    lines, header = io.BytesIO(source.data), source.header  # BytesIO shares the bytes
    decode = partial(str, encoding="utf-8", errors="replace")
    reader = csv.reader(map(decode, lines), strict=True)  # continues after its end if `lines` is moved back

    def parse() -> TableRow | None:
        position = lines.tell()
        try:
            cells = next(reader)
        except csv.Error as error:
            # After a quote that is not closed, the reader consumes all lines. Continue at the second line of the row.
            lines.seek(position)
            return RefusedInputError("torn", _describe_csv_error(error, len(decode(lines.readline()))))
        if not cells:
            return None
        if len(cells) != len(header):
            return RefusedInputError("torn", f"the row has {len(cells)} cells, but the header has {len(header)}")
        return {name: cell.strip() or None for name, cell in zip(header, cells, strict=True)}

    _require_columns(needed, header)
    return _line_table(source, lines, parse, header_lines=1)


def _describe_csv_error(error: csv.Error, length: int) -> str:
    if length > MAX_CELL:
        return f"a cell of the row has more than {MAX_CELL} characters"
    if "end of data" in str(error) or "field larger" in str(error):
        return "a quote in the row is not closed"
    return f"the row is not valid CSV ({error})"


def _nested_table(source: ImportSource, needed: set[str], rows_path: str) -> Table:
    """Return the list of objects at a path of a JSON document as a table."""
    found = at_path(source.json(), rows_path)
    items = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise RefusedInputError("missing_field", f"there is no list of objects at {rows_path!r}; correct --rows")
    return _numbered_table(len(items), lambda number: _object_row(items[number], needed))


def _object_row(document: dict[str, Any], needed: set[str]) -> TableRow:
    """Return the cells of an object: its fields, and the values at the needed paths that exist."""
    values = ((name, at_path(document, name[1:-1])) for name in needed if name.startswith("{"))
    return _row([*document.items(), *((name, value) for name, value in values if value is not None)])


def _json_lines_table(source: ImportSource, needed: set[str]) -> Table:
    lines = io.BytesIO(source.data)

    def parse() -> TableRow | None:
        data = lines.readline()
        return _parse_row(data, "the line", needed) if data.strip() else None

    return _line_table(source, lines, parse)


def _parse_row(data: bytes, what: str, needed: set[str]) -> TableRow:
    try:
        document = parse_json(data, what)
    except RefusedInputError as error:
        return error if error.code == "ambiguous_key" else RefusedInputError("torn", error.message)
    if not isinstance(document, dict):
        return RefusedInputError("torn", f"{what} is not a JSON object")
    return _object_row(document, needed)


def _parquet_table(source: ImportSource, needed: set[str]) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        found = f"pyarrow, which reads Parquet, is not installed; run: pip install {EXTRA_PACKAGES['parquet']}"
        raise RefusedInputError("missing_extra", found) from error
    try:
        meta = pq.read_metadata(pa.BufferReader(source.data))
        size = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
        # A column of lists or objects is not a leaf with its own name, so it counts as missing.
        leaves = [meta.schema.column(index) for index in range(meta.num_columns)]
        _require_columns(needed, [leaf.path for leaf in leaves])
        # A number that is repeated in a million rows takes no space in the file, but eight bytes per row in memory.
        size = max(size, 8 * meta.num_rows * len(needed))
        if size > MAX_BYTES or any(leaf.path in needed and leaf.length > MAX_CELL for leaf in leaves):
            limits = f"at most {MAX_BYTES // 2**20} MiB with cells of at most {MAX_CELL} characters are read"
            raise RefusedInputError("too_large", f"it has {size} bytes when unpacked, and {limits}; split the file")
        # A dictionary keeps a text that is repeated in a million rows only once in memory.
        texts = [leaf.path for leaf in leaves if leaf.path in needed and leaf.physical_type == "BYTE_ARRAY"]
        file = pq.ParquetFile(pa.BufferReader(source.data), read_dictionary=texts)
        table = file.read(columns=sorted(needed))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RefusedInputError("unreadable", f"it is not a readable Parquet file ({error})") from error
    columns = [(name, table.column(name)) for name in table.column_names]

    def parse(number: int) -> TableRow:
        try:
            return _row((name, _plain(column[number])) for name, column in columns)
        except (OverflowError, ValueError) as error:
            return RefusedInputError("torn", f"a value of the row cannot be read ({error})")

    return _numbered_table(table.num_rows, parse)


def _plain(scalar: Any) -> Any:
    """Return a Parquet value as a Python value. A text of more than 4 * `MAX_CELL` bytes is replaced by question marks.

    The question marks are longer than `MAX_CELL`, so `_row` refuses the row.
    """
    scalar = scalar.value if hasattr(scalar, "dictionary") else scalar
    if hasattr(scalar, "as_buffer") and scalar.is_valid and scalar.as_buffer().size > 4 * MAX_CELL:
        return "?" * (MAX_CELL + 1)
    return scalar.as_py()


def _row(values: Iterable[tuple[str, Any]]) -> TableRow:
    """Return the cells of a row, or a refusal if one of them is too long."""
    cells = {name: _cell(value) for name, value in values}
    long = next((name for name, cell in cells.items() if isinstance(cell, str) and len(cell) > MAX_CELL), None)
    return cells if long is None else RefusedInputError("torn", f"{long[:40]} has more than {MAX_CELL} characters")


def _cell(value: Any) -> Cell:
    """Return a value as text or number; None if it is blank or not finite."""
    if isinstance(value, bool) or value is None:
        return None if value is None else str(value).lower()
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return float(value) if isinstance(value, float) or abs(value) < MAX_INTEGER else str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value.strip() or None if isinstance(value, str) else json.dumps(value, default=str)
