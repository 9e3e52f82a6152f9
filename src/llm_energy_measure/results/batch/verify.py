"""Verification of stored experiments: everything anew from the raw bytes, beside what the aggregate says."""

from __future__ import annotations

import math
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, TypeGuard

import msgspec
from msgspec import Struct, field

from llm_energy_measure.constants import MANIFEST_NAME, RAW_DIR
from llm_energy_measure.domain.findings import Finding, Outcome
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
from llm_energy_measure.results.batch.recovery import recover_from
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.layout import folder_name, is_folder_name
from llm_energy_measure.results.strategies import DEFAULT_STRATEGY
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.prefetch import prefetch
from llm_energy_measure.verification.checks import verify_evidence
from llm_energy_measure.verification.codes import failed, not_checked, passed
from llm_energy_measure.verification.suspicions import sweep_suspicions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from llm_energy_measure.domain.experiment import AggregatedResult, AggregatedSummary, RawProcessResult, SourceFile
    from llm_energy_measure.results.repository import FileSystemRepository
    from llm_energy_measure.results.store.raw_folder import RawRecovery
    from llm_energy_measure.verification.checks import Verification

AGREEMENT = 1e-9
"""Fraction by which a number of an aggregate may differ from the same number made anew."""

# What the strategy makes, which every aggregate has.
_TOTALS = (
    *("total_energy_j", "total_tokens", "total_inference_time_sec", "avg_tokens_per_second", "avg_energy_per_token_j"),
    *("total_flops", "aggregation.num_processes"),
)
# What follows from the raw files under any rule.
_FACTS = (
    *("experiment_id", "backend", "backend_version", "model_name", "start_time", "end_time", "latency_stats"),
    *("effective_config", "cli_overrides", "config_warnings", "is_lower_bound", "completeness", "sources"),
    *("aggregation.temporal_overlap_verified", "plain_energy_j"),
)
# What follows from them under one rule of attribution.
_ATTRIBUTED = (
    *("attributed_energy_j", "attributed_bounds_j", "attribution_factor", "attribution_status", "attribution_basis"),
    *("attributed_gpu_energy_j", "attributed_cpu_energy_j", "attributed_ram_energy_j"),
    *("aggregation.gpu_attribution_verified", "aggregation.warnings", "failed_codes"),
)
_MAX_SHOWN = 200


class Verdict(Struct, frozen=True, kw_only=True):
    """What verification says of one stored experiment, made anew from its raw files.

    Attributes:
        experiment_id: The experiment's own id, or its folder's name where no file can be read.
        outcome: `failed` if there is an error, `not_checked` if no check was possible, else `passed`.
        total_energy_j: Plain sum, in joules; None if unknown.
        attributed_energy_j: Energy with every joule counted once, in joules.
        attributed_bounds_j: Least and greatest energy that the evidence allows, in joules.
        factor: How often the plain sum counts the attributed energy.
        findings: Every finding, those that passed included.
    """

    experiment_id: str
    outcome: Outcome
    total_energy_j: float | None = None
    attributed_energy_j: float | None = None
    attributed_bounds_j: tuple[float, float] | None = None
    factor: float | None = None
    findings: list[Finding] = field(default_factory=list)


def verify_experiment(repository: FileSystemRepository, experiment_id: str) -> Verdict:
    """What the raw files of an experiment say, and whether its aggregate says the same.

    Nothing that is wrong with the files makes it raise: it is among the findings.

    Args:
        repository: Where it is stored.
        experiment_id: Its id or folder name.

    Raises:
        ExperimentIdError: No experiment can have that id, or its folder is another's.
    """
    with Folder(repository.store, RAW_DIR) as raw:
        return _verify(repository, experiment_id, raw)[0]


def verify_experiments(
    repository: FileSystemRepository, experiment_ids: Iterable[str], *, sweeps: bool = True
) -> Iterator[Verdict]:
    """Verdicts on many experiments, one by one, and what only several of them together show.

    Args:
        repository: Where they are stored.
        experiment_ids: Which, by id or folder name.
        sweeps: Look also for energy that grows with the number of processes; that needs all experiments, so that
            no verdict comes before the last experiment was read.
    """
    with (
        Folder(repository.store, RAW_DIR) as raw,
        closing(prefetch(raw, experiment_ids, lambda name: name if is_folder_name(name) else None)) as names,
    ):
        if not sweeps:
            for name in names:
                yield _verify(repository, name, raw)[0]
            return
        verdicts, results = [], []
        for name in names:
            verdict, aggregated = _verify(repository, name, raw)
            verdicts.append(verdict)
            if aggregated is not None:
                results.append(_sketch(aggregated))
    grown = sweep_suspicions(results)
    for verdict in verdicts:
        finding = grown.get(verdict.experiment_id)
        yield verdict if finding is None else msgspec.structs.replace(verdict, findings=[*verdict.findings, finding])


def _sketch(aggregated: AggregatedResult) -> AggregatedResult:
    """What a sweep needs of an experiment, without the bytes and samples that weigh."""
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


def _verify(repository: FileSystemRepository, name: str, raw: Folder) -> tuple[Verdict, AggregatedResult | None]:
    folder = repository.folder_of(name)
    stored: AggregatedSummary | None = None
    data: bytes | None = None
    findings: list[Finding] = []
    try:
        data = repository.read_aggregated(name)
        if data is not None:
            stored = codec.decode_summary(data, f"{folder}.json")
    except ResultsError as error:
        findings.append(failed("aggregate.readable", f"the aggregate can't be read: {error.found}"))
    else:
        reason = "it is not aggregated yet"
        findings.append(passed("aggregate.readable") if data is not None else not_checked("aggregate.readable", reason))
    try:
        # By an id that is not its folder's name, the folder has first to be known for its own.
        recovery = recover_from(repository, raw, folder) if name == folder else repository.recover_raw(name)
    except ExperimentIdError:
        raise
    except ResultsError as error:
        findings.append(failed("aggregate.possible", f"the raw files can't be read: {error.found}"))
        return Verdict(experiment_id=folder, outcome="failed", findings=findings), None
    anew, verification, problem = _anew(folder, recovery, stored)
    findings.append(problem)
    if stored is not None and data is not None:
        source_findings = list(_check_sources(recovery, stored, data))
        findings += source_findings
        findings.append(_compare(stored, anew, is_same=all(found.outcome != "failed" for found in source_findings)))
    if verification is None or anew is None:
        verdict = Verdict(
            experiment_id=stored.experiment_id if stored is not None else folder,
            outcome=_outcome(findings),
            total_energy_j=stored.total_energy_j if stored is not None else None,
            findings=findings,
        )
        return verdict, None
    findings += verification.findings
    attribution = verification.attribution
    verdict = Verdict(
        experiment_id=anew.experiment_id,
        outcome=_outcome(findings),
        total_energy_j=attribution.plain_j,
        attributed_energy_j=attribution.energy_j,
        attributed_bounds_j=attribution.bounds_j,
        factor=attribution.factor,
        findings=findings,
    )
    return verdict, anew


def _anew(
    folder: str, recovery: RawRecovery, stored: AggregatedSummary | None
) -> tuple[AggregatedResult | None, Verification | None, Finding]:
    """The aggregate made anew as it was made before, and what was found on the way."""
    code = "aggregate.possible"
    partials = _counted_partials(recovery, stored)
    records = recovery.results or partials
    if not records:
        reasons = "; ".join(f"{file.name}: {file.reason}" for file in recovery.unreadable)
        return None, None, failed(code, f"no raw result can be read{f': {reasons}' if reasons else ''}")
    told = stored.completeness if stored is not None else None
    expected = told.expected_processes if told is not None and told.expected_from == "argument" else None
    strategy = stored.aggregation.method if stored is not None and stored.sources is not None else DEFAULT_STRATEGY
    finding = passed(code)
    try:
        for rule, mixed in ((strategy, False), (strategy, True), (DEFAULT_STRATEGY, True)):
            try:
                options = AggregationOptions(
                    strategy=rule,
                    expected_processes=expected or None,
                    manifest=recovery.manifest,
                    unreadable=recovery.unreadable,
                    partials=partials,
                    allow_mixed=mixed,
                )
                name = folder if mixed else records[0].experiment_id
                made = _aggregate_and_verify(name, recovery.results, options)
            except (IncompatibleResultsError, ConfigurationError) as error:
                finding = failed(code, f"{error.found}; {error.advice}")
            else:
                return *made, finding
    except AggregationError as error:
        finding = failed(code, error.found)
    return None, None, finding


def _aggregate_and_verify(
    name: str, results: Sequence[RawProcessResult], options: AggregationOptions
) -> tuple[AggregatedResult, Verification]:
    """Return what `aggregate_results` returns, and every finding, passed checks included."""
    with refuse_overflow(name):
        experiment = require_one_experiment(name, results, options)
        verification = verify_evidence(experiment.evidence)
        return build_result(experiment, combine(experiment), verification), verification


def _counted_partials(recovery: RawRecovery, stored: AggregatedSummary | None) -> list[RawProcessResult]:
    """Checkpoints that the stored aggregate counts in place of missing results."""
    counted = {source.name for source in (stored.sources if stored is not None else None) or ()}
    return [record for record in recovery.partials if record.stored and record.stored.source.name in counted]


def _check_sources(recovery: RawRecovery, stored: AggregatedSummary, data: bytes) -> Iterator[Finding]:
    """Whether the raw files are those that the aggregate was made from, and stand in it as they are."""
    codes = ("sources.missing", "sources.changed", "sources.added", "sources.embedded")
    if stored.sources is None:
        for code in codes:
            yield not_checked(code, "another tool derived the aggregate, and names no sources")
        return
    there = [*recovery.results, *_counted_partials(recovery, stored)]
    now = {record.stored.source.name: record.stored.source.sha256 for record in there if record.stored}
    now |= {file.name: file.sha256 or "" for file in recovery.unreadable if file.name != MANIFEST_NAME}
    unreadable = stored.completeness.unreadable if stored.completeness is not None else []
    then = {file.name: file.sha256 or "" for file in unreadable if file.name != MANIFEST_NAME}
    then |= {source.name: source.sha256 for source in stored.sources}
    missing = sorted(then.keys() - now.keys())
    changed = sorted(name for name in then.keys() & now.keys() if then[name] != now[name])
    added = sorted(now.keys() - then.keys())
    yield _about_files("sources.missing", missing, "gone since the aggregate was made")
    yield _about_files("sources.changed", changed, "changed since the aggregate was made")
    yield _about_files("sources.added", added, "there, and the aggregate does not know")
    yield _check_embedded(there, stored.sources, data, known={*changed, *added, *missing})


def _check_embedded(
    there: Sequence[RawProcessResult], sources: Sequence[SourceFile], data: bytes, known: Collection[str]
) -> Finding:
    """Whether an aggregate holds each of its raw files byte for byte, and nothing else beside them."""
    embedded = codec.embedded_records(data)
    if len(embedded) != len(sources):
        message = f"the aggregate holds {len(embedded)} processes and was made from {len(sources)} files"
        return failed("sources.embedded", message, expected=float(len(sources)), found=float(len(embedded)))
    raws = {record.stored.source.name: record.stored.data for record in there if record.stored}
    wrong = [
        source.name
        for source, held in zip(sources, embedded, strict=True)
        if source.name not in known and raws[source.name].removeprefix(codec.BOM).strip() != held
    ]
    return _about_files("sources.embedded", wrong, "not in the aggregate as it stands on disk")


def _about_files(code: str, names: Sequence[str], what: str) -> Finding:
    if not names:
        return passed(code)
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return failed(code, f"{shown} {'is' if len(names) == 1 else 'are'} {what}", found=shown)


def _compare(stored: AggregatedSummary, anew: AggregatedResult | None, *, is_same: bool) -> Finding:
    """Whether what an aggregate says follows from its raw files."""
    code = "aggregate.recomputed"
    if anew is None:
        return not_checked(code, "the raw files can't be made into one result")
    if not is_same:
        return not_checked(code, "the raw files are not those it was made from")
    names, reasons = _comparable(stored, anew)
    one, other = ({name: _told(result, name) for name in names} for result in (stored, anew))
    wrong = list(_differences(one, other))
    if not wrong:
        return not_checked(code, "; ".join(reasons)) if reasons else passed(code)
    first, was, should_be = wrong[0]
    others = ", and neither do " + ", ".join(path for path, _, _ in wrong[1:9]) if len(wrong) > 1 else ""
    message = f"{first} is {_shown(was)} in the aggregate and {_shown(should_be)} made anew: it does not follow{others}"
    expected, found = (float(value) if isinstance(value, int | float) else None for value in (should_be, was))
    return failed(code, message, expected=expected, found=found)


def _comparable(stored: AggregatedSummary, anew: AggregatedSummary) -> tuple[list[str], list[str]]:
    """What of an aggregate can be compared, by name, and what keeps the rest from it.

    Another tool's has the figures that every aggregate has; what it checked, and how, is its own.
    """
    names = list(_TOTALS)
    reasons = []
    if stored.sources is not None:
        names += _FACTS
        if stored.attribution_rule == anew.attribution_rule:
            names += _ATTRIBUTED
        else:
            rule = f"the rule {stored.attribution_rule!r}" if stored.attribution_rule else "no rule that it names"
            reasons.append(f"it was attributed by {rule}, and only {anew.attribution_rule!r} is known here")
    if stored.aggregation.method != anew.aggregation.method:
        names = [name for name in names if name not in _TOTALS]
        reasons.append(f"the rule {stored.aggregation.method!r} is not installed")
    return names, reasons


def _told(result: AggregatedSummary, name: str) -> object:
    """What an aggregate says, by the name of a field."""
    if name == "experiment_id":
        return folder_name(result.experiment_id)
    value: object = result
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _differences(one: object, other: object, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Path and both values of what differs, numbers by more than `AGREEMENT`."""
    if one == other:
        return
    if isinstance(one, Struct) and type(one) is type(other):
        one, other = msgspec.structs.asdict(one), msgspec.structs.asdict(other)
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            yield from _differences(one.get(name), other.get(name), f"{path}.{name}" if path else str(name))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for position, (value, another) in enumerate(zip(one, other, strict=True)):
            yield from _differences(value, another, f"{path}[{position}]")
    elif not (_is_number(one) and _is_number(other) and math.isclose(one, other, rel_tol=AGREEMENT, abs_tol=0.0)):
        yield path, one, other


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _outcome(findings: Collection[Finding]) -> Outcome:
    """Return the outcome of an experiment: `failed` with an error, `passed` if a check passed, else `not_checked`."""
    if any(finding.problem == "error" for finding in findings):
        return "failed"
    return "passed" if any(finding.outcome == "passed" for finding in findings) else "not_checked"
