"""Records to JSON bytes and back: limits, versions, migrations, fields that this version does not know.

A file that says exactly what a record says is decoded in one typed pass. Any other goes through an untyped one, which
brings older versions up to date, keeps unknown fields by JSON pointer (RFC 6901) and forgives what loses nothing: a
byte order mark, and `3.0` where a whole number belongs.

Long, because what is written and what is read have to agree, and are kept in one place for that.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing
import warnings
from functools import lru_cache
from typing import Any

import msgspec

from llm_energy_measure.constants import MAX_RECORD_DEPTH, SCHEMA_VERSION
from llm_energy_measure.domain.experiment import (
    AggregatedResult,
    Manifest,
    RawProcessResult,
    SourceFile,
    StoredBytes,
)
from llm_energy_measure.domain.schema import (
    MIGRATIONS,
    Document,
    Migration,
    find_non_finite,
    migrate,
    parse_version,
    timestamp_problems,
)
from llm_energy_measure.exceptions import InvalidResultError, ResultCorruptError, SchemaVersionError
from llm_energy_measure.results.store.unknown_fields import pointer_to, put_back, split_unknown, value_at
from llm_energy_measure.security import reject_duplicate_keys

if typing.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Values of a newer version that are set aside before the file counts as none of ours: each costs another conversion.
_MAX_NEW_VALUES = 50

# How much deeper a raw record is nested when it stands in an aggregate.
_EMBEDDED_LEVELS = 2

_RAW_DECODER = msgspec.json.Decoder(RawProcessResult)
_AGGREGATE_DECODER = msgspec.json.Decoder(AggregatedResult)
_MANIFEST_DECODER = msgspec.json.Decoder(Manifest)
_ENCODER = msgspec.json.Encoder()

BOM = b"\xef\xbb\xbf"
# Possessive, and content with a string that never ends: a hostile file costs one pass, not one for each quote.
_BRACKETS_AND_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_AS_BRACES = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_MOST_BRACKETS = 100_000
_KEEP_RAW = "keep the file; repair it or run its process again"
_CACHED_BYTES = 4096  # a larger manifest is decoded each time: it is none of ours
_DROP_MANIFEST = "remove it; what was expected is then unknown"
_REMAKE = "make the aggregate again from its raw results"

RecordT = typing.TypeVar("RecordT", RawProcessResult, AggregatedResult)


class NewerMinorVersionWarning(UserWarning):
    """A file was written by a newer minor version: it loads, and fields this version does not know are kept."""


class _AggregateEnvelope(AggregatedResult, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An aggregate whose raw records are still the bytes they were embedded as."""

    process_results: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]  # one step before


class _Id(msgspec.Struct):
    """The one field that says whose a raw result is."""

    experiment_id: str


class _Embedded(msgspec.Struct):
    """The one part of an aggregate that is wanted as bytes."""

    process_results: list[msgspec.Raw] = msgspec.field(default_factory=list)


def digest(data: bytes) -> str:
    """SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def source_file(name: str, data: bytes) -> SourceFile:
    """The identity of a raw file: its name, size and digest."""
    return SourceFile(name=name, size_bytes=len(data), sha256=digest(data))


def decode_raw(data: bytes, name: str, migrations: Sequence[Migration] = MIGRATIONS) -> RawProcessResult:
    """One process's record, with the bytes it came from as `record.stored`.

    Args:
        data: Content of the file.
        name: What to call the file in errors, such as `exp_7/process_3.json`; its last part becomes the source's name.
        migrations: The steps from older versions.

    Raises:
        ResultCorruptError: The bytes are no such record; the message says what they are.
        SchemaVersionError: They are of a newer major version, or of none.

    Warns:
        NewerMinorVersionWarning: They are of a newer minor version.
    """
    written = _as_written([data])
    if written is None:
        what = f"raw result {name}"
        body = _checked_body(data, what, _KEEP_RAW)
        record = _decode(RawProcessResult, body, what, _KEEP_RAW, migrations)
    else:
        [record] = written
    return record.attach_stored(StoredBytes(source=source_file(name.rpartition("/")[2], data), data=data))


def decode_written(files: Mapping[str, bytes]) -> list[RawProcessResult] | None:
    """The records of files, as `decode_raw` of each, faster; None if any of them needs a closer look.

    Args:
        files: Content by file name.
    """
    records = _as_written([*files.values()])
    if records is not None:
        for record, (name, data) in zip(records, files.items(), strict=True):
            record.attach_stored(StoredBytes(source=source_file(name, data), data=data))
    return records


def _as_written(files: list[bytes]) -> list[RawProcessResult] | None:
    """The records in files that say nothing but what this version knows, each thing once; None if any may say more.

    What comes out again as it went in has no key twice: a few quick passes over all of them prove what takes a slow one
    of each otherwise. Nearly every file is of this kind, and all that a sweep does is to read them.
    """
    # Blanks in texts go on both sides. Each file is one object, and none is the beginning of another: what holds of all
    # of them in a row holds of each.
    then = (b"[%b]" % b",".join(files)).translate(None, b" \n")
    try:
        records = [_RAW_DECODER.decode(data) for data in files]
        # An older version wrote fewer fields, another tool in another order: these come out the same as plain objects.
        if then != _without_blanks(records) and then != _without_blanks([msgspec.json.decode(data) for data in files]):
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if any(record.schema_version != SCHEMA_VERSION or record.unknown_fields is not msgspec.UNSET for record in records):
        return None
    # Few brackets can't nest deeply. To leave them out tells how many, several times faster than `count`.
    if len(then) - len(then.replace(b"{", b"").replace(b"[", b"")) <= MAX_RECORD_DEPTH:
        return records  # not even all of them together
    return None if any(_is_deeper(data, MAX_RECORD_DEPTH) for data in files) else records


def _without_blanks(values: list[Any]) -> bytes:
    """The values as JSON without blanks, those in texts left out as well."""
    return _ENCODER.encode(values).replace(b" ", b"")


def decode_aggregated(data: bytes, name: str, *, with_processes: bool = True) -> AggregatedResult:
    """An experiment's record; each embedded raw record keeps the bytes that it was embedded as.

    Args:
        data: Content of the file.
        name: What to call the file in errors.
        with_processes: Also look at the embedded raw records; without, `process_results` is empty, and what is wrong
            inside them, or stands twice in the file, goes unnoticed. Several times faster.

    Raises:
        ResultCorruptError: The bytes are no such record.
        SchemaVersionError: They, or a raw record inside, are of a newer major version, or of none.

    Warns:
        NewerMinorVersionWarning: They are of a newer minor version.
    """
    what = f"aggregated result {name}"
    body = _checked_body(data, what, _REMAKE, check_keys=with_processes, levels=MAX_RECORD_DEPTH + _EMBEDDED_LEVELS)
    envelope = _decode(_AggregateEnvelope, body, what, _REMAKE)
    sources = envelope.sources or []
    processes = []
    raws = []
    if with_processes:
        raws = typing.cast("list[msgspec.Raw]", envelope.process_results) or _embedded(body, what)
    for position, raw in enumerate(raws):
        embedded = bytes(raw)
        record = _decode(RawProcessResult, embedded, f"{what}, process_results[{position}]", _REMAKE)
        if len(sources) == len(raws):
            record.attach_stored(StoredBytes(source=sources[position], data=embedded))
        processes.append(record)
    fields = {field: getattr(envelope, field) for field in AggregatedResult.__struct_fields__}
    return AggregatedResult(**{**fields, "process_results": processes})


def embedded_records(data: bytes) -> list[bytes]:
    """The raw records inside an aggregate that can be read, as the bytes they stand there as, in order."""
    return [bytes(raw) for raw in msgspec.json.decode(data.removeprefix(BOM), type=_Embedded).process_results]


def _embedded(body: bytes, what: str) -> list[msgspec.Raw]:
    """The raw records of an aggregate that took the untyped way, as the bytes they were embedded as."""
    try:
        return msgspec.json.decode(body, type=_Embedded).process_results
    except msgspec.DecodeError as error:
        raise _corrupt(what, str(error), _REMAKE) from error


def decode_manifest(data: bytes, name: str) -> Manifest:
    """What was expected of an experiment. Raises `ResultCorruptError` as the other decoders do."""
    # Each save reads the manifest before and after it publishes: the same bytes, time and again.
    decode = _decode_manifest if len(data) <= _CACHED_BYTES else _decode_manifest.__wrapped__
    return decode(data, name)


@lru_cache(maxsize=64)
def _decode_manifest(data: bytes, name: str) -> Manifest:
    try:
        written = _MANIFEST_DECODER.decode(data)
        if written.schema_version == SCHEMA_VERSION and encode_manifest(written) == data:
            return written
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    what = f"manifest {name}"
    body = _checked_body(data, what, _DROP_MANIFEST)
    try:
        manifest = _MANIFEST_DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise _corrupt(what, str(error).replace("`", ""), _DROP_MANIFEST) from error
    version = parse_version(manifest.schema_version)
    if version is None or version > (parse_version(SCHEMA_VERSION) or version):
        found = f"schema version {manifest.schema_version!r} is newer than {SCHEMA_VERSION}, or none"
        raise SchemaVersionError(f"cannot load {what}", found, "upgrade llm-energy-measure")
    return manifest


def peek_id(data: bytes) -> str | None:
    """The experiment id in the bytes of a raw result, whatever else is in them; None if there is none."""
    try:
        return msgspec.json.decode(data.removeprefix(BOM), type=_Id).experiment_id
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest; the same manifest always has the same."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def encode_raw(record: RawProcessResult) -> bytes:
    """The bytes of a record as a file holds them: JSON, indented by two, unknown fields where they stood.

    No newline follows: embedded in an aggregate, where it would be white space between values, the very same bytes
    have to give the very same digest.
    """
    plain = record if record.unknown_fields is msgspec.UNSET else _document(record)
    return msgspec.json.format(msgspec.json.encode(plain, enc_hook=_plain), indent=2)


def encode_aggregated(record: AggregatedResult) -> bytes:
    """The bytes of an aggregate; raw records that came from a store are embedded verbatim, byte for byte.

    Raises:
        InvalidResultError: A figure is of the wrong type, not finite, or negative where that is meaningless.
    """
    head = _aggregate_head(msgspec.structs.replace(record, process_results=[]))
    embedded = [process.stored.data if process.stored else encode_raw(process) for process in record.process_results]
    # Spliced, not encoded: whoever hashes an embedded record finds the digest that stands under `sources`.
    bodies = b",\n".join(data.removeprefix(BOM) for data in embedded)
    return head.removesuffix(b"\n}") + b',\n  "process_results": [\n' + bodies + b"\n  ]\n}\n"


def _aggregate_head(record: AggregatedResult) -> bytes:
    """The JSON of an aggregate without its raw records, once every figure of it is known to be right."""
    if record.unknown_fields is msgspec.UNSET:
        try:
            encoded = _ENCODER.encode(record)
            if _AGGREGATE_DECODER.decode(encoded) == record:  # as in `_unchanged_by_json`
                # A line of its own: inside a text of the record it could not begin with a line end.
                return msgspec.json.format(encoded, indent=2).replace(b'\n  "process_results": [],', b"", 1)
        except (msgspec.DecodeError, TypeError, ValueError, NotImplementedError, RecursionError):
            pass
    outer = _document(record)
    try:
        problems = [f"{path} is {value!r}, which JSON can't hold" for path, value in find_non_finite(outer)]
        if not problems:
            _convert(AggregatedResult, outer)
    except msgspec.ValidationError as error:
        problems = [_explain(error, outer)]
    if problems:
        refused = InvalidResultError(
            f"cannot save aggregated result of experiment {record.experiment_id!r}",
            "; ".join(problems),
            "correct what made it",
        )
        refused.problems = tuple(problems)
        raise refused
    del outer["process_results"]
    return msgspec.json.format(msgspec.json.encode(outer), indent=2)


def require_valid_raw(record: RawProcessResult) -> RawProcessResult:
    """The record as it will be stored: numpy scalars and the like become plain numbers, every value is checked.

    Raises:
        InvalidResultError: A value is of the wrong type, not finite, or negative where that is meaningless, or the
            stamps can't be. `problems` has a sentence for each.
    """
    if not isinstance(record, RawProcessResult):
        raise _refused("cannot save a raw result", [f"it is a {type(record).__name__}, no RawProcessResult"])
    doing = f"cannot save raw result of experiment {record.experiment_id!r}, process {record.process_index!r}"
    if (same := _unchanged_by_json(record)) is not None and not timestamp_problems(same):
        return same
    checked = None
    try:
        document = _document(record)
        problems = [f"{path} is {value!r}, which JSON can't hold" for path, value in find_non_finite(document)]
        checked = None if problems else _convert(RawProcessResult, document)
        # What is written has to be read: keys that only differ in type (1 and "1") are one key of JSON.
        _checked_body(msgspec.json.encode(document), "", "")
    except msgspec.ValidationError as error:
        problems = [_explain(error, document)]
    except ResultCorruptError as error:
        problems = [error.found]
    except Exception as error:  # noqa: BLE001 - msgspec's own, and whatever somebody else's `tolist` raises: it is kept
        problems = [f"a value can't be stored as JSON ({type(error).__name__}: {error})"]
    else:
        problems += timestamp_problems(checked) if checked is not None else []
    if problems or checked is None:
        raise _refused(doing, problems)
    return checked


def _unchanged_by_json(record: RawProcessResult) -> RawProcessResult | None:
    """The record, if its bytes give the very same one; None if they don't, or if only a closer look can tell.

    What comes back equal had the right types and ranges, and nothing that JSON changes: no NaN, which turns into null,
    no numpy scalar, no key that is no text. It is the quick way, since nearly every record is of this kind.
    """
    if record.unknown_fields is not msgspec.UNSET:
        return None
    try:
        encoded = msgspec.json.encode(record)
        decoded = msgspec.json.decode(encoded, type=RawProcessResult)
        is_same = not _is_deeper(encoded, MAX_RECORD_DEPTH) and decoded == record
    except Exception:  # noqa: BLE001 - whatever it is, the closer look says it in words
        return None
    return decoded if is_same else None


def _refused(doing: str, problems: list[str]) -> InvalidResultError:
    refused = InvalidResultError(doing, "; ".join(problems), "correct the values and save again")
    refused.problems = tuple(problems)
    return refused


def _checked_body(
    data: bytes, what: str, advice: str, *, check_keys: bool = True, levels: int = MAX_RECORD_DEPTH
) -> bytes:
    """The JSON text in the bytes, once it is known that parsing it is safe and unambiguous."""
    if not data.strip(b" \t\r\n\0"):
        found = "the file is empty (0 bytes)" if not data else f"the file holds nothing but {len(data)} blank bytes"
        raise _corrupt(what, found, advice)
    body = data.removeprefix(BOM)
    if _is_deeper(body, levels):
        raise _corrupt(what, f"it is nested more than {levels} levels deep", advice)
    try:
        text = body.decode()
        if check_keys and not _has_no_key_twice(body):
            json.loads(text, object_pairs_hook=reject_duplicate_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _corrupt(what, f"it is not valid JSON ({error})", advice) from error
    return body


def _has_no_key_twice(body: bytes) -> bool:
    """True for most JSON in which no key stands twice: it comes out of an untyped pass as it went in."""
    try:
        return msgspec.json.encode(msgspec.json.decode(body)) == msgspec.json.format(body, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _is_deeper(body: bytes, levels: int) -> bool:
    """True if the text is nested deeper than that."""
    # Few brackets can't nest deeply, and that is nearly every raw file; only then is the text walked through, and no
    # further than need be: a file of nothing but brackets would take minutes.
    brackets = body.translate(_AS_BRACES, _NO_BRACKETS)
    if brackets.count(b"{") <= levels:
        return False
    if b"\\" not in body and _is_at_most(brackets, levels):
        return False
    depth = 0
    for match in _BRACKETS_AND_STRINGS.finditer(body):
        first = match[0][0]
        if first in b"[{":
            depth += 1
            if depth > levels:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def _is_at_most(brackets: bytes, levels: int) -> bool:
    """True for the braces and quotes of most text that is nested no deeper: they go pair by pair, a level at a time."""
    # Without escapes a bracket is in a string if an odd number of quotes stands before it: then some quote is left.
    left = brackets.replace(b'""', b"")
    if b'"' in left or len(left) > _MOST_BRACKETS:
        return False
    for _ in range(levels):
        before, left = len(left), left.replace(b"{}", b"")
        if len(left) in (0, before):
            break
    return not left


def _no_constant(name: str) -> None:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _decode(
    record_type: type[RecordT], body: bytes, what: str, advice: str, migrations: Sequence[Migration] = MIGRATIONS
) -> RecordT:
    try:
        record = msgspec.json.decode(body, type=record_type)
    except (msgspec.DecodeError, RecursionError):
        pass
    else:
        if record.schema_version == SCHEMA_VERSION and record.unknown_fields is msgspec.UNSET:
            return record
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _corrupt(what, f"it is not valid JSON ({error})", advice) from error
    if not isinstance(document, dict):
        raise _corrupt(what, f"it holds {_kind(document)} where an object belongs", advice)
    document = _current(document, what, migrations)
    is_newer = document.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION
    try:
        return _convert_newer(record_type, document) if is_newer else _convert(record_type, document)
    except msgspec.ValidationError as error:
        raise _corrupt(what, _explain(error, document), advice) from error


def _current(document: Document, what: str, migrations: Sequence[Migration]) -> Document:
    """The document in today's version; a newer minor one is taken as it is."""
    version = document.get("schema_version", SCHEMA_VERSION)
    known, current = parse_version(version), parse_version(SCHEMA_VERSION)
    if known is None or current is None:
        raise SchemaVersionError(
            f"cannot load {what}", f"{version!r:.40} is no schema version", f"expected one like {SCHEMA_VERSION!r}"
        )
    if known[0] > current[0]:
        raise SchemaVersionError(
            f"cannot load {what}",
            f"schema version {version!r} is newer than {SCHEMA_VERSION}",
            "upgrade llm-energy-measure",
        )
    if known > current:
        message = f"{what} has schema version {version!r}, newer than {SCHEMA_VERSION}; fields unknown here are kept"
        warnings.warn(message, NewerMinorVersionWarning, stacklevel=5)
        return document
    try:
        migrated = document if known == current else migrate(document, migrations)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        found = f"it is no record of schema version {version!r} ({type(error).__name__}: {error})"
        raise _corrupt(what, found, _KEEP_RAW) from error
    if migrated is None:
        raise SchemaVersionError(
            f"cannot load {what}",
            f"no way leads from schema version {version!r} to {SCHEMA_VERSION}",
            "ask whoever wrote it for a newer form",
        )
    return migrated


def _convert(record_type: type[RecordT], document: Document) -> RecordT:
    known, unknown = split_unknown(document, record_type)
    record = msgspec.convert(known, type=record_type)
    return msgspec.structs.replace(record, unknown_fields=unknown) if unknown else record


def _convert_newer(record_type: type[RecordT], document: Document) -> RecordT:
    """A record of a newer minor version: a value that this one can't hold (a new scope, say) is kept as unknown."""
    kept: dict[str, Any] = {}
    rest: Document = msgspec.json.decode(msgspec.json.encode(document))
    for _ in range(_MAX_NEW_VALUES):
        try:
            record = _convert(record_type, rest)
        except msgspec.ValidationError as error:
            parts = _place(error)
            parent, name = value_at(rest, parts[:-1]), parts[-1] if parts else ""
            if not isinstance(parent, dict) or parent.get(name) is None:
                raise
            kept[pointer_to(parts)] = parent[name]
            parent[name] = None
        else:
            unknown = {**(record.unknown_fields or {}), **kept}
            return msgspec.structs.replace(record, unknown_fields=unknown) if unknown else record
    return _convert(record_type, rest)


def _document(record: RawProcessResult | AggregatedResult) -> Document:
    """The record as plain objects, unknown fields where they stood."""
    document: Document = msgspec.to_builtins(record, enc_hook=_plain)
    put_back(document, document.pop("unknown_fields", {}))
    return document


def _plain(value: Any) -> Any:
    """A numpy or torch number or array as plain numbers; neither library is imported for it."""
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return to_list()
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    msg = f"{type(value).__name__} {value!r:.80}"
    raise NotImplementedError(msg)


def _place(error: msgspec.ValidationError) -> list[str]:
    """Where in the document a complaint of msgspec is about, part by part."""
    _, _, place = str(error).partition(" - at `$")
    return re.findall(r"[^.\[\]]+", place.removesuffix("`"))


def _explain(error: msgspec.ValidationError, document: Document) -> str:
    """The complaint of msgspec with the path in plain form and the value that stands there."""
    complaint, _, place = str(error).partition(" - at `$")
    complaint, path = complaint.replace("`", ""), place.removesuffix("`").removeprefix(".")
    if not path:
        return complaint
    parts = _place(error)
    holder = value_at(document, parts[:-1])
    if isinstance(holder, dict) and parts[-1] not in holder:
        return f"{path}: {complaint}"
    value = value_at(document, parts)
    shown = _kind(value) if isinstance(value, dict | list) else repr(value)
    return f"{path}: {complaint}, found {shown[:80]}"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _corrupt(what: str, found: str, advice: str) -> ResultCorruptError:
    return ResultCorruptError(f"Failed to load {what}", found, advice)
