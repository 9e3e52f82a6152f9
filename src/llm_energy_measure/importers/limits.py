"""What is too much to be read, or too odd, and the refusal of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

MAX_BYTES = 256 * 1024 * 1024
"""A larger file is refused before it is read; 100,000 rows of CodeCarbon have about 40 MB."""

MAX_PARSED_BYTES = 32 * 1024 * 1024
"""JSON that is parsed to the last value takes up to 30 times its size in memory; larger parts are refused."""

MAX_FILES = 100_000
"""Files of one import; more are refused with the advice to import part of them."""

MAX_ROWS = 2_000_000
"""Rows of one file; each has an entry in the report, and more are refused with the advice to split it."""

MAX_CELL = 131_072
"""Characters of a cell: the limit of Python's own csv module."""


class RefusedFileError(Exception):
    """A file, or a part of it, that is not read; for the loss report, and caught inside this package.

    Attributes:
        code: The reason code.
        sentence: What was found, and what to do.
    """

    def __init__(self, code: str, sentence: str) -> None:
        """Remember why."""
        self.code = code
        self.sentence = sentence
        super().__init__(sentence)


def require_parsable(data: bytes | msgspec.Raw, what: str) -> None:
    """Refuse what would take too much memory to parse."""
    size = len(bytes(data)) if isinstance(data, msgspec.Raw) else len(data)
    if size > MAX_PARSED_BYTES:
        limit = MAX_PARSED_BYTES // 2**20
        raise RefusedFileError("too_large", f"{what} has {size} bytes, and at most {limit} MiB are parsed; split it")


def require_rows(number: int) -> None:
    """Refuse a file of more rows than are read."""
    if number > MAX_ROWS:
        raise RefusedFileError("too_many", f"it has {number} rows, and at most {MAX_ROWS} are read; split it")


def require_once(columns: Sequence[str], needed: Collection[str]) -> None:
    """Refuse a table in which a column that is needed stands more than once: nobody can say which of them counts."""
    if twice := sorted({name for name in columns if name in needed and columns.count(name) > 1}):
        raise RefusedFileError("ambiguous_column", f"the column {', '.join(twice)} stands more than once")
