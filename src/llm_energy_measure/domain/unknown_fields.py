"""Unknown fields: taken from a document by JSON pointer (RFC 6901) when it is read, and put back when it is written."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any

import msgspec

if typing.TYPE_CHECKING:
    from llm_energy_measure.domain.schema import Document

# Maximum number of digits of a list index. No list is so long, and int() raises an error for thousands of digits.
_INDEX_DIGITS = 12


def put_back(document: Document, unknown: dict[str, Any]) -> None:
    """Put unknown fields back into a document, if their parent object exists and has no value for the field."""
    for pointer, value in unknown.items():
        parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        parent = value_at(document, parts[:-1])
        if isinstance(parent, dict) and parent.get(parts[-1]) is None:
            parent[parts[-1]] = value


def pointer_to(parts: list[str]) -> str:
    """Return the JSON pointer of a path in a document.

    Example:
        >>> pointer_to(["energy_metrics", "a/b"])
        '/energy_metrics/a~1b'
    """
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in parts)


def value_at(value: Any, parts: list[str]) -> Any:
    """Return the value at a path in a document; None if there is none."""
    for part in parts:
        if isinstance(value, list):
            is_index = part.isdecimal() and len(part) <= _INDEX_DIGITS and int(part) < len(value)
            value = value[int(part)] if is_index else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def split_unknown(value: Any, shape: Any, pointer: str = "") -> tuple[Any, dict[str, Any]]:
    """Return the part of a document that a record type knows, and the unknown fields by JSON pointer.

    Args:
        value: The document, or a value in it.
        shape: The record type, or the shape of the value: see `_shapes`.
        pointer: JSON pointer of the value.
    """
    unknown: dict[str, Any] = {}
    if isinstance(value, list) and isinstance(shape, list):
        items = [split_unknown(item, shape[0], f"{pointer}/{index}") for index, item in enumerate(value)]
        for _, more in items:
            unknown |= more
        return [item for item, _ in items], unknown
    if isinstance(value, float) and shape is int and value.is_integer():
        return int(value), unknown
    if not isinstance(value, dict) or not _is_record(shape):
        return value, unknown
    known = {}
    shapes = _shapes(shape)
    for key, item in value.items():
        if shapes.get(key) == [msgspec.Raw]:
            continue  # the decoder reads this field from the bytes of the file
        is_known = key in shapes and key != "unknown_fields"
        # Most values are known and plain: they need no pointer. Building a pointer is the slowest step of a save.
        item_pointer = "" if is_known and not isinstance(item, dict | list) else pointer + pointer_to([key])
        if is_known:
            known[key], more = split_unknown(item, shapes[key], item_pointer)
            unknown |= more
        else:
            unknown[item_pointer] = item
    return known, unknown


@cache
def _shapes(record_type: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the shape of each field: a record type, int, msgspec.Raw, a list of one shape, or None for other types."""
    return {info.encode_name: _shape(info.type) for info in msgspec.structs.fields(record_type)}


def _shape(annotation: Any) -> Any:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _shape(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return next((shape for inner in arguments if (shape := _shape(inner)) is not None), None)
    if origin is list:
        inner = _shape(arguments[0])
        return None if inner is None else [inner]
    return annotation if annotation in (int, msgspec.Raw) or _is_record(annotation) else None


def _is_record(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, msgspec.Struct)
