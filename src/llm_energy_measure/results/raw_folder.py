"""One experiment's folder of raw results: what is in it, whose it is, and keeping what must not be lost.

Whose a folder is: its manifest says so, or else the ids inside its results. A folder whose name is its experiment's own
id needs no manifest; one that several ids could have (`a_b` for `a/b`) gets it before its first result.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from llm_energy_measure.constants import MANIFEST_NAME
from llm_energy_measure.domain.experiment import RawProcessResult, UnreadableFile
from llm_energy_measure.exceptions import (
    ExperimentIdError,
    ResultCorruptError,
    ResultExistsError,
    ResultNotFoundError,
    ResultsError,
    StorageError,
    UnsafePathError,
)
from llm_energy_measure.results import codec, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llm_energy_measure.domain.experiment import Manifest
    from llm_energy_measure.storage.base import Store


class RawFolder:
    """The raw results of one experiment, in a store.

    Args:
        store: The store.
        name: The folder's name, which is a sanitised id.
    """

    def __init__(self, store: Store, name: str) -> None:
        """Remember the folder; nothing is touched."""
        self.store = store
        self.name = name

    def process_indices(self) -> list[int]:
        """Processes that have a result, readable or not, in order."""
        entries = self.store.list(layout.raw_folder(self.name))
        indices = [layout.process_index_of(entry.name) for entry in entries if not entry.is_folder]
        return sorted(index for index in indices if index is not None)

    def unfinished_indices(self) -> list[int]:
        """Processes that have a partial record and no result, in order."""
        names = [entry.name for entry in self.store.list(layout.raw_folder(self.name)) if not entry.is_folder]
        indices = {layout.partial_index_of(name) for name in names} - set(map(layout.process_index_of, names))
        return sorted(index for index in indices if index is not None)

    def read(self, process_index: int, *, partial: bool = False) -> RawProcessResult | UnreadableFile:
        """One raw result, or partial record, or why it can't be had."""
        key = (layout.partial_key if partial else layout.raw_key)(self.name, process_index)
        name = key.rpartition("/")[2]
        try:
            data = self.store.get(key)
        except ResultsError as error:
            return UnreadableFile(name=name, reason=error.found)
        size, sha256 = len(data), codec.digest(data)
        try:
            record = codec.decode_raw(data, f"{self.name}/{name}")
        except ResultCorruptError as error:
            return UnreadableFile(name=name, reason=error.found, size_bytes=size, sha256=sha256)
        reason = None
        if not layout.names_folder(record.experiment_id, self.name):
            reason = f"it is a result of another experiment, {record.experiment_id!r}"
        elif record.process_index != process_index:
            reason = f"it is the result of process {record.process_index}"
        return record if reason is None else UnreadableFile(name=name, reason=reason, size_bytes=size, sha256=sha256)

    def manifest(self) -> Manifest | None:
        """What was expected, or None if nobody wrote it down. Raises `ResultCorruptError`."""
        key = layout.manifest_key(self.name)
        try:
            manifest = codec.decode_manifest(self.store.get(key), key)
        except ResultNotFoundError:
            return None
        if not layout.names_folder(manifest.experiment_id, self.name, any_case=True):
            found = f"it is the manifest of {manifest.experiment_id!r}"
            raise ResultCorruptError(f"Failed to load manifest {key}", found, "move it to its own experiment")
        return manifest

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

        Raises:
            ExperimentIdError: The folder is another experiment's.
        """
        key = layout.manifest_key(self.name)
        is_new = self.store.create(key, codec.encode_manifest(manifest))
        pinned = None if is_new else self.readable_manifest()
        if pinned is None:
            # Whoever saves under the folder's own name looks for a manifest after publishing, so one of the two sees.
            # Where a manifest is there that can't be read, the results alone say whose the folder is.
            rival = self.rival_of(manifest.experiment_id)
            if rival is not None and is_new:
                self.give_way(manifest.experiment_id)
        else:
            rival = pinned.experiment_id if pinned.experiment_id != manifest.experiment_id else None
        if rival is not None:
            raise self.taken(manifest.experiment_id, rival)
        return manifest if pinned is None else pinned

    def rival_of(self, experiment_id: str) -> str | None:
        """The id of a result in the folder that is another experiment's, if any."""
        return next((claimant for claimant in self._claimants() if claimant != experiment_id), None)

    def give_way(self, experiment_id: str) -> None:
        """Take an experiment's manifest back, unless a result of it has come to stand in the folder meanwhile."""
        # Whose result has come to stand here has relied on the manifest, and the rival gives way when it sees it.
        manifest = self.readable_manifest()
        if manifest is not None and manifest.experiment_id == experiment_id not in set(self._claimants()):
            self.store.delete(layout.manifest_key(self.name))

    def require_settled_for(self, experiment_id: str) -> Manifest | None:
        """The folder's manifest, once a result was published and still no other experiment has the folder.

        Raises:
            ExperimentIdError: Another id that shares the folder's name got it meanwhile.
        """
        # An id that does not name the folder relies on its manifest, which a process that saw a rival may take back.
        rival = None if experiment_id == self.name else self.rival_of(experiment_id)
        found = self.readable_manifest()
        if rival is None and found is None and experiment_id != self.name:
            names = {entry.name for entry in self.store.list(layout.raw_folder(self.name))}
            rival = None if MANIFEST_NAME in names else self.name  # one that can't be read was not taken back
        if found is not None and found.experiment_id != experiment_id:
            rival = found.experiment_id
        if rival is not None:
            raise self.taken(experiment_id, rival)
        return found

    def require_free_for(self, experiment_id: str, manifest: Manifest) -> Manifest | None:
        """The folder's manifest, if it has or needs one, once no other experiment has the folder.

        Args:
            experiment_id: The experiment that wants to save here.
            manifest: What to write where the folder's name does not say whose it is.

        Raises:
            ExperimentIdError: The folder is another experiment's.
        """
        found = self.readable_manifest()
        if found is None and experiment_id != self.name:
            return self.pin(manifest)
        holder = next(self._claimants(), None) if found is None else found.experiment_id
        if holder not in (None, experiment_id):
            raise self.taken(experiment_id, holder)
        return found

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


def keep(store: Store, data: bytes, key_of: Callable[[int], str]) -> Path:
    """Store bytes under the first free number; the same bytes again take the number they have."""
    number = 1
    while not store.create(key_of(number), data):
        if bytes_of(store, key_of(number)) == data:
            break
        number += 1
    return store.path(key_of(number))


def keep_copy(store: Store, key: str, key_of: Callable[[int], str]) -> None:
    """Give a value that is about to be replaced a second name, under the first free number."""
    number = 1
    while not store.copy_new(key, key_of(number)):
        number += 1
