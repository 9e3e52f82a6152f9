"""Files of a bundle as names and contents: from an archive or from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from llm_energy_measure.bundle.outcomes import refuse

MAX_READ_BYTES = 1 << 30
"""Largest file that is read as a whole."""


class Source(Protocol):
    """The files of a bundle. Names are safe, and in the canonical order."""

    @property
    def names(self) -> list[str]:
        """Names of all files."""

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file in parts.

        Raises:
            BundleError: The content cannot be read, or its CRC is wrong.
        """


def read(source: Source, name: str, limit: int = MAX_READ_BYTES) -> bytes:
    """Return the content of a file.

    Raises:
        BundleError: It has more than `limit` bytes, or cannot be read.
    """
    if source.size(name) > limit:
        raise refuse("bag.form", name, f"it has {source.size(name):,} bytes; the limit is {limit:,}")
    return b"".join(source.chunks(name))


def lines(source: Source, name: str, limit: int = 1 << 26) -> Iterator[bytes]:
    r"""Yield the lines of a file without their ends. Each line ends with `\n` and has at most `limit` bytes.

    Raises:
        BundleError: A line is longer, or the last line does not end.
    """
    rest = b""
    for part in source.chunks(name):
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
        if len(rest) > limit:
            raise refuse("bag.form", name, f"a line has more than {limit:,} bytes")
    if rest:
        raise refuse("bag.form", name, "the last line does not end")
