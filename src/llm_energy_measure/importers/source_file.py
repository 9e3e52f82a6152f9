"""A source file of another tool, with views of its content that are computed on first use.

A file of up to 1 MiB is read once. A longer file is read line by line if its format allows this, otherwise as a whole.
The record stores the digest of the file. The digest is that of the imported bytes, because a file that changes during
the import is refused.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import ImportOrigin, RawProcessResult
from llm_energy_measure.importers.european_csv import convert_semicolons, has_semicolons
from llm_energy_measure.importers.file_content import START_BYTES, FileContent
from llm_energy_measure.importers.json_text import BOM, as_null, parse_json, storable, top_level_fields
from llm_energy_measure.importers.limits import MAX_BYTES, MAX_CELL, MAX_PARSED_BYTES, require_parsable, require_rows
from llm_energy_measure.importers.report import Notes, RefusedInputError
from llm_energy_measure.security import reject_duplicate_keys

BLANK = b"\xef\xbb\xbf \t\r\n"
"""Bytes that may come before the first character of a JSON text."""

_SEPARATOR = re.compile(r"[ \t\r\n,]*")
_MAX_DAMAGED = 100
"""After this number of damaged objects, reading stops. A damaged object may take as long to parse as the whole file."""
_OWN_FIELDS = ("energy_metrics", "aggregation", "attempt")
"""Each raw result, aggregate and manifest of this tool has one of these fields."""


class ImportSource:
    """A source file, and views of its content that are computed on first use.

    Args:
        content: The file.

    Attributes:
        path: Path of the file.
        size: Number of bytes of the file.
    """

    def __init__(self, content: FileContent) -> None:
        self._content = content
        self.path = content.path
        self.size = content.size

    @cached_property
    def _converted(self) -> bytes | None:
        return convert_semicolons(self._content.whole) if has_semicolons(self._content.start) else None

    @property
    def is_converted(self) -> bool:
        """True for a table with semicolons that was converted to commas and decimal points."""
        return self._converted is not None

    @property
    def data(self) -> bytes:
        """The bytes that are parsed, as a whole.

        Raises:
            RefusedInputError: The file has more than `MAX_BYTES` bytes, or changed since it was opened.
        """
        return self._content.whole if self._converted is None else self._converted

    @property
    def start(self) -> bytes:
        """The first `START_BYTES` bytes of `data`."""
        return self._content.start if self._converted is None else self._converted[:START_BYTES]

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes of the file, in hexadecimal."""
        return self._content.sha256

    @cached_property
    def text(self) -> str:
        """`data` as text; U+FFFD replaces bytes that are not UTF-8."""
        return self.data.decode("utf-8-sig", errors="replace")

    def lines(self) -> Iterator[bytes]:
        """Return the lines of `data`, including line feeds. A file longer than `START_BYTES` is read line by line."""
        if self._converted is None and self.size > START_BYTES:
            return self._content.lines()
        return io.BytesIO(self.data)  # BytesIO does not copy the bytes

    @property
    def _begins_as_json(self) -> bool:
        return self.start.lstrip(BLANK)[:1] in (b"{", b"[")

    def require_lines(self) -> None:
        """Refuse a file that has more lines than `MAX_ROWS`."""
        require_rows(self._content.line_ends)

    def rows(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the text of each line after the first line. Empty lines are skipped.

        The text has no line end. U+FFFD replaces bytes that are not UTF-8. A file with more lines than `MAX_ROWS` is
        refused.
        """
        self.require_lines()
        for number, line in enumerate(self.lines(), start=1):
            text = line.decode("utf-8", errors="replace").rstrip("\r\n")
            if number > 1 and text:
                yield number, text

    @cached_property
    def _is_utf8(self) -> bool:
        try:
            for line in self.lines():
                line.decode()
        except UnicodeDecodeError:
            return False
        return True

    def note_undecodable(self, record: RawProcessResult, notes: Notes) -> None:
        """Add a note about a repair if the record contains text in which bytes that are not UTF-8 were replaced."""
        if not self._is_utf8 and "\ufffd".encode() in msgspec.json.encode(record):
            notes.repair("undecodable_text", "it has bytes that are not valid UTF-8; U+FFFD replaces them")

    @cached_property
    def header(self) -> list[str]:
        """Cells of the first line, without surrounding spaces; empty if the line is not a row of CSV."""
        line = self.start[: MAX_CELL + 1].partition(b"\n")[0]
        if b"\0" in line or len(line) > MAX_CELL or line.lstrip(b"\xef\xbb\xbf \t")[:1] in (b"{", b"["):
            return []
        text = line.decode("utf-8-sig", errors="replace").rstrip("\r")
        # A file whose rows end with a carriage return alone is not supported.
        cells = None if "\r" in text else split_row(text)
        return [cell.strip() for cell in cells or []]

    @cached_property
    def fields(self) -> dict[str, msgspec.Raw]:
        """Unparsed top-level fields, if the file is one JSON object; otherwise empty.

        The values share the memory of the file, so that a large file takes no extra memory.
        """
        if not self._begins_as_json or (self.size > MAX_BYTES and self._fields_of_first_line):
            return {}
        return top_level_fields(self.data)

    @property
    def _fields_of_first_line(self) -> dict[str, msgspec.Raw]:
        return top_level_fields(self.start.lstrip(BLANK)[:MAX_PARSED_BYTES].partition(b"\n")[0])

    @cached_property
    def items(self) -> list[msgspec.Raw]:
        """Unparsed objects, if the file is one JSON object or one list of objects; otherwise empty."""
        if self.fields:
            return [msgspec.Raw(self.data)]
        if self.size > MAX_PARSED_BYTES or not self._begins_as_json:
            return []
        try:
            items = msgspec.json.decode(self.data.removeprefix(BOM), type=list[msgspec.Raw])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return []
        return items if all(bytes(item)[:1] == b"{" for item in items) else []

    @cached_property
    def first_fields(self) -> dict[str, msgspec.Raw]:
        """Unparsed top-level fields of the first JSON object, if the file consists of objects; otherwise empty."""
        if self.fields or not self.start.lstrip(BLANK).startswith(b"{"):
            return self.fields
        if found := self._fields_of_first_line:
            return found
        try:
            first = next((value for value in self.objects() if isinstance(value, dict)), {})
        except RefusedInputError:
            return {}
        return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in first.items()}

    def objects(self) -> Iterator[dict[str, Any] | RefusedInputError]:
        """Yield the JSON objects of a file that contains one object after the other.

        For a damaged object, and for an object that has a key twice, a `RefusedInputError` is yielded and not raised.
        After a damaged object, reading continues at the next line that begins with an object.

        Raises:
            RefusedInputError: The file is larger than `MAX_PARSED_BYTES`, or has more objects than `MAX_ROWS`.
        """
        require_parsable(self.data, "the file")
        ambiguous: list[ValueError] = []

        def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            try:
                return reject_duplicate_keys(pairs)
            except ValueError as error:
                ambiguous.append(error)
                return dict(pairs)

        decoder = json.JSONDecoder(object_pairs_hook=build_object, parse_constant=as_null)
        text, position, number, damaged = self.text, 0, 0, 0
        while position >= 0 and (begin := _skip_separator(text, position)) < len(text):
            number += 1
            require_rows(number)
            try:
                value, position = decoder.raw_decode(text, begin)
                value = storable(value)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                yield RefusedInputError("ambiguous_key", str(ambiguous[-1])) if ambiguous else value
            else:
                damaged += 1
                if damaged == _MAX_DAMAGED:
                    position = -1
                elif position <= begin:
                    position = text.find("\n{", begin)
                end = "; the rest of the file is not read" if damaged == _MAX_DAMAGED else ""
                line = text.count("\n", 0, begin) + 1
                yield RefusedInputError("torn", f"line {line} does not begin a complete JSON object{end}")
            ambiguous.clear()

    def json(self) -> Any:
        """Return the file as one JSON value, with null in place of NaN and infinities.

        Raises:
            RefusedInputError: The file is not JSON, or is larger than `MAX_PARSED_BYTES`.
        """
        return parse_json(self.data, "the file")

    @property
    def is_our_own(self) -> bool:
        """True for a raw result, an aggregate or a manifest of this tool."""
        fields = set(self.fields)
        return {"schema_version", "experiment_id"} <= fields and not fields.isdisjoint(_OWN_FIELDS)

    def origin(self, tool: str, version: str | None = None, row: int | None = None) -> ImportOrigin:
        """Return the origin of a record of this file.

        Args:
            tool: The tool that wrote the file.
            version: Version of the tool.
            row: Line or number of the object, counted from 1.
        """
        # POSIX allows any bytes in a file name, but JSON stores only text.
        name = os.fsencode(self.path.name).decode(errors="backslashreplace")
        return ImportOrigin(tool=tool, version=version, file=name, sha256=self.sha256, row=row)


def split_row(text: str) -> list[str] | None:
    """Return the cells of one row of CSV; None if a quote is not closed, or a cell has more than `MAX_CELL` characters.

    Example:
        >>> split_row('1,"two, three"'), split_row('1,"two')
        (['1', 'two, three'], None)
    """
    if '"' not in text:
        cells = text.split(",")
    else:
        try:
            [cells] = csv.reader([text], strict=True)
        except (csv.Error, ValueError):
            return None
    return None if len(text) > MAX_CELL and max(map(len, cells)) > MAX_CELL else cells


def _skip_separator(text: str, position: int) -> int:
    """Return the position of the next character that is neither white space nor a comma."""
    match = _SEPARATOR.match(text, position)
    return position if match is None else match.end()
