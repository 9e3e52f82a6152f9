"""Keep a record that `save_raw` refuses, so that its measurement is not lost."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from llm_energy_measure.constants import MAX_RECORD_DEPTH
from llm_energy_measure.domain.schema import find_non_finite
from llm_energy_measure.exceptions import (
    ExperimentIdError,
    InvalidResultError,
    ResultExistsError,
    StorageError,
    UnsafePathError,
)
from llm_energy_measure.results.store import deletion, layout
from llm_energy_measure.results.store.raw_folder import keep_bytes
from llm_energy_measure.storage.base import Store


@contextlib.contextmanager
def keep_refused(store: Store, experiment_id: str, record: object) -> Iterator[None]:
    """Keep the record if the `with` block refuses it. The attribute `kept` and the message of the error name the file.

    The file is `rejected-process_<i>-<n>.json.kept` in the folder of the experiment, or in the folder `_unnamed` if the
    id is not valid.
    """
    try:
        yield
    except (InvalidResultError, ExperimentIdError, ResultExistsError) as refused:
        if refused.kept is None:
            _keep(store, experiment_id, record, refused)
        raise


def _keep(
    store: Store,
    experiment_id: str,
    record: object,
    refused: InvalidResultError | ExperimentIdError | ResultExistsError,
) -> None:
    try:
        folder = layout.folder_in(store, experiment_id)
    except ExperimentIdError:
        folder = layout.UNNAMED
    with contextlib.suppress(StorageError, UnsafePathError):
        deletion.finish(store, folder)
    data = rejected_document(record, getattr(refused, "problems", ()) or (refused.found,))
    index = getattr(record, "process_index", None)  # the record can be an object of any type
    try:
        refused.kept, _ = keep_bytes(store, data, lambda number: layout.rejected_key(folder, index, number))
    except (StorageError, UnsafePathError) as error:
        refused.advice += f"; the record could not be kept ({error.found}), so save it in another place"
    else:
        refused.advice += f"; the record is kept in {refused.kept}"


def rejected_document(record: object, problems: Sequence[str]) -> bytes:
    """Return the bytes of the file that keeps a refused record: the reasons, and the record with any values."""
    kept = {"rejected": list(problems), "record": _printable(record)}
    return msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n"


def _printable(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Return any object as readable JSON values; `inside` has the `id()` of each object that contains it."""
    if callable(getattr(value, "tolist", None)):
        # The `repr` of a large array omits most values. A `tolist` of another library can raise any error.
        with contextlib.suppress(Exception):
            value = value.tolist()
    if id(value) in inside or len(inside) > 2 * MAX_RECORD_DEPTH:
        return f"({type(value).__name__} that contains itself, or is nested too deeply)"
    within = (*inside, id(value))
    if isinstance(value, msgspec.Struct):
        return _printable({name: getattr(value, name, None) for name in value.__struct_fields__}, within)
    if isinstance(value, dict):
        names = [str(key) for key in value]
        times = Counter(names)
        return {
            # 1 and "1" would be one JSON key.
            _writable(name if times[name] == 1 else repr(key)): _printable(item, within)
            for (key, item), name in zip(value.items(), names, strict=True)
            if item is not msgspec.UNSET
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_printable(item, within) for item in value]
    return _printable_scalar(value)


def _printable_scalar(value: Any) -> Any:
    if value is None or type(value) is bool or (type(value) is float and not list(find_non_finite(value))):
        return value
    if type(value) is int:
        # Python refuses to convert thousands of digits to decimal.
        return value if value.bit_length() < 64 else f"{value:#x}"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if type(value) is str:
        return _writable(value)
    try:
        return _writable(repr(value))
    except Exception as error:  # noqa: BLE001 - a method of another library; the record is still kept
        return f"({type(value).__name__} whose repr raises {type(error).__name__})"


def _writable(text: str) -> str:
    """Return the text with escaped lone surrogates, which come from undecodable file names."""
    return text.encode("utf-8", "backslashreplace").decode()
