"""JSON that nobody vouches for: as large as it may be, with NaN, or with a key that stands twice."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec

from llm_energy_measure.importers.limits import MAX_PARSED_BYTES, RefusedFileError, require_parsable
from llm_energy_measure.security import reject_duplicate_keys


def fields_of(data: bytes) -> dict[str, msgspec.Raw]:
    """Top-level fields of one JSON object, not parsed yet; empty if the bytes are none."""
    try:
        return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    # NaN and Infinity are no JSON, and Python writes them all the same.
    if len(data) <= MAX_PARSED_BYTES and any(name in data for name in (b"NaN", b"Infinity")):
        try:
            value = _loaded(data, "the file")
        except RefusedFileError:
            return {}
        if isinstance(value, dict):
            return {name: msgspec.Raw(msgspec.json.encode(inner)) for name, inner in value.items()}
    return {}


def parsed(data: bytes, what: str) -> Any:
    """Bytes as one JSON value; NaN and the infinities are None.

    Raises:
        RefusedFileError: They are none, or too many, or a key stands twice in one of their objects.
    """
    require_parsable(data, what)
    require_unique_keys(data, what)
    return _loaded(data, what)


def _loaded(data: bytes, what: str) -> Any:
    # NaN, and numbers beyond all numbers, are no JSON: then Python's json reads it, which takes twice the memory.
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    try:
        return storable(json.loads(data.decode("utf-8-sig"), parse_constant=unknown_number))
    except (ValueError, RecursionError) as error:
        raise RefusedFileError("not_json", f"{what} is no JSON that can be read ({error})") from error


def require_unique_keys(data: bytes, what: str) -> None:
    """Refuse JSON in which a key stands twice in one object, and whatever is no JSON."""

    def checked(pairs: list[tuple[str, Any]]) -> None:
        try:
            reject_duplicate_keys(pairs)
        except ValueError as error:
            raise RefusedFileError("ambiguous_key", f"{what}: {error}") from error

    # Nothing is kept of it, numbers included: a file of any size takes little more memory than its text.
    try:
        json.loads(
            data.decode("utf-8-sig", errors="replace"),
            object_pairs_hook=checked,
            parse_float=unknown_number,
            parse_int=unknown_number,
            parse_constant=unknown_number,
        )
    except (ValueError, RecursionError) as error:
        raise RefusedFileError("not_json", f"{what} is no JSON that can be read ({error})") from error


def storable(value: Any) -> Any:
    """What Python's json read, as a record can hold it: a number beyond all numbers, such as 1e400, is None.

    Raises:
        ValueError: It has half of a surrogate pair, or a whole number of more than 64 bits.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


def unknown_number(_constant: str) -> None:
    """NaN and the infinities are no readings."""
