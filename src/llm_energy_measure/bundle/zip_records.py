"""The records of a canonical ZIP archive: headers, central directory and end, as bytes.

Each field is a function of name, size, CRC and offset. All entries are stored (not compressed), have the time
1980-01-01 00:00 and the mode 0644. Source: APPNOTE.TXT 6.3.10 of PKWARE, sections 4.3, 4.4 and 4.5.3 (ZIP64).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

LIMIT_32 = 0xFFFF_FFFF
"""A size or an offset of this value or more does not fit into its 32-bit field, and is in a ZIP64 record."""

LIMIT_16 = 0xFFFF
"""A number of entries of this value or more does not fit into its 16-bit field, and is in a ZIP64 record."""

LOCAL_SIGNATURE = 0x04034B50
CENTRAL_SIGNATURE = 0x02014B50
END_SIGNATURE = 0x06054B50
END64_SIGNATURE = 0x06064B50
LOCATOR_SIGNATURE = 0x07064B50

LOCAL = struct.Struct("<IHHHHHIIIHH")
CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
END = struct.Struct("<IHHHHIIH")
END64 = struct.Struct("<IQHHIIQQQQ")
LOCATOR = struct.Struct("<IIQI")

_VERSION, _VERSION_64 = 20, 45
_UNIX = 3 << 8
_TIME, _DATE = 0, (1 << 5) | 1  # 1980-01-01 00:00, the earliest time of the format
_REGULAR_0644 = 0o100644 << 16
_EXTRA_64 = 1


class ZipEntry(NamedTuple):
    """An entry of an archive.

    Attributes:
        name: Name, with `/` between its parts.
        size: Size in bytes.
        crc: CRC-32 of the content.
        offset: Position of its local header in the archive.
    """

    name: str
    size: int
    crc: int
    offset: int


def local_header(entry: ZipEntry, limit: int = LIMIT_32) -> bytes:
    """Return the local header of an entry. If the size is `limit` bytes or more, the header has a ZIP64 field."""
    name = entry.name.encode("ascii")
    is_large = entry.size >= limit
    size = LIMIT_32 if is_large else entry.size
    extra = struct.pack("<HHQQ", _EXTRA_64, 16, entry.size, entry.size) if is_large else b""
    version = _VERSION_64 if is_large else _VERSION
    fields = (LOCAL_SIGNATURE, version, 0, 0, _TIME, _DATE, entry.crc, size, size, len(name), len(extra))
    return LOCAL.pack(*fields) + name + extra


def central_header(entry: ZipEntry, limit: int = LIMIT_32) -> bytes:
    """Return the record of an entry in the central directory."""
    name = entry.name.encode("ascii")
    values = [entry.size, entry.size] if entry.size >= limit else []
    values += [entry.offset] if entry.offset >= limit else []
    extra = struct.pack(f"<HH{len(values)}Q", _EXTRA_64, 8 * len(values), *values) if values else b""
    version = _VERSION_64 if values else _VERSION
    size = LIMIT_32 if entry.size >= limit else entry.size
    offset = LIMIT_32 if entry.offset >= limit else entry.offset
    return (
        CENTRAL.pack(
            *(CENTRAL_SIGNATURE, _UNIX | version, version, 0, 0, _TIME, _DATE, entry.crc, size, size),
            *(len(name), len(extra), 0, 0, 0, _REGULAR_0644, offset),
        )
        + name
        + extra
    )


def end_records(count: int, size: int, offset: int, limit: int = LIMIT_32) -> bytes:
    """Return the records after the central directory.

    Args:
        count: Number of entries.
        size: Size of the central directory in bytes.
        offset: Position of the central directory in the archive.
        limit: A size or an offset of this value or more is in a ZIP64 record.
    """
    large = b""
    if count >= LIMIT_16 or size >= limit or offset >= limit:
        version = _UNIX | _VERSION_64
        large = END64.pack(END64_SIGNATURE, END64.size - 12, version, _VERSION_64, 0, 0, count, count, size, offset)
        large += LOCATOR.pack(LOCATOR_SIGNATURE, 0, offset + size, 1)
    shown = min(count, LIMIT_16)
    sizes = (LIMIT_32 if size >= limit else size, LIMIT_32 if offset >= limit else offset)
    return large + END.pack(END_SIGNATURE, 0, 0, shown, shown, *sizes, 0)
