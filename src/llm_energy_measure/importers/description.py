"""Describe the content of a file in the error message for an unknown format."""

from __future__ import annotations

import json
import re

from llm_energy_measure.importers.file_content import START_BYTES
from llm_energy_measure.importers.limits import MAX_PARSED_BYTES
from llm_energy_measure.importers.source_file import BLANK, ImportSource

_BLANK_BYTES = b" \t\r\n\0"
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


def describe(source: ImportSource) -> str:
    """Return what the file contains, as a noun phrase that follows `found`."""
    if is_blank(source):
        return f"{source.size} blank bytes"
    magic = next((name for start, name in _MAGIC.items() if source.start.startswith(start)), None)
    if magic is not None:
        return magic
    if source.is_our_own and "aggregation" in source.fields and is_first_major(source):
        return "an aggregate of a schema before 2.0.0; import the raw results that it comes from"
    if source.is_our_own:
        return "a result of this tool, which needs no import ('results merge' combines results directories)"
    if source.first_fields:
        return f"a JSON object with the fields {_first_names(list(source.first_fields))}"
    return _describe_text(source)


def is_first_major(source: ImportSource) -> bool:
    """Return True if the schema version of the file is 1.x, which is older than schema 2.0.0."""
    found = re.match(rb'"1\.', bytes(source.fields.get("schema_version", b"")))
    return found is not None


def _describe_text(source: ImportSource) -> str:
    if source.start.lstrip(BLANK)[:1] in (b"{", b"["):
        line = json_error_line(source)
        where = "" if line is None else f" (the syntax error is in line {line})"
        return f"JSON that is not an object, or is incomplete{where}"
    if len(source.header) > 1:
        return f"a table with the columns {_first_names(source.header)}"
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if sign in "".join(source.header):
            return f"a line with {name}; a table needs commas between the cells"
    return f"{source.size} bytes that are neither JSON nor a table; a table needs commas and at least two columns"


def is_blank(source: ImportSource) -> bool:
    """True if the file has only spaces, line ends and NUL bytes, or is empty."""
    if source.start.strip(_BLANK_BYTES):
        return False
    return source.size <= START_BYTES or not source.data.strip(_BLANK_BYTES)


def json_error_line(source: ImportSource) -> int | None:
    """Return the line of the first syntax error in a file that begins as JSON; None if it is unknown."""
    if source.fields or source.start.lstrip(BLANK)[:1] not in (b"{", b"[") or source.size > MAX_PARSED_BYTES:
        return None
    try:
        json.loads(source.text)
    except json.JSONDecodeError as error:
        return error.lineno
    except (ValueError, RecursionError):
        pass
    return None


def _first_names(names: list[str]) -> str:
    """Return the first eight names, each cut at 40 characters, and the number of the others."""
    shown = [name if len(name) <= 40 else f"{name[:40]}..." for name in names[:8]]
    return ", ".join(shown) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
