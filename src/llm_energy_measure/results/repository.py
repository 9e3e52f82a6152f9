"""`FileSystemRepository`: records in a results directory, each experiment under its sanitised id.

Guarantees, on top of those of `llm_energy_measure.storage.base`:

- A raw result is never replaced silently. The same content again changes nothing; different content is refused, and
  kept beside; `overwrite=True` keeps what it replaces.
- A record that is refused is kept as `rejected-process_<i>-<n>.json`, and the error names that file.
- An unreadable file never hides the readable ones.
- Files that are no results of ours disturb nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

from llm_energy_measure.constants import AGGREGATED_DIR, DEFAULT_RESULTS_DIR, MANIFEST_NAME, RAW_DIR, RESULTS_DIR_ENV
from llm_energy_measure.domain.experiment import Manifest, RawProcessResult, UnreadableFile
from llm_energy_measure.exceptions import (
    ExperimentIdError,
    InvalidResultError,
    ResultCorruptError,
    ResultExistsError,
    ResultNotFoundError,
    ResultsError,
    StorageError,
    UnsafePathError,
)
from llm_energy_measure.results import codec, layout
from llm_energy_measure.results.rejected import rejected_document
from llm_energy_measure.storage.local import LocalStore, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_energy_measure.domain.experiment import AggregatedResult, CompletenessReport, SourceFile
    from llm_energy_measure.storage.base import Store


class RawRecovery(Struct, frozen=True, kw_only=True):
    """What of an experiment's raw results can be read, and what can't.

    Attributes:
        results: The readable results, by process index.
        unreadable: The others, by process index, each with its reason; last a manifest that can't be read.
        manifest: What was expected of the experiment, if that was written down.
    """

    results: list[RawProcessResult]
    unreadable: list[UnreadableFile]
    manifest: Manifest | None = None


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

    # Raw results

    def begin_experiment(self, manifest: Manifest, process_index: int | None = None) -> None:
        """Agree with the other processes, before the run, on what the experiment is.

        Whichever process comes first writes the manifest, the others compare theirs with it. A rerun under an id that
        has results is found here, and not after the run. A later attempt of the same experiment (`manifest.attempt`,
        as SLURM and torchrun count restarts) begins anew: what the earlier one left is kept beside, out of sight.

        Args:
            manifest: What every process knows alike.
            process_index: The process that is about to run, if it is one.

        Raises:
            ExperimentIdError: The id is impossible, or its folder is another experiment's.
            ResultExistsError: Another run has this id, a later attempt has begun, or this process has a result already.
        """
        folder = layout.folder_name(manifest.experiment_id)
        doing = f"cannot begin experiment {manifest.experiment_id!r}"
        earlier = self._pin(folder, manifest)
        while earlier.attempt < manifest.attempt:
            # Of several processes one moves the folder; it can't be moved onto the earlier attempt a second time.
            self.store.move_folder(layout.raw_folder(folder), layout.earlier_attempt_folder(folder, earlier.attempt))
            earlier = self._pin(folder, manifest)
        if problem := _differences(earlier, manifest):
            raise ResultExistsError(doing, problem, "choose another id, or count the attempt")
        if process_index is not None and process_index in self._process_indices(folder):
            found = f"process {process_index} has a result already"
            raise ResultExistsError(doing, found, "choose another id, or count the attempt")

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
            self._require_own_id(experiment_id, folder, record)
        except (InvalidResultError, ExperimentIdError, ResultExistsError) as refused:
            self._refuse(refused, folder, result)
        key, data = layout.raw_key(folder, record.process_index), codec.encode_raw(record)
        if self.store.create(key, data):
            self._withdraw_if_taken(experiment_id, folder, record)
            return self.store.path(key)
        stored = self._bytes(key)
        if stored == data:
            return self.store.path(key)
        if not overwrite:
            self._refuse(self._conflict(key, stored, data), folder, record)
        replaced = self.store.exchange(key, data)
        self._keep_copy(replaced, lambda number: layout.superseded_raw_key(folder, record.process_index, number))
        self.store.delete(replaced)
        return self.store.path(key)

    def keep_partial(self, folder: str, record: RawProcessResult) -> Path:
        """Store a partial record of a process beside its experiment's results, and return its file.

        Raises:
            ResultExistsError: A different partial record of this process is there.
        """
        key, data = layout.partial_key(folder, record.process_index), codec.encode_raw(record)
        if not self.store.create(key, data) and (stored := self._bytes(key)) != data:
            raise self._conflict(key, stored, data)
        return self.store.path(key)

    def list_raw(self, experiment_id: str) -> list[Path]:
        """Files of an experiment's raw results, by process index; empty if there are none."""
        folder = layout.folder_name(experiment_id)
        return [self.store.path(layout.raw_key(folder, index)) for index in self._process_indices(folder)]

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

    def recover_raw(self, experiment_id: str) -> RawRecovery:
        """The readable raw results of an experiment and, by name and reason, the unreadable ones.

        No file makes it raise.
        """
        folder = layout.folder_name(experiment_id)
        results: list[RawProcessResult] = []
        unreadable = []
        for index in self._process_indices(folder):
            outcome = self.read_raw(folder, index)
            if isinstance(outcome, UnreadableFile):
                unreadable.append(outcome)
            else:
                results.append(outcome)
        self._require_asked_for(experiment_id, folder, results)
        manifest = None
        try:
            manifest = self.load_manifest(folder)
        except ResultsError as error:
            unreadable.append(UnreadableFile(name=MANIFEST_NAME, reason=error.found))
        return RawRecovery(results=results, unreadable=unreadable, manifest=manifest)

    def has_raw(self, experiment_id: str) -> bool:
        """True if an experiment has a raw result, readable or not."""
        return bool(self._process_indices(layout.folder_name(experiment_id)))

    def load_manifest(self, experiment_id: str) -> Manifest | None:
        """What was expected of an experiment, or None if nobody wrote it down. Raises `ResultCorruptError`."""
        folder = layout.folder_name(experiment_id)
        key = layout.manifest_key(folder)
        try:
            manifest = codec.decode_manifest(self.store.get(key), key)
        except ResultNotFoundError:
            return None
        if not layout.names_folder(manifest.experiment_id, folder, any_case=True):
            found = f"it is the manifest of {manifest.experiment_id!r}"
            raise ResultCorruptError(f"Failed to load manifest {key}", found, "move it to its own experiment")
        return manifest

    # Aggregated results

    def save_aggregated(self, result: AggregatedResult) -> Path:
        """Store an experiment's aggregate in place of an older one, and return its file.

        What this package did not make, it keeps: an aggregate of another tool, or one that can't be read, becomes
        `superseded-<id>-<n>.json`.

        Raises:
            ExperimentIdError: The id is impossible, or its place is taken by another experiment's aggregate.
            InvalidResultError: A figure can't be right, or the result was loaded without its processes.
        """
        folder = layout.folder_name(result.experiment_id)
        key = layout.aggregated_key(folder)
        if result.sources is not None and len(result.sources) != len(result.process_results):
            doing = f"cannot save the aggregate of {result.experiment_id!r}"
            raise InvalidResultError(doing, "it was loaded without its processes", "load it whole")
        data = codec.encode_aggregated(result)
        try:
            older = codec.decode_aggregated(self.store.get(key), key, with_processes=False)
        except ResultNotFoundError:
            pass
        except (ResultCorruptError, StorageError):
            self._keep_copy(key, lambda number: layout.superseded_aggregate_key(folder, number))
        else:
            if older.experiment_id != result.experiment_id:
                raise self._taken(result.experiment_id, older.experiment_id)
            if older.sources is None and result.sources is not None:
                self._keep_copy(key, lambda number: layout.superseded_aggregate_key(folder, number))
        self.store.put(key, data)
        return self.store.path(key)

    def load_aggregated(self, experiment_id: str, *, with_processes: bool = True) -> AggregatedResult | None:
        """An experiment's aggregate, or None if it has none.

        Args:
            experiment_id: Its id or folder name.
            with_processes: Also load its `process_results`, which are left empty, and unchecked, otherwise.

        Raises:
            ResultCorruptError: The file is no aggregate.
        """
        folder = layout.folder_name(experiment_id)
        key = layout.aggregated_key(folder)
        try:
            result = codec.decode_aggregated(self.store.get(key), f"{folder}.json", with_processes=with_processes)
        except ResultNotFoundError:
            return None
        self._require_asked_for(experiment_id, folder, [result])
        if layout.folder_name(result.experiment_id) != folder:
            found = f"it is the aggregate of {result.experiment_id!r}"
            raise ResultCorruptError(
                f"Failed to load aggregated result {folder}.json", found, "move it to its own name"
            )
        return result

    def read_aggregated(self, experiment_id: str) -> bytes | None:
        """The file of an experiment's aggregate as it is, or None if it has none."""
        try:
            return self.store.get(layout.aggregated_key(layout.folder_name(experiment_id)))
        except ResultNotFoundError:
            return None

    def has_aggregated(self, experiment_id: str) -> bool:
        """True if an experiment has an aggregate, readable or not."""
        name = f"{layout.folder_name(experiment_id)}.json"
        return any(entry.name == name for entry in self.store.list(AGGREGATED_DIR))

    def source_changes(self, aggregated: AggregatedResult) -> SourceChanges:
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
        now = {f"process_{index}.json": layout.raw_key(folder, index) for index in self._process_indices(folder)}
        changed = [name for name in now.keys() & then.keys() if self._digest(now[name]) != then[name].sha256]
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
        return sorted(folder for entry in entries if (folder := layout.aggregated_folder_of(entry.name)) is not None)

    def delete_experiment(self, experiment_id: str) -> bool:
        """Delete an experiment: its aggregate, tags and raw folder, strangers in it included. False if there is none.

        The raw results go last and all at once: interrupted, they are either there whole or gone.
        """
        folder = layout.folder_name(experiment_id)
        self._require_asked_for(experiment_id, folder, [*self._readable(folder)])
        with contextlib.suppress(ResultCorruptError):  # such a file can't say whose it is
            self.load_aggregated(experiment_id, with_processes=False)
        superseded = [
            f"{AGGREGATED_DIR}/{entry.name}"
            for entry in self.store.list(AGGREGATED_DIR)
            if layout.is_superseded_aggregate_of(entry.name, folder)
        ]
        keys = [layout.aggregated_key(folder), layout.tags_key(folder), *superseded]
        deleted = [self.store.delete(key) for key in keys]
        return self.store.delete_folder(layout.raw_folder(folder)) or any(deleted)

    def holder_of(self, folder: str) -> str | None:
        """The exact id of the experiment that has a folder, from its manifest or its first readable result, if any."""
        manifest = self._readable_manifest(folder)
        if manifest is not None:
            return manifest.experiment_id
        return next(self._claimants(folder), None)

    # Reading one experiment's folder

    def _may_have_raw(self, folder: str) -> bool:
        try:
            return bool(self._process_indices(folder))
        except StorageError:
            return True

    def _process_indices(self, folder: str) -> list[int]:
        entries = self.store.list(layout.raw_folder(folder))
        indices = [layout.process_index_of(entry.name) for entry in entries if not entry.is_folder]
        return sorted(index for index in indices if index is not None)

    def read_raw(self, folder: str, index: int) -> RawProcessResult | UnreadableFile:
        """One raw result, or why it can't be had.

        Args:
            folder: The experiment's folder name.
            index: The process.
        """
        key = layout.raw_key(folder, index)
        name = key.rpartition("/")[2]
        try:
            data = self.store.get(key)
        except ResultsError as error:
            return UnreadableFile(name=name, reason=error.found)
        size, sha256 = len(data), codec.digest(data)
        try:
            record = codec.decode_raw(data, f"{folder}/{name}")
        except ResultCorruptError as error:
            return UnreadableFile(name=name, reason=error.found, size_bytes=size, sha256=sha256)
        reason = None
        if not layout.names_folder(record.experiment_id, folder):
            reason = f"it is a result of another experiment, {record.experiment_id!r}"
        elif record.process_index != index:
            reason = f"it is the result of process {record.process_index}"
        return record if reason is None else UnreadableFile(name=name, reason=reason, size_bytes=size, sha256=sha256)

    def _readable(self, folder: str) -> Iterator[RawProcessResult]:
        for index in self._process_indices(folder):
            outcome = self.read_raw(folder, index)
            if not isinstance(outcome, UnreadableFile):
                yield outcome

    def _claimants(self, folder: str) -> Iterator[str]:
        """Ids inside the results of a folder that could be its name, in any case: some file systems tell no case."""
        for index in self._process_indices(folder):
            with contextlib.suppress(ResultsError):
                record = codec.decode_raw(self.store.get(layout.raw_key(folder, index)), folder)
                if layout.names_folder(record.experiment_id, folder, any_case=True):
                    yield record.experiment_id

    def _digest(self, key: str) -> str | None:
        data = self._bytes(key)
        return None if data is None else codec.digest(data)

    def _bytes(self, key: str) -> bytes | None:
        """What stands there, or None if it can't be read."""
        try:
            return self.store.get(key)
        except ResultsError:
            return None

    # Refusing

    def _require_own_id(self, experiment_id: str, folder: str, record: RawProcessResult) -> None:
        """The record carries the id it is saved under, and no other experiment has the folder."""
        if record.experiment_id != experiment_id:
            doing = f"cannot save raw result of process {record.process_index} under {experiment_id!r}"
            raise ExperimentIdError(
                doing, f"the record's own id is {record.experiment_id!r}", "save it under its own id"
            )
        manifest = self._readable_manifest(folder)
        if manifest is None and experiment_id != folder:
            # The folder's name does not say whose it is. The manifest has to, before a result is there.
            manifest = self._pin(folder, Manifest(experiment_id=experiment_id))
        holder = self.holder_of(folder) if manifest is None else manifest.experiment_id
        if holder not in (None, experiment_id):
            raise self._taken(experiment_id, holder)
        attempt = record.launcher.attempt if record.launcher is not None else None
        if manifest is not None and attempt is not None and attempt != manifest.attempt:
            doing = f"cannot save raw result of process {record.process_index} of {experiment_id!r}"
            found = f"it is of attempt {attempt}, and the experiment is at attempt {manifest.attempt}"
            raise ResultExistsError(doing, found, "leave it to the other attempt")

    def _withdraw_if_taken(self, experiment_id: str, folder: str, record: RawProcessResult) -> None:
        """Take back a result that was published while another id that shares the folder's name got its manifest."""
        manifest = self._readable_manifest(folder)
        if manifest is not None and manifest.experiment_id != experiment_id:
            self.store.delete(layout.raw_key(folder, record.process_index))
            self._refuse(self._taken(experiment_id, manifest.experiment_id), folder, record)

    def _pin(self, folder: str, manifest: Manifest) -> Manifest:
        """The manifest that the folder has, or gets now; whoever writes it first gives the folder its experiment."""
        key = layout.manifest_key(folder)
        if self.store.create(key, codec.encode_manifest(manifest)):
            # Whoever saves under the folder's own name looks for a manifest after publishing, so one of the two sees.
            rival = next((claimant for claimant in self._claimants(folder) if claimant != manifest.experiment_id), None)
            if rival is not None:
                self.store.delete(key)
                raise self._taken(manifest.experiment_id, rival)
            return manifest
        pinned = self._readable_manifest(folder) or manifest
        if pinned.experiment_id != manifest.experiment_id:
            raise self._taken(manifest.experiment_id, pinned.experiment_id)
        return pinned

    def _readable_manifest(self, folder: str) -> Manifest | None:
        try:
            return self.load_manifest(folder)
        except ResultCorruptError:
            return None  # the results in the folder say whose it is

    def _require_asked_for(
        self, experiment_id: str, folder: str, records: Sequence[RawProcessResult | AggregatedResult]
    ) -> None:
        """The folder holds the experiment that was asked for, by its id or by the folder's name."""
        for record in records:
            if experiment_id not in (record.experiment_id, folder):
                raise self._taken(experiment_id, record.experiment_id)

    def _taken(self, experiment_id: str, holder: str) -> ExperimentIdError:
        folder = layout.folder_name(experiment_id)
        found = f"its folder {folder!r} belongs to the experiment {holder!r}"
        return ExperimentIdError(f"cannot use the experiment id {experiment_id!r}", found, "choose another id")

    def _conflict(self, key: str, stored: bytes | None, data: bytes) -> ResultExistsError:
        doing = f"cannot save {self.store.path(key)}"
        if stored is None:
            refused = ResultExistsError(doing, "what stands there can't be read", "move it away, and save again")
        else:
            digests = codec.digest(stored), codec.digest(data)
            found = f"a different result is there (SHA-256 {digests[0][:12]}, the new one {digests[1][:12]})"
            advice = "compare the two, or save with overwrite=True, which keeps the old one"
            refused = ResultExistsError(doing, found, advice)
            refused.digests = digests
        refused.path = self.store.path(key)
        return refused

    def _refuse(
        self, refused: InvalidResultError | ExperimentIdError | ResultExistsError, folder: str, result: RawProcessResult
    ) -> NoReturn:
        """Keep the refused record beside the others, then raise the error that names the file."""
        data = rejected_document(result, getattr(refused, "problems", ()) or (refused.found,))
        try:
            kept = self._keep(data, lambda number: layout.rejected_key(folder, result.process_index, number))
        except (StorageError, UnsafePathError) as error:
            advice = f"{refused.advice}; the record could not be kept ({error.found}), so keep it yourself"
        else:
            advice = f"{refused.advice}; the record is kept in {kept}"
            refused.kept = kept
        # Built anew, so that the sentence names the file; the type and the parts stay.
        named = type(refused)(refused.doing, refused.found, advice)
        named.__dict__.update({**refused.__dict__, "advice": advice})
        raise named from refused.__cause__

    def _keep(self, data: bytes, key_of: Callable[[int], str]) -> Path:
        """Store bytes under the first free number; the same bytes again take the number they have."""
        number = 1
        while not self.store.create(key_of(number), data):
            if self._bytes(key_of(number)) == data:
                break
            number += 1
        return self.store.path(key_of(number))

    def _keep_copy(self, key: str, key_of: Callable[[int], str]) -> None:
        """Give a value that is about to be replaced a second name, under the first free number."""
        number = 1
        while not self.store.copy_new(key, key_of(number)):
            number += 1


def _differences(one: Manifest, other: Manifest) -> str:
    """The first thing that tells two manifests apart, with both values, or empty; unknown differs from nothing."""
    job, other_job = (manifest.launcher.job_id if manifest.launcher else None for manifest in (one, other))
    pairs = (
        ("attempt", one.attempt, other.attempt),
        ("launcher job", job, other_job),
        ("expected_processes", one.expected_processes, other.expected_processes),
        ("config_digest", one.config_digest, other.config_digest),
    )
    for name, value, own in pairs:
        if value is not None and own is not None and value != own:
            return f"its manifest says {name} {value!r}, this process {own!r}"
    return ""
