"""One experiment in a line: what is there of it, what it comes to, and what is amiss."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.results.bulk import Status, inspect_experiment
from llm_energy_measure.results.columns import model_name
from llm_energy_measure.results.completeness import check_completeness

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import AggregatedResult, CompletenessReport
    from llm_energy_measure.results.raw_folder import RawRecovery
    from llm_energy_measure.results.repository import FileSystemRepository


class Overview(Struct, frozen=True, kw_only=True):
    """What a list shows of an experiment, in base units; None is unknown.

    Attributes:
        experiment_id: Its own id, or its folder's name where no file can be read.
        status: Where its aggregate stands; see `results.bulk.Status`.
        verdict: For a current aggregate `over-counted` (the plain sum counts joules more than once), `partial` (it is a
            lower bound), `failed` (a check did not hold), `warned` or `complete`; else the status.
        model_name: Its model.
        backend: Its inference library.
        found_processes: Processes with a readable result.
        expected_processes: Processes that should have one.
        total_energy_j: Plain sum of the energy, in joules.
        attributed_energy_j: Energy with every joule counted once, in joules.
        attribution_factor: How often the plain sum counts it.
        total_tokens: Tokens.
        avg_tokens_per_second: Mean throughput of a process, in tokens per second.
        tokens_per_joule: Efficiency, in tokens per joule.
        is_lower_bound: Whether the sums are too small for certain.
        start_time: When it began.
        warnings: What a reader has to know.
        failed: Codes of the checks that failed when it was aggregated; `results verify` explains them.
        problems: Files that can't be read, each with its reason.
    """

    experiment_id: str
    status: Status
    verdict: str
    model_name: str | None = None
    backend: str | None = None
    found_processes: int | None = None
    expected_processes: int | None = None
    total_energy_j: float | None = None
    attributed_energy_j: float | None = None
    attribution_factor: float | None = None
    total_tokens: int | None = None
    avg_tokens_per_second: float | None = None
    tokens_per_joule: float | None = None
    is_lower_bound: bool | None = None
    start_time: datetime | None = None
    warnings: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def overview(repository: FileSystemRepository, folder: str) -> Overview:
    """What there is to say about an experiment, whatever state its files are in.

    Args:
        repository: Where it is stored.
        folder: Its folder's name.
    """
    try:
        return _overview(repository, folder)
    except LLMEnergyMeasureError as error:
        return Overview(experiment_id=folder, status="unreadable", verdict="unreadable", problems=[str(error)])


def _overview(repository: FileSystemRepository, folder: str) -> Overview:
    state = inspect_experiment(repository, folder)
    problems = [f"aggregated/{folder}.json is unreadable: {state.problem}"] if state.problem else []
    aggregated = state.aggregated
    if aggregated is not None and state.status == "current":
        # The digests agree: the raw files are what the aggregate says that they are.
        report = aggregated.completeness
        unreadable = report.unreadable if report is not None else []
        recovery = None
    else:
        recovery = repository.recover_raw(folder)
        unreadable = recovery.unreadable
        report = _report(recovery, aggregated)
    problems += [f"{folder}/{file.name} is unreadable: {file.reason}" for file in unreadable]
    facts: dict[str, Any] = {}
    if report is not None:
        facts = {"found_processes": report.found_processes, "expected_processes": report.expected_processes}
    elif aggregated is not None:
        facts = {"found_processes": aggregated.aggregation.num_processes}
    if aggregated is not None:
        facts |= _of_aggregated(aggregated)
    elif recovery is not None and recovery.results:
        facts |= _of_raw(recovery)
    return Overview(
        **{"experiment_id": folder, **facts},
        status=state.status,
        verdict=_verdict(state.status, aggregated),
        problems=problems,
    )


def sort_key(row: Overview, key: str) -> tuple[bool, Any]:
    """Orders rows by a key of `SORT_KEYS`; unknown comes last."""
    value = SORT_KEYS[key](row)
    return value is None, value if value is not None else 0


def _instant(row: Overview) -> float | None:
    """Seconds since 1970, a stamp without a zone taken as UTC: good enough for an order."""
    stamp = row.start_time
    if stamp is None:
        return None
    return (stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)).timestamp()


SORT_KEYS = {
    "id": lambda row: row.experiment_id,
    "model": lambda row: row.model_name,
    "processes": lambda row: row.found_processes,
    "energy": lambda row: row.total_energy_j,
    "tokens": lambda row: row.total_tokens,
    "throughput": lambda row: row.avg_tokens_per_second,
    "efficiency": lambda row: row.tokens_per_joule,
    "verdict": lambda row: row.verdict,
    "date": _instant,
}


def _report(recovery: RawRecovery, aggregated: AggregatedResult | None) -> CompletenessReport | None:
    if aggregated is not None and not recovery.results and not recovery.unreadable:
        return None  # the raw files are elsewhere
    return check_completeness(recovery.results, manifest=recovery.manifest, unreadable=recovery.unreadable)


def _of_aggregated(aggregated: AggregatedResult) -> dict[str, Any]:
    return {
        "experiment_id": aggregated.experiment_id,
        "model_name": model_name(aggregated),
        "backend": aggregated.backend,
        "total_energy_j": aggregated.total_energy_j,
        "attributed_energy_j": aggregated.attributed_energy_j,
        "attribution_factor": aggregated.attribution_factor,
        "total_tokens": aggregated.total_tokens,
        "avg_tokens_per_second": aggregated.avg_tokens_per_second,
        "tokens_per_joule": aggregated.tokens_per_joule,
        "is_lower_bound": aggregated.is_lower_bound,
        "start_time": aggregated.start_time,
        "warnings": aggregated.aggregation.warnings,
        "failed": aggregated.failed_codes,
    }


def _of_raw(recovery: RawRecovery) -> dict[str, Any]:
    first = recovery.results[0]
    return {
        "experiment_id": first.experiment_id,
        "model_name": first.model_name,
        "backend": first.backend,
        "start_time": first.timestamps.start,
    }


def _verdict(status: Status, aggregated: AggregatedResult | None) -> str:
    return status if status != "current" or aggregated is None else verdict_of(aggregated)


def verdict_of(aggregated: AggregatedResult) -> str:
    """The verdict on an aggregate that is current, in a word; see `Overview.verdict`."""
    if aggregated.attribution_factor is not None and aggregated.attribution_factor > 1:
        return "over-counted"
    if aggregated.is_lower_bound:
        return "partial"
    if aggregated.failed_codes:
        return "failed"
    return "warned" if aggregated.aggregation.warnings else "complete"
