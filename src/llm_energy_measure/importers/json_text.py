"""Parse JSON text of other tools: with a size limit, with NaN as null, and without ambiguous keys."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec

from llm_energy_measure.importers.limits import MAX_PARSED_BYTES, require_parsable
from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.security import reject_duplicate_keys

BOM = b"\xef\xbb\xbf"
"""UTF-8 byte order mark."""


def top_level_fields(data: bytes) -> dict[str, msgspec.Raw]:
    """Return the unparsed values of the fields of one JSON object; empty if the text is not one object."""
    try:
        return msgspec.json.decode(data.removeprefix(BOM), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    # NaN and Infinity are not valid JSON, but Python's json module writes them.
    if len(data) <= MAX_PARSED_BYTES and any(name in data for name in (b"NaN", b"Infinity")):
        with contextlib.suppress(RefusedInputError):
            return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in as_object(_load(data, "")).items()}
    return {}


def parse_json(data: bytes, what: str) -> Any:
    """Return the text as one JSON value, with null in place of NaN and infinities.

    Args:
        data: The text, at most `MAX_PARSED_BYTES`.
        what: Name of the text in messages, such as `the file`.

    Raises:
        RefusedInputError: The text is not JSON, is too large, or has a key twice in one object.
    """
    require_parsable(data, what)
    require_unique_keys(data, what)
    return _load(data, what)


def _load(data: bytes, what: str) -> Any:
    # msgspec refuses NaN and numbers beyond a double. Python's json module reads them, but takes twice the memory.
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.json.decode(data.removeprefix(BOM))
    try:
        return storable(json.loads(data.decode("utf-8-sig"), parse_constant=as_null))
    except (ValueError, RecursionError) as error:
        raise RefusedInputError("not_json", f"{what} is not valid JSON ({error}); write the file again") from error


def require_unique_keys(data: bytes, what: str) -> None:
    """Check that the text is JSON and that no object has a key twice, without building the values.

    Raises:
        RefusedInputError: The text is not JSON, or an object has a key twice.
    """

    def check(pairs: list[tuple[str, Any]]) -> None:
        try:
            reject_duplicate_keys(pairs)
        except ValueError as error:
            raise RefusedInputError("ambiguous_key", f"{what}: {error}; remove one of the two keys") from error

    # The hooks return None, so that the check takes little more memory than the text.
    text = data.decode("utf-8-sig", errors="replace")
    try:
        json.loads(text, object_pairs_hook=check, parse_float=as_null, parse_int=as_null, parse_constant=as_null)
    except (ValueError, RecursionError) as error:
        raise RefusedInputError("not_json", f"{what} is not valid JSON ({error}); write the file again") from error


def storable(value: Any) -> Any:
    """Return a value of Python's json module in a form that a record can store; a number such as 1e400 becomes None.

    Raises:
        ValueError: A text has an unpaired surrogate, or an integer has more than 64 bits.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


def as_null(_constant: str) -> None:
    """Return None. A hook of Python's json module for NaN and infinities, and for numbers that are not needed."""


def as_object(value: object) -> dict[str, Any]:
    """Return the value if it is a JSON object, otherwise an empty object.

    Example:
        >>> as_object({"a": 1}), as_object(None), as_object([1])
        ({'a': 1}, {}, {})
    """
    return value if isinstance(value, dict) else {}


def at_path(value: Any, path: str) -> Any:
    """Return the value at a path of keys and list indices with dots between them; None if there is no value.

    A key that contains dots has precedence over a path of several keys.
    """
    if isinstance(value, dict) and path in value:
        return value[path]
    dots = [position for position, sign in enumerate(path) if sign == "."]
    for position in [*reversed(dots), len(path)]:
        key, rest = path[:position], path[position + 1 :]
        inner = None
        if isinstance(value, dict):
            inner = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            inner = value[int(key)]
        if inner is not None:
            return at_path(inner, rest) if rest else inner
    return None
