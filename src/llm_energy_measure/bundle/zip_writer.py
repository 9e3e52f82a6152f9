"""Write a deterministic ZIP: the same names and contents give the same bytes on each machine."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from llm_energy_measure.bundle.names import check_name, order_key
from llm_energy_measure.bundle.zip_records import LIMIT_32, ZipEntry, central_header, end_records, local_header

CHUNK_BYTES = 1 << 18
"""Size of the parts in which files are read, in bytes."""

_SPOOL_BYTES = 1 << 18


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a file from its start."""
    file.seek(0)
    while data := file.read(CHUNK_BYTES):
        yield data


def spool() -> BinaryIO:
    """Return a temporary file that stays in memory while it is small."""
    # mypy does not know that this class has all methods of BinaryIO that the callers use.
    return tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # type: ignore[return-value]


class ZipWriter:
    """Writes entries to a file. Close the writer after use.

    The central directory is in a temporary file, so that memory does not grow with the number of entries.

    Args:
        file: The file, at position 0.
        limit: Sizes and offsets of this value or more are in ZIP64 records.
    """

    def __init__(self, file: BinaryIO, *, limit: int = LIMIT_32) -> None:
        """Write nothing yet."""
        self._file = file
        self._limit = limit
        self._directory = spool()
        self._directory_size = 0
        self._offset = 0
        self._count = 0
        self._last: tuple[int, str, str] | None = None

    def close(self) -> None:
        """Delete the temporary file. The archive is complete only after `finish`."""
        self._directory.close()

    def add(self, name: str, content: bytes | BinaryIO) -> None:
        """Write an entry.

        Args:
            name: The name. Names come in the canonical order.
            content: The content. If this is a file, the writer reads the file twice from its start.

        Raises:
            BundleError: The name is unsafe.
            ValueError: The name is not after the previous name in the canonical order.
        """
        check_name(name)
        key = order_key(name)
        if self._last is not None and key <= self._last:
            msg = f"{name!r} is not after {self._last[2]!r} in the canonical order"
            raise ValueError(msg)
        self._last = key
        size = crc = 0
        for part in self._parts(content):
            size += len(part)
            crc = zlib.crc32(part, crc)
        entry = ZipEntry(name, size, crc, self._offset)
        header = local_header(entry, self._limit)
        self._file.write(header)
        for part in self._parts(content):
            self._file.write(part)
        record = central_header(entry, self._limit)
        self._directory.write(record)
        self._directory_size += len(record)
        self._offset += len(header) + size
        self._count += 1

    def finish(self) -> None:
        """Write the central directory and the end of the archive."""
        for part in chunks_of(self._directory):
            self._file.write(part)
        self._file.write(end_records(self._count, self._directory_size, self._offset, self._limit))

    @staticmethod
    def _parts(content: bytes | BinaryIO) -> Iterator[bytes]:
        if isinstance(content, bytes):
            yield content
        else:
            yield from chunks_of(content)
