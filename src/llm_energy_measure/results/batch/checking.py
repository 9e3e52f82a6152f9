"""What is amiss in a results directory: torn, empty, rejected, left over, misnamed, in conflict, stale.

A check returns findings and changes nothing. `sweep` removes what is provably left over, and nothing else: an
unfinished file whose writer is known to be gone, and which holds nothing that isn't stored under its own name.

One walk over the directory and the table of its codes: that is why the module is long.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from llm_energy_measure.constants import AGGREGATED_DIR, MANIFEST_NAME, RAW_DIR, TAGS_DIR
from llm_energy_measure.domain.experiment import UnreadableFile, process_index_of
from llm_energy_measure.exceptions import ResultCorruptError, ResultNotFoundError, ResultsError, UnsafePathError
from llm_energy_measure.results.batch.salvage import is_salvaged, whole_sections
from llm_energy_measure.results.batch.state import inspect_experiment
from llm_energy_measure.results.store import codec, deletion, layout
from llm_energy_measure.storage.atomic import target_name, writer_has_ended, writer_is_remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_energy_measure.results.repository import FileSystemRepository
    from llm_energy_measure.storage.base import Entry

CODES = {
    "raw.empty": "a result file without content: its writer was killed, or the disk was full",
    "raw.torn": "a result file that is cut off, or is not JSON",
    "raw.invalid": "a result file whose JSON is not a record that this version can read",
    "raw.unreadable": "a result file that the file system cannot read",
    "raw.not_a_file": "a link, a pipe, a device or a folder in place of a result file",
    "raw.other_experiment": "a result of another experiment",
    "raw.other_process": "a result whose process index differs from the one in its file name",
    "raw.misnamed": "a file whose name is similar to the name of a result file",
    "raw.rejected": "a record that was rejected when it was saved",
    "raw.superseded": "a result that an overwrite replaced",
    "raw.earlier_attempt": "the archived results of an earlier attempt",
    "raw.partial": "a checkpoint of a process that did not finish",
    "raw.unpublished": "an unfinished file that may hold the only copy of a result",
    "raw.id_conflict": "results of two experiments in one folder",
    "manifest.unreadable": "a manifest that can't be read",
    "manifest.other_experiment": "a manifest of another experiment",
    "experiment.misnamed": "a folder whose name no experiment id can have",
    "aggregate.stale": "an aggregate whose raw files were added, changed or removed after the aggregation",
    "aggregate.unreadable": "an aggregate that can't be read",
    "aggregate.misnamed": "an aggregate whose file name no experiment id can have",
    "folder.unreadable": "a folder of the results directory that can't be read",
    "aggregate.superseded": "an aggregate that was replaced by an aggregate of this tool",
    "leftover.file": "an unfinished file whose writer has ended",
    "leftover.folder": "the rest of a deleted experiment",
    "leftover.in_use": "an unfinished file or folder that a process may still write",
}
"""Every code that a finding can have, and what it means."""

_NEEDS_NOBODY = frozenset(
    {
        *("raw.superseded", "raw.earlier_attempt", "raw.partial", "aggregate.stale", "aggregate.superseded"),
        *("leftover.file", "leftover.folder", "leftover.in_use"),
    }
)
_SWEEPABLE = frozenset({"leftover.file", "leftover.folder"})


class StoreFinding(Struct, frozen=True, kw_only=True):
    """One thing that is amiss.

    Attributes:
        code: One of `CODES`.
        key: Where, relative to the results directory.
        message: What was found, a sentence.
        advice: What to do.
        needs_person: Whether somebody has to decide; the exit status tells.
        sweepable: Whether `sweep` removes it.
    """

    code: str
    key: str
    message: str
    advice: str
    needs_person: bool
    sweepable: bool


def check_store(
    repository: FileSystemRepository, experiment_ids: Iterable[str] | None = None
) -> Iterator[StoreFinding]:
    """Everything that is amiss, experiment by experiment.

    Args:
        repository: The results directory.
        experiment_ids: Ids or folder names; by default everything that is there, leftovers of deletions included.
    """
    if experiment_ids is not None:
        for experiment_id in experiment_ids:
            folder = layout.folder_name(experiment_id)
            for attempt in repository.list_attempts(folder):
                yield from _guarded(
                    layout.earlier_attempt_folder(folder, attempt), _check_attempt(repository, folder, attempt)
                )
            yield from _check_experiment(repository, folder)
        return
    yield from _guarded(RAW_DIR, _check_raw_folder(repository))
    for parent in (AGGREGATED_DIR, TAGS_DIR):
        yield from _guarded(parent, _check_derived_folder(repository, parent))


def _guarded(key: str, findings: Iterator[StoreFinding]) -> Iterator[StoreFinding]:
    """Findings about a place, or the one that it can't be looked into: the others are told all the same."""
    try:
        yield from findings
    except ResultsError as error:
        yield _finding("folder.unreadable", key, error.found, error.advice)


def _check_raw_folder(repository: FileSystemRepository) -> Iterator[StoreFinding]:
    folders = set()
    with contextlib.suppress(ResultsError):  # told where that folder is looked into
        folders.update(repository.list_aggregated())
    for entry in repository.store.list(RAW_DIR):
        if entry.is_folder and layout.is_folder_name(entry.name):
            folders.add(entry.name)
        else:
            yield from _check_beside_experiments(repository, entry)
    for folder in sorted(folders):
        yield from _check_experiment(repository, folder)


def sweep(repository: FileSystemRepository, findings: Iterable[StoreFinding]) -> list[str]:
    """Remove what is provably left over, and return its keys.

    Args:
        repository: The results directory.
        findings: What `check_store` found; only the sweepable ones are touched.
    """
    swept = []
    for finding in findings:
        with contextlib.suppress(ResultsError):  # what can't be removed stays among the findings
            deleted = layout.deleted_folder_of(finding.key.removeprefix(f"{RAW_DIR}/"))
            if deleted is not None and deletion.finish(repository.store, deleted):
                removed = True
            elif finding.code == "leftover.folder":
                removed = repository.store.delete_folder(finding.key)
            else:
                removed = finding.sweepable and repository.store.delete(finding.key)
            if removed:
                swept.append(finding.key)
    return swept


def _check_beside_experiments(repository: FileSystemRepository, entry: Entry) -> Iterator[StoreFinding]:
    """What stands under `raw/` and is no experiment's folder."""
    key = f"{RAW_DIR}/{entry.name}"
    if target_name(entry.name) is not None:
        yield _leftover(key, entry, is_needed=False)
    elif layout.deleted_folder_of(entry.name) is not None and entry.is_folder:
        yield _finding(
            "leftover.folder",
            key,
            "a deletion was interrupted",
            "run 'llm-energy-measure results check --clean' to remove it",
        )
    elif (attempt := layout.earlier_attempt_of(entry.name)) is not None:
        yield from _guarded(key, _check_attempt(repository, *attempt))
    elif not entry.is_folder and process_index_of(entry.name) is not None:
        advice = "move it to the folder of its experiment"
        yield _finding("raw.misnamed", key, "the file is not in the folder of an experiment", advice)
    elif entry.is_folder and _holds_results(repository, key):
        yield _finding("experiment.misnamed", key, "no experiment id has this folder name", "rename the folder")
    elif not entry.is_folder and (found := _link(repository, key)) is not None:
        yield _finding("raw.not_a_file", key, found, "replace it by the folder itself")


def _check_attempt(repository: FileSystemRepository, folder: str, attempt: int) -> Iterator[StoreFinding]:
    """An earlier attempt that was set aside, and what is unfinished in it."""
    key = layout.earlier_attempt_folder(folder, attempt)
    entries = repository.store.list(key)
    results = sum(process_index_of(entry.name) is not None for entry in entries)
    message = f"a later attempt replaced it; it contains {results} results"
    yield _finding("raw.earlier_attempt", key, message, "remove it when it is no longer needed")
    names = {entry.name for entry in entries}
    for entry in entries:
        if target_name(entry.name) is not None:
            yield from _check_entry(repository, layout.folder_of_key(key), entry, names)


def _check_experiment(repository: FileSystemRepository, folder: str) -> Iterator[StoreFinding]:
    prefix = layout.raw_folder(folder)
    try:
        entries = repository.store.list(prefix)
    except ResultsError as error:
        yield _finding("raw.unreadable", prefix, error.found, error.advice)
        return
    names = {entry.name for entry in entries}
    for entry in entries:
        yield from _check_entry(repository, folder, entry, names)
    yield from _check_ids(repository, folder)
    yield from _check_aggregate(repository, folder)


def _check_entry(
    repository: FileSystemRepository, folder: str, entry: Entry, names: set[str]
) -> Iterator[StoreFinding]:
    key = f"{layout.raw_folder(folder)}/{entry.name}"
    index = process_index_of(entry.name)
    meant_for = target_name(entry.name)
    if index is not None:
        yield from _check_raw(repository, folder, index, key, entry)
    elif meant_for is not None:
        is_data = layout.is_kept_in_raw(meant_for) and meant_for != MANIFEST_NAME
        yield _leftover(key, entry, is_needed=is_data and _holds_only_copy(repository, folder, key, names))
    elif entry.name.startswith("rejected-process_"):
        advice = "read the reasons in it, correct and save the record, then remove the file"
        yield _finding("raw.rejected", key, "the record was rejected when it was saved", advice)
    elif entry.name.startswith("superseded-process_"):
        yield _finding(
            "raw.superseded", key, "an overwrite replaced this result", "remove it when it is no longer needed"
        )
    elif entry.name.startswith("partial-process_"):
        advice = "keep it unless the process has a result: it is a lower bound of the measurement"
        yield _finding("raw.partial", key, "the process did not finish", advice)
    elif entry.name == MANIFEST_NAME:
        yield from _check_manifest(repository, folder, key)
    elif entry.name.startswith("process_") and entry.name.endswith(".json"):
        advice = "if it is a result, rename it to process_<i>.json, with i without leading zeros"
        yield _finding("raw.misnamed", key, "the file name is not the one of a process", advice)


def _check_raw(
    repository: FileSystemRepository, folder: str, index: int, key: str, entry: Entry
) -> Iterator[StoreFinding]:
    if entry.is_folder:
        yield _finding("raw.not_a_file", key, "it is a folder", "replace it by the result file")
        return
    outcome = repository.raw_folder(folder).read(index)
    if not isinstance(outcome, UnreadableFile):
        return
    code, advice = _classify(repository, key)
    data = _bytes(repository, key) if code == "raw.torn" else None
    if data is not None and is_salvaged(repository, folder, index, data):
        message = f"{outcome.reason}; salvaged as partial-process_{index}.json"
        salvaged = _finding(code, key, message, "remove it when it is no longer needed")
        yield msgspec.structs.replace(salvaged, needs_person=False)
        return
    yield _finding(code, key, outcome.reason, advice)


def _classify(repository: FileSystemRepository, key: str) -> tuple[str, str]:
    """The code of an unreadable raw file, and what to do about it."""
    try:
        data = repository.store.get(key)
    except ResultsError as error:
        return "raw.not_a_file" if isinstance(error, UnsafePathError) else "raw.unreadable", error.advice
    if not data.strip(b" \t\r\n\0"):
        return "raw.empty", "it contains no data; run the process again"
    if not _is_whole(data):
        return (
            "raw.torn",
            "run 'llm-energy-measure results check --salvage' to save its sections, or run the process again",
        )
    try:
        record = codec.decode_raw(data, key)
    except ResultCorruptError:
        return "raw.invalid", "repair it, or run the process again"
    is_own = layout.names_folder(record.experiment_id, layout.folder_of_key(key))
    if is_own:
        return "raw.other_process", "rename it to the file name of its process, if there is no such file"
    return "raw.other_experiment", "move it to the folder of its experiment"


def _check_manifest(repository: FileSystemRepository, folder: str, key: str) -> Iterator[StoreFinding]:
    try:
        manifest = codec.decode_manifest(repository.store.get(key), key)
    except ResultsError as error:
        yield _finding("manifest.unreadable", key, error.found, error.advice)
        return
    if not layout.names_folder(manifest.experiment_id, folder):
        message = f"it is the manifest of {manifest.experiment_id!r}"
        yield _finding("manifest.other_experiment", key, message, "move it to the folder of its experiment")


def _check_ids(repository: FileSystemRepository, folder: str) -> Iterator[StoreFinding]:
    recovery = repository.recover_raw(folder)
    ids = {record.experiment_id for record in recovery.results}
    if recovery.manifest is not None:
        ids.add(recovery.manifest.experiment_id)
    if len(ids) > 1:
        message = f"the folder contains files of {' and '.join(map(repr, sorted(ids)))}"
        advice = "keep the results of one and move the others to a folder with another name"
        yield _finding("raw.id_conflict", layout.raw_folder(folder), message, advice)


def _check_aggregate(repository: FileSystemRepository, folder: str) -> Iterator[StoreFinding]:
    key = layout.aggregated_key(folder)
    try:
        state = inspect_experiment(repository, folder)
    except ResultsError as error:
        yield _finding("aggregate.unreadable", key, error.found, error.advice)
        return
    if state.status == "unreadable":
        yield _finding(
            "aggregate.unreadable", key, state.problem or "", f"run 'llm-energy-measure aggregate {folder} --force'"
        )
    elif state.changes:
        changes = state.changes
        words = (("added", changes.added), ("removed", changes.removed), ("changed", changes.changed))
        message = "; ".join(f"{word} after the aggregation: {', '.join(names)}" for word, names in words if names)
        advice = f"run 'llm-energy-measure aggregate {folder}'"
        if not repository.has_raw(folder):
            advice = f"its raw files are missing: keep it, or run 'llm-energy-measure results delete {folder}'"
        yield _finding("aggregate.stale", key, message, advice)


def _check_derived_folder(repository: FileSystemRepository, parent: str) -> Iterator[StoreFinding]:
    for entry in repository.store.list(parent):
        key = f"{parent}/{entry.name}"
        if target_name(entry.name) is not None:
            yield _leftover(key, entry, is_needed=False)
        elif parent != AGGREGATED_DIR:
            continue
        elif layout.is_superseded_aggregate(entry.name):
            advice = "remove it when it is no longer needed"
            yield _finding("aggregate.superseded", key, "an aggregate of this tool replaced it", advice)
        elif entry.name.endswith(".json") and layout.aggregated_folder_of(entry.name) is None:
            yield _finding("aggregate.misnamed", key, "no experiment id has this folder name", "rename it")


def _leftover(key: str, entry: Entry, *, is_needed: bool) -> StoreFinding:
    is_gone = writer_has_ended(entry.name, entry.mtime_sec)
    if not is_gone and not (is_needed and writer_is_remote(entry.name)):
        advice = "leave it; if no process uses this directory any more, inspect and remove it"
        return _finding("leftover.in_use", key, "its writer may still run", advice)
    if is_needed:
        name = target_name(entry.name)
        message = f"it contains a result, or a part of one, for {name}, and no other file contains it"
        return _finding(
            "raw.unpublished",
            key,
            message,
            f"run 'llm-energy-measure results check --salvage' to save it, or compare it with {name}",
        )
    if entry.is_folder:
        return _finding(
            "leftover.folder",
            key,
            "a deletion was interrupted",
            "run 'llm-energy-measure results check --clean' to remove it",
        )
    return _finding(
        "leftover.file",
        key,
        "its writer ended before the file was complete",
        "run 'llm-energy-measure results check --clean' to remove it",
    )


def _holds_only_copy(repository: FileSystemRepository, folder: str, key: str, names: set[str]) -> bool:
    """True unless an unfinished file is known not to be whole, or to be stored under another name as well."""
    try:
        data = repository.store.get(key)
    except ResultNotFoundError:
        return False
    except ResultsError:
        return True
    if not _is_whole(data):
        return _holds_only_energy(repository, key, names, data)
    others = [f"{layout.raw_folder(folder)}/{name}" for name in names if layout.is_kept_in_raw(name)]
    return all(_bytes(repository, other) != data for other in others)


def _holds_only_energy(repository: FileSystemRepository, key: str, names: set[str], data: bytes) -> bool:
    """True if a torn unfinished file holds the energy of a process that has no result, and was not salvaged."""
    name = target_name(key.rpartition("/")[2]) or ""
    index = process_index_of(name)
    if index is None or name in names or "energy_metrics" not in whole_sections(data):
        return False
    return not is_salvaged(repository, layout.folder_of_key(key), index, data)


def _is_whole(data: bytes) -> bool:
    """True if the bytes are JSON to their end; whether this version can read them as a record is another matter."""
    try:
        msgspec.json.decode(data.removeprefix(codec.BOM))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _is_loose_json(data)
    except RecursionError:
        return True
    return True


def _is_loose_json(data: bytes) -> bool:
    """True if the bytes are whole but for what Python's own writer lets through: NaN and the infinities."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _bytes(repository: FileSystemRepository, key: str) -> bytes | None:
    try:
        return repository.store.get(key)
    except ResultsError:
        return None


def _link(repository: FileSystemRepository, key: str) -> str | None:
    """What is wrong with a link where a folder belongs; its experiment is seen by nobody. None if it is no link."""
    try:
        repository.store.list(key)
    except UnsafePathError as error:
        return error.found
    except ResultsError:
        pass
    return None


def _holds_results(repository: FileSystemRepository, key: str) -> bool:
    try:
        return any(process_index_of(entry.name) is not None for entry in repository.store.list(key))
    except ResultsError:
        return False


def _finding(code: str, key: str, message: str, advice: str) -> StoreFinding:
    return StoreFinding(
        code=code,
        key=key,
        message=message,
        advice=advice,
        needs_person=code not in _NEEDS_NOBODY,
        sweepable=code in _SWEEPABLE,
    )
