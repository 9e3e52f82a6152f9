"""One experiment's folder of raw results: what is in it, whose it is, and keeping what must not be lost.

Whose a folder is: its manifest says so, which it gets before its first result. Folders that another tool wrote have
none; there the ids inside the results say it.
"""

from __future__ import annotations

import contextlib
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec import Struct, field

from llm_energy_measure.constants import MANIFEST_NAME
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
from llm_energy_measure.results.store import codec, deletion, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from llm_energy_measure.storage.base import Store


_TRIES = 10
"""How often a folder may be set aside under a reader before it takes what it has."""


class RawRecovery(Struct, frozen=True, kw_only=True):
    """What of an experiment's raw results can be read, and what can't.

    Attributes:
        results: The readable results, by process index.
        unreadable: The others, by process index, each with its reason; last a manifest that can't be read.
        manifest: What was expected of the experiment, if that was written down.
        partials: Readable checkpoints of processes that have no result, by process index.
    """

    results: list[RawProcessResult]
    unreadable: list[UnreadableFile]
    manifest: Manifest | None = None
    partials: list[RawProcessResult] = field(default_factory=list)


class RawFolder:
    """The raw results of one experiment, in a store.

    Args:
        store: The store.
        name: The folder's name, which is a sanitised id.
        attempt: An earlier attempt that was set aside; by default the one that is current.
    """

    def __init__(self, store: Store, name: str, *, attempt: int | None = None) -> None:
        """Remember the folder; nothing is touched."""
        self.store = store
        self.name = name
        prefix = layout.raw_folder(name) if attempt is None else layout.earlier_attempt_folder(name, attempt)
        self._place = layout.folder_of_key(prefix)

    def process_indices(self) -> list[int]:
        """Processes that have a result, readable or not, in order."""
        entries = self.store.list(layout.raw_folder(self._place))
        indices = [process_index_of(entry.name) for entry in entries if not entry.is_folder]
        return sorted(index for index in indices if index is not None)

    def unfinished_indices(self) -> list[int]:
        """Processes that have a partial record and no result, in order."""
        names = [entry.name for entry in self.store.list(layout.raw_folder(self._place)) if not entry.is_folder]
        indices = {layout.partial_index_of(name) for name in names} - set(map(process_index_of, names))
        return sorted(index for index in indices if index is not None)

    def read(self, process_index: int, *, partial: bool = False) -> RawProcessResult | UnreadableFile:
        """One raw result, or partial record, or why it can't be had."""
        key = (layout.partial_key if partial else layout.raw_key)(self._place, process_index)
        name = key.rpartition("/")[2]
        try:
            data = self.store.get(key)
        except ResultsError as error:
            return UnreadableFile(name=name, reason=error.found)
        return self.decode(name, process_index, data)

    def decode(self, name: str, process_index: int | None, data: bytes) -> RawProcessResult | UnreadableFile:
        """One raw result from the name and the bytes of its file, or why they are none."""
        reason = None
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

    def decode_all(self, files: Iterable[tuple[str, bytes]]) -> tuple[list[RawProcessResult], list[UnreadableFile]]:
        """Return the raw results in files, by process index, and the unreadable files with their reasons.

        Args:
            files: Name and bytes of each file, in any order.
        """
        outcomes = [self.decode(name, process_index_of(name), data) for name, data in files]
        results = [outcome for outcome in outcomes if not isinstance(outcome, UnreadableFile)]
        unreadable = [outcome for outcome in outcomes if isinstance(outcome, UnreadableFile)]
        return sorted(results, key=attrgetter("process_index")), unreadable

    def manifest(self, data: bytes | None = None) -> Manifest | None:
        """What was expected, or None if nobody wrote it down. Raises `ResultCorruptError`.

        Args:
            data: The bytes of its file, if they were read already.
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
            raise ResultCorruptError(f"Failed to load manifest {key}", found, "move it to its own experiment")
        return manifest

    def recover(self) -> RawRecovery:
        """Its readable results and, by name and reason, the unreadable ones, all of one attempt."""
        recovery = self._recover()
        for _ in range(_TRIES):
            again = self._manifest_or_reason()
            if again == (recovery.manifest or again):
                break
            recovery = self._recover()  # a later attempt set the folder aside between two of its files
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
        )

    def _manifest_or_reason(self) -> Manifest | UnreadableFile | None:
        try:
            return self.manifest()
        except ResultsError as error:
            return UnreadableFile(name=MANIFEST_NAME, reason=error.found)

    def has_no_manifest(self) -> bool:
        """True if there is none; one that can't be read is one."""
        try:
            self.store.get(layout.manifest_key(self.name))
        except ResultNotFoundError:
            return True
        except ResultsError:
            return False
        return False

    def readable_manifest(self) -> Manifest | None:
        """The manifest, or None if there is none that can be read: the results then say whose the folder is."""
        try:
            return self.manifest()
        except (ResultCorruptError, StorageError, UnsafePathError):
            return None

    def holder(self) -> str | None:
        """The exact id of the experiment that has the folder, if any."""
        manifest = self.readable_manifest()
        return next(self._claimants(), None) if manifest is None else manifest.experiment_id

    def pin(self, manifest: Manifest) -> Manifest:
        """The manifest that the folder has, or gets now; whoever writes it first gives the folder its experiment.

        It comes before every result, so that of two ids that share a folder's name exactly one ever has results in it.

        Raises:
            ExperimentIdError: The folder is another experiment's.
            ResultExistsError: The folder was set aside just now, for a later attempt.
        """
        found = self.readable_manifest()
        if found is None:
            # Results without a manifest are none that this package saved, or theirs can't be read.
            holder = next(self._claimants(), None)
            if holder not in (None, manifest.experiment_id):
                raise self.taken(manifest.experiment_id, holder)
            with contextlib.suppress(StorageError, UnsafePathError):  # a measurement does not wait for that
                deletion.finish(self.store, self.name)  # what is left of another that had the name
            self._require_not_archived(manifest)
            if self.store.create(layout.manifest_key(self.name), codec.encode_manifest(manifest)):
                try:
                    self._require_not_archived(manifest)  # it could have been between the look and the manifest
                except ResultExistsError:
                    self.store.delete(layout.manifest_key(self.name))
                    raise
                return manifest
            found = self.readable_manifest() or manifest
        if found.experiment_id != manifest.experiment_id:
            raise self.taken(manifest.experiment_id, found.experiment_id)
        return found

    def _require_not_archived(self, manifest: Manifest) -> None:
        """Between setting an attempt aside and the next one's manifest nobody may bring the earlier one back."""
        key = f"{layout.earlier_attempt_folder(self.name, manifest.attempt)}/{MANIFEST_NAME}"
        try:
            aside = codec.decode_manifest(self.store.get(key), key)
        except (ResultNotFoundError, ResultCorruptError, UnsafePathError):
            return
        if aside.experiment_id == manifest.experiment_id:
            doing = f"cannot use the experiment id {manifest.experiment_id!r}"
            found = f"its attempt {manifest.attempt} was set aside for a later one"
            raise ResultExistsError(doing, found, "count the attempt")

    def taken(self, experiment_id: str, holder: str) -> ExperimentIdError:
        """The error for an id whose folder is another experiment's."""
        found = f"its folder {self.name!r} belongs to the experiment {holder!r}"
        return ExperimentIdError(f"cannot use the experiment id {experiment_id!r}", found, "choose another id")

    def conflict(self, key: str, stored: bytes | None, data: bytes) -> ResultExistsError:
        """The error for different content under a key that has some already; None is content that can't be read."""
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

    def _claimants(self) -> Iterator[str]:
        """Ids inside the results that could be the folder's, in any case: some file systems tell no case."""
        first = self._claimant(0)  # as a rule it is there: no list of thousands for every save
        if first is not None:
            yield first
        for index in self.process_indices():
            claimant = self._claimant(index) if index else None
            if claimant is not None:
                yield claimant

    def _claimant(self, process_index: int) -> str | None:
        with contextlib.suppress(ResultsError):
            claimed = codec.peek_id(self.store.get(layout.raw_key(self.name, process_index)))
            if claimed is not None and layout.names_folder(claimed, self.name, any_case=True):
                return claimed
        return None


def digest_of(store: Store, key: str) -> str | None:
    """SHA-256 of a value, or None if it can't be read."""
    data = bytes_of(store, key)
    return None if data is None else codec.digest(data)


def bytes_of(store: Store, key: str) -> bytes | None:
    """A value, or None if it can't be read."""
    try:
        return store.get(key)
    except ResultsError:
        return None


def keep(store: Store, data: bytes, key_of: Callable[[int], str]) -> tuple[Path, bool]:
    """Store bytes under the first free number, and say whether they are new; the same bytes keep the number they have.

    Values are read until one is missing, so that only a number that seems free is written to.
    """
    for number in count(1):
        stored = bytes_of(store, key_of(number))
        if stored == data or (stored is None and store.create(key_of(number), data)):
            return store.path(key_of(number)), stored is None
    raise AssertionError  # there is always a next number


def keep_copy(store: Store, key: str, key_of: Callable[[int], str]) -> Path:
    """Give a value that is about to be replaced a second name, under the first free number."""
    number = 1
    while not store.copy_if_absent(key, key_of(number)):
        number += 1
    return store.path(key_of(number))
