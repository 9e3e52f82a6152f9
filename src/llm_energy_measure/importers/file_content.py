"""Read a source file: the first bytes, all bytes, or line by line. A file that changes during the import is refused."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from llm_energy_measure.constants import MAX_FILE_BYTES
from llm_energy_measure.importers.limits import MAX_BYTES
from llm_energy_measure.importers.report import RefusedInputError

START_BYTES = 1024 * 1024
"""Number of bytes that are read first. A longer file is read line by line if its format allows this."""

_MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longer lines are cut at this number of bytes. No format has rows of this length."""

_CHANGED = "the file changed while it was read; import the file after its tool has ended"
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
Progress = Callable[[Path, int], None]
"""Called with the path of a file and the number of its bytes that have been read."""


class _Summary(NamedTuple):
    sha256: str
    line_ends: int


class FileContent:
    """A regular file. Every read checks that the file did not change since it was first opened.

    Args:
        path: The file.
        progress: Called after each mebibyte of the first read.
        max_bytes: A larger file is refused.

    Attributes:
        path: The file.
        size: Number of bytes.
        start: The first `START_BYTES` bytes; all bytes of a shorter file.

    Raises:
        RefusedInputError: The path is not a regular file, is too large, is unreadable, or changed during the read.
    """

    def __init__(self, path: Path, progress: Progress | None = None, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._progress = progress
        self._status: os.stat_result | None = None
        self._seen = 0
        with self._open() as file:
            self.size = os.fstat(file.fileno()).st_size
            self.start = self._read(file, min(self.size, START_BYTES))

    @cached_property
    def whole(self) -> bytes:
        """All bytes, at most `MAX_BYTES`.

        Raises:
            RefusedInputError: The file has more than `MAX_BYTES` bytes, or changed.
        """
        if len(self.start) == self.size:
            return self.start
        if self.size > MAX_BYTES:
            limit = f"a file of this format is read as a whole, up to {MAX_BYTES // 2**20} MiB"
            raise RefusedInputError("too_large", f"it has {self.size} bytes, and {limit}; split the file")
        with self._open() as file:
            return self._read(file, self.size)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines, including the line feeds.

        Raises:
            RefusedInputError: The file changed.
        """
        with self._open() as file:
            while line := file.readline(_MAX_LINE_BYTES):
                yield line
                while len(line) == _MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = file.readline(_MAX_LINE_BYTES)
                self._show(file.tell())

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return self._summary.sha256

    @property
    def line_ends(self) -> int:
        """Number of line feeds."""
        return self._summary.line_ends

    @cached_property
    def _summary(self) -> _Summary:
        if len(self.start) == self.size:
            return _Summary(hashlib.sha256(self.start).hexdigest(), self.start.count(b"\n"))
        digest, line_ends = hashlib.sha256(), 0
        with self._open() as file:
            while chunk := file.read(START_BYTES):
                digest.update(chunk)
                line_ends += chunk.count(b"\n")
                self._show(file.tell())
        return _Summary(digest.hexdigest(), line_ends)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """Open the file. After the `with` block, check that the file did not change since it was first opened."""
        try:
            with os.fdopen(os.open(self.path, _OPEN_FLAGS), "rb", buffering=START_BYTES) as file:
                before = os.fstat(file.fileno())
                if not stat.S_ISREG(before.st_mode):
                    raise RefusedInputError("not_a_file", "it is not a regular file; name a file or a folder")
                if before.st_size > self._max_bytes:
                    found = f"it has {before.st_size} bytes, and the limit is {self._max_bytes}"
                    raise RefusedInputError("too_large", f"{found}; raise --max-file-size, or split the file")
                self._status = self._status or before
                yield file
                after = os.fstat(file.fileno())
            now = self.path.stat()
        except (OSError, ValueError) as error:
            found = getattr(error, "strerror", None) or str(error)
            raise RefusedInputError("unreadable", f"the operating system cannot read it: {found}") from error
        if not all(_is_unchanged(self._status, other) for other in (before, after, now)):
            raise RefusedInputError("changed_while_read", _CHANGED)

    def _read(self, file: BinaryIO, size: int) -> bytes:
        """Return exactly `size` bytes from the current position. Raise RefusedInputError if the file changed size."""
        data = bytearray()
        while len(data) < size and (chunk := file.read(min(START_BYTES, size - len(data)))):
            data += chunk
            self._show(len(data))
        if len(data) < size or (size == self.size and file.read(1)):
            raise RefusedInputError("changed_while_read", _CHANGED)
        return bytes(data)

    def _show(self, size: int) -> None:
        """Call `progress` at the first bytes, and when the first read passes another mebibyte."""
        if self._progress is not None and (size // START_BYTES > self._seen // START_BYTES or self._seen == 0):
            self._seen = max(size, 1)
            self._progress(self.path, size)


def _is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """True if size, times, inode and device of a file are equal."""
    names = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev")
    return all(getattr(before, name) == getattr(after, name) for name in names)
