"""Fingerprints of the objects in a bucket. The catalogue uses them, because a bucket has no mtimes.

A fingerprint is a digest of names, sizes and ETags, as a number between 0 and 1. The catalogue stores this number as an
mtime. A row is up to date if its numbers equal the current numbers. As mtimes, numbers between 0 and 1 are decades old,
so the catalogue trusts them at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR, TAGS_DIR
from llm_energy_measure.results.store import bucket_moves, layout
from llm_energy_measure.storage.base import Entries, Entry, Store, by_folder
from llm_energy_measure.storage.parallel import at_once


class BucketListing(NamedTuple):
    """The objects in a bucket, from listings that ran at the same time, and the fingerprints of the experiments.

    Attributes:
        folders: The objects in each folder of `raw/`; folders of markers and archives are included.
        aggregates: The objects in `aggregated/`, by name.
        raw: Fingerprint of each folder in `folders`; 0 if an ETag is unknown.
        aggregated: Fingerprints of the aggregates, by folder name.
        tags: Fingerprints of the tags, by folder name.
    """

    folders: dict[str, list[Entry]]
    aggregates: dict[str, Entry]
    raw: dict[str, float]
    aggregated: dict[str, float]
    tags: dict[str, float]


def list_bucket(store: Store, known: Sequence[str]) -> BucketListing:
    """Return the listing of a bucket. `known`: sorted folder names, at which the store may divide the listing."""
    walked, aggregates, tags = at_once(
        store, partial(store.walk, RAW_DIR, known), partial(store.list, AGGREGATED_DIR), partial(store.list, TAGS_DIR)
    )
    return _listing(by_folder(walked), aggregates, tags)


def list_named(store: Store, folders: Sequence[str]) -> BucketListing:
    """List only these experiments. Experiments that a deletion or an archiving hides are left out.

    The markers are read after the objects, so an experiment whose deletion begins in between is hidden too.
    """
    walked = at_once(store, *(partial(store.list, layout.raw_folder(folder)) for folder in folders))
    keys = [key for folder in folders for key in (layout.aggregated_key(folder), layout.tags_key(folder))]
    found = dict(zip(keys, at_once(store, *(partial(store.find, key) for key in keys)), strict=True))
    checks = [check for folder in folders for check in bucket_moves.marker_checks(store, folder)]
    marked = at_once(store, *checks)
    hidden = {folder for number, folder in enumerate(folders) if any(marked[2 * number : 2 * number + 2])}
    listed = {folder: entries for folder, entries in zip(folders, walked, strict=True) if entries}
    aggregates, tags = (
        [entry for folder in folders if folder not in hidden and (entry := found[key_of(folder)]) is not None]
        for key_of in (layout.aggregated_key, layout.tags_key)
    )
    return _listing({folder: listed[folder] for folder in listed.keys() - hidden}, aggregates, tags)


def _listing(folders: dict[str, list[Entry]], aggregates: Entries, tags: Entries) -> BucketListing:
    return BucketListing(
        folders=folders,
        aggregates={entry.name: entry for entry in aggregates},
        raw={folder: fingerprint(entries) for folder, entries in folders.items()},
        aggregated=_fingerprints(aggregates),
        tags=_fingerprints(tags),
    )


def _fingerprints(entries: Entries) -> dict[str, float]:
    return {
        folder: fingerprint([entry])
        for entry in entries
        if not entry.is_folder and (folder := layout.aggregated_folder_of(entry.name)) is not None
    }


def fingerprint(entries: Iterable[Entry]) -> float:
    """Return a number between 0 and 1 that changes if an object changes; 0 if an ETag is unknown."""
    found = [(entry.name, entry.size_bytes, entry.version) for entry in entries]
    if not all(version for _, _, version in found):
        return 0.0
    digest = hashlib.sha256(repr(sorted(found)).encode()).hexdigest()
    return (int(digest[:12], 16) + 1) / 2**49
