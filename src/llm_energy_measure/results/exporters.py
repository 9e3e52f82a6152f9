"""Tables of results as CSV, JSON and JSON lines, over the columns of `columns.py`, and as CodeCarbon writes them.

The first three hold the same rows and names, in base units; unknown is an empty cell or null. Whole records are the
JSON files of the results directory itself.

CSV is UTF-8 with a header and reads back to the same numbers to the last bit. Text never starts a formula in a
spreadsheet (a `'` stands before one that would) and holds no control characters. A byte order mark stands at the
start only if there is a character beyond ASCII: Excel needs it there, and pandas and polars skip it.
"""

from __future__ import annotations

import csv
import io
import math
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

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
from llm_energy_measure.storage.atomic import make_folder, replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Everything that moves a cursor or hides text; a line break inside a quoted cell is harmless.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_FORMULA_START = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def export_to_csv(
    results: Sequence[AggregatedResult | RawProcessResult],
    path: str | Path,
    *,
    include_process_breakdown: bool = False,
) -> Path:
    """Write one row a result, aggregated or raw, and return the file; it is replaced at once or not at all.

    Args:
        results: Results of one kind; none gives the header of the aggregated ones.
        path: The file; its folder is made if need be.
        include_process_breakdown: Add columns `process_<i>_...` to the rows of aggregated results.

    Raises:
        ExportError: The file can't be written.
        ConfigurationError: Both kinds at once.
    """
    return write_export(path, to_csv(results, include_process_breakdown=include_process_breakdown))


def export_to_json(
    results: Sequence[AggregatedResult | RawProcessResult],
    path: str | Path,
    *,
    include_process_breakdown: bool = False,
) -> Path:
    """Write a list of one flat object a result, aggregated or raw, and return the file.

    Args:
        results: As for `export_to_csv`, as are the others.
        path: The file.
        include_process_breakdown: Add fields `process_<i>_...`.

    Raises:
        ExportError: The file can't be written.
        ConfigurationError: Both kinds at once.
    """
    return write_export(path, to_json(results, include_process_breakdown=include_process_breakdown))


def export_aggregated_to_csv(
    results: Sequence[AggregatedResult],
    path: str | Path,
    include_process_breakdown: bool = False,  # noqa: FBT001, FBT002 - a signature of the field
) -> Path:
    """Write one row an experiment; see `export_to_csv`."""
    return export_to_csv(results, path, include_process_breakdown=include_process_breakdown)


def export_raw_to_csv(results: Sequence[RawProcessResult], path: str | Path) -> Path:
    """Write one row a process; see `export_to_csv`."""
    return write_export(path, to_csv(results, kind=RawProcessResult))


class ResultsExporter:
    """Exports into one folder, each file named by the caller.

    Args:
        output_dir: The folder; it is made by the first export.
    """

    def __init__(self, output_dir: str | Path) -> None:
        """Remember the folder; nothing is touched."""
        self.output_dir = Path(output_dir)

    def export_aggregated(
        self,
        results: Sequence[AggregatedResult],
        filename: str = "aggregated_results.csv",
        *,
        include_process_breakdown: bool = False,
    ) -> Path:
        """Write a CSV of one row an experiment; see `export_to_csv`."""
        path = self.output_dir / filename
        return export_to_csv(results, path, include_process_breakdown=include_process_breakdown)

    def export_raw(self, results: Sequence[RawProcessResult], filename: str = "raw_results.csv") -> Path:
        """Write a CSV of one row a process; see `export_to_csv`."""
        return export_raw_to_csv(results, self.output_dir / filename)

    def export_json(
        self, results: Sequence[AggregatedResult | RawProcessResult], filename: str = "results.json"
    ) -> Path:
        """Write a JSON list of one flat object a result; see `export_to_json`."""
        return export_to_json(results, self.output_dir / filename)


def flatten_model(model: msgspec.Struct, prefix: str = "", separator: str = "_") -> dict[str, Any]:
    """Every field of a record in one flat dict; the names of nested fields are joined.

    Args:
        model: Any record.
        prefix: Stands before every name.
        separator: Stands between the names of a field and of what it is in.

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


def _add(flat: dict[str, Any], more: dict[str, Any]) -> None:
    """Add to a flat dict; a name that is taken (`b_c` beside `b: {c: ...}`) gets an underscore more."""
    for name, value in more.items():
        free = name
        while free in flat:
            free += "_"
        flat[free] = value


def to_csv(
    results: Sequence[AggregatedResult | RawProcessResult],
    *,
    include_process_breakdown: bool = False,
    kind: type[AggregatedResult | RawProcessResult] = AggregatedResult,
) -> bytes:
    """The CSV that `export_to_csv` writes; `kind` says which header an empty table has."""
    results = list(results)  # a generator can be read only once
    columns = columns_of(results, include_process_breakdown=include_process_breakdown, kind=kind)
    return _csv(results, columns)


def to_codecarbon(results: Sequence[RawProcessResult]) -> bytes:
    """Raw results as CodeCarbon's `emissions.csv` of version 3.3.0: a row a process, energy in kWh, unknown blank.

    Raises:
        ConfigurationError: The end or the duration of one is unknown; see `has_codecarbon_row`.
    """
    for result in results:
        if not has_codecarbon_row(result):
            doing = f"cannot export process {result.process_index} of {result.experiment_id} as CodeCarbon does"
            raise ConfigurationError(doing, "its end or its duration is unknown", "export it as CSV or JSON")
    return _csv(results, CODECARBON_COLUMNS)


def _csv(results: Sequence[AggregatedResult | RawProcessResult], columns: Sequence[Column[Any]]) -> bytes:
    rows = ([column.getter(result) for column in columns] for result in results)
    return csv_bytes([column.name for column in columns], rows)


def csv_bytes(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """A CSV as all of ours are: see the docstring of this module."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(name) for name in names])
    for row in rows:
        writer.writerow([_cell(plain(value)) for value in row])
    content = text.getvalue()
    return content.encode("utf-8" if content.isascii() else "utf-8-sig")


def to_json(
    results: Sequence[AggregatedResult | RawProcessResult],
    *,
    include_process_breakdown: bool = False,
    kind: type[AggregatedResult | RawProcessResult] = AggregatedResult,
) -> bytes:
    """The JSON that `export_to_json` writes."""
    rows = list(_rows(results, include_process_breakdown=include_process_breakdown, kind=kind))
    return json_bytes(rows)


def json_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """A JSON list of one flat object a row."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n"


def to_json_lines(
    results: Sequence[AggregatedResult | RawProcessResult],
    *,
    include_process_breakdown: bool = False,
    kind: type[AggregatedResult | RawProcessResult] = AggregatedResult,
) -> bytes:
    """The objects of `to_json`, each on a line of its own."""
    rows = _rows(results, include_process_breakdown=include_process_breakdown, kind=kind)
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _rows(
    results: Sequence[AggregatedResult | RawProcessResult],
    *,
    include_process_breakdown: bool,
    kind: type[AggregatedResult | RawProcessResult],
) -> Iterator[dict[str, Any]]:
    """One flat object a result."""
    results = list(results)  # a generator can be read only once
    columns = columns_of(results, include_process_breakdown=include_process_breakdown, kind=kind)
    for result in results:
        yield {column.name: plain(column.getter(result)) for column in columns}


def columns_of(
    results: Sequence[AggregatedResult | RawProcessResult],
    *,
    include_process_breakdown: bool = False,
    kind: type[AggregatedResult | RawProcessResult] = AggregatedResult,
) -> tuple[Column[Any], ...]:
    """The columns of a table of these results; `kind` decides where there are none."""
    kinds = {type(result) for result in results} or {kind}
    if kinds == {RawProcessResult}:
        return RAW_COLUMNS
    if kinds != {AggregatedResult}:
        found = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise ConfigurationError("cannot export", f"the results are {found}", "export results of one kind at a time")
    breakdown = (
        breakdown_columns([result for result in results if isinstance(result, AggregatedResult)])
        if include_process_breakdown
        else ()
    )
    return AGGREGATED_COLUMNS + breakdown


def plain(value: Any) -> Any:
    """A numpy scalar as the number it is, text that can be written; None for a number that is none."""
    if callable(to_plain := getattr(value, "tolist", None)):
        value = to_plain()
    if isinstance(value, str):
        # Half of a surrogate pair, from an undecodable file name: no text that can be written.
        return value.encode("utf-8", errors="backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime):
        return value.isoformat()
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULA_START) else text


def _flatten(value: object, name: str, separator: str) -> dict[str, Any]:
    if isinstance(value, msgspec.Struct):
        return flatten_model(value, name, separator)
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, item in value.items():
            _add(flat, _flatten(item, f"{name}{separator}{key}", separator))
        return flat
    return {name: value}


def write_export(path: str | Path, data: bytes) -> Path:
    """Write an export and return its file.

    A regular file is replaced at once or not at all, and keeps its permissions; where a link leads is replaced, not the
    link; into a pipe or a device it is written as it is.

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
    except (OSError, ValueError, RuntimeError) as error:  # a NUL character in the path; links that lead in a circle
        found = getattr(error, "strerror", None) or str(error)
        raise ExportError(f"cannot write {path}", found, "choose another file") from error
    return path
