"""Text in the encoding of the terminal. ASCII signs replace the characters that this encoding does not have."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

_HANDLER = "llm_energy_measure.ascii"

_ASCII_SIGNS = {"≥": ">=", "≤": "<=", "±": "+/-", "…": "...", "µ": "u"}


def escape_unencodable(stream: Any) -> None:
    """Make a text stream escape the characters that its encoding does not have. By default, Python raises an error."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_HANDLER)


def encodable(text: str) -> str:
    r"""Return the text with ASCII signs, or escapes such as `\xe9`, for characters that stdout cannot show.

    The result has exactly the characters that the terminal shows, so that callers can compute the width.
    """
    if text.isascii() or (name := _encoding_of_terminal()) is None:
        return text
    return text.encode(name, _HANDLER).decode(name)


def is_unicode() -> bool:
    """Return True if stdout can show all characters."""
    return _encoding_of_terminal() is None


def _encoding_of_terminal() -> str | None:
    """Return the encoding of stdout if it cannot encode all Unicode characters, else None.

    In the locale C, Python writes UTF-8 (PEP 540). But users set LC_ALL=C for a terminal that shows only ASCII.
    """
    name = getattr(sys.stdout, "encoding", None) or "utf-8"
    if not name.lower().replace("-", "").startswith("utf"):
        return name
    is_c = os.environ.get("LC_ALL") in ("C", "POSIX")
    is_chosen = "PYTHONIOENCODING" in os.environ or os.environ.get("PYTHONUTF8") == "1"
    return "ascii" if is_c and not is_chosen else None


def _ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the replacement of the characters that cannot be encoded, and the position after these characters."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    escaped = [_ASCII_SIGNS.get(char) or char.encode("ascii", "backslashreplace").decode() for char in found]
    return "".join(escaped), error.end


codecs.register_error(_HANDLER, _ascii)
