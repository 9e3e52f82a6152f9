"""Aggregate many stored experiments: recompute each aggregate that is missing or stale.

Two timestamps show, without opening a file, that an experiment has not changed: the mtime of its aggregate and the
ctime of its raw folder. Before a raw folder is read, the clock of the file system is read. This time becomes the
mtime of the aggregate. The aggregate is current if the last change of the folder is older than this mtime.
If the two times are equal, the folder is read, because a change may have happened within one tick of the clock.

A plain copy of an aggregate (`cp -r`) has the time of the copy as its mtime, which proves nothing.
`Folder.timestamp_ns` detects such a copy. If the timestamps prove nothing, the digests of the raw files are compared.

Two kinds of changes are found only with `rehash`. First, an edit in place, which does not change the timestamps of the
folder. Second, a raw file that is saved after the raw files were read and before `save_aggregated` stores the
aggregate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field, json, structs

from llm_energy_measure.constants import AGGREGATED_DIR, DEFAULT_STRATEGY, RAW_DIR
from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.experiment import AggregatedResult, AggregatedSummary, UnreadableFile, summary_of
from llm_energy_measure.exceptions import AggregationError, LLMEnergyMeasureError
from llm_energy_measure.results.aggregation import aggregate_results, require_complete
from llm_energy_measure.results.batch.jobs import run_batches
from llm_energy_measure.results.batch.recovery import is_no_experiment, publish, recover_from
from llm_energy_measure.results.batch.shards import Shard
from llm_energy_measure.results.batch.state import (
    ExperimentState,
    inspect_experiment,
    is_up_to_date,
    mark_up_to_date,
    stated_processes,
)
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.codec import encode_aggregated
from llm_energy_measure.results.store.deletion import without_hidden
from llm_energy_measure.results.store.layout import aggregated_key, is_folder_name, names_folder, proofs_of
from llm_energy_measure.results.store.raw_folder import RawRecovery
from llm_energy_measure.results.strategies import get_strategy
from llm_energy_measure.storage.base import Entry, Store
from llm_energy_measure.storage.folder import Folder, store_time_ns
from llm_energy_measure.storage.parallel import at_once
from llm_energy_measure.storage.prefetch import prefetch

if TYPE_CHECKING:
    from concurrent.futures import Executor

# Maximum number of experiments that are synced together. A larger batch saves little time, and an interruption loses
# the current batch.
_MAX_EXPERIMENTS = 256

# Maximum number of items in a batch. Unchanged experiments are items too.
_MAX_ITEMS = 4_096

Status = Literal["aggregated", "current", "external", "failed", "interrupted"]


class AggregationOutcome(Struct, frozen=True, kw_only=True):
    """The outcome of the aggregation of one experiment.

    Attributes:
        experiment_id: Id or folder name of the experiment, as the caller passed it.
        result: `aggregated`; `current` or `external` (of another tool) if the aggregate is not changed; `failed`; or
            `interrupted` if a scan finds a manifest and no result. The processes were then killed, or have not ended.
        aggregated: The aggregate. None if there is none, or if timestamps show that the experiment has not changed.
        unreadable: The unreadable raw files.
        error: Why the aggregation failed.
        unpublished: One sentence for each complete result that its process could not publish.
        was_altered: True if another program had changed values in the replaced aggregate. The old file is kept.
    """

    experiment_id: str
    result: Status
    aggregated: AggregatedSummary | None = None
    unreadable: list[UnreadableFile] = field(default_factory=list)
    error: LLMEnergyMeasureError | None = None
    was_altered: bool = False
    unpublished: list[str] = field(default_factory=list)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the aggregate as JSON, which takes a third of the time of pickling its objects."""
        aggregated = None if self.aggregated is None else _ENCODER.encode(self.aggregated)
        return _unpickled, ({**structs.asdict(self), "aggregated": aggregated},)


_ENCODER = json.Encoder()
_DECODER = json.Decoder(AggregatedSummary)


def _unpickled(values: dict[str, Any]) -> AggregationOutcome:
    aggregated = None if values["aggregated"] is None else _DECODER.decode(values["aggregated"])
    return AggregationOutcome(**{**values, "aggregated": aggregated})


class BulkOptions(Struct, frozen=True, kw_only=True):
    """Options of `aggregate_all`."""

    strategy: str | None = None
    expected_processes: int | None = None
    strict: bool = True
    force: bool = False
    assume: Assumptions | None = None
    allow_mixed: bool = False


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
    assume: Assumptions | None = None,
    shard: Shard | None = None,
    allow_mixed: bool = False,
) -> Iterator[AggregationOutcome]:
    """Aggregate many experiments, and yield the outcome of each, in order.

    A failed experiment does not stop the other experiments. Experiments are aggregated in batches of growing size, with
    one sync to disk per batch. The batches run while the caller iterates over the outcomes. After an interruption, all
    stored aggregates are complete, and the next call aggregates the other experiments.

    Without `experiment_ids`, an experiment is not opened if timestamps show that it has not changed. Its outcome is
    then `current`, and `aggregated` is None. A lower bound is opened each time, so that a strict call can refuse it.

    Args:
        repository: The results directory.
        experiment_ids: Ids or folder names; by default all experiments with a raw result, sorted by folder name.
        strategy: Name of the strategy; by default the strategy of the older aggregate, else the default strategy.
        expected_processes: Number of processes of each experiment, at least 1; by default the number that was passed
            for the older aggregate.
        strict: Refuse incomplete experiments. The older aggregate of a refused experiment stays.
        force: Aggregate also experiments whose aggregate is current or external.
        rehash: Read all raw files, to find files that were edited in place.
        jobs: Number of processes, including this one; default 1. With an executor, the number of batches that run at
            the same time; default is the number of processors. `auto` uses one process per processor after half a
            second of work. Worker processes import the main script, which needs `if __name__ == "__main__":`.
        executor: A `concurrent.futures.Executor` that runs the batches, such as one of Dask or MPI. All its workers
            must have access to the results directory.
        assume: Facts that the records don't contain, for the attribution. The aggregate records them. By default, the
            assumptions of the older aggregate are kept; `Assumptions()` removes them.
        shard: Aggregate only the experiments of this shard; by default all.
        allow_mixed: Accept results of different models or backends in one experiment.

    Example:
        >>> from llm_energy_measure.results import FileSystemRepository, aggregate_all
        >>> [outcome.experiment_id for outcome in aggregate_all(FileSystemRepository("results"))]  # doctest: +ELLIPSIS
        ['smollm2_b1_c0', ...]
    """
    options = BulkOptions(
        strategy=strategy,
        expected_processes=expected_processes,
        strict=strict,
        force=force,
        assume=assume,
        allow_mixed=allow_mixed,
    )
    if strategy is not None:
        get_strategy(strategy)
    is_default = strategy is None and expected_processes is None and assume is None
    trusts_mtimes = is_default and not (force or rehash)
    is_scan = experiment_ids is None
    items: Iterator[str | AggregationOutcome]
    if experiment_ids is None:
        items = _scan(repository, shard, trusts_mtimes=trusts_mtimes)
    else:
        items = (name for name in experiment_ids if shard is None or shard.has(repository.folder_of(name)))
    aggregate = partial(_aggregate_batch, repository, options=options, is_scan=is_scan)
    yield from run_batches(aggregate, _batches(items), jobs=jobs, executor=executor)


def count_folders(repository: FileSystemRepository, shard: Shard | None = None) -> int:
    """Return the number of folders that `aggregate_all` scans; some may have no result."""
    with Folder(repository.store, RAW_DIR) as raw:
        return sum(1 for name in raw.names() if shard is None or shard.has(name))


def _scan(
    repository: FileSystemRepository, shard: Shard | None, *, trusts_mtimes: bool
) -> Iterator[str | AggregationOutcome]:
    """Yield the names of the folders to open, and the outcomes of experiments whose timestamps show no change."""
    with Folder(repository.store, RAW_DIR) as raw, Folder(repository.store, AGGREGATED_DIR) as aggregated:
        for name in without_hidden(repository.store, raw.names()):
            if shard is not None and not shard.has(name):
                continue
            if trusts_mtimes and is_up_to_date(raw, aggregated, name):
                yield AggregationOutcome(experiment_id=name, result="current")
            elif is_folder_name(name):
                yield name


def _batches(items: Iterator[str | AggregationOutcome]) -> Iterator[list[str | AggregationOutcome]]:
    """Yield batches of growing size, each name at most once per batch. The first batch has one name."""
    size, batch, names = 1, list[str | AggregationOutcome](), set[str]()
    for item in items:
        if isinstance(item, str):
            if item in names:
                yield batch
                batch, names = [], set()
            names.add(item)
        batch.append(item)
        if len(names) >= size or len(batch) >= _MAX_ITEMS:
            yield batch
            size, batch, names = min(size * 4, _MAX_EXPERIMENTS), [], set()
    if batch:
        yield batch


def _aggregate_batch(
    repository: FileSystemRepository, items: list[str | AggregationOutcome], *, options: BulkOptions, is_scan: bool
) -> list[AggregationOutcome]:
    """Return the outcomes of a batch; the new aggregates are stored together."""
    mtime_ns = _reading_time_ns(repository) if any(isinstance(item, str) for item in items) else 0
    outcomes: list[AggregationOutcome] = []
    values: dict[str, bytes] = {}
    lower_bounds: set[str] = set()
    marks: list[Callable[[], None]] = []
    with (
        Folder(repository.store, RAW_DIR) as raw,
        Folder(repository.store, AGGREGATED_DIR) as aggregated,
        closing(prefetch(raw, items, _folder_to_read)) as prefetched,
    ):
        names = [item for item in items if isinstance(item, str) and names_folder(item, item)]
        if names and repository.store.parallel_requests > 1:
            aggregated.use_listing(_listed_aggregates(repository.store, names, is_scan=is_scan))
        for item in prefetched:
            if not isinstance(item, str):
                outcomes.append(item)
                continue
            try:
                found = _aggregate_one(repository, item, options, raw, aggregated, is_scan=is_scan)
                if found is None:
                    continue
                outcome, to_store = found
                values |= to_store
            except LLMEnergyMeasureError as error:
                outcome = AggregationOutcome(experiment_id=item, result="failed", error=error)
            summary = outcome.aggregated
            if summary is not None and summary.is_lower_bound is not False:
                lower_bounds.add(aggregated_key(repository.folder_of(summary.experiment_id)))
            elif is_scan and outcome.result == "current":
                # The raw files were read after `mtime_ns`, and they have the digests in the aggregate.
                mark = partial(mark_up_to_date, raw, aggregated, item, mtime_ns)
                if repository.store.supports_mtime:
                    mark()  # now, because another process can replace the aggregate later
                else:
                    marks.append(mark)  # later is safe: the ETags in the proof identify the bytes that were read
            outcomes.append(outcome)
    complete = {key: data for key, data in values.items() if key not in lower_bounds}
    errors, versions = _put(repository, complete, mtime_ns)
    if is_scan:
        marks += _marks_of_stored(raw, aggregated, values, versions)
    at_once(repository.store, *marks)
    # A lower bound gets the mtime 0, so that each scan opens it, and a strict scan refuses it.
    errors |= _put(repository, {key: data for key, data in values.items() if key in lower_bounds}, 0)[0]
    return [_after_put(repository, outcome, errors) for outcome in outcomes]


def _listed_aggregates(store: Store, folders: list[str], *, is_scan: bool) -> dict[str, Entry]:
    """Return the aggregates of experiments in a bucket, by name. A scan also gets their proof objects.

    With a listing of all aggregates for each batch, the time of a scan would grow with the square of their number. The
    folders of a scan are sorted, so one range of aggregate names and one of proof names contain few other objects.
    `mark_up_to_date` creates the proofs.
    """
    files = [f"{folder}.json" for folder in folders]
    if not is_scan:
        found = at_once(store, *(partial(store.find, aggregated_key(folder)) for folder in folders))
        return {entry.name: entry for entry in found if entry is not None}
    proofs = [proofs_of(folder) for folder in folders]
    ranges = ((min(files), f"{max(files)}\0"), (min(proofs)[0], max(end for _, end in proofs)))
    listed = at_once(store, *(partial(store.list_range, AGGREGATED_DIR, *names) for names in ranges))
    return {entry.name: entry for entries in listed for entry in entries}


def _marks_of_stored(
    raw: Folder, aggregated: Folder, values: dict[str, bytes], versions: dict[str, str]
) -> Iterator[Callable[[], None]]:
    """Yield functions that mark new aggregates as current. `versions` has their ETags, or is empty in a directory."""
    for key, version in versions.items():
        stored = Entry(key.rpartition("/")[2], is_folder=False, size_bytes=len(values[key]), version=version)
        yield partial(mark_up_to_date, raw, aggregated, stored.name.removesuffix(".json"), 0, aggregate=stored)


def _folder_to_read(item: str | AggregationOutcome) -> str | None:
    return item if isinstance(item, str) and is_folder_name(item) else None


def _reading_time_ns(repository: FileSystemRepository) -> int:
    """Return the mtime for aggregates of raw files that are read from now on; 0 if the time is unknown.

    The mtime is 1 ns before the current time of the store's clock. No new file gets this mtime, because it is
    between two ticks of the clock.
    """
    return max(store_time_ns(repository.store, AGGREGATED_DIR) - 1, 0)


def _aggregate_one(
    repository: FileSystemRepository, name: str, options: BulkOptions, raw: Folder, aggregated: Folder, *, is_scan: bool
) -> tuple[AggregationOutcome, dict[str, bytes]] | None:
    """Return an experiment's outcome and the values to store; None if the folder of a scan contains no result.

    Raises:
        LLMEnergyMeasureError: The experiment can't be aggregated.
    """
    folder = repository.folder_of(name)
    if not is_scan and folder != name:
        state = inspect_experiment(repository, name)  # raises if another experiment owns the folder
        recovery = repository.recover_raw(name)
        if not options.strict:
            recovery = publish(repository, folder, recovery)
    else:
        recovery = recover_from(repository, raw, folder)
        if not options.strict:
            recovery = publish(repository, folder, recovery)
        if is_scan and is_no_experiment(recovery) and (options.strict or not recovery.partials):
            if recovery.manifest is None:
                return None
            return AggregationOutcome(
                experiment_id=name, result="interrupted", unpublished=recovery.unpublished_texts(folder)
            ), {}
        is_new = aggregated.is_absent(f"{folder}.json")
        state = ExperimentState(status="pending") if is_new else inspect_experiment(repository, name)
    unchanged = _unchanged(name, state, options)
    if unchanged is not None:
        return unchanged, {}
    try:
        result = _aggregate(name, state, options, recovery)
    except AggregationError as error:
        error.advice = "; ".join([error.advice, *recovery.unpublished_texts(folder)])
        raise
    outcome = AggregationOutcome(
        experiment_id=name,
        result="aggregated",
        aggregated=summary_of(result),
        unreadable=recovery.unreadable,
        was_altered=state.status == "altered",
    )
    return outcome, _values(repository, state, result)


def _unchanged(experiment_id: str, state: ExperimentState, options: BulkOptions) -> AggregationOutcome | None:
    """Return the outcome of an experiment whose aggregate is current or external; None if it has to be aggregated."""
    if options.force:
        return None
    if state.status == "external":
        return AggregationOutcome(experiment_id=experiment_id, result="external", aggregated=state.aggregated)
    older = state.aggregated
    if older is None or state.status != "current":
        return None
    has_strategy = options.strategy in (None, older.aggregation.method)
    has_assumptions = options.assume in (None, older.assumptions or Assumptions())
    has_number = options.expected_processes in (None, stated_processes(older))
    if not (has_strategy and has_assumptions and has_number):
        return None
    if options.strict and older.completeness is not None:
        require_complete(experiment_id, older.completeness)
    return AggregationOutcome(experiment_id=experiment_id, result="current", aggregated=older)


def _aggregate(
    experiment_id: str, state: ExperimentState, options: BulkOptions, recovery: RawRecovery
) -> AggregatedResult:
    """Return the new aggregated result of an experiment. The result is not stored."""
    strategy, expected_processes, assume = options.strategy, options.expected_processes, options.assume
    if state.aggregated is not None and state.status in ("current", "stale"):
        strategy = strategy or state.aggregated.aggregation.method
        assume = assume or state.aggregated.assumptions or None
        if expected_processes is None:
            expected_processes = stated_processes(state.aggregated)
    return aggregate_results(
        experiment_id,
        recovery.results,
        strategy=strategy or DEFAULT_STRATEGY,
        expected_processes=expected_processes,
        manifest=recovery.manifest,
        unreadable=recovery.unreadable,
        partials=() if options.strict else recovery.partials,
        strict=options.strict,
        assume=assume,
        allow_mixed=options.allow_mixed,
    )


def _values(repository: FileSystemRepository, state: ExperimentState, result: AggregatedResult) -> dict[str, bytes]:
    """Return the bytes to store, by key; empty if this function has stored them already.

    Raises:
        LLMEnergyMeasureError: The aggregate can't be stored.
    """
    older = state.aggregated
    is_ours = older is not None and older.sources is not None and older.experiment_id == result.experiment_id
    if result.sources is not None and (state.status == "pending" or is_ours):
        return {aggregated_key(repository.folder_of(result.experiment_id)): encode_aggregated(result)}
    # `save_aggregated` keeps a copy of an external, altered or unreadable aggregate, or refuses to replace it.
    repository.save_aggregated(result)
    return {}


def _put(
    repository: FileSystemRepository, values: dict[str, bytes], mtime_ns: int
) -> tuple[dict[str, LLMEnergyMeasureError], dict[str, str]]:
    """Store values with one sync. Return the error of each key that can't be stored; without errors, the versions."""
    try:
        return {}, repository.store.put_many(values, mtime_ns=mtime_ns)
    except LLMEnergyMeasureError:
        errors = {}
        for key, data in values.items():
            try:
                repository.store.put_many({key: data}, mtime_ns=mtime_ns)
            except LLMEnergyMeasureError as error:
                errors[key] = error
        return errors, {}


def _after_put(
    repository: FileSystemRepository, outcome: AggregationOutcome, errors: dict[str, LLMEnergyMeasureError]
) -> AggregationOutcome:
    """Return the outcome, or a failed one if the aggregate could not be stored."""
    if not errors or outcome.aggregated is None or outcome.result != "aggregated":
        return outcome
    error = errors.get(aggregated_key(repository.folder_of(outcome.aggregated.experiment_id)))
    if error is None:
        return outcome
    return AggregationOutcome(experiment_id=outcome.experiment_id, result="failed", error=error)
