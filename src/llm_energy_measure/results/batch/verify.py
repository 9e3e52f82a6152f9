"""Verify stored experiments: recompute each result from its raw files, and compare it with the stored aggregate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from llm_energy_measure.constants import DEFAULT_STRATEGY, MANIFEST_NAME, RAW_DIR
from llm_energy_measure.domain.experiment import (
    AggregatedResult,
    AggregatedSummary,
    AttributionStatus,
    Manifest,
    RawProcessResult,
)
from llm_energy_measure.domain.findings import Finding, Outcome
from llm_energy_measure.domain.formatting import natural_key
from llm_energy_measure.exceptions import (
    AggregationError,
    ConfigurationError,
    ExperimentIdError,
    IncompatibleResultsError,
    ResultsError,
)
from llm_energy_measure.results.aggregation import (
    AggregationOptions,
    build_result,
    combine,
    refuse_overflow,
    require_one_experiment,
)
from llm_energy_measure.results.batch.comparison import check_integrity, compare_aggregates, compare_sources
from llm_energy_measure.results.batch.jobs import run_batches
from llm_energy_measure.results.batch.recovery import recover_from
from llm_energy_measure.results.batch.state import expects_other_number, stated_processes
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.layout import is_folder_name, names_folder, raw_folder
from llm_energy_measure.results.store.raw_folder import RawRecovery
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.prefetch import prefetch
from llm_energy_measure.verification.checks import Verification, verify_evidence
from llm_energy_measure.verification.codes import failed, not_checked, passed
from llm_energy_measure.verification.completeness import check_completeness
from llm_energy_measure.verification.concurrency import concurrency_findings, sensor_uses
from llm_energy_measure.verification.suspicions import sweep_suspicions
from llm_energy_measure.verification.verdicts import VERDICTS, Verdict, verdict_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

# Number of experiments in a batch. Small batches keep all workers busy; large batches need fewer round trips.
_BATCH_SIZE = 64

_STALE_CODES = ("sources.missing", "sources.changed", "sources.added")


class VerifiedExperiment(Struct, frozen=True, kw_only=True):
    """The result of the verification of one stored experiment.

    Attributes:
        experiment_id: The experiment's own id, or its folder name if no file can be read.
        outcome: `failed` if there is an error, `passed` if a check passed, else `not_checked`.
        verdict: One word of `verification.verdicts`. It describes the result that the current raw files give, unless
            the stored aggregate is altered, stale or unreadable.
        total_energy_j: The plain sum over processes, in joules; None if unknown.
        partial_energy_j: Sum of the known energies if a process has components without a total, in joules; else None.
        is_lower_bound: True if the sums are too low, because data are missing.
        attributed_energy_j: Energy with each joule counted once, in joules.
        attributed_bounds_j: Least and greatest energy that the records allow, in joules.
        attribution_status: `exact`, `estimated` or `undetermined`.
        attribution_basis: Reasons why the energy is estimated; `assumed` if the user stated a fact.
        factor: Plain sum divided by attributed energy.
        findings: All findings, including passed ones.
    """

    experiment_id: str
    outcome: Outcome
    verdict: Verdict
    total_energy_j: float | None = None
    partial_energy_j: float | None = None
    is_lower_bound: bool | None = None
    attributed_energy_j: float | None = None
    attributed_bounds_j: tuple[float, float] | None = None
    attribution_status: AttributionStatus | None = None
    attribution_basis: list[str] = field(default_factory=list)
    factor: float | None = None
    findings: list[Finding] = field(default_factory=list)


def names_to_verify(repository: FileSystemRepository) -> list[str]:
    """Return in natural order the folders of all experiments with a raw result, an aggregate or a manifest."""
    known = {*repository.list_experiments(), *repository.list_aggregated()}
    folders = (entry.name for entry in repository.store.list(RAW_DIR) if entry.is_folder)
    others = [name for name in folders if name not in known and is_folder_name(name)]
    names = known.union(name for name in others if _has_manifest(repository, name))
    return sorted(names, key=natural_key)


def _has_manifest(repository: FileSystemRepository, folder: str) -> bool:
    """Return True if a folder has a manifest, readable or not."""
    return any(entry.name == MANIFEST_NAME for entry in repository.store.list(raw_folder(folder)))


def verify_experiment(repository: FileSystemRepository, experiment_id: str) -> VerifiedExperiment:
    """Return the verdict on an experiment: the findings on its raw files and on its aggregate.

    A damaged file raises no error; it gives a finding.

    Raises:
        ExperimentIdError: The id is not valid, or another experiment owns its folder.
    """
    with Folder(repository.store, RAW_DIR) as raw:
        return _verify(repository, experiment_id, raw)[0]


def verify_all(
    repository: FileSystemRepository,
    experiment_ids: Iterable[str] | None = None,
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
) -> Iterator[VerifiedExperiment]:
    """Yield the verdicts on many experiments, in order, with the findings that need several experiments.

    All experiments are read before the first verdict, because two findings need a comparison of experiments. These
    findings are an energy that grows with the number of processes, and a sensor that two experiments read at the same
    time. No file is written.

    Args:
        repository: The results directory.
        experiment_ids: Ids or folder names. None verifies all experiments with a raw result, an aggregate or a
            manifest, in natural order of their folder names.
        jobs: See `aggregate_all`.
        executor: A `concurrent.futures.Executor` that verifies the experiments, such as that of Dask or MPI. All its
            workers must have access to the results directory.

    Example:
        >>> from llm_energy_measure.results import FileSystemRepository, verify_all
        >>> {one.experiment_id: one.verdict for one in verify_all(FileSystemRepository("results"))}
        ... # doctest: +ELLIPSIS
        {'smollm2_b1_c0': 'complete', ...}
    """
    names = names_to_verify(repository) if experiment_ids is None else experiment_ids
    verdicts, results = [], []
    verify = partial(_verify_batch, repository)
    for verdict, aggregated in run_batches(verify, _batches(names), jobs=jobs, executor=executor):
        verdicts.append(verdict)
        if aggregated is not None:
            results.append(aggregated)
    suspicions = sweep_suspicions(results)
    uses = (use for result in results for use in sensor_uses(result.experiment_id, result.process_results))
    concurrent = concurrency_findings(uses)
    for verdict in verdicts:
        found = [
            source[verdict.experiment_id] for source in (suspicions, concurrent) if verdict.experiment_id in source
        ]
        yield msgspec.structs.replace(verdict, findings=[*verdict.findings, *found]) if found else verdict


def _batches(experiment_ids: Iterable[str]) -> Iterator[list[str]]:
    names = iter(experiment_ids)
    while batch := list(islice(names, _BATCH_SIZE)):
        yield batch


def _verify_batch(
    repository: FileSystemRepository, names: Sequence[str]
) -> list[tuple[VerifiedExperiment, AggregatedResult | None]]:
    """Return the verdict on each experiment, and its recomputed result without samples."""
    with (
        Folder(repository.store, RAW_DIR) as raw,
        closing(prefetch(raw, names, lambda name: name if is_folder_name(name) else None)) as prefetched,
    ):
        pairs = [_verify(repository, name, raw) for name in prefetched]
    return [(verdict, None if result is None else _without_samples(result)) for verdict, result in pairs]


def _without_samples(aggregated: AggregatedResult) -> AggregatedResult:
    """Return the result without parts that take much memory and that no comparison of experiments needs."""
    processes = [
        msgspec.structs.replace(
            process,
            effective_config={},
            inference_metrics=None
            if process.inference_metrics is None
            else msgspec.structs.replace(process.inference_metrics, latency_measurements=None),
        )
        for process in aggregated.process_results
    ]
    return msgspec.structs.replace(aggregated, process_results=processes, findings=None, latency_stats=None)


def _verify(
    repository: FileSystemRepository, name: str, raw: Folder
) -> tuple[VerifiedExperiment, AggregatedResult | None]:
    """Return the verdict on an experiment, and its recomputed result; None if it can't be recomputed."""
    folder = repository.folder_of(name)
    data, stored, finding = _read_aggregate(repository, name, folder)
    findings = [finding]
    try:
        # `recover_raw` also checks that the experiment with this id owns the folder.
        recovery = recover_from(repository, raw, folder) if name == folder else repository.recover_raw(name)
    except ExperimentIdError:
        raise
    except ResultsError as error:
        findings.append(failed("aggregate.possible", f"the raw files can't be read: {error.found}"))
        return VerifiedExperiment(experiment_id=folder, outcome="failed", verdict="unreadable", findings=findings), None
    partials = _included_checkpoints(recovery, stored)
    recomputed, verification, finding = _recompute(folder, recovery, partials, stored)
    findings.append(finding)
    if recomputed is None and _is_interrupted(stored, recovery):
        findings.append(_no_result(recovery.manifest))
    if stored is not None and data is not None:
        findings.append(check_integrity(stored, recomputed))
        source_findings = list(compare_sources(stored, [*recovery.results, *partials], recovery.unreadable, data))
        findings += source_findings
        findings += _compare(stored, recomputed, source_findings)
    if verification is None or recomputed is None:
        verdict = VerifiedExperiment(
            experiment_id=stored.experiment_id if stored is not None else folder,
            outcome=_outcome(findings),
            verdict=_verdict(stored, recovery, recomputed, findings),
            total_energy_j=None if stored is None or stored.integrity == "altered" else stored.total_energy_j,
            findings=findings,
        )
        return verdict, None
    findings += verification.findings
    attribution = verification.attribution
    verdict = VerifiedExperiment(
        experiment_id=recomputed.experiment_id,
        outcome=_outcome(findings),
        verdict=_verdict(stored, recovery, recomputed, findings),
        total_energy_j=attribution.plain_j,
        partial_energy_j=recomputed.partial_energy_j,
        is_lower_bound=recomputed.is_lower_bound,
        attributed_energy_j=attribution.energy_j,
        attributed_bounds_j=attribution.bounds_j,
        attribution_status=recomputed.attribution_status,
        attribution_basis=recomputed.attribution_basis or [],
        factor=attribution.factor,
        findings=findings,
    )
    return verdict, recomputed


def _read_aggregate(
    repository: FileSystemRepository, name: str, folder: str
) -> tuple[bytes | None, AggregatedSummary | None, Finding]:
    """Return the bytes of the stored aggregate, the aggregate, and the finding that says whether it is readable."""
    code = "aggregate.readable"
    data: bytes | None = None
    try:
        data = repository.read_aggregated(name)
        if data is None:
            return None, None, not_checked(code, "it is not aggregated yet")
        stored = codec.decode_summary(data, f"{folder}.json")
        if not names_folder(stored.experiment_id, folder):
            return data, None, failed(code, f"the file is the aggregate of {stored.experiment_id!r}")
        return data, stored, passed(code)
    except ResultsError as error:
        return data, None, failed(code, f"the aggregate can't be read: {error.found}")


def _included_checkpoints(recovery: RawRecovery, stored: AggregatedSummary | None) -> list[RawProcessResult]:
    """Return the checkpoints that the stored aggregate includes in place of missing results.

    Without a stored aggregate, all checkpoints are returned, because `aggregate --no-strict` would include them.
    """
    if stored is None:
        return recovery.partials
    sources = {source.name for source in stored.sources or ()}
    return [record for record in recovery.partials if record.stored and record.stored.source.name in sources]


def _recompute(
    folder: str, recovery: RawRecovery, partials: Sequence[RawProcessResult], stored: AggregatedSummary | None
) -> tuple[AggregatedResult | None, Verification | None, Finding]:
    """Return the aggregate, recomputed with the options of the stored aggregate, and the finding of this step."""
    code = "aggregate.possible"
    records = recovery.results or partials
    if _is_interrupted(stored, recovery) and not records:
        return None, None, not_checked(code, VERDICTS["interrupted"])
    if not records:
        reasons = "; ".join(f"{file.name}: {file.reason}" for file in recovery.unreadable)
        return None, None, failed(code, f"no raw result can be read{f': {reasons}' if reasons else ''}")
    strategy = stored.aggregation.method if stored is not None and stored.sources is not None else DEFAULT_STRATEGY
    expected_processes = stated_processes(stored) if stored is not None else None
    finding = passed(code)
    try:
        # The second try accepts records that don't belong together. The third try also replaces a strategy that is not
        # installed.
        for attempted_strategy, allow_mixed in ((strategy, False), (strategy, True), (DEFAULT_STRATEGY, True)):
            options = AggregationOptions(
                strategy=attempted_strategy,
                expected_processes=expected_processes or None,
                manifest=recovery.manifest,
                unreadable=recovery.unreadable,
                partials=partials,
                allow_mixed=allow_mixed,
                assume=(stored.assumptions or None) if stored is not None else None,
            )
            try:
                name = folder if allow_mixed else records[0].experiment_id
                recomputed, verification = _aggregate_and_verify(name, recovery.results, options)
            except (IncompatibleResultsError, ConfigurationError) as error:
                finding = failed(code, f"{error.found}; {error.advice}")
            else:
                return recomputed, verification, finding
    except AggregationError as error:
        finding = failed(code, error.found)
    return None, None, finding


def _is_interrupted(stored: AggregatedSummary | None, recovery: RawRecovery) -> bool:
    """Return True if an experiment without aggregate has a manifest and no result, readable or not."""
    has_results = bool(recovery.results or recovery.unreadable)
    return stored is None and recovery.manifest is not None and not has_results


def _no_result(manifest: Manifest | None) -> Finding:
    """Return the finding about an experiment whose processes have no result and no checkpoint."""
    missing = check_completeness([], manifest=manifest).missing
    label = "process is" if len(missing) == 1 else "processes are"
    expected = f"; {len(missing)} {label} expected" if missing else ""
    return failed(
        "completeness.missing_process",
        f"{VERDICTS['interrupted']}{expected}",
        expected=float(len(missing)) or None,
        found=0.0,
        processes=missing[:100],
    )


def _aggregate_and_verify(
    name: str, results: Sequence[RawProcessResult], options: AggregationOptions
) -> tuple[AggregatedResult, Verification]:
    """Return the result of `aggregate_results`, and the verification with the findings of all checks."""
    with refuse_overflow(name):
        experiment = require_one_experiment(name, results, options)
        verification = verify_evidence(experiment.evidence)
        return build_result(experiment, combine(experiment), verification), verification


def _compare(
    stored: AggregatedSummary, recomputed: AggregatedResult | None, source_findings: Iterable[Finding]
) -> Iterable[Finding]:
    code = "aggregate.recomputed"
    if recomputed is None:
        return [not_checked(code, "the raw files can't be aggregated")]
    is_stale = any(finding.outcome == "failed" and finding.code in _STALE_CODES for finding in source_findings)
    if is_stale and stored.integrity != "altered":
        return [not_checked(code, "the raw files differ from the sources of the aggregate")]
    return compare_aggregates(stored, recomputed)


def _outcome(findings: Collection[Finding]) -> Outcome:
    if any(finding.problem == "error" for finding in findings):
        return "failed"
    return "passed" if any(finding.outcome == "passed" for finding in findings) else "not_checked"


def _verdict(
    stored: AggregatedSummary | None,
    recovery: RawRecovery,
    recomputed: AggregatedResult | None,
    findings: Collection[Finding],
) -> Verdict:
    failed_codes = {finding.code for finding in findings if finding.outcome == "failed"}
    if "aggregate.readable" in failed_codes:
        return "unreadable"
    if "aggregate.altered" in failed_codes:
        return "altered"
    if stored is not None and (
        not failed_codes.isdisjoint(_STALE_CODES) or expects_other_number(recovery.manifest, stored.completeness)
    ):
        return "stale"
    if recomputed is not None and not _is_interrupted(stored, recovery):
        return verdict_of(recomputed, findings, integrity=stored.integrity if stored is not None else None)
    return _verdict_without_result(recovery)


def _verdict_without_result(recovery: RawRecovery) -> Verdict:
    """Return the verdict on raw files that give no result, or only the checkpoints of killed processes."""
    if recovery.results:
        return "failed"
    if recovery.unreadable:
        return "failed" if recovery.partials else "unreadable"
    return "interrupted" if recovery.manifest is not None else "failed" if recovery.partials else "pending"
