"""Aggregation of stored experiments: what is current, what is stale, and making the rest anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from llm_energy_measure.domain.experiment import AggregatedResult, UnreadableFile
from llm_energy_measure.exceptions import LLMEnergyMeasureError, ResultCorruptError
from llm_energy_measure.results.aggregation import aggregate_results
from llm_energy_measure.results.completeness import require_complete
from llm_energy_measure.results.repository import SourceChanges
from llm_energy_measure.results.strategies import DEFAULT_STRATEGY, get_strategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_energy_measure.results.repository import FileSystemRepository

Status = Literal["pending", "current", "stale", "foreign", "unreadable"]
"""No aggregate yet; made from the raw files as they are; made from others; made by another tool; can't be read."""


class ExperimentState(Struct, frozen=True, kw_only=True):
    """Where an experiment stands.

    Attributes:
        status: See `Status`.
        aggregated: Its aggregate, if there is a readable one.
        changes: How its raw files differ from the aggregate's sources, if it is stale.
        problem: Why its aggregate can't be read, if it can't.
    """

    status: Status
    aggregated: AggregatedResult | None = None
    changes: SourceChanges | None = None
    problem: str | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one experiment.

    Attributes:
        experiment_id: The experiment, as it was named.
        result: `aggregated` anew; left alone, being `current` or `foreign` (of another tool); or `failed`.
        aggregated: Its aggregate, without `process_results` if it was left alone; None if it failed.
        unreadable: Raw files that can't be read.
        error: Why it failed.
    """

    experiment_id: str
    result: Literal["aggregated", "current", "foreign", "failed"]
    aggregated: AggregatedResult | None = None
    unreadable: list[UnreadableFile] = field(default_factory=list)
    error: LLMEnergyMeasureError | None = None


def inspect_experiment(repository: FileSystemRepository, experiment_id: str) -> ExperimentState:
    """Whether an experiment's aggregate is there, readable, and made from its raw files as they are now.

    The aggregate comes without its `process_results`.
    """
    try:
        aggregated = repository.load_aggregated(experiment_id, with_processes=False)
    except ResultCorruptError as error:
        return ExperimentState(status="unreadable", problem=error.found)
    if aggregated is None:
        return ExperimentState(status="pending")
    if aggregated.sources is None:
        return ExperimentState(status="foreign", aggregated=aggregated)
    changes = repository.source_changes(aggregated)
    return ExperimentState(status="stale" if changes else "current", aggregated=aggregated, changes=changes or None)


def aggregate_experiment(
    repository: FileSystemRepository,
    experiment_id: str,
    *,
    strategy: str | None = None,
    expected_processes: int | None = None,
    strict: bool = True,
    force: bool = False,
) -> Outcome:
    """Aggregate a stored experiment and save the result, unless that would change nothing.

    An aggregate that is current under the same rule, or that another tool made, is left alone without `force`. What an
    older aggregate of ours was told (its strategy, a number of processes given as an argument) holds until it is told
    otherwise.

    Args:
        repository: Where it is stored.
        experiment_id: Its id or folder name.
        strategy: Name of the rule; by default the older aggregate's, else the default strategy.
        expected_processes: Number of processes that should be there, at least 1.
        strict: Refuse an incomplete experiment; the older aggregate then stays.
        force: Make it anew in any case.

    Raises:
        LLMEnergyMeasureError: It can't be aggregated; the older aggregate stays.
    """
    state = inspect_experiment(repository, experiment_id)
    older = state.aggregated if state.status in ("current", "stale") else None
    if strategy is not None:
        get_strategy(strategy)
    if not force and state.status == "foreign":
        return Outcome(experiment_id=experiment_id, result="foreign", aggregated=state.aggregated)
    if older is not None:
        told = older.completeness if _was_told(older) else None
        same_rule = strategy in (None, older.aggregation.method)
        same_number = expected_processes in (None, told.expected_processes if told else None)
        if not force and state.status == "current" and same_rule and same_number:
            if strict and older.completeness is not None:
                require_complete(experiment_id, older.completeness)
            return Outcome(experiment_id=experiment_id, result="current", aggregated=older)
        strategy = strategy or older.aggregation.method
        if expected_processes is None and told is not None:
            expected_processes = told.expected_processes

    recovery = repository.recover_raw(experiment_id)
    aggregated = aggregate_results(
        experiment_id,
        recovery.results,
        strategy=strategy or DEFAULT_STRATEGY,
        expected_processes=expected_processes,
        manifest=recovery.manifest,
        unreadable=recovery.unreadable,
        partials=() if strict else recovery.partials,
        strict=strict,
    )
    repository.save_aggregated(aggregated)
    return Outcome(
        experiment_id=experiment_id, result="aggregated", aggregated=aggregated, unreadable=recovery.unreadable
    )


def _was_told(older: AggregatedResult) -> bool:
    """True if somebody said how many processes an aggregate should have."""
    return older.completeness is not None and older.completeness.expected_from == "argument"


def aggregate_all(
    repository: FileSystemRepository,
    experiment_ids: Iterable[str] | None = None,
    *,
    strategy: str | None = None,
    expected_processes: int | None = None,
    strict: bool = True,
    force: bool = False,
) -> Iterator[Outcome]:
    """Aggregate many experiments one by one, going on past those that fail.

    Args:
        repository: Where they are stored.
        experiment_ids: Which; by default all that have a raw result.
        strategy: As for `aggregate_experiment`, as are the others.
        expected_processes: Number of processes of each.
        strict: Refuse incomplete experiments.
        force: Make also those anew that are current or another tool's.
    """
    for experiment_id in repository.list_experiments() if experiment_ids is None else experiment_ids:
        try:
            yield aggregate_experiment(
                repository,
                experiment_id,
                strategy=strategy,
                expected_processes=expected_processes,
                strict=strict,
                force=force,
            )
        except LLMEnergyMeasureError as error:
            yield Outcome(experiment_id=experiment_id, result="failed", error=error)
