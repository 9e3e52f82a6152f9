"""Read a canonical ZIP that can come from another person. The reader trusts no field.

The reader takes only names, sizes and CRCs from the archive, and re-derives all other bytes: an archive is accepted
only if it is equal to what `ZipWriter` writes. This excludes links, compressed and encrypted entries, overlapping
entries, and hidden bytes between, before and after the entries.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from llm_energy_measure.bundle.names import check_names, order_key
from llm_energy_measure.bundle.outcomes import refuse
from llm_energy_measure.bundle.zip_records import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    END,
    END64,
    END64_SIGNATURE,
    END_SIGNATURE,
    LIMIT_32,
    LOCATOR,
    LOCATOR_SIGNATURE,
    ZipEntry,
    central_header,
    end_records,
    local_header,
)
from llm_energy_measure.bundle.zip_writer import CHUNK_BYTES
from llm_energy_measure.exceptions import ResultNotFoundError, StorageError

_ENCRYPTED = 1

# An entry needs about 500 bytes of memory. A bundle of 1,000,000 experiments of two processes has 4,000,000 entries.
_MAX_ENTRIES = 5_000_000
_MAX_DIRECTORY_BYTES = 1 << 30
_ADVICE_FOLDER = "unzip it and verify the folder"


class _Directory(NamedTuple):
    """Number of entries, size in bytes and position of the central directory."""

    entries: int
    size: int
    offset: int


class ZipSource:
    """The files of an archive. Use it as a context manager.

    Args:
        path: The archive.
        limit: See `ZipWriter`.

    Raises:
        BundleError: The archive is not canonical. The code names the reason.
        ResultNotFoundError: There is no such file.
        StorageError: The file cannot be read.
    """

    def __init__(self, path: str | Path, *, limit: int = LIMIT_32) -> None:
        """Open the archive and check all records of all entries; the contents are not read."""
        self._limit = limit
        self._odd: str | None = None
        self._file = _open(path)
        try:
            self._length = self._file.seek(0, os.SEEK_END)
            directory = self._read_end()
            entries = list(self._read_directory(directory))
            self._check_layout(entries, directory)
        except BaseException:
            self._file.close()
            raise
        self._entries = {entry.name: entry for entry in entries}
        self.names = list(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self._entries[name].size

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file in parts, and check its CRC at the end."""
        entry = self._entries[name]
        position = entry.offset + len(local_header(entry, self._limit))
        rest, crc = entry.size, 0
        while rest:
            part = self._bytes_at(position, min(rest, CHUNK_BYTES))
            crc = zlib.crc32(part, crc)
            position += len(part)
            rest -= len(part)
            yield part
        if crc != entry.crc:
            raise refuse("file.changed", name, "its content differs from its CRC-32 in the archive")

    def _bytes_at(self, position: int, size: int) -> bytes:
        self._file.seek(position)
        data = self._file.read(size) if position >= 0 else b""
        if len(data) != size:
            raise refuse("zip.damaged", None, f"the file ends before byte {position + size:,}")
        return data

    def _read_end(self) -> _Directory:
        """Return what the end of the archive states about the central directory."""
        if self._length < END.size:
            raise refuse("zip.damaged", None, f"a file of {self._length} bytes is not a ZIP archive")
        position = self._length - END.size
        fields = END.unpack(self._bytes_at(position, END.size))
        if fields[0] != END_SIGNATURE:
            raise refuse("zip.damaged", None, "the file does not end like a ZIP archive without a comment")
        count, size, offset = fields[4], fields[5], fields[6]
        start = position - LOCATOR.size - END64.size
        if start >= 0 and self._bytes_at(position - LOCATOR.size, 4) == struct.pack("<I", LOCATOR_SIGNATURE):
            large = END64.unpack(self._bytes_at(start, END64.size))
            if large[0] != END64_SIGNATURE:
                raise refuse("zip.damaged", None, "its ZIP64 record is not where the locator has to find it")
            count, size, offset = large[7], large[8], large[9]
            position = start
        directory = _Directory(count, size, offset)
        if offset + size > position or count * CENTRAL.size > size:
            raise refuse("zip.damaged", None, "the central directory does not fit into the file")
        if count > _MAX_ENTRIES or size > _MAX_DIRECTORY_BYTES:
            raise refuse("zip.size", None, f"it has {count:,} entries; the limit is {_MAX_ENTRIES:,}")
        if offset + size < position:
            raise refuse("zip.gap", None, "the archive has bytes after its central directory")
        found = self._bytes_at(position, self._length - position)
        if found != end_records(*directory, self._limit):
            raise refuse("zip.form", None, "the end of the archive differs from its canonical form")
        return directory

    def _read_directory(self, directory: _Directory) -> Iterator[ZipEntry]:
        """Yield the entries of the central directory, and remember the first record that is not canonical."""
        data = self._bytes_at(directory.offset, directory.size)
        position = 0
        for _ in range(directory.entries):
            if position + CENTRAL.size > len(data):
                raise refuse("zip.damaged", None, "the central directory ends inside a record")
            fields = CENTRAL.unpack_from(data, position)
            name_end = position + CENTRAL.size + fields[10]
            end = name_end + fields[11] + fields[12]
            raw_name = data[position + CENTRAL.size : name_end]
            if fields[0] != CENTRAL_SIGNATURE or end > len(data):
                raise refuse("zip.damaged", None, f"record at byte {directory.offset + position:,} is not an entry")
            entry = self._entry(fields, raw_name, data[name_end : name_end + fields[11]])
            if data[position:end] != central_header(entry, self._limit):
                self._odd = self._odd or entry.name  # reported last, because other reasons are more exact
            position = end
            yield entry
        if position != len(data):
            raise refuse("zip.gap", None, "the central directory has bytes after its last record")

    def _entry(self, fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> ZipEntry:
        try:
            name = raw_name.decode("ascii")
        except UnicodeDecodeError:
            shown = raw_name.decode("utf-8", "backslashreplace")
            raise refuse("name.character", shown, "the name has a character outside A-Za-z0-9._~-") from None
        if fields[4] != 0 or fields[3] & _ENCRYPTED:
            raise refuse("zip.compressed", name, f"it is compressed or encrypted; {_ADVICE_FOLDER}")
        kind = stat.S_IFMT(fields[15] >> 16)
        if kind not in (0, stat.S_IFREG):
            raise refuse("zip.link", name, "it is a link or another special file")
        size, offset = fields[9], fields[16]
        large = [value for (value,) in struct.iter_unpack("<Q", extra[4 : 4 + (len(extra) - 4) // 8 * 8])]
        if size == LIMIT_32 and len(large) >= 2:
            size, large = large[0], large[2:]
        if offset == LIMIT_32 and large:
            offset = large[0]
        return ZipEntry(name, size, fields[7], offset)

    def _check_layout(self, entries: list[ZipEntry], directory: _Directory) -> None:
        """Check that the entries fill the file from its start to the central directory, in the canonical order."""
        check_names(entry.name for entry in entries)
        _check_gaps(entries, directory, self._limit)
        if self._odd is not None:
            raise refuse("zip.form", self._odd, "a field of its record differs from its canonical value")
        for before, after in itertools.pairwise(entries):
            if order_key(before.name) >= order_key(after.name):
                raise refuse("zip.order", after.name, f"it comes after {before.name}")
        for entry in entries:
            header = local_header(entry, self._limit)
            if self._bytes_at(entry.offset, len(header)) != header:
                raise refuse("zip.form", entry.name, "its local header differs from its canonical form")


def _check_gaps(entries: list[ZipEntry], directory: _Directory, limit: int) -> None:
    expected = 0
    for entry in sorted(entries, key=lambda one: one.offset):
        if entry.offset < expected:
            raise refuse("zip.overlap", entry.name, "it uses bytes of another entry")
        if entry.offset > expected:
            raise refuse("zip.gap", entry.name, f"{entry.offset - expected:,} bytes before it belong to no entry")
        expected = entry.offset + len(local_header(entry, limit)) + entry.size
    if expected > directory.offset:
        raise refuse("zip.overlap", None, "an entry and the central directory use the same bytes")
    if expected < directory.offset:
        raise refuse("zip.gap", None, f"{directory.offset - expected:,} bytes before the central directory")


def _open(path: str | Path) -> BinaryIO:
    doing = f"cannot read the bundle {path}"
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would block
            raise StorageError(doing, "it is not a regular file", "pass a ZIP file or a folder")
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise ResultNotFoundError(doing, "the file was not found", "check the spelling") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(doing, error.strerror or str(error), "check the permissions") from error
