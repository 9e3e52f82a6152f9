"""`llm-energy-measure results export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.exceptions import LLMEnergyMeasureError, ResultNotFoundError
from llm_energy_measure.results import exporters
from llm_energy_measure.results.columns import has_codecarbon_row
from llm_energy_measure.results.store.layout import process_file

if TYPE_CHECKING:
    from llm_energy_measure.results.repository import FileSystemRepository

_ENDINGS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@click.command(
    epilog="\b\n"
    "Examples:\n"
    "  llm-energy-measure results export --to table.csv\n"
    "  llm-energy-measure results export exp_7 --raw --to - --format json\n"
    "  llm-energy-measure results export --to dataset --format parquet"
)
@options.experiment_ids(required=False)
@click.option(
    "--to", "target", metavar="FILE|-", required=True, type=options.PathName(), help="The file, or - for stdout."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "jsonl", "parquet", "codecarbon"]),
    help="codecarbon has a row for each process, as its emissions.csv. [default: by the file's name, else csv]",
)
@click.option("--raw", is_flag=True, help="A row for each process instead of each experiment.")
@click.option("--per-process", is_flag=True, help="Add columns process_<i>_... to each experiment's row.")
@options.shared_options
def export(*, ids: tuple[str, ...], target: str, form: str | None, raw: bool, per_process: bool) -> None:
    """Write a table of experiments, all aggregated ones by default (with --raw all of them).

    Values are in base units. What can't be read is named and left out, and the exit status is then 1; if that leaves
    nothing, no table is written.

    Parquet is a dataset of all aggregated experiments in a folder: experiments, processes and findings, a file a month.
    Only months in which something changed are written again. Needs the extra analytics.
    """
    if form == "parquet":
        if ids or raw or per_process or target == "-":
            raise click.UsageError("Parquet is a folder with all experiments: give --to FOLDER, without IDs and --raw.")
        _write_dataset(target)
        return
    form = form or options.format_of(target, _ENDINGS)
    raw = raw or form == "codecarbon"
    if raw and per_process:
        raise click.UsageError("--raw has a row for each process already; leave out --per-process.")
    repository = options.repository()
    results: list[AggregatedResult | RawProcessResult] = []
    failed = False
    for name in ids or (repository.list_experiments() if raw else repository.list_aggregated()):
        try:
            options.require_known(repository, name)
            more, is_whole = _raw(repository, name) if raw else _aggregated(repository, name)
        except LLMEnergyMeasureError as error:
            terminal.error(error)
            failed = True
        else:
            fitting = [result for result in more if form != "codecarbon" or _has_row(result)]
            results += fitting
            failed = failed or not is_whole or len(fitting) < len(more)
    if not results and (failed or target != "-"):  # an empty table would replace a full one
        if not failed:
            _say_nothing(repository)
        raise SystemExit(1)
    _write(results, target, form=form, raw=raw, per_process=per_process)
    if failed:
        raise SystemExit(1)


def _say_nothing(repository: FileSystemRepository) -> None:
    terminal.error(f"nothing to export: no experiment in {repository.base_path} is aggregated; aggregate first")


def _write_dataset(target: str) -> None:
    from llm_energy_measure.catalogue.dataset import write_dataset
    from llm_energy_measure.cli.without_pandas import without_pandas

    repository = options.repository()
    with without_pandas():
        report = write_dataset(repository, target, warn=terminal.warn)
    if not (report.written or report.unchanged or report.removed):
        _say_nothing(repository)
        raise SystemExit(1)
    for problem in report.problems:
        terminal.warn(f"left out: {problem}")
    written, unchanged = terminal.plural(len(report.written), "month"), len(report.unchanged)
    terminal.note(f"{written} written to {target}, {unchanged} unchanged, {len(report.removed)} removed")
    if report.problems:
        raise SystemExit(1)


def _write(
    results: list[AggregatedResult | RawProcessResult], target: str, *, form: str, raw: bool, per_process: bool
) -> None:
    if form == "codecarbon":
        data = exporters.to_codecarbon([result for result in results if isinstance(result, RawProcessResult)])
    else:
        render = {"csv": exporters.to_csv, "json": exporters.to_json, "jsonl": exporters.to_json_lines}[form]
        kind = RawProcessResult if raw else AggregatedResult
        data = render(results, include_process_breakdown=per_process, kind=kind)
    if target == "-":
        terminal.out_bytes(data)
    else:
        path = exporters.write_export(target, data)
        terminal.note(f"{terminal.plural(len(results), 'row')} written to {path}")


def _raw(repository: FileSystemRepository, name: str) -> tuple[list[RawProcessResult], bool]:
    recovery = repository.recover_raw(name)
    for file in recovery.unreadable:
        terminal.warn(f"{name}/{file.name} is unreadable and left out: {file.reason}")
    return recovery.results, not recovery.unreadable


def _has_row(result: AggregatedResult | RawProcessResult) -> bool:
    """Whether CodeCarbon has a row for a process; where it has none, that is told."""
    if isinstance(result, RawProcessResult) and not has_codecarbon_row(result):
        name = process_file(result.process_index)
        found = "its end or its duration is unknown, and CodeCarbon has no row without"
        terminal.warn(f"{result.experiment_id}/{name} is left out: {found}; --raw --format csv has it")
        return False
    return True


def _aggregated(repository: FileSystemRepository, name: str) -> tuple[list[AggregatedResult], bool]:
    result = repository.load_aggregated(name)
    if result is None:
        advice = f"'aggregate {name}' aggregates it, --raw exports its processes"
        raise ResultNotFoundError(f"aggregate of {name!r} not found", "it is not aggregated yet", advice)
    if repository.source_changes(result):
        terminal.warn(f"{name} is stale: raw files came or changed since it was aggregated")
    return [result], True
