"""Encode records to the bytes of their files, and decode these bytes.

A raw result is first parsed to plain objects, so that a key that occurs twice is found. The objects are then converted
to a record. Older schema versions are migrated. Unknown fields are kept by JSON pointer (RFC 6901). A byte order mark
is accepted, and `3.0` is accepted for an integer.

An aggregate contains the bytes of its raw records. The aggregate is decoded directly to a record if it contains exactly
the fields of this version.
"""

from __future__ import annotations

import hashlib
import typing
import warnings
from functools import lru_cache
from typing import Any

import msgspec

from llm_energy_measure.constants import MAX_RECORD_DEPTH, SCHEMA_VERSION
from llm_energy_measure.domain.experiment import (
    AggregatedResult,
    AggregatedSummary,
    Integrity,
    Manifest,
    RawProcessResult,
    SourceFile,
    StoredBytes,
    summary_of,
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
from llm_energy_measure.domain.units import Sha256
from llm_energy_measure.domain.unknown_fields import pointer_to, put_back, split_unknown, value_at
from llm_energy_measure.exceptions import InvalidResultError, ResultCorruptError, SchemaVersionError
from llm_energy_measure.results.store import json_text
from llm_energy_measure.results.store.integrity import processes_digest, values_digest
from llm_energy_measure.results.store.sample_arrays import SampleArrays, cut_sample_arrays
from llm_energy_measure.security import require_bounded_json

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

# Maximum number of values of a newer minor version that this version cannot represent. Each of them costs one more
# conversion.
_MAX_NEW_VALUES = 50
# Manifests of this package are smaller. A larger manifest is decoded each time.
_MAX_CACHED_BYTES = 4096

BOM = b"\xef\xbb\xbf"


class _Kind(typing.NamedTuple):
    """A kind of file: its name in messages, the advice for a damaged file, and the maximum nesting depth."""

    name: str
    advice: str
    levels: int = MAX_RECORD_DEPTH


_RAW = _Kind("raw result", "keep the file; repair it or run its process again")
# A raw record is two levels deeper in an aggregate than in a raw file.
_AGGREGATE = _Kind(
    "aggregated result",
    "run 'llm-energy-measure aggregate ID' to recompute it from the raw results",
    MAX_RECORD_DEPTH + 2,
)
_MANIFEST = _Kind("manifest", "remove it; the expected number of processes is then unknown")


class NewerMinorVersionWarning(UserWarning):
    """Warns that a newer minor version wrote a file. The file is loaded, and its unknown fields are kept."""


class _Envelope(AggregatedSummary, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An aggregate whose embedded raw records are not decoded."""

    values_sha256: Sha256 | msgspec.UnsetType = msgspec.UNSET
    processes_sha256: Sha256 | msgspec.UnsetType = msgspec.UNSET
    process_results: list[msgspec.Raw] = msgspec.field(default_factory=list)


class _Embedded(msgspec.Struct):
    """The embedded raw records of an aggregate, as bytes."""

    process_results: list[msgspec.Raw] = msgspec.field(default_factory=list)


class _Id(msgspec.Struct):
    """The experiment id in a raw result."""

    experiment_id: str


_COMPARED_BYTES = 1024 * 1024
_Bytes = bytes | memoryview
RecordT = typing.TypeVar("RecordT", RawProcessResult, AggregatedResult, AggregatedSummary, _Envelope)
# Decoders are created at import. msgspec prepares a class of records at its first use, and can crash the process if
# several threads use the class first at the same time.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (RawProcessResult, AggregatedResult, AggregatedSummary, _Envelope, Manifest)
}
_EMBEDDED_DECODER = msgspec.json.Decoder(_Embedded)
_ID_DECODER = msgspec.json.Decoder(_Id)
_ENCODER = msgspec.json.Encoder()


def digest(data: _Bytes) -> str:
    """Return the SHA-256 of the data in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def source_file(name: str, data: bytes) -> SourceFile:
    """Return the identity of a raw file: its name, size and digest."""
    return SourceFile(name=name, size_bytes=len(data), sha256=digest(data))


# Raw results


def decode_raw(data: bytes, name: str, migrations: Sequence[Migration] = MIGRATIONS) -> RawProcessResult:
    """Return the record of one process, with its bytes as `record.stored`.

    Args:
        data: Content of the file.
        name: Name of the file in errors, such as `exp_7/process_3.json`. Its last part becomes
            `record.stored.source.name`.
        migrations: The migrations from older schema versions.

    Raises:
        ResultCorruptError: The bytes are not a raw result; the message says why.
        SchemaVersionError: The schema version is a newer major version, or not a version.

    Warns:
        NewerMinorVersionWarning: The schema version is a newer minor version.
    """
    record = _decode(RawProcessResult, data, _RAW, name, migrations=migrations)
    return record.attach_stored(StoredBytes(source=source_file(name.rpartition("/")[2], data), data=data))


def peek_id(data: bytes) -> str | None:
    """Return the experiment id in a file without a check of its other fields; None if there is no id."""
    try:
        return _ID_DECODER.decode(data.removeprefix(BOM)).experiment_id
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def encode_raw(record: RawProcessResult) -> bytes:
    """Return the bytes of a raw file: JSON with an indent of two, and with the unknown fields in their original places.

    The bytes do not end with a newline. An aggregate contains the same bytes, which must have the same digest there.
    """
    plain = record if record.unknown_fields is msgspec.UNSET else _document(record)
    return msgspec.json.format(msgspec.json.encode(plain, enc_hook=_plain), indent=2)


def require_valid_raw(record: RawProcessResult) -> RawProcessResult:
    """Return the record as its file will contain it: numpy scalars become plain numbers, every value is checked.

    Raises:
        InvalidResultError: A value has the wrong type, is not finite, or is negative where that has no meaning; or the
            timestamps contradict each other. `problems` of the error has one sentence for each problem.
    """
    if not isinstance(record, RawProcessResult):
        raise _refused("cannot save a raw result", [f"it is a {type(record).__name__}, not a RawProcessResult"])
    doing = f"cannot save raw result of experiment {record.experiment_id!r}, process {record.process_index!r}"
    if (same := _unchanged_by_json(record)) is not None and not timestamp_problems(same):
        return same
    checked = None
    try:
        document = _document(record)
        problems = [f"{path} is {value!r}, which JSON can't hold" for path, value in find_non_finite(document)]
        checked = None if problems else _convert(RawProcessResult, document)
        # Keys that differ only in type (1 and "1") are one key in JSON, so the text may contain a key twice.
        json_text.parse(msgspec.json.encode(document))
    except msgspec.ValidationError as error:
        problems = [json_text.explain(error, document)]
    except Exception as error:  # noqa: BLE001 - `tolist` of another package can raise any error
        problems = [f"a value can't be stored as JSON ({type(error).__name__}: {error})"]
    else:
        problems += timestamp_problems(checked) if checked is not None else []
    if problems or checked is None:
        raise _refused(doing, problems)
    return checked


def _unchanged_by_json(record: RawProcessResult) -> RawProcessResult | None:
    """Return the decoded record if encoding and decoding give an equal record; else None.

    An equal record has the right types and ranges, and no value that JSON changes (NaN, a numpy scalar, a key that is
    not a string). Nearly all records pass this fast check. Without it, `save_raw` takes 1.7 times the processor time.
    """
    if record.unknown_fields is not msgspec.UNSET:
        return None
    try:
        encoded = _ENCODER.encode(record)
        decoded = _DECODERS[RawProcessResult].decode(encoded)
        is_same = not json_text.is_too_deep(encoded) and decoded == record
    except Exception:  # noqa: BLE001 - the full check names the problem
        return None
    return decoded if is_same else None


def _refused(doing: str, problems: list[str]) -> InvalidResultError:
    refused = InvalidResultError(doing, "; ".join(problems), "correct the values and save again")
    refused.problems = tuple(problems)
    return refused


# Aggregated results


def decode_aggregated(data: bytes, name: str) -> AggregatedResult:
    """Return the aggregated result of an experiment; each embedded raw record keeps its bytes as `stored`.

    An aggregate whose values differ from its digests is returned too: `integrity` is then `altered`.

    Args:
        data: Content of the file.
        name: Name of the file in errors.

    Raises:
        ResultCorruptError: The bytes are not an aggregated result.
        SchemaVersionError: The schema version of the result or of an embedded record is a newer major version.

    Warns:
        NewerMinorVersionWarning: The schema version is a newer minor version.
    """
    envelope = _decode(_Envelope, data, _AGGREGATE, name)
    raws = [bytes(raw) for raw in _embedded_raws(envelope, data, name)]
    sources = envelope.sources or []
    processes = _decode_embedded(raws, name)
    if len(sources) == len(raws):
        for record, source, raw in zip(processes, sources, raws, strict=True):
            record.attach_stored(StoredBytes(source=source, data=raw))
    values = {field: getattr(envelope, field) for field in AggregatedSummary.__struct_fields__}
    result = AggregatedResult(**values, process_results=processes)
    return result.attach_integrity(_integrity(envelope, summary_of(envelope), raws, name, data))


def _embedded_raws(envelope: _Envelope, data: bytes, name: str) -> Sequence[_Bytes]:
    """Return the bytes of the raw records in an aggregate, from `data` if the envelope does not contain them."""
    try:
        return [memoryview(raw) for raw in envelope.process_results] or embedded_records(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _corrupt(_AGGREGATE, name, str(error)) from error


def _decode_embedded(raws: Sequence[_Bytes], name: str) -> list[RawProcessResult]:
    return [
        _decode(RawProcessResult, bytes(raw), _AGGREGATE, f"{name}, process_results[{position}]")
        for position, raw in enumerate(raws)
    ]


def decode_summary(data: bytes, name: str) -> AggregatedSummary:
    """Return an aggregated result without its raw records, several times faster than `decode_aggregated`.

    `integrity` covers the whole file. Keys that occur twice are not found. If the aggregate has no digests, damage
    inside its raw records is not found. Args and Raises are those of `decode_aggregated`.
    """
    envelope = _decode(_Envelope, data, _AGGREGATE, name, check_keys=False)
    is_sealed = envelope.values_sha256 is not msgspec.UNSET
    raws = _embedded_raws(envelope, data, name) if is_sealed else []
    summary = summary_of(envelope)
    return summary.attach_integrity(_integrity(envelope, summary, raws, name, data))


def _integrity(
    envelope: _Envelope, summary: AggregatedSummary, raws: Sequence[_Bytes], name: str, data: bytes
) -> Integrity:
    """Return `sealed` if the values match the digests in the file, `unsealed` if it has no digests, else `altered`."""
    values_sha256, processes_sha256 = envelope.values_sha256, envelope.processes_sha256
    if isinstance(values_sha256, str) and isinstance(processes_sha256, str):
        is_sealed = _has_values(summary, values_sha256, processes_sha256, data) and (
            _are_sources(envelope.sources or (), raws) or _has_processes(raws, processes_sha256, name)
        )
        return "sealed" if is_sealed else "altered"
    return "unsealed" if values_sha256 is processes_sha256 else "altered"


def _has_values(summary: AggregatedSummary, values_sha256: str, processes_sha256: str, data: bytes) -> bool:
    if values_digest(summary, processes_sha256) == values_sha256:
        return True
    # A release that did not know some of the fields may have computed the digest.
    try:
        document = msgspec.json.decode(cut_sample_arrays(data.removeprefix(BOM)).text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # an embedded record is damaged
    return values_digest(summary, processes_sha256, document) == values_sha256


def _has_processes(raws: Sequence[_Bytes], processes_sha256: str, name: str) -> bool:
    try:
        processes = _decode_embedded(raws, name)
    except ResultCorruptError:
        return False
    if processes_digest(processes) == processes_sha256:
        return True
    documents = [msgspec.json.decode(cut_sample_arrays(bytes(raw)).text) for raw in raws]
    return processes_digest(processes, documents) == processes_sha256


def _are_sources(sources: Sequence[SourceFile], raws: Sequence[_Bytes]) -> bool:
    """Return True if each embedded record has the bytes of its source file. A final newline of the file is ignored.

    This check takes less time than decoding.
    """
    return len(raws) == len(sources) > 0 and all(
        source.sha256 == digest(raw if len(raw) == source.size_bytes else bytes(raw) + b"\n")
        for source, raw in zip(sources, raws, strict=True)
    )


def embedded_records(data: bytes) -> list[memoryview]:
    """Return the raw records embedded in an aggregate, as parts of its bytes, in order."""
    return [memoryview(raw) for raw in _EMBEDDED_DECODER.decode(data.removeprefix(BOM)).process_results]


def is_copy_of(embedded: memoryview, data: bytes) -> bool:
    """Return True if an embedded record has the bytes of a raw file, apart from BOM and outer white space of the file.

    The bytes are compared in parts, so that a large record is not copied.
    """
    body = data.removeprefix(BOM).strip()
    return len(body) == len(embedded) and all(
        body.startswith(bytes(embedded[start : start + _COMPARED_BYTES]), start)
        for start in range(0, len(body), _COMPARED_BYTES)
    )


def encode_aggregated(record: AggregatedResult, *, with_digests: bool = True) -> bytes:
    """Return the bytes of an aggregate; raw records that came from a store are embedded byte for byte.

    Args:
        record: The aggregate.
        with_digests: False for a copy of an aggregate that has no digests.

    Raises:
        InvalidResultError: A figure has the wrong type, is not finite, or is negative where that has no meaning.
    """
    head, summary = _encode_head(msgspec.structs.replace(record, process_results=[]))
    embedded = [process.stored.data if process.stored else encode_raw(process) for process in record.process_results]
    embedded = [data.removeprefix(BOM) for data in embedded]
    digests = ""
    if with_digests:
        processes_sha256 = processes_digest(_as_decoded(record.process_results, embedded))
        digests = f',\n  "values_sha256": "{values_digest(summary, processes_sha256)}"'
        digests += f',\n  "processes_sha256": "{processes_sha256}"'
    # The records are copied and not encoded again, so that they have the digests in `sources`.
    parts = [head.removesuffix(b"\n}"), digests.encode(), b',\n  "process_results": [\n']
    for data in embedded:
        parts += [data, b",\n"]
    # One join instead of several, because each join copies the records, which can have hundreds of megabytes.
    return b"".join([*(parts[:-1] if embedded else parts), b"\n  ]\n}\n"])


def _as_decoded(records: Sequence[RawProcessResult], embedded: Sequence[bytes]) -> list[RawProcessResult]:
    """Return the records as a reader will decode them. A reader decodes a tuple as a list."""
    try:
        return [
            record if record.stored else _decode(RawProcessResult, data, _RAW, f"process_{record.process_index}.json")
            for record, data in zip(records, embedded, strict=True)
        ]
    except ResultCorruptError as error:
        raise _refused("cannot save an aggregated result", [f"{error.doing}: {error.found}"]) from error


def _encode_head(record: AggregatedResult) -> tuple[bytes, AggregatedSummary]:
    """Return the JSON of an aggregate without its raw records, and the summary that a reader decodes from the JSON.

    Every figure is checked.
    """
    if record.unknown_fields is msgspec.UNSET:
        try:
            encoded = _ENCODER.encode(record)
            decoded = _DECODERS[AggregatedResult].decode(encoded)
            if decoded == record:  # as in `_unchanged_by_json`
                # No JSON string contains a line feed, so the replaced line is the field.
                head = msgspec.json.format(encoded, indent=2).replace(b',\n  "process_results": []', b"", 1)
                return head, summary_of(decoded)
        except (msgspec.DecodeError, TypeError, ValueError, NotImplementedError, RecursionError):
            pass
    document = _document(record)
    try:
        problems = [f"{path} is {value!r}, which JSON can't hold" for path, value in find_non_finite(document)]
        if not problems:
            decoded = _convert(AggregatedResult, document)
    except msgspec.ValidationError as error:
        problems = [json_text.explain(error, document)]
    if problems:
        raise _refused(f"cannot save aggregated result of experiment {record.experiment_id!r}", problems)
    del document["process_results"]
    return msgspec.json.format(msgspec.json.encode(document), indent=2), summary_of(decoded)


# Manifests


def decode_manifest(data: bytes, name: str) -> Manifest:
    """Return the manifest in the bytes of a file. Raises the errors of `decode_raw`."""
    # Each save reads the same manifest twice, so decoded manifests are cached.
    decode = _decode_manifest if len(data) <= _MAX_CACHED_BYTES else _decode_manifest.__wrapped__
    return decode(data, name)


@lru_cache(maxsize=64)
def _decode_manifest(data: bytes, name: str) -> Manifest:
    body = data.removeprefix(BOM)
    try:
        json_text.parse(body)
        manifest: Manifest = _DECODERS[Manifest].decode(body)
    except ValueError as error:
        raise _corrupt(_MANIFEST, name, str(error).replace("`", "")) from error
    version = parse_version(manifest.schema_version)
    if version is None or version > (parse_version(SCHEMA_VERSION) or version):
        found = f"schema version {manifest.schema_version!r} is newer than {SCHEMA_VERSION}, or is not a version"
        raise SchemaVersionError(f"cannot load manifest {name}", found, "upgrade llm-energy-measure")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest; equal manifests have equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


# Every record


def _decode(
    record_type: type[RecordT],
    data: bytes,
    kind: _Kind,
    name: str,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    check_keys: bool = True,
) -> RecordT:
    """Return the record in the bytes of a file. With `check_keys=False`, a key that occurs twice is not found."""
    cut = cut_sample_arrays(data.removeprefix(BOM))
    try:
        if b"\0" in cut.original:
            json_text.parse(cut.original)  # raises now, because the next checks of a large sparse file take seconds
        require_bounded_json(cut.text, file_bytes=len(data), number_count=cut.sample_count)
    except ValueError as error:
        raise _corrupt(kind, name, str(error)) from error
    record = _decode_text(record_type, cut, kind, name, migrations=migrations, check_keys=check_keys)
    if isinstance(record, RawProcessResult) and not cut.restore(record):
        whole = SampleArrays(cut.original, {}, cut.original)  # a list that was cut out has no valid latency samples
        return _decode_text(record_type, whole, kind, name, migrations=migrations, check_keys=check_keys)
    return record


def _decode_text(
    record_type: type[RecordT],
    cut: SampleArrays,
    kind: _Kind,
    name: str,
    *,
    migrations: Sequence[Migration],
    check_keys: bool,
) -> RecordT:
    """Return the record in a text whose large arrays were cut out."""
    if record_type is _Envelope:
        record = _decode_exact(record_type, cut, kind.levels, check_keys=check_keys)
        if record is not None:
            return record
    try:
        document = json_text.parse(cut.text, kind.levels)
    except ValueError as error:
        raise _corrupt(kind, name, str(error)) from error
    if not isinstance(document, dict):
        raise _corrupt(kind, name, f"it contains {json_text.kind_of(document)}, not a JSON object")
    document = _migrated(document, kind, name, migrations)
    is_newer = document.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION
    try:
        return _convert_newer(record_type, document) if is_newer else _convert(record_type, document)
    except msgspec.ValidationError as error:
        raise _corrupt(kind, name, json_text.explain(error, document)) from error


def _decode_exact(record_type: type[RecordT], cut: SampleArrays, levels: int, *, check_keys: bool) -> RecordT | None:
    """Return the record in a text with exactly the fields of the record, each once; None for another text."""
    try:
        # Embedded records are decoded later, from their original bytes.
        record: RecordT = _DECODERS[record_type].decode(cut.original)
        if record.schema_version != SCHEMA_VERSION or record.unknown_fields is not msgspec.UNSET:
            return None
        if check_keys and not json_text.has_unique_keys(cut.text, _ENCODER.encode(msgspec.json.decode(cut.text))):
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if json_text.is_too_deep(cut.text, levels) else record  # after decoding: `is_too_deep` needs valid JSON


def _migrated(document: Document, kind: _Kind, name: str, migrations: Sequence[Migration]) -> Document:
    """Return the document in the current schema version; a document of a newer minor version is unchanged."""
    version = document.get("schema_version", SCHEMA_VERSION)
    if version == SCHEMA_VERSION:
        return document
    known, current = parse_version(version), parse_version(SCHEMA_VERSION)
    doing = f"cannot load {kind.name} {name}"
    if "measurement_config_hash" in document and version in ("2.0", "3.0"):
        found = f"it is a result.json of llenergymeasure (schema {version!r}), which 'import' reads"
        raise SchemaVersionError(doing, found, "move the file away and run 'llm-energy-measure import FILE'")
    if known is None or current is None:
        found = f"{version!r:.40} is not a schema version"
        raise SchemaVersionError(doing, found, f"expected one like {SCHEMA_VERSION!r}")
    can_migrate = any(step.source == version for step in migrations)
    if known[0] > current[0] and not can_migrate:
        found = f"schema version {version!r} is newer than {SCHEMA_VERSION}"
        raise SchemaVersionError(doing, found, "upgrade llm-energy-measure")
    if known > current and not can_migrate:
        newer = f"schema version {version!r}, newer than {SCHEMA_VERSION}"
        message = f"{kind.name} {name} has {newer}; fields that this version does not know are kept"
        warnings.warn(message, NewerMinorVersionWarning, stacklevel=2)
        return document
    try:
        migrated = document if known == current else migrate(document, migrations)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        found = f"it is not a record of schema version {version!r} ({type(error).__name__}: {error})"
        raise _corrupt(_RAW, name, found) from error
    if migrated is None:
        found = f"schema {version} is older than {SCHEMA_VERSION}, the first schema of result files; 'import' reads it"
        raise SchemaVersionError(doing, found, "run 'llm-energy-measure -o NEW_DIR import FILE'")
    return migrated


def _convert(record_type: type[RecordT], document: Document) -> RecordT:
    if "unknown_fields" not in document:
        try:  # most documents contain exactly the fields of the record
            return msgspec.convert(document, type=record_type)
        except msgspec.ValidationError:
            pass  # an unknown field, 3.0 for an integer, or a wrong value
    known, unknown = split_unknown(document, record_type)
    record = msgspec.convert(known, type=record_type)
    return msgspec.structs.replace(record, unknown_fields=unknown) if unknown else record


def _convert_newer(record_type: type[RecordT], document: Document) -> RecordT:
    """Return a record of a newer minor version; a value that this version can't represent becomes an unknown field."""
    kept: dict[str, Any] = {}
    rest: Document = msgspec.json.decode(msgspec.json.encode(document))
    for _ in range(_MAX_NEW_VALUES):
        try:
            record = _convert(record_type, rest)
        except msgspec.ValidationError as error:
            parts = json_text.location(error)
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
    """Return the record as plain objects, with the unknown fields in their original places."""
    document: Document = msgspec.to_builtins(record, enc_hook=_plain)
    put_back(document, document.pop("unknown_fields", {}))
    return document


def _plain(value: Any) -> Any:
    """Return a numpy or torch number or array as plain numbers, without an import of these libraries."""
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return to_list()
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    raise NotImplementedError(f"{type(value).__name__} {value!r:.80}")


def _corrupt(kind: _Kind, name: str, found: str) -> ResultCorruptError:
    return ResultCorruptError(f"cannot load {kind.name} {name}", found, kind.advice)
