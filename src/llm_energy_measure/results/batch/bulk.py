"""Aggregation of stored experiments: what is current, what is stale, and making the rest anew.

How one knows without opening anything that nothing changed: an aggregate's stamp is the time, by the clock of the file
system, at which the reading of its raw folder began, and a folder's stamp is the time of its last change. Only where
the folder's is older is the aggregate current; an equal one may hide a change within one tick of that clock. A plain
copy of an aggregate (`cp -r`) has the time of copying, which says nothing: `Folder.timestamp_ns` detects it. Where
stamps can't tell, as in other stores, the digests do. What is edited in place changes no folder: `rehash` finds it. It
also finds what came between the reading and the saving of a result that somebody saved by `save_aggregated`.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field, json

from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR
from llm_energy_measure.domain.experiment import AggregatedSummary, UnreadableFile, summary_of
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.results.aggregation import aggregate_results, require_complete
from llm_energy_measure.results.batch.jobs import run_batches
from llm_energy_measure.results.batch.recovery import is_no_experiment, recover_from
from llm_energy_measure.results.batch.state import ExperimentState, inspect_experiment, is_up_to_date
from llm_energy_measure.results.store.codec import encode_aggregated
from llm_energy_measure.results.store.layout import aggregated_key, is_folder_name
from llm_energy_measure.results.strategies import DEFAULT_STRATEGY, get_strategy
from llm_energy_measure.storage.folder import Folder, store_time_ns
from llm_energy_measure.storage.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Executor

    from llm_energy_measure.domain.experiment import AggregatedResult
    from llm_energy_measure.results.repository import FileSystemRepository
    from llm_energy_measure.results.store.raw_folder import RawRecovery

# Experiments that are synced together: more gain little, and are what an interruption costs.
BATCH = 256

# Experiments that are left alone and still go into one batch with those that are not.
_MOST_HELD = 4_096


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one experiment.

    Attributes:
        experiment_id: The experiment, as it was named.
        result: `aggregated` anew; left alone, being `current` (as far as it was looked at) or `external` (of another
            tool); or `failed`.
        aggregated: Its aggregate, without `process_results` if it was left alone or one of many; None if it failed, or
            the stamps said that nothing changed.
        unreadable: Raw files that can't be read.
        error: Why it failed.
    """

    experiment_id: str
    result: Literal["aggregated", "current", "external", "failed"]
    aggregated: AggregatedSummary | None = None
    unreadable: list[UnreadableFile] = field(default_factory=list)
    error: LLMEnergyMeasureError | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """What goes from one process to another: an aggregate as JSON, for a third of what its objects cost."""
        aggregated = None if self.aggregated is None else _AGGREGATES.encode(self.aggregated)
        return _unpacked, (self.experiment_id, self.result, aggregated, self.unreadable, self.error)


_AGGREGATES = json.Encoder()
_AGGREGATE = json.Decoder(AggregatedSummary)


def _unpacked(
    experiment_id: str,
    result: Literal["aggregated", "current", "external", "failed"],
    aggregated: bytes | None,
    unreadable: list[UnreadableFile],
    error: LLMEnergyMeasureError | None,
) -> Outcome:
    return Outcome(
        experiment_id=experiment_id,
        result=result,
        aggregated=None if aggregated is None else _AGGREGATE.decode(aggregated),
        unreadable=unreadable,
        error=error,
    )


class Rule(Struct, frozen=True, kw_only=True):
    """How to aggregate; see `aggregate_all`."""

    strategy: str | None = None
    expected_processes: int | None = None
    strict: bool = True
    force: bool = False


def aggregate_all(
    repository: FileSystemRepository,
    experiment_ids: Iterable[str] | None = None,
    *,
    strategy: str | None = None,
    expected_processes: int | None = None,
    strict: bool = True,
    force: bool = False,
    rehash: bool = False,
    jobs: int | Literal["auto"] | None = None,
    executor: Executor | None = None,
) -> Iterator[Outcome]:
    """Aggregate many experiments in growing batches as they are asked for, going on past those that fail.

    Each batch is synced once. Interrupted anywhere, what was made is whole, and the next run goes on with the rest.
    Without `experiment_ids`, one whose folder's stamp is older than its aggregate's is not opened: its outcome is
    `current`, without `aggregated`. A lower bound is opened each time, and refused if `strict`.

    Args:
        repository: Where they are stored.
        experiment_ids: Which; by default all that have a raw result, in order of their folders' names.
        strategy: Name of the rule; by default the one of the older aggregate, else the default strategy.
        expected_processes: Number of processes of each experiment, at least 1. An older aggregate keeps the number that
            it was given.
        strict: Refuse incomplete experiments; an older aggregate of a refused experiment stays.
        force: Aggregate also experiments whose aggregate is current or made by another tool.
        rehash: Open all of them, since edits in place leave no stamp on a folder.
        jobs: How many processes work, this one among them and by default alone, or how many batches at a time for the
            executor; `auto` takes one process for each processor where that pays. Processes import the script that
            calls this: it needs its `if __name__ == "__main__"`.
        executor: Where the batches run instead of in processes of our own: any `concurrent.futures.Executor`, such as
            Dask's or MPI's. All of its workers have to reach the results directory.

    Yields:
        What became of each, in order; `aggregated` without its `process_results`.

    Example:
        >>> from llm_energy_measure.results import FileSystemRepository, aggregate_all
        >>> [outcome.experiment_id for outcome in aggregate_all(FileSystemRepository("results"))]  # doctest: +ELLIPSIS
        ['smollm2_b1_c0', ...]
    """
    rule = Rule(strategy=strategy, expected_processes=expected_processes, strict=strict, force=force)
    if strategy is not None:
        get_strategy(strategy)
    trusts_timestamps = not (force or rehash or strategy is not None or expected_processes is not None)
    if experiment_ids is None:
        batches = _batches(_sweep(repository, trusts_timestamps=trusts_timestamps))
    else:
        batches = _batches(iter(experiment_ids))
    # A sweep takes what a folder without results is for what it is: no experiment.
    aggregate = partial(_aggregate_batch, repository, rule=rule, is_sweep=experiment_ids is None)
    yield from run_batches(aggregate, batches, jobs=jobs, executor=executor)


def count_folders(repository: FileSystemRepository) -> int:
    """How many folders `aggregate_all` will look at; some may hold no result."""
    with Folder(repository.store, RAW_DIR) as raw:
        return sum(1 for _ in raw.names())


def _sweep(repository: FileSystemRepository, *, trusts_timestamps: bool) -> Iterator[str | Outcome]:
    """Names of the folders to look into, and outcomes of those that the stamps say are current."""
    with Folder(repository.store, RAW_DIR) as raw, Folder(repository.store, AGGREGATED_DIR) as aggregated:
        for name in raw.names():
            if trusts_timestamps and is_up_to_date(raw, aggregated, name):
                yield Outcome(experiment_id=name, result="current")
            elif is_folder_name(name):
                yield name


def _batches(items: Iterator[str | Outcome]) -> Iterator[list[str | Outcome]]:
    """Batches that begin with one, so that something is done at once, and hold no experiment twice."""
    size, batch, names = 1, list[str | Outcome](), set[str]()
    for item in items:
        if isinstance(item, str):
            if item in names:
                yield batch
                batch, names = [], set()
            names.add(item)
        batch.append(item)
        if len(names) >= size or len(batch) >= _MOST_HELD:
            yield batch
            size, batch, names = min(size * 4, BATCH), [], set()
    if batch:
        yield batch


def _aggregate_batch(
    repository: FileSystemRepository, items: list[str | Outcome], *, rule: Rule, is_sweep: bool
) -> list[Outcome]:
    """What becomes of the experiments of a batch; all that succeed are saved together."""
    timestamp_ns = _now_ns(repository) if any(isinstance(item, str) for item in items) else 0
    outcomes: list[Outcome] = []
    values: dict[str, bytes] = {}
    bounds: set[str] = set()
    with (
        Folder(repository.store, RAW_DIR) as raw,
        Folder(repository.store, AGGREGATED_DIR) as aggregated,
        closing(prefetch(raw, items, _folder_to_read)) as coming,
    ):
        for item in coming:
            if not isinstance(item, str):
                outcomes.append(item)
                continue
            try:
                found = _aggregate_one(repository, item, rule, raw, aggregated, is_sweep=is_sweep)
                if found is None:
                    continue
                outcome, to_store = found
                values |= to_store
            except LLMEnergyMeasureError as error:
                outcome = Outcome(experiment_id=item, result="failed", error=error)
            is_bound = outcome.aggregated is not None and outcome.aggregated.is_lower_bound is not False
            if is_bound and outcome.aggregated is not None:
                bounds.add(aggregated_key(repository.folder_of(outcome.aggregated.experiment_id)))
            if is_sweep and outcome.result == "current" and not is_bound:
                aggregated.set_mtime(f"{item}.json", timestamp_ns)  # its digests agree as of now
            outcomes.append(outcome)
    refused = _put(repository, {key: data for key, data in values.items() if key not in bounds}, timestamp_ns)
    # A lower bound has no stamp that says it is current: every sweep looks at it, and a strict one refuses it.
    refused |= _put(repository, {key: data for key, data in values.items() if key in bounds}, 0)
    return [_refused(repository, outcome, refused) for outcome in outcomes]


def _folder_to_read(item: str | Outcome) -> str | None:
    return item if isinstance(item, str) and is_folder_name(item) else None


def _now_ns(repository: FileSystemRepository) -> int:
    """The stamp of an aggregate whose reading begins now; 0 if the time can't be told.

    A moment earlier than the clock says: no tick of it, so that no file can seem to be written at that very time.
    """
    return max(store_time_ns(repository.store, AGGREGATED_DIR) - 1, 0)


def _aggregate_one(
    repository: FileSystemRepository, name: str, rule: Rule, raw: Folder, aggregated: Folder, *, is_sweep: bool
) -> tuple[Outcome, dict[str, bytes]] | None:
    """Return an experiment's outcome and the values to store; None if the folder of a scan contains no result.

    Raises:
        LLMEnergyMeasureError: It can't be aggregated.
    """
    folder = repository.folder_of(name)
    if not is_sweep and folder != name:
        state = inspect_experiment(repository, name)  # which also says whether the folder is its own
        recovery = repository.recover_raw(name)
    else:
        recovery = recover_from(repository, raw, folder)
        if is_sweep and is_no_experiment(recovery):
            return None
        is_new = aggregated.is_absent(f"{folder}.json")
        state = ExperimentState(status="pending") if is_new else inspect_experiment(repository, name)
    unchanged = _unchanged(name, state, rule)
    if unchanged is not None:
        return unchanged, {}
    result = _aggregate(name, state, rule, recovery)
    outcome = Outcome(
        experiment_id=name, result="aggregated", aggregated=summary_of(result), unreadable=recovery.unreadable
    )
    return outcome, _values(repository, state, result)


def _unchanged(experiment_id: str, state: ExperimentState, rule: Rule) -> Outcome | None:
    """Return the outcome of an experiment whose aggregate is current or external; None if it has to be aggregated."""
    if rule.force:
        return None
    if state.status == "external":
        return Outcome(experiment_id=experiment_id, result="external", aggregated=state.aggregated)
    older = state.aggregated
    if older is None or state.status != "current":
        return None
    told = older.completeness if _was_told(older) else None
    same_rule = rule.strategy in (None, older.aggregation.method)
    same_number = rule.expected_processes in (None, told.expected_processes if told else None)
    if not same_rule or not same_number:
        return None
    if rule.strict and older.completeness is not None:
        require_complete(experiment_id, older.completeness)
    return Outcome(experiment_id=experiment_id, result="current", aggregated=older)


def _aggregate(experiment_id: str, state: ExperimentState, rule: Rule, recovery: RawRecovery) -> AggregatedResult:
    """Return the aggregated result of an experiment; it is not stored yet."""
    strategy, expected_processes = rule.strategy, rule.expected_processes
    older = state.aggregated if state.status in ("current", "stale") else None
    if older is not None:
        strategy = strategy or older.aggregation.method
        if expected_processes is None and older.completeness is not None and _was_told(older):
            expected_processes = older.completeness.expected_processes
    return aggregate_results(
        experiment_id,
        recovery.results,
        strategy=strategy or DEFAULT_STRATEGY,
        expected_processes=expected_processes,
        manifest=recovery.manifest,
        unreadable=recovery.unreadable,
        partials=() if rule.strict else recovery.partials,
        strict=rule.strict,
    )


def _was_told(older: AggregatedSummary) -> bool:
    """True if somebody said how many processes an aggregate should have."""
    return older.completeness is not None and older.completeness.expected_from == "argument"


def _values(repository: FileSystemRepository, state: ExperimentState, result: AggregatedResult) -> dict[str, bytes]:
    """Return the bytes to store, by key; nothing if they are stored already.

    Raises:
        LLMEnergyMeasureError: It can't be stored.
    """
    older = state.aggregated
    is_ours = older is not None and older.sources is not None and older.experiment_id == result.experiment_id
    if result.sources is not None and (state.status == "pending" or is_ours):
        return {aggregated_key(repository.folder_of(result.experiment_id)): encode_aggregated(result)}
    repository.save_aggregated(result)  # which keeps, or refuses to replace, what others made
    return {}


def _put(
    repository: FileSystemRepository, values: dict[str, bytes], timestamp_ns: int
) -> dict[str, LLMEnergyMeasureError]:
    """Store what was made, with one sync; why some could not be, by key."""
    try:
        repository.store.put_many(values, mtime_ns=timestamp_ns)
    except LLMEnergyMeasureError:
        refused = {}
        for key, data in values.items():
            try:
                repository.store.put_many({key: data}, mtime_ns=timestamp_ns)
            except LLMEnergyMeasureError as error:
                refused[key] = error
        return refused
    return {}


def _refused(repository: FileSystemRepository, outcome: Outcome, refused: dict[str, LLMEnergyMeasureError]) -> Outcome:
    """The outcome, or that of what could not be stored."""
    if not refused or outcome.aggregated is None or outcome.result != "aggregated":
        return outcome
    error = refused.get(aggregated_key(repository.folder_of(outcome.aggregated.experiment_id)))
    return outcome if error is None else Outcome(experiment_id=outcome.experiment_id, result="failed", error=error)
