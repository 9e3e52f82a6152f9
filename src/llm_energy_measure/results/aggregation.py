"""Aggregate the raw results of an experiment's processes into one result.

`aggregate_results` has four steps: check that the results belong to one experiment, combine them, verify them, and
build the aggregated result. The functions of this module are in the order of these steps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Literal

from msgspec import UNSET, Struct, structs

from llm_energy_measure.constants import DEFAULT_STRATEGY, MANIFEST_NAME, MAX_PROCESSES
from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.experiment import (
    AggregatedResult,
    AggregationMetadata,
    CompletenessReport,
    Manifest,
    RawProcessResult,
    SourceFile,
    StoredBytes,
    UnreadableFile,
)
from llm_energy_measure.domain.findings import Finding
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
from llm_energy_measure.results.store.layout import names_folder
from llm_energy_measure.results.strategies import WHOLE_THROUGHPUT, Strategy, Totals, get_strategy
from llm_energy_measure.verification import flags
from llm_energy_measure.verification.checks import Verification, verify_evidence
from llm_energy_measure.verification.codes import CODES, SUM_FAMILIES, joules
from llm_energy_measure.verification.completeness import check_completeness, describe_missing, describe_unreadable
from llm_energy_measure.verification.processes import Evidence, evidence_of

NAN = float("nan")

# Each failed check with one of these codes gives the aggregate a warning. So does the first failed check of the plain
# sum (`SUM_FAMILIES`).
_WARNED = frozenset(code for code in CODES if code.startswith("completeness.")) | {
    *("time.impossible_span", "time.mixed_offsets", "provenance.schema_version"),
    *("counter.lost", "counter.reset", "counter.gap"),
}


class AggregationOptions(Struct, frozen=True, kw_only=True):
    """Options, and facts that the raw results don't contain; `aggregate_results` describes the fields."""

    strategy: str = DEFAULT_STRATEGY
    expected_processes: int | None = None
    manifest: Manifest | None = None
    unreadable: Sequence[UnreadableFile] = ()
    partials: Sequence[RawProcessResult] = ()
    strict: bool = False
    allow_mixed: bool = False
    assume: Assumptions | None = None


class Experiment(Struct, frozen=True, kw_only=True):
    """The records of one experiment, after the check that they belong together.

    Attributes:
        experiment_id: Id of the experiment.
        records: The raw results and checkpoints to aggregate; at least one, sorted by process index.
        strategy: The rule that combines the records.
        evidence: The facts about the experiment that verification uses.
    """

    experiment_id: str
    records: list[RawProcessResult]
    strategy: Strategy
    evidence: Evidence


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
    assume: Assumptions | None = None,
    allow_mixed_backends: bool = False,
    verify_temporal_overlap: bool = True,  # noqa: ARG001 - see the docstring
    verify_gpu_attribution: bool = True,  # noqa: ARG001 - see the docstring
) -> AggregatedResult:
    """Return one result from the raw results of an experiment's processes, in any order.

    If a process is missing, the sums are too low. `is_lower_bound`, `completeness` and the warnings then mark the
    result as a lower bound. With `strict`, the function raises an error instead.

    By default, energy, tokens and FLOPs are sums over processes. Throughput is the mean over the processes that report
    a throughput. Latency percentiles are computed from the samples of all processes together.

    Args:
        experiment_id: The experiment's id, or its folder name.
        raw_results: The results, one per process. At least one result or one checkpoint is needed.
        strategy: Name of the rule; see `llm_energy_measure.results.strategies`.
        expected_processes: Number of processes that the experiment should have, at least 1. By default, the number in
            the manifest or in the results.
        manifest: The experiment's manifest, if there is one.
        unreadable: Raw files that can't be read.
        partials: Checkpoints of processes. The checkpoint of a missing process is used as a lower bound of its result.
            `completeness` still reports the process as missing.
        strict: Refuse an incomplete experiment.
        allow_mixed: Accept results of different experiments, models or backends.
        assume: Facts that the records don't contain, for the attribution. The result records them.
        allow_mixed_backends: Another name of `allow_mixed`, for scripts that were written for the first tool of this
            file format.
        verify_temporal_overlap: Ignored, because the check always runs. The same scripts pass it.
        verify_gpu_attribution: Ignored, because the check always runs. The same scripts pass it.

    Raises:
        AggregationError: There is no result, a result has an invalid value, the strategy fails, or a sum exceeds the
            range of a float.
        IncompleteExperimentError: `strict` is True, and a process is missing or the manifest is unreadable.
        IncompatibleResultsError: The results are not of one experiment, or one process has two results.
        ConfigurationError: The strategy is unknown, or the number of processes is out of range.

    Example:
        >>> from llm_energy_measure.results import FileSystemRepository, aggregate_results
        >>> repository = FileSystemRepository("results")
        >>> result = aggregate_results("exp_42", repository.load_all_raw("exp_42"))  # doctest: +SKIP
    """
    options = AggregationOptions(
        strategy=strategy,
        expected_processes=expected_processes,
        manifest=manifest,
        unreadable=unreadable,
        partials=partials,
        strict=strict,
        allow_mixed=allow_mixed or allow_mixed_backends,
        assume=assume,
    )
    with refuse_overflow(experiment_id):
        experiment = require_one_experiment(experiment_id, raw_results, options)
        totals = combine(experiment)
        verification = verify_evidence(experiment.evidence)
        return build_result(experiment, totals, verification)


@contextlib.contextmanager
def refuse_overflow(experiment_id: str) -> Iterator[None]:
    """Raise `AggregationError` if a sum exceeds the range of a float."""
    try:
        yield
    except OverflowError as error:
        found = f"a sum exceeds the range of a float ({error})"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, "check the values") from error


# Step 1: check that the results belong to one experiment


def require_one_experiment(
    experiment_id: str, raw_results: Sequence[RawProcessResult], options: AggregationOptions
) -> Experiment:
    """Return the experiment, after all checks of its raw results. Raises the errors of `aggregate_results`."""
    strategy = get_strategy(options.strategy)
    _require_process_count(experiment_id, options.expected_processes)
    results = [_valid(experiment_id, result) for result in raw_results]
    partials = [_valid(experiment_id, result) for result in options.partials]
    if not results and not partials:
        raise _no_result(experiment_id, options)
    report = check_completeness(
        results,
        expected_processes=options.expected_processes,
        manifest=options.manifest,
        unreadable=options.unreadable,
    )
    unfinished = [] if report.is_complete else [one for one in partials if one.process_index in report.missing]
    records = sorted([*results, *unfinished], key=attrgetter("process_index", "experiment_id"))
    if not options.allow_mixed:
        _require_same_experiment(experiment_id, records)
        experiment_id = records[0].experiment_id
    _require_distinct_processes(experiment_id, records)
    if options.strict:
        require_complete(experiment_id, report)
    evidence = evidence_of(experiment_id, records, report, options.manifest, options.assume)
    return Experiment(experiment_id=experiment_id, records=records, strategy=strategy, evidence=evidence)


def _require_process_count(experiment_id: str, expected: int | None) -> None:
    if expected is not None and not (type(expected) is int and 1 <= expected <= MAX_PROCESSES):
        found = f"expected_processes is {expected!r}"
        advice = f"pass an integer from 1 to {MAX_PROCESSES}"
        raise ConfigurationError(f"cannot aggregate {experiment_id!r}", found, advice)


def _no_result(experiment_id: str, options: AggregationOptions) -> AggregationError:
    unreadable = options.unreadable
    found = "; ".join(f"{file.name}: {file.reason}" for file in unreadable) or "it has no results"
    advice = f"{'repair the files' if unreadable else 'check the id'}, or run the experiment again"
    if options.manifest is not None and not unreadable:
        reason = "its processes were killed, or have not ended"
        found, advice = f"it has no results and no checkpoints: {reason}", "run the experiment again"
        if options.strict:
            found = f"it has no results: {reason}"
            advice = f"run 'llm-energy-measure aggregate {experiment_id} --no-strict' to use the last checkpoints"
    return AggregationError(f"cannot aggregate {experiment_id!r}", found, advice)


def _valid(experiment_id: str, result: RawProcessResult) -> RawProcessResult:
    """Return the result with valid values; raise `AggregationError` if a value is not valid.

    Without this check, one NaN would make a sum NaN. A result that was loaded from a store is not checked again.
    """
    if getattr(result, "stored", None) is not None:
        return result
    try:
        checked = codec.require_valid_raw(result)
    except InvalidResultError as refused:
        # Contradictory timestamps do not prevent the aggregation. The verification reports them as a finding.
        with contextlib.suppress(AttributeError, TypeError):
            if [*refused.problems] == timestamp_problems(result):
                return result
        found, advice = refused.found, "load the results first (load_all_raw)"
        if hasattr(result, "process_index"):
            found = f"process {result.process_index!r}: {found}"
            advice = "correct this value, or set it to None if it is unknown"
        raise AggregationError(f"cannot aggregate {experiment_id!r}", found, advice) from refused
    # Comparing numpy arrays can raise an error. The function then returns the checked copy, which contains lists.
    with contextlib.suppress(Exception):
        if checked == result:
            return result  # the equal copy can be freed
    return checked


def _require_same_experiment(experiment_id: str, results: Sequence[RawProcessResult]) -> None:
    """Raise `IncompatibleResultsError` for results of different experiments, models or backends."""
    first = results[0]
    if experiment_id != first.experiment_id and not names_folder(first.experiment_id, experiment_id):
        raise _incompatible(experiment_id, "experiment_id", experiment_id, first.experiment_id, first.process_index)
    for name in ("experiment_id", "model_name", "backend"):
        compared = [result for result in results if name != "backend" or not _is_one_side(result)]
        for result in compared[1:]:
            one, other = getattr(compared[0], name), getattr(result, name)
            if one != other:
                raise _incompatible(experiment_id, name, one, other, result.process_index)


def _is_one_side(result: RawProcessResult) -> bool:
    """Return True for a record without backend whose process measured only energy or counted only tokens.

    An experiment can consist of a server process that measures energy and a client process that counts tokens.
    """
    one_side = result.inference_metrics is None or result.energy_metrics.sensors == []
    return one_side and result.backend is None


def _require_distinct_processes(experiment_id: str, results: Sequence[RawProcessResult]) -> None:
    """Raise `IncompatibleResultsError` if a process has two results, because its energy would be counted twice."""
    for one, other in pairwise(results):
        if (one.process_index, one.experiment_id) == (other.process_index, other.experiment_id):
            found = f"there are two results of process {one.process_index}"
            refused = IncompatibleResultsError(f"cannot aggregate {experiment_id!r}", found, "pass one per process")
            refused.field, refused.values = "process_index", (one.process_index, other.process_index)
            raise refused


def _incompatible(
    experiment_id: str, field: str, one: object, other: object, process_index: int
) -> IncompatibleResultsError:
    found = f"{field} is {one!r}, and in process {process_index} it is {other!r}"
    advice = "aggregate the results separately, or in Python pass allow_mixed=True"
    refused = IncompatibleResultsError(f"cannot aggregate {experiment_id!r}", found, advice)
    refused.field, refused.values = field, (one, other)
    return refused


def require_complete(experiment_id: str, report: CompletenessReport) -> None:
    """Raise `IncompleteExperimentError` if an experiment is incomplete, or if its completeness is unknown.

    Raises:
        IncompleteExperimentError: A process is missing, or the manifest, which has the number of processes, is
            unreadable.
    """
    is_unknown = report.expected_from != "argument" and any(file.name == MANIFEST_NAME for file in report.unreadable)
    if report.is_complete and not is_unknown:
        return
    doing = f"cannot aggregate {experiment_id!r} strictly"
    if report.is_complete:
        advice = "pass the number of processes (--expected-processes N), or remove the manifest"
        refused = IncompleteExperimentError(doing, describe_unreadable(report), advice)
    else:
        first = "run 'llm-energy-measure results check'" if report.unreadable else "run the missing processes"
        advice = f"{first}, or accept a lower bound (--no-strict, strict=False)"
        refused = IncompleteExperimentError(doing, describe_missing(report), advice)
    refused.report = report
    raise refused


# Step 2: combine


def combine(experiment: Experiment) -> Totals:
    """Return the totals that the strategy of the experiment computes from its records."""
    try:
        return experiment.strategy.combine(experiment.records)
    except Exception as error:  # a strategy of another package can raise any error
        name = experiment.strategy.name
        found = f"the strategy {name!r} failed on the records of this experiment ({type(error).__name__}: {error})"
        doing = f"cannot aggregate {experiment.experiment_id!r}"
        raise AggregationError(doing, found, "check the records of its processes") from error


# Step 3, verify, is the function `verify_evidence`. Step 4: build the result


def build_result(experiment: Experiment, totals: Totals, verification: Verification) -> AggregatedResult:
    """Return the aggregated result of an experiment from its records, its totals and its verification."""
    records, evidence = experiment.records, experiment.evidence
    first, attribution = records[0], verification.attribution
    backend = next((record for record in records if record.backend is not None), first)
    latencies = [metrics.latency_measurements for metrics in evidence.inference_metrics if metrics is not None]
    return AggregatedResult(
        experiment_id=experiment.experiment_id,
        backend=backend.backend,
        backend_version=backend.backend_version,
        model_name=first.model_name,
        aggregation=_metadata(experiment, verification),
        **structs.asdict(totals),
        avg_energy_per_token_j=ratio(totals.total_energy_j, totals.total_tokens),
        process_results=list(records),
        start_time=evidence.started[0] if evidence.started else None,
        end_time=evidence.ended[1] if evidence.ended else None,
        effective_config=first.effective_config,
        cli_overrides=first.cli_overrides,
        config_warnings=list(dict.fromkeys([text for record in records for text in record.config_warnings])),
        latency_stats=pool_latency([latency for latency in latencies if latency is not None]),
        is_lower_bound=_is_lower_bound(evidence, verification),
        completeness=evidence.report,
        sources=_sources(evidence.stored),
        plain_energy_j=attribution.plain_j,
        partial_energy_j=_partial_energy_j(evidence),
        attributed_energy_j=attribution.energy_j,
        attributed_bounds_j=attribution.bounds_j,
        attribution_factor=attribution.factor,
        attribution_rule=verification.rule,
        attribution_status=attribution.status,
        attribution_basis=attribution.basis,
        attributed_gpu_energy_j=attribution.gpu_j,
        attributed_cpu_energy_j=attribution.cpu_j,
        attributed_ram_energy_j=attribution.ram_j,
        assumptions=UNSET if evidence.assume == Assumptions() else evidence.assume,
        findings=verification.to_store,
    )


def _partial_energy_j(evidence: Evidence) -> float | None:
    """Return the sum of the known energies, in joules, if a process has component energies and no total; else None."""
    if None not in evidence.totals_j:
        return None
    known = [energy.known_energy_j for energy in evidence.energies]
    return math.fsum(part or 0.0 for part in known) if known != evidence.totals_j else None


def _metadata(experiment: Experiment, verification: Verification) -> AggregationMetadata:
    return AggregationMetadata(
        method=experiment.strategy.name,
        num_processes=len(experiment.records),
        temporal_overlap_verified=flags.temporal_overlap_verified(verification.outcomes),
        gpu_attribution_verified=flags.gpu_attribution_verified(verification.outcomes),
        warnings=_warnings(verification, num_processes=len(experiment.records)),
    )


def _is_lower_bound(evidence: Evidence, verification: Verification) -> bool:
    """Return True if a process or an energy value is missing, a record is partial, or a sensor stopped."""
    is_cut_short = evidence.any_sensors and any(energy.is_lower_bound for energy in evidence.energies)
    codes = ("completeness.no_energy", "completeness.sensor_time")
    lacks_energy = any(verification.outcomes.get(code) == "failed" for code in codes)
    is_part = any(record.status == "partial" for record in evidence.records)
    return bool(evidence.report.missing) or lacks_energy or is_cut_short or is_part


def _warnings(verification: Verification, num_processes: int) -> list[str]:
    """Return one sentence for each important finding, such as double counting, missing energy or impossible times.

    If `temporal_overlap_verified` or `gpu_attribution_verified` is False, a sentence gives the reason. The findings of
    the aggregate contain the details and the less important problems.
    """
    failures = [finding for finding in verification.to_store if finding.outcome == "failed"]
    codes = {finding.code for finding in failures}
    of_sum = next((finding for finding in failures if finding.family in SUM_FAMILIES), None)
    warnings = [] if of_sum is None else [_sum_warning(of_sum, verification)]
    if "completeness.missing_process" in codes:
        codes.discard("completeness.unreadable_file")  # missing_process names these files too
    return [
        *warnings,
        *flags.flag_warnings(verification.to_store, num_processes),
        *(finding.message for finding in failures if finding.code in codes & _WARNED),
    ]


def _sum_warning(first: Finding, verification: Verification) -> str:
    """Return one sentence that says why the plain sum is wrong or uncertain, with the factor if it is known."""
    attribution = verification.attribution
    if attribution.factor is None or attribution.factor <= 1:
        return first.message
    return (
        f"{first.message} (plain sum {joules(attribution.plain_j)}, attributed {joules(attribution.energy_j)}, "
        f"factor {attribution.factor:.3g})"
    )


def _sources(stored: Sequence[StoredBytes | None]) -> list[SourceFile] | None:
    """Return the source files of the results; None if a result was not loaded from a file."""
    sources = [one.source for one in stored if one is not None]
    return sources if len(sources) == len(stored) else None


# Efficiency


def calculate_efficiency_metrics(
    aggregated: AggregatedResult, energy: Literal["plain", "attributed"] = "plain"
) -> dict[str, float]:
    """Return the efficiency of an experiment. A figure is NaN, never 0, if it is unknown or its denominator is 0.

    Args:
        aggregated: The experiment's result.
        energy: `plain` divides by the total of the strategy (by default the plain sum), `attributed` by the attributed
            energy. An undetermined attributed energy counts as unknown.

    Returns:
        `tokens_per_joule` (token/J), `joules_per_token` (J/token), `flops_per_joule` (FLOP/J), `tokens_per_second`
        (token/s, mean over the processes) and `effective_batch_throughput` (token/s).

        `effective_batch_throughput` is `tokens_per_second` times the number of processes that report a throughput. If
        the strategy computes the throughput of the whole experiment, the two figures are equal.
    """
    energy_j = aggregated.total_energy_j if energy == "plain" else aggregated.attributed_energy_j
    tokens = aggregated.total_tokens
    throughput = aggregated.avg_tokens_per_second
    reporting = sum(
        result.inference_metrics is not None and result.inference_metrics.tokens_per_second is not None
        for result in aggregated.process_results
    )
    if aggregated.aggregation.method in WHOLE_THROUGHPUT:
        reporting = 1
    metrics = {
        "tokens_per_joule": ratio(tokens, energy_j),
        "joules_per_token": ratio(energy_j, tokens),
        "flops_per_joule": ratio(aggregated.total_flops, energy_j),
        "tokens_per_second": throughput,
        "effective_batch_throughput": None
        if throughput is None
        else throughput * (reporting or aggregated.aggregation.num_processes),
    }
    return {name: NAN if value is None else value for name, value in metrics.items()}
