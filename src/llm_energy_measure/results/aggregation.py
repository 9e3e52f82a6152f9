"""Late aggregation: one honest result from what the processes of an experiment measured."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from llm_energy_measure.constants import MAX_PROCESSES, SCHEMA_VERSION
from llm_energy_measure.domain.experiment import AggregatedResult, AggregationMetadata
from llm_energy_measure.domain.latency import pool_latency
from llm_energy_measure.domain.metrics import CLAIMED, COUNTER_RESET, SAMPLING_GAP, SENSOR_LOST
from llm_energy_measure.domain.schema import time_problems
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.exceptions import (
    AggregationError,
    ConfigurationError,
    IncompatibleResultsError,
)
from llm_energy_measure.results.completeness import (
    check_completeness,
    describe_missing,
    describe_unreadable,
    listed,
    require_complete,
)
from llm_energy_measure.results.layout import folder_name
from llm_energy_measure.results.strategies import DEFAULT_STRATEGY, get_strategy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from llm_energy_measure.domain.experiment import (
        CompletenessReport,
        Manifest,
        RawProcessResult,
        SourceFile,
        UnreadableFile,
    )
    from llm_energy_measure.domain.metrics import EnergyMetrics
    from llm_energy_measure.results.strategies import Strategy

NAN = float("nan")


def aggregate_results(
    experiment_id: str,
    raw_results: Sequence[RawProcessResult],
    *,
    strategy: str = DEFAULT_STRATEGY,
    expected_processes: int | None = None,
    manifest: Manifest | None = None,
    unreadable: Sequence[UnreadableFile] = (),
    partials: Sequence[RawProcessResult] = (),
    strict: bool = False,
    allow_mixed: bool = False,
) -> AggregatedResult:
    """One result from the raw results of an experiment's processes, in any order.

    A missing process makes the sums too small: the result then says that it is a lower bound, in
    `is_lower_bound`, `completeness` and the warnings, and `strict` refuses it. By default energy, tokens and FLOPs are
    sums over processes, throughput is the mean over those that report one, and percentiles pool all samples.

    Args:
        experiment_id: The experiment's id, or its folder name.
        raw_results: At least one result, one a process.
        strategy: Name of the rule; see `llm_energy_measure.results.strategies`.
        expected_processes: Number of processes that should be there, at least 1; by default what the manifest or the
            results say.
        manifest: The experiment's manifest, if it has one.
        unreadable: Files that stand where a result should and can't be read.
        partials: Checkpoints of processes: those of the missing count too, as the lower bounds they are. Their
            processes stay missing.
        strict: Refuse an incomplete experiment.
        allow_mixed: Accept results of different experiments, models or backends.

    Raises:
        AggregationError: There is no result.
        IncompleteExperimentError: `strict`, and a process is missing.
        IncompatibleResultsError: Results that don't belong together, or two of one process.
        ConfigurationError: No such strategy, or an impossible number of processes.

    Example:
        >>> from llm_energy_measure.results import FileSystemRepository, aggregate_results
        >>> repository = FileSystemRepository("results")
        >>> result = aggregate_results("exp_42", repository.load_all_raw("exp_42"))  # doctest: +SKIP
    """
    is_number = type(expected_processes) is int and 1 <= expected_processes <= MAX_PROCESSES
    if expected_processes is not None and not is_number:
        found = f"{expected_processes!r} processes were expected"
        raise ConfigurationError(f"cannot aggregate {experiment_id!r}", found, f"expect 1 to {MAX_PROCESSES}")
    rule = get_strategy(strategy)
    if not raw_results and not partials:
        found = "; ".join(f"{file.name}: {file.reason}" for file in unreadable) or "it has no results"
        advice = "repair the files, or run it again" if unreadable else "check the id, or run it again"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, advice)
    report = check_completeness(
        raw_results, expected_processes=expected_processes, manifest=manifest, unreadable=unreadable
    )
    unfinished = [] if report.is_complete else [one for one in partials if one.process_index in report.missing]
    results = sorted([*raw_results, *unfinished], key=lambda result: (result.process_index, result.experiment_id))
    if not allow_mixed:
        _require_alike(experiment_id, results)
    _require_distinct(experiment_id, results)
    if strict:
        require_complete(experiment_id, report)
    try:
        return _result(experiment_id if allow_mixed else results[0].experiment_id, results, rule, report)
    except OverflowError as error:
        found = f"its figures are beyond what a number can hold ({error})"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, "check the values") from error


def _result(
    experiment_id: str, results: Sequence[RawProcessResult], rule: Strategy, report: CompletenessReport
) -> AggregatedResult:
    """The result of an experiment whose processes are known to belong together."""
    try:
        totals = rule.combine(results)
    except Exception as error:
        found = f"the rule {rule.name!r} can't calculate with its figures ({type(error).__name__}: {error})"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, "check its processes") from error
    first = results[0]
    backend = next((result for result in results if result.backend is not None), first)
    no_energy = [result.process_index for result in results if _lacks_energy(result.energy_metrics)]
    cut_short = any(_is_cut_short(result.energy_metrics) for result in results)
    start, end, comparable = _span(results)
    return AggregatedResult(
        experiment_id=experiment_id,
        backend=backend.backend,
        backend_version=backend.backend_version,
        model_name=first.model_name,
        aggregation=AggregationMetadata(
            method=rule.name,
            num_processes=len(results),
            temporal_overlap_verified=comparable and _overlap(results),
            gpu_attribution_verified=_gpus_distinct(results),
            warnings=_warnings(results, report, no_energy, comparable=comparable),
        ),
        total_tokens=totals.total_tokens,
        total_energy_j=totals.total_energy_j,
        total_inference_time_sec=totals.total_inference_time_sec,
        avg_tokens_per_second=totals.avg_tokens_per_second,
        avg_energy_per_token_j=ratio(totals.total_energy_j, totals.total_tokens),
        total_flops=totals.total_flops,
        process_results=list(results),
        start_time=start,
        end_time=end,
        effective_config=first.effective_config,
        cli_overrides=first.cli_overrides,
        config_warnings=list(dict.fromkeys(text for result in results for text in result.config_warnings)),
        latency_stats=pool_latency(
            metrics.latency_measurements
            for result in results
            if (metrics := result.inference_metrics) is not None and metrics.latency_measurements is not None
        ),
        is_lower_bound=bool(report.missing or no_energy or cut_short),
        completeness=report,
        sources=_sources(results),
    )


def calculate_efficiency_metrics(aggregated: AggregatedResult) -> dict[str, float]:
    """Efficiency of an experiment; NaN, never 0, where a figure is unknown or a denominator is 0.

    Args:
        aggregated: The experiment's result.

    Returns:
        `tokens_per_joule` (token/J), `joules_per_token` (J/token), `flops_per_joule` (FLOP/J), `tokens_per_second`
        (token/s, the mean of a process) and `effective_batch_throughput` (token/s, that times the processes that
        report a throughput).
    """
    energy, tokens = aggregated.total_energy_j, aggregated.total_tokens
    throughput = aggregated.avg_tokens_per_second
    reporting = sum(
        result.inference_metrics is not None and result.inference_metrics.tokens_per_second is not None
        for result in aggregated.process_results
    )
    metrics = {
        "tokens_per_joule": ratio(tokens, energy),
        "joules_per_token": ratio(energy, tokens),
        "flops_per_joule": ratio(aggregated.total_flops, energy),
        "tokens_per_second": throughput,
        "effective_batch_throughput": None
        if throughput is None
        else throughput * (reporting or aggregated.aggregation.num_processes),
    }
    return {name: NAN if value is None else value for name, value in metrics.items()}


def _require_alike(experiment_id: str, results: Sequence[RawProcessResult]) -> None:
    """Refuse results of different experiments, models or backends, naming the field and both values."""
    first = results[0]
    if experiment_id not in (first.experiment_id, folder_name(first.experiment_id)):
        raise _incompatible(experiment_id, "experiment_id", experiment_id, first.experiment_id, first.process_index)
    for name in ("experiment_id", "model_name", "backend"):
        alike = [result for result in results if name != "backend" or not _is_one_side(result)]
        for result in alike[1:]:
            values = getattr(alike[0], name), getattr(result, name)
            if values[0] != values[1]:
                raise _incompatible(experiment_id, name, *values, result.process_index)


def _is_one_side(result: RawProcessResult) -> bool:
    """True if a process only measured energy, or only counted tokens, and so needn't know the backend, and doesn't.

    A server's energy and its client's tokens are such sides of one experiment.
    """
    one_side = result.inference_metrics is None or result.energy_metrics.sensors == []
    return one_side and result.backend is None


def _require_distinct(experiment_id: str, results: Sequence[RawProcessResult]) -> None:
    """Refuse two results of one process: its joules would count twice."""
    for one, other in pairwise(results):
        if (one.process_index, one.experiment_id) == (other.process_index, other.experiment_id):
            doing = f"cannot aggregate {experiment_id!r}"
            found = f"there are two results of process {one.process_index}"
            refused = IncompatibleResultsError(doing, found, "give each process once")
            refused.field, refused.values = "process_index", (one.process_index, other.process_index)
            raise refused


def _incompatible(
    experiment_id: str, field: str, one: object, other: object, process_index: int
) -> IncompatibleResultsError:
    found = f"{field} is {one!r} and, in process {process_index}, {other!r}"
    advice = "aggregate them apart (in Python, allow_mixed=True takes them together)"
    refused = IncompatibleResultsError(f"cannot aggregate {experiment_id!r}", found, advice)
    refused.field, refused.values = field, (one, other)
    return refused


def _span(results: Sequence[RawProcessResult]) -> tuple[datetime | None, datetime | None, bool]:
    """Earliest start, latest known end, and whether all stamps can be compared at all."""
    starts = [result.timestamps.start for result in results]
    ends = [result.timestamps.end for result in results if result.timestamps.end is not None]
    if len({stamp.tzinfo is None for stamp in starts + ends}) > 1:
        return None, None, False
    return min(starts), max(ends, default=None), True


def _overlap(results: Sequence[RawProcessResult]) -> bool:
    """True if at least two processes are known to have run at one common instant, all together."""
    ends = [result.timestamps.end for result in results if result.timestamps.end is not None]
    if len(results) < 2 or len(ends) < len(results):  # noqa: PLR2004 - one process overlaps with nothing
        return False
    return max(result.timestamps.start for result in results) < min(ends)


def _gpus(results: Sequence[RawProcessResult]) -> list[list[tuple[str | None, int | str]]]:
    """Host and UUID, or index where there is no UUID, of every GPU that each result is known to have measured.

    One host is assumed where none is named. Slices of one GPU (MIG) share an index and have a UUID each.
    """
    hosts = {result.host for result in results if result.host is not None}
    one_host = len(hosts) < 2  # noqa: PLR2004 - an unnamed host can only be told from none or one named one
    gpus = []
    for result in results:
        host = None if one_host else result.host
        names = [gpu_uuid or gpu_id for gpu_uuid, gpu_id in _devices(result)]
        gpus.append([(host, name) for name in names if name is not None])
    return gpus


def _devices(result: RawProcessResult) -> list[tuple[str | None, int | None]]:
    """UUID and index of each device of a result: those it lists, else its own."""
    listed = result.energy_metrics.devices
    if listed:
        return [(device.gpu_uuid, device.gpu_id) for device in listed]
    return [(result.gpu_uuid, result.gpu_id)]


def _gpus_distinct(results: Sequence[RawProcessResult]) -> bool:
    """True only if every GPU is known, none appears twice, and no sensor is known to have seen more than its GPUs."""
    devices = [device for result in results for device in _devices(result)]
    known = [gpu for gpus in _gpus(results) for gpu in gpus]
    # An index beside a UUID, or an unnamed host beside several named ones, could be the same GPU: nothing is proven.
    comparable = len({gpu_uuid is None for gpu_uuid, _ in devices}) == 1
    hosts = {result.host for result in results}
    placed = None not in hosts or len(hosts) <= 2  # noqa: PLR2004 - the unnamed and one named host
    return comparable and placed and len(set(known)) == len(devices) and not _shared_hosts(results)


def _shared_hosts(results: Sequence[RawProcessResult]) -> list[int]:
    """Processes whose sensors saw all of a host that another one's sensors saw too: the sum counts that host again."""
    seen = [result for result in results if _saw_host(result.energy_metrics)]
    times = Counter(result.host for result in seen)
    return [result.process_index for result in seen if times[result.host] > 1]


def _lacks_energy(energy: EnergyMetrics) -> bool:
    """True if energy is missing; not where all that the process could read, if anything, is another one's to count."""
    if energy.total_energy_j is not None:
        return False
    return energy.sensors is None or not all(CLAIMED in reading.problems for reading in energy.sensors)


def _is_cut_short(energy: EnergyMetrics) -> bool:
    """True if a sensor is known to have seen less than there was."""
    return any(not {SENSOR_LOST, COUNTER_RESET}.isdisjoint(reading.problems) for reading in energy.sensors or ())


def _saw_host(energy: EnergyMetrics) -> bool:
    return "host" in (energy.total_scope, energy.gpu_scope, energy.cpu_scope, energy.ram_scope)


def _warnings(
    results: Sequence[RawProcessResult], report: CompletenessReport, no_energy: Sequence[int], *, comparable: bool
) -> list[str]:
    """What a reader has to know, a sentence each: joules counted twice, joules missing, times that can't be."""
    warnings = [*_sharing_warnings(results), *_completeness_warnings(results, report)]
    if no_energy:
        warnings.append(
            f"process {listed(no_energy)} has no energy; the total is a lower bound, and so is the energy per token"
        )
    for result in results:
        energy = result.energy_metrics
        if result.status == "partial":
            warnings.append(f"process {result.process_index} did not finish: its last checkpoint counts, a lower bound")
        elif result.status in ("failed", "interrupted"):
            warnings.append(f"process {result.process_index} {result.status} ({result.error_type}) before its end")
        if _is_cut_short(energy) or any(SAMPLING_GAP in reading.problems for reading in energy.sensors or ()):
            warnings.append(f"process {result.process_index}: {result.energy_measurement_warning}")
    if not comparable:
        warnings.append("some timestamps have a UTC offset and some have none; start and end can't be told")
    for result in results:
        if result.stored is not None and b'"schema_version"' not in result.stored.data:
            warnings.append(f"process {result.process_index}: no schema_version, read as {SCHEMA_VERSION}")
        warnings += [f"process {result.process_index}: {problem}" for problem in time_problems(result)]
    return warnings


def _sharing_warnings(results: Sequence[RawProcessResult]) -> Iterator[str]:
    for gpu, times in Counter(gpu for gpus in _gpus(results) for gpu in set(gpus)).items():
        if times > 1:
            where = f" of host {gpu[0]}" if gpu[0] is not None else ""
            yield f"GPU {gpu[1]} appears in multiple processes{where}"
    if shared := _shared_hosts(results):
        yield f"processes {listed(shared)} measured a whole host each; the sum counts it more than once"


def _completeness_warnings(results: Sequence[RawProcessResult], report: CompletenessReport) -> Iterator[str]:
    if report.missing:
        yield f"partial: {describe_missing(report)}; the sums are lower bounds"
    elif report.unreadable:
        yield describe_unreadable(report)
    if report.unexpected:
        expected = f"{report.expected_processes} processes were expected (from {report.expected_from})"
        yield f"{expected}, and there is also {listed(report.unexpected)}"
    sizes = sorted({result.world_size for result in results if result.world_size is not None})
    if len(sizes) > 1:
        yield f"world_size is {sizes[0]} in some processes and {sizes[-1]} in others: two runs may be mixed"


def _sources(results: Sequence[RawProcessResult]) -> list[SourceFile] | None:
    """The files the results were read from; None if one of them did not come from a store."""
    sources = [result.stored.source for result in results if result.stored is not None]
    return sources if len(sources) == len(results) else None
