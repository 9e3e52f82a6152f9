"""Fingerprints of the objects in a bucket. The catalogue uses them, because a bucket has no mtimes.

A fingerprint is a digest of names, sizes and ETags, as a number between 0 and 1. The catalogue stores this number as an
mtime. A row is up to date if the numbers are equal. Like an old mtime, the number is trusted at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR, TAGS_DIR
from llm_energy_measure.results.store import layout
from llm_energy_measure.storage.base import Entries, Entry, Store
from llm_energy_measure.storage.parallel import at_once


class BucketListing(NamedTuple):
    """All objects in a bucket, from listings that ran at the same time, and the fingerprints of the experiments.

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
    """Return the listing of a bucket. `known`: sorted folder names of an earlier listing, for parallel requests."""
    walked, aggregates, tags = at_once(
        store, partial(store.walk, RAW_DIR, known), partial(store.list, AGGREGATED_DIR), partial(store.list, TAGS_DIR)
    )
    folders: dict[str, list[Entry]] = {}
    for entry in walked:
        folder, slash, name = entry.name.partition("/")
        if slash:
            folders.setdefault(folder, []).append(entry._replace(name=name))
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
