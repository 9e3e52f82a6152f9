"""Files of a bundle as names and contents: from an archive or from a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from llm_energy_measure.bundle.outcomes import refuse

MAX_READ_BYTES = 1 << 30
"""Maximum size of a file that is read into memory as a whole, in bytes."""

# Files that belong to no experiment are kept in memory. A bundle that this package made has about 12 of these files.
_MAX_OTHERS = 1_000


class StoredFile(NamedTuple):
    """A file of a bundle.

    Attributes:
        name: Name of the file, with `/` between the parts.
        size: Size of the file in bytes.
        chunks: Function that yields the content in parts. It raises `BundleError` if the content cannot be read, or
            if its CRC is wrong.
    """

    name: str
    size: int
    chunks: Callable[[], Iterator[bytes]]


class Source(Protocol):
    """The files of a bundle. `check_name` accepts all names, and no two names are equal if case is ignored."""

    @property
    def others(self) -> Mapping[str, StoredFile]:
        """The files that belong to no experiment, by name."""

    def files(self) -> Iterator[StoredFile]:
        """Yield all files in the canonical order."""


def add_other(others: dict[str, StoredFile], file: StoredFile) -> None:
    """Add a file that belongs to no experiment.

    Raises:
        BundleError: More than 1,000 files belong to no experiment.
    """
    others[file.name] = file
    if len(others) > _MAX_OTHERS:
        raise refuse("bag.form", file.name, f"more than {_MAX_OTHERS:,} files belong to no experiment")


def read(file: StoredFile, limit: int = MAX_READ_BYTES) -> bytes:
    """Return the content of a file.

    Raises:
        BundleError: The file has more than `limit` bytes, or cannot be read.
    """
    if file.size > limit:
        raise refuse("bag.form", file.name, f"it has {file.size:,} bytes; the limit is {limit:,}")
    return b"".join(file.chunks())


def lines(file: StoredFile, limit: int = 1 << 26) -> Iterator[bytes]:
    r"""Yield the lines of a file without their ends. Each line ends with `\n` and has at most `limit` bytes.

    Raises:
        BundleError: A line has more than `limit` bytes, or the last line has no `\n`.
    """
    rest = b""
    for part in file.chunks():
        *whole, rest = (rest + part).split(b"\n")
        if max(map(len, (*whole, rest))) > limit:
            raise refuse("bag.form", file.name, f"a line has more than {limit:,} bytes")
        yield from whole
    if rest:
        raise refuse("bag.form", file.name, "the last line has no line break at its end")
