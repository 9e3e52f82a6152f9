"""Export results as tables: CSV, JSON, JSON lines, and CodeCarbon's `emissions.csv`.

`export_to_csv` and `export_to_json` write files. `table_of` builds a `Table` from the columns of `columns.py`;
`to_csv`, `to_json` and `to_json_lines` encode the table. CSV, JSON and JSON lines have the same column names and
values, in base units. An unknown value is an empty cell or null. The JSON files in the results directory contain the
complete records.

CSV files are UTF-8 with a header. Reading a number back gives exactly the same float. A text that a spreadsheet would
interpret as a formula gets a leading `'`. Characters that move the cursor, reorder text or hide text are escaped. A
file with a character outside ASCII starts with a byte order mark. Excel needs the mark; pandas and polars skip it.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from llm_energy_measure.domain.configuration import PREFIX, flatten
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.exceptions import ConfigurationError, ExportError
from llm_energy_measure.results.columns import (
    AGGREGATED_COLUMNS,
    CODECARBON_COLUMNS,
    RAW_COLUMNS,
    Column,
    breakdown_columns,
    has_codecarbon_row,
)
from llm_energy_measure.security import UNPRINTABLE
from llm_energy_measure.storage.atomic import make_folder, replace_file

Results = AggregatedResult | RawProcessResult | Iterable[AggregatedResult | RawProcessResult]
"""One result, or results of one kind."""

# Characters that are escaped. A line break inside a quoted cell is harmless.
_HARMFUL = re.compile(rf"(?!\n)[{UNPRINTABLE}]")
_ROWS_PER_CHUNK = 1_000
_QUOTES = '""'
_FORMULA_START = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


# Write files


def export_to_csv(
    results: Results,
    path: str | Path | None = None,
    *,
    include_process_breakdown: bool = False,
    output_path: str | Path | None = None,
) -> Path:
    """Write a CSV file with one row per result, aggregated or raw, and return its path.

    Args:
        results: One result, or results of one kind. An empty list gives the header of aggregated results.
        path: The file. Missing folders are created, and an existing file is replaced atomically.
        include_process_breakdown: Add the columns `process_<i>_...` to the rows of aggregated results.
        output_path: Another name of `path`. Pass exactly one of the two.

    Raises:
        ExportError: The file can't be written.
        ConfigurationError: Some results are raw and some are aggregated, or the number of paths is not one.
    """
    table = table_of(results, include_process_breakdown=include_process_breakdown)
    return write_export(_target(path, output_path), to_csv(table))


def export_to_json(
    results: Results,
    path: str | Path | None = None,
    *,
    include_process_breakdown: bool = False,
    output_path: str | Path | None = None,
) -> Path:
    """Write a JSON list with one flat object per result, and return its path; see `export_to_csv`."""
    table = table_of(results, include_process_breakdown=include_process_breakdown)
    return write_export(_target(path, output_path), to_json(table))


def _target(path: str | Path | None, output_path: str | Path | None) -> str | Path:
    """Return `path` or `output_path`; raise `ConfigurationError` if both or none are given."""
    given = [one for one in (path, output_path) if one is not None]
    if len(given) != 1:
        found = "both `path` and `output_path` are given" if given else "no path is given"
        raise ConfigurationError("cannot export", found, "pass the path of one file")
    return given[0]


def export_aggregated_to_csv(
    results: AggregatedResult | Iterable[AggregatedResult],
    path: str | Path | None = None,
    include_process_breakdown: bool = False,  # noqa: FBT001, FBT002 - existing scripts pass it by position
    *,
    output_path: str | Path | None = None,
) -> Path:
    """Write a CSV file with one row per experiment; see `export_to_csv`."""
    target = _target(path, output_path)
    return export_to_csv(results, target, include_process_breakdown=include_process_breakdown)


def export_raw_to_csv(
    results: RawProcessResult | Iterable[RawProcessResult],
    path: str | Path | None = None,
    *,
    output_path: str | Path | None = None,
) -> Path:
    """Write a CSV file with one row per process; see `export_to_csv`."""
    return write_export(_target(path, output_path), to_csv(table_of(results, kind=RawProcessResult)))


class ResultsExporter:
    """Exports results to files in one folder.

    Args:
        output_dir: The folder. The first export creates it.
    """

    def __init__(self, output_dir: str | Path) -> None:
        """Store the folder; no file is created."""
        self.output_dir = Path(output_dir)

    def export_aggregated(
        self,
        results: Sequence[AggregatedResult],
        filename: str = "aggregated_results.csv",
        include_process_breakdown: bool = False,  # noqa: FBT001, FBT002 - as in export_aggregated_to_csv
    ) -> Path:
        """Write a CSV file with one row per experiment; see `export_to_csv`."""
        path = self.output_dir / filename
        return export_to_csv(results, path, include_process_breakdown=include_process_breakdown)

    def export_raw(self, results: Sequence[RawProcessResult], filename: str = "raw_results.csv") -> Path:
        """Write a CSV file with one row per process; see `export_to_csv`."""
        return export_raw_to_csv(results, self.output_dir / filename)

    def export_json(self, results: Results, filename: str = "results.json") -> Path:
        """Write a JSON list with the complete records, nested as in the files of the results directory.

        `export_to_json` writes one flat object per result.
        """
        records = [_nested(one) for one in _listed(results)]
        data = msgspec.json.format(msgspec.json.encode(records), indent=2) + b"\n"
        return write_export(self.output_dir / filename, data)


def _listed(results: Results) -> list[AggregatedResult | RawProcessResult]:
    """Return results as a list; one result becomes a list with one element."""
    return [results] if isinstance(results, AggregatedResult | RawProcessResult) else list(results)


def _nested(record: AggregatedResult | RawProcessResult) -> Any:
    """Return a record as nested dictionaries and lists, with values that JSON can represent."""
    return _plain_tree(msgspec.to_builtins(record, builtin_types=(datetime,), enc_hook=plain))


def _plain_tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_tree(item) for key, item in value.items()}
    return [_plain_tree(item) for item in value] if isinstance(value, list) else plain(value)


def write_export(path: str | Path, data: bytes) -> Path:
    """Write bytes to a file, and return its path.

    A regular file is replaced atomically and keeps its permissions. If the path is a symbolic link, its target is
    replaced. If the path is a pipe or a device, the bytes are written into it directly.

    Raises:
        ExportError: The file can't be written.
    """
    path = Path(path)
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            make_folder(str(target.parent))
            replace_file(str(target), data)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: NUL in the path; RuntimeError: a cycle of links
        found = getattr(error, "strerror", None) or str(error)
        raise ExportError(f"cannot write {path}", found, "choose another file") from error
    return path


# Build tables


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table to encode.

    Attributes:
        names: The names of the columns.
        rows: The values of each row, in the order of the names; None is unknown. A table whose rows are an iterator can
            be encoded only once.
    """

    names: Sequence[str]
    rows: Iterable[Sequence[Any]]


def table_of(
    results: Results,
    *,
    include_process_breakdown: bool = False,
    kind: type[AggregatedResult | RawProcessResult] = AggregatedResult,
) -> Table:
    """Return a table with one row per result. Aggregated results have a column `config.<key>` per configuration key.

    Args:
        results: One result, or results of one kind.
        include_process_breakdown: Add the columns `process_<i>_...` to the rows of aggregated results.
        kind: The type of results that determines the columns if there are no results.

    Raises:
        ConfigurationError: Some results are raw, and some are aggregated.
    """
    results = _listed(results)
    kinds = {type(result) for result in results} or {kind}
    if kinds == {RawProcessResult}:
        return _table(RAW_COLUMNS, results)
    if kinds != {AggregatedResult}:
        found = f"the results are {' and '.join(sorted(kind.__name__ for kind in kinds))}"
        raise ConfigurationError("cannot export", found, "export results of one kind at a time")
    aggregated = [result for result in results if isinstance(result, AggregatedResult)]
    breakdown = breakdown_columns(aggregated) if include_process_breakdown else ()
    table = _table(AGGREGATED_COLUMNS + breakdown, aggregated)
    return with_configuration(table, [(flatten(result.effective_config),) for result in aggregated])


def _table(columns: Sequence[Column[Any]], results: Iterable[AggregatedResult | RawProcessResult]) -> Table:
    rows = [[column.getter(result) for column in columns] for result in results]
    return Table(names=[column.name for column in columns], rows=rows)


def with_configuration(table: Table, configurations: Sequence[Sequence[Mapping[str, Any]]]) -> Table:
    """Return the table with one more column `config.<key>` for each configuration key, sorted by key.

    Args:
        table: The table.
        configurations: The flattened configuration of each row, as one or more dictionaries. If several dictionaries of
            a row contain a key, the last one has priority. Rows may share a dictionary.
    """
    distinct = {id(part): part for parts in configurations for part in parts}
    keys = sorted({key for part in distinct.values() for key in part})
    indices = {key: index for index, key in enumerate(keys)}
    of_first: dict[int, list[Any]] = {}  # repeats share their first dictionary, which has most of the keys
    rows = []
    for row, (first, *others) in zip(table.rows, configurations, strict=True):
        if id(first) not in of_first:
            of_first[id(first)] = [first.get(key) for key in keys]
        cells = of_first[id(first)].copy()
        for part in others:
            for key, value in part.items():
                cells[indices[key]] = value
        rows.append([*row, *cells])
    return Table(names=[*table.names, *(f"{PREFIX}{key}" for key in keys)], rows=rows)


def flatten_model(model: msgspec.Struct, prefix: str = "", separator: str = "_") -> dict[str, Any]:
    """Return all fields of a record in one flat dict; the names of nested fields are joined.

    Args:
        model: Any record.
        prefix: Prefix of every name.
        separator: Separator between the name of a field and the name of the object that contains it.

    Example:
        >>> from llm_energy_measure.domain.metrics import ComputeMetrics
        >>> flatten_model(ComputeMetrics(flops_total=2e9, flops_method="counted"), "compute")["compute_flops_total"]
        2000000000.0
    """
    flat: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(model).items():
        if value is not msgspec.UNSET:
            _add(flat, _flatten(value, f"{prefix}{separator}{name}" if prefix else name, separator))
    return flat


def _flatten(value: object, name: str, separator: str) -> dict[str, Any]:
    if isinstance(value, msgspec.Struct):
        return flatten_model(value, name, separator)
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, item in value.items():
            _add(flat, _flatten(item, f"{name}{separator}{key}", separator))
        return flat
    return {name: value}


def _add(flat: dict[str, Any], more: dict[str, Any]) -> None:
    """Add items to a flat dict. If the name of an item exists already, underscores are appended until the name is free.

    For example, `{"b_c": 1, "b": {"c": 2}}` becomes `{"b_c": 1, "b_c_": 2}`.
    """
    for name, value in more.items():
        free = name
        while free in flat:
            free += "_"
        flat[free] = value


# Encode tables


def to_csv(table: Table) -> bytes:
    """Return a table as CSV; the module's docstring describes the format."""
    text = io.StringIO()
    texts = _Texts()
    text.write(_csv_lines([map(texts.__getitem__, table.names)]))
    rows = iter(table.rows)
    while chunk := list(islice(rows, _ROWS_PER_CHUNK)):
        columns = [_csv_column(values, texts) for values in zip(*chunk, strict=True)]
        text.write(_csv_lines(zip(*columns, strict=True)))
    content = text.getvalue()
    return content.encode("utf-8" if content.isascii() else "utf-8-sig")


def to_json(table: Table) -> bytes:
    """Return a table as an indented JSON list with one object per row."""
    return msgspec.json.format(msgspec.json.encode(_objects(table)), indent=2) + b"\n"


def to_json_lines(table: Table) -> bytes:
    """Return a table as JSON lines: one object per row, each on its own line."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in _objects(table))


def to_codecarbon(results: Sequence[RawProcessResult]) -> bytes:
    """Return raw results as CodeCarbon's `emissions.csv` of version 3.3.0, one row per process, with energy in kWh.

    Raises:
        ConfigurationError: The end or the duration of a process is unknown; see `has_codecarbon_row`.
    """
    return to_csv(codecarbon_table(results))


def codecarbon_table(results: Sequence[RawProcessResult]) -> Table:
    """Return the table of `to_codecarbon`."""
    for result in results:
        if not has_codecarbon_row(result):
            doing = f"cannot export process {result.process_index} of {result.experiment_id} for CodeCarbon"
            raise ConfigurationError(doing, "its end or its duration is unknown", "export it as CSV or JSON")
    return _table(CODECARBON_COLUMNS, results)


def _objects(table: Table) -> list[dict[str, Any]]:
    return [{name: plain(value) for name, value in zip(table.names, row, strict=True)} for row in table.rows]


def plain(value: Any) -> Any:
    """Return a value that JSON can represent: None for NaN and infinity, a number for a NumPy scalar."""
    if callable(to_plain := getattr(value, "tolist", None)):
        value = to_plain()
    if isinstance(value, str):
        # UTF-8 can't encode a lone surrogate, which Python makes from an undecodable file name.
        return value.encode("utf-8", errors="backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Texts(dict[str | None, str]):
    """The CSV cell of each text. A cell is encoded only once, because most texts occur in many rows."""

    def __missing__(self, value: str | None) -> str:
        """Encode a text as a CSV cell, store the cell for the next rows, and return it. None gives an empty cell."""
        self[value] = cell = _quoted(_cell(plain(value)))
        return cell


def _csv_lines(rows: Iterable[Iterable[str]]) -> str:
    """Return rows of encoded cells as CSV lines. Like the `csv` module, write `""` for a row with one empty cell."""
    return "".join([f"{line or _QUOTES}\n" for line in map(",".join, rows)])


def _csv_column(values: Sequence[Any], texts: _Texts) -> Iterable[str]:
    """Return the CSV cell of each value of a column: `_quoted(_cell(plain(value)))`.

    The branches for columns of one type give the same cells in less time. With them, `to_csv` takes a third of the time
    for 20,000 rows of 114 columns.
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {str}:
        return map(texts.__getitem__, values)
    if kinds == {datetime}:
        return ["" if value is None else value.isoformat() for value in values]
    if kinds <= {int, float, bool} and len(kinds) <= 1:
        distinct = set(values)
        if len(distinct) * 4 <= len(values) and not any(map(_is_negative_zero, values if 0.0 in distinct else ())):
            return map({value: _cell(plain(value)) for value in distinct}.__getitem__, values)
        if kinds == {int} or (kinds == {float} and all(map(math.isfinite, distinct - {None}))):
            return ["" if value is None else repr(value) for value in values]
    return [_quoted(_cell(plain(value))) for value in values]


def _is_negative_zero(value: float | None) -> bool:
    """Return True for -0.0, which is equal to 0.0."""
    return value == 0 and math.copysign(1.0, value) < 0


def _quoted(text: str) -> str:
    """Return a text as the `csv` module writes it between two commas."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([text, ""])
    return line.getvalue()[: -len(",\n")]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime):
        return value.isoformat()
    text = _HARMFUL.sub(_escape, str(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULA_START) else text


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
