"""The stored files of one experiment, read once: the same bytes are verified and packed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from msgspec import Struct, field

from llm_energy_measure.constants import RAW_DIR
from llm_energy_measure.exceptions import ResultNotFoundError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import layout
from llm_energy_measure.storage.memory import ROOT, MemoryStore

_NOT_OURS = "not a file that this tool stores"


class Snapshot(Struct, kw_only=True):
    """The files of an experiment.

    Attributes:
        folder: Folder name of the experiment.
        files: Content of each file, by key, such as `raw/exp_7/process_0.json`.
        left_out: Reason by key, for the files of the folder that are not packed.
    """

    folder: str
    files: dict[str, bytes]
    left_out: dict[str, str] = field(default_factory=dict)

    def repository(self) -> FileSystemRepository:
        """Return a repository in memory with these files."""
        return repository_of(self.files)


def read_snapshot(repository: FileSystemRepository, folder: str) -> Snapshot:
    """Return the files of an experiment: raw results and their manifest, the aggregate and the tags.

    Files of other programs are left out, because they can contain prompts or generated text.

    Raises:
        StorageError: A file cannot be read.
    """
    files: dict[str, bytes] = {}
    left_out: dict[str, str] = {}
    for entry in repository.store.list(layout.raw_folder(folder)):
        key = f"{RAW_DIR}/{folder}/{entry.name}"
        is_claim = entry.name.startswith("claim-") and entry.name.endswith(".json")
        if entry.is_folder or not (is_claim or layout.is_kept_in_raw(entry.name)):
            left_out[key] = _NOT_OURS
        else:
            files[key] = repository.store.get(key)
    aggregate = repository.read_aggregated(folder)
    if aggregate is not None:
        files[layout.aggregated_key(folder)] = aggregate
    with contextlib.suppress(ResultNotFoundError):  # most experiments have no tags
        files[layout.tags_key(folder)] = repository.store.get(layout.tags_key(folder))
    return Snapshot(folder=folder, files=files, left_out=left_out)


def repository_of(files: Mapping[str, bytes]) -> FileSystemRepository:
    """Return a repository in memory with these files, by key."""
    store = MemoryStore()
    for key, data in files.items():
        store.put(key, data)
    return FileSystemRepository(ROOT, store=store)
