"""Synchronise two places of results: copy each file that exists in only one place to the other place.

No result is replaced or deleted. A checkpoint is replaced by a newer one, and deleted if its process has a result. Each
experiment is merged in both directions, as by `merge`. An experiment is skipped if the listings of both places (names,
sizes, and mtimes or ETags) have not changed since its last merge. If only one place has a later attempt, the earlier
attempt is archived in the other place.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, MutableMapping

from msgspec import Struct

from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR, TAGS_DIR
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.exceptions import ResultNotFoundError, ResultsError
from llm_energy_measure.results.batch.merge import MergedFile, merge_experiment
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import attempts, bucket_moves, codec, layout
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.group_commit import map_in_threads


class SyncedExperiment(Struct, frozen=True, kw_only=True):
    """The outcome for one experiment.

    Attributes:
        folder: Folder name of the experiment.
        uploaded: The outcome of each local file in the merge into the other place.
        downloaded: The outcome of each file of the other place in the merge into the local place.
    """

    folder: str
    uploaded: list[MergedFile]
    downloaded: list[MergedFile]

    @property
    def problems(self) -> list[MergedFile]:
        """The conflicts and the failures in both directions, each once."""
        found = {one.key: one for one in (*self.uploaded, *self.downloaded) if one.outcome in ("conflict", "failed")}
        return [*found.values()]


def changed_experiments(
    local: FileSystemRepository, remote: FileSystemRepository, state: MutableMapping[str, str]
) -> dict[str, set[str]]:
    """Return the keys of each experiment whose listings differ from the fingerprint in `state`, by folder name."""
    inventories = [_inventory(repository) for repository in (local, remote)]
    fingerprints = _fingerprints(inventories)
    return {
        folder: set().union(*(inventory.get(folder, {}) for inventory in inventories))
        for folder in sorted(fingerprints)
        if state.get(folder) != fingerprints[folder]
    }


def sync_results(
    local: FileSystemRepository, remote: FileSystemRepository, state: MutableMapping[str, str] | None = None
) -> Iterator[SyncedExperiment]:
    """Copy missing files in both directions, and yield the outcome of each experiment whose listings have changed.

    An interrupted call can be repeated. Several hosts may sync with one place at the same time.

    Args:
        local: The results directory of this machine.
        remote: The other place, usually a bucket.
        state: Fingerprints of the listings after the last call, by folder name. The call updates `state` at its end.
    """
    state = {} if state is None else state
    changed = changed_experiments(local, remote, state)

    def sync(store: Store, folder: str) -> SyncedExperiment:
        other = FileSystemRepository(remote.base_path, store=store)
        return _sync_experiment(local, other, folder, changed[folder])

    failed = set()
    for synced in map_in_threads(remote.store, sync, changed, str.lower):
        if synced.problems:
            failed.add(synced.folder)
        yield synced
    if changed:
        after = _fingerprints([_inventory(repository) for repository in (local, remote)])
        state.clear()
        state.update({folder: found for folder, found in after.items() if folder not in failed})


def upload_results(local: FileSystemRepository, remote: FileSystemRepository) -> Iterator[SyncedExperiment]:
    """Copy missing files to the other place, download nothing, and yield the outcome of each experiment.

    In the local directory, an attempt is archived if the other place has a later one, and obsolete checkpoints are
    deleted.
    """
    for folder, keys in sorted(_inventory(local).items()):
        yield _sync_experiment(local, remote, folder, set(keys), downloads=False)


def _inventory(repository: FileSystemRepository) -> dict[str, dict[str, str]]:
    """Return a text with size and version (or mtime) of each file, by folder name of the experiment and by key."""
    store = repository.store
    hidden = bucket_moves.hidden_folders(store)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for parent in (RAW_DIR, AGGREGATED_DIR, TAGS_DIR):
        for entry in store.walk(parent):
            folder = _folder_of(parent, entry.name)
            if folder is not None and folder not in hidden:
                version = entry.version or repr(entry.mtime_sec)
                found[folder][f"{parent}/{entry.name}"] = f"{entry.size_bytes} {version}"
    return found


def _folder_of(parent: str, name: str) -> str | None:
    """Return the folder name of the experiment of a key; None for a key of another program."""
    if parent == RAW_DIR:
        folder, _, rest = name.partition("/")
        attempt = layout.earlier_attempt_of(folder)
        is_kept = layout.is_kept_in_raw(rest)
        return (attempt[0] if attempt else folder if layout.is_folder_name(folder) else None) if is_kept else None
    return layout.aggregated_folder_of(name) or layout.superseded_aggregate_folder_of(name)


def _fingerprints(inventories: Iterable[dict[str, dict[str, str]]]) -> dict[str, str]:
    lines: dict[str, list[str]] = defaultdict(list)
    for number, inventory in enumerate(inventories):
        for folder, keys in inventory.items():
            lines[folder] += [f"{number} {key} {text}" for key, text in sorted(keys.items())]
    return {folder: hashlib.sha256("\n".join(found).encode()).hexdigest()[:32] for folder, found in lines.items()}


def _sync_experiment(
    local: FileSystemRepository, remote: FileSystemRepository, folder: str, keys: set[str], *, downloads: bool = True
) -> SyncedExperiment:
    try:
        has_archived = [_begin_later_attempt(*pair, folder) for pair in ((remote, local), (local, remote))]
    except ResultsError as error:
        failed = MergedFile(key=f"{RAW_DIR}/{folder}", outcome="failed", reason=str(error))
        return SyncedExperiment(folder=folder, uploaded=[failed], downloaded=[])
    derived = sorted(key for key in keys if not key.startswith(f"{RAW_DIR}/"))
    if any(has_archived):
        keys = keys | _archived_keys(local.store, folder) | _archived_keys(remote.store, folder)
    archived = sorted(key for key in keys if layout.earlier_attempt_of(layout.folder_of_key(key)))
    indices = {layout.partial_index_of(key.rpartition("/")[2]) for key in keys if key.startswith(f"{RAW_DIR}/")}
    sides: list[list[MergedFile]] = []
    for target, source in ((remote, local), (local, remote))[: 1 + downloads]:
        found: list[MergedFile] = []
        try:
            found += [merged for key in archived if (merged := _copy(target.store, source.store, key)) is not None]
            for index in sorted(index for index in indices if index is not None):
                _sync_checkpoint(target, source, folder, index)
            found += merge_experiment(target, source, folder, derived)
        except ResultsError as error:
            found.append(MergedFile(key=f"{RAW_DIR}/{folder}", outcome="failed", reason=str(error)))
        sides.append(found)
    return SyncedExperiment(folder=folder, uploaded=sides[0], downloaded=sides[1] if downloads else [])


def _archived_keys(store: Store, folder: str) -> set[str]:
    """Return the keys of all archived attempts of an experiment."""
    prefixes = [layout.earlier_attempt_folder(folder, attempt) for attempt in attempts.archived_attempts(store, folder)]
    return {f"{prefix}/{entry.name}" for prefix in prefixes for entry in store.walk(prefix)}


def _copy(target: Store, source: Store, key: str) -> MergedFile | None:
    """Copy a value of an archived attempt, and return the outcome; None if the source does not have the value."""
    try:
        data = source.get(key)
        if target.create(key, data):
            return MergedFile(key=key, outcome="copied")
        if target.get(key) == data:
            return MergedFile(key=key, outcome="same")
    except ResultNotFoundError:
        return None
    except ResultsError as error:
        return MergedFile(key=key, outcome="failed", reason=str(error))
    return MergedFile(key=key, outcome="conflict", reason="the archived attempt has different content")


def _begin_later_attempt(target: FileSystemRepository, source: FileSystemRepository, folder: str) -> bool:
    """Archive the results in the target and return True if the source has a later attempt of the same experiment."""
    own, other = (repository.raw_folder(folder).readable_manifest() for repository in (target, source))
    if own is None or other is None or own.experiment_id != other.experiment_id:
        return False  # the merge reports different ids
    if own.attempt >= other.attempt:
        return False
    attempts.begin_experiment(target.store, other)
    return True


def _sync_checkpoint(
    target: FileSystemRepository, source: FileSystemRepository, folder: str, process_index: int
) -> None:
    """Delete the checkpoint of a process that has a result. Otherwise, replace an older checkpoint in the target."""
    key = layout.partial_key(folder, process_index)
    for repository in (target, source):
        if isinstance(repository.raw_folder(folder).read(process_index), RawProcessResult):
            target.store.delete(key)
            source.store.delete(key)
            return
    newer, older = (repository.raw_folder(folder).read(process_index, partial=True) for repository in (source, target))
    if isinstance(newer, RawProcessResult) and isinstance(older, RawProcessResult):
        ran_sec = [record.timestamps.duration_sec or 0.0 for record in (newer, older)]
        if newer.timestamps.start == older.timestamps.start and ran_sec[0] > ran_sec[1]:
            target.store.put(key, codec.encode_raw(newer))
