"""Salvage torn raw files: store their complete sections as partial records.

A torn file ends in the middle of its JSON text. Files are salvaged only on request (`results check --salvage`). A
salvaged record is not a result. Its file is `partial-process_<i>.json`, and its `origin` has the name and the digest of
the torn file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import ImportOrigin, RawProcessResult, process_index_of
from llm_energy_measure.exceptions import ResultCorruptError, ResultsError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import codec, layout
from llm_energy_measure.results.store.checkpoints import keep_partial
from llm_energy_measure.results.store.raw_folder import keep_copy
from llm_energy_measure.security import require_bounded_json
from llm_energy_measure.storage.temporary import target_name

TOOL = "llm-energy-measure salvage"
"""Name of the tool in the origin of a salvaged record."""

_WHITE_SPACE = " \t\r\n"
# Without these fields, the energy belongs to no configuration, model or time.
_REQUIRED = ("config_name", "model_name", "timestamps")


def complete_sections(data: bytes) -> dict[str, Any]:
    """Return the complete top-level fields of a torn JSON object, in order.

    A number at the end of the data may be truncated, and is left out. If parsing needs too much memory, no section is
    returned.

    Example:
        >>> complete_sections(b'{"a": {"b": 1}, "c": "d", "e": 12')
        {'a': {'b': 1}, 'c': 'd'}
    """
    try:
        require_bounded_json(data)
    except ValueError:
        return {}
    text = data.decode("utf-8-sig", errors="replace")
    decoder = json.JSONDecoder()
    sections: dict[str, Any] = {}
    position = _skip(text, 0)
    if text[position : position + 1] != "{":
        return sections
    while True:
        try:
            key, position = decoder.raw_decode(text, _skip(text, position + 1))
            position = _skip(text, position)
            if text[position : position + 1] != ":" or not isinstance(key, str):
                return sections
            value, position = decoder.raw_decode(text, _skip(text, position + 1))
        except (ValueError, RecursionError):
            return sections
        position = _skip(text, position)
        if position == len(text) and not isinstance(value, str | dict | list):
            return sections
        sections[key] = value
        if text[position : position + 1] != ",":
            return sections


def salvage_all(repository: FileSystemRepository, keys: Iterable[str]) -> dict[str, Path | ResultsError]:
    """Salvage raw files. Return for each key the path of the new file, or the error that prevented the salvage.

    The complete sections of a torn file are stored as a partial record. Lost values are null in the record, and its
    `energy_measurement_warning` names them. A temporary file with a complete result is saved as a result. The old files
    are not removed.

    Args:
        repository: The results directory.
        keys: Keys of raw results and of their temporary files; other keys are ignored.
    """
    outcomes: dict[str, Path | ResultsError] = {}
    for key in keys:
        name = key.rpartition("/")[2]
        published_name = target_name(name)
        index = process_index_of(published_name or name)
        if index is not None:
            try:
                outcomes[key] = _salvage(repository, key, index, is_published=published_name is None)
            except ResultsError as error:
                outcomes[key] = error
    return outcomes


def _salvage(repository: FileSystemRepository, key: str, process_index: int, *, is_published: bool) -> Path:
    data = repository.store.get(key)
    try:
        record = codec.decode_raw(data, key)
    except ResultCorruptError:
        return _save_partial(repository, key, process_index, data)
    if is_published:
        raise ResultCorruptError(f"cannot salvage {key}", "the file is complete", "load it with load_raw")
    folder = layout.folder_of_key(key)
    if process_index not in repository.raw_folder(folder).process_indices():
        return repository.save_raw(record.experiment_id, record)
    return keep_copy(repository.store, key, lambda number: layout.superseded_raw_key(folder, process_index, number))


def lost_sections(data: bytes) -> list[str]:
    """Return the names of the required sections that a torn file lacks. If it lacks one, it can't be salvaged."""
    sections = complete_sections(data)
    return [name for name in _REQUIRED if name not in sections]


def is_salvaged(repository: FileSystemRepository, folder: str, process_index: int, data: bytes) -> bool:
    """Return True if the partial record of a process was salvaged from these bytes."""
    key = layout.partial_key(folder, process_index)
    try:
        origin = codec.decode_raw(repository.store.get(key), key).origin
    except ResultsError:
        return False
    return origin is not None and origin.sha256 == codec.digest(data)


def _save_partial(repository: FileSystemRepository, key: str, process_index: int, data: bytes) -> Path:
    doing = f"cannot salvage {key}"
    folder, name = layout.folder_of_key(key), key.rpartition("/")[2]
    sections = complete_sections(data)
    lost = [name for name in _REQUIRED if name not in sections]
    if lost:
        found = f"the file ends before {lost[0]}, so it is unknown which run its data describe"
        raise ResultCorruptError(doing, found, "run the process again")
    record = _partial_record(sections, name, data)
    if not layout.names_folder(record.experiment_id, folder) or record.process_index != process_index:
        found = f"it is the result of process {record.process_index} of {record.experiment_id!r}"
        raise ResultCorruptError(doing, found, "move it to the folder and file name of this process first")
    return keep_partial(repository.store, folder, codec.require_valid_raw(record))


def _partial_record(sections: dict[str, Any], name: str, data: bytes) -> RawProcessResult:
    """Return the partial record with the complete sections. Raises `ResultCorruptError` if they are not valid."""
    lost = [field for field in ("inference_metrics", "energy_metrics", "compute_metrics") if field not in sections]
    own_warning = sections.get("energy_measurement_warning")
    warning = f"salvaged from a torn file; lost: {', '.join(lost) or 'no metrics'}"
    document = {
        "gpu_id": None,
        "inference_metrics": None,
        "energy_metrics": {"total_energy_j": None, "duration_sec": None},
        "compute_metrics": None,
        **sections,
        "energy_measurement_warning": f"{own_warning}; {warning}" if isinstance(own_warning, str) else warning,
        "status": sections.get("status") or "partial",
    }
    try:
        encoded = msgspec.json.encode(document)
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise ResultCorruptError(f"cannot salvage {name}", str(error), "run the process again") from error
    record = codec.decode_raw(encoded, name)
    origin = ImportOrigin(tool=TOOL, file=name, sha256=codec.digest(data))
    return msgspec.structs.replace(record, origin=origin)


def _skip(text: str, position: int) -> int:
    """Return the first position that has no white space, at or after `position`."""
    while position < len(text) and text[position] in _WHITE_SPACE:
        position += 1
    return position
