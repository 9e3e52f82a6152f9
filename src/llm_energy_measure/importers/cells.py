"""Values out of text and JSON that other tools wrote: a number is a number, or it is unknown."""

from __future__ import annotations

import hashlib
import re
from datetime import MAXYEAR, MINYEAR, datetime, timedelta
from typing import Any

_BOARDS = re.compile(r"\s*([0-9]{1,4}) x (.+?)\s*")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_ID = 150
GREATEST = 1e250
"""No measurement comes near, and its sum with others, or in another unit, is still a number."""

GREATEST_WHOLE = 2**53
"""Nothing is counted so far, and greater whole numbers, such as ids, don't survive as floats."""


def number_in(text: str) -> float | None:
    """The finite number that a text is, or None if it is none.

    Example:
        >>> number_in("1.5e-3"), number_in("machine"), number_in("nan"), number_in("1_000")
        (0.0015, None, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    # float() also takes NaN, the infinities, digits of other scripts, and underscores between digits.
    return value if abs(value) < GREATEST and text.isascii() and "_" not in text else None


def time_in(text: str) -> datetime | None:
    """The time stamp that a text is, in ISO 8601; None if it is none. One without a zone stays without.

    Example:
        >>> time_in("2026-01-16T19:39"), time_in("1712121312000")
        (datetime.datetime(2026, 1, 16, 19, 39), None)
    """
    # fromisoformat() takes any sign between day and time: milliseconds since 1970 could be an evening of 1712.
    if len(text) > len("YYYYMMDD") and number_in(text) is not None:
        return None
    try:
        return _usable(datetime.fromisoformat(text))
    except ValueError:
        return None


def shifted(moment: datetime, seconds: float) -> datetime | None:
    """A moment so many seconds later, or earlier; None if the calendar has no such one.

    Example:
        >>> shifted(datetime(2026, 1, 16), -60.0), shifted(datetime(2026, 1, 16), 1e200)
        (datetime.datetime(2026, 1, 15, 23, 59), None)
    """
    try:
        return _usable(moment + timedelta(seconds=seconds))
    except (OverflowError, ValueError):
        return None


def _usable(moment: datetime) -> datetime | None:
    """The moment, unless it is at an end of the calendar, where it would be none in another zone."""
    return moment if MINYEAR < moment.year < MAXYEAR else None


def number(value: Any) -> float | None:
    """A finite number of decoded JSON that is not negative, or None.

    Example:
        >>> number(3), number(True), number("3"), number(-1.0)
        (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if 0 <= value < GREATEST else None


def whole(value: Any) -> int | None:
    """A whole number of decoded JSON that is not negative, or None; `8.0` is one."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() and found < GREATEST_WHOLE else None


def text(value: Any) -> str | None:
    """A text of decoded JSON that says something, or None."""
    return value.strip() or None if isinstance(value, str) else None


def boards(gpu_model: str | None) -> tuple[int | None, str | None]:
    """Number and model of the boards that `N x MODEL` names; the number is None where it is not said.

    Example:
        >>> boards("4 x NVIDIA A100-PCIE-40GB"), boards("Apple M1"), boards(None)
        ((4, 'NVIDIA A100-PCIE-40GB'), (None, 'Apple M1'), (None, None))
    """
    if gpu_model is None or not gpu_model.strip():
        return None, None
    match = _BOARDS.fullmatch(gpu_model)
    return (int(match[1]), match[2]) if match else (None, gpu_model.strip())


def identifier(*parts: object) -> str:
    """An experiment id of these parts: readable, safe as a folder name, and always the same for the same parts.

    Where it does not show all of them, a digest tells it from that of other parts.

    Example:
        >>> identifier("codecarbon", "llama_7b", "3d0c0253-711f"), identifier("codecarbon", "my project")
        ('codecarbon-llama_7b-3d0c0253-711f', 'codecarbon-my_project-a1cbde2a')
    """
    given = [str(part) for part in parts if str(part)]
    words = [_UNSAFE.sub("_", part) for part in given]
    name = "-".join(word for word in words if word)
    if words == given and len(name) <= _LONGEST_ID:
        return name
    digest = hashlib.sha256("\0".join(given).encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[:_LONGEST_ID]}-{digest}" if name else digest
