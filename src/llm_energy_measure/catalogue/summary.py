"""The summary of an experiment: its state, its totals and its problems, as a list shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from llm_energy_measure.catalogue.facts import (
    Configuration,
    EmbeddedProcess,
    ExperimentFacts,
    configuration_of,
    facts_of,
)
from llm_energy_measure.domain.experiment import AggregatedSummary, CompletenessReport, RawProcessResult
from llm_energy_measure.exceptions import LLMEnergyMeasureError, ResultCorruptError
from llm_energy_measure.results.batch.state import ExperimentState, Status, inspect_experiment, is_up_to_date
from llm_energy_measure.results.columns import model_name, process_values
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.codec import decode_summary
from llm_energy_measure.results.store.layout import deleted_folder, names_folder
from llm_energy_measure.results.store.raw_folder import RawRecovery
from llm_energy_measure.results.store.tags import load_tags
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.verification.completeness import check_completeness
from llm_energy_measure.verification.verdicts import Verdict, verdict_of


class ExperimentSummary(Struct, frozen=True, kw_only=True):
    """One row of a list of experiments. None means unknown.

    A field that is also in `AggregatedSummary` has the same meaning in both classes.

    Attributes:
        experiment_id: Id of the experiment; the name of its folder if no file can be read.
        status: State of its aggregate; see `results.batch.state.Status`.
        verdict: One word of `verification.verdicts`. The verdict is `interrupted` if there is a manifest and no result.
            If the aggregate is not current, the verdict is the status.
        found_processes: Number of processes with a readable result.
        expected_processes: Number of processes that should have a result.
        method: Name of the strategy.
        config_name: Name of the configuration.
        precision: Number formats of the computation.
        hosts: Names of the machines.
        gpus: Model names of the GPUs.
        tags: Tags of the user, by key.
        note: Note of the user. None if there is none.
        warnings: Warnings of the aggregate.
        failed: Codes of the checks that failed at the time of aggregation, of any severity. `results verify` explains
            them.
        warning_codes: Codes of the warnings at the time of aggregation: of failed checks, and of checks that need more
            data.
        problems: One text for each unreadable file and for an altered aggregate, with the reason.
    """

    experiment_id: str
    status: Status
    verdict: Verdict
    model_name: str | None = None
    backend: str | None = None
    found_processes: int | None = None
    expected_processes: int | None = None
    total_energy_j: float | None = None
    partial_energy_j: float | None = None
    attributed_energy_j: float | None = None
    attributed_bounds_j: tuple[float, float] | None = None
    attribution_factor: float | None = None
    attribution_status: str | None = None
    attribution_basis: list[str] = field(default_factory=list)
    total_tokens: int | None = None
    avg_tokens_per_second: float | None = None
    tokens_per_joule: float | None = None
    attributed_tokens_per_joule: float | None = None
    method: str | None = None
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
    warning_codes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def warning_count(self) -> int | None:
        """Number of warnings. None without an aggregate."""
        return None if self.method is None else len(self.warning_codes)

    @property
    def warning_texts(self) -> list[str]:
        """The warnings of the aggregate."""
        return self.warnings


class ExperimentScan(Struct, frozen=True, kw_only=True):
    """The summary of an experiment, and its source.

    Attributes:
        summary: The summary.
        aggregated: The aggregate without `process_results`. None if it is absent, unreadable or altered.
        facts: Facts that decide if the experiment can be compared. None without a readable aggregate.
        configuration: The configuration of the first process.
        process_values: Values of the exported columns that are computed from the processes; see
            `columns.process_values`.
        listed: False if the experiment is a folder without results and without a manifest.
    """

    summary: ExperimentSummary
    aggregated: AggregatedSummary | None = None
    facts: ExperimentFacts | None = None
    configuration: Configuration = Configuration({}, {})
    process_values: dict[str, Any] = field(default_factory=dict)
    listed: bool = True


class _Processes(Struct):
    process_results: list[EmbeddedProcess] = field(default_factory=list)


_DECODER = msgspec.json.Decoder(_Processes)


def summarize(repository: FileSystemRepository, folder: str) -> ExperimentSummary:
    """Return the summary of an experiment. Unreadable files become problems in the summary."""
    return scan_experiment(repository, folder).summary


def scan_experiment(
    repository: FileSystemRepository,
    folder: str,
    *,
    up_to_date: bytes | None = None,
    tagged: bool = True,
    opened: tuple[Folder, Folder] | None = None,
) -> ExperimentScan:
    """Return the summary of an experiment and its source.

    Args:
        repository: The repository of the experiment.
        folder: Folder name of the experiment.
        up_to_date: Bytes of the aggregate if its mtime shows that the raw files are unchanged. The raw files are then
            not read.
        tagged: False if the experiment has no tags, so that no file of tags is read.
        opened: The folders `raw` and `aggregated` of a bucket. Their listings replace 11 of 14 requests for an
            experiment that has no aggregate.
    """
    try:
        scan = _scan(repository, folder, up_to_date, opened)
    except LLMEnergyMeasureError as error:
        row = ExperimentSummary(experiment_id=folder, status="unreadable", verdict="unreadable", problems=[str(error)])
        scan = ExperimentScan(summary=row)
    if not tagged:
        return scan
    try:
        tags = load_tags(repository.store, folder)
    except LLMEnergyMeasureError as error:
        row = msgspec.structs.replace(scan.summary, problems=[*scan.summary.problems, str(error)])
        return msgspec.structs.replace(scan, summary=row)
    row = msgspec.structs.replace(scan.summary, tags=tags.tags, note=tags.note)
    return msgspec.structs.replace(scan, summary=row)


def up_to_date_aggregate(raw: Folder, aggregated: Folder, folder: str) -> bytes | None:
    """Return the bytes of an aggregate if the mtimes show that the raw files are unchanged, else None."""
    if not is_up_to_date(raw, aggregated, folder) or not raw.is_absent(deleted_folder(folder).rpartition("/")[2]):
        return None
    return aggregated.get(f"{folder}.json")


def _recovered(repository: FileSystemRepository, folder: str, opened: tuple[Folder, Folder] | None) -> RawRecovery:
    if opened is None:
        return repository.recover_raw(folder)
    from llm_energy_measure.results.batch.recovery import recover_from  # directories do not need this import

    return recover_from(repository, opened[0], folder)


def _scan(
    repository: FileSystemRepository, folder: str, up_to_date: bytes | None, opened: tuple[Folder, Folder] | None
) -> ExperimentScan:
    state = None if up_to_date is None else _up_to_date_state(up_to_date, folder)
    data = up_to_date
    if state is None and opened is not None and opened[1].is_absent(f"{folder}.json"):
        data, state = None, ExperimentState(status="pending")
    elif state is None:
        data = repository.read_aggregated(folder)
        state = inspect_experiment(repository, folder)
    problems = [f"aggregated/{folder}.json is {state.status}: {state.problem}"] if state.problem else []
    aggregated = state.aggregated
    if aggregated is not None and state.status == "current":
        # The raw files are unchanged, so the report in the aggregate is valid.
        report = aggregated.completeness
        unreadable = report.unreadable if report is not None else []
        recovery = None
    else:
        recovery = _recovered(repository, folder, opened)
        unreadable = recovery.unreadable
        problems += recovery.unpublished_texts(folder)
        report = _report(recovery, aggregated)
    problems += [f"{folder}/{file.name} is unreadable: {file.reason}" for file in unreadable]
    values: dict[str, Any] = {}
    if report is not None:
        values = {"found_processes": report.found_processes, "expected_processes": report.expected_processes}
    elif aggregated is not None:
        values = {"found_processes": aggregated.aggregation.num_processes}
    facts, configuration, exported = None, Configuration({}, {}), {}
    if aggregated is not None:
        processes = _embedded(data)
        values |= _of_aggregated(aggregated) | _of_processes(processes)
        if aggregated.model_name is None and processes and processes[0].model_name:
            values["model_name"] = processes[0].model_name
        exported = process_values(aggregated, processes)
        configuration = configuration_of(aggregated.effective_config, processes)
        facts = facts_of(aggregated, processes, values["model_name"], configuration.settings)
    elif recovery is not None and recovery.results:
        values |= _of_raw(recovery) | _of_processes(recovery.results)
        configuration = configuration_of(recovery.results[0].effective_config, recovery.results)
    is_empty = state.status == "pending" and recovery is not None and not recovery.results and not unreadable
    is_interrupted = is_empty and recovery is not None and recovery.manifest is not None
    row = ExperimentSummary(
        **{"experiment_id": folder, **values},
        status=state.status,
        verdict="interrupted" if is_interrupted else _verdict(state),
        problems=problems,
    )
    return ExperimentScan(
        summary=row,
        aggregated=aggregated,
        facts=facts,
        configuration=configuration,
        process_values=exported,
        listed=is_interrupted or not is_empty,
    )


def _up_to_date_state(data: bytes, folder: str) -> ExperimentState | None:
    """Return the state of an experiment with an up-to-date aggregate. None if the aggregate cannot be decoded."""
    try:
        aggregated = decode_summary(data, f"{folder}.json")
    except ResultCorruptError:
        return None
    if not names_folder(aggregated.experiment_id, folder) or aggregated.integrity == "altered":
        return None
    return ExperimentState(status="external" if aggregated.sources is None else "current", aggregated=aggregated)


def _embedded(data: bytes | None) -> list[EmbeddedProcess]:
    """Return the needed fields of the raw results in an aggregate. Return an empty list if they cannot be decoded."""
    try:
        return _DECODER.decode(data or b"{}").process_results
    except (msgspec.DecodeError, RecursionError):
        return []


def _of_processes(processes: Sequence[EmbeddedProcess | RawProcessResult]) -> dict[str, Any]:
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
        return None  # the directory has no raw files
    return check_completeness(recovery.results, manifest=recovery.manifest, unreadable=recovery.unreadable)


def _of_aggregated(aggregated: AggregatedSummary) -> dict[str, Any]:
    return {
        "experiment_id": aggregated.experiment_id,
        "model_name": model_name(aggregated),
        "backend": aggregated.backend,
        "total_energy_j": aggregated.total_energy_j,
        "partial_energy_j": aggregated.partial_energy_j,
        "attributed_energy_j": aggregated.attributed_energy_j,
        "attributed_bounds_j": aggregated.attributed_bounds_j,
        "attribution_factor": aggregated.attribution_factor,
        "attribution_status": aggregated.attribution_status,
        "attribution_basis": aggregated.attribution_basis or [],
        "total_tokens": aggregated.total_tokens,
        "avg_tokens_per_second": aggregated.avg_tokens_per_second,
        "tokens_per_joule": aggregated.tokens_per_joule,
        "attributed_tokens_per_joule": aggregated.attributed_tokens_per_joule,
        "method": aggregated.aggregation.method,
        "is_lower_bound": aggregated.is_lower_bound,
        "start_time": aggregated.start_time,
        "warnings": aggregated.aggregation.warnings,
        "failed": aggregated.failed_codes,
        "warning_codes": aggregated.warning_codes,
    }


def _of_raw(recovery: RawRecovery) -> dict[str, Any]:
    first = recovery.results[0]
    return {
        "experiment_id": first.experiment_id,
        "model_name": first.model_name,
        "backend": first.backend,
        "start_time": first.timestamps.start,
    }


def _verdict(state: ExperimentState) -> Verdict:
    if state.status != "current":
        return state.status
    if state.aggregated is None:
        return "unreadable"
    return verdict_of(state.aggregated, integrity=state.aggregated.integrity)
