"""Deleting an experiment: one rename that takes its raw results out of sight, then removal.

From the rename on it is gone for every reader, its aggregate and tags included, whether or not the removal comes to its
end. What is left over is removed by a sweep, or by whoever uses the id next.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from llm_energy_measure.constants import AGGREGATED_DIR, MANIFEST_NAME, RAW_DIR
from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.results import codec, layout

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
    if not store.move_folder(layout.raw_folder(folder), marker):
        if not _remains(store, folder, owner):
            return False
        # Without raw results there is nothing to rename: the marker alone says that it is gone.
        store.create(f"{marker}/{MANIFEST_NAME}", codec.encode_manifest(Manifest(experiment_id=owner or folder)))
    _remove(store, folder, owner)
    return True


def finish(store: Store, folder: str) -> bool:
    """Remove what an interrupted deletion of an experiment left; False if there is nothing of the kind."""
    if not store.list(layout.deleted_folder(folder)):
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
    return bool(store.list(layout.deleted_folder(folder))) and not store.list(layout.raw_folder(folder))


def deleted_folders(store: Store) -> set[str]:
    """Folder names of the experiments that were deleted, and of which something is left."""
    names = {entry.name for entry in store.list(RAW_DIR)}
    folders = {layout.deleted_folder_of(name) for name in names}
    return {folder for folder in folders if folder is not None and folder not in names}


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
            store.delete_folder(key.removesuffix("/"))
        else:
            store.delete(key)
    store.delete_folder(layout.deleted_folder(folder))
