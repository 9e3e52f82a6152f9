"""Save and remove checkpoints: the measurements of a running process so far, in `partial-process_<i>.json`."""

from __future__ import annotations

from pathlib import Path

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.results.store import codec, layout
from llm_energy_measure.results.store.attempts import claim_for
from llm_energy_measure.results.store.raw_folder import bytes_of, keep_copy
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.temporary import target_name, writer_has_ended


def save_checkpoint(store: Store, experiment_id: str, record: RawProcessResult) -> Path:
    """Store a checkpoint of a process, replace an older checkpoint of the process, and return the path.

    Raises:
        InvalidResultError: A value is not valid.
        ResultExistsError: A later attempt of the experiment has begun.
    """
    folder, record = layout.folder_in(store, experiment_id), codec.require_valid_raw(record)
    claim_for(store, folder, record)
    key = layout.partial_key(folder, record.process_index)
    store.put(key, codec.encode_raw(record))
    return store.path(key)


def keep_partial(store: Store, folder: str, record: RawProcessResult) -> Path:
    """Store a partial record of a process, and return the path. A different older checkpoint is archived first."""
    key, data = layout.partial_key(folder, record.process_index), codec.encode_raw(record)
    if not store.create(key, data) and bytes_of(store, key) != data:
        archive_checkpoint(store, folder, record.process_index)
        store.put(key, data)
    return store.path(key)


def archive_checkpoint(store: Store, experiment_id: str, process_index: int) -> None:
    """Rename the checkpoint of a process that starts again to `superseded-process_<i>-<n>.json.kept`."""
    folder = layout.folder_in(store, experiment_id)
    key = layout.partial_key(folder, process_index)
    if bytes_of(store, key) is not None:
        keep_copy(store, key, lambda number: layout.superseded_raw_key(folder, process_index, number))
        store.delete(key)


def delete_leftovers(store: Store, experiment_id: str, process_index: int) -> None:
    """Delete the temporary files that ended writers have left for a process that now has a result."""
    folder = layout.folder_in(store, experiment_id)
    own = {layout.process_file(process_index), layout.partial_key(folder, process_index).rpartition("/")[2]}
    for entry in store.list(layout.raw_folder(folder)):
        if target_name(entry.name) in own and writer_has_ended(entry.name, entry.mtime_sec):
            store.delete(f"{layout.raw_folder(folder)}/{entry.name}")


def delete_checkpoint(store: Store, experiment_id: str, process_index: int) -> bool:
    """Delete the checkpoint of a process that has a result; return False if there was none."""
    return store.delete(layout.partial_key(layout.folder_in(store, experiment_id), process_index))
