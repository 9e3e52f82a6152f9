"""Late aggregation: one honest result from what the processes of an experiment measured."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

from llm_energy_measure.constants import MANIFEST_NAME, MAX_PROCESSES
from llm_energy_measure.domain.experiment import AggregatedResult, AggregationMetadata
from llm_energy_measure.domain.latency import pool_latency
from llm_energy_measure.domain.schema import timestamp_problems
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.exceptions import (
    AggregationError,
    ConfigurationError,
    IncompatibleResultsError,
    IncompleteExperimentError,
    InvalidResultError,
)
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.layout import folder_name
from llm_energy_measure.results.strategies import DEFAULT_STRATEGY, WHOLE_THROUGHPUT, get_strategy
from llm_energy_measure.verification.checks import verify_evidence
from llm_energy_measure.verification.codes import CODES, SUM_FAMILIES, joules
from llm_energy_measure.verification.completeness import check_completeness, describe_missing, describe_unreadable
from llm_energy_measure.verification.processes import evidence_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.domain.experiment import (
        CompletenessReport,
        Manifest,
        RawProcessResult,
        SourceFile,
        StoredBytes,
        UnreadableFile,
    )
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.results.strategies import Strategy
    from llm_energy_measure.verification.checks import Verification

NAN = float("nan")

# What has to have passed before the attribution of GPUs counts as verified.
_ATTRIBUTION_CODES = (
    *("energy.over_counted", "attribution.repeated_gpu", "attribution.shared_sensor"),
    *("attribution.host_counted", "attribution.two_names_one_host"),
)

# Failures that, besides those of the sum, are told in `warnings`.
_WARNED = frozenset(code for code in CODES if code.startswith("completeness.")) | {
    *("time.impossible_span", "time.mixed_offsets", "provenance.schema_version"),
    *("counter.lost", "counter.reset", "counter.gap"),
}


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
        AggregationError: There is no result, or one that was built in Python has a figure that no file can hold.
        IncompleteExperimentError: `strict`, and a process is missing.
        IncompatibleResultsError: Results that don't belong together, or two of one process.
        ConfigurationError: No such strategy, or an impossible number of processes.

    Example:
        >>> from llm_energy_measure.results import FileSystemRepository, aggregate_results
        >>> repository = FileSystemRepository("results")
        >>> result = aggregate_results("exp_42", repository.load_all_raw("exp_42"))  # doctest: +SKIP
    """
    return aggregate_and_verify(
        experiment_id,
        raw_results,
        strategy=strategy,
        expected_processes=expected_processes,
        manifest=manifest,
        unreadable=unreadable,
        partials=partials,
        strict=strict,
        allow_mixed=allow_mixed,
    )[0]


def aggregate_and_verify(
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
) -> tuple[AggregatedResult, Verification]:
    """One result, and all that verification found, the checks that passed included; see `aggregate_results`."""
    is_number = type(expected_processes) is int and 1 <= expected_processes <= MAX_PROCESSES
    if expected_processes is not None and not is_number:
        found = f"{expected_processes!r} processes were expected"
        raise ConfigurationError(f"cannot aggregate {experiment_id!r}", found, f"expect 1 to {MAX_PROCESSES}")
    rule = get_strategy(strategy)
    raw_results = [_checked(experiment_id, result) for result in raw_results]
    partials = [_checked(experiment_id, result) for result in partials]
    if not raw_results and not partials:
        found = "; ".join(f"{file.name}: {file.reason}" for file in unreadable) or "it has no results"
        advice = "repair the files, or run it again" if unreadable else "check the id, or run it again"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, advice)
    report = check_completeness(
        raw_results, expected_processes=expected_processes, manifest=manifest, unreadable=unreadable
    )
    unfinished = [] if report.is_complete else [one for one in partials if one.process_index in report.missing]
    results = sorted([*raw_results, *unfinished], key=attrgetter("process_index", "experiment_id"))
    if not allow_mixed:
        _require_alike(experiment_id, results)
    _require_distinct(experiment_id, results)
    if strict:
        require_complete(experiment_id, report)
    try:
        return _result(experiment_id if allow_mixed else results[0].experiment_id, results, rule, report, manifest)
    except OverflowError as error:
        found = f"its figures are beyond what a number can hold ({error})"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, "check the values") from error


def _checked(experiment_id: str, result: RawProcessResult) -> RawProcessResult:
    """The result with every figure known to be one: NaN would pass the checks, and sums of it say nothing.

    What comes from a store was looked at when it was read.
    """
    if getattr(result, "stored", None) is not None:
        return result
    try:
        checked = codec.require_valid_raw(result)
    except InvalidResultError as refused:
        # Stamps that can't be are a finding, as they are in files of the field.
        with contextlib.suppress(AttributeError, TypeError):
            if [*refused.problems] == timestamp_problems(result):
                return result
        found, advice = refused.found, "load the results first (load_all_raw)"
        if hasattr(result, "process_index"):
            found = f"process {result.process_index!r}: {found}"
            advice = "correct it, or set it to None if it is unknown"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, advice) from refused
    # Arrays can raise anything when they are compared: the copy, in which they are lists, is taken then.
    with contextlib.suppress(Exception):
        if checked == result:
            return result  # not held twice
    return checked


def _result(
    experiment_id: str,
    results: Sequence[RawProcessResult],
    rule: Strategy,
    report: CompletenessReport,
    manifest: Manifest | None,
) -> tuple[AggregatedResult, Verification]:
    """The result of an experiment whose processes are known to belong together."""
    try:
        totals = rule.combine(results)
    except Exception as error:
        found = f"the rule {rule.name!r} can't calculate with its figures ({type(error).__name__}: {error})"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, "check its processes") from error
    evidence = evidence_of(experiment_id, results, report, manifest)
    verification = verify_evidence(evidence)
    attribution = verification.attribution
    first = results[0]
    backend = next((result for result in results if result.backend is not None), first)
    aggregated = AggregatedResult(
        experiment_id=experiment_id,
        backend=backend.backend,
        backend_version=backend.backend_version,
        model_name=first.model_name,
        aggregation=AggregationMetadata(
            method=rule.name,
            num_processes=len(results),
            temporal_overlap_verified=verification.outcomes["time.no_overlap"] == "passed",
            gpu_attribution_verified=_gpus_attributed(verification),
            warnings=_warnings(verification),
        ),
        total_tokens=totals.total_tokens,
        total_energy_j=totals.total_energy_j,
        total_inference_time_sec=totals.total_inference_time_sec,
        avg_tokens_per_second=totals.avg_tokens_per_second,
        avg_energy_per_token_j=ratio(totals.total_energy_j, totals.total_tokens),
        total_flops=totals.total_flops,
        process_results=list(results),
        start_time=evidence.started[0] if evidence.started else None,
        end_time=evidence.ended[1] if evidence.ended else None,
        effective_config=first.effective_config,
        cli_overrides=first.cli_overrides,
        config_warnings=list(dict.fromkeys([text for result in results for text in result.config_warnings])),
        latency_stats=pool_latency(
            [
                work.latency_measurements
                for work in evidence.works
                if work is not None and work.latency_measurements is not None
            ]
        ),
        is_lower_bound=bool(report.missing)
        or verification.outcomes["completeness.no_energy"] == "failed"
        or (evidence.any_sensors and any(energy.is_lower_bound for energy in evidence.energies)),
        completeness=report,
        sources=_sources(evidence.stored),
        plain_energy_j=attribution.plain_j,
        attributed_energy_j=attribution.energy_j,
        attributed_bounds_j=attribution.bounds_j,
        attribution_factor=attribution.factor,
        attribution_rule=verification.rule,
        attributed_gpu_energy_j=attribution.gpu_j,
        attributed_cpu_energy_j=attribution.cpu_j,
        attributed_ram_energy_j=attribution.ram_j,
        findings=verification.to_store,
    )
    return aggregated, verification


def calculate_efficiency_metrics(aggregated: AggregatedResult) -> dict[str, float]:
    """Efficiency of an experiment; NaN, never 0, where a figure is unknown or a denominator is 0.

    Args:
        aggregated: The experiment's result.

    Returns:
        `tokens_per_joule` (token/J), `joules_per_token` (J/token), `flops_per_joule` (FLOP/J), `tokens_per_second`
        (token/s, the mean of a process) and `effective_batch_throughput` (token/s, that times the processes that
        report a throughput; that itself where the strategy's throughput is the whole experiment's).
    """
    energy, tokens = aggregated.total_energy_j, aggregated.total_tokens
    throughput = aggregated.avg_tokens_per_second
    reporting = sum(
        result.inference_metrics is not None and result.inference_metrics.tokens_per_second is not None
        for result in aggregated.process_results
    )
    if aggregated.aggregation.method in WHOLE_THROUGHPUT:
        reporting = 1
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


def require_complete(experiment_id: str, report: CompletenessReport) -> None:
    """Refuse an experiment that is incomplete, or of which nobody can say whether it is.

    Raises:
        IncompleteExperimentError: A process is missing, or the manifest that says how many there are is unreadable.
    """
    blind = report.expected_from != "argument" and any(file.name == MANIFEST_NAME for file in report.unreadable)
    if report.is_complete and not blind:
        return
    doing = f"cannot aggregate {experiment_id!r} strictly"
    if report.is_complete:
        advice = "say how many there should be (--expected-processes), or remove the manifest"
        refused = IncompleteExperimentError(doing, describe_unreadable(report), advice)
    else:
        advice = "run the missing ones, or take a lower bound without strict (--no-strict)"
        refused = IncompleteExperimentError(doing, describe_missing(report), advice)
    refused.report = report
    raise refused


def _require_alike(experiment_id: str, results: Sequence[RawProcessResult]) -> None:
    """Refuse results of different experiments, models or backends, naming the field and both values."""
    first = results[0]
    if experiment_id != first.experiment_id and experiment_id != folder_name(first.experiment_id):
        raise _incompatible(experiment_id, "experiment_id", experiment_id, first.experiment_id, first.process_index)
    told: dict[str, list[str | None]] = {
        "experiment_id": [result.experiment_id for result in results],
        "model_name": [result.model_name for result in results],
        "backend": [result.backend for result in results],
    }
    for name, values in told.items():
        if values.count(values[0]) == len(values):
            continue
        alike = [result for result in results if name != "backend" or not _is_one_side(result)]
        for result in alike[1:]:
            one, other = getattr(alike[0], name), getattr(result, name)
            if one != other:
                raise _incompatible(experiment_id, name, one, other, result.process_index)


def _is_one_side(result: RawProcessResult) -> bool:
    """True if a process only measured energy, or only counted tokens, and so needn't know the backend, and doesn't.

    A server's energy and its client's tokens are such sides of one experiment.
    """
    one_side = result.inference_metrics is None or result.energy_metrics.sensors == []
    return one_side and result.backend is None


def _require_distinct(experiment_id: str, results: Sequence[RawProcessResult]) -> None:
    """Refuse two results of one process: its joules would count twice."""
    if len({result.process_index for result in results}) == len(results):
        return
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


def _gpus_attributed(verification: Verification) -> bool:
    """True only if every GPU is known, none is counted twice, and none drew more than it can."""
    outcomes = verification.outcomes
    if outcomes["energy.exceeds_devices"] == "failed":
        return False
    return all(outcomes[code] == "passed" for code in _ATTRIBUTION_CODES)


def _warnings(verification: Verification) -> list[str]:
    """What a reader has to know, a sentence each: joules counted twice, joules missing, times that can't be.

    The findings say more, and what else is amiss.
    """
    failures = [finding for finding in verification.to_store if finding.outcome == "failed"]
    if not failures:
        return []
    codes = {finding.code for finding in failures}
    warnings = []
    of_sum = next((finding for finding in failures if finding.family in SUM_FAMILIES), None)
    if of_sum is not None:
        warnings.append(_sum_warning(of_sum, verification))
    if "completeness.missing_process" in codes:
        codes.discard("completeness.unreadable_file")  # what is missing is said with what can't be read
    return warnings + [finding.message for finding in failures if finding.code in codes & _WARNED]


def _sum_warning(first: Finding, verification: Verification) -> str:
    """Why the plain sum is not to be trusted, in one sentence with the factor."""
    attribution = verification.attribution
    if attribution.factor is None or attribution.factor <= 1:
        return first.message
    return (
        f"{first.message} (plain sum {joules(attribution.plain_j)}, attributed {joules(attribution.energy_j)}, "
        f"factor {attribution.factor:.3g})"
    )


def _sources(stored: Sequence[StoredBytes | None]) -> list[SourceFile] | None:
    """The files the results were read from; None if one of them did not come from a store."""
    sources = [one.source for one in stored if one is not None]
    return sources if len(sources) == len(stored) else None
