"""`llm-energy-measure results sql`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llm_energy_measure.catalogue.dataset import TABLES, changed_files, write_dataset
from llm_energy_measure.catalogue.paths import cached_dataset_path, dataset_path
from llm_energy_measure.catalogue.sql import column_as_text, query_dataset
from llm_energy_measure.cli import formatting, options, terminal
from llm_energy_measure.cli.block_pandas import block_pandas
from llm_energy_measure.exceptions import ConfigurationError, UnsafePathError
from llm_energy_measure.results import exporters

if TYPE_CHECKING:
    import pyarrow as pa

_FORMATS = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


@click.command(
    epilog=options.examples(
        'results sql "select model_name, sum(total_energy_j) from experiments group by 1"',
        "results sql \"select * from processes where host = 'node-1'\" --to table.parquet",
    )
)
@click.argument("query")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="Write the rows in this format. [default: by suffix, else table]",
)
@click.option("--to", "target", metavar="FILE", type=options.PathName(), help="Write to FILE. [default: stdout]")
@click.option(
    "--dataset",
    metavar="FOLDER",
    type=options.PathName(),
    help="Query a dataset that 'results export' wrote. [default: the current results]",
)
@click.option(
    "--memory-limit",
    metavar="SIZE",
    type=options.Size(),
    help="Use at most this memory, for example 8GB. [default: a quarter of the machine's memory, at most 4 GB]",
)
@options.shared_options
def sql(*, query: str, form: str | None, target: str | None, dataset: str | None, memory_limit: int | None) -> None:
    """Query all aggregated experiments with one SELECT statement, in the SQL dialect of DuckDB.

    The tables are experiments, processes and findings; the query "describe experiments" lists the columns of a table.
    Timestamps are in UTC. A query can't write, and it can't read other files. The command needs the packages duckdb and
    pyarrow.
    """
    with block_pandas():
        _run(query, form=form, target=target, dataset=dataset, memory_limit=memory_limit)


def _run(query: str, *, form: str | None, target: str | None, dataset: str | None, memory_limit: int | None) -> None:
    months: list[str] | None = None
    form = _format(form, target)
    if dataset is None:
        repository = options.repository()
        options.require_safe_target(repository, target or "-")
        dataset = str(dataset_path(repository.base_path))
        try:
            report = write_dataset(repository, dataset, warn=terminal.warn)
        except UnsafePathError as error:
            dataset = str(cached_dataset_path(repository.base_path))
            terminal.warn(f"{error}; the query uses the dataset {dataset} instead")
            report = write_dataset(repository, dataset, warn=terminal.warn)
        problems = [f"left out: {problem}" for problem in report.problems]
        months = [*report.written, *report.unchanged]  # other programs may have added files to the dataset
    elif not any((Path(dataset) / table).is_dir() for table in TABLES):
        found = f"there is no dataset in {dataset}"
        advice = f"write it with 'llm-energy-measure results export --format parquet --to {dataset}'"
        raise ConfigurationError("cannot run the query", found, advice)
    else:
        problems = [f"{dataset}/{key} was changed after the export" for key in changed_files(dataset)]
    for problem in problems:
        terminal.warn(problem, fails=True)
    _write(query_dataset(dataset, query, months=months, memory_bytes=memory_limit), form, target)
    if problems:
        raise SystemExit(1)


def _format(form: str | None, target: str | None) -> str:
    if form is None:
        form = "table" if target is None else options.format_of(target, _FORMATS)
    if target in (None, "-") and form == "parquet":
        raise click.UsageError("Parquet is a binary format: add --to FILE.")
    return form if form != "table" or target is None else "csv"


def _write(answer: pa.Table, form: str, target: str | None) -> None:
    row_count = formatting.plural(answer.num_rows, "row")
    if form == "table":
        alignments = ["right" if _is_number(field.type) else "left" for field in answer.schema]
        rows = ([formatting.cell(value) for value in row] for row in _rows(answer))
        terminal.print_table(list(zip(answer.column_names, alignments, strict=True)), rows)
        terminal.info(row_count)
    else:
        terminal.write_or_print(_encode(answer, form), target or "-", content=row_count)


def _encode(answer: pa.Table, form: str) -> bytes:
    names: list[str] = answer.column_names
    if form == "csv":
        rows = ([_csv_cell(value) for value in row] for row in _rows(answer))
        return exporters.to_csv(exporters.Table(names=names, rows=rows))
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        problem = f"several columns have the name {repeated[0]!r}"
        raise ConfigurationError(f"cannot write the rows as {form}", problem, "rename them: select a as x, b as y")
    if form == "parquet":
        return _parquet(answer)
    return exporters.to_json(exporters.Table(names=names, rows=_rows(answer)))


def _parquet(answer: pa.Table) -> bytes:
    from pyarrow import ArrowException, BufferOutputStream, parquet

    sink = BufferOutputStream()
    try:
        parquet.write_table(answer, sink)
    except ArrowException as error:
        raise ConfigurationError(
            "cannot write the rows as parquet", str(error), "cast the column to another type: select x::varchar"
        ) from error
    return bytes(sink.getvalue())


def _rows(answer: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield the rows as JSON values. Large whole numbers are int, maps are dicts, and intervals are ISO 8601 text."""
    return zip(*map(_values, answer.columns), strict=True)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column as JSON values. Bytes, and dates that Python cannot represent, become text."""
    from pyarrow import types

    kind = column.type
    if types.is_binary(kind):
        return column_as_text(column)
    try:
        found: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):  # pyarrow also raises ValueError for nanoseconds, because pandas is blocked
        return column_as_text(column)
    is_plain = not (types.is_nested(kind) or types.is_decimal(kind) or types.is_interval(kind))
    return found if is_plain else [_json_value(value, kind) for value in found]  # most columns need no conversion


def _json_value(value: Any, kind: pa.DataType) -> Any:
    from pyarrow import types

    converted = value
    if value is None:
        pass
    elif types.is_decimal(kind):  # DuckDB returns a sum of whole numbers as a decimal
        converted = int(value) if kind.scale == 0 else float(value)
    elif types.is_interval(kind):
        converted = _iso_duration(*value)
    elif types.is_map(kind):
        converted = {_json_key(key): _json_value(item, kind.item_type) for key, item in value}
    elif types.is_struct(kind):
        converted = {field.name: _json_value(value[field.name], field.type) for field in kind}
    elif types.is_list(kind) or types.is_fixed_size_list(kind):
        converted = [_json_value(item, kind.value_type) for item in value]
    elif isinstance(value, bytes):
        converted = value.decode("utf-8", "backslashreplace")
    return converted


def _json_key(key: Any) -> Any:
    return key if type(key) in (str, int, float) else str(key)


def _iso_duration(months: int, days: int, nanoseconds: int) -> str:
    """Return an interval as an ISO 8601 duration, for example `P14M3D`. Each negative part has a minus sign."""
    date = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    seconds = f"{nanoseconds / 1e9:.9f}".rstrip("0").rstrip(".")
    return f"P{date}T{seconds}S" if nanoseconds or not date else f"P{date}"


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _csv_cell(value: object) -> object:
    """Return the value of a CSV cell. Lists and dicts become JSON text."""
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value
