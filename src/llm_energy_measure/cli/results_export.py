"""`llm-energy-measure results export`."""

from __future__ import annotations

import click

from llm_energy_measure.cli import formatting, options, terminal
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.results import exporters
from llm_energy_measure.results.batch.state import source_changes
from llm_energy_measure.results.columns import has_codecarbon_row
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.layout import process_file

_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@click.command(
    epilog=options.examples(
        "results export --to table.csv",
        "results export exp_7 --raw --to - --format json",
        "results export --to dataset --format parquet",
    ),
)
@options.experiment_ids
@click.option(
    "--to", "target", metavar="FILE|-", required=True, type=options.PathName(), help="Write to FILE, or to stdout (-)."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "jsonl", "parquet", "codecarbon"]),
    help="Write this format; codecarbon has one row per process, as in emissions.csv. [default: by suffix, else csv]",
)
@click.option("--raw", is_flag=True, help="Write one row per process instead of one row per experiment.")
@click.option("--per-process", is_flag=True, help="Add columns process_<i>_... to the row of each experiment.")
@options.shared_options
def export(*, ids: tuple[str, ...], target: str, form: str | None, raw: bool, per_process: bool) -> None:
    """Write a table of experiments, with values in base units.

    Without ids, the table has all aggregated experiments, or with --raw all experiments. Unreadable files are reported
    and left out, and the exit status is then 1. An empty table never replaces a file.

    The format parquet writes a folder, a dataset of all aggregated experiments: the tables experiments, processes and
    findings, with one file per month. Files of unchanged months are not rewritten. It needs the package pyarrow.
    """
    if form == "parquet":
        if ids or raw or per_process or target == "-":
            message = "--format parquet exports all experiments to a folder: use --to FOLDER, and neither ids nor"
            raise click.UsageError(f"{message} --raw or --per-process.")
        _write_dataset(target)
        return
    form = form or options.format_of(target, _FORMATS)
    raw = raw or form == "codecarbon"
    if raw and per_process:
        raise click.UsageError("--raw and --format codecarbon have one row per process; omit --per-process.")
    repository = options.repository()
    options.require_safe_target(repository, target)
    results: list[AggregatedResult | RawProcessResult] = []
    failed = False
    for name in ids or (repository.list_experiments() if raw else repository.list_aggregated()):
        try:
            options.require_known(repository, name)
            found, is_complete = _raw(repository, name) if raw else _aggregated(repository, name)
        except LLMEnergyMeasureError as error:
            terminal.error(error)
            failed = True
        else:
            rows = [result for result in found if form != "codecarbon" or _has_row(result)]
            results += rows
            failed = failed or not is_complete or len(rows) < len(found)
    if not results and (failed or target != "-"):
        if not failed:
            _print_no_results(repository)
        raise SystemExit(1)
    _write(results, target, form=form, raw=raw, per_process=per_process)
    if failed:
        raise SystemExit(1)


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
        terminal.warn(f"left out: {problem}")
    written, unchanged = formatting.plural(len(report.written), "month"), len(report.unchanged)
    terminal.info(f"{written} written to {target}, {unchanged} unchanged, {len(report.removed)} removed")
    if report.problems:
        raise SystemExit(1)


def _write(
    results: list[AggregatedResult | RawProcessResult], target: str, *, form: str, raw: bool, per_process: bool
) -> None:
    if form == "codecarbon":
        data = exporters.to_codecarbon([result for result in results if isinstance(result, RawProcessResult)])
    else:
        encode = {"csv": exporters.to_csv, "json": exporters.to_json, "jsonl": exporters.to_json_lines}[form]
        kind = RawProcessResult if raw else AggregatedResult
        data = encode(exporters.table_of(results, include_process_breakdown=per_process, kind=kind))
    terminal.write_or_print(data, target, content=formatting.plural(len(results), "row"))


def _raw(repository: FileSystemRepository, name: str) -> tuple[list[RawProcessResult], bool]:
    """Return the readable raw results, and True if all are readable."""
    recovery = repository.recover_raw(name)
    for file in recovery.unreadable:
        terminal.warn(f"{name}/{file.name} is unreadable and left out: {file.reason}")
    return recovery.results, not recovery.unreadable


def _has_row(result: AggregatedResult | RawProcessResult) -> bool:
    """Return True if a result fits in a row of CodeCarbon; warn otherwise."""
    if isinstance(result, RawProcessResult) and not has_codecarbon_row(result):
        name = f"{result.experiment_id}/{process_file(result.process_index)}"
        problem = "its end or its duration is unknown, and CodeCarbon requires both"
        terminal.warn(f"{name} is left out: {problem}; use --raw --format csv to export it")
        return False
    return True


def _aggregated(repository: FileSystemRepository, name: str) -> tuple[list[AggregatedResult], bool]:
    """Return a list with the aggregate, and True. An unreadable aggregate raises an error."""
    result = repository.load_aggregated(name)
    if result is None:
        raise options.not_aggregated(name, "use --raw to export its processes")
    if source_changes(repository, result):
        advice = f"run 'llm-energy-measure aggregate {name}'"
        terminal.warn(f"{name} is stale: raw files were added, changed or removed after its aggregation; {advice}")
    return [result], True
