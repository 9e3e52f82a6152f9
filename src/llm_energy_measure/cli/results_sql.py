"""`llm-energy-measure results sql`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llm_energy_measure.catalogue.dataset import write_dataset
from llm_energy_measure.catalogue.place import dataset_path
from llm_energy_measure.catalogue.sql import query_dataset
from llm_energy_measure.cli import options, terminal
from llm_energy_measure.results import exporters

if TYPE_CHECKING:
    import pyarrow as pa


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
    help="[default: by FILE's name, else table]",
)
@click.option("--to", "target", metavar="FILE", help="Write the answer there. [default: stdout]")
@click.option(
    "--dataset", metavar="FOLDER", help="A dataset of 'results export', as it is. [default: one kept up to date]"
)
@options.results_dir_option
def sql(*, query: str, form: str | None, target: str | None, dataset: str | None) -> None:
    """Run one SELECT of DuckDB's SQL over all aggregated experiments.

    The tables are experiments, processes and findings; "describe experiments" names the columns. A query can't write
    and can't reach any other file. Needs the extra analytics.
    """
    problems: list[str] = []
    if dataset is None:
        repository = options.repository()
        dataset = str(dataset_path(repository.base_path))
        problems = write_dataset(repository, dataset, say=terminal.warn).problems
    for problem in problems:
        terminal.warn(f"left out: {problem}")
    _print(query_dataset(dataset, query), _form(form, target), target)
    if problems:
        raise SystemExit(1)


def _form(form: str | None, target: str | None) -> str:
    ending = Path(target or "").suffix.lower().removeprefix(".")
    if form is None:
        form = ending if ending in ("csv", "json", "parquet") else "table"
    if target is None and form == "parquet":
        raise click.UsageError("Parquet is no text: name a file with --to.")
    return form if form != "table" or target is None else "csv"


def _print(answer: pa.Table, form: str, target: str | None) -> None:
    names: list[str] = answer.column_names
    if form == "table":
        sides = ["right" if _is_number(field.type) else "left" for field in answer.schema]
        rows = ([_cell(value) for value in row] for row in zip(*_columns(answer), strict=True))
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
    if form == "parquet":
        from pyarrow import BufferOutputStream, parquet  # noqa: PLC0415 - heavy, and an extra

        sink = BufferOutputStream()
        parquet.write_table(answer, sink)
        return bytes(sink.getvalue())
    rows = zip(*_columns(answer), strict=True)
    if form == "csv":
        return exporters.csv_bytes(answer.column_names, rows)
    return exporters.json_bytes([dict(zip(answer.column_names, row, strict=True)) for row in rows])


def _columns(answer: pa.Table) -> list[list[Any]]:
    return [column.to_pylist() for column in answer.columns]


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types  # noqa: PLC0415 - heavy, and an extra

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _cell(value: object) -> str:
    if value is None:
        return terminal.UNKNOWN
    return f"{value:.6g}" if isinstance(value, float) else str(value)
