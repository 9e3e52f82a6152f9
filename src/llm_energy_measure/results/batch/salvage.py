"""What a torn raw file still holds: its whole sections, as a partial record that says what it is.

Nothing is salvaged unless somebody asks, and what is salvaged is never taken for a result: it is stored as
`partial-process_<i>.json`, and its record names the torn file and its digest as its origin.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.domain.experiment import ImportOrigin, RawProcessResult, process_index_of
from llm_energy_measure.exceptions import ResultCorruptError, ResultsError
from llm_energy_measure.results.store import codec, layout
from llm_energy_measure.results.store.checkpoints import keep_partial
from llm_energy_measure.results.store.raw_folder import keep_copy
from llm_energy_measure.storage.atomic import target_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llm_energy_measure.results.repository import FileSystemRepository

TOOL = "llm-energy-measure salvage"
"""What the origin of a salvaged record names as its tool."""

_WHITE_SPACE = " \t\r\n"
# Without these there is nothing to attribute, and no telling when it was.
_NEEDED = ("config_name", "model_name", "timestamps")


def whole_sections(data: bytes) -> dict[str, Any]:
    """The top-level fields of a torn JSON object that are there to the end, in order.

    A number that the tear may have cut short is left out.

    Example:
        >>> whole_sections(b'{"a": {"b": 1}, "c": "d", "e": 12')
        {'a': {'b': 1}, 'c': 'd'}
    """
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


def salvage_raw(repository: FileSystemRepository, experiment_id: str, process_index: int) -> Path:
    """Store what a torn raw file still holds as a partial record, and return its file.

    The torn file stays as it is. What is lost is null in the record, and `energy_measurement_warning` says so.

    Args:
        repository: Where it is stored.
        experiment_id: Its experiment.
        process_index: Its process.

    Raises:
        ResultNotFoundError: There is no such file.
        ResultCorruptError: The file is whole, or too little of it is.
    """
    folder = layout.folder_name(experiment_id)
    key = layout.raw_key(folder, process_index)
    data = repository.store.get(key)
    try:
        codec.decode_raw(data, key)
    except ResultCorruptError:
        return _salvage(repository, key, process_index, data)
    raise ResultCorruptError(f"Failed to salvage {key}", "the file is complete", "load it with load_raw")


def salvage_all(repository: FileSystemRepository, keys: Iterable[str]) -> dict[str, Path | ResultsError]:
    """Salvage torn raw files, and what was written and never published; for each its new file, or why there is none.

    A file that was never published and is whole is saved as the result that it is.
    """
    outcomes: dict[str, Path | ResultsError] = {}
    for key in keys:
        name = key.rpartition("/")[2]
        meant_for = target_name(name)
        index = process_index_of(meant_for or name)
        if index is not None:
            try:
                data = repository.store.get(key)
                record = None if meant_for is None else _whole(data, key)
                if record is None:
                    outcomes[key] = _salvage(repository, key, index, data)
                else:
                    outcomes[key] = _publish(repository, key, index, record)
            except ResultsError as error:
                outcomes[key] = error
    return outcomes


def is_salvaged(repository: FileSystemRepository, folder: str, process_index: int, data: bytes) -> bool:
    """True if a partial record was made from these bytes."""
    key = layout.partial_key(folder, process_index)
    try:
        origin = codec.decode_raw(repository.store.get(key), key).origin
    except ResultsError:
        return False
    return origin is not None and origin.sha256 == codec.digest(data)


def _publish(repository: FileSystemRepository, key: str, process_index: int, record: RawProcessResult) -> Path:
    """Save a whole result that was never published, or keep it beside the one that its process has."""
    folder = layout.folder_of_key(key)
    if process_index not in repository.raw_folder(folder).process_indices():
        return repository.save_raw(record.experiment_id, record)
    return keep_copy(repository.store, key, lambda number: layout.superseded_raw_key(folder, process_index, number))


def _whole(data: bytes, key: str) -> RawProcessResult | None:
    try:
        return codec.decode_raw(data, key)
    except ResultCorruptError:
        return None


def _salvage(repository: FileSystemRepository, key: str, process_index: int, data: bytes) -> Path:
    doing = f"Failed to salvage {key}"
    folder, name = layout.folder_of_key(key), key.rpartition("/")[2]
    sections = whole_sections(data)
    lost = [name for name in _NEEDED if name not in sections]
    if lost:
        found = f"the file ends before {lost[0]}, so its data cannot be attributed"
        raise ResultCorruptError(doing, found, "run the process again")
    record = _partial(sections, name, data)
    if not layout.names_folder(record.experiment_id, folder) or record.process_index != process_index:
        found = f"it is the result of process {record.process_index} of {record.experiment_id!r}"
        raise ResultCorruptError(doing, found, "move it to the folder and file name of this process first")
    return keep_partial(repository.store, folder, codec.require_valid_raw(record))


def _partial(sections: dict[str, Any], name: str, data: bytes) -> RawProcessResult:
    """The record of what is left; raises `ResultCorruptError` if that is no record either."""
    lost = [field for field in ("inference_metrics", "energy_metrics", "compute_metrics") if field not in sections]
    said = sections.get("energy_measurement_warning")
    warning = f"salvaged from a torn file; lost: {', '.join(lost) or 'no metrics'}"
    document = {
        "gpu_id": None,
        "inference_metrics": None,
        "energy_metrics": {"total_energy_j": None, "duration_sec": None},
        "compute_metrics": None,
        **sections,
        "energy_measurement_warning": f"{said}; {warning}" if isinstance(said, str) else warning,
        "status": sections.get("status") or "partial",
    }
    try:
        encoded = msgspec.json.encode(document)
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise ResultCorruptError(f"Failed to salvage {name}", str(error), "run the process again") from error
    record = codec.decode_raw(encoded, name)
    origin = ImportOrigin(tool=TOOL, file=name, sha256=codec.digest(data))
    return msgspec.structs.replace(record, origin=origin)


def _skip(text: str, position: int) -> int:
    """The first position that holds no white space."""
    while position < len(text) and text[position] in _WHITE_SPACE:
        position += 1
    return position
