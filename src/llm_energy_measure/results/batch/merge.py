"""Bring results directories together: of several hosts, or of several people.

Bytes are copied as they are. Nothing that is there is replaced: the same content again is skipped, so that a merge that
was interrupted is simply run again. Records that were kept beside the results (rejected, superseded) get a free number
where theirs is taken; other different content under one name is a conflict, which is told and left to a person.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from llm_energy_measure.constants import AGGREGATED_DIR, MANIFEST_NAME, RAW_DIR, TAGS_DIR
from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.exceptions import ExperimentIdError, ResultCorruptError, ResultsError, UnsafePathError
from llm_energy_measure.results.store import deletion, layout
from llm_energy_measure.results.store.raw_folder import bytes_of, keep_bytes
from llm_energy_measure.storage.atomic import target_name
from llm_energy_measure.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_energy_measure.results.repository import FileSystemRepository
    from llm_energy_measure.storage.base import Entry


class MergedFile(Struct, frozen=True, kw_only=True):
    """What became of one file of the other directory.

    Attributes:
        key: Where it lies there, and here unless the reason names another place.
        outcome: `copied`, `same` (it was here already), `conflict` (other content is here) or `failed`.
        reason: Why it is a conflict or failed.
    """

    key: str
    outcome: Literal["copied", "same", "conflict", "failed"]
    reason: str | None = None


def merge_results(target: FileSystemRepository, source: FileSystemRepository) -> Iterator[MergedFile]:
    """Copy what another results directory holds into this one, experiment by experiment.

    Raw results, manifests, what was kept beside them (rejected, superseded, partial), aggregates and tags are copied.
    Empty and unfinished files and earlier attempts are not, and told; files that are none of ours are not. An
    experiment is a conflict as a whole if its id differs from the one that has the folder here, if its manifest tells
    of another run, or if a result of one of its processes differs.

    Args:
        target: Where to.
        source: Where from; it is not changed.
    """
    for entry in source.store.list(RAW_DIR):
        if entry.is_folder and layout.is_folder_name(entry.name):
            yield from _merge_experiment(target, source, entry.name)
        elif (reason := _why_left(source, entry)) is not None:
            yield MergedFile(key=f"{RAW_DIR}/{entry.name}", outcome="failed", reason=reason)
    deleted = deletion.deleted_folders(source.store)
    for parent in (AGGREGATED_DIR, TAGS_DIR):
        for entry in source.store.list(parent):
            folder = layout.aggregated_folder_of(entry.name) or layout.superseded_aggregate_folder_of(entry.name)
            if folder is not None and folder not in deleted and not entry.is_folder:
                yield _merge_derived(target, source, parent, entry.name, folder)


def _why_left(source: FileSystemRepository, entry: Entry) -> str | None:
    """Why something of ours under `raw/` that is no experiment's folder is not merged; None if it is none of ours."""
    if layout.earlier_attempt_of(entry.name) is not None:
        return "earlier attempts are not merged; copy the folder if it is needed"
    if layout.deleted_folder_of(entry.name) is not None or target_name(entry.name) is not None:
        return None
    try:
        inside = source.store.list(f"{RAW_DIR}/{entry.name}")
    except UnsafePathError as error:
        return f"{error.found}; {error.advice}"
    except ResultsError:
        return None
    holds_results = any(process_index_of(one.name) is not None for one in inside)
    return (
        "no experiment id can have this folder name; rename the folder in the source directory"
        if holds_results
        else None
    )


def _difference(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> str | None:
    """Why what lies under a folder name there can't come under it here; None if it can."""
    here, there = _holder(target, folder), _holder(source, folder)
    if here is not None and there is not None and here != there:
        return f"the folder belongs to experiment {here!r} in the target and to {there!r} in the source"
    mine, theirs = target.raw_folder(folder).readable_manifest(), source.raw_folder(folder).readable_manifest()
    difference = mine.difference(theirs) if mine is not None and theirs is not None else None
    if difference is None:
        return None
    name, value, other = difference
    return f"the source has another run: in the manifests, {name} is {value!r} (target) and {other!r} (source)"


def _holder(repository: FileSystemRepository, folder: str) -> str | None:
    """Whose a folder name is: that of the raw results, or without any that of the aggregate."""
    holder = repository.raw_folder(folder).owner()
    if holder is None:
        with contextlib.suppress(ResultCorruptError):  # such a file can't say whose it is
            aggregated = repository.load_summary(folder)
            holder = aggregated.experiment_id if aggregated is not None else None
    return holder


def _merge_experiment(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> Iterator[MergedFile]:
    prefix = layout.raw_folder(folder)
    try:
        names = [entry.name for entry in source.store.list(prefix) if not entry.is_folder]
        difference = _difference(target, source, folder)
        conflicts = [] if difference else _conflicts(target, source, folder, names)
        manifest = _merge_manifest(target, source, folder, names) if not (difference or conflicts) else None
    except ExperimentIdError as error:
        yield MergedFile(key=prefix, outcome="conflict", reason=error.found)
        return
    except ResultsError as error:
        yield MergedFile(key=prefix, outcome="failed", reason=str(error))
        return
    if difference is not None:
        yield MergedFile(key=prefix, outcome="conflict", reason=difference)
    yield from conflicts
    if manifest is None:
        return
    if MANIFEST_NAME in names:
        yield manifest
    if manifest.outcome in ("copied", "same"):
        others = (name for name in names if name != MANIFEST_NAME)
        yield from filter(None, (_merge_kept(target, source, folder, name) for name in others))


def _merge_kept(
    target: FileSystemRepository, source: FileSystemRepository, folder: str, name: str
) -> MergedFile | None:
    """A result, or what is kept beside the results; None if it is none of ours."""
    key = f"{layout.raw_folder(folder)}/{name}"
    if (key_of := layout.numbered_keys(folder, name)) is not None:
        return _merge_numbered(target, source, key, key_of)
    if layout.is_kept_in_raw(name):
        return _merge_file(target, source, key)
    if target_name(name) is not None:
        reason = "unfinished file; run 'llm-energy-measure results check' in the source directory"
        return MergedFile(key=key, outcome="failed", reason=reason)
    return None


def _conflicts(
    target: FileSystemRepository, source: FileSystemRepository, folder: str, names: Sequence[str]
) -> list[MergedFile]:
    """Results that differ: what is there is another run then, and none of it is copied, lest two runs be summed."""
    conflicts = []
    for name in names:
        key = f"{layout.raw_folder(folder)}/{name}"
        if process_index_of(name) is not None:
            mine, theirs = bytes_of(target.store, key), bytes_of(source.store, key)
            if mine and theirs and mine != theirs:
                conflicts.append(MergedFile(key=key, outcome="conflict", reason="the target has a different result"))
    reason = "the target has results of another run, so no file of this experiment was copied"
    whole = MergedFile(key=layout.raw_folder(folder), outcome="conflict", reason=reason)
    return [*conflicts, whole] if conflicts else []


def _merge_manifest(
    target: FileSystemRepository, source: FileSystemRepository, folder: str, names: Sequence[str]
) -> MergedFile:
    """Give the folder here its manifest, or hold theirs against the one that it has.

    Raises:
        ExperimentIdError: The folder is another experiment's here.
        ResultExistsError: Its attempt was set aside here just now.
    """
    key = layout.manifest_key(folder)
    theirs = source.raw_folder(folder).readable_manifest()
    if theirs is None:  # another tool's results, or one that can't be read
        deletion.finish(target.store, folder)
        return _merge_file(target, source, key) if MANIFEST_NAME in names else MergedFile(key=key, outcome="same")
    is_new = target.raw_folder(folder).has_no_manifest()
    mine = target.raw_folder(folder).claim(theirs)
    if (difference := mine.difference(theirs)) is not None:
        name, value, other = difference
        reason = f"the source has another run: in the manifests, {name} is {value!r} (target) and {other!r} (source)"
        return MergedFile(key=key, outcome="conflict", reason=reason)
    if mine == theirs:
        return MergedFile(key=key, outcome="copied" if is_new else "same")
    if mine.includes(theirs):
        return MergedFile(key=key, outcome="same", reason="the manifests describe the same run")
    reason = "the source manifest describes the same run with more fields; compare the two files"
    return MergedFile(key=key, outcome="conflict", reason=reason)


def _merge_numbered(
    target: FileSystemRepository, source: FileSystemRepository, key: str, key_of: Callable[[int], str]
) -> MergedFile:
    """What was kept beside the results goes to its own name, or to the first number that is free here."""
    merged = _merge_file(target, source, key)
    if merged.outcome != "conflict":
        return merged
    try:
        path, is_new = keep_bytes(target.store, source.store.get(key), key_of)
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    return MergedFile(key=key, outcome="copied" if is_new else "same", reason=f"stored as {path.name}")


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
    return MergedFile(key=key, outcome="conflict", reason="other content is here under this name")


def _merge_derived(
    target: FileSystemRepository, source: FileSystemRepository, parent: str, name: str, folder: str
) -> MergedFile:
    """An aggregate that differs is no conflict where it can be made again from raw results that are here."""
    key = f"{parent}/{name}"
    try:
        difference = _difference(target, source, folder)
        if difference is not None:
            return MergedFile(key=key, outcome="conflict", reason=difference)
        deletion.finish(target.store, folder)
        is_aggregate = parent == AGGREGATED_DIR and not layout.is_superseded_aggregate(name)
        can_be_remade = is_aggregate and target.has_raw(folder)
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    merged = _merge_file(target, source, key)
    if merged.outcome == "copied" and parent == AGGREGATED_DIR:
        # Its own time would say that it was made from the raw files that are here, which may be others.
        with Folder(target.store, parent) as copied:
            copied.set_mtime(name, 0)
    if merged.outcome == "conflict" and can_be_remade and _is_ours(source, folder):
        return MergedFile(key=key, outcome="same", reason="it can be made again from the raw results")
    return merged


def _is_ours(repository: FileSystemRepository, folder: str) -> bool:
    """True if an aggregate was made by this package; another tool's can't be made again."""
    try:
        aggregated = repository.load_summary(folder)
    except ResultsError:
        return False
    return aggregated is not None and aggregated.sources is not None
