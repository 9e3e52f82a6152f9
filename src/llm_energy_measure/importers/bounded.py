"""Reading what nobody vouches for: whole files of a known size, walked folders, and nothing that changed meanwhile.

A file is read once, whole, and used only from memory: what is parsed, what is hashed and what is reported are the very
same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import stat
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.domain.experiment import ImportOrigin
from llm_energy_measure.importers.json_text import fields_of, parsed, require_unique_keys, storable, unknown_number
from llm_energy_measure.importers.limits import (
    MAX_BYTES,
    MAX_CELL,
    MAX_PARSED_BYTES,
    RefusedFileError,
    require_parsable,
    require_rows,
)
from llm_energy_measure.security import reject_duplicate_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_energy_measure.domain.experiment import RawProcessResult

_CHUNK = 1024 * 1024
_GAP = re.compile(r"[ \t\r\n,]*")
_MOST_TORN = 100
"""Each torn object can take as long to parse as all that is behind it."""
_BLANK = b"\xef\xbb\xbf \t\r\n"
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_OUR_OWN = ("energy_metrics", "aggregation", "attempt")  # of a raw result, an aggregate, a manifest
_MAGIC = {
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip-compressed data",
    b"BZh": "bzip2-compressed data",
    b"\xfd7zXZ": "xz-compressed data",
    b"\x28\xb5\x2f\xfd": "zstd-compressed data",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


class Original:
    """A file of another tool: its bytes, and views of them that are made when first asked for.

    Args:
        path: Where it is.
        data: All of its bytes.

    Attributes:
        path: Where it is.
        shown: The path as text, for the report.
        data: All of its bytes.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        """Remember both."""
        self.path = path
        self.shown = str(path)
        self.data = data

    @cached_property
    def sha256(self) -> str:
        """Digest of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def text(self) -> str:
        """The bytes as text; what is no UTF-8 is replaced."""
        return self.data.decode("utf-8-sig", errors="replace")

    def require_lines(self) -> None:
        """Refuse a file of more lines than are read.

        Raises:
            RefusedFileError: There are more.
        """
        require_rows(self.data.count(b"\n"))

    def lines(self) -> Iterator[str]:
        """The lines, with their ends; what is no UTF-8 is replaced. They take no more memory than the longest of them.

        Raises:
            RefusedFileError: There are too many.
        """
        self.require_lines()
        for number, line in enumerate(io.BytesIO(self.data)):  # shares the bytes
            yield line.decode("utf-8" if number else "utf-8-sig", errors="replace")

    @cached_property
    def _is_utf8(self) -> bool:
        try:
            for line in io.BytesIO(self.data):
                line.decode()
        except UnicodeDecodeError:
            return False
        return True

    def is_replaced_in(self, record: RawProcessResult) -> bool:
        """True if bytes of a record's text were no UTF-8, and are replaced."""
        return not self._is_utf8 and "\ufffd".encode() in msgspec.json.encode(record)

    @cached_property
    def header(self) -> list[str]:
        """Cells of the first line, without blanks around them; empty if that is no line of a table."""
        line = self.data[: MAX_CELL + 1].partition(b"\n")[0]
        if b"\0" in line or len(line) > MAX_CELL or line.lstrip(b"\xef\xbb\xbf \t")[:1] in (b"{", b"["):
            return []
        try:
            [cells] = csv.reader([line.decode("utf-8-sig", errors="replace").rstrip("\r")], strict=True)
        except (csv.Error, ValueError):
            return []
        return [cell.strip() for cell in cells]

    @cached_property
    def fields(self) -> dict[str, msgspec.Raw]:
        """Top-level fields of the file's one JSON object, not parsed yet; empty if it is none.

        A large file costs no more than its bytes for that.
        """
        return fields_of(self.data)

    @cached_property
    def items(self) -> list[msgspec.Raw]:
        """The objects of a file that is one list of them, or a single one, not parsed yet; none if it is neither."""
        if self.fields:
            return [msgspec.Raw(self.data)]
        if len(self.data) > MAX_PARSED_BYTES:
            return []
        try:
            items = msgspec.json.decode(self.data.removeprefix(b"\xef\xbb\xbf"), type=list[msgspec.Raw])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return []
        return items if all(bytes(item)[:1] == b"{" for item in items) else []

    @cached_property
    def first_fields(self) -> dict[str, msgspec.Raw]:
        """Top-level fields of the first of one or more JSON objects that stand one behind the other."""
        body = self.data.lstrip(_BLANK)
        if self.fields or not body.startswith(b"{"):
            return self.fields
        first_line = body[:MAX_PARSED_BYTES].partition(b"\n")[0]
        if found := fields_of(first_line):
            return found
        try:
            first = next((value for value in self.objects() if isinstance(value, dict)), None)
        except RefusedFileError:
            first = None
        return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in (first or {}).items()}

    def objects(self) -> Iterator[dict[str, Any] | RefusedFileError]:
        """The JSON objects of the file, one behind the other.

        One that is torn, or in which a key stands twice, is a refusal in its place. Behind a torn one goes on the next
        line that begins with an object.

        Raises:
            RefusedFileError: There is too much to parse.
        """
        require_parsable(self.data, "the file")
        twice: list[ValueError] = []

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            try:
                return reject_duplicate_keys(pairs)
            except ValueError as error:
                twice.append(error)
                return dict(pairs)

        decoder = json.JSONDecoder(object_pairs_hook=unique, parse_constant=unknown_number)
        text, position, number, torn = self.text, 0, 0, 0
        while position >= 0 and (begin := _GAP.match(text, position).end()) < len(text):  # type: ignore[union-attr]  # it can be empty
            number += 1
            require_rows(number)
            try:
                value, position = decoder.raw_decode(text, begin)
                value = storable(value)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                torn += 1
                if torn == _MOST_TORN:
                    position = -1
                elif position <= begin:
                    position = text.find("\n{", begin)
                rest = "; nothing behind it is read" if torn == _MOST_TORN else ""
                line = text.count("\n", 0, begin) + 1
                yield RefusedFileError("torn", f"at line {line} stands what is no whole object{rest}")
            else:
                yield RefusedFileError("ambiguous_key", str(twice.pop())) if twice else value
            twice.clear()

    def json(self) -> Any:
        """The file as one JSON value; NaN and the infinities, which other tools write, are None.

        Raises:
            RefusedFileError: It is none, or there is too much to parse.
        """
        return parsed(self.data, "the file")

    def require_unique_keys(self) -> None:
        """Refuse a file of JSON in which a key stands twice, where nothing but parts of it is parsed.

        Raises:
            RefusedFileError: One does, or it is no JSON.
        """
        require_unique_keys(self.data, "the file")

    @property
    def torn_at(self) -> int | None:
        """Line at which the file stops being JSON, if it begins as that; None if it does not, or can't be told."""
        if self.fields or self.data.lstrip(_BLANK)[:1] not in (b"{", b"[") or len(self.data) > MAX_PARSED_BYTES:
            return None
        try:
            json.loads(self.text)
        except json.JSONDecodeError as error:
            return error.lineno
        except (ValueError, RecursionError):
            pass
        return None

    @property
    def is_our_own(self) -> bool:
        """True for a result of this tool, or a manifest, as a results directory holds them."""
        fields = set(self.fields)
        return {"schema_version", "experiment_id"} <= fields and not fields.isdisjoint(_OUR_OWN)

    def found(self) -> str:
        """What is in the file, for a person who expected something else."""
        if not self.data.strip(b" \t\r\n\0"):
            return f"{len(self.data)} blank bytes"
        magic = next((words for start, words in _MAGIC.items() if self.data.startswith(start)), None)
        if magic is not None:
            return magic
        if self.is_our_own:
            return "a result of this tool, which needs no import ('results merge' brings directories together)"
        if self.first_fields:
            return f"a JSON object with the fields {_some(list(self.first_fields))}"
        return self._found_in_text()

    def _found_in_text(self) -> str:
        if self.data.lstrip(_BLANK)[:1] in (b"{", b"["):
            torn_at = "" if self.torn_at is None else f" (it breaks off at line {self.torn_at})"
            return f"JSON that is no object, or torn{torn_at}"
        if len(self.header) > 1:
            return f"a table with the columns {_some(self.header)}"
        for sign, name in ((";", "semicolons"), ("\t", "tabs")):
            if sign in "".join(self.header):
                return f"a line with {name}, where commas separate the cells of a table"
        return f"{len(self.data)} bytes that are neither JSON nor a table, which has commas between two columns or more"

    def origin(self, tool: str, version: str | None = None, row: int | None = None) -> ImportOrigin:
        """Where a record of this file comes from.

        Args:
            tool: The tool that wrote the file.
            version: Its version.
            row: The line, counted from 1.
        """
        # A name can be of bytes that are no text, which JSON does not hold.
        name = os.fsencode(self.path.name).decode(errors="backslashreplace")
        return ImportOrigin(tool=tool, version=version, file=name, sha256=self.sha256, row=row)


def read_original(path: Path, progress: Callable[[Path, int], None] | None = None) -> Original:
    """A file, whole.

    Args:
        path: The file.
        progress: Told the path and the bytes read so far, after each mebibyte.

    Raises:
        RefusedFileError: It is no regular file, too large, can't be read, or changed while it was read.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise RefusedFileError("not_a_file", "it is not a regular file")
            if before.st_size > MAX_BYTES:
                limit = f"more than the limit of {MAX_BYTES // 2**20} MiB"
                raise RefusedFileError("too_large", f"it has {before.st_size} bytes, {limit}; split it")
            data = bytearray()
            while len(data) <= before.st_size and (chunk := os.read(descriptor, _CHUNK)):
                data += chunk
                if progress is not None:
                    progress(path, len(data))
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        now = path.stat()
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise RefusedFileError("unreadable", f"the system refused: {found}") from error
    if len(data) != before.st_size or not _same(before, after) or not _same(before, now):
        raise RefusedFileError("changed_while_read", "it changed while it was read; import it when it is finished")
    return Original(path, bytes(data))


def walk(folder: Path, unreadable: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder under one, itself first, with the names of its files in order.

    Names that begin with a dot are passed over, links to folders not followed.

    Args:
        folder: The folder.
        unreadable: Told the error of each folder that can't be listed.
    """
    for name, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
        yield Path(name), sorted(file for file in files if not file.startswith("."))


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """True if nothing says that a file changed between two looks at it."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev")
    )


def _some(names: list[str]) -> str:
    """The first few of many names."""
    shown = [name if len(name) <= 40 else f"{name[:40]}..." for name in names[:8]]
    return ", ".join(shown) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
