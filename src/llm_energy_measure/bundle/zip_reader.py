"""Read a canonical ZIP that can come from another person. The reader trusts no field.

The reader uses only names, sizes and CRCs of the archive, and computes all other bytes from them. An archive is
accepted only if `ZipWriter` writes the same bytes for the same files. This rule excludes links, compressed and
encrypted entries, overlapping entries, and hidden bytes between, before and after the entries. The central directory is
read again for each iteration, so that memory does not grow with the number of entries.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from llm_energy_measure.bundle.name_table import NameTable, scratch_database
from llm_energy_measure.bundle.names import folder_of, order_key
from llm_energy_measure.bundle.outcomes import refuse
from llm_energy_measure.bundle.sources import StoredFile, add_other
from llm_energy_measure.bundle.zip_records import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    END,
    END64,
    END64_SIGNATURE,
    END_SIGNATURE,
    LIMIT_32,
    LOCAL_SIGNATURE,
    LOCATOR,
    LOCATOR_SIGNATURE,
    ZipEntry,
    central_header,
    end_records,
    local_header,
)
from llm_energy_measure.bundle.zip_writer import CHUNK_BYTES
from llm_energy_measure.exceptions import BundleError, ResultNotFoundError, StorageError

_ENCRYPTED = 1

# A bundle of 1,000,000 experiments of two processes has 4,000,000 entries.
_MAX_ENTRIES = 5_000_000
_MAX_DIRECTORY_BYTES = 1 << 30
_MAX_RECORD_BYTES = CENTRAL.size + 3 * 0xFFFF
_WINDOW_BYTES = 1 << 18
_ADVICE_FOLDER = "unzip it and verify the folder"


class _Directory(NamedTuple):
    """Number of entries, size in bytes and position of the central directory."""

    entries: int
    size: int
    offset: int


class ZipSource:
    """The files of an archive. Close this object after use.

    Args:
        path: The archive.
        limit: See `ZipWriter`.

    Raises:
        BundleError: The archive is not canonical. The attribute `code` is one of `outcomes.CODES`.
        ResultNotFoundError: The path does not exist.
        StorageError: The file cannot be read.
    """

    def __init__(self, path: str | Path, *, limit: int = LIMIT_32) -> None:
        """Open the archive and check all records of all entries; the contents are not read."""
        self.others: dict[str, StoredFile] = {}
        self._limit = limit
        self._file = _open(path)
        try:
            self._length = self._file.seek(0, os.SEEK_END)
            self._directory = self._read_end()
            self._check_entries()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the archive."""
        self._file.close()

    def files(self) -> Iterator[StoredFile]:
        """Yield all files in the canonical order."""
        return (self._stored(entry) for entry, _ in self._entries())

    def _stored(self, entry: ZipEntry) -> StoredFile:
        return StoredFile(entry.name, entry.size, partial(self._chunks, entry))

    def _chunks(self, entry: ZipEntry) -> Iterator[bytes]:
        """Yield the content of an entry in parts, and check its CRC at the end."""
        position = entry.offset + len(local_header(entry, self._limit))
        rest, crc = entry.size, 0
        while rest:
            part = self._bytes_at(position, min(rest, CHUNK_BYTES))
            crc = zlib.crc32(part, crc)
            position += len(part)
            rest -= len(part)
            yield part
        if crc != entry.crc:
            raise refuse("file.changed", entry.name, "its content differs from its CRC-32 in the archive")

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
            is_zip = self._bytes_at(0, 4) == struct.pack("<I", LOCAL_SIGNATURE)
            reason = "the end of the archive is missing, or bytes follow it" if is_zip else "it is not a ZIP archive"
            raise refuse("zip.damaged", None, reason)
        count, size, offset = fields[4], fields[5], fields[6]
        start = position - LOCATOR.size - END64.size
        if start >= 0 and self._bytes_at(position - LOCATOR.size, 4) == struct.pack("<I", LOCATOR_SIGNATURE):
            large = END64.unpack(self._bytes_at(start, END64.size))
            if large[0] != END64_SIGNATURE:
                raise refuse("zip.damaged", None, "its ZIP64 record is not directly before its ZIP64 locator")
            count, size, offset = large[7], large[8], large[9]
            position = start
        directory = _Directory(count, size, offset)
        if offset + size > position or count * CENTRAL.size > size:
            raise refuse("zip.damaged", None, "the central directory does not fit into the file")
        if count > _MAX_ENTRIES:
            raise refuse("zip.size", None, f"it has {count:,} entries; the limit is {_MAX_ENTRIES:,}")
        if size > _MAX_DIRECTORY_BYTES:
            too_large = f"its central directory has {size:,} bytes; the limit is {_MAX_DIRECTORY_BYTES:,}"
            raise refuse("zip.size", None, too_large)
        if offset + size < position:
            raise refuse("zip.gap", None, "the archive has bytes after its central directory")
        found = self._bytes_at(position, self._length - position)
        if found != end_records(*directory, self._limit):
            raise refuse("zip.form", None, "the end of the archive differs from its canonical form")
        return directory

    def _entries(self) -> Iterator[tuple[ZipEntry, bool]]:
        """Yield the entries of the central directory, and whether their records are canonical."""
        start, size = self._directory.offset, self._directory.size
        end = start + size
        data, position = b"", 0
        for _ in range(self._directory.entries):
            if len(data) - position < _MAX_RECORD_BYTES and start + len(data) < end:
                start += position
                data, position = self._bytes_at(start, min(_WINDOW_BYTES, end - start)), 0
            if position + CENTRAL.size > len(data):
                raise refuse("zip.damaged", None, "the central directory ends inside a record")
            fields = CENTRAL.unpack_from(data, position)
            name_end = position + CENTRAL.size + fields[10]
            record_end = name_end + fields[11] + fields[12]
            raw_name = data[position + CENTRAL.size : name_end]
            if fields[0] != CENTRAL_SIGNATURE or record_end > len(data):
                raise refuse("zip.damaged", None, f"record at byte {start + position:,} is not an entry")
            entry = self._entry(fields, raw_name, data[name_end : name_end + fields[11]])
            yield entry, data[position:record_end] == central_header(entry, self._limit)
            position = record_end
        if start + position != end:
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

    def _check_entries(self) -> None:
        """Check that the entries fill the file from its start to the central directory, in the canonical order."""
        odd: BundleError | None = None  # raised last, because the other errors describe the cause more exactly
        end, before = 0, None
        with scratch_database() as database:
            table = NameTable(database)
            for entry, is_canonical in self._entries():
                table.add(entry.name)
                header = local_header(entry, self._limit)
                self._check_place(entry, end, len(header))
                end = entry.offset + len(header) + entry.size
                if before is not None and order_key(before) >= order_key(entry.name):
                    raise refuse("zip.order", entry.name, f"it comes after {before}; {_ADVICE_FOLDER}")
                before = entry.name
                if not is_canonical:
                    odd = odd or refuse("zip.form", entry.name, f"its record is not canonical; {_ADVICE_FOLDER}")
                elif self._bytes_at(entry.offset, len(header)) != header:
                    odd = odd or refuse("zip.form", entry.name, "its local header differs from its canonical form")
                if folder_of(entry.name) is None:
                    add_other(self.others, self._stored(entry))
        if end < self._directory.offset:
            found = f"{self._directory.offset - end:,} bytes between the last entry and the central directory"
            raise refuse("zip.gap", None, f"the archive has {found}")
        if odd is not None:
            raise odd

    def _check_place(self, entry: ZipEntry, end: int, header_size: int) -> None:
        """Check that an entry starts where the one before it ends, and ends before the central directory."""
        if entry.offset < end:
            raise refuse("zip.overlap", entry.name, f"it starts {end - entry.offset:,} bytes too early")
        if entry.offset > end:
            raise refuse("zip.gap", entry.name, f"it starts {entry.offset - end:,} bytes too late")
        if entry.offset + header_size + entry.size > self._directory.offset:
            raise refuse("zip.overlap", entry.name, "its bytes overlap the central directory")


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
