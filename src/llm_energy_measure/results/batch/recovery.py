"""Raw results of many experiments: one listing of each folder, and a read a file.

Apart from aggregation, which nobody needs who only reads.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from llm_energy_measure.constants import MANIFEST_NAME, MAX_PROCESSES, RAW_DIR
from llm_energy_measure.domain.experiment import UnreadableFile, process_index_of
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.results.store.layout import is_folder_name, partial_index_of
from llm_energy_measure.results.store.raw_folder import RawRecovery
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_energy_measure.domain.experiment import Manifest, RawProcessResult
    from llm_energy_measure.results.repository import FileSystemRepository


def recover_all(repository: FileSystemRepository) -> Iterator[tuple[str, RawRecovery]]:
    """What the processes of every experiment measured, one experiment at a time, by folder name in order.

    As `recover_raw` of each, several times faster.

    Raises:
        StorageError: A folder can't be looked into.

    Example:
        >>> from llm_energy_measure.results import FileSystemRepository, recover_all
        >>> [name for name, recovery in recover_all(FileSystemRepository("results"))]  # doctest: +ELLIPSIS
        ['smollm2_b1_c0', ...]
    """
    with (
        Folder(repository.store, RAW_DIR) as raw,
        closing(prefetch(raw, filter(is_folder_name, raw.names()), str)) as names,
    ):
        for name in names:
            recovery = recover_from(repository, raw, name)
            if not is_no_experiment(recovery):
                yield name, recovery


def recover_from(repository: FileSystemRepository, raw: Folder, folder: str) -> RawRecovery:
    """What `recover_raw` returns, with one listing of the folder and a read a file.

    Args:
        repository: Where the experiment is stored.
        raw: The folder `raw/`, open.
        folder: The experiment's folder name.
    """
    unreadable: list[UnreadableFile] = []
    manifest: Manifest | None = None
    unfinished: set[int] = set()
    own = repository.raw_folder(folder)

    def is_wanted(name: str) -> bool:
        if process_index_of(name) is not None or name == MANIFEST_NAME:
            return True
        if (index := partial_index_of(name)) is not None:
            unfinished.add(index)
        return False

    def results_of(files: Iterable[tuple[str, bytes | ResultsError]]) -> Iterator[tuple[str, bytes]]:
        nonlocal manifest
        for name, data in files:
            if name == MANIFEST_NAME:
                try:
                    manifest = own.manifest(data if isinstance(data, bytes) else None)
                except ResultsError as error:
                    unreadable.append(UnreadableFile(name=name, reason=error.found))
            elif isinstance(data, bytes):
                yield name, data
            else:
                unreadable.append(UnreadableFile(name=name, reason=data.found))

    results, torn = own.decode_all(results_of(raw.read(folder, is_wanted)))
    unreadable += torn
    if unfinished and unfinished - _processes_of(results, unreadable):
        return own.recover()  # checkpoints of processes that have no result
    unreadable.sort(key=lambda file: MAX_PROCESSES if (index := process_index_of(file.name)) is None else index)
    return RawRecovery(results=results, unreadable=unreadable, manifest=manifest)


def _processes_of(results: Iterable[RawProcessResult], unreadable: Iterable[UnreadableFile]) -> set[int | None]:
    """The processes that have a file, readable or not."""
    return {result.process_index for result in results} | {process_index_of(file.name) for file in unreadable}


def is_no_experiment(recovery: RawRecovery) -> bool:
    """True of a folder in which no file stands where a result should."""
    return not recovery.results and all(process_index_of(file.name) is None for file in recovery.unreadable)
