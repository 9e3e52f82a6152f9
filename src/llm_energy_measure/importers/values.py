"""Parse single values of other tools: each function returns None if the input is not a valid value of its type."""

from __future__ import annotations

import hashlib
import re
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta

import msgspec

from llm_energy_measure.domain.units import kwh_to_j

_BOARDS = re.compile(r"\s*([0-9]{1,4}) x (.+?)\s*")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SPREADSHEET_TIME = re.compile(
    r"(?:(?P<year>[0-9]{4})(?P<sign>[-/.])(?P<month>[0-9]{1,2})(?P=sign)(?P<day>[0-9]{1,2})"
    r"|(?P<one>[0-9]{1,2})(?P<sign_2>[-/.])(?P<other>[0-9]{1,2})(?P=sign_2)(?P<last_year>[0-9]{4}))"
    r"[T ] *(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
)
_LONGEST_ID = 150
MAX_NUMBER = 1e250
"""Larger numbers are refused. A sum or a conversion of smaller numbers stays finite."""

MAX_INTEGER = 2**53
"""Larger integers are refused, because a float does not represent all of them exactly."""


def parse_number(text: str) -> float | None:
    """Return the finite number that the text contains; None if the text is not a number.

    Example:
        >>> parse_number("1.5e-3"), parse_number("machine"), parse_number("nan"), parse_number("1_000")
        (0.0015, None, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    # float() also accepts NaN, infinities, non-ASCII digits, and underscores between digits.
    return value if abs(value) < MAX_NUMBER and text.isascii() and "_" not in text else None


def parse_time(text: str) -> datetime | None:
    """Return the timestamp that the text contains; None if the text has no or several meanings.

    The text is ISO 8601, or a date and a time as spreadsheets and nvidia-smi write them. A date has two meanings if day
    and month could be exchanged. A timestamp without a UTC offset is naive.

    Example:
        >>> parse_time("2026-01-16T19:39"), parse_time("2026-01-16 9:39:00").hour, parse_time("1712121312000")
        (datetime.datetime(2026, 1, 16, 19, 39), 9, None)
        >>> parse_time("01.03.2026 10:00"), parse_time("31.03.2026 10:00")
        (None, datetime.datetime(2026, 3, 31, 10, 0))
    """
    # fromisoformat() accepts any separator after the date: it reads 1712121312000 (milliseconds) as a day of 1712.
    if len(text) > len("YYYYMMDD") and parse_number(text) is not None:
        return None
    try:
        return _in_calendar(datetime.fromisoformat(text))
    except ValueError:
        return _parse_spreadsheet_time(text)


def _parse_spreadsheet_time(text: str) -> datetime | None:
    """Return the timestamp; None if the text has another form, or if day and month could be exchanged."""
    match = _SPREADSHEET_TIME.fullmatch(text.strip())
    if match is None:
        return None
    if match["year"]:
        year, month, day = (int(match[name]) for name in ("year", "month", "day"))
    else:
        one, other = int(match["one"]), int(match["other"])
        if (one > 12) == (other > 12) and one != other:
            return None
        year, month, day = int(match["last_year"]), min(one, other), max(one, other)
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    micro = int((match["fraction"] or "0")[:6].ljust(6, "0"))
    try:
        return _in_calendar(datetime(year, month, day, hour, minute, second, micro))  # noqa: DTZ001 - no zone is stated
    except ValueError:
        return None


def parse_local_time(text: object, pattern: str) -> datetime | None:
    """Return the naive timestamp in a text that has the form of a `strptime` pattern; None for any other text.

    Example:
        >>> parse_local_time("20260816-160853", "%Y%m%d-%H%M%S"), parse_local_time(None, "%Y")
        (datetime.datetime(2026, 8, 16, 16, 8, 53), None)
    """
    try:
        return datetime.strptime(str(text), pattern)  # noqa: DTZ007 - the files have no zone
    except ValueError:
        return None


def from_epoch(seconds: float) -> datetime | None:
    """Return the UTC time of seconds since 1970; None if it is not between 2001 and 2286.

    Smaller numbers come from a monotonic clock, which has no relation to the time of day. Larger numbers are
    milliseconds.

    Example:
        >>> from_epoch(1768592398.5), from_epoch(13586624.1)
        (datetime.datetime(2026, 1, 16, 19, 39, 58, 500000, tzinfo=datetime.timezone.utc), None)
    """
    return datetime.fromtimestamp(seconds, UTC) if 1e9 < seconds < 1e10 else None


def add_seconds(moment: datetime, seconds: float) -> datetime | None:
    """Return the moment plus some seconds, which may be negative; None if the sum is outside the calendar.

    Example:
        >>> add_seconds(datetime(2026, 1, 16), -60.0), add_seconds(datetime(2026, 1, 16), 1e200)
        (datetime.datetime(2026, 1, 15, 23, 59), None)
    """
    try:
        return _in_calendar(moment + timedelta(seconds=seconds))
    except (OverflowError, ValueError):
        return None


def _in_calendar(moment: datetime) -> datetime | None:
    """Return the moment; None in the first and the last year, where a conversion of the time zone can overflow."""
    return moment if MINYEAR < moment.year < MAXYEAR else None


def as_number(value: object) -> float | None:
    """Return a decoded JSON value as a float; None if it is not a finite number of at least 0.

    Example:
        >>> as_number(3), as_number(True), as_number("3"), as_number(-1.0)
        (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if 0 <= value < MAX_NUMBER else None


def as_integer(value: object) -> int | None:
    """Return a decoded JSON value as an integer; None if it is not an integer of at least 0. `8.0` is an integer."""
    found = as_number(value)
    return int(found) if found is not None and found.is_integer() and found < MAX_INTEGER else None


def as_text(value: object) -> str | None:
    """Return a decoded JSON value without surrounding spaces; None if it is not a text, or blank."""
    return value.strip() or None if isinstance(value, str) else None


def as_joules(kwh: object) -> float | None:
    """Convert a decoded JSON value from kWh to joules; None if it is not a finite number of at least 0."""
    found = as_number(kwh)
    return None if found is None else kwh_to_j(found)


def parse_boards(gpu_model: str | None) -> tuple[int | None, str | None]:
    """Return the number and the model of GPUs in a text such as `4 x MODEL`; the number is None if it is not stated.

    Example:
        >>> parse_boards("4 x NVIDIA A100-PCIE-40GB"), parse_boards("Apple M1"), parse_boards(None)
        ((4, 'NVIDIA A100-PCIE-40GB'), (None, 'Apple M1'), (None, None))
    """
    if gpu_model is None or not gpu_model.strip():
        return None, None
    match = _BOARDS.fullmatch(gpu_model)
    return (int(match[1]), match[2]) if match else (None, gpu_model.strip())


def digest(value: object, length: int = 8) -> str:
    """Return the first hexadecimal digits of the SHA-256 of a JSON value; equal values have equal digests."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:length]


def identifier(*parts: object) -> str:
    """Return an experiment id made of these parts. The id is a safe folder name. Equal parts have equal ids.

    If the id cannot contain all parts unchanged, it ends with a digest of the parts, so that different parts have
    different ids.

    Example:
        >>> identifier("codecarbon", "llama_7b", "3d0c0253-711f"), identifier("codecarbon", "my project")
        ('codecarbon-llama_7b-3d0c0253-711f', 'codecarbon-my_project-a1cbde2a')
    """
    given = [str(part) for part in parts if str(part)]
    words = [_UNSAFE.sub("_", part) for part in given]
    name = "-".join(word for word in words if word)
    if words == given and len(name) <= _LONGEST_ID:
        return name
    of_parts = hashlib.sha256("\0".join(given).encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[:_LONGEST_ID]}-{of_parts}" if name else of_parts
