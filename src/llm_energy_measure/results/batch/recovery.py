"""Read the raw results of many experiments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from operator import attrgetter

from llm_energy_measure.constants import MANIFEST_NAME, MAX_PROCESSES, RAW_DIR
from llm_energy_measure.domain.experiment import Manifest, RawProcessResult, UnreadableFile, process_index_of
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.checkpoints import delete_checkpoint, delete_leftovers
from llm_energy_measure.results.store.deletion import without_hidden
from llm_energy_measure.results.store.layout import is_folder_name, partial_index_of, unpublished_index_of
from llm_energy_measure.results.store.raw_folder import RawRecovery
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.prefetch import prefetch


def recover_all(repository: FileSystemRepository) -> Iterator[tuple[str, RawRecovery]]:
    """Yield the folder name and the recovered raw results of each experiment, sorted by folder name.

    The results are those of `FileSystemRepository.recover_raw`.

    Raises:
        StorageError: A folder can't be read.

    Example:
        >>> from llm_energy_measure.results import FileSystemRepository, recover_all
        >>> [name for name, recovery in recover_all(FileSystemRepository("results"))]  # doctest: +ELLIPSIS
        ['smollm2_b1_c0', ...]
    """
    with (
        Folder(repository.store, RAW_DIR) as raw,
        closing(prefetch(raw, without_hidden(repository.store, filter(is_folder_name, raw.names())), str)) as names,
    ):
        for name in names:
            recovery = recover_from(repository, raw, name)
            if not is_no_experiment(recovery):
                yield name, recovery


def recover_from(repository: FileSystemRepository, raw: Folder, folder: str) -> RawRecovery:
    """Return what `recover_raw` returns for a folder, with one listing and one read per file."""
    # For 1,000 experiments of 8 processes, `aggregate_all` takes 1.20 s with this function, and 1.49 s with
    # `recover_raw` (19 % less; 16 % less processor time). These are the fastest of 25 runs, with files in the cache.
    results: list[RawProcessResult] = []
    unreadable: list[UnreadableFile] = []
    manifest: Manifest | None = None
    unfinished: set[int] = set()
    names: set[str] = set()
    own = repository.raw_folder(folder)

    def is_wanted(name: str) -> bool:
        names.add(name)
        if (index := partial_index_of(name)) is not None or (index := unpublished_index_of(name)) is not None:
            unfinished.add(index)
        return process_index_of(name) is not None or name == MANIFEST_NAME

    for name, data in raw.read(folder, is_wanted):
        names.discard(name)
        if name == MANIFEST_NAME:
            try:
                manifest = own.manifest(data if isinstance(data, bytes) else None)
            except ResultsError as error:
                unreadable.append(UnreadableFile(name=name, reason=error.found))
        elif not isinstance(data, bytes):
            unreadable.append(UnreadableFile(name=name, reason=data.found))
        elif isinstance(outcome := own.decode(name, process_index_of(name), data), UnreadableFile):
            unreadable.append(outcome)
        else:
            results.append(outcome)
    if MANIFEST_NAME in names:  # listed but not read: a folder has this name
        return own.recover()
    results.sort(key=attrgetter("process_index"))
    indices = {process_index_of(file.name) for file in unreadable}
    if unfinished - indices - {result.process_index for result in results}:
        return own.recover()  # reads the checkpoints and the temporary files of processes that have no result
    unreadable.sort(key=lambda file: MAX_PROCESSES if (index := process_index_of(file.name)) is None else index)
    return RawRecovery(results=results, unreadable=unreadable, manifest=manifest)


def is_no_experiment(recovery: RawRecovery) -> bool:
    """Return True if a folder has no result file, readable or not."""
    return not recovery.results and all(process_index_of(file.name) is None for file in recovery.unreadable)


def publish(repository: FileSystemRepository, folder: str, recovery: RawRecovery) -> RawRecovery:
    """Save the results in `recovery.unpublished`, and return a recovery that has them in `results`."""
    for record in recovery.unpublished:
        repository.save_raw(record.experiment_id, record)
        delete_checkpoint(repository.store, record.experiment_id, record.process_index)
        delete_leftovers(repository.store, record.experiment_id, record.process_index)
    return repository.raw_folder(folder).recover() if recovery.unpublished else recovery
