"""Limits of an import, and the checks that refuse input beyond these limits."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.security import require_bounded_json

MAX_BYTES = 256 * 1024 * 1024
"""Largest file that is decoded as a whole, in bytes; larger files are refused before they are read."""

MAX_PARSED_BYTES = 32 * 1024 * 1024
"""Largest JSON text that is parsed completely, in bytes."""

# Parsed JSON may take this memory in addition to 3 times the size of the text. A list of 600,000 samples that are
# objects takes 250 MB.
_FREE_BYTES = 300_000_000

MAX_FILES = 100_000
"""Maximum number of files of one import."""

MAX_ROWS = 2_000_000
"""Maximum number of rows of one file; the report has an entry for each row."""

MAX_CELL = 131_072
"""Maximum number of characters of a cell: the limit of Python's csv module."""


def require_parsable(data: bytes, what: str) -> None:
    """Refuse JSON text that takes too much memory to parse.

    Args:
        data: The text.
        what: Name of the text in the message, such as `the file`.
    """
    if len(data) > MAX_PARSED_BYTES:
        limit = MAX_PARSED_BYTES // 2**20
        raise RefusedInputError(
            "too_large", f"{what} has {len(data)} bytes, and at most {limit} MiB are parsed; split the file"
        )
    try:
        require_bounded_json(data, free_bytes=_FREE_BYTES)
    except ValueError as error:
        raise RefusedInputError("too_large", f"{what} has too many values ({error}); split the file") from error


def require_rows(number: int) -> None:
    """Refuse a file with more than `MAX_ROWS` rows."""
    if number > MAX_ROWS:
        found = f"the file has {number} rows, and at most {MAX_ROWS} are read"
        raise RefusedInputError("too_many", f"{found}; split the file")


def require_unique_columns(columns: Sequence[str], needed: Collection[str]) -> None:
    """Refuse a table in which a needed column appears more than once, because its value would be ambiguous."""
    if repeated := sorted({name for name in columns if name in needed and columns.count(name) > 1}):
        found = f"the column {', '.join(repeated)} appears more than once in the header"
        raise RefusedInputError("ambiguous_column", f"{found}; remove or rename one of them")
