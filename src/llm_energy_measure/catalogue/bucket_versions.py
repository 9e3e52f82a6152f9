"""Fingerprints of the objects in a bucket, in place of the mtimes of files.

A fingerprint is a digest of names, sizes and ETags, as a number between 0 and 1. The catalogue compares this number as
if it were an old mtime: a row is up to date if the numbers are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from llm_energy_measure.constants import RAW_DIR
from llm_energy_measure.storage.base import Entry, Store


def raw_fingerprints(store: Store) -> dict[str, float]:
    """Return the fingerprint of each folder in `raw/`, from one walk; 0 if an ETag is unknown."""
    folders: dict[str, list[Entry]] = {}
    for entry in store.walk(RAW_DIR):
        folder, _, name = entry.name.partition("/")
        folders.setdefault(folder, []).append(entry._replace(name=name))
    return {folder: fingerprint(entries) for folder, entries in folders.items()}


def fingerprint(entries: Iterable[Entry]) -> float:
    """Return a number between 0 and 1 that changes with each object; 0 if an ETag is unknown."""
    found = [(entry.name, entry.size_bytes, entry.version) for entry in entries]
    if not all(version for _, _, version in found):
        return 0.0
    digest = hashlib.sha256(repr(sorted(found)).encode()).hexdigest()
    return (int(digest[:12], 16) + 1) / 2**49
