"""`FileSystemRepository`: save and load the results of experiments in one directory.

Guarantees, in addition to the guarantees of `llm_energy_measure.storage.base`:

- A raw result is never replaced silently. Saving the same content again changes nothing. Different content raises an
  error, unless `overwrite=True` is passed, which keeps the replaced file under another name.
- A refused record is kept as `rejected-process_<i>-<n>.json.kept`, and the error names this file.
- An unreadable file does not prevent the recovery of the readable files (`recover_raw`).
- Files of other programs are ignored.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from llm_energy_measure.constants import AGGREGATED_DIR, DEFAULT_RESULTS_DIR, RAW_DIR, RESULTS_DIR_ENV
from llm_energy_measure.domain.experiment import (
    AggregatedResult,
    AggregatedSummary,
    Manifest,
    RawProcessResult,
    UnreadableFile,
    process_index_of,
)
from llm_energy_measure.exceptions import (
    ExperimentIdError,
    InvalidResultError,
    ResultAlteredError,
    ResultCorruptError,
    ResultExistsError,
    ResultNotFoundError,
    ResultsError,
    StorageError,
    UnsafePathError,
)
from llm_energy_measure.results.store import attempts, codec, deletion, layout
from llm_energy_measure.results.store.raw_folder import RawFolder, RawRecovery, bytes_of, keep_copy
from llm_energy_measure.results.store.rejected import keep_refused
from llm_energy_measure.storage.base import Store, StorePath, by_folder
from llm_energy_measure.storage.local import read_file
from llm_energy_measure.storage.opening import open_store, place_of

AggregateT = TypeVar("AggregateT", bound="AggregatedSummary")

# Number of attempts to create a file that other processes keep deleting.
_MAX_TRIES = 10


def default_results_dir() -> Path:
    """Return the default results directory or URL: `LLM_ENERGY_MEASURE_RESULTS_DIR` if it is set, else `results`."""
    return place_of(os.environ.get(RESULTS_DIR_ENV) or DEFAULT_RESULTS_DIR)


class FileSystemRepository:
    """The results of any number of experiments in one directory.

    Methods take the id of an experiment or the name of its folder. Many processes on many hosts may save to one
    directory at once.

    Args:
        base_path: The results directory; by default `LLM_ENERGY_MEASURE_RESULTS_DIR`, else `results`. The first save
            creates the directory. The URL of a bucket and a prefix, such as `s3://bucket/results`, is accepted too. The
            methods then return `StorePath` objects as paths, whose `str` is a URL.
        store: The store to use instead of the directory `base_path`.
        results_dir: Another name of `base_path`.

    Attributes:
        base_path: The results directory.
        store: The store that contains the results.

    Raises:
        ConfigurationError: The results directory is a URL of an unknown kind, or not a valid URL.
        MissingExtraError: The results directory is in a bucket, and obstore is not installed.
        ExperimentIdError: In every method that takes an id: the id is not valid, or another experiment owns its folder.
        StorageError: In every method: the file system reports an error.

    Example:
        >>> import tempfile
        >>> repository = FileSystemRepository(tempfile.mkdtemp())
        >>> repository.list_experiments(), repository.list_raw("exp_42"), repository.load_aggregated("exp_42")
        ([], [], None)
    """

    def __init__(
        self,
        base_path: str | Path | None = None,
        *,
        store: Store | None = None,
        results_dir: str | Path | None = None,
    ) -> None:
        """Store the arguments; no file is read or created."""
        base_path = results_dir if base_path is None else base_path
        self.base_path = default_results_dir() if base_path is None else place_of(base_path)
        self.store: Store = open_store(self.base_path) if store is None else store

    def missing_reason(self) -> str | None:
        """Return why the results directory does not exist. None if it exists, or if the store is a bucket."""
        if not self.store.supports_paths or self.base_path.is_dir():
            return None
        return "it is not a directory" if self.base_path.exists() else "the directory does not exist"

    # Save raw results

    def begin_experiment(self, manifest: Manifest, process_index: int | None = None) -> None:
        """Write the manifest before the run, or compare it with the stored one.

        The first process writes the manifest. Each other process compares its manifest with the stored one. If the id
        already has results of another run, this method refuses the rerun before it starts. `manifest.attempt` counts
        restarts, as SLURM and torchrun do. A later attempt archives the results of the earlier attempt.

        Args:
            manifest: The facts that all processes share.
            process_index: The process that is about to run. If it is None, the experiment must have no result yet,
                unless this manifest and the stored one contain the same launcher job id.

        Raises:
            ExperimentIdError: The id is not valid, or another experiment owns its folder.
            ResultExistsError: Another run has this id, a later attempt has begun, the results have no manifest, or
                this process already has a result.
            ConfigurationError: The manifest has a value that is not valid, such as 0 processes.
        """
        attempts.begin_experiment(self.store, manifest, process_index)

    def save_raw(self, experiment_id: str, result: RawProcessResult, *, overwrite: bool = False) -> Path:
        """Store the raw result of one process durably, and return the path of its file.

        Saving the same content again changes nothing. `RawProcessResult.of` makes a record from few values::

            record = RawProcessResult.of(
                "exp_7", start=start, end=end, energy_j=50.0, input_tokens=40, output_tokens=60, world_size=2
            )
            repository.save_raw("exp_7", record)

        Args:
            experiment_id: Id of the experiment; the record must have the same id.
            result: The record; numpy scalars are accepted.
            overwrite: Replace a different result of the same process; the replaced result is kept as
                `superseded-process_<i>-<n>.json.kept`.

        Raises:
            InvalidResultError: A value is not valid. The record is kept; `error.kept` names the file.
            ExperimentIdError: The id is not valid, differs from the id in the record, or another experiment owns its
                folder. The record is kept.
            ResultExistsError: The process already has a different result, or the record is of another attempt than the
                folder. The record is kept.
        """
        with keep_refused(self.store, experiment_id, result):
            folder = self.folder_of(experiment_id)
            record = codec.require_valid_raw(result)
            _require_own_id(experiment_id, record)
            data = codec.encode_raw(record)
            claimed = attempts.claim_for(self.store, folder, record)
            key = layout.raw_key(folder, record.process_index)
            is_new, stored = self._create_or_read(key, data)
            if is_new:
                self._require_still_claimed(folder, record, claimed, key, data)
            elif stored != data and not _is_encoding_of(stored, record):
                if not overwrite or stored is None:
                    raise self.raw_folder(folder).content_conflict(key, stored, data)
                self._replace(folder, record.process_index, key, data)
        return self.store.path(key)

    def _create_or_read(self, key: str, data: bytes) -> tuple[bool, bytes | None]:
        """Create a value and return True, None. If the key exists, return False and its value (None if unreadable)."""
        for _ in range(_MAX_TRIES):
            if self.store.create(key, data):
                return True, None
            try:
                return False, self.store.get(key)
            except ResultNotFoundError:
                continue  # another process has deleted or archived it meanwhile
            except ResultsError:
                break
        return False, None

    def _require_still_claimed(
        self, folder: str, record: RawProcessResult, claimed: Manifest, key: str, data: bytes
    ) -> None:
        """Delete the new result and raise if its attempt was archived, or if the folder has another owner now."""
        raw = self.raw_folder(folder)
        if raw.readable_manifest() == claimed or (raw.has_no_manifest() and bytes_of(self.store, key) != data):
            return  # the folder is unchanged, or the result was deleted or archived with its folder
        try:
            with keep_refused(self.store, record.experiment_id, record):  # keep the record before its file is deleted
                attempts.claim_for(self.store, folder, record)
        except (ExperimentIdError, ResultExistsError):
            if bytes_of(self.store, key) == data:
                self.store.delete(key)
            raise

    def _replace(self, folder: str, process_index: int, key: str, data: bytes) -> None:
        """Replace a raw result, and keep the replaced file."""
        replaced = self.store.exchange(key, data)
        keep_copy(self.store, replaced, lambda number: layout.superseded_raw_key(folder, process_index, number))
        self.store.delete(replaced)

    # Load raw results

    def list_raw(self, experiment_id: str) -> list[Path]:
        """Return the paths of an experiment's raw results, by process index; empty if there are none."""
        folder = self._existing_folder(experiment_id)
        return [self.store.path(layout.raw_key(folder, index)) for index in self.raw_folder(folder).process_indices()]

    def load_raw(self, path: str | Path) -> RawProcessResult:
        """Return the raw result in the file at a path, or in the object at a URL of this bucket.

        Raises:
            ResultNotFoundError: There is no such file.
            ResultCorruptError: The file is not a raw result.
        """
        path = place_of(path)
        if isinstance(path, StorePath):
            key = str(path).removeprefix(f"{self.base_path}/")
            return codec.decode_raw(self.store.get(key), "/".join(path.parts[-2:]))
        return codec.decode_raw(read_file(path, follow_links=True), "/".join(path.parts[-2:]))

    def load_all_raw(self, experiment_id: str) -> list[RawProcessResult]:
        """Return all raw results of an experiment, by process index; empty if there are none.

        Raises:
            ResultCorruptError: A file is unreadable. The message names every unreadable file, and `error.unreadable`
                has the reason for each file name. `recover_raw` returns the readable results.
        """
        recovery = self.recover_raw(experiment_id)
        if recovery.unreadable:
            found = "; ".join(f"{file.name}: {file.reason}" for file in recovery.unreadable)
            advice = f"recover_raw returns the readable results ({len(recovery.results)})"
            refused = ResultCorruptError(f"cannot load all raw results of {experiment_id!r}", found, advice)
            refused.unreadable = {file.name: file.reason for file in recovery.unreadable}
            raise refused
        return recovery.results

    def recover_raw(self, experiment_id: str, *, attempt: int | None = None) -> RawRecovery:
        """Return the readable raw results of an experiment, and the unreadable files with their reasons.

        An unreadable file raises no error.

        Args:
            experiment_id: Id or folder name of the experiment.
            attempt: Number of an archived attempt, from `list_attempts`; by default the current attempt.
        """
        folder = self._folder(experiment_id)
        recovery = RawFolder(self.store, folder, attempt=attempt).recover()
        if attempt is None and recovery.unreadable and not recovery.results:
            self.raw_folder(folder).require_same_case()
        self._require_id(experiment_id, folder, recovery.results)
        return recovery

    def list_attempts(self, experiment_id: str) -> list[int]:
        """Return the numbers of an experiment's archived attempts, in order; `recover_raw` reads their results."""
        return attempts.archived_attempts(self.store, self._folder(experiment_id))

    def has_raw(self, experiment_id: str) -> bool:
        """Return True if an experiment has a raw result, readable or not."""
        return bool(self.raw_folder(self._existing_folder(experiment_id)).process_indices())

    def has_folder(self, experiment_id: str) -> bool:
        """Return True if an experiment has a folder with any file: a result, a refused record, a manifest."""
        return bool(self.store.list(layout.raw_folder(self._existing_folder(experiment_id))))

    def load_manifest(self, experiment_id: str) -> Manifest | None:
        """Return an experiment's manifest; None if there is none. Raises `ResultCorruptError` if it is unreadable."""
        raw = self.raw_folder(self._folder(experiment_id))
        manifest = raw.manifest()
        if manifest is not None and layout.differs_in_case(manifest.experiment_id, raw.name):
            raw.require_same_case()
        return manifest

    # Save and load aggregated results

    def save_aggregated(self, result: AggregatedResult) -> Path:
        """Store an experiment's aggregated result, replace an older one, and return the path of the file.

        A replaced file is kept as `superseded-<id>-<n>.json.kept` if it is an aggregate of another tool, altered or
        unreadable.

        Raises:
            ExperimentIdError: The id is not valid, or the file to replace is the aggregate of another experiment.
            InvalidResultError: A value is not valid.
        """
        return self.save_all_aggregated([result])[0]

    def save_all_aggregated(self, results: Sequence[AggregatedResult]) -> list[Path]:
        """Store several aggregated results as `save_aggregated` does, with one sync to disk for all of them.

        Raises:
            ExperimentIdError, InvalidResultError: As in `save_aggregated`. No result is stored then.
        """
        values: dict[str, bytes] = {}
        owners: dict[str, str] = {}
        for result in results:
            folder = self.folder_of(result.experiment_id)
            if owners.setdefault(folder, result.experiment_id) != result.experiment_id:
                raise self.raw_folder(folder).id_conflict(result.experiment_id, owners[folder])
            deletion.require_unused(self.store, folder)
            values[layout.aggregated_key(folder)] = self._encoded_aggregate(folder, result)
        if len(values) == 1:
            self.store.put(*next(iter(values.items())))
        elif values:
            self.store.put_many(values)
        return [self.store.path(layout.aggregated_key(self.folder_of(result.experiment_id))) for result in results]

    def _encoded_aggregate(self, folder: str, result: AggregatedResult) -> bytes:
        """Return the bytes of an aggregate. Check the file to replace; keep a copy of an altered or unreadable one.

        If the new aggregate has sources, also keep a copy of an external one.
        """
        key = layout.aggregated_key(folder)
        if result.sources is not None and len(result.sources) != len(result.process_results):
            doing = f"cannot save the aggregate of {result.experiment_id!r}"
            raise InvalidResultError(doing, "its sources and processes differ in number", "aggregate it again")
        data = codec.encode_aggregated(result)
        try:
            older = codec.decode_summary(self.store.get(key), key)
        except ResultNotFoundError:
            pass
        except (ResultCorruptError, StorageError):
            keep_copy(self.store, key, lambda number: layout.superseded_aggregate_key(folder, number))
        else:
            if older.experiment_id != result.experiment_id:
                raise self.raw_folder(folder).id_conflict(result.experiment_id, older.experiment_id)
            if older.integrity == "altered" or (older.sources is None and result.sources is not None):
                keep_copy(self.store, key, lambda number: layout.superseded_aggregate_key(folder, number))
        return data

    def load_aggregated(self, experiment_id: str) -> AggregatedResult | None:
        """Return an experiment's aggregated result, or None if there is none.

        Args:
            experiment_id: Id or folder name of the experiment.

        Raises:
            ResultCorruptError: The file is not an aggregated result.
            ResultAlteredError: Another program changed a value in the file.
        """
        return self._load_aggregate(experiment_id, codec.decode_aggregated)

    def load_summary(self, experiment_id: str) -> AggregatedSummary | None:
        """Return an experiment's aggregated result without its raw records, or None if there is none.

        This is several times faster than `load_aggregated`. If the file has no digests of its values (an earlier
        release or another tool wrote it), damage inside the raw records is not found.

        Raises:
            ResultCorruptError: The file is not an aggregated result.
            ResultAlteredError: A value in the file was changed or damaged, also inside the raw records.
        """
        return self._load_aggregate(experiment_id, codec.decode_summary)

    def _load_aggregate(self, experiment_id: str, decode: Callable[[bytes, str], AggregateT]) -> AggregateT | None:
        folder = self._folder(experiment_id)
        data = self._aggregate_bytes(folder)
        if data is None:
            return None
        result = decode(data, f"{folder}.json")
        self._require_id(experiment_id, folder, [result])
        if not layout.names_folder(result.experiment_id, folder):
            if layout.differs_in_case(result.experiment_id, folder) and not self.has_aggregated(folder):
                return None  # the file system ignores case, and the file of another id was read
            found = f"it is the aggregate of {result.experiment_id!r}"
            advice = "rename the file to the file name of that experiment"
            raise ResultCorruptError(f"cannot load aggregated result {folder}.json", found, advice)
        if result.integrity == "altered":
            found = "it is altered: another program changed its values, which differ from the digest in the file"
            advice = (
                f"run 'llm-energy-measure results verify {folder}' to see the differences, and "
                f"'llm-energy-measure aggregate {folder}' to recompute it"
            )
            raise ResultAlteredError(f"cannot load aggregated result {folder}.json", found, advice)
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
        """Return True if an experiment has an aggregated result, readable or not."""
        folder = self._folder(experiment_id)
        is_there = self.store.find(layout.aggregated_key(folder)) is not None
        return is_there and not deletion.is_deleted(self.store, folder)

    # Experiments

    def list_experiments(self) -> list[str]:
        """Return the folder names of all experiments that have a raw result, sorted; each can be used as an id.

        A folder that can't be read is in the list too. Other methods raise the error of the file system for this name.
        """
        if self.store.parallel_requests > 1:
            # In a bucket, one listing of all objects replaces three requests per experiment.
            below = by_folder(self.store.walk(RAW_DIR))
            found = [
                name for name in sorted(below) if any(process_index_of(one.name) is not None for one in below[name])
            ]
            return [name for name in deletion.without_hidden(self.store, found) if layout.is_folder_name(name)]
        folders = [entry.name for entry in self.store.list(RAW_DIR) if entry.is_folder]
        alive = deletion.without_hidden(self.store, folders)
        return [folder for folder in alive if layout.is_folder_name(folder) and self._may_have_raw(folder)]

    def list_aggregated(self) -> list[str]:
        """Return the folder names of all experiments that have an aggregated result, sorted."""
        entries = [entry for entry in self.store.list(AGGREGATED_DIR) if not entry.is_folder]
        folders = [folder for entry in entries if (folder := layout.aggregated_folder_of(entry.name)) is not None]
        deleted = deletion.deleted_folders(self.store) if folders else set()
        return sorted(folder for folder in folders if folder not in deleted)

    def delete_experiment(self, experiment_id: str) -> bool:
        """Delete an experiment: raw folder, aggregate, tags and archived attempts. Return False if there is none.

        If the deletion is interrupted at any point, readers find either the complete experiment or no part of it.
        """
        folder = self._existing_folder(experiment_id)
        self._require_id(experiment_id, folder, [*self._readable(folder)])
        raw = self.raw_folder(folder)
        if experiment_id != folder and raw.process_indices() and raw.owner() is None:
            found = f"no file in the folder {folder!r} has this id"
            advice = f"pass {folder!r} to delete this folder"
            raise ExperimentIdError(f"cannot delete {experiment_id!r}", found, advice)
        with contextlib.suppress(ResultCorruptError, StorageError, UnsafePathError):  # a damaged file has no id
            self.load_summary(experiment_id)
        return deletion.delete(self.store, folder, raw.owner() or (None if experiment_id == folder else experiment_id))

    # Folders of experiments

    def folder_of(self, experiment_id: str) -> str:
        """Return the name of an experiment's folder, which can be used as its id."""
        return layout.folder_in(self.store, experiment_id)

    def raw_folder(self, folder: str) -> RawFolder:
        """Return the folder of raw results with this name. Its owner is not checked."""
        return RawFolder(self.store, folder)

    def _folder(self, experiment_id: str) -> str:
        """Return the folder of an experiment; raise if another experiment owns it."""
        folder = self.folder_of(experiment_id)
        owner = None if experiment_id == folder else self.raw_folder(folder).owner()
        if owner not in (None, experiment_id):
            raise self.raw_folder(folder).id_conflict(experiment_id, owner)
        return folder

    def _existing_folder(self, experiment_id: str) -> str:
        """Return the folder of an experiment; raise if it has another owner, or if its name differs in case."""
        folder = self._folder(experiment_id)
        self.raw_folder(folder).require_same_case()
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

    def _require_id(
        self, experiment_id: str, folder: str, records: Sequence[RawProcessResult | AggregatedSummary]
    ) -> None:
        """Raise if a record in the folder has another id, unless the caller passed the folder's name."""
        for record in records:
            if experiment_id not in (record.experiment_id, folder):
                raise self.raw_folder(folder).id_conflict(experiment_id, record.experiment_id)


def _is_encoding_of(stored: bytes | None, record: RawProcessResult) -> bool:
    """Return True if stored bytes decode to this record. An older release may have encoded it to other bytes."""
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
