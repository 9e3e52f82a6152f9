"""Save imported records that are not stored yet. In a dry run, report which records would be saved."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.power_trace import PowerTrace
from llm_energy_measure.exceptions import LLMEnergyMeasureError, ResultExistsError
from llm_energy_measure.importers import Entry
from llm_energy_measure.importers.codecarbon import ungrouped_experiment_id
from llm_energy_measure.importers.energy_join import without_joined_energy
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.jobs import run_batches
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.raw_folder import RawFolder
from llm_energy_measure.results.store.samples import save_samples
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.group_commit import map_in_threads

if TYPE_CHECKING:
    from concurrent.futures import Executor

    Pair = tuple[RawProcessResult, Entry]

_EXPERIMENTS_PER_BATCH = 16
"""Number of experiments that a worker saves together. Files that are saved together share calls of fsync."""

_CONFLICT_ADVICE = "compare both results, or replace the stored result with --overwrite, which keeps a copy of it"


class Saver:
    """Saves imported records that are not stored yet.

    Attributes:
        already_stored: Number of records that the results directory already has.
        replaced: Number of stored results that a record replaced.
    """

    def __init__(self, repository: FileSystemRepository, *, overwrite: bool) -> None:
        self.repository = repository
        self.overwrite = overwrite
        self.already_stored = 0
        self.replaced = 0

    def save_groups(self, groups: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], list[int]]]:
        """Save the records of each experiment. Yield its records and its new process indices, in order of `groups`."""
        for pairs, new, saver in map_in_threads(self.repository.store, self._save_in, groups, _folder_name):
            self.already_stored += saver.already_stored
            self.replaced += saver.replaced
            yield pairs, new

    def _save_in(self, store: Store, pairs: list[Pair]) -> tuple[list[Pair], list[int], Saver]:
        """Save the records of an experiment in a thread. Return `pairs`, the new process indices, and the saver."""
        saver = Saver(FileSystemRepository(self.repository.base_path, store=store), overwrite=self.overwrite)
        return pairs, saver.new_processes(pairs), saver

    def new_processes(self, pairs: list[Pair]) -> list[int]:
        """Save the records of an experiment, and return the process indices of the new records."""
        new = [record.process_index for record, entry in pairs if self.save_pair(record, entry)]
        _advise_deletion(pairs)
        return new

    def save_pair(self, record: RawProcessResult, entry: Entry) -> bool:
        """Save a record and its power samples. Return True if the record is new."""
        is_new = self.save(record, entry)
        if entry.power_log is not None and entry.outcome != "refused":
            try:
                self._write_samples(record, entry.power_log.traces)
            except LLMEnergyMeasureError as error:
                entry.message = f"{entry.message}; the power samples are not stored: {error}"
        entry.power_log = None  # frees memory: the report contains the entry until the end of the import
        return is_new

    def save(self, record: RawProcessResult, entry: Entry) -> bool:
        """Save a record and return True if it is new. Otherwise, write the reason to `entry` and return False."""
        try:
            if self._is_stored(record):
                self.already_stored += 1
                notes = [] if entry.code == "whole" else [entry.message]
                entry.message = "; ".join([*notes, "the results already contain the same measurement"])
                if entry.outcome == "kept":
                    entry.code = "already_there"
                return False
            if self._is_stored_alone(record):
                entry.outcome, entry.code = "refused", "stored_elsewhere"  # `_advise_deletion` writes the message
                return False
            replaces = self.overwrite and self._has_process(record)
            self._write(record)
            self.replaced += replaces
        except LLMEnergyMeasureError as error:
            entry.outcome = "refused"
            entry.code = "conflict" if isinstance(error, ResultExistsError) else "refused_at_save"
            entry.message = _message(error)
            return False
        return True

    def _is_stored(self, record: RawProcessResult) -> bool:
        """Return True if the stored record has the same measurement.

        The source file may differ, because logs grow and are copied.
        """
        if not self._has_process(record):
            return False
        stored = self._folder(record).read(record.process_index)
        return isinstance(stored, type(record)) and _without_origin(record) in (
            _without_origin(stored),
            _without_origin(without_joined_energy(stored, record)),
        )

    def _is_stored_alone(self, record: RawProcessResult) -> bool:
        """Return True if an earlier import stored the same row as an experiment of its own."""
        experiment_id = ungrouped_experiment_id(record)
        if experiment_id in (None, record.experiment_id) or record.origin is None:
            return False
        alone = msgspec.structs.replace(record, experiment_id=experiment_id, process_index=0)
        if not self._has_process(alone):
            return False
        stored = self._folder(alone).read(0)
        origin = stored.origin if isinstance(stored, type(record)) else None
        return origin is not None and (origin.sha256, origin.row) == (record.origin.sha256, record.origin.row)

    def _has_process(self, record: RawProcessResult) -> bool:
        return record.process_index in self._folder(record).process_indices()

    def _folder(self, record: RawProcessResult) -> RawFolder:
        return self.repository.raw_folder(self.repository.folder_of(record.experiment_id))

    def _write(self, record: RawProcessResult) -> None:
        self.repository.save_raw(record.experiment_id, record, overwrite=self.overwrite)

    def _write_samples(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> None:
        if any(trace.times for trace in traces):
            store = self.repository.store
            save_samples(store, record.experiment_id, record.process_index, traces, overwrite=self.overwrite)


class ExecutorSaver(Saver):
    """Saves imported records on the workers of an executor.

    The workers need access to the results directory, but not to the imported files. If a worker is lost, its batch is
    saved again. If the lost worker had saved some records of the batch, the report counts them as already stored.
    """

    def __init__(self, repository: FileSystemRepository, *, overwrite: bool, executor: Executor, jobs: int) -> None:
        super().__init__(repository, overwrite=overwrite)
        self._executor = executor
        self._jobs = jobs

    def save_groups(self, groups: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], list[int]]]:
        """Save the records of each experiment. Yield its records and its new process indices, in order of `groups`."""
        sent: deque[list[list[Pair]]] = deque()

        def batches() -> Iterator[list[list[Pair]]]:
            while batch := list(islice(groups, _EXPERIMENTS_PER_BATCH)):
                sent.append(batch)
                yield batch

        work = partial(_save_batch, self.repository, overwrite=self.overwrite)
        for saved in run_batches(
            work,
            batches(),
            jobs=self._jobs,
            executor=self._executor,
            names_of=lambda batch: set(map(_folder_name, batch)),
        ):
            self.already_stored += saved.already_stored
            self.replaced += saved.replaced
            for pairs, entries, new in zip(sent.popleft(), saved.entries, saved.new, strict=True):
                for (_, entry), changed in zip(pairs, entries, strict=True):
                    for name in Entry.__struct_fields__:
                        setattr(entry, name, getattr(changed, name))
                yield pairs, new


class _SavedBatch(NamedTuple):
    """Result of a worker: the changed entries and new process indices of each experiment, and the counts of `Saver`."""

    entries: list[list[Entry]]
    new: list[list[int]]
    already_stored: int
    replaced: int


def _save_batch(repository: FileSystemRepository, batch: list[list[Pair]], *, overwrite: bool) -> list[_SavedBatch]:
    """Save a batch of experiments in this process, and return one `_SavedBatch` in a list."""
    saver = Saver(repository, overwrite=overwrite)
    saved = list(saver.save_groups(iter(batch)))
    entries = [[entry for _, entry in pairs] for pairs, _ in saved]
    return [_SavedBatch(entries, [new for _, new in saved], saver.already_stored, saver.replaced)]


class DryRun(Saver):
    """Reports which records `Saver` would save, and writes no file.

    Attributes:
        planned: Digest of each record that would be written, by folder and process.
        owners: Experiment id by folder.
    """

    def __init__(self, repository: FileSystemRepository, *, overwrite: bool) -> None:
        super().__init__(repository, overwrite=overwrite)
        self.planned: dict[tuple[str, int], bytes] = {}
        self.owners: dict[str, str] = {}

    def save_groups(self, groups: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], list[int]]]:
        """Plan the records of each experiment. Yield its records and its new process indices, in order of `groups`."""
        return ((pairs, self.new_processes(pairs)) for pairs in groups)

    def _is_stored(self, record: RawProcessResult) -> bool:
        planned = self.planned.get(self._key(record))
        return planned == _digest(record) if planned is not None else super()._is_stored(record)

    def _has_process(self, record: RawProcessResult) -> bool:
        return self._key(record) in self.planned or super()._has_process(record)

    def _write(self, record: RawProcessResult) -> None:
        checked = codec.require_valid_raw(record)
        name, index = self._key(checked)
        folder = self._folder(checked)
        owner = self.owners.get(name) or folder.owner() or record.experiment_id
        if owner != record.experiment_id:
            raise folder.id_conflict(record.experiment_id, owner)
        if not self.overwrite and self._has_process(checked):
            found = "a different result of the same process is stored or comes earlier in this import"
            raise ResultExistsError(f"cannot save process {index} of {record.experiment_id!r}", found, _CONFLICT_ADVICE)
        self.owners[name] = owner
        self.planned[name, index] = _digest(record)

    def _write_samples(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> None:
        """Write nothing."""

    def _key(self, record: RawProcessResult) -> tuple[str, int]:
        return self.repository.folder_of(record.experiment_id), record.process_index


def _folder_name(pairs: list[Pair]) -> str:
    """Return a key that is equal for all records of one folder, also on a file system that ignores case."""
    return re.sub("[^a-z0-9]", "_", pairs[0][0].experiment_id.lower()).strip("_")


def _advise_deletion(pairs: Sequence[Pair]) -> None:
    """If an earlier import stored rows of an experiment as experiments of their own, write what to delete.

    The first row of a group has the same experiment id with and without grouping. If the stored result of this row has
    another host, the code is `conflict` and not `stored_elsewhere`. So a `conflict` also counts, if another row of the
    group is `stored_elsewhere`.
    """
    refused = [(record, entry) for record, entry in pairs if entry.code in ("stored_elsewhere", "conflict")]
    if all(entry.code == "conflict" for _, entry in refused):
        return
    ids = [
        (ungrouped_experiment_id(record) if entry.code == "stored_elsewhere" else None) or record.experiment_id
        for record, entry in refused
    ]
    names = " ".join(dict.fromkeys(ids))
    for stored_id, (record, entry) in zip(ids, refused, strict=True):
        entry.message = (
            f"an earlier import stored this row as experiment {stored_id}; to store the rows as processes of "
            f"{record.experiment_id}, run 'results delete {names}' and import again, or use another results directory "
            "with -o"
        )


def _message(error: LLMEnergyMeasureError) -> str:
    """Return why a record was not saved. For a conflict, the text has advice for users of the command line."""
    if not isinstance(error, ResultExistsError) or error.digests is None:
        return str(error)
    kept = f"; the record is kept in {error.kept}" if error.kept is not None else ""
    return f"{error.doing}: {error.found}; {_CONFLICT_ADVICE}{kept}"


def _without_origin(record: RawProcessResult) -> RawProcessResult:
    """Return the record without its origin, the facts about its source file."""
    return msgspec.structs.replace(record, origin=None)


def _digest(record: RawProcessResult) -> bytes:
    return hashlib.sha256(msgspec.json.encode(_without_origin(record))).digest()
