"""`llm-energy-measure results show`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import click
import msgspec

from llm_energy_measure.catalogue.summary import ExperimentSummary, summarize
from llm_energy_measure.cli import energies, formatting, options, terminal
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.exceptions import ResultNotFoundError
from llm_energy_measure.results import columns
from llm_energy_measure.results.aggregation import calculate_efficiency_metrics
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.strategies import MEAN_THROUGHPUT, WHOLE_THROUGHPUT

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


class _Shown(NamedTuple):
    """The energies that the options select.

    Attributes:
        kind: `attributed` or `plain`.
        unit: Unit of `--unit`. None chooses a unit for each energy.
    """

    kind: energies.EnergyKind
    unit: str | None

    @property
    def scale(self) -> tuple[float, str] | None:
        """Divisor from joules to the unit of `--unit`, and this unit. None if the user gave no unit."""
        return None if self.unit is None else formatting.energy_scale([], self.unit)

    def joules(self, energy_j: float | None) -> str:
        """Return an energy, given in joules, as text: in the unit of `--unit`, or in J with a prefix."""
        return formatting.quantity(energy_j, "J") if self.scale is None else formatting.scaled(energy_j, self.scale)


@click.command(epilog=options.examples("results show exp_7", "results show exp_7 --raw --json"))
@options.experiment_id
@click.option("--raw", is_flag=True, help="Show all fields of the raw result of each process.")
@click.option(
    "--attempt",
    metavar="N",
    type=options.WholeNumber(min=0),
    help="Show the processes of this earlier attempt. [default: the current attempt]",
)
@click.option("--plot", "with_plot", is_flag=True, help="Draw the power over time, if samples are stored.")
@energies.energy_option
@energies.unit_option
@options.json_option
@options.shared_options
def show(
    *,
    experiment: str,
    raw: bool,
    attempt: int | None,
    with_plot: bool,
    kind: energies.EnergyKind,
    unit: str | None,
    as_json: bool,
) -> None:
    """Show one experiment: its aggregate and its processes.

    --json prints the stored aggregate unchanged, or null if the experiment is not aggregated. --raw --json prints the
    stored raw results. The exit status is 1 if a file of the experiment can't be read.
    """
    if with_plot and (raw or as_json or attempt is not None):
        raise click.UsageError("--plot draws the current attempt: omit --raw, --json and --attempt.")
    repository = options.repository()
    if attempt is not None:
        _show_attempt(repository, experiment, attempt, unit, raw=raw, as_json=as_json)
        return
    options.require_known(repository, experiment)
    # This call raises if the folder belongs to another experiment. The code below can therefore read the folder.
    results, checkpoints = _records(repository, experiment, keeps_bytes=raw)
    row = summarize(repository, repository.folder_of(experiment))
    for problem in row.problems:
        terminal.warn(problem, fails=True)
    if raw:
        _print_raw_results(results, as_json=as_json)
    elif as_json:
        _print_aggregate_json(repository, experiment)
    else:
        _print_summary(row, repository, experiment, results, _Shown(kind, unit), checkpoints=checkpoints)
        if with_plot:
            _print_power(repository, experiment, results)
    if row.problems:
        raise SystemExit(1)


def _print_power(repository: FileSystemRepository, experiment: str, raw_results: Sequence[RawProcessResult]) -> None:
    """Draw the power samples of the processes."""
    # Other uses of this command do not need these imports.
    from llm_energy_measure.cli.plot_output import print_figure
    from llm_energy_measure.reports.power import figure_of_processes

    found = figure_of_processes(repository, experiment, raw_results, with_energy=False)
    if found is None:
        terminal.info(
            f"{experiment} has no power samples; 'llm-energy-measure record --samples' records the samples of a "
            "sensor, and 'llm-energy-measure import FILE --join LOG' stores the samples of a power log"
        )
        return
    terminal.print_line("")
    print_figure(found)


def _records(
    repository: FileSystemRepository, experiment: str, *, keeps_bytes: bool
) -> tuple[list[RawProcessResult], list[RawProcessResult]]:
    """Return the results and the checkpoints of an experiment.

    With `keeps_bytes`, the records reference the bytes of their files, which can be hundreds of megabytes.
    """
    recovery = repository.recover_raw(experiment)
    if keeps_bytes:
        return recovery.results, recovery.partials
    results, checkpoints = (
        [msgspec.structs.replace(one) for one in found] for found in (recovery.results, recovery.partials)
    )
    return results, checkpoints


def _show_attempt(
    repository: FileSystemRepository, experiment: str, attempt: int, unit: str | None, *, raw: bool, as_json: bool
) -> None:
    attempts = repository.list_attempts(experiment)
    if attempt not in attempts:
        found = f"the earlier attempts are {', '.join(map(str, attempts))}" if attempts else "it has no earlier attempt"
        doing = f"attempt {attempt} of {experiment!r} not found"
        raise ResultNotFoundError(doing, found, "omit --attempt to see the current attempt")
    recovery = repository.recover_raw(experiment, attempt=attempt)
    for file in recovery.unreadable:
        terminal.warn(f"{experiment}, attempt {attempt}: {file.name} is unreadable: {file.reason}", fails=True)
    if raw or as_json:
        _print_raw_results(recovery.results, as_json=as_json)
    else:
        _print_process_table(recovery.results, recovery.partials, unit)
    if recovery.unreadable:
        raise SystemExit(1)


def _print_raw_results(raw_results: Sequence[RawProcessResult], *, as_json: bool) -> None:
    if as_json:
        stored = [result.stored.data for result in raw_results if result.stored is not None]
        terminal.print_json([msgspec.Raw(data.removeprefix(b"\xef\xbb\xbf").strip()) for data in stored])
        return
    for result in raw_results:
        terminal.print_line(f"process {result.process_index}")
        terminal.print_fields(
            (f"  {column.name}", formatting.cell(column.getter(result), column.unit))
            for column in columns.RAW_COLUMNS
            if column.name not in ("experiment_id", "process_index") and column.getter(result) is not None
        )


def _print_process_table(
    raw_results: Sequence[RawProcessResult], checkpoints: Sequence[RawProcessResult], unit: str | None
) -> None:
    """Print one row for each process. A lower bound includes the checkpoints of processes without a result."""
    processes = sorted([*raw_results, *checkpoints], key=lambda result: result.process_index)
    unfinished = {result.process_index for result in checkpoints}
    energies_of = [result.energy_metrics for result in processes]
    scales = [
        formatting.energy_scale([getattr(energy, f"{name}_energy_j") for energy in energies_of], unit)
        for name in ("total", "gpu", "cpu")
    ]
    rows = [_cells(result, scales, is_checkpoint=result.process_index in unfinished) for result in processes]
    terminal.print_table(_PROCESS_HEADERS, rows, optional=(9, 8, 1, 2))


def _print_aggregate_json(repository: FileSystemRepository, experiment: str) -> None:
    data = repository.read_aggregated(experiment)
    if data is None:
        terminal.print_json(None)
        terminal.info(f"not aggregated yet; run 'llm-energy-measure aggregate {experiment}'")
        return
    terminal.print_json_text(data)


def _print_summary(
    row: ExperimentSummary,
    repository: FileSystemRepository,
    experiment: str,
    raw_results: Sequence[RawProcessResult],
    shown: _Shown,
    *,
    checkpoints: Sequence[RawProcessResult],
) -> None:
    aggregated = _aggregated(row, repository, experiment, raw_results)
    terminal.print_fields(_summary(row, aggregated, shown))
    if not (raw_results or checkpoints) and aggregated is not None:
        raw_results = aggregated.process_results
    if raw_results or checkpoints:
        terminal.print_line("")
        _print_process_table(raw_results, checkpoints, shown.unit)
    if aggregated is not None:
        energy = energies.energy_of(aggregated, shown.kind)
        energies.print_footnote([] if energy.is_undetermined else [energy])
    if attempts := repository.list_attempts(experiment):
        terminal.info(f"earlier attempts: {', '.join(map(str, attempts))}; use --attempt N to show one")
    run_aggregate = f"run 'llm-energy-measure aggregate {experiment}'"
    if row.status == "pending":
        terminal.info(f"not aggregated yet; {run_aggregate}")
    elif row.status == "stale" and not repository.has_raw(experiment):
        command = f"llm-energy-measure results delete {experiment}"
        terminal.info(f"the raw files are missing, only the aggregate is left; run '{command}' to delete it")
    elif row.status == "stale":
        terminal.info(f"raw files were added, changed or removed after the aggregation; {run_aggregate}")


def _aggregated(
    row: ExperimentSummary, repository: FileSystemRepository, experiment: str, raw_results: Sequence[RawProcessResult]
) -> AggregatedResult | None:
    """Return the aggregate, also if its verdict is `altered`. None if there is no readable aggregate.

    If the aggregate is up to date, `raw_results` are its process results. The function then reads only the summary,
    which is faster.
    """
    if row.status in ("pending", "unreadable"):
        return None
    if row.status == "current":
        summary = repository.load_summary(experiment)
        if summary is not None and len(summary.sources or ()) == len(raw_results):
            return AggregatedResult(**msgspec.structs.asdict(summary), process_results=list(raw_results))
    data = repository.read_aggregated(experiment) if row.status == "altered" else None
    if data is not None:
        return codec.decode_aggregated(data, f"{repository.folder_of(experiment)}.json")
    return repository.load_aggregated(experiment)


def _summary(row: ExperimentSummary, aggregated: AggregatedResult | None, shown: _Shown) -> list[tuple[str, str]]:
    """Return the names and values of the summary, the most important first."""
    processes = (formatting.cell(number) for number in (row.found_processes, row.expected_processes))
    fields = [
        ("experiment", row.experiment_id),
        ("verdict", formatting.verdict(row.verdict, row.attribution_basis)),
        ("model", row.model_name or formatting.UNKNOWN),
        ("backend", row.backend or formatting.UNKNOWN),
        ("processes", " of ".join(processes)),
    ]
    tags = [(f"tag {name}", value) for name, value in sorted(row.tags.items())]
    if row.note is not None:
        tags.append(("note", row.note))
    if aggregated is None:
        return fields + tags
    efficiency = calculate_efficiency_metrics(aggregated)
    method = aggregated.aggregation.method
    fields += [
        *(_plain_fields(aggregated, shown) if shown.kind == "plain" else _energy_fields(aggregated, shown)),
        ("tokens", formatting.count(aggregated.total_tokens)),
        *_efficiency(energies.energy_of(aggregated, shown.kind), aggregated.total_tokens, _output_tokens(aggregated)),
        ("throughput", f"{_per_second(aggregated.avg_tokens_per_second)} ({_throughput_of(method)})"),
        ("total throughput", _per_second(_finite(efficiency["effective_batch_throughput"]))),
        ("FLOPs", formatting.quantity(aggregated.total_flops, "FLOP")),
        ("start", formatting.date_time(aggregated.start_time)),
        ("end", formatting.date_time(aggregated.end_time)),
        ("strategy", method),
        ("provenance", _provenance(aggregated)),
    ]
    latency = aggregated.latency_stats
    if latency is not None:
        fields += [
            ("TTFT median, p99", _milliseconds(latency.ttft_median_ms, latency.ttft_p99_ms)),
            ("ITL median, p99", _milliseconds(latency.itl_median_ms, latency.itl_p99_ms)),
        ]
    fields += [("warning", warning) for warning in aggregated.aggregation.warnings]
    failed = [("errors", aggregated.codes_of("error")), ("warnings", aggregated.warning_codes)]
    command = f"llm-energy-measure results verify {row.experiment_id}"
    fields += [(name, f"{', '.join(codes)}; run '{command}' for details") for name, codes in failed if codes]
    return fields + tags


def _energy_fields(aggregated: AggregatedResult, shown: _Shown) -> list[tuple[str, str]]:
    """Return the fields of the attributed energy: value, reasons, and the plain sum if its value differs."""
    energy, bounds_j = energies.energy_of(aggregated, "attributed"), aggregated.attributed_bounds_j
    text = energy.cell(shown.scale).replace("≥", "at least")
    low_j, high_j = bounds_j or (None, None)
    interval = f"{shown.joules(low_j)} to {shown.joules(high_j)}"
    if energy.is_undetermined:
        text = f"{text} (recorded: {interval})" if energy.is_lower_bound else interval
    elif low_j != high_j:
        text += f" ({interval})"
    fields = [("energy", text)]
    plain_j, factor = aggregated.plain_energy_j, aggregated.attribution_factor
    if plain_j is not None and (plain_j != energy.low_j or energy.is_undetermined):
        times = f", {factor:.3g} times the attributed energy" if factor is not None else ""
        fields.append(("plain sum", shown.joules(plain_j) + times))
    if aggregated.attribution_status is not None:
        basis = f" ({', '.join(aggregated.attribution_basis)})" if aggregated.attribution_basis else ""
        fields.append(("attribution", aggregated.attribution_status + basis))
    for finding in aggregated.findings or ():
        if finding.family != "attribution" or finding.outcome != "not_checked":
            continue
        if finding.code == "attribution.assumed":
            fields.append(("assumed", finding.message))
        elif energy.is_undetermined:
            fields.append(("reason", "; ".join(filter(None, (finding.reason, finding.message)))))
    return fields


def _efficiency(energy: energies.Energy, tokens: int | None, output_tokens: int | None) -> list[tuple[str, str]]:
    """Return energy per token, energy per output token, and tokens per joule. Undetermined energies give ranges."""
    mark = f"{energies.CORRECTED} " if energy.is_corrected and tokens else ""
    ends_j = [energy.low_j, energy.high_j] if energy.is_undetermined else [energy.low_j]
    names = [("energy per token", tokens), *([("per output token", output_tokens)] if output_tokens else [])]
    values = [(name, [ratio(energy_j, number) for energy_j in ends_j]) for name, number in names]
    scale = formatting.scale([value for _, ends in values for value in ends if value is not None], "J/token")
    fields = [(name, [formatting.scaled(value, scale) for value in ends]) for name, ends in values]
    fields.append(("tokens per joule", [formatting.quantity(ratio(tokens, end_j)) for end_j in reversed(ends_j)]))
    if energy.is_partial and energy.low_j is not None:
        return [
            (name, f"{'at most' if name == 'tokens per joule' else 'at least'} {value}") for name, [value] in fields
        ]
    return [(name, mark + " to ".join(values)) for name, values in fields]


def _output_tokens(aggregated: AggregatedResult) -> int | None:
    """Return the output tokens of all processes that counted tokens; None if no process did."""
    counted = [result.inference_metrics for result in aggregated.process_results]
    known = [metrics.output_tokens for metrics in counted if metrics is not None]
    return sum(known) if known else None


def _throughput_of(method: str) -> str:
    """Return which throughput a strategy computes."""
    if method in WHOLE_THROUGHPUT:
        return "whole experiment"
    return "mean per process" if method in MEAN_THROUGHPUT else f"by the strategy {method}"


def _plain_fields(aggregated: AggregatedResult, shown: _Shown) -> list[tuple[str, str]]:
    """Return the total of the strategy. Add the plain sum and the attributed energy if they differ from this total."""
    bounds_j = aggregated.attributed_bounds_j
    plain_j = aggregated.plain_energy_j
    fields = [("energy", energies.energy_of(aggregated, "plain").cell(shown.scale).replace("≥", "at least"))]
    if plain_j is not None and plain_j != aggregated.total_energy_j:
        fields.append(("plain sum", shown.joules(plain_j)))
    if bounds_j is not None and bounds_j != (aggregated.total_energy_j, aggregated.total_energy_j):
        energy_j, factor = aggregated.attributed_energy_j, aggregated.attribution_factor
        fields.append(("attributed", formatting.attributed_energy(energy_j, bounds_j, factor)))
    return fields


def _provenance(aggregated: AggregatedResult) -> str:
    """Return the provenances and scopes of the processes, for example `modelled (scope process)`."""
    # A process whose sensor is read by another process has no energy and no provenance.
    measured = [
        process.energy_metrics for process in aggregated.process_results if process.energy_metrics.total_energy_j
    ]
    facts = {f"{e.total_provenance or 'unknown'} (scope {e.total_scope or 'unknown'})" for e in measured}
    text = "; ".join(sorted(facts)) or formatting.UNKNOWN
    modelled = [finding.message for finding in aggregated.findings or () if finding.code == "provenance.modelled"]
    return f"{text}; {modelled[0]}" if modelled else text


def _milliseconds(*values_ms: float | None) -> str:
    return ", ".join(formatting.UNKNOWN if value is None else f"{value:.4g} ms" for value in values_ms)


def _per_second(tokens: float | None) -> str:
    return formatting.scaled(tokens, (1.0, "token/s"))


def _finite(value: float) -> float | None:
    """Return the value, or None for NaN: the efficiency metrics contain NaN for unknown values."""
    return None if math.isnan(value) else value


def _cells(
    result: RawProcessResult, scales: Sequence[tuple[float, str]], *, is_checkpoint: bool = False
) -> tuple[str, ...]:
    energy, inference = result.energy_metrics, result.inference_metrics
    energies_j = (energy.total_energy_j, energy.gpu_energy_j, energy.cpu_energy_j)
    gpu = result.gpu_name or formatting.UNKNOWN
    time_sec = inference.inference_time_sec if inference else None
    return (
        f"{result.process_index}{' (checkpoint)' if is_checkpoint else ''}",
        result.host or formatting.UNKNOWN,
        gpu if result.gpu_id is None else f"{result.gpu_id}: {gpu}",
        *(formatting.scaled(energy_j, scale) for energy_j, scale in zip(energies_j, scales, strict=True)),
        formatting.count(inference.total_tokens if inference else None),
        formatting.quantity(inference.tokens_per_second if inference else None),
        formatting.scaled(result.timestamps.duration_sec if time_sec is None else time_sec, (1.0, "s")),
        formatting.date_time(result.timestamps.start),
    )
