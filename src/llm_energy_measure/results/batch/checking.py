"""Check a results directory: find torn, empty, rejected, leftover, misnamed, conflicting and stale files.

`check_store` returns findings and changes no file. `remove_leftovers` removes only the remaining files of deleted
experiments, and unfinished files whose writer has ended. A file that may be the only copy of a record is kept.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct, field

from llm_energy_measure.constants import AGGREGATED_DIR, MANIFEST_NAME, RAW_DIR, TAGS_DIR
from llm_energy_measure.domain.experiment import UnreadableFile, process_index_of
from llm_energy_measure.exceptions import ResultCorruptError, ResultNotFoundError, ResultsError, UnsafePathError
from llm_energy_measure.results.batch.salvage import complete_sections, is_salvaged, lost_sections
from llm_energy_measure.results.batch.state import inspect_experiment
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import codec, deletion, layout
from llm_energy_measure.results.store.raw_folder import bytes_of
from llm_energy_measure.results.store.tags import decode_tags
from llm_energy_measure.security import require_bounded_json
from llm_energy_measure.storage.base import Entry
from llm_energy_measure.storage.contained import unsafe_entries
from llm_energy_measure.storage.temporary import is_lock, target_name, writer_has_ended, writer_is_remote
from llm_energy_measure.verification.concurrency import SensorUse, describe, sensor_uses, shared_energies

CODES = {
    "raw.empty": "a result file without content: its writer was killed, or the disk was full",
    "raw.torn": "a result file that is cut off, or is not JSON",
    "raw.invalid": "a result file whose JSON is not a record that this version can read",
    "raw.unreadable": "a result file that the file system cannot read",
    "raw.not_a_file": "a link, a pipe, a device or a folder in place of a result file",
    "raw.other_experiment": "a result of another experiment",
    "raw.other_process": "a result whose process index differs from the index in its file name",
    "raw.misnamed": "a file whose name is similar to the name of a result file",
    "raw.rejected": "a record that was rejected when it was saved",
    "raw.superseded": "a result that an overwrite replaced",
    "raw.earlier_attempt": "the archived results of an earlier attempt",
    "raw.partial": "a checkpoint of a process that did not finish",
    "raw.shared_sensor": "an experiment whose sensors another experiment read at the same time",
    "raw.samples_damaged": "power samples that are cut off or invalid; the result next to them is not affected",
    "raw.samples_alone": "power samples of a process that has no result",
    "raw.unpublished": "an unfinished file that may be the only copy of a result",
    "raw.id_conflict": "results of two experiments in one folder",
    "manifest.unreadable": "a manifest that can't be read",
    "manifest.other_experiment": "a manifest of another experiment",
    "experiment.misnamed": "a folder whose name no experiment id can have",
    "aggregate.stale": "an aggregate whose raw files were added, changed or removed after the aggregation",
    "aggregate.altered": "an aggregate in which another program changed values",
    "aggregate.unreadable": "an aggregate that can't be read",
    "aggregate.misnamed": "an aggregate whose file name no experiment id can have",
    "folder.unreadable": "a folder of the results directory that can't be read",
    "aggregate.superseded": "an aggregate that was replaced by an aggregate of this tool",
    "tags.unreadable": "a file of tags that can't be read",
    "entry.unsafe": "a link, a pipe, a socket or a device, which no command opens or follows",
    "leftover.file": "an unfinished file whose writer has ended",
    "leftover.folder": "remaining files after an interrupted deletion or archiving",
    "leftover.in_use": "an unfinished file or folder that a process may still write",
}
"""The meaning of each code."""

_NEED_NO_DECISION = frozenset(
    {
        *("raw.superseded", "raw.earlier_attempt", "raw.partial", "aggregate.stale", "aggregate.superseded"),
        *("raw.samples_damaged", "raw.samples_alone", "raw.shared_sensor"),
        *("leftover.file", "leftover.folder", "leftover.in_use"),
    }
)
# A finding with one of these codes already reports that the entry is no regular file.
_NAME_UNSAFE_ENTRIES = frozenset(
    {"raw.not_a_file", "manifest.unreadable", "aggregate.unreadable", "tags.unreadable", "folder.unreadable"}
)
_REMOVABLE = frozenset({"leftover.file", "leftover.folder"})

# Names of the catalogue and the dataset, which are derived from the results.
_CATALOGUE = (".catalogue.sqlite", "dataset")

_CLEAN = "run 'llm-energy-measure results check --clean' to remove it"
_SALVAGE = "run 'llm-energy-measure results check --salvage' to save its sections, or run the process again"
_NO_LONGER_NEEDED = "remove it when it is no longer needed"


class StoreFinding(Struct, frozen=True, kw_only=True):
    """One problem of a stored file.

    Attributes:
        code: One of `CODES`.
        key: Key of the file or folder: its path in the results directory.
        message: What was found, in one sentence.
        advice: What to do.
        needs_decision: True if the user has to decide what to do; `results check` then exits with status 1.
        is_removable: True if `remove_leftovers` removes the file.
    """

    code: str
    key: str
    message: str
    advice: str
    # The old names stay in the JSON of `results check --json`, because scripts read it.
    needs_decision: bool = field(name="needs_person")
    is_removable: bool = field(name="sweepable")


def check_store(
    repository: FileSystemRepository, experiment_ids: Iterable[str] | None = None
) -> Iterator[StoreFinding]:
    """Yield the findings of a results directory, experiment by experiment.

    Args:
        repository: The results directory.
        experiment_ids: Ids or folder names; by default all experiments, with the remaining files of deleted ones.
    """
    folders = None if experiment_ids is None else [repository.folder_of(name) for name in experiment_ids]
    unsafe = {}
    if repository.store.supports_paths and folders is None:
        unsafe = unsafe_entries(repository.store.path(RAW_DIR).parent, (RAW_DIR, AGGREGATED_DIR, TAGS_DIR, *_CATALOGUE))
    uses: list[SensorUse] = []
    for finding in _check_folders(repository, folders, uses):
        if finding.key not in unsafe:
            yield finding
        elif finding.code in _NAME_UNSAFE_ENTRIES:
            del unsafe[finding.key]
            yield finding
    for folder, shared in shared_energies(uses).items():
        advice = "do not add these experiments up; run them one after the other, or as processes of one experiment"
        yield _finding("raw.shared_sensor", layout.raw_folder(folder), describe(shared), advice)
    for key, noun in sorted(unsafe.items()):
        yield _finding("entry.unsafe", key, f"it is {noun}; no command opens it", "move it away")


def _check_folders(
    repository: FileSystemRepository, folders: Iterable[str] | None, uses: list[SensorUse]
) -> Iterator[StoreFinding]:
    """Yield the findings on folders, by default on all. Append the uses of their sensors to `uses`."""
    if folders is not None:
        for folder in folders:
            for attempt in repository.list_attempts(folder):
                key = layout.earlier_attempt_folder(folder, attempt)
                yield from _or_unreadable(key, _check_attempt(repository, folder, attempt))
            yield from _check_experiment(repository, folder, uses)
        return
    yield from _or_unreadable(RAW_DIR, _check_raw_folder(repository, uses))
    for parent in (AGGREGATED_DIR, TAGS_DIR):
        yield from _or_unreadable(parent, _check_derived_folder(repository, parent))


def remove_leftovers(repository: FileSystemRepository, findings: Iterable[StoreFinding]) -> list[str]:
    """Remove the leftovers among the findings, and return the keys of the removed files and folders.

    Args:
        repository: The results directory.
        findings: The findings of `check_store`. Files of the other findings are not changed.
    """
    removed_keys = []
    for finding in findings:
        with contextlib.suppress(ResultsError):  # the caller still has the finding of a file that can't be removed
            deleted = layout.hidden_folder_of(finding.key.removeprefix(f"{RAW_DIR}/"))
            if deleted is not None and deletion.finish(repository.store, deleted):
                is_removed = True
            elif finding.code == "leftover.folder":
                is_removed = repository.store.delete_folder(finding.key)
            else:
                is_removed = finding.is_removable and repository.store.delete(finding.key)
            if is_removed:
                removed_keys.append(finding.key)
    return removed_keys


def _or_unreadable(key: str, findings: Iterator[StoreFinding]) -> Iterator[StoreFinding]:
    """Yield the findings of a folder. If the folder can't be read, yield the finding `folder.unreadable`."""
    try:
        yield from findings
    except ResultsError as error:
        yield _finding("folder.unreadable", key, error.found, error.advice)


def _check_raw_folder(repository: FileSystemRepository, uses: list[SensorUse]) -> Iterator[StoreFinding]:
    folders = set()
    with contextlib.suppress(ResultsError):  # `_check_derived_folder` reports this error
        folders.update(repository.list_aggregated())
    for entry in repository.store.list(RAW_DIR):
        if entry.is_folder and layout.is_folder_name(entry.name):
            folders.add(entry.name)
        else:
            yield from _check_other_entry(repository, entry)
    for folder in sorted(folders):
        yield from _check_experiment(repository, folder, uses)


def _is_there(repository: FileSystemRepository, key: str) -> bool:
    """Return True if a listed folder exists. Some servers list a folder in a bucket after its last object is gone."""
    return repository.store.supports_folder_move or bool(repository.store.list(key))


def _check_other_entry(repository: FileSystemRepository, entry: Entry) -> Iterator[StoreFinding]:
    """Check an entry of `raw/` that is not the folder of an experiment."""
    key = f"{RAW_DIR}/{entry.name}"
    if target_name(entry.name) is not None:
        yield _leftover(key, entry, has_only_copy=False)
    elif layout.deleted_folder_of(entry.name) is not None and entry.is_folder and _is_there(repository, key):
        yield _finding("leftover.folder", key, "a deletion was interrupted", _CLEAN)
    elif layout.hidden_folder_of(entry.name) is not None and entry.is_folder and _is_there(repository, key):
        yield _finding("leftover.folder", key, "the archiving of an attempt was interrupted", _CLEAN)
    elif (attempt := layout.earlier_attempt_of(entry.name)) is not None:
        yield from _or_unreadable(key, _check_attempt(repository, *attempt))
    elif not entry.is_folder and process_index_of(entry.name) is not None:
        message = "the file is not in the folder of an experiment"
        yield _finding("raw.misnamed", key, message, "move it to the folder of its experiment")
    else:
        try:
            names = [found.name for found in repository.store.list(key)]
        except ResultsError as error:
            if isinstance(error, UnsafePathError) and not entry.is_folder:
                yield _finding("raw.not_a_file", key, error.found, "replace it by the folder itself")
            return
        if entry.is_folder and any(process_index_of(name) is not None for name in names):
            yield _finding("experiment.misnamed", key, "no experiment id has this folder name", "rename the folder")


def _check_attempt(repository: FileSystemRepository, folder: str, attempt: int) -> Iterator[StoreFinding]:
    """Check an archived attempt and its unfinished files."""
    key = layout.earlier_attempt_folder(folder, attempt)
    entries = repository.store.list(key)
    results = sum(process_index_of(entry.name) is not None and not entry.is_folder for entry in entries)
    message = f"a later attempt replaced this attempt, which has {results} results"
    yield _finding("raw.earlier_attempt", key, message, _NO_LONGER_NEEDED)
    names = {entry.name for entry in entries}
    for entry in entries:
        if target_name(entry.name) is not None or is_lock(entry.name):
            yield from _check_entry(repository, layout.folder_of_key(key), entry, names)


def _check_experiment(repository: FileSystemRepository, folder: str, uses: list[SensorUse]) -> Iterator[StoreFinding]:
    prefix = layout.raw_folder(folder)
    try:
        entries = repository.store.list(prefix)
    except ResultsError as error:
        yield _finding("raw.unreadable", prefix, error.found, error.advice)
        return
    names = {entry.name for entry in entries}
    for entry in entries:
        yield from _check_entry(repository, folder, entry, names)
    yield from _check_ids(repository, folder, uses)
    yield from _check_aggregate(repository, folder)


def _check_entry(
    repository: FileSystemRepository, folder: str, entry: Entry, names: set[str]
) -> Iterator[StoreFinding]:
    key = f"{layout.raw_folder(folder)}/{entry.name}"
    index = process_index_of(entry.name)
    target = target_name(entry.name)
    if index is not None:
        yield from _check_raw(repository, folder, index, key, entry)
    elif target is not None:
        is_record = layout.is_kept_in_raw(target) and target != MANIFEST_NAME
        yield _leftover(key, entry, has_only_copy=is_record and _has_only_copy(repository, folder, key, names))
    elif is_lock(entry.name):
        yield _check_lock(repository, key, entry)
    elif entry.name.startswith("rejected-process_"):
        advice = "read the reasons in the file, correct and save the record, then remove the file"
        yield _finding("raw.rejected", key, "the record was rejected when it was saved", advice)
    elif layout.samples_index_of(entry.name) is not None:
        yield from _check_samples(repository, key, entry, names)
    elif entry.name.startswith(("superseded-process_", "superseded-samples-process_")):
        yield _finding("raw.superseded", key, "an overwrite replaced this result", _NO_LONGER_NEEDED)
    elif entry.name.startswith("partial-process_"):
        advice = "keep this record unless the process has a result: the record is a lower bound of the measurement"
        yield _finding("raw.partial", key, "the process did not finish", advice)
    elif entry.name == MANIFEST_NAME:
        yield from _check_manifest(repository, folder, key)
    elif entry.name.startswith("process_") and entry.name.endswith(".json") and not layout.is_timeseries(entry.name):
        advice = "if it is a result, rename it to process_<i>.json, with i without leading zeros"
        yield _finding("raw.misnamed", key, "the file name is not that of a result", advice)


def _check_samples(repository: FileSystemRepository, key: str, entry: Entry, names: set[str]) -> Iterator[StoreFinding]:
    """Check the power samples of a process."""
    # Few directories have samples, and only they need this import.
    from llm_energy_measure.results.store.samples import decode_samples

    index = layout.samples_index_of(entry.name)
    if f"process_{index}.json" not in names and f"partial-process_{index}.json" not in names:
        yield _finding("raw.samples_alone", key, f"process {index} has no result", _NO_LONGER_NEEDED)
    try:
        decode_samples(repository.store.get(key), entry.name)
    except ResultsError as error:
        yield _finding("raw.samples_damaged", key, error.found, error.advice)


def _check_raw(
    repository: FileSystemRepository, folder: str, index: int, key: str, entry: Entry
) -> Iterator[StoreFinding]:
    if entry.is_folder:
        yield _finding("raw.not_a_file", key, "it is a folder", "replace it by the result file")
        return
    outcome = repository.raw_folder(folder).read(index)
    if not isinstance(outcome, UnreadableFile):
        return
    try:
        data = repository.store.get(key)
    except ResultsError as error:
        code = "raw.not_a_file" if isinstance(error, UnsafePathError) else "raw.unreadable"
        yield _finding(code, key, outcome.reason, error.advice)
        return
    code, advice = _classify(data, key)
    if code == "raw.torn" and is_salvaged(repository, folder, index, data):
        message = f"{outcome.reason}; salvaged as partial-process_{index}.json"
        yield msgspec.structs.replace(_finding(code, key, message, _NO_LONGER_NEEDED), needs_decision=False)
    else:
        yield _finding(code, key, outcome.reason, advice)


def _classify(data: bytes, key: str) -> tuple[str, str]:
    """Return the finding code and the advice for a raw file that is not a result of its process."""
    if not data.strip(b" \t\r\n\0"):
        return "raw.empty", "it contains no data; run the process again"
    if not _is_complete_json(data):
        lost = lost_sections(data)
        # `check --salvage` refuses a file without the required sections.
        return "raw.torn", "it ends too early to save its sections; run the process again" if lost else _SALVAGE
    try:
        record = codec.decode_raw(data, key)
    except ResultCorruptError:
        return "raw.invalid", "repair it, or run the process again"
    if layout.names_folder(record.experiment_id, layout.folder_of_key(key)):
        return "raw.other_process", "rename it to the file name of its process, if this name is free"
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


def _check_ids(repository: FileSystemRepository, folder: str, uses: list[SensorUse]) -> Iterator[StoreFinding]:
    recovery = repository.recover_raw(folder)
    uses += sensor_uses(folder, recovery.results)
    ids = {record.experiment_id for record in recovery.results}
    if recovery.manifest is not None:
        ids.add(recovery.manifest.experiment_id)
    if len(ids) > 1:
        message = f"the folder contains files of the experiments {' and '.join(map(repr, sorted(ids)))}"
        advice = "keep the results of one experiment, and move all other results to a folder with another name"
        yield _finding("raw.id_conflict", layout.raw_folder(folder), message, advice)


def _check_aggregate(repository: FileSystemRepository, folder: str) -> Iterator[StoreFinding]:
    key = layout.aggregated_key(folder)
    try:
        state = inspect_experiment(repository, folder)
    except ResultsError as error:
        yield _finding("aggregate.unreadable", key, error.found, error.advice)
        return
    if state.status == "altered":
        found, _, advice = (state.problem or "").partition("; ")
        yield _finding("aggregate.altered", key, found, advice)
    elif state.status == "unreadable":
        advice = f"run 'llm-energy-measure aggregate {folder} --force'"
        yield _finding("aggregate.unreadable", key, state.problem or "", advice)
    elif state.changes:
        changes = state.changes
        words = (("added", changes.added), ("removed", changes.removed), ("changed", changes.changed))
        message = "; ".join(f"{word} after the aggregation: {', '.join(names)}" for word, names in words if names)
        advice = f"run 'llm-energy-measure aggregate {folder}'"
        if not repository.has_raw(folder):
            advice = f"keep the aggregate without raw files, or run 'llm-energy-measure results delete {folder}'"
        yield _finding("aggregate.stale", key, message, advice)


def _check_derived_folder(repository: FileSystemRepository, parent: str) -> Iterator[StoreFinding]:
    for entry in repository.store.list(parent):
        key = f"{parent}/{entry.name}"
        if target_name(entry.name) is not None:
            yield _leftover(key, entry, has_only_copy=False)
        elif is_lock(entry.name):
            yield _check_lock(repository, key, entry)
        elif parent != AGGREGATED_DIR:
            yield from _check_tags(repository, key, entry)
        elif layout.is_superseded_aggregate(entry.name):
            yield _finding("aggregate.superseded", key, "an aggregate of this tool replaced it", _NO_LONGER_NEEDED)
        elif entry.is_folder:
            yield _finding("aggregate.unreadable", key, "it is a folder", "move it away")
        elif entry.name.endswith(".json") and layout.aggregated_folder_of(entry.name) is None:
            yield _finding("aggregate.misnamed", key, "no experiment id has this folder name", "rename it")


def _check_tags(repository: FileSystemRepository, key: str, entry: Entry) -> Iterator[StoreFinding]:
    if entry.name.endswith(".json"):
        try:
            decode_tags(repository.store.get(key), key)
        except ResultsError as error:
            yield _finding("tags.unreadable", key, error.found, error.advice)


def _check_lock(repository: FileSystemRepository, key: str, entry: Entry) -> StoreFinding:
    """Return the finding for a lock. The content of the lock identifies the process that created it."""
    name = (bytes_of(repository.store, key) or b"").decode(errors="replace")
    if writer_has_ended(name, entry.mtime_sec):
        return _finding("leftover.file", key, "its process ended and left the lock", _CLEAN)
    advice = "leave the lock; if no process uses this directory any more, remove the lock"
    return _finding("leftover.in_use", key, "a process may hold this lock", advice)


def _leftover(key: str, entry: Entry, *, has_only_copy: bool) -> StoreFinding:
    """Return the finding for an unfinished file or folder."""
    has_ended = writer_has_ended(entry.name, entry.mtime_sec)
    if not has_ended and not (has_only_copy and writer_is_remote(entry.name)):
        advice = "leave it; if no process uses this directory any more, inspect and remove it"
        return _finding("leftover.in_use", key, "its writer may still run", advice)
    if has_only_copy:
        name = target_name(entry.name)
        message = f"the file contains a whole or torn result for {name}, and no other file contains this result"
        advice = f"run 'llm-energy-measure results check --salvage' to save it, or compare it with {name}"
        return _finding("raw.unpublished", key, message, advice)
    if entry.is_folder:
        return _finding("leftover.folder", key, "a deletion was interrupted", _CLEAN)
    return _finding("leftover.file", key, "its writer ended before the file was complete", _CLEAN)


def _has_only_copy(repository: FileSystemRepository, folder: str, key: str, names: set[str]) -> bool:
    """Return True if an unfinished file may be the only copy of a record, or of the energy of a process."""
    try:
        data = repository.store.get(key)
    except ResultNotFoundError:
        return False
    except ResultsError:
        return True
    if not _is_complete_json(data):
        return _has_only_energy(repository, key, names, data)
    target = target_name(key.rpartition("/")[2]) or ""
    if process_index_of(target) is not None and target not in names:
        return True  # an equal file of another process is no result of this process
    others = [f"{layout.raw_folder(folder)}/{name}" for name in names if layout.is_kept_in_raw(name)]
    return all(bytes_of(repository.store, other) != data for other in others)


def _has_only_energy(repository: FileSystemRepository, key: str, names: set[str], data: bytes) -> bool:
    """Return True if a torn unfinished file has the energy of a process without a result and is not salvaged yet."""
    name = target_name(key.rpartition("/")[2]) or ""
    index = process_index_of(name)
    if index is None or name in names or "energy_metrics" not in complete_sections(data):
        return False
    return not is_salvaged(repository, layout.folder_of_key(key), index, data)


def _is_complete_json(data: bytes) -> bool:
    """Return True if the bytes are complete JSON. This version may still be unable to read them as a record."""
    try:
        require_bounded_json(data)
    except ValueError:
        return True  # too large to parse, so it is unknown whether the JSON is complete
    try:
        msgspec.json.decode(data.removeprefix(codec.BOM))
    except RecursionError:
        return True
    except (msgspec.DecodeError, UnicodeDecodeError):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(data)  # accepts NaN and infinity, which Python's json module writes
            return True
        return False
    return True


def _finding(code: str, key: str, message: str, advice: str) -> StoreFinding:
    return StoreFinding(
        code=code,
        key=key,
        message=message,
        advice=advice,
        needs_decision=code not in _NEED_NO_DECISION,
        is_removable=code in _REMOVABLE,
    )
