"""Delete an experiment, or archive an attempt, in a bucket, where no folder can be renamed.

A marker is created first. While the marker exists, no reader shows the experiment, and no process can save to it. Then
each object is deleted, or copied to the archive and deleted. The marker is deleted last.

`results check --clean` finishes an interrupted deletion or archiving. An interrupted archiving is also finished by the
next process that needs the folder. Several processes may finish the same change. Each process checks the marker before
it deletes an object, because without a marker the objects are those of a new run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from llm_energy_measure.constants import MANIFEST_NAME, RAW_DIR
from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ResultCorruptError, ResultExistsError, ResultNotFoundError
from llm_energy_measure.results.store import codec, layout
from llm_energy_measure.storage.base import Store, names_with

_PATIENCE_SEC = 30.0
_POLL_SEC = 0.1


def hidden_folders(store: Store, names: Iterable[str] | None = None) -> set[str]:
    """Return the folder names whose deletion or archiving has not finished.

    Some servers list a folder for some seconds after its last object was deleted, so the marker of each listed folder
    is read.

    Args:
        store: The store.
        names: The names of the entries of `raw/`, if the caller has just listed them. By default, the names that start
            with a dot are listed.
    """
    if store.supports_folder_move:
        return set()
    if names is None:
        names = (entry.name for entry in store.list_range(RAW_DIR, *names_with(".")))
    found = {layout.hidden_folder_of(name) for name in names}
    return {folder for folder in found if folder is not None and is_hidden(store, folder)}


def is_hidden(store: Store, folder: str) -> bool:
    """Return True if the deletion or the archiving of a folder has not finished."""
    return any(check() for check in marker_checks(store, folder))


def marker_checks(store: Store, folder: str) -> tuple[Callable[[], bool], Callable[[], bool]]:
    """Return two functions: one finds the marker of a deletion, and one of an archiving. A call sends one request."""
    return partial(is_deleted, store, folder), lambda: _archived_manifest(store, folder) is not None


def is_deleted(store: Store, folder: str) -> bool:
    """Return True if the deletion of an experiment has not finished."""
    return bool(store.list(layout.deleted_folder(folder)))


def hide_deleted(store: Store, folder: str, owner: str) -> None:
    """Create the marker of a deletion."""
    marker = f"{layout.deleted_folder(folder)}/{MANIFEST_NAME}"
    store.create(marker, codec.encode_manifest(Manifest(experiment_id=owner)))


def remove_deleted(store: Store, folder: str, others: list[str]) -> None:
    """Delete the objects of a deleted experiment; the marker is the last.

    Args:
        store: The store.
        folder: Folder name of the experiment.
        others: Keys of all other files of the experiment, such as aggregates and tags, and of its archived attempts.
            The key of a folder ends with a slash.
    """
    store.delete(layout.manifest_key(folder))  # a process that saves a result now finds no manifest, and stops
    for key in others:
        if is_deleted(store, folder):
            (store.delete_folder if key.endswith("/") else store.delete)(key.removesuffix("/"))
    while is_deleted(store, folder) and store.delete_folder(layout.raw_folder(folder)):
        continue  # a process saved a result before it noticed the marker
    store.delete_folder(layout.deleted_folder(folder))


def archive(store: Store, folder: str, manifest: Manifest) -> None:
    """Move the results of an attempt to its archive, or wait until another process has moved them.

    Raises:
        ResultExistsError: The archive has other results.
    """
    if store.create(f"{layout.archiving_folder(folder)}/{MANIFEST_NAME}", codec.encode_manifest(manifest)):
        finish_archive(store, folder)
    else:
        wait_for_archive(store, folder)


def wait_for_archive(
    store: Store,
    folder: str,
    *,
    patience_sec: float = _PATIENCE_SEC,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until another process has archived a folder. After `patience_sec`, finish the archiving in this process."""
    end = clock() + patience_sec
    while _archived_manifest(store, folder) is not None:
        if clock() >= end:
            finish_archive(store, folder)
            return
        sleep(_POLL_SEC)


def finish_archive(store: Store, folder: str) -> bool:
    """Finish the archiving of an attempt. Return False if no archiving has begun, or if it has finished.

    Raises:
        ResultExistsError: The archive has other results. The results stay where they are.
    """
    manifest = _archived_manifest(store, folder)
    if manifest is None:
        return False
    source, target = layout.raw_folder(folder), layout.earlier_attempt_folder(folder, manifest.attempt)
    marker = layout.archiving_folder(folder)
    if _is_at_later_attempt(store, folder, manifest.attempt):
        # The marker is obsolete: its writer read the manifest before another process archived the attempt.
        store.delete_folder(marker)
        return False
    try:
        _copy_all(store, source, target, manifest.attempt)
        if _is_archiving(store, folder, manifest):
            store.delete(layout.manifest_key(folder))  # a process that saves a result now finds no manifest, and stops
        # The next listing contains each result that was saved before the manifest was deleted. The process of such a
        # result got no error, so the result must be archived too.
        while _is_archiving(store, folder, manifest) and (keys := _copy_all(store, source, target, manifest.attempt)):
            for key in keys:
                if _is_archiving(store, folder, manifest):
                    store.delete(key)
    except ResultExistsError:
        if not _is_archiving(store, folder, manifest):
            return False  # another process has finished the archiving, and the folder has a later attempt
        store.delete_folder(marker)
        raise
    if _archived_manifest(store, folder) == manifest:
        store.delete_folder(marker)
    return True


def _is_archiving(store: Store, folder: str, manifest: Manifest) -> bool:
    """Return True while the archiving of this attempt has not finished."""
    is_marked = _archived_manifest(store, folder) == manifest
    return is_marked and not _is_at_later_attempt(store, folder, manifest.attempt)


def _is_at_later_attempt(store: Store, folder: str, attempt: int) -> bool:
    """Return True if the folder has the manifest of a later attempt. The later results must not be archived."""
    key = layout.manifest_key(folder)
    try:
        return codec.decode_manifest(store.get(key), key).attempt > attempt
    except (ResultNotFoundError, ResultCorruptError):
        return False


def require_unused(store: Store, folder: str) -> None:
    """Wait until an archiving of the folder has finished, so that a new run can use the folder name.

    Raises:
        ResultExistsError: The deletion of the earlier experiment has not finished.
    """
    wait_for_archive(store, folder)
    if is_deleted(store, folder):
        place = str(store.path(RAW_DIR)).removesuffix(f"/{RAW_DIR}")
        doing, found = f"cannot use the experiment id {folder!r}", "its deletion has not finished"
        raise ResultExistsError(doing, found, f"run 'llm-energy-measure -o {place} results check --clean'")


def _archived_manifest(store: Store, folder: str) -> Manifest | None:
    """Return the manifest of the attempt that is being archived; None if there is none."""
    key = f"{layout.archiving_folder(folder)}/{MANIFEST_NAME}"
    try:
        return codec.decode_manifest(store.get(key), key)
    except ResultNotFoundError:
        return None


def _copy_all(store: Store, source: str, target: str, attempt: int) -> list[str]:
    """Copy the objects of a folder, except results of another attempt, and return their keys.

    Raises:
        ResultExistsError: The target has different content under a name.
    """
    copied = []
    for entry in store.walk(source):
        key, new_key = f"{source}/{entry.name}", f"{target}/{entry.name}"
        try:
            data = store.get(key)
        except ResultNotFoundError:
            continue  # another process has moved this object
        if _attempt_of(data, key) not in (None, attempt):
            continue
        if not store.create(new_key, data) and store.get(new_key) != data:
            found = f"other results of this attempt are in {store.path(target)}"
            raise ResultExistsError(f"cannot archive {store.path(source)}", found, "move these objects away")
        copied.append(key)
    return copied


def _attempt_of(data: bytes, key: str) -> int | None:
    """Return the attempt number in a raw result; None if there is none, or if the bytes are no readable result."""
    try:
        launcher = codec.decode_raw(data, key).launcher
    except ResultCorruptError:
        return None
    return None if launcher is None else launcher.attempt
