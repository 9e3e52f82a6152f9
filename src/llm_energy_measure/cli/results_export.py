"""`llm-energy-measure results export`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from llm_energy_measure.catalogue.query import ALIASES, full_key, is_config
from llm_energy_measure.cli import formatting, options, selection, terminal
from llm_energy_measure.domain.configuration import PREFIX
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.exceptions import ConfigurationError, LLMEnergyMeasureError
from llm_energy_measure.results import exporters
from llm_energy_measure.results.batch.state import source_changes
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, has_codecarbon_row
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.layout import process_file

_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@click.command(
    epilog=options.examples(
        "results export --to table.csv",
        "results export --to table.csv --columns id,config.batch_size,attributed_joules_per_token",
        "results export exp_7 --raw --to - --format json",
        "results export --to dataset --format parquet",
    ),
)
@selection.selection_options
@click.option(
    "--to", "target", metavar="FILE|-", required=True, type=options.PathName(), help="Write to FILE, or to stdout (-)."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "jsonl", "parquet", "codecarbon"]),
    help="Write this format; codecarbon has one row per process, as in emissions.csv. [default: by suffix, else csv]",
)
@click.option(
    "--columns",
    metavar="NAME,...",
    type=options.Text(),
    help="Write only these columns; config.KEY is a configuration key, or its end after a dot.",
)
@click.option("--raw", is_flag=True, help="Write one row per process instead of one row per experiment.")
@click.option("--per-process", is_flag=True, help="Add columns process_<i>_... to the row of each experiment.")
@options.shared_options
def export(
    *,
    ids: tuple[str, ...],
    where: str | None,
    target: str,
    form: str | None,
    columns: str | None,
    raw: bool,
    per_process: bool,
) -> None:
    """Write a table of experiments, with values in base units.

    Without ids, the table has all aggregated experiments, or with --raw all experiments. Unreadable files are reported
    and left out, and the exit status is then 1. An empty table never replaces a file. A row per experiment has a column
    config.KEY for each key of the configurations.

    The format parquet writes a folder, a dataset of all aggregated experiments: the tables experiments, processes and
    findings, with one file per month. Files of unchanged months are not rewritten. It needs the package pyarrow.
    """
    if form == "parquet":
        if ids or where or raw or per_process or target == "-":
            message = "--format parquet exports all experiments to a folder: use --to FOLDER, and neither ids, --where,"
            raise click.UsageError(f"{message} --raw nor --per-process.")
        _write_dataset(target)
        return
    form = form or options.format_of(target, _FORMATS)
    raw = raw or form == "codecarbon"
    if raw and per_process:
        raise click.UsageError("--raw and --format codecarbon have one row per process; omit --per-process.")
    repository = options.repository()
    options.require_safe_target(repository, target)
    names = selection.selected(repository, ids, where, with_pending=raw, must_exist=False)
    if raw:
        table, failed = _raw_table(repository, names, form)
    elif names or per_process:
        table, failed = _loaded_table(repository, names or repository.list_aggregated(), per_process=per_process)
    else:
        table, failed = _catalogued_table(repository)
    if columns is not None:
        with options.usage_errors("--columns"):
            table = _selected(table, columns)
    rows = list(table.rows)
    if not rows and (failed or target != "-"):
        if not failed:
            _print_no_results(repository)
        raise SystemExit(1)
    encode = {"csv": exporters.to_csv, "json": exporters.to_json, "jsonl": exporters.to_json_lines}.get(form)
    data = (encode or exporters.to_csv)(exporters.Table(names=table.names, rows=rows))
    terminal.write_or_print(data, target, content=formatting.plural(len(rows), "row"))
    if failed:
        raise SystemExit(1)


def _raw_table(repository: FileSystemRepository, ids: Sequence[str], form: str) -> tuple[exporters.Table, bool]:
    """Return one row per process, and True if a result was left out."""
    results: list[RawProcessResult] = []
    failed = False
    for name in ids or repository.list_experiments():
        try:
            options.require_known(repository, name)
            found, is_complete = _raw(repository, name)
        except LLMEnergyMeasureError as error:
            terminal.error(error)
            failed = True
        else:
            rows = [result for result in found if form != "codecarbon" or _has_row(result)]
            results += rows
            failed = failed or not is_complete or len(rows) < len(found)
    if form == "codecarbon":
        return exporters.codecarbon_table(results), failed
    return exporters.table_of(results, kind=RawProcessResult), failed


def _loaded_table(
    repository: FileSystemRepository, names: Sequence[str], *, per_process: bool = False
) -> tuple[exporters.Table, bool]:
    """Return one row per aggregate, and True if one cannot be read."""
    results: list[AggregatedResult] = []
    failed = False
    for name in names:
        try:
            options.require_known(repository, name)
            results.append(_aggregated(repository, name))
        except LLMEnergyMeasureError as error:
            terminal.error(error)
            failed = True
    return exporters.table_of(results, include_process_breakdown=per_process, kind=AggregatedResult), failed


def _catalogued_table(repository: FileSystemRepository) -> tuple[exporters.Table, bool]:
    """Return `_loaded_table` of all aggregates, from the catalogue: this takes a tenth of the time."""
    # Exports of chosen experiments do not need these imports.
    from llm_energy_measure.catalogue.index import query_catalogue
    from llm_energy_measure.catalogue.reader import paused_collector

    with paused_collector():
        exported = query_catalogue(
            repository, lambda catalogue: list(catalogue.exported()), full=True, warn=terminal.warn
        )
    if any(one.values is None for one in exported):  # unreadable, or with integers that the catalogue cannot store
        return _loaded_table(repository, repository.list_aggregated())
    for one in exported:
        if one.summary.status == "stale":
            _warn_stale(one.summary.experiment_id)
    merged = {
        (id(one.configuration.settings), id(one.configuration.others)): {
            **one.configuration.settings,
            **one.configuration.others,
        }
        for one in exported
    }
    configurations = [merged[id(one.configuration.settings), id(one.configuration.others)] for one in exported]
    names = [column.name for column in AGGREGATED_COLUMNS]
    rows = [one.values for one in exported if one.values is not None]
    return exporters.with_configuration(exporters.Table(names=names, rows=rows), configurations), False


def _selected(table: exporters.Table, columns: str) -> exporters.Table:
    """Return the table with the columns of a comma-separated list."""
    keys = {name.removeprefix(PREFIX) for name in table.names if name.startswith(PREFIX)}
    doing, names = "cannot select columns", []
    for word in dict.fromkeys(part.strip() for part in columns.split(",")):
        name = PREFIX + full_key(word, keys, doing) if is_config(word) else ALIASES.get(word.lower(), word.lower())
        if name not in table.names:
            raise ConfigurationError(doing, f"the table has no column {word!r}", f"choose of {', '.join(table.names)}")
        names.append(name)
    indices = [list(table.names).index(name) for name in names]
    return exporters.Table(names=names, rows=[[row[index] for index in indices] for row in table.rows])


def _print_no_results(repository: FileSystemRepository) -> None:
    problem = f"no experiment in {repository.base_path} is aggregated"
    terminal.error(f"nothing to export: {problem}; run 'llm-energy-measure aggregate --all'")


def _write_dataset(target: str) -> None:
    # The other formats do not need these imports.
    from llm_energy_measure.catalogue.dataset import write_dataset
    from llm_energy_measure.cli.block_pandas import block_pandas

    repository = options.repository()
    options.require_safe_target(repository, target)
    with block_pandas():
        report = write_dataset(repository, target, warn=terminal.warn)
    if not (report.written or report.unchanged or report.removed):
        _print_no_results(repository)
        raise SystemExit(1)
    for problem in report.problems:
        terminal.warn(f"left out: {problem}", fails=True)
    written, unchanged = formatting.plural(len(report.written), "month"), len(report.unchanged)
    terminal.info(f"{written} written to {target}, {unchanged} unchanged, {len(report.removed)} removed")
    if report.problems:
        raise SystemExit(1)


def _raw(repository: FileSystemRepository, name: str) -> tuple[list[RawProcessResult], bool]:
    """Return the readable raw results, and True if all are readable."""
    recovery = repository.recover_raw(name)
    for file in recovery.unreadable:
        terminal.warn(f"{name}/{file.name} is unreadable and left out: {file.reason}", fails=True)
    return recovery.results, not recovery.unreadable


def _has_row(result: AggregatedResult | RawProcessResult) -> bool:
    """Return True if a result fits in a row of CodeCarbon; warn otherwise."""
    if isinstance(result, RawProcessResult) and not has_codecarbon_row(result):
        name = f"{result.experiment_id}/{process_file(result.process_index)}"
        problem = "its end or its duration is unknown, and CodeCarbon requires both"
        terminal.warn(f"{name} is left out: {problem}; use --raw --format csv to export it", fails=True)
        return False
    return True


def _aggregated(repository: FileSystemRepository, name: str) -> AggregatedResult:
    """Return an aggregate, and warn if it is stale. An unreadable aggregate raises an error."""
    result = repository.load_aggregated(name)
    if result is None:
        raise options.not_aggregated(name, "use --raw to export its processes")
    if source_changes(repository, result):
        _warn_stale(name)
    return result


def _warn_stale(name: str) -> None:
    advice = f"run 'llm-energy-measure aggregate {name}'"
    terminal.warn(f"{name} is stale: raw files were added, changed or removed after its aggregation; {advice}")
