"""Read and claim the folder of an experiment's raw results, and keep copies of replaced files in the folder.

The owner of a folder is the experiment whose id is in the manifest. The manifest is created before the first result. A
folder of another tool has no manifest; its owner is the experiment whose id is in the results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from msgspec import Struct, field

from llm_energy_measure.constants import MANIFEST_NAME, RAW_DIR
from llm_energy_measure.domain.experiment import Manifest, RawProcessResult, UnreadableFile, process_index_of
from llm_energy_measure.exceptions import (
    ExperimentIdError,
    ResultCorruptError,
    ResultExistsError,
    ResultNotFoundError,
    ResultsError,
    StorageError,
    UnsafePathError,
)
from llm_energy_measure.results.store import bucket_moves, codec, deletion, layout
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.folder import get_listed
from llm_energy_measure.storage.temporary import target_name, writer_has_ended, writer_is_remote

# Maximum number of times that a reader starts again because a later attempt archived the folder.
_MAX_READS = 10


class RawRecovery(Struct, frozen=True, kw_only=True):
    """The readable and the unreadable raw results of an experiment.

    Attributes:
        results: The readable results, by process index.
        unreadable: The unreadable files, by process index, each with its reason; an unreadable manifest is the last.
        manifest: The manifest; None if there is none, or if it is unreadable.
        partials: Readable checkpoints of processes that have no result, by process index.
        unpublished: Complete results in temporary files, by process index. Their processes ended before they could
            rename the files. `aggregate --no-strict` and `results check --salvage` save these results.
    """

    results: list[RawProcessResult]
    unreadable: list[UnreadableFile]
    manifest: Manifest | None = None
    partials: list[RawProcessResult] = field(default_factory=list)
    unpublished: list[RawProcessResult] = field(default_factory=list)

    def unpublished_texts(self, folder: str) -> list[str]:
        """Return one sentence for each result in `unpublished`: its file, and the commands that save it."""
        return [
            f"{folder}/{record.stored.source.name} is a complete result that process {record.process_index} could not "
            f"publish; 'llm-energy-measure aggregate {folder} --no-strict' or 'results check --salvage' saves it"
            for record in self.unpublished
            if record.stored is not None
        ]


class RawFolder:
    """The raw results of one experiment, in a store.

    Args:
        store: The store.
        name: Name of the folder: a sanitised experiment id.
        attempt: Number of an archived attempt; by default the current attempt.
    """

    def __init__(self, store: Store, name: str, *, attempt: int | None = None) -> None:
        """Store the arguments; no file is read."""
        self.store = store
        self.name = name
        prefix = layout.raw_folder(name) if attempt is None else layout.earlier_attempt_folder(name, attempt)
        self._place = layout.folder_of_key(prefix)

    def process_indices(self) -> list[int]:
        """Return the indices of the processes that have a result, readable or not, in order."""
        return _indices_of(self._names())

    def unfinished_indices(self) -> list[int]:
        """Return the indices of the processes that have a checkpoint and no result, in order."""
        names = self._names()
        indices = {layout.partial_index_of(name) for name in names} - {process_index_of(name) for name in names}
        return sorted(index for index in indices if index is not None)

    def unpublished(self) -> list[RawProcessResult]:
        """Return the complete results in temporary files of ended processes that have no result, by process index.

        A file of another host is included although its writer may still run. The bytes of the file are complete, and
        the writer would publish the same bytes.
        """
        entries = [entry for entry in self.store.list(layout.raw_folder(self._place)) if not entry.is_folder]
        published = {entry.name for entry in entries}
        found: dict[int, RawProcessResult] = {}
        for entry in entries:
            target = target_name(entry.name)
            index = None if target is None or target in published else process_index_of(target)
            has_ended = index is not None and (
                writer_has_ended(entry.name, entry.mtime_sec) or writer_is_remote(entry.name)
            )
            data = bytes_of(self.store, f"{layout.raw_folder(self._place)}/{entry.name}") if has_ended else None
            record = None if data is None else self.decode(entry.name, index, data)
            if isinstance(record, RawProcessResult):
                found.setdefault(record.process_index, record)
        return [found[index] for index in sorted(found)]

    def _names(self) -> list[str]:
        if not self.store.supports_folder_move and bucket_moves.is_hidden(self.store, self._place):
            return []
        return self._listed_names()

    def _listed_names(self) -> list[str]:
        return [entry.name for entry in self.store.list(layout.raw_folder(self._place)) if not entry.is_folder]

    def read(self, process_index: int, *, partial: bool = False) -> RawProcessResult | UnreadableFile:
        """Return the raw result or the checkpoint of a process, or the reason why it is unreadable."""
        key = (layout.partial_key if partial else layout.raw_key)(self._place, process_index)
        name = key.rpartition("/")[2]
        try:
            data = get_listed(self.store, key)
        except ResultsError as error:
            return UnreadableFile(name=name, reason=error.found)
        return self.decode(name, process_index, data)

    def decode(self, name: str, process_index: int | None, data: bytes) -> RawProcessResult | UnreadableFile:
        """Return the raw result in the bytes of a file, or the reason why it is unreadable."""
        try:
            record = codec.decode_raw(data, f"{self.name}/{name}")
        except ResultCorruptError as error:
            reason = error.found
        else:
            if record.experiment_id != self.name and not layout.names_folder(record.experiment_id, self.name):
                reason = f"it is a result of another experiment, {record.experiment_id!r}"
            elif record.process_index != process_index:
                reason = f"it is the result of process {record.process_index}"
            else:
                return record
        return UnreadableFile(name=name, reason=reason, size_bytes=len(data), sha256=codec.digest(data))

    def manifest(self, data: bytes | None = None) -> Manifest | None:
        """Return the manifest, or None if there is none. Raises `ResultCorruptError` if it is damaged.

        Args:
            data: The bytes of the manifest file, if the caller has read them already.
        """
        key = layout.manifest_key(self._place)
        try:
            manifest = codec.decode_manifest(self.store.get(key) if data is None else data, key)
        except ResultNotFoundError:
            return None
        if manifest.experiment_id != self.name and not layout.names_folder(
            manifest.experiment_id, self.name, any_case=True
        ):
            found = f"it is the manifest of {manifest.experiment_id!r}"
            raise ResultCorruptError(f"cannot load manifest {key}", found, "move it to the folder of that experiment")
        return manifest

    def recover(self) -> RawRecovery:
        """Return the readable results, and the unreadable files with their reasons. All are of the same attempt."""
        recovery = self._recover()
        for _ in range(_MAX_READS):
            manifest = self._manifest_or_reason()
            if manifest == (recovery.manifest or manifest):
                break
            recovery = self._recover()  # a later attempt archived the folder between two reads
        return recovery

    def _recover(self) -> RawRecovery:
        manifest = self._manifest_or_reason()
        outcomes = [self.read(index) for index in self.process_indices()]
        unreadable = [outcome for outcome in outcomes if isinstance(outcome, UnreadableFile)]
        if isinstance(manifest, UnreadableFile):
            unreadable.append(manifest)
        checkpoints = [self.read(index, partial=True) for index in self.unfinished_indices()]
        return RawRecovery(
            results=[outcome for outcome in outcomes if not isinstance(outcome, UnreadableFile)],
            unreadable=unreadable,
            manifest=None if isinstance(manifest, UnreadableFile) else manifest,
            partials=[record for record in checkpoints if not isinstance(record, UnreadableFile)],
            unpublished=self.unpublished(),
        )

    def _manifest_or_reason(self) -> Manifest | UnreadableFile | None:
        try:
            return self.manifest()
        except ResultsError as error:
            return UnreadableFile(name=MANIFEST_NAME, reason=error.found)

    def has_no_manifest(self) -> bool:
        """Return True if there is no manifest file; False for an unreadable one."""
        try:
            self.store.get(layout.manifest_key(self.name))
        except ResultNotFoundError:
            return True
        except ResultsError:
            return False
        return False

    def readable_manifest(self) -> Manifest | None:
        """Return the manifest, or None if there is no readable one."""
        try:
            return self.manifest()
        except (ResultCorruptError, StorageError, UnsafePathError):
            return None

    def owner(self) -> str | None:
        """Return the exact id of the experiment that owns the folder; None if no file contains an id."""
        manifest = self.readable_manifest()
        return next(self._ids_in_results(), None) if manifest is None else manifest.experiment_id

    def require_same_case(self) -> None:
        """Raise `ExperimentIdError` if the file system ignores case, and the real name differs in case from `name`."""
        owner = self.owner()
        if owner is not None and layout.differs_in_case(owner, self.name) and not _has_name(self.store, self.name):
            raise self.id_conflict(self.name, owner)

    def claim(self, manifest: Manifest) -> Manifest:
        """Return the manifest of the folder; create it if there is none.

        The experiment of the first manifest becomes the owner. The manifest is created before the first result. So one
        folder never contains results of two ids, even if the two ids have the same folder name.

        Raises:
            ExperimentIdError: Another experiment owns the folder.
            ResultExistsError: A later attempt has archived the folder.
        """
        found = self.readable_manifest()
        if found is None:
            self._require_claimable(manifest)
            if self.store.create(layout.manifest_key(self.name), codec.encode_manifest(manifest)):
                try:
                    self._require_not_archived(manifest)  # another process may have archived the attempt meanwhile
                except ResultExistsError:
                    self.store.delete(layout.manifest_key(self.name))
                    raise
                return manifest
            found = self.readable_manifest() or manifest
        if found.experiment_id != manifest.experiment_id:
            raise self.id_conflict(manifest.experiment_id, found.experiment_id)
        return found

    def _require_claimable(self, manifest: Manifest) -> None:
        """Raise if the folder has another owner, if it is being deleted in a bucket, or if the attempt is archived."""
        require_owner = partial(self._require_no_other_owner, manifest.experiment_id)
        require_attempt = partial(self._require_not_archived, manifest)
        if self.store.supports_folder_move:
            require_owner()
        else:
            from llm_energy_measure.storage.parallel import at_once  # only buckets need this import

            # Four independent requests. The first two calls raise or return None. The last two calls return True if
            # there is a marker. `claim` checks the archive again after it has created the manifest.
            markers = bucket_moves.marker_checks(self.store, self.name)
            try:
                if not any(at_once(self.store, require_owner, require_attempt, *markers)):
                    return
            except ExperimentIdError:
                if not bucket_moves.is_deleted(self.store, self.name):
                    raise
                bucket_moves.require_unused(self.store, self.name)  # raises until the deletion has finished
                require_owner()  # the deletion has finished meanwhile
        with contextlib.suppress(StorageError, UnsafePathError):  # an error of the store must not stop a measurement
            deletion.require_unused(self.store, self.name)  # finishes the deletion of an earlier experiment
        require_attempt()

    def _require_no_other_owner(self, experiment_id: str) -> None:
        """Raise if a result has the id of another experiment. The folder has no readable manifest."""
        # In a bucket, one listing shows that a new folder has no result.
        indices = None if self.store.supports_folder_move else _indices_of(self._listed_names())
        owner = next(self._ids_in_results(indices), None)
        if owner not in (None, experiment_id):
            raise self.id_conflict(experiment_id, owner)

    def _require_not_archived(self, manifest: Manifest) -> None:
        """Raise if the attempt is archived: its processes must not claim the folder before the next attempt does."""
        key = f"{layout.earlier_attempt_folder(self.name, manifest.attempt)}/{MANIFEST_NAME}"
        try:
            archived = codec.decode_manifest(self.store.get(key), key)
        except (ResultNotFoundError, ResultCorruptError, UnsafePathError):
            return
        if archived.experiment_id == manifest.experiment_id:
            doing = f"cannot use the experiment id {manifest.experiment_id!r}"
            found = f"a later attempt has archived attempt {manifest.attempt}"
            raise ResultExistsError(doing, found, "pass the number of the current attempt (attempt=N, --attempt N)")

    def id_conflict(self, experiment_id: str, owner: str) -> ExperimentIdError:
        """Return the error for an id whose folder another experiment owns."""
        found = f"its folder {self.name!r} belongs to the experiment {owner!r}"
        return ExperimentIdError(f"cannot use the experiment id {experiment_id!r}", found, "use another id")

    def content_conflict(self, key: str, stored: bytes | None, data: bytes) -> ResultExistsError:
        """Return the error for a key with different content; `stored` is None for content that can't be read."""
        doing = f"cannot save {self.store.path(key)}"
        if stored is None:
            refused = ResultExistsError(doing, "an unreadable file has this name", "move it away, and save again")
        else:
            digests = codec.digest(stored), codec.digest(data)
            found = f"a different result is stored (SHA-256 {digests[0][:12]}, the new one {digests[1][:12]})"
            advice = "compare both results, or save with overwrite=True, which keeps the old result"
            refused = ResultExistsError(doing, found, advice)
            refused.digests = digests
        refused.path = self.store.path(key)
        return refused

    def _ids_in_results(self, indices: Sequence[int] | None = None) -> Iterator[str]:
        """Yield each id in the results that belongs to this folder name. Case is ignored, as on some file systems.

        Args:
            indices: The processes that have a result, if the caller has listed them.
        """
        if indices is None:
            first = self._id_in_result(0)  # usually found, so that a save need not list thousands of files
            if first is not None:
                yield first
            indices = [index for index in self.process_indices() if index]
        for index in indices:
            found = self._id_in_result(index)
            if found is not None:
                yield found

    def _id_in_result(self, process_index: int) -> str | None:
        with contextlib.suppress(ResultsError):
            found = codec.peek_id(self.store.get(layout.raw_key(self.name, process_index)))
            if found is not None and layout.names_folder(found, self.name, any_case=True):
                return found
        return None


def _indices_of(names: Iterable[str]) -> list[int]:
    """Return the process indices in the file names of results, in order."""
    return sorted(index for name in names if (index := process_index_of(name)) is not None)


def _has_name(store: Store, folder: str) -> bool:
    """Return True if `raw/` has exactly this name."""
    return bool(store.list_range(RAW_DIR, folder, f"{folder}\0"))


def digest_of(store: Store, key: str) -> str | None:
    """Return the SHA-256 of a value, or None if it can't be read."""
    data = bytes_of(store, key)
    return None if data is None else codec.digest(data)


def bytes_of(store: Store, key: str) -> bytes | None:
    """Return a value, or None if it can't be read."""
    try:
        return store.get(key)
    except ResultsError:
        return None


def keep_bytes(store: Store, data: bytes, key_of: Callable[[int], str]) -> tuple[Path, bool]:
    """Store bytes under the first free number. Return the path, and False if a number already has the same bytes.

    The values are read in the order of their numbers, so that bytes are only written to the first missing number.
    Earlier releases stored the files under names without `layout.KEPT_SUFFIX`.
    """
    for number in count(1):
        key = key_of(number)
        for earlier in (key.removesuffix(layout.KEPT_SUFFIX), key):
            stored = bytes_of(store, earlier)
            if stored == data:
                return store.path(earlier), False
        if stored is None and store.create(key, data):
            return store.path(key), True
    raise AssertionError  # unreachable: `count` does not end


def keep_copy(store: Store, key: str, key_of: Callable[[int], str]) -> Path:
    """Copy a value, which the caller will replace, to the first free number. Return the path of the copy."""
    number = 1
    while not store.copy_if_absent(key, key_of(number)):
        number += 1
    return store.path(key_of(number))
