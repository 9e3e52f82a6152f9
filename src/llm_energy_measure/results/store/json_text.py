"""Parse JSON text of any origin, if parsing is safe and the text has only one meaning.

A text is refused if it is empty, not UTF-8, too large to parse, nested too deeply, or if an object contains a key
twice. Parsers keep the last value of a repeated key, and the text does not show which value is right.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from llm_energy_measure.constants import MAX_RECORD_DEPTH
from llm_energy_measure.domain.unknown_fields import value_at
from llm_energy_measure.security import reject_duplicate_keys, require_bounded_json

_BLANKS = b" \t\r\n"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_AS_BRACES = bytes.maketrans(b"[]", b"{}")
_NO_MARKS = bytes(set(range(256)) - set(b'{}[]"'))
_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder().decode


def parse(body: bytes, levels: int = MAX_RECORD_DEPTH) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: The text is not JSON, its values need too much memory, it is nested more than `levels` levels deep,
            or an object contains a key twice. The message is a clause, such as `it is not valid JSON (...)`.
    """
    too_deep = f"it is nested more than {levels} levels deep"
    if not body:
        raise ValueError("the file is empty (0 bytes)")
    if not body.strip(_BLANKS + b"\0"):
        raise ValueError(f"the file contains only {len(body)} blank bytes")
    require_bounded_json(body)
    if (position := body.find(b"\0")) >= 0 and not body.startswith(_UTF_16_MARKS):
        raise ValueError(f"it is not valid JSON (NUL bytes from byte {position} on, as after a crash of the machine)")
    try:
        value = _DECODE(body)
        encoded = _ENCODE(value)
    except RecursionError:
        raise ValueError(too_deep) from None
    except ValueError as error:  # also msgspec.DecodeError and UnicodeDecodeError
        raise ValueError(f"it is not valid JSON ({_complaint(body) or error})") from error
    if not has_unique_keys(body, encoded) and (complaint := _complaint(body)):
        raise ValueError(f"it is not valid JSON ({complaint})")
    if is_too_deep(encoded, levels):  # `encoded` has the depth of the text, and is shorter
        raise ValueError(too_deep)
    return value


def _complaint(body: bytes) -> str | None:
    """Return the error of Python's JSON parser for a text; None if there is no error.

    The messages of this parser are clearer than those of `msgspec`, and it finds keys that occur twice.
    """
    try:
        json.loads(body.decode(), object_pairs_hook=reject_duplicate_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return str(error)
    return None


def has_unique_keys(body: bytes, encoded: bytes) -> bool:
    """Return True if no object of a JSON text contains a key twice; False if only a slow parser can find out.

    A colon follows each key, and all other colons are in strings. If no string contains a backslash, re-encoding keeps
    the colons in strings. A decoder drops all but one value of a repeated key, so that `encoded` then has fewer colons
    than `body`.

    Args:
        body: The text.
        encoded: The text after decoding and encoding by `msgspec`.
    """
    return b"\\" not in body and body.count(b":") == encoded.count(b":")


def is_too_deep(body: bytes, levels: int = MAX_RECORD_DEPTH) -> bool:
    """Return True if a valid JSON text is nested more than `levels` levels deep."""
    # Nesting depth is at most the number of brackets, so few brackets mean that the check can be skipped.
    if body.count(b"{") + body.count(b"[") <= levels:
        return False
    # Brackets inside strings do not count. Two adjacent strings can be joined, because both are removed.
    marks = _STRING.sub(b"", body) if b"\\" in body else body
    brackets = _STRING.sub(b"", marks.translate(_AS_BRACES, _NO_MARKS).replace(b'""', b""))
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"")  # removes the innermost level
    return bool(brackets)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def location(error: msgspec.ValidationError) -> list[str]:
    """Return the parts of the path in an error of msgspec, such as `["energy_metrics", "sensors", "0"]`."""
    _, _, path = str(error).partition(" - at `$")
    return re.findall(r"[^.\[\]]+", path.removesuffix("`"))


def explain(error: msgspec.ValidationError, document: Any) -> str:
    """Return an error of msgspec as `path: complaint, found value`."""
    complaint, _, path = str(error).partition(" - at `$")
    complaint, path = complaint.replace("`", ""), path.removesuffix("`").removeprefix(".")
    if not path:
        return complaint
    parts = location(error)
    parent = value_at(document, parts[:-1])
    if isinstance(parent, dict) and parts[-1] not in parent:
        return f"{path}: {complaint}"
    value = value_at(document, parts)
    shown = kind_of(value) if isinstance(value, dict | list) else repr(value)
    return f"{path}: {complaint}, found {shown[:80]}"


def kind_of(value: object) -> str:
    """Return the JSON type of a value with its article, such as `an object`."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
