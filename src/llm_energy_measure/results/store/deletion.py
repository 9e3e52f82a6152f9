"""Delete an experiment: the first step hides the experiment, and the second step removes all its files.

After the first step, no reader finds the experiment, its aggregate or its tags, even if the removal does not finish.
`results check --clean` finishes an interrupted removal.

In a directory, the first step renames the folder. The next use of the id also finishes an interrupted removal. In a
bucket, the first step creates a marker (`bucket_moves`). The id cannot be used again before the removal has finished,
because the objects keep their keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from llm_energy_measure.constants import AGGREGATED_DIR, MANIFEST_NAME, RAW_DIR
from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ResultsError, StorageError
from llm_energy_measure.results.store import bucket_moves, codec, layout
from llm_energy_measure.storage.base import Store, names_with


def delete(store: Store, folder: str, owner: str | None) -> bool:
    """Delete all files of an experiment. Return False if there are none.

    Args:
        store: The store.
        folder: Folder name of the experiment.
        owner: The id of the experiment, whose archived attempts are deleted too. None deletes all attempts that are
            archived under the folder name.
    """
    finish(store, folder)
    if not store.supports_folder_move:
        return _delete_from_bucket(store, folder, owner)
    marker = layout.deleted_folder(folder)
    # If the file system ignores case, `move_folder` alone could move a folder whose name differs in case.
    moved = _has_folder(store, layout.raw_folder(folder)) and store.move_folder(layout.raw_folder(folder), marker)
    if not moved and not _remains(store, folder, owner):
        return False
    if not store.list(marker):
        # There was no folder to rename, so a new marker hides the other files. If the marker can't be created, for
        # example on a full disk, the files are removed without it.
        with contextlib.suppress(StorageError):
            store.create(f"{marker}/{MANIFEST_NAME}", codec.encode_manifest(Manifest(experiment_id=owner or folder)))
    _remove(store, folder, owner)
    return True


def _delete_from_bucket(store: Store, folder: str, owner: str | None) -> bool:
    if not store.list(layout.raw_folder(folder)) and not _remains(store, folder, owner):
        return False
    bucket_moves.hide_deleted(store, folder, owner or folder)
    bucket_moves.remove_deleted(store, folder, _remains(store, folder, owner))
    return True


def require_unused(store: Store, folder: str) -> None:
    """Finish an interrupted deletion, so that the folder name can be used again. In a bucket, raise an error instead.

    Raises:
        ResultExistsError: In a bucket, the deletion of the earlier experiment has not finished.
    """
    if store.supports_folder_move:
        finish(store, folder)
    else:
        bucket_moves.require_unused(store, folder)


def finish(store: Store, folder: str) -> bool:
    """Finish an interrupted deletion; in a bucket, also an interrupted archiving. Return False if there is none."""
    is_archived = not store.supports_folder_move and bucket_moves.finish_archive(store, folder)
    if not _has_marker(store, folder):
        return is_archived
    if not is_deleted(store, folder):  # a new experiment uses the folder name: remove only the deleted raw results
        return store.delete_folder(layout.deleted_folder(folder))
    key = f"{layout.deleted_folder(folder)}/{MANIFEST_NAME}"
    owner = folder
    with contextlib.suppress(ResultsError):
        owner = codec.decode_manifest(store.get(key), key).experiment_id
    if store.supports_folder_move:
        _remove(store, folder, owner)
    else:
        bucket_moves.remove_deleted(store, folder, _remains(store, folder, owner))
    return True


def is_deleted(store: Store, folder: str) -> bool:
    """Return True if an experiment was deleted and the removal of its files has not finished."""
    if not store.supports_folder_move:
        return bucket_moves.is_deleted(store, folder)
    return _has_marker(store, folder) and not store.list(layout.raw_folder(folder))


def deleted_folders(store: Store) -> set[str]:
    """Return the folder names of the deleted experiments whose removal has not finished."""
    entries = store.list_range(RAW_DIR, *names_with("."))
    folders = {layout.deleted_folder_of(entry.name) for entry in entries if entry.is_folder}
    return {folder for folder in folders if folder is not None and is_deleted(store, folder)}


def without_hidden(store: Store, folders: Iterable[str]) -> Iterator[str]:
    """Yield the folder names that no unfinished deletion or archiving hides. A directory has no hidden folders."""
    hidden = bucket_moves.hidden_folders(store)
    return (folder for folder in folders if folder not in hidden)


def _has_marker(store: Store, folder: str) -> bool:
    marker = layout.deleted_folder(folder)
    try:
        return bool(store.list(marker)) and _has_folder(store, marker)
    except ResultsError:
        return False  # a file of another program has this name


def _remains(store: Store, folder: str, owner: str | None) -> list[str]:
    """Return the keys of an experiment other than its raw results; the key of a folder ends with a slash."""
    keys = [key for key in (layout.aggregated_key(folder), layout.tags_key(folder)) if store.find(key) is not None]
    others = (layout.proofs_of(folder), layout.superseded_aggregates_of(folder))
    keys += [
        f"{AGGREGATED_DIR}/{entry.name}"
        for names in others
        for entry in store.list_range(AGGREGATED_DIR, *names)
        if folder in (layout.superseded_aggregate_folder_of(entry.name), layout.proof_folder_of(entry.name))
    ]
    for entry in store.list_range(RAW_DIR, *layout.archives_of(folder)):
        attempt = layout.earlier_attempt_of(entry.name)
        if attempt is not None and attempt[0] == folder:
            key = f"{RAW_DIR}/{entry.name}/{MANIFEST_NAME}"
            with contextlib.suppress(ResultsError):
                # An attempt of another experiment, which used the folder name before, is kept.
                if owner in (None, codec.decode_manifest(store.get(key), key).experiment_id):
                    keys.append(f"{RAW_DIR}/{entry.name}/")
    return keys


def _has_folder(store: Store, key: str) -> bool:
    """Return True if a folder has exactly this name, also on a file system that ignores case."""
    parent, _, name = key.rpartition("/")
    return any(entry.is_folder for entry in store.list_range(parent, name, f"{name}\0"))


def _remove(store: Store, folder: str, owner: str | None) -> None:
    """Remove the files of an experiment; the marker is the last."""
    for key in _remains(store, folder, owner):
        if key.endswith("/"):
            # Another process may have finished this deletion, and a new run may have archived an attempt since. This
            # archive must be kept.
            if not store.list(layout.raw_folder(folder)):
                store.delete_folder(key.removesuffix("/"))
        else:
            store.delete(key)
    store.delete_folder(layout.deleted_folder(folder))
