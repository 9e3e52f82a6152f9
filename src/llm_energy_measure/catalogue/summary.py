"""One experiment in a line: what is there of it, what it comes to, and what is amiss."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from llm_energy_measure.domain.experiment import AggregatedSummary
from llm_energy_measure.exceptions import LLMEnergyMeasureError, ResultCorruptError
from llm_energy_measure.results.batch.state import ExperimentState, Status, inspect_experiment, is_up_to_date
from llm_energy_measure.results.columns import model_name
from llm_energy_measure.results.store.codec import decode_summary
from llm_energy_measure.results.store.layout import deleted_folder, names_folder
from llm_energy_measure.results.store.tags import load_tags
from llm_energy_measure.verification.completeness import check_completeness

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm_energy_measure.domain.experiment import CompletenessReport, RawProcessResult
    from llm_energy_measure.results.repository import FileSystemRepository
    from llm_energy_measure.results.store.raw_folder import RawRecovery
    from llm_energy_measure.storage.folder import Folder


class ExperimentSummary(Struct, frozen=True, kw_only=True):
    """What a list shows of an experiment, in base units; None is unknown.

    Attributes:
        experiment_id: Its own id, or its folder's name where no file can be read.
        status: Where its aggregate stands; see `results.state.Status`.
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
        config_name: Name of its configuration.
        precision: Number formats of its computation.
        hosts: Its machines.
        gpus: Models of its GPUs.
        tags: What was said about it, by key.
        note: What was said about it in free text; None if nothing was.
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
    config_name: str | None = None
    precision: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    gpus: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    note: str | None = None
    warnings: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class ExperimentScan(Struct, frozen=True, kw_only=True):
    """What was found of an experiment.

    Attributes:
        summary: What there is to say about it.
        aggregated: Its aggregate without `process_results`, if there is a readable one.
        listed: False if there is nothing but a folder without a result.
    """

    summary: ExperimentSummary
    aggregated: AggregatedSummary | None = None
    listed: bool = True


class _Process(Struct):
    """What of an embedded raw record says where and how it ran."""

    config_name: str | None = None
    model_name: str | None = None
    host: str | None = None
    gpu_name: str | None = None
    compute_metrics: _Precision | None = None


class _Precision(Struct):
    compute_precision: str | None = None


class _Processes(Struct):
    process_results: list[_Process] = field(default_factory=list)


def summarize(repository: FileSystemRepository, folder: str) -> ExperimentSummary:
    """What there is to say about an experiment, whatever state its files are in.

    Args:
        repository: Where it is stored.
        folder: Its folder's name.
    """
    return scan_experiment(repository, folder).summary


def scan_experiment(
    repository: FileSystemRepository, folder: str, *, up_to_date: bytes | None = None, tagged: bool = True
) -> ExperimentScan:
    """An overview, and what it was made from.

    Args:
        repository: Where it is stored.
        folder: Its folder's name.
        up_to_date: Its aggregate, where the mtimes say that the raw files are those that it was made from: they are not
            opened.
        tagged: False if it is known that there are no tags.
    """
    try:
        scan = _scan(repository, folder, up_to_date)
    except LLMEnergyMeasureError as error:
        row = ExperimentSummary(experiment_id=folder, status="unreadable", verdict="unreadable", problems=[str(error)])
        scan = ExperimentScan(summary=row)
    if not tagged:
        return scan
    try:
        said = load_tags(repository.store, folder)
    except LLMEnergyMeasureError as error:
        row = msgspec.structs.replace(scan.summary, problems=[*scan.summary.problems, str(error)])
        return msgspec.structs.replace(scan, summary=row)
    row = msgspec.structs.replace(scan.summary, tags=said.tags, note=said.note)
    return msgspec.structs.replace(scan, summary=row)


def up_to_date_aggregate(raw: Folder, aggregated: Folder, folder: str) -> bytes | None:
    """An experiment's aggregate, if the mtimes say that the raw files are those that it was made from.

    Args:
        raw: The folder `raw/`.
        aggregated: The folder `aggregated/`.
        folder: The experiment's folder name.
    """
    if not is_up_to_date(raw, aggregated, folder) or not raw.is_absent(deleted_folder(folder).rpartition("/")[2]):
        return None
    return aggregated.get(f"{folder}.json")


def _scan(repository: FileSystemRepository, folder: str, up_to_date: bytes | None) -> ExperimentScan:
    state = None if up_to_date is None else _up_to_date_state(up_to_date, folder)
    data = up_to_date
    if state is None:
        data = repository.read_aggregated(folder)
        state = inspect_experiment(repository, folder)
    problems = [f"aggregated/{folder}.json is unreadable: {state.problem}"] if state.problem else []
    aggregated = state.aggregated
    if aggregated is not None and state.status == "current":
        # The mtimes or the digests agree: the raw files are what the aggregate says that they are.
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
        processes = _embedded(data)
        facts |= _of_aggregated(aggregated) | _of_processes(processes)
        if aggregated.model_name is None and processes and processes[0].model_name:
            facts["model_name"] = processes[0].model_name
    elif recovery is not None and recovery.results:
        facts |= _of_raw(recovery) | _of_processes(recovery.results)
    row = ExperimentSummary(
        **{"experiment_id": folder, **facts},
        status=state.status,
        verdict=_verdict(state.status, aggregated),
        problems=problems,
    )
    nothing = state.status == "pending" and recovery is not None and not recovery.results and not unreadable
    return ExperimentScan(summary=row, aggregated=aggregated, listed=not nothing)


def _up_to_date_state(data: bytes, folder: str) -> ExperimentState | None:
    """Where an experiment with up_to_date mtimes stands; None if only a closer scan can tell."""
    try:
        aggregated = decode_summary(data, f"{folder}.json")
    except ResultCorruptError:
        return None
    if not names_folder(aggregated.experiment_id, folder):
        return None
    return ExperimentState(status="external" if aggregated.sources is None else "current", aggregated=aggregated)


def _embedded(data: bytes | None) -> list[_Process]:
    """Where and how the processes of an aggregate ran, as far as it can be read."""
    try:
        return msgspec.json.decode(data or b"{}", type=_Processes).process_results
    except (msgspec.DecodeError, RecursionError):
        return []


def _of_processes(processes: Sequence[_Process | RawProcessResult]) -> dict[str, Any]:
    computed = [process.compute_metrics for process in processes]
    return {
        "config_name": processes[0].config_name if processes else None,
        "precision": _distinct(metrics.compute_precision for metrics in computed if metrics is not None),
        "hosts": _distinct(process.host for process in processes),
        "gpus": _distinct(process.gpu_name for process in processes),
    }


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})


def _report(recovery: RawRecovery, aggregated: AggregatedSummary | None) -> CompletenessReport | None:
    if aggregated is not None and not recovery.results and not recovery.unreadable:
        return None  # the raw files are elsewhere
    return check_completeness(recovery.results, manifest=recovery.manifest, unreadable=recovery.unreadable)


def _of_aggregated(aggregated: AggregatedSummary) -> dict[str, Any]:
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


def _verdict(status: Status, aggregated: AggregatedSummary | None) -> str:
    return status if status != "current" or aggregated is None else verdict_of(aggregated)


def verdict_of(aggregated: AggregatedSummary) -> str:
    """The verdict on an aggregate that is current, in a word; see `ExperimentSummary.verdict`."""
    if aggregated.attribution_factor is not None and aggregated.attribution_factor > 1:
        return "over-counted"
    if aggregated.is_lower_bound:
        return "partial"
    if aggregated.failed_codes:
        return "failed"
    return "warned" if aggregated.aggregation.warnings else "complete"
