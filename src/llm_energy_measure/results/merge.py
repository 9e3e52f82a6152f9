"""Bring results directories together: of several hosts, or of several people.

Bytes are copied as they are. Nothing that is there is replaced: the same content again is skipped, so that a merge that
was interrupted is simply run again; different content under one name is a conflict, which is told and left to a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR, TAGS_DIR
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.results import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.results.repository import FileSystemRepository


class MergedFile(Struct, frozen=True, kw_only=True):
    """What became of one file of the other directory.

    Attributes:
        key: Where it lies, there and here.
        outcome: `copied`, `same` (it was here already), `conflict` (other content is here) or `failed`.
        reason: Why it is a conflict or failed.
    """

    key: str
    outcome: Literal["copied", "same", "conflict", "failed"]
    reason: str | None = None


def merge_results(target: FileSystemRepository, source: FileSystemRepository) -> Iterator[MergedFile]:
    """Copy what another results directory holds into this one, experiment by experiment.

    Raw results, manifests, what was kept beside them (rejected, superseded, partial), aggregates and tags are copied;
    unfinished files, and files that are none of ours, are not. An experiment whose id differs from the one that has the
    folder here is a conflict as a whole.

    Args:
        target: Where to.
        source: Where from; it is not changed.
    """
    for entry in source.store.list(RAW_DIR):
        if entry.is_folder and layout.is_folder_name(entry.name):
            yield from _merge_experiment(target, source, entry.name)
    for folder in (AGGREGATED_DIR, TAGS_DIR):
        for entry in source.store.list(folder):
            is_ours = layout.aggregated_folder_of(entry.name) or layout.is_superseded_aggregate(entry.name)
            if is_ours and not entry.is_folder:
                yield _merge_derived(target, source, f"{folder}/{entry.name}")


def _merge_experiment(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> Iterator[MergedFile]:
    prefix = layout.raw_folder(folder)
    try:
        here, there = target.raw_folder(folder).holder(), source.raw_folder(folder).holder()
        names = [entry.name for entry in source.store.list(prefix) if not entry.is_folder]
    except ResultsError as error:
        yield MergedFile(key=prefix, outcome="failed", reason=str(error))
        return
    if here is not None and there is not None and here != there:
        reason = f"it belongs to {here!r} here and to {there!r} there"
        yield MergedFile(key=prefix, outcome="conflict", reason=reason)
        return
    for name in names:
        if layout.is_kept_in_raw(name):
            yield _merge_file(target, source, f"{prefix}/{name}")


def _merge_file(target: FileSystemRepository, source: FileSystemRepository, key: str) -> MergedFile:
    try:
        data = source.store.get(key)
        if target.store.create(key, data):
            return MergedFile(key=key, outcome="copied")
        if target.store.get(key) == data:
            return MergedFile(key=key, outcome="same")
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    return MergedFile(key=key, outcome="conflict", reason="other content is here under this name")


def _merge_derived(target: FileSystemRepository, source: FileSystemRepository, key: str) -> MergedFile:
    """An aggregate that differs is no conflict where it can be made again from raw results that are here."""
    merged = _merge_file(target, source, key)
    folder = layout.aggregated_folder_of(key.rpartition("/")[2])
    can_be_remade = key.startswith(AGGREGATED_DIR) and folder is not None and target.has_raw(folder)
    if merged.outcome == "conflict" and can_be_remade:
        return MergedFile(key=key, outcome="same", reason="it can be made again from the raw results")
    return merged
