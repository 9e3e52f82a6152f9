"""`llm-energy-measure results sql`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llm_energy_measure.catalogue.dataset import TABLES, write_dataset
from llm_energy_measure.catalogue.paths import dataset_path
from llm_energy_measure.catalogue.sql import query_dataset
from llm_energy_measure.cli import options, terminal
from llm_energy_measure.cli.without_pandas import without_pandas
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import exporters

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

_ENDINGS = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


@click.command(
    epilog="\b\n"
    "Examples:\n"
    '  llm-energy-measure results sql "select model_name, sum(total_energy_j) from experiments group by 1"\n'
    "  llm-energy-measure results sql \"select * from processes where host = 'node-1'\" --to table.parquet"
)
@click.argument("query")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="Form of the answer. [default: by FILE's name, else table]",
)
@click.option(
    "--to", "target", metavar="FILE", type=options.PathName(), help="Write the answer there. [default: stdout]"
)
@click.option(
    "--dataset",
    metavar="FOLDER",
    type=options.PathName(),
    help="A dataset of 'results export', as it is. [default: one kept up to date]",
)
@options.shared_options
def sql(*, query: str, form: str | None, target: str | None, dataset: str | None) -> None:
    """Run one SELECT of DuckDB's SQL over all aggregated experiments.

    The tables are experiments, processes and findings; "describe experiments" names the columns. Stamps are in UTC. A
    query can't write and can't reach any other file. Needs the extra analytics.
    """
    with without_pandas():
        _answer(query, form=form, target=target, dataset=dataset)


def _answer(query: str, *, form: str | None, target: str | None, dataset: str | None) -> None:
    problems: list[str] = []
    chosen = _form(form, target)
    if dataset is None:
        repository = options.repository()
        dataset = str(dataset_path(repository.base_path))
        problems = write_dataset(repository, dataset, warn=terminal.warn).problems
    elif not any((Path(dataset) / table).is_dir() for table in TABLES):
        found = f"there is no dataset in {dataset}"
        raise ConfigurationError("cannot run the query", found, "write one with 'results export --format parquet'")
    for problem in problems:
        terminal.warn(f"left out: {problem}")
    _print(query_dataset(dataset, query), chosen, target)
    if problems:
        raise SystemExit(1)


def _form(form: str | None, target: str | None) -> str:
    if form is None:
        form = "table" if target is None else options.format_of(target, _ENDINGS)
    if target is None and form == "parquet":
        raise click.UsageError("Parquet is no text: name a file with --to.")
    return form if form != "table" or target is None else "csv"


def _print(answer: pa.Table, form: str, target: str | None) -> None:
    names: list[str] = answer.column_names
    if form == "table":
        sides = ["right" if _is_number(field.type) else "left" for field in answer.schema]
        rows = ([_cell(value) for value in row] for row in _rows(answer))
        terminal.out_table(list(zip(names, sides, strict=True)), rows)
        terminal.note(terminal.plural(answer.num_rows, "row"))
        return
    data = _bytes(answer, form)
    if target is None:
        terminal.out_bytes(data)
    else:
        path = exporters.write_export(target, data)
        terminal.note(f"{terminal.plural(answer.num_rows, 'row')} written to {path}")


def _bytes(answer: pa.Table, form: str) -> bytes:
    names: list[str] = answer.column_names
    if form == "csv":
        return exporters.csv_bytes(names, ([_flat(value) for value in row] for row in _rows(answer)))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        doing, found = f"cannot write the answer as {form}", f"several of its columns are named {twice[0]!r}"
        raise ConfigurationError(doing, found, "name them apart: select a as x, b as y")
    if form == "parquet":
        return _parquet(answer)
    return exporters.json_bytes([dict(zip(names, row, strict=True)) for row in _rows(answer)])


def _parquet(answer: pa.Table) -> bytes:
    from pyarrow import ArrowException, BufferOutputStream, parquet

    sink = BufferOutputStream()
    try:
        parquet.write_table(answer, sink)
    except ArrowException as error:
        doing = "cannot write the answer as parquet"
        raise ConfigurationError(doing, str(error), "cast the column to another type") from error
    return bytes(sink.getvalue())


def _rows(answer: pa.Table) -> Iterator[tuple[Any, ...]]:
    """The rows, in what JSON has a form for: whole numbers of any size, objects for maps, spans of time as text."""
    from pyarrow import types

    def values(column: pa.ChunkedArray) -> list[Any]:
        found: list[Any] = column.to_pylist()
        kind = column.type
        if types.is_nested(kind) or types.is_decimal(kind) or types.is_interval(kind):
            return [_plain(value, kind) for value in found]
        return found  # texts above all, of which there are many

    return zip(*map(values, answer.columns), strict=True)


def _plain(value: Any, kind: pa.DataType) -> Any:
    from pyarrow import types

    plain = value
    if value is None:
        pass
    elif types.is_decimal(kind):  # what a sum of whole numbers is
        plain = int(value) if kind.scale == 0 else float(value)
    elif types.is_interval(kind):
        plain = _span(*value)
    elif types.is_map(kind):
        is_nested = types.is_nested(kind.key_type)
        plain = {str(key) if is_nested else key: _plain(item, kind.item_type) for key, item in value}
    elif types.is_struct(kind):
        plain = {field.name: _plain(value[field.name], field.type) for field in kind}
    elif types.is_list(kind) or types.is_fixed_size_list(kind):
        plain = [_plain(item, kind.value_type) for item in value]
    return plain


def _span(months: int, days: int, nanoseconds: int) -> str:
    """A span of time, as ISO 8601 has it; a part below 0 has its own sign."""
    date = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    seconds = f"{nanoseconds / 1e9:.9f}".rstrip("0").rstrip(".")
    return f"P{date}T{seconds}S" if nanoseconds or not date else f"P{date}"


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _flat(value: object) -> object:
    """What stands in a cell of CSV: several values as JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def _cell(value: object) -> str:
    if value is None:
        return terminal.UNKNOWN
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or terminal.UNKNOWN
    if isinstance(value, dict):
        return ", ".join(f"{key}={_cell(item)}" for key, item in value.items()) or terminal.UNKNOWN
    return f"{value:.6g}" if isinstance(value, float) else str(value)
