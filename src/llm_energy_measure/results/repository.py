"""`FileSystemRepository`: records in a results directory, each experiment under its sanitised id.

Guarantees, on top of those of `llm_energy_measure.storage.base`:

- A raw result is never replaced silently. The same content again changes nothing; different content is refused, and
  kept beside; `overwrite=True` keeps what it replaces.
- A record that is refused is kept as `rejected-process_<i>-<n>.json`, and the error names that file.
- An unreadable file never hides the readable ones.
- Files that are no results of ours disturb nothing.

One class whose methods are the public API of the store: that is why the module is long.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from msgspec import Struct

from llm_energy_measure.constants import AGGREGATED_DIR, DEFAULT_RESULTS_DIR, MANIFEST_NAME, RAW_DIR, RESULTS_DIR_ENV
from llm_energy_measure.domain.experiment import Manifest, RawProcessResult, UnreadableFile
from llm_energy_measure.exceptions import (
    ConfigurationError,
    ExperimentIdError,
    InvalidResultError,
    ResultCorruptError,
    ResultExistsError,
    ResultNotFoundError,
    ResultsError,
    StorageError,
    UnsafePathError,
)
from llm_energy_measure.results.store import codec, deletion, layout
from llm_energy_measure.results.store.raw_folder import RawFolder, RawRecovery, bytes_of, digest_of, keep, keep_copy
from llm_energy_measure.results.store.rejected import rejected_document
from llm_energy_measure.storage.local import LocalStore, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_energy_measure.domain.experiment import AggregatedResult, AggregatedSummary, CompletenessReport, SourceFile
    from llm_energy_measure.storage.base import Store


AggregateT = TypeVar("AggregateT", bound="AggregatedSummary")

_TRIES = 10
"""How often something may be deleted or set aside under a call before it gives up."""


class SourceChanges(Struct, frozen=True, kw_only=True):
    """How an experiment's raw files differ from those that its aggregate was made from; file names, sorted.

    Attributes:
        added: Files that came since.
        removed: Files that have gone since.
        changed: Files whose bytes are others now.
    """

    added: list[str]
    removed: list[str]
    changed: list[str]

    def __bool__(self) -> bool:
        """True if anything differs."""
        return bool(self.added or self.removed or self.changed)


def default_results_dir() -> Path:
    """The results directory where none is named: `LLM_ENERGY_MEASURE_RESULTS_DIR`, else `results`."""
    return Path(os.environ.get(RESULTS_DIR_ENV) or DEFAULT_RESULTS_DIR)


class FileSystemRepository:
    """The results of any number of experiments in one directory.

    An experiment is named by its own id or by its folder's name; both mean the same experiment. Many processes on many
    hosts may save to one directory at once.

    Args:
        base_path: The results directory; by default `LLM_ENERGY_MEASURE_RESULTS_DIR`, else `results`. It is made by
            the first save.
        store: Where the bytes go instead of that directory.

    Attributes:
        base_path: The results directory.
        store: Where the bytes are.

    Raises:
        ExperimentIdError: Every method that takes an id: the id is impossible, or its folder is another experiment's.
        StorageError: Every method: the file system refused.

    Example:
        >>> import tempfile
        >>> repository = FileSystemRepository(tempfile.mkdtemp())
        >>> repository.list_experiments(), repository.list_raw("exp_42"), repository.load_aggregated("exp_42")
        ([], [], None)
    """

    def __init__(self, base_path: str | Path | None = None, *, store: Store | None = None) -> None:
        """Remember the directory; nothing is touched."""
        self.base_path = Path(base_path) if base_path is not None else default_results_dir()
        self.store: Store = LocalStore(self.base_path) if store is None else store

    def folder_of(self, experiment_id: str) -> str:
        """Name of an experiment's folder, which can be used as its id."""
        return layout.folder_name(experiment_id)

    def raw_folder(self, folder: str) -> RawFolder:
        """What lies under an experiment's folder name, whoever's it is."""
        return RawFolder(self.store, folder)

    # Raw results

    def begin_experiment(self, manifest: Manifest, process_index: int | None = None) -> None:
        """Agree with the other processes, before the run, on what the experiment is.

        Whichever process comes first writes the manifest, the others compare theirs with it. A rerun under an id that
        has results is found here, and not after the run. A later attempt of the same experiment (`manifest.attempt`,
        as SLURM and torchrun count restarts) begins anew: what the earlier one left is kept beside, out of sight.

        Args:
            manifest: What every process knows alike.
            process_index: The process that is about to run. Without it the experiment must have no result yet, unless
                both manifests name the same job of a launcher.

        Raises:
            ExperimentIdError: The id is impossible, or its folder is another experiment's.
            ResultExistsError: Another run has this id, a later attempt has begun, there are results of nobody knows
                which run, or this process has a result already.
            ConfigurationError: The manifest says what none can say, such as 0 processes.
        """
        folder = layout.folder_name(manifest.experiment_id)
        doing = f"cannot begin experiment {manifest.experiment_id!r}"
        try:
            manifest = codec.decode_manifest(codec.encode_manifest(manifest), MANIFEST_NAME)
        except (TypeError, ValueError) as error:
            found = error.found if isinstance(error, ResultCorruptError) else str(error)
            raise ConfigurationError(doing, f"its manifest could not be read again ({found})", "correct it") from error
        raw = self.raw_folder(folder)
        advice = "choose another id, or count the attempt"
        if raw.process_indices() and raw.has_no_manifest():  # in this order: results come after their manifest
            if not manifest.attempt:
                raise ResultExistsError(doing, "it has results already, and nothing says of which run", advice)
            with contextlib.suppress(ResultExistsError):  # another process set them aside between the two looks
                raw.pin(Manifest(experiment_id=manifest.experiment_id))  # another tool's are the first attempt
        earlier = raw.pin(manifest)
        while earlier.attempt < manifest.attempt:
            # Of several processes one moves the folder; it can't be moved onto the earlier attempt a second time.
            kept, attempt = layout.earlier_attempt_folder(folder, earlier.attempt), earlier.attempt
            moved = self.store.move_folder(layout.raw_folder(folder), kept)
            earlier = raw.pin(manifest)
            if not moved and earlier.attempt == attempt:
                found = f"what another attempt {attempt} left is kept in {self.store.path(kept)}"
                raise ResultExistsError(doing, found, "move it away")
        if difference := earlier.difference(manifest):
            name, value, own = difference
            found = f"its manifest says {name} {value!r}, this process {own!r}"
            raise ResultExistsError(doing, found, advice)
        if in_the_way := _in_the_way(earlier, manifest, process_index, raw.process_indices()):
            raise ResultExistsError(doing, in_the_way, advice)

    def save_raw(self, experiment_id: str, result: RawProcessResult, *, overwrite: bool = False) -> Path:
        """Store what one process measured, durably, and return its file.

        Saving the same content again changes nothing.

        Args:
            experiment_id: The id that the record has to carry.
            result: The record; numpy scalars are accepted.
            overwrite: Replace a different result of the same process; the replaced one is kept as
                `superseded-process_<i>-<n>.json`.

        Raises:
            InvalidResultError: A value can't be right. The record is kept; `error.kept` names the file.
            ExperimentIdError: The id is impossible, not the record's, or its folder is another experiment's. The
                record is kept.
            ResultExistsError: A different result of this process is there. The new one is kept.
        """
        try:
            folder = layout.folder_name(experiment_id)
        except ExperimentIdError as refused:
            self._refuse(refused, layout.UNNAMED, result)
        try:
            record = codec.require_valid_raw(result)
            _require_own_id(experiment_id, record)
            pinned = self._require_place(folder, record)
        except (InvalidResultError, ExperimentIdError, ResultExistsError) as refused:
            self._refuse(refused, folder, result)
        key, data = layout.raw_key(folder, record.process_index), codec.encode_raw(record)
        is_new, stored = self._create_or_read(key, data)
        if is_new:
            if self.raw_folder(folder).readable_manifest() != pinned:
                self._require_place_still(folder, record, key, data)
            return self.store.path(key)
        if stored == data or _is_record(stored, record):
            return self.store.path(key)
        if not overwrite or stored is None:
            self._refuse(self.raw_folder(folder).conflict(key, stored, data), folder, record)
        replaced = self.store.exchange(key, data)
        keep_copy(self.store, replaced, lambda number: layout.superseded_raw_key(folder, record.process_index, number))
        self.store.delete(replaced)
        return self.store.path(key)

    def _create_or_read(self, key: str, data: bytes) -> tuple[bool, bytes | None]:
        """Whether a value was stored, or else what stands in its place; None if that can't be read."""
        for _ in range(_TRIES):
            if self.store.create(key, data):
                return True, None
            try:
                return False, self.store.get(key)
            except ResultNotFoundError:
                continue  # deleted, or set aside, since
            except ResultsError:
                break
        return False, None

    def keep_partial(self, folder: str, record: RawProcessResult) -> Path:
        """Store a partial record of a process beside its experiment's results, and return its file.

        A different one that is there is kept as `superseded-process_<i>-<n>.json`.
        """
        key, data = layout.partial_key(folder, record.process_index), codec.encode_raw(record)
        if not self.store.create(key, data) and bytes_of(self.store, key) != data:
            self.archive_checkpoint(folder, record.process_index)
            self.store.put(key, data)
        return self.store.path(key)

    def save_checkpoint(self, experiment_id: str, record: RawProcessResult) -> Path:
        """Store what a process has measured so far, in place of its older checkpoint, and return its file.

        Raises:
            InvalidResultError: A value can't be right.
            ResultExistsError: A later attempt of the experiment has begun.
        """
        folder, record = layout.folder_name(experiment_id), codec.require_valid_raw(record)
        self._require_place(folder, record)
        key = layout.partial_key(folder, record.process_index)
        self.store.put(key, codec.encode_raw(record))
        return self.store.path(key)

    def archive_checkpoint(self, experiment_id: str, process_index: int) -> None:
        """Keep the checkpoint of a process that begins once more, as `superseded-process_<i>-<n>.json`."""
        folder = layout.folder_name(experiment_id)
        key = layout.partial_key(folder, process_index)
        if bytes_of(self.store, key) is not None:
            keep_copy(self.store, key, lambda number: layout.superseded_raw_key(folder, process_index, number))
            self.store.delete(key)

    def drop_checkpoint(self, experiment_id: str, process_index: int) -> bool:
        """Remove the checkpoint of a process that has a result now; False if there was none."""
        return self.store.delete(layout.partial_key(layout.folder_name(experiment_id), process_index))

    def list_raw(self, experiment_id: str) -> list[Path]:
        """Files of an experiment's raw results, by process index; empty if there are none."""
        folder = self._folder(experiment_id)
        return [self.store.path(layout.raw_key(folder, index)) for index in self.raw_folder(folder).process_indices()]

    def load_raw(self, path: str | Path) -> RawProcessResult:
        """One raw result, from any path, inside this directory or not.

        Raises:
            ResultNotFoundError: Nothing is there.
            ResultCorruptError: The file is no raw result.
        """
        path = Path(path)
        return codec.decode_raw(read_file(path, follow_links=True), "/".join(path.parts[-2:]))

    def load_all_raw(self, experiment_id: str) -> list[RawProcessResult]:
        """All raw results of an experiment, by process index; empty if there are none.

        Raises:
            ResultCorruptError: Some can't be read: the message names every one, and `error.unreadable` has the
                reasons. `recover_raw` returns the others.
        """
        recovery = self.recover_raw(experiment_id)
        if recovery.unreadable:
            found = "; ".join(f"{file.name}: {file.reason}" for file in recovery.unreadable)
            advice = f"the other {len(recovery.results)} can be had from recover_raw"
            refused = ResultCorruptError(f"Failed to load all raw results of {experiment_id!r}", found, advice)
            refused.unreadable = {file.name: file.reason for file in recovery.unreadable}
            raise refused
        return recovery.results

    def recover_raw(self, experiment_id: str, *, attempt: int | None = None) -> RawRecovery:
        """The readable raw results of an experiment and, by name and reason, the unreadable ones.

        No unreadable file makes it raise.

        Args:
            experiment_id: Its id or folder name.
            attempt: An earlier attempt, one of `list_attempts`; by default the one that is current.
        """
        folder = self._folder(experiment_id)
        raw = self.raw_folder(folder) if attempt is None else RawFolder(self.store, folder, attempt=attempt)
        recovery = raw.recover()
        self._require_asked_for(experiment_id, folder, recovery.results)
        return recovery

    def list_attempts(self, experiment_id: str) -> list[int]:
        """Earlier attempts of an experiment, which later ones set aside; `recover_raw` reads their results."""
        folder = self._folder(experiment_id)
        found = [layout.earlier_attempt_of(entry.name) for entry in self.store.list(RAW_DIR)]
        return sorted(attempt[1] for attempt in found if attempt is not None and attempt[0] == folder)

    def has_raw(self, experiment_id: str) -> bool:
        """True if an experiment has a raw result, readable or not."""
        return bool(self.raw_folder(self._folder(experiment_id)).process_indices())

    def has_folder(self, experiment_id: str) -> bool:
        """True if an experiment has a folder with anything in it: a result, a refused record, a manifest."""
        return bool(self.store.list(layout.raw_folder(self._folder(experiment_id))))

    def load_manifest(self, experiment_id: str) -> Manifest | None:
        """What was expected of an experiment, or None if nobody wrote it down. Raises `ResultCorruptError`."""
        return self.raw_folder(self._folder(experiment_id)).manifest()

    # Aggregated results

    def save_aggregated(self, result: AggregatedResult) -> Path:
        """Store an experiment's aggregate in place of an older one, and return its file.

        What this package did not make, it keeps: an aggregate of another tool, or one that can't be read, becomes
        `superseded-<id>-<n>.json`.

        Raises:
            ExperimentIdError: The id is impossible, or its place is taken by another experiment's aggregate.
            InvalidResultError: A figure can't be right, or the result was loaded without its processes.
        """
        return self.save_all_aggregated([result])[0]

    def save_all_aggregated(self, results: Sequence[AggregatedResult]) -> list[Path]:
        """Store several experiments' aggregates as `save_aggregated` does, with one sync for all.

        Raises:
            ExperimentIdError, InvalidResultError: As `save_aggregated`; none of them was stored then.
        """
        values: dict[str, bytes] = {}
        owners: dict[str, str] = {}
        for result in results:
            folder = layout.folder_name(result.experiment_id)
            if owners.setdefault(folder, result.experiment_id) != result.experiment_id:
                raise self.raw_folder(folder).taken(result.experiment_id, owners[folder])
            deletion.finish(self.store, folder)
            values[layout.aggregated_key(folder)] = self._encoded_aggregate(folder, result)
        if len(values) == 1:
            self.store.put(*next(iter(values.items())))
        elif values:
            self.store.put_many(values)
        return [self.store.path(layout.aggregated_key(layout.folder_name(result.experiment_id))) for result in results]

    def _encoded_aggregate(self, folder: str, result: AggregatedResult) -> bytes:
        """The bytes to store, once what they replace is known to be of the same experiment, or kept."""
        key = layout.aggregated_key(folder)
        if result.sources is not None and len(result.sources) != len(result.process_results):
            doing = f"cannot save the aggregate of {result.experiment_id!r}"
            raise InvalidResultError(doing, "it was loaded without its processes", "load it whole")
        data = codec.encode_aggregated(result)
        try:
            older = codec.decode_summary(self.store.get(key), key)
        except ResultNotFoundError:
            pass
        except (ResultCorruptError, StorageError):
            keep_copy(self.store, key, lambda number: layout.superseded_aggregate_key(folder, number))
        else:
            if older.experiment_id != result.experiment_id:
                raise self.raw_folder(folder).taken(result.experiment_id, older.experiment_id)
            if older.sources is None and result.sources is not None:
                keep_copy(self.store, key, lambda number: layout.superseded_aggregate_key(folder, number))
        return data

    def load_aggregated(self, experiment_id: str) -> AggregatedResult | None:
        """Return an experiment's aggregated result, or None if there is none.

        Args:
            experiment_id: Its id or folder name.

        Raises:
            ResultCorruptError: The file is not an aggregated result.
        """
        return self._load_aggregate(experiment_id, codec.decode_aggregated)

    def load_summary(self, experiment_id: str) -> AggregatedSummary | None:
        """Return an experiment's aggregated result without its raw records: several times faster.

        Raises:
            ResultCorruptError: The file is not an aggregated result; damage inside the raw records is not found.
        """
        return self._load_aggregate(experiment_id, codec.decode_summary)

    def _load_aggregate(self, experiment_id: str, decode: Callable[[bytes, str], AggregateT]) -> AggregateT | None:
        folder = self._folder(experiment_id)
        data = self._aggregate_bytes(folder)
        if data is None:
            return None
        result = decode(data, f"{folder}.json")
        self._require_asked_for(experiment_id, folder, [result])
        if layout.folder_name(result.experiment_id) != folder:
            found, advice = f"it is the aggregate of {result.experiment_id!r}", "move it to its own name"
            raise ResultCorruptError(f"Failed to load aggregated result {folder}.json", found, advice)
        return result

    def read_aggregated(self, experiment_id: str) -> bytes | None:
        """Return the bytes of an experiment's aggregated result, or None if there is none."""
        return self._aggregate_bytes(self._folder(experiment_id))

    def _aggregate_bytes(self, folder: str) -> bytes | None:
        if deletion.is_deleted(self.store, folder):
            return None
        try:
            return self.store.get(layout.aggregated_key(folder))
        except ResultNotFoundError:
            return None

    def has_aggregated(self, experiment_id: str) -> bool:
        """True if an experiment has an aggregate, readable or not."""
        folder = self._folder(experiment_id)
        is_there = any(entry.name == f"{folder}.json" for entry in self.store.list(AGGREGATED_DIR))
        return is_there and not deletion.is_deleted(self.store, folder)

    def source_changes(self, aggregated: AggregatedSummary) -> SourceChanges:
        """How the raw files differ from those that an aggregate was made from: if at all, it is stale.

        An aggregate of another tool names no sources; none of its files count as changed.
        """
        if aggregated.sources is None:
            return SourceChanges(added=[], removed=[], changed=[])
        folder = layout.folder_name(aggregated.experiment_id)
        unreadable = aggregated.completeness.unreadable if aggregated.completeness else []
        then: dict[str, SourceFile | UnreadableFile] = {
            file.name: file for file in unreadable if file.name != MANIFEST_NAME
        }
        then.update({file.name: file for file in aggregated.sources})
        indices = self.raw_folder(folder).process_indices()
        now = {layout.process_file(index): layout.raw_key(folder, index) for index in indices}
        # A checkpoint that the aggregate counts; one that came since does not make it stale.
        partials = {layout.partial_key(folder, index) for index in self.raw_folder(folder).unfinished_indices()}
        now.update({key.rpartition("/")[2]: key for key in partials if key.rpartition("/")[2] in then})
        changed = [name for name in now.keys() & then.keys() if digest_of(self.store, now[name]) != then[name].sha256]
        if self._expects_otherwise(folder, aggregated.completeness):
            changed.append(MANIFEST_NAME)
        return SourceChanges(
            added=sorted(now.keys() - then.keys()),
            removed=sorted(then.keys() - now.keys()),
            changed=sorted(changed),
        )

    def _expects_otherwise(self, folder: str, report: CompletenessReport | None) -> bool:
        """True if the manifest names another number of processes than an aggregate took to be expected."""
        if report is None or report.expected_from == "argument":
            return False
        try:
            manifest = self.load_manifest(folder)
        except ResultsError:
            return False
        expected = manifest.expected_processes if manifest is not None else None
        return expected is not None and expected != report.expected_processes

    # Experiments

    def list_experiments(self) -> list[str]:
        """Folder names of all experiments that have a raw result, sorted: each can be used as an id.

        A folder that can't be looked into is among them: what is done with it then says why.
        """
        folders = [entry.name for entry in self.store.list(RAW_DIR) if entry.is_folder]
        return [folder for folder in folders if layout.is_folder_name(folder) and self._may_have_raw(folder)]

    def list_aggregated(self) -> list[str]:
        """Folder names of all experiments that have an aggregate, sorted: each can be used as an id."""
        entries = [entry for entry in self.store.list(AGGREGATED_DIR) if not entry.is_folder]
        folders = [folder for entry in entries if (folder := layout.aggregated_folder_of(entry.name)) is not None]
        deleted = deletion.deleted_folders(self.store) if folders else set()
        return sorted(folder for folder in folders if folder not in deleted)

    def delete_experiment(self, experiment_id: str) -> bool:
        """Delete an experiment: raw folder with all in it, aggregate, tags, earlier attempts. False if there is none.

        Interrupted at any point, the experiment is either there whole or gone.
        """
        folder = self._folder(experiment_id)
        self._require_asked_for(experiment_id, folder, [*self._readable(folder)])
        raw = self.raw_folder(folder)
        if experiment_id != folder and raw.process_indices() and raw.holder() is None:
            found = f"nothing in the folder {folder!r} says that it is its own"
            advice = f"name it {folder!r} if you mean that folder"
            raise ExperimentIdError(f"cannot delete {experiment_id!r}", found, advice)
        with contextlib.suppress(
            ResultCorruptError, StorageError, UnsafePathError
        ):  # such a file can't say whose it is
            self.load_summary(experiment_id)
        return deletion.delete(self.store, folder, raw.holder() or (None if experiment_id == folder else experiment_id))

    # Reading one experiment's folder

    def _folder(self, experiment_id: str) -> str:
        """The folder of an experiment that is asked for, which must not be another's."""
        folder = layout.folder_name(experiment_id)
        holder = None if experiment_id == folder else self.raw_folder(folder).holder()
        if holder not in (None, experiment_id):
            raise self.raw_folder(folder).taken(experiment_id, holder)
        return folder

    def _may_have_raw(self, folder: str) -> bool:
        try:
            return bool(self.raw_folder(folder).process_indices())
        except StorageError:
            return True

    def _readable(self, folder: str) -> Iterator[RawProcessResult]:
        for index in self.raw_folder(folder).process_indices():
            outcome = self.raw_folder(folder).read(index)
            if not isinstance(outcome, UnreadableFile):
                yield outcome

    # Refusing

    def _require_place(self, folder: str, record: RawProcessResult) -> Manifest:
        """The folder is the record's experiment's, at the record's attempt as far as that is known."""
        attempt = record.launcher.attempt if record.launcher is not None else None
        pinned = self.raw_folder(folder).pin(Manifest(experiment_id=record.experiment_id, attempt=attempt or 0))
        if attempt is not None and attempt != pinned.attempt:
            doing = f"cannot save raw result of process {record.process_index} of {record.experiment_id!r}"
            found = f"it is of attempt {attempt}, and the experiment is at attempt {pinned.attempt}"
            raise ResultExistsError(doing, found, "leave it to the other attempt")
        return pinned

    def _require_place_still(self, folder: str, record: RawProcessResult, key: str, data: bytes) -> None:
        """The folder was not set aside, and did not become another's, while the record was being published in it."""
        if self.raw_folder(folder).has_no_manifest() and bytes_of(self.store, key) != data:
            return  # deleted since, or set aside with the record in it
        try:
            self._require_place(folder, record)
        except (ExperimentIdError, ResultExistsError) as refused:
            try:
                self._refuse(refused, folder, record)  # kept first, taken back then
            finally:
                if bytes_of(self.store, key) == data:
                    self.store.delete(key)

    def _require_asked_for(
        self, experiment_id: str, folder: str, records: Sequence[RawProcessResult | AggregatedSummary]
    ) -> None:
        """The folder holds the experiment that was asked for, by its id or by the folder's name."""
        for record in records:
            if experiment_id not in (record.experiment_id, folder):
                raise self.raw_folder(folder).taken(experiment_id, record.experiment_id)

    def _refuse(
        self, refused: InvalidResultError | ExperimentIdError | ResultExistsError, folder: str, result: RawProcessResult
    ) -> NoReturn:
        """Keep the refused record beside the others, then raise the error that names the file."""
        with contextlib.suppress(StorageError, UnsafePathError):
            deletion.finish(self.store, folder)
        data = rejected_document(result, getattr(refused, "problems", ()) or (refused.found,))
        index = getattr(result, "process_index", None)  # what is no record at all is kept as well
        try:
            refused.kept, _ = keep(self.store, data, lambda number: layout.rejected_key(folder, index, number))
        except (StorageError, UnsafePathError) as error:
            refused.advice += f"; the record could not be kept ({error.found}), so keep it yourself"
        else:
            refused.advice += f"; the record is kept in {refused.kept}"
        raise refused


def _is_record(stored: bytes | None, record: RawProcessResult) -> bool:
    """True if stored bytes hold this very record, written by a version that lacked fields which are null in it."""
    if stored is None:
        return False
    try:
        return codec.decode_raw(stored, "") == record
    except ResultCorruptError:
        return False


def _require_own_id(experiment_id: str, record: RawProcessResult) -> None:
    if record.experiment_id != experiment_id:
        doing = f"cannot save raw result of process {record.process_index} under {experiment_id!r}"
        raise ExperimentIdError(doing, f"the record's own id is {record.experiment_id!r}", "save it under its own id")


def _in_the_way(theirs: Manifest, own: Manifest, process_index: int | None, there: Sequence[int]) -> str | None:
    """Why a run can't begin although nothing that is known tells it from the one whose results are there."""
    if process_index is not None:
        return f"process {process_index} has a result already" if process_index in there else None
    job = own.launcher.job_id if own.launcher is not None else None
    is_same_job = job is not None and theirs.launcher is not None and theirs.launcher.job_id == job
    return f"it has results already, of {len(there)} processes" if there and not is_same_job else None
