"""Deleting an experiment: one rename that takes its raw results out of sight, then removal.

From the rename on it is gone for every reader, its aggregate and tags included, whether or not the removal comes to its
end. What is left over is removed by a sweep, or by whoever uses the id next.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from llm_energy_measure.constants import AGGREGATED_DIR, MANIFEST_NAME, RAW_DIR
from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ResultsError, StorageError
from llm_energy_measure.results.store import codec, layout

if TYPE_CHECKING:
    from llm_energy_measure.storage.base import Store


def delete(store: Store, folder: str, owner: str | None) -> bool:
    """Delete everything of an experiment; False if there was nothing.

    Args:
        store: The store.
        folder: Its folder name.
        owner: The id whose earlier attempts go with it; None for whoever had the folder's name.
    """
    finish(store, folder)
    marker = layout.deleted_folder(folder)
    moved = store.move_folder(layout.raw_folder(folder), marker)
    if not moved and not _remains(store, folder, owner):
        return False
    if not store.list(marker):
        # Nothing was there to rename: the marker alone says that it is gone. A full disk does without.
        with contextlib.suppress(StorageError):
            store.create(f"{marker}/{MANIFEST_NAME}", codec.encode_manifest(Manifest(experiment_id=owner or folder)))
    _remove(store, folder, owner)
    return True


def finish(store: Store, folder: str) -> bool:
    """Remove what an interrupted deletion of an experiment left; False if there is nothing of the kind."""
    if not _has_marker(store, folder):
        return False
    if not is_deleted(store, folder):  # its name was used again since: only what was set apart goes
        return store.delete_folder(layout.deleted_folder(folder))
    key = f"{layout.deleted_folder(folder)}/{MANIFEST_NAME}"
    owner = folder
    with contextlib.suppress(ResultsError):
        owner = codec.decode_manifest(store.get(key), key).experiment_id
    _remove(store, folder, owner)
    return True


def is_deleted(store: Store, folder: str) -> bool:
    """True if an experiment was deleted, whatever is left of it."""
    return _has_marker(store, folder) and not store.list(layout.raw_folder(folder))


def deleted_folders(store: Store) -> set[str]:
    """Folder names of the experiments that were deleted, and of which something is left."""
    folders = {layout.deleted_folder_of(entry.name) for entry in store.list(RAW_DIR) if entry.is_folder}
    return {folder for folder in folders if folder is not None and is_deleted(store, folder)}


def _has_marker(store: Store, folder: str) -> bool:
    try:
        return bool(store.list(layout.deleted_folder(folder)))
    except ResultsError:
        return False  # a stranger has the name


def _remains(store: Store, folder: str, owner: str | None) -> list[str]:
    """Keys of what belongs to an experiment besides its raw results, folders with a slash at their end."""
    keys = [key for key in (layout.aggregated_key(folder), layout.tags_key(folder)) if _has(store, key)]
    keys += [
        f"{AGGREGATED_DIR}/{entry.name}"
        for entry in store.list(AGGREGATED_DIR)
        if layout.is_superseded_aggregate_of(entry.name, folder)
    ]
    for entry in store.list(RAW_DIR):
        attempt = layout.earlier_attempt_of(entry.name)
        if attempt is not None and attempt[0] == folder:
            key = f"{RAW_DIR}/{entry.name}/{MANIFEST_NAME}"
            with contextlib.suppress(ResultsError):
                # Another experiment may have had the folder's name before.
                if owner in (None, codec.decode_manifest(store.get(key), key).experiment_id):
                    keys.append(f"{RAW_DIR}/{entry.name}/")
    return keys


def _has(store: Store, key: str) -> bool:
    parent, _, name = key.rpartition("/")
    return any(entry.name == name for entry in store.list(parent))


def _remove(store: Store, folder: str, owner: str | None) -> None:
    """Remove what belongs to it, and last the marker that says so."""
    for key in _remains(store, folder, owner):
        if key.endswith("/"):
            # Somebody else may have finished this deletion, and be at a later attempt of a new run by now.
            if not store.list(layout.raw_folder(folder)):
                store.delete_folder(key.removesuffix("/"))
        else:
            store.delete(key)
    store.delete_folder(layout.deleted_folder(folder))
