"""`llm-energy-measure results show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from llm_energy_measure.catalogue.summary import ExperimentSummary, summarize
from llm_energy_measure.cli import options, terminal
from llm_energy_measure.cli.results_verify import attributed_for_person
from llm_energy_measure.exceptions import ResultNotFoundError
from llm_energy_measure.results import columns
from llm_energy_measure.results.aggregation import calculate_efficiency_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
    from llm_energy_measure.results.repository import FileSystemRepository

_PROCESS_HEADERS = (
    ("process", "right"),
    ("host", "left"),
    ("GPU", "left"),
    ("energy", "right"),
    ("GPU energy", "right"),
    ("CPU energy", "right"),
    ("tokens", "right"),
    ("tokens/s", "right"),
    ("time", "right"),
    ("started", "left"),
)


@click.command(epilog=("\b\nExamples:\n  llm-energy-measure results show exp_7 --raw"))
@options.experiment_id
@click.option("--raw", is_flag=True, help="Each process; with --json its file's own fields.")
@click.option(
    "--attempt",
    metavar="N",
    type=click.IntRange(min=0),
    help="The processes of an earlier attempt, which a later set aside.",
)
@options.json_option
@options.shared_options
def show(*, experiment: str, raw: bool, attempt: int | None, as_json: bool) -> None:
    """Show one experiment: its aggregate, or with --raw each process.

    With --json the fields of the stored files themselves. The exit status is 1 if a file of it can't be read.
    """
    repository = options.repository()
    if attempt is not None:
        _show_attempt(repository, experiment, attempt, raw=raw, as_json=as_json)
        return
    options.require_known(repository, experiment)
    # By the folder's name from here on: asking for another experiment's folder was refused above or is here.
    recovery = repository.recover_raw(experiment)
    row = summarize(repository, repository.folder_of(experiment))
    for problem in row.problems:
        terminal.warn(problem)
    if raw:
        _print_processes(recovery.results, as_json=as_json)
    elif as_json:
        _print_json(repository, experiment)
    else:
        _print_summary(row, repository, experiment, recovery.results)
    if row.problems:
        raise SystemExit(1)


def _show_attempt(repository: FileSystemRepository, experiment: str, attempt: int, *, raw: bool, as_json: bool) -> None:
    attempts = repository.list_attempts(experiment)
    if attempt not in attempts:
        found = f"kept are {', '.join(map(str, attempts))}" if attempts else "no earlier one is kept"
        doing = f"attempt {attempt} of {experiment!r} not found"
        raise ResultNotFoundError(doing, found, "leave --attempt out for the current one")
    recovery = repository.recover_raw(experiment, attempt=attempt)
    for file in recovery.unreadable:
        terminal.warn(f"{experiment}, attempt {attempt}: {file.name}: {file.reason}")
    if raw or as_json:
        _print_processes(recovery.results, as_json=as_json)
    else:
        _print_table(recovery.results)
    if recovery.unreadable:
        raise SystemExit(1)


def _print_processes(raw_results: Sequence[RawProcessResult], *, as_json: bool) -> None:
    if as_json:
        stored = [result.stored.data for result in raw_results if result.stored is not None]
        terminal.out_json([msgspec.Raw(data.removeprefix(b"\xef\xbb\xbf").strip()) for data in stored])
        return
    for result in raw_results:
        _print_raw(result)


def _print_table(raw_results: Sequence[RawProcessResult]) -> None:
    terminal.out_table(_PROCESS_HEADERS, map(_cells, raw_results), optional=("started", "time", "host", "GPU"))


def _print_json(repository: FileSystemRepository, experiment: str) -> None:
    data = repository.read_aggregated(experiment)
    if data is None:
        advice = f"'aggregate {experiment}' aggregates it, --raw shows its processes"
        raise ResultNotFoundError(f"aggregate of {experiment!r} not found", "it is not aggregated yet", advice)
    terminal.out_json_text(data)


def _print_raw(result: RawProcessResult) -> None:
    terminal.out(f"process {result.process_index}")
    fields = [
        (f"  {column.name}", _for_person(column.getter(result), column.unit))
        for column in columns.RAW_COLUMNS
        if column.name not in ("experiment_id", "process_index") and column.getter(result) is not None
    ]
    terminal.out_fields(fields)


def _print_summary(
    row: ExperimentSummary, repository: FileSystemRepository, experiment: str, raw_results: Sequence[RawProcessResult]
) -> None:
    aggregated = repository.load_aggregated(experiment) if row.status not in ("pending", "unreadable") else None
    terminal.out_fields(_summary(row, aggregated))
    processes = raw_results or (aggregated.process_results if aggregated is not None else [])
    if processes:
        terminal.out("")
        _print_table(processes)
    if attempts := repository.list_attempts(experiment):
        terminal.note(f"earlier attempts are kept: {', '.join(map(str, attempts))}; --attempt N shows one")
    if row.status == "pending":
        terminal.note(f"not aggregated yet: 'aggregate {experiment}' does it")
    elif row.status == "stale" and not repository.has_raw(experiment):
        terminal.note(
            f"its raw files are gone: this is all that is left of it; 'results delete {experiment}' removes it"
        )
    elif row.status == "stale":
        terminal.note(f"raw files came or changed since: 'aggregate {experiment}' makes it anew")


def _summary(row: ExperimentSummary, aggregated: AggregatedResult | None) -> list[tuple[str, str]]:
    """What a person wants to know of an experiment first."""
    fields = [
        ("experiment", row.experiment_id),
        ("verdict", row.verdict),
        ("model", row.model_name or terminal.UNKNOWN),
        ("backend", row.backend or terminal.UNKNOWN),
        ("processes", f"{_number(row.found_processes)} of {_number(row.expected_processes)}"),
    ]
    said = [(f"tag {name}", value) for name, value in sorted(row.tags.items())]
    if row.note is not None:
        said.append(("note", row.note))
    if aggregated is None:
        return fields + said
    efficiency = calculate_efficiency_metrics(aggregated)
    bound = "at least " if row.is_lower_bound else ""
    fields += [
        ("energy", terminal.energy(aggregated.total_energy_j, at_least=bound)),
        *_attributed(aggregated),
        ("tokens", terminal.count(aggregated.total_tokens)),
        ("energy per token", terminal.quantity(aggregated.avg_energy_per_token_j, "J/token")),
        ("tokens per joule", terminal.quantity(aggregated.tokens_per_joule)),
        ("throughput", terminal.quantity(aggregated.avg_tokens_per_second, "token/s") + " (mean of a process)"),
        ("all processes", terminal.quantity(_known(efficiency["effective_batch_throughput"]), "token/s")),
        ("FLOPs", terminal.quantity(aggregated.total_flops, "FLOP")),
        ("from", terminal.moment(aggregated.start_time)),
        ("to", terminal.moment(aggregated.end_time)),
        ("aggregated by", aggregated.aggregation.method),
        ("energy is", _provenance(aggregated)),
    ]
    latency = aggregated.latency_stats
    if latency is not None:
        fields += [
            ("TTFT median, p99", _pair(latency.ttft_median_ms, latency.ttft_p99_ms)),
            ("ITL median, p99", _pair(latency.itl_median_ms, latency.itl_p99_ms)),
        ]
    fields += [("warning", warning) for warning in aggregated.aggregation.warnings]
    if row.failed:
        fields.append(("checks failed", f"{', '.join(row.failed)} ('results verify' explains)"))
    return fields + said


def _attributed(aggregated: AggregatedResult) -> list[tuple[str, str]]:
    """The plain sum, if the strategy's total is another; and the attributed total, if it says more than its total."""
    energy_j, bounds_j = aggregated.attributed_energy_j, aggregated.attributed_bounds_j
    plain_j = aggregated.plain_energy_j
    fields = []
    if plain_j is not None and plain_j != aggregated.total_energy_j:
        fields.append(("plain sum", terminal.quantity(plain_j, "J")))
    if bounds_j is not None and bounds_j != (aggregated.total_energy_j, aggregated.total_energy_j):
        fields.append(("attributed", attributed_for_person(energy_j, bounds_j, aggregated.attribution_factor)))
    return fields


def _number(value: int | None) -> str:
    return terminal.UNKNOWN if value is None else str(value)


def _provenance(aggregated: AggregatedResult) -> str:
    """Where the processes' totals come from and what the sensors saw: `modelled (scope process)`."""
    energies = [process.energy_metrics for process in aggregated.process_results]
    facts = {f"{e.total_provenance or 'of unknown origin'} (scope {e.total_scope or 'unknown'})" for e in energies}
    text = "; ".join(sorted(facts)) or terminal.UNKNOWN
    modelled = [finding.message for finding in aggregated.findings or () if finding.code == "provenance.modelled"]
    return f"{text}; {modelled[0]}" if modelled else text


def _pair(median_ms: float | None, p99_ms: float | None) -> str:
    return ", ".join("-" if value is None else f"{value:.4g} ms" for value in (median_ms, p99_ms))


def _known(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124 - NaN is the one number that differs from itself


def _cells(result: RawProcessResult) -> tuple[str, ...]:
    energy, work = result.energy_metrics, result.inference_metrics
    gpu = result.gpu_name or terminal.UNKNOWN
    return (
        str(result.process_index),
        result.host or terminal.UNKNOWN,
        gpu if result.gpu_id is None else f"{result.gpu_id}: {gpu}",
        terminal.quantity(energy.total_energy_j, "J"),
        terminal.quantity(energy.gpu_energy_j, "J"),
        terminal.quantity(energy.cpu_energy_j, "J"),
        terminal.count(work.total_tokens if work else None),
        terminal.quantity(work.tokens_per_second if work else None),
        terminal.quantity(work.inference_time_sec if work else None, "s"),
        terminal.moment(result.timestamps.start),
    )


def _for_person(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g} {unit}".rstrip()
    if isinstance(value, int):
        return f"{value} {unit}".rstrip()
    return _stamp(value) if hasattr(value, "isoformat") else str(value)


def _stamp(value: datetime) -> str:
    return value.isoformat()
