"""What is kept of a record that was refused: the reasons, and the record however odd its values are."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.constants import MAX_RECORD_DEPTH
from llm_energy_measure.domain.schema import find_non_finite

if TYPE_CHECKING:
    from collections.abc import Sequence


def rejected_document(record: object, problems: Sequence[str]) -> bytes:
    """The bytes that keep a refused record: the reasons, and the record however odd its values are."""
    kept = {"rejected": list(problems), "record": _printable(record)}
    return msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n"


def _printable(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Any object as something JSON can hold, without loss to a reader; `inside` has what the object stands in."""
    if callable(getattr(value, "tolist", None)):
        # An array's own text leaves out the middle.
        # Whatever somebody else's method raises: the record is kept all the same.
        with contextlib.suppress(Exception):
            value = value.tolist()
    if id(value) in inside or len(inside) > 2 * MAX_RECORD_DEPTH:
        return f"({type(value).__name__} that contains itself, or nested too deeply)"
    within = (*inside, id(value))
    if isinstance(value, msgspec.Struct):
        return _printable({name: getattr(value, name, None) for name in value.__struct_fields__}, within)
    if isinstance(value, dict):
        names = [str(key) for key in value]
        times = Counter(names)
        return {
            # 1 and "1" would be one key of JSON.
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
        # Python refuses to write thousands of digits in decimals.
        return value if value.bit_length() < 64 else f"{value:#x}"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if type(value) is str:
        return _writable(value)
    try:
        return _writable(repr(value))
    except Exception as error:  # noqa: BLE001 - somebody else's method; the record is kept all the same
        return f"({type(value).__name__} whose repr raises {type(error).__name__})"


def _writable(text: str) -> str:
    """The text, with what is no Unicode (halves of surrogate pairs, from undecodable file names) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()
