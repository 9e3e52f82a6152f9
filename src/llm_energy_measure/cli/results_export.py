"""`llm-energy-measure results export`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import click

from llm_energy_measure.catalogue.export_table import FACT_COLUMNS, exported_table, fact_values, select_columns
from llm_energy_measure.catalogue.reader import paused_collector
from llm_energy_measure.catalogue.summary import ExperimentSummary, summarize
from llm_energy_measure.cli import energies, formatting, options, selection, terminal
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.domain.units import ENERGY_UNITS
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.results import exporters
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, has_codecarbon_row
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.layout import process_file

_MAX_NAMED = 10
_DOCUMENTS = {".tex": "latex", ".md": "markdown"}
_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", **_DOCUMENTS}


@click.command(
    epilog=options.examples(
        "results export --to table.csv",
        "results export --to table.csv --columns id,config.batch_size,attributed_joules_per_token",
        "results export exp_7 --raw --to - --format json",
        "results export --to dataset --format parquet",
        "results export --aggregate --to paper.tex --columns model,config.batch_size,energy,verdict",
    ),
)
@selection.selection_options
@click.option(
    "--to", "target", metavar="FILE|-", required=True, type=options.PathName(), help="Write to FILE, or to stdout (-)."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "jsonl", "latex", "markdown", "parquet", "codecarbon"]),
    help="Write this format; codecarbon has one row per process, as in emissions.csv. [default: by suffix, else csv]",
)
@click.option(
    "--columns",
    metavar="NAME,...",
    type=options.Text(),
    help="Write only these columns; config.KEY is a configuration key, or the end of a key after a dot; tag.KEY is a "
    "tag.",
)
@click.option("--raw", is_flag=True, help="Write one row per process instead of one row per experiment.")
@click.option("--aggregate", "with_aggregation", is_flag=True, help="Aggregate pending and stale experiments first.")
@click.option("--per-process", is_flag=True, help="Add columns process_<i>_... to the row of each experiment.")
@click.option(
    "--unit",
    type=click.Choice(list(ENERGY_UNITS)),
    help="Unit of energies and energies per token in LaTeX and Markdown.",
)
@click.option(
    "--energy",
    "kind",
    type=click.Choice(["attributed", "plain"]),
    default="attributed",
    show_default=True,
    help="Show this energy in LaTeX and Markdown; the other formats have both.",
)
@options.shared_options
@paused_collector()
def export(
    *,
    ids: tuple[str, ...],
    where: str | None,
    target: str,
    form: str | None,
    columns: str | None,
    raw: bool,
    with_aggregation: bool,
    per_process: bool,
    unit: str | None,
    kind: energies.EnergyKind,
) -> None:
    """Write a table of experiments, with values in base units.

    Without ids and --where, the table has all aggregated experiments; with --raw, it has all experiments. Unreadable
    files are reported and left out. The exit status is 1 if a file is unreadable or an aggregate is stale. An empty
    table never replaces a file. If each row is an experiment, the table has a column config.KEY for each key of the
    configurations.

    LaTeX (.tex, for the package booktabs) and Markdown (.md) are tables for documents. These tables have a few default
    columns or the columns of --columns, one unit per column, and marks for energies that are corrected or are bounds.

    With the format parquet, the command writes a dataset of all aggregated experiments into a folder: the tables
    experiments, processes and findings, with one file per month. Files of unchanged months are not rewritten. This
    format needs the package pyarrow.
    """
    form = form or options.format_of(target, _FORMATS)
    if form == "parquet":
        if ids or where or raw or per_process or with_aggregation or target == "-":
            wrong = "omit ids, --where, --aggregate, --raw and --per-process."
            raise click.UsageError(
                f"--format parquet exports all experiments to a folder: use --to FOLDER, and {wrong}"
            )
        _write_dataset(target)
        return
    if unit is not None and form not in _DOCUMENTS.values():
        raise click.UsageError(f"--unit is for LaTeX and Markdown; the format {form} has base units.")
    raw = raw or form == "codecarbon"
    _require_one_kind_of_row(form, raw=raw, per_process=per_process)
    repository = options.repository()
    options.require_safe_target(repository, target)
    names = selection.selected(repository, ids, where, with_pending=raw, must_exist=False)
    failed = with_aggregation and not _aggregate(repository, names or None)
    words = options.names_of(columns)
    found = _found(repository, names, form, raw=raw, per_process=per_process)
    with options.usage_errors("--columns"):
        if form in _DOCUMENTS.values():
            number, data = len(found.summaries), _document(found, words, form, kind, unit)
        else:
            table = select_columns(found.table, words, found.summaries) if words else found.table
            rows = list(table.rows)
            number, data = len(rows), _encoded(exporters.Table(names=table.names, rows=rows), form)
    failed = failed or found.failed
    if not number and (failed or target != "-"):
        if not failed:
            _print_no_results(repository)
        raise SystemExit(1)
    terminal.write_or_print(data, target, content=formatting.plural(number, "row"))
    if failed:
        raise SystemExit(1)


def _require_one_kind_of_row(form: str, *, raw: bool, per_process: bool) -> None:
    """Raise `click.UsageError` for options that select different rows."""
    if raw and form in _DOCUMENTS.values():
        raise click.UsageError("LaTeX and Markdown have one row per experiment; omit --raw.")
    if raw and per_process:
        raise click.UsageError("--raw and --format codecarbon have one row per process; omit --per-process.")


def _found(
    repository: FileSystemRepository, names: Sequence[str], form: str, *, raw: bool, per_process: bool
) -> _Found:
    """Return the table with all columns, and one row per experiment or per process."""
    if raw:
        table, failed = _raw_table(repository, names, form)
        return _Found(table, [], failed)
    if per_process:
        return _loaded_table(repository, names or repository.list_aggregated(), per_process=True)
    return _catalogued_table(repository, names or None)


def _encoded(table: exporters.Table, form: str) -> bytes:
    encode = {"csv": exporters.to_csv, "json": exporters.to_json, "jsonl": exporters.to_json_lines}.get(form)
    return (encode or exporters.to_csv)(table)


def _aggregate(repository: FileSystemRepository, names: Sequence[str] | None) -> bool:
    """Aggregate pending and stale experiments; None selects all. Return False if an experiment failed."""
    # Other exports do not need this import.
    from llm_energy_measure.results.batch.bulk import aggregate_all

    errors = [outcome.error for outcome in aggregate_all(repository, names) if outcome.error is not None]
    for error in errors[:_MAX_NAMED]:
        terminal.error(error)
    if len(errors) > _MAX_NAMED:
        more = formatting.plural(len(errors) - _MAX_NAMED, "more experiment")
        terminal.error(f"{more} failed; 'llm-energy-measure -v aggregate --all' prints each reason")
    return not errors


def _raw_table(repository: FileSystemRepository, ids: Sequence[str], form: str) -> tuple[exporters.Table, bool]:
    """Return a table with one row per process, and True if a result was left out."""
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


class _Found(NamedTuple):
    """The table to export.

    Attributes:
        table: One row per experiment, or per process.
        summaries: The experiments in the order of the rows. Empty for rows per process.
        failed: True if a result cannot be read, or if an aggregate is stale.
    """

    table: exporters.Table
    summaries: list[ExperimentSummary]
    failed: bool


def _loaded_table(repository: FileSystemRepository, names: Sequence[str], *, per_process: bool = False) -> _Found:
    """Return one row per aggregate. Read the files of the aggregates, not the catalogue."""
    results: list[AggregatedResult] = []
    summaries = []
    failed = False
    for name in names:
        try:
            options.require_known(repository, name)
            results.append(_aggregated(repository, name))
            summaries.append(summarize(repository, repository.folder_of(name)))
        except LLMEnergyMeasureError as error:
            terminal.error(error)
            failed = True
    failed = _warn_of_stale(summaries) or failed
    table = exporters.table_of(results, include_process_breakdown=per_process, kind=AggregatedResult)
    number = len(AGGREGATED_COLUMNS)
    rows = [
        [*row[:number], *fact_values(summary), *row[number:]]
        for row, summary in zip(table.rows, summaries, strict=True)
    ]
    names = [*table.names[:number], *FACT_COLUMNS, *table.names[number:]]
    return _Found(exporters.Table(names=names, rows=rows), summaries, failed)


def _catalogued_table(repository: FileSystemRepository, names: Sequence[str] | None) -> _Found:
    """Return the result of `_loaded_table` from the catalogue, in a tenth of the time. None selects all experiments."""
    # Exports per process do not need this import.
    from llm_energy_measure.catalogue.index import query_catalogue

    try:
        folders = None if names is None else [repository.folder_of(name) for name in names]
    except LLMEnergyMeasureError:  # `_loaded_table` reports the invalid id
        return _loaded_table(repository, names or ())
    exported = query_catalogue(
        repository, lambda catalogue: list(catalogue.exported(folders)), full=True, ids=folders, warn=terminal.warn
    )
    is_complete = names is None or len(exported) == len(names)
    if not is_complete or any(one.values is None for one in exported):
        # An aggregate is absent, unreadable, or has integers that the catalogue cannot store.
        return _loaded_table(repository, repository.list_aggregated() if names is None else names)
    summaries = [one.summary for one in exported]
    return _Found(exported_table(exported), summaries, _warn_of_stale(summaries))


def _warn_of_stale(summaries: Sequence[ExperimentSummary]) -> bool:
    """Warn about stale aggregates. Return True if there is a stale aggregate."""
    stale = [row.experiment_id for row in summaries if row.status == "stale"]
    for name in stale[:_MAX_NAMED]:
        advice = f"run 'llm-energy-measure aggregate {name}'"
        found = "raw files were added, changed or removed after its aggregation"
        terminal.warn(f"{name} is stale: {found}; {advice}", fails=True)
    if len(stale) > _MAX_NAMED:
        more = formatting.plural(len(stale) - _MAX_NAMED, "more experiment")
        terminal.warn(f"{more} are stale; --aggregate aggregates them first", fails=True)
    return bool(stale)


def _document(found: _Found, words: Sequence[str], form: str, kind: energies.EnergyKind, unit: str | None) -> bytes:
    """Return the table as LaTeX or Markdown. The column `energy` has the attributed or the plain energy, by `kind`."""
    # Other formats do not need this import.
    from llm_energy_measure.analysis import documents

    table = select_columns(found.table, documents.column_names(words) if words else documents.COLUMNS, found.summaries)
    document = documents.document_of(table, found.summaries, energy=kind, unit=unit)
    return document.encoded("latex" if form == "latex" else "markdown")


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
    """Return the readable raw results, and True if all raw results are readable."""
    recovery = repository.recover_raw(name)
    for file in recovery.unreadable:
        terminal.warn(f"{name}/{file.name} is unreadable and left out: {file.reason}", fails=True)
    return recovery.results, not recovery.unreadable


def _has_row(result: AggregatedResult | RawProcessResult) -> bool:
    """Return True if a result has the values that a row of CodeCarbon requires. Warn otherwise."""
    if isinstance(result, RawProcessResult) and not has_codecarbon_row(result):
        name = f"{result.experiment_id}/{process_file(result.process_index)}"
        problem = "its end or its duration is unknown, and CodeCarbon requires both"
        terminal.warn(f"{name} is left out: {problem}; use --raw --format csv to export it", fails=True)
        return False
    return True


def _aggregated(repository: FileSystemRepository, name: str) -> AggregatedResult:
    """Return the aggregate of an experiment. Raise an error if the aggregate is absent or unreadable."""
    result = repository.load_aggregated(name)
    if result is None:
        raise options.not_aggregated(name, "use --raw to export its processes")
    return result
