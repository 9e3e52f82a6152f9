"""Merge results directories, for example those of several hosts or users.

Files are copied byte for byte, and no file is replaced. An equal file is skipped, so an interrupted merge can be
repeated. A rejected or superseded file gets the first free number in the target. Different content under any other name
is a conflict: the merge reports it, and the user decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from msgspec import Struct

from llm_energy_measure.constants import AGGREGATED_DIR, MANIFEST_NAME, RAW_DIR, TAGS_DIR
from llm_energy_measure.domain.experiment import Manifest, process_index_of
from llm_energy_measure.exceptions import ExperimentIdError, ResultCorruptError, ResultsError, UnsafePathError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import codec, deletion, layout
from llm_energy_measure.results.store.raw_folder import bytes_of, keep_bytes
from llm_energy_measure.results.store.tags import decode_tags
from llm_energy_measure.security import sanitize_experiment_id
from llm_energy_measure.storage.base import Entry, Store
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.group_commit import map_in_threads
from llm_energy_measure.storage.temporary import target_name


class MergedFile(Struct, frozen=True, kw_only=True):
    """The outcome for one file of the source directory, or for a whole experiment.

    Attributes:
        key: Key in the source. The key in the target is equal, unless `reason` names another file.
        outcome: `copied`, `same` (the target has an equal file, or `reason` says why it needs no copy), `conflict` (the
            target has different content) or `failed`.
        reason: Why there is a conflict, why the copy failed or is not needed, or the name in the target.
    """

    key: str
    outcome: Literal["copied", "same", "conflict", "failed"]
    reason: str | None = None


def merge_results(target: FileSystemRepository, source: FileSystemRepository) -> Iterator[MergedFile]:
    """Copy the contents of a results directory into another one, experiment by experiment.

    The merge copies raw results, manifests, rejected, superseded and partial records, aggregates and tags. It reports
    empty files, unfinished files and earlier attempts, and does not copy them. It ignores files of other programs. If
    source and target have different ids, runs (in the manifests), or results of a process for the same folder name, the
    whole experiment is a conflict.

    Args:
        target: The directory to copy into.
        source: The directory to copy from. It is not changed.
    """

    def merge_one(store: Store, folder: str) -> list[MergedFile]:
        return list(_merge_experiment(FileSystemRepository(target.base_path, store=store), source, folder))

    def merge_derived(store: Store, found: tuple[str, str]) -> MergedFile:
        key, folder = found
        parent, _, name = key.partition("/")
        return _merge_derived(FileSystemRepository(target.base_path, store=store), source, parent, name, folder)

    entries = source.store.list(RAW_DIR)
    folders = [entry.name for entry in entries if entry.is_folder and layout.is_folder_name(entry.name)]
    # Folders whose names differ only in case are merged one after the other: on some file systems, they are one folder.
    for merged in map_in_threads(target.store, merge_one, folders, str.lower):
        yield from merged
    yield from other_entries(source)
    yield from map_in_threads(target.store, merge_derived, derived_files(source), lambda found: found[1].lower())


def merge_experiment(
    target: FileSystemRepository, source: FileSystemRepository, folder: str, derived: Sequence[str]
) -> Iterator[MergedFile]:
    """Copy one experiment as `merge_results` does.

    Args:
        target: The directory to copy into.
        source: The directory to copy from.
        folder: Folder name of the experiment.
        derived: Keys of its aggregates and tags; a key that the source lacks is skipped.
    """
    yield from _merge_experiment(target, source, folder)
    for key in derived:
        parent, _, name = key.partition("/")
        if bytes_of(source.store, key) is not None:
            yield _merge_derived(target, source, parent, name, folder)


def other_entries(source: FileSystemRepository) -> Iterator[MergedFile]:
    """Yield a report on each entry of `raw/` that is no experiment, if a user may expect that it is merged."""
    for entry in source.store.list(RAW_DIR):
        is_experiment = entry.is_folder and layout.is_folder_name(entry.name)
        if not is_experiment and (reason := _reason_to_skip(source, entry)) is not None:
            yield MergedFile(key=f"{RAW_DIR}/{entry.name}", outcome="failed", reason=reason)


def derived_files(source: FileSystemRepository) -> Iterator[tuple[str, str]]:
    """Yield the key and the experiment's folder name of each aggregate and each file of tags."""
    deleted = deletion.deleted_folders(source.store)
    for parent in (AGGREGATED_DIR, TAGS_DIR):
        for entry in source.store.list(parent):
            folder = layout.aggregated_folder_of(entry.name) or layout.superseded_aggregate_folder_of(entry.name)
            if folder is not None and folder not in deleted and not entry.is_folder:
                yield f"{parent}/{entry.name}", folder


def folder_of(merged: MergedFile) -> str | None:
    """Return the folder name of the experiment of a merged file. None if the file belongs to no experiment."""
    parent, _, rest = merged.key.partition("/")
    if parent == RAW_DIR:
        return rest.partition("/")[0]
    return layout.aggregated_folder_of(rest)


def _reason_to_skip(source: FileSystemRepository, entry: Entry) -> str | None:
    """Return why an entry of `raw/` that is not an experiment is not merged; None if it needs no report."""
    if layout.earlier_attempt_of(entry.name) is not None:
        return "earlier attempts are not merged; copy the folder if it is needed"
    if layout.deleted_folder_of(entry.name) is not None or target_name(entry.name) is not None:
        return None
    try:
        names = [found.name for found in source.store.list(f"{RAW_DIR}/{entry.name}")]
    except UnsafePathError as error:
        return f"{error.found}; {error.advice}"
    except ResultsError:
        return None
    if all(process_index_of(name) is None for name in names):
        return None
    return "no experiment id can have this folder name; rename the folder in the source directory"


def _difference(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> str | None:
    """Return how the experiments with this folder name differ in the two directories; None if they don't differ."""
    own, other = owner(target, folder), owner(source, folder)
    if own is not None and other is not None and own != other:
        return f"the folder belongs to experiment {own!r} in the target and to {other!r} in the source"
    manifests = [repository.raw_folder(folder).readable_manifest() for repository in (target, source)]
    return _difference_of_manifests(*manifests)


def _difference_of_manifests(own: Manifest | None, other: Manifest | None) -> str | None:
    difference = own.difference(other) if own is not None and other is not None else None
    if difference is None:
        return None
    name, value, other_value = difference
    return f"the source has another run: in the manifests, {name} is {value!r} (target) and {other_value!r} (source)"


def owner(repository: FileSystemRepository, folder: str) -> str | None:
    """Return the id of the experiment with a folder name, from its raw folder or else from its aggregate."""
    owner = repository.raw_folder(folder).owner()
    if owner is None:
        with contextlib.suppress(ResultCorruptError):  # an unreadable aggregate names no experiment
            aggregated = repository.load_summary(folder)
            owner = aggregated.experiment_id if aggregated is not None else None
    return owner


def _merge_experiment(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> Iterator[MergedFile]:
    prefix = layout.raw_folder(folder)
    try:
        names = [entry.name for entry in source.store.list(prefix) if not entry.is_folder]
        if (difference := _difference(target, source, folder)) is not None:
            yield MergedFile(key=prefix, outcome="conflict", reason=difference)
            return
        if (renamed := renamed_folder(source, folder, names)) is not None:
            yield renamed
            return
        if conflicts := _conflicts(target, source, folder, names):
            yield from conflicts
            return
        manifest = _merge_manifest(target, source, folder, names)
    except ExperimentIdError as error:
        yield MergedFile(key=prefix, outcome="conflict", reason=error.found)
        return
    except ResultsError as error:
        yield MergedFile(key=prefix, outcome="failed", reason=str(error))
        return
    if MANIFEST_NAME in names:
        yield manifest
    if manifest.outcome in ("copied", "same"):
        others = (name for name in names if name != MANIFEST_NAME)
        yield from filter(None, (_merge_record(target, source, folder, name) for name in others))


def renamed_folder(source: FileSystemRepository, folder: str, names: Sequence[str]) -> MergedFile | None:
    """Return a report if the id in the first readable result belongs to another folder name; else None."""
    prefix = layout.raw_folder(folder)
    for name in names:
        if process_index_of(name) is not None:
            data = bytes_of(source.store, f"{prefix}/{name}")
            if (found := codec.peek_id(data) if data else None) is not None:
                return _renamed(prefix, folder, found, "it has a result of another experiment,")
    return None


def _renamed_aggregate(source: FileSystemRepository, key: str, folder: str) -> MergedFile | None:
    """Return a report if the id in an aggregate belongs to another file name; else None."""
    found = codec.peek_id(source.store.get(key))
    return None if found is None else _renamed(key, folder, found, "it is the aggregate of")


def _renamed(key: str, folder: str, found: str, what: str) -> MergedFile | None:
    if layout.names_folder(found, folder, any_case=True):
        return None
    return MergedFile(key=key, outcome="failed", reason=f"{what} {found!r}; {rename_advice(found)}")


def rename_advice(experiment_id: str) -> str:
    """Return the advice for a folder or an aggregate whose name does not match its id."""
    with contextlib.suppress(ExperimentIdError):
        return f"name it {sanitize_experiment_id(experiment_id)!r} in the source directory"
    return "correct the id in the source directory"


def _merge_record(
    target: FileSystemRepository, source: FileSystemRepository, folder: str, name: str
) -> MergedFile | None:
    """Copy a result or another record of an experiment; return None for a file of another program."""
    key = f"{layout.raw_folder(folder)}/{name}"
    if layout.is_kept_in_raw(name):
        key_of = layout.numbered_keys(folder, name)
        return _merge_file(target, source, key) if key_of is None else _merge_kept(target, source, key, key_of)
    if target_name(name) is not None:
        reason = "unfinished file; run 'llm-energy-measure results check' in the source directory"
        return MergedFile(key=key, outcome="failed", reason=reason)
    return None


def _conflicts(
    target: FileSystemRepository, source: FileSystemRepository, folder: str, names: Sequence[str]
) -> list[MergedFile]:
    """Return a conflict for each process with different results, and one more for the experiment; or an empty list.

    Different results are from different runs. A sum over the processes of two runs would be wrong.
    """
    conflicts = []
    for name in names:
        key = f"{layout.raw_folder(folder)}/{name}"
        if process_index_of(name) is not None:
            own, other = bytes_of(target.store, key), bytes_of(source.store, key)
            if own and other and own != other:
                conflicts.append(MergedFile(key=key, outcome="conflict", reason="the target has a different result"))
    reason = "the target has results of another run, so no file of this experiment was copied"
    experiment = MergedFile(key=layout.raw_folder(folder), outcome="conflict", reason=reason)
    return [*conflicts, experiment] if conflicts else []


def _merge_manifest(
    target: FileSystemRepository, source: FileSystemRepository, folder: str, names: Sequence[str]
) -> MergedFile:
    """Copy the manifest, or compare it with the manifest in the target.

    Raises:
        ExperimentIdError: Another experiment owns the folder in the target.
        ResultExistsError: The attempt was archived in the target at the same time.
    """
    key = layout.manifest_key(folder)
    other = source.raw_folder(folder).readable_manifest()
    if other is None:  # results of another tool, or an unreadable manifest
        deletion.require_unused(target.store, folder)
        return _merge_file(target, source, key) if MANIFEST_NAME in names else MergedFile(key=key, outcome="same")
    is_new = target.raw_folder(folder).has_no_manifest()
    own = target.raw_folder(folder).claim(other)
    if (reason := _difference_of_manifests(own, other)) is not None:
        return MergedFile(key=key, outcome="conflict", reason=reason)
    if own == other:
        return MergedFile(key=key, outcome="copied" if is_new else "same")
    if own.includes(other):
        return MergedFile(key=key, outcome="same", reason="the manifests describe the same run")
    reason = "the source manifest describes the same run with more fields; compare the two files"
    return MergedFile(key=key, outcome="conflict", reason=reason)


def _merge_file(target: FileSystemRepository, source: FileSystemRepository, key: str) -> MergedFile:
    try:
        data = source.store.get(key)
        if not data:
            return MergedFile(key=key, outcome="failed", reason="the file is empty (0 bytes)")
        if target.store.create(key, data):
            return MergedFile(key=key, outcome="copied")
        if target.store.get(key) == data:
            return MergedFile(key=key, outcome="same")
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    return MergedFile(key=key, outcome="conflict", reason="the target has different content under this name")


def _merge_kept(
    target: FileSystemRepository, source: FileSystemRepository, key: str, key_of: Callable[[int], str]
) -> MergedFile:
    """Copy a rejected or superseded file to the first free number in the target, with a file name of this release."""
    try:
        data = source.store.get(key)
        if not data:
            return MergedFile(key=key, outcome="failed", reason="the file is empty (0 bytes)")
        path, is_new = keep_bytes(target.store, data, key_of)
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    reason = None if path == target.store.path(key) else f"stored as {path.name}"
    return MergedFile(key=key, outcome="copied" if is_new else "same", reason=reason)


def _merge_derived(
    target: FileSystemRepository, source: FileSystemRepository, parent: str, name: str, folder: str
) -> MergedFile:
    """Copy an aggregate or tags. A different aggregate is no conflict if the target can recompute its own."""
    key = f"{parent}/{name}"
    try:
        if (refused := _refused_derived(target, source, key, folder)) is not None:
            return refused
        deletion.require_unused(target.store, folder)
        if parent == AGGREGATED_DIR and layout.is_superseded_aggregate(name):
            return _merge_kept(target, source, key, lambda number: layout.superseded_aggregate_key(folder, number))
        can_be_recomputed = parent == AGGREGATED_DIR and target.has_raw(folder)
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    merged = _merge_file(target, source, key)
    if merged.outcome == "conflict" and parent == TAGS_DIR and _has_tags_of(target, source, key):
        return MergedFile(key=key, outcome="same", reason="the target has these tags and others")
    if merged.outcome == "copied" and parent == AGGREGATED_DIR:
        # With the time of the copy as mtime, the aggregate would count as newer than all raw results in the target.
        with Folder(target.store, parent) as copied:
            copied.set_mtime(name, 0)
    if merged.outcome == "conflict" and can_be_recomputed and _has_sources(source, folder):
        return MergedFile(key=key, outcome="same", reason="it can be recomputed from the raw results")
    return merged


def _refused_derived(
    target: FileSystemRepository, source: FileSystemRepository, key: str, folder: str
) -> MergedFile | None:
    """Return a report if an aggregate or a file of tags must not be copied; else None."""
    if (difference := _difference(target, source, folder)) is not None:
        return MergedFile(key=key, outcome="conflict", reason=difference)
    return _renamed_aggregate(source, key, folder) if key.startswith(f"{AGGREGATED_DIR}/") else None


def _has_tags_of(target: FileSystemRepository, source: FileSystemRepository, key: str) -> bool:
    """Return True if the target has all tags and the note of the source."""
    try:
        own, other = (decode_tags(repository.store.get(key), key) for repository in (target, source))
    except ResultsError:
        return False
    return other.tags.items() <= own.tags.items() and other.note in (None, own.note)


def _has_sources(repository: FileSystemRepository, folder: str) -> bool:
    """Return True if this package made the aggregate; an aggregate of another tool can't be recomputed."""
    try:
        aggregated = repository.load_summary(folder)
    except ResultsError:
        return False
    return aggregated is not None and aggregated.sources is not None
