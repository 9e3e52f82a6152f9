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
from llm_energy_measure.exceptions import ResultCorruptError, ResultsError
from llm_energy_measure.results import layout
from llm_energy_measure.results.raw_folder import keep
from llm_energy_measure.storage.atomic import published_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_energy_measure.results.repository import FileSystemRepository


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
    experiment is a conflict as a whole, its aggregate and tags included, if its id differs from the one that has the
    folder here, or its manifest tells of another run.

    Args:
        target: Where to.
        source: Where from; it is not changed.
    """
    for entry in source.store.list(RAW_DIR):
        if entry.is_folder and layout.is_folder_name(entry.name):
            yield from _merge_experiment(target, source, entry.name)
        elif layout.earlier_attempt_of(entry.name) is not None:
            reason = "an earlier attempt is not merged; copy it by hand if it is needed"
            yield MergedFile(key=f"{RAW_DIR}/{entry.name}", outcome="failed", reason=reason)
    for folder in (AGGREGATED_DIR, TAGS_DIR):
        for entry in source.store.list(folder):
            is_ours = layout.aggregated_folder_of(entry.name) or layout.is_superseded_aggregate(entry.name)
            if is_ours and not entry.is_folder:
                yield _merge_derived(target, source, folder, entry.name)


def _difference(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> str | None:
    """Why what lies under a folder name there can't come under it here; None if it can."""
    here, there = _holder(target, folder), _holder(source, folder)
    if here is not None and there is not None and here != there:
        return f"it belongs to {here!r} here and to {there!r} there"
    mine, theirs = target.raw_folder(folder).readable_manifest(), source.raw_folder(folder).readable_manifest()
    difference = mine.difference(theirs) if mine is not None and theirs is not None else None
    if difference is None:
        return None
    name, value, other = difference
    return f"it is another run: its manifest says {name} {value!r} here and {other!r} there"


def _holder(repository: FileSystemRepository, folder: str) -> str | None:
    """Whose a folder name is: that of the raw results, or without any that of the aggregate."""
    holder = repository.raw_folder(folder).holder()
    if holder is None:
        with contextlib.suppress(ResultCorruptError):  # such a file can't say whose it is
            aggregated = repository.load_aggregated(folder, with_processes=False)
            holder = aggregated.experiment_id if aggregated is not None else None
    return holder


def _merge_experiment(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> Iterator[MergedFile]:
    prefix = layout.raw_folder(folder)
    try:
        difference = _difference(target, source, folder)
        names = [entry.name for entry in source.store.list(prefix) if not entry.is_folder]
    except ResultsError as error:
        yield MergedFile(key=prefix, outcome="failed", reason=str(error))
        return
    if difference is not None:
        yield MergedFile(key=prefix, outcome="conflict", reason=difference)
        return
    for name in names:
        if name == MANIFEST_NAME:
            yield _merge_manifest(target, source, folder)
        elif (key_of := layout.numbered_keys(folder, name)) is not None:
            yield _merge_numbered(target, source, f"{prefix}/{name}", key_of)
        elif layout.is_kept_in_raw(name):
            yield _merge_file(target, source, f"{prefix}/{name}")
        elif published_name(name) is not None:
            reason = "an unfinished file; 'results check' there says what it is"
            yield MergedFile(key=f"{prefix}/{name}", outcome="failed", reason=reason)


def _merge_manifest(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> MergedFile:
    """One of the same run is the same, if it tells nothing that the one here does not."""
    merged = _merge_file(target, source, layout.manifest_key(folder))
    mine, theirs = target.raw_folder(folder).readable_manifest(), source.raw_folder(folder).readable_manifest()
    if merged.outcome != "conflict" or mine is None or theirs is None:
        return merged
    if mine.tells_all_of(theirs):
        return MergedFile(key=merged.key, outcome="same", reason="it is of the same run")
    reason = "the one there is of the same run and tells more; compare the two"
    return MergedFile(key=merged.key, outcome="conflict", reason=reason)


def _merge_numbered(
    target: FileSystemRepository, source: FileSystemRepository, key: str, key_of: Callable[[int], str]
) -> MergedFile:
    """What was kept beside the results goes to its own name, or to the first number that is free here."""
    merged = _merge_file(target, source, key)
    if merged.outcome != "conflict":
        return merged
    try:
        path, is_new = keep(target.store, source.store.get(key), key_of)
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    return MergedFile(key=key, outcome="copied" if is_new else "same", reason=f"here it is {path.name}")


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


def _merge_derived(target: FileSystemRepository, source: FileSystemRepository, parent: str, name: str) -> MergedFile:
    """An aggregate that differs is no conflict where it can be made again from raw results that are here."""
    key = f"{parent}/{name}"
    folder = layout.aggregated_folder_of(name)
    try:
        owner = folder or layout.superseded_aggregate_folder_of(name)
        difference = _difference(target, source, owner) if owner is not None else None
        if difference is not None:
            return MergedFile(key=key, outcome="conflict", reason=difference)
        can_be_remade = parent == AGGREGATED_DIR and folder is not None and target.has_raw(folder)
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    merged = _merge_file(target, source, key)
    if merged.outcome == "conflict" and can_be_remade and _is_ours(source, owner):
        return MergedFile(key=key, outcome="same", reason="it can be made again from the raw results")
    return merged


def _is_ours(repository: FileSystemRepository, folder: str | None) -> bool:
    """True if an aggregate was made by this package; another tool's can't be made again."""
    try:
        aggregated = repository.load_aggregated(folder or "", with_processes=False)
    except ResultsError:
        return False
    return aggregated is not None and aggregated.sources is not None
