"""Tests of the codec: records to bytes and back, accepted and refused files, kept fields."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import AggregatedResult, ImportOrigin, RawProcessResult, summary_of
from llm_energy_measure.domain.schema import Migration
from llm_energy_measure.exceptions import InvalidResultError, ResultCorruptError, SchemaVersionError
from llm_energy_measure.results.store import codec, json_text
from llm_energy_measure.results.store.rejected import rejected_document
from tests.support import factories
from tests.support.factories import as_bytes, changed

NAME = "exp_7/process_0.json"
DOCUMENT = factories.document(factories.full_raw())
GOOD = codec.encode_raw(factories.full_raw())
AGGREGATE = json.loads(codec.encode_aggregated(factories.full_aggregated()))


def written_as(found: bytes, written: bytes) -> bytes:
    assert GOOD.count(found) >= 1
    return GOOD.replace(found, written, 1)


# Encode and decode


@pytest.mark.parametrize("record", [factories.raw(), factories.full_raw()])
def test_raw_record_survives_encoding(record: RawProcessResult) -> None:
    assert codec.decode_raw(codec.encode_raw(record), NAME) == record


@pytest.mark.parametrize("record", [factories.aggregated(), factories.full_aggregated()])
def test_aggregate_survives_encoding(record: AggregatedResult) -> None:
    assert codec.decode_aggregated(codec.encode_aggregated(record), "exp_7.json") == record


def test_full_record_has_no_default_value() -> None:
    """Without this, the tests above would not notice a lost field."""
    full = factories.full_raw()
    whole = factories.full_aggregated()
    for record in (
        *(full, full.timestamps, full.inference_metrics, full.energy_metrics, full.clock, full.launcher, full.origin),
        *(whole, whole.completeness),
    ):
        assert record is not None
        for info in msgspec.structs.fields(record):
            if info.name not in ("schema_version", "unknown_fields"):
                assert getattr(record, info.name) != info.default, info.name


def test_fields_are_in_the_order_of_files_in_the_field() -> None:
    written = json.loads(codec.encode_raw(factories.raw()))
    assert list(written)[:19] == [
        *("schema_version", "experiment_id", "backend", "backend_version", "process_index", "gpu_id", "gpu_name"),
        *("gpu_is_mig", "gpu_mig_profile", "energy_measurement_warning", "config_name", "model_name", "timestamps"),
        *("inference_metrics", "energy_metrics", "compute_metrics", "effective_config", "cli_overrides"),
        "config_warnings",
    ]
    assert list(written["timestamps"]) == ["start", "end", "duration_sec"]
    assert "unknown_fields" not in written


def test_decoded_record_keeps_its_bytes() -> None:
    stored = codec.decode_raw(GOOD, NAME).stored
    assert stored is not None
    assert stored.data == GOOD
    assert stored.source == codec.source_file("process_0.json", GOOD)
    assert stored.source.size_bytes == len(GOOD)


def test_changed_copy_does_not_keep_the_old_bytes() -> None:
    copy = msgspec.structs.replace(codec.decode_raw(GOOD, NAME), gpu_name="another")
    assert copy.stored is None


def test_byte_order_mark_is_accepted() -> None:
    assert codec.decode_raw(b"\xef\xbb\xbf" + GOOD, NAME) == factories.full_raw()


def test_integer_may_be_written_as_3_0() -> None:
    document = changed(changed(DOCUMENT, "process_index", 3.0), "inference_metrics.total_tokens", 8192.0)
    record = codec.decode_raw(as_bytes(document), NAME)
    assert (record.process_index, type(record.process_index)) == (3, int)
    assert type(record.inference_metrics and record.inference_metrics.total_tokens) is int


def test_file_without_schema_version_is_read_as_2_0_0() -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != "schema_version"}
    assert codec.decode_raw(as_bytes(document), NAME) == factories.full_raw()


@pytest.mark.parametrize("name", ["gpu_id", "inference_metrics", "compute_metrics", "energy_metrics.total_energy_j"])
def test_optional_values_may_be_null(name: str) -> None:
    record = codec.decode_raw(as_bytes(changed(DOCUMENT, name, None)), NAME)
    assert factories.document(record) == changed(DOCUMENT, name, None)


@pytest.mark.parametrize("name", ["experiment_id", "process_index", "config_name", "model_name", "timestamps"])
def test_error_names_a_missing_required_field(name: str) -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != name}
    with pytest.raises(ResultCorruptError, match=f"missing required field {name}"):
        codec.decode_raw(as_bytes(document), NAME)


# Unknown fields


@pytest.mark.parametrize(
    "place", ["", "timestamps", "energy_metrics", "energy_metrics.devices.1", "inference_metrics.latency_measurements"]
)
@pytest.mark.parametrize("name", ["new", "a/b~c", "", "unknown_fields"])
def test_unknown_field_survives(place: str, name: str) -> None:
    document = changed(DOCUMENT, f"{place}.{name}" if place else name, {"deep": [1, None]})
    record = codec.decode_raw(as_bytes(document), NAME)
    assert json.loads(codec.encode_raw(record)) == document


def test_empty_field_with_the_name_unknown_fields_survives() -> None:
    document = {**DOCUMENT, "unknown_fields": {}}
    assert json.loads(codec.encode_raw(codec.decode_raw(as_bytes(document), NAME))) == document


def test_unknown_fields_are_stored_by_json_pointer() -> None:
    document = changed(changed(DOCUMENT, "new", 1), "energy_metrics.devices.0.a/b", 2)
    assert codec.decode_raw(as_bytes(document), NAME).unknown_fields == {"/new": 1, "/energy_metrics/devices/0/a~1b": 2}


def test_unknown_field_is_removed_with_its_object() -> None:
    record = codec.decode_raw(as_bytes(changed(DOCUMENT, "energy_metrics.window.new", 1)), NAME)
    without = msgspec.structs.replace(record, energy_metrics=factories.energy())
    assert "new" not in codec.encode_raw(without).decode()


@pytest.mark.parametrize("place", ["new", "aggregation.new", "completeness.unreadable.0.new", "process_results.0.new"])
def test_unknown_field_of_an_aggregate_survives(place: str) -> None:
    document = changed(AGGREGATE, place, [1])
    record = codec.decode_aggregated(as_bytes(document), "exp_7.json")
    stored = json.loads(codec.encode_aggregated(record))
    digests = {name: stored[name] for name in ("values_sha256", "processes_sha256")}
    assert stored == {**document, **digests}


# Aggregates embed raw files


def test_aggregate_embeds_raw_files_byte_for_byte() -> None:
    files = [b'{"odd":   "spacing",' + codec.encode_raw(record).removeprefix(b"{") for record in factories.raws(3)]
    loaded = [codec.decode_raw(data, f"process_{index}.json") for index, data in enumerate(files)]
    encoded = codec.encode_aggregated(factories.aggregated(process_results=loaded))
    assert all(data in encoded for data in files)
    assert codec.decode_aggregated(encoded, "exp_7.json").process_results == loaded


def test_embedded_record_has_the_digest_of_its_source() -> None:
    record = codec.decode_raw(codec.encode_raw(factories.raw()), NAME)
    assert record.stored is not None
    built = factories.aggregated(process_results=[record], sources=[record.stored.source])
    [embedded] = codec.decode_aggregated(codec.encode_aggregated(built), "exp_7.json").process_results
    assert embedded.stored is not None
    assert codec.digest(embedded.stored.data) == record.stored.source.sha256


def test_aggregate_has_no_byte_order_mark() -> None:
    record = codec.decode_raw(b"\xef\xbb\xbf" + GOOD, NAME)
    encoded = codec.encode_aggregated(factories.aggregated(process_results=[record]))
    assert GOOD in encoded
    assert b"\xef\xbb\xbf" not in encoded


def test_decode_summary_leaves_out_the_processes() -> None:
    data = codec.encode_aggregated(factories.full_aggregated())
    assert codec.decode_summary(data, "exp_7.json") == summary_of(factories.full_aggregated())


def test_aggregate_without_processes_is_valid() -> None:
    empty = factories.aggregated()
    empty = msgspec.structs.replace(empty, process_results=[])
    assert codec.decode_aggregated(codec.encode_aggregated(empty), "exp_7.json") == empty


@pytest.mark.parametrize(
    ("place", "value"),
    [("process_results", None), ("process_results", {}), ("process_results", [None]), ("total_energy_j", -1.0)],
)
@pytest.mark.parametrize("extra", [{}, {"new": 1}])
def test_invalid_aggregate_is_refused(place: str, value: object, extra: dict[str, Any]) -> None:
    with pytest.raises(ResultCorruptError, match=r"^cannot load aggregated result exp_7.json.*aggregate ID"):
        codec.decode_aggregated(as_bytes({**AGGREGATE, place: value, **extra}), "exp_7.json")


@pytest.mark.parametrize(("name", "value"), [("total_energy_j", float("nan")), ("total_flops", -1.0)])
def test_invalid_number_of_an_aggregate_is_not_written(name: str, value: float) -> None:
    figures: dict[str, Any] = {name: value}
    with pytest.raises(InvalidResultError, match=name):
        codec.encode_aggregated(factories.aggregated(**figures))


# Invalid files

BAD_FILES = {
    "empty": (b"", r"the file is empty \(0 bytes\)"),
    "blank": (b" \n\t" * 9, "contains only 27 blank bytes"),
    "full of NUL": (b"\0" * 4096, "contains only 4096 blank bytes"),
    "half": (GOOD[: len(GOOD) // 2], "not valid JSON"),
    "twice": (GOOD + GOOD, "not valid JSON"),
    "null": (b"null", "it contains null, not a JSON object"),
    "a list": (b"[]", "it contains a list, not a JSON object"),
    "a number": (b"12", "it contains a number, not a JSON object"),
    "a text": (b'"x"', "it contains a text, not a JSON object"),
    "NaN": (written_as(b"1971.5", b"NaN"), "NaN is not a JSON number"),
    "Infinity": (written_as(b"1971.5", b"-Infinity"), "-Infinity is not a JSON number"),
    "too large a number": (written_as(b"1971.5", b"1e999"), "out of range"),
    "too large a number in the configuration": (written_as(b'"batch_size": 8', b'"batch_size": 1e999'), "out of range"),
    "5000 digits": (written_as(b'"batch_size": 8', b'"batch_size": ' + b"9" * 5000), "not valid JSON"),
    "negative energy": (written_as(b"1971.5", b"-1.0"), "energy_metrics.total_energy_j: .*found -1.0"),
    "text for a number": (written_as(b"1971.5", b'"1971.5"'), "energy_metrics.total_energy_j: .*found '1971.5'"),
    "number for a text": (written_as(b'"pytorch"', b"12"), "backend: .*found 12"),
    "true for a number": (written_as(b'"process_index": 0', b'"process_index": true'), "process_index: .*found True"),
    "broken number": (written_as(b'"process_index": 0', b'"process_index": 0.5'), "process_index: .*found 0.5"),
    "negative index": (written_as(b'"process_index": 0', b'"process_index": -1'), "process_index: .*found -1"),
    "no date": (written_as(b'"2026-01-16T', b'"once'), "timestamps.start: .*found 'once"),
    "unknown scope": (written_as(b'"host"', b'"galaxy"'), "energy_metrics.total_scope: .*found 'galaxy'"),
    "duplicate key": (written_as(b"{", b'{"gpu_id": 0, '), "the key 'gpu_id' occurs twice"),
    "nested duplicate key": (written_as(b'"start":', b'"end": null, "start":'), "the key 'end' occurs twice"),
    "200 levels": (
        written_as(b'"batch_size": 8', b'"d": ' + b"[" * 200 + b"]" * 200),
        "it is nested more than 100 levels deep",
    ),
    "100,000 levels": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "it is nested more than 100 levels deep"),
    "100,000 open brackets": (b"[" * 100_000, "it is nested more than 100 levels deep"),
    "latin-1": (written_as(b"pytorch", b"caf\xe9"), "can't decode byte 0xe9"),
    "half a surrogate pair": (written_as(b"pytorch", b"\xed\xa0\x80"), "can't decode byte 0xed"),
    "half an escaped pair": (written_as(b"pytorch", rb"\ud800"), "not valid JSON"),
    "UTF-16": (json.dumps(DOCUMENT).encode("utf-16"), "can't decode byte"),
    "line break in a text": (written_as(b"pytorch", b"py\ntorch"), "not valid JSON"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_invalid_file_is_refused_in_one_sentence(kind: str) -> None:
    data, found = BAD_FILES[kind]
    with pytest.raises(ResultCorruptError, match=found) as caught:
        codec.decode_raw(data, NAME)
    assert str(caught.value).startswith(f"cannot load raw result {NAME}: ")
    assert str(caught.value).endswith("; keep the file; repair it or run its process again")
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, SchemaVersionError)


def test_file_cut_at_any_byte_is_refused() -> None:
    data = codec.encode_raw(factories.raw())
    for length in range(len(data)):
        with pytest.raises(ResultCorruptError, match="^cannot load"):
            codec.decode_raw(data[:length], NAME)


@pytest.mark.parametrize(
    "kind", ["empty", "half", "null", "NaN", "duplicate key", "100,000 levels", "latin-1", "half a surrogate pair"]
)
def test_invalid_manifest_or_aggregate_is_refused(kind: str) -> None:
    for decode in (codec.decode_manifest, codec.decode_aggregated):
        with pytest.raises(ResultCorruptError, match="^cannot load [a-z ]+ x: "):
            decode(BAD_FILES[kind][0], "x")


@pytest.mark.parametrize("kind", [kind for kind in BAD_FILES if "duplicate" not in kind])
def test_decode_summary_refuses_the_same_files(kind: str) -> None:
    with pytest.raises(ResultCorruptError, match="^cannot load aggregated result x: "):
        codec.decode_summary(BAD_FILES[kind][0], "x")


def test_brackets_in_texts_are_not_counted_as_levels() -> None:
    record = factories.raw(effective_config={"prompt": '[{"\\' * 200, "list": [[i] for i in range(200)]})
    assert codec.decode_raw(codec.encode_raw(record), NAME) == record


def test_hundred_levels_are_read_and_101_are_refused() -> None:
    at_the_limit = written_as(b'"batch_size": 8', b'"d": ' + b"[" * 98 + b"]" * 98)
    assert codec.decode_raw(at_the_limit, NAME).effective_config["d"]
    with pytest.raises(ResultCorruptError, match="nested more than 100 levels deep"):
        codec.decode_raw(written_as(b'"batch_size": 8', b'"d": ' + b"[" * 99 + b"]" * 99), NAME)


def test_refusal_of_an_endless_text_takes_linear_time() -> None:
    """A scan that started again at each quote took quadratic time: 5 s for 40 kB."""

    def refusal_sec(quotes: int) -> float:
        data = b"[" * 101 + b'"' + b'\\"' * quotes
        started = time.process_time()
        with pytest.raises(ResultCorruptError):
            codec.decode_raw(data, NAME)
        return time.process_time() - started

    short_sec, long_sec = (min(refusal_sec(quotes) for _ in range(5)) for quotes in (10_000, 100_000))
    assert long_sec < 3 * 10 * short_sec  # quadratic time would be 100 times the short one


# Versions


def test_newer_major_version_is_refused_with_advice() -> None:
    with pytest.raises(SchemaVersionError) as caught:
        codec.decode_raw(as_bytes({**DOCUMENT, "schema_version": "4.0.0"}), NAME)
    assert str(caught.value) == (
        "cannot load raw result exp_7/process_0.json: schema version '4.0.0' is newer than 2.0.0; "
        "upgrade llm-energy-measure"
    )


def test_newer_major_version_is_refused_before_other_errors() -> None:
    with pytest.raises(SchemaVersionError, match="newer than 2.0.0"):
        codec.decode_raw(b'{"schema_version": "4.0.0"}', NAME)


def test_newer_minor_version_loads_with_a_warning_and_its_new_fields() -> None:
    document = {**DOCUMENT, "schema_version": "2.7.0", "new": {"a": 1}}
    with pytest.warns(codec.NewerMinorVersionWarning, match=r"2\.7\.0.*newer than 2\.0\.0"):
        record = codec.decode_raw(as_bytes(document), NAME)
    assert json.loads(codec.encode_raw(record)) == document


def test_aggregate_of_a_newer_minor_version_loads_with_a_warning() -> None:
    with pytest.warns(codec.NewerMinorVersionWarning):
        record = codec.decode_aggregated(as_bytes({**AGGREGATE, "schema_version": "2.1.0"}), "exp_7.json")
    assert record.process_results == [factories.full_raw()]


def test_newer_patch_version_loads_without_a_warning() -> None:
    assert codec.decode_raw(as_bytes({**DOCUMENT, "schema_version": "2.0.5"}), NAME).schema_version == "2.0.5"


@pytest.mark.parametrize("version", [None, 2, "two", "", "2", "2.0.0.0", "-2.0.0", "٢.0.0", ["2.0.0"]])
def test_invalid_version_is_refused(version: object) -> None:
    with pytest.raises(SchemaVersionError, match="is not a schema version"):
        codec.decode_raw(as_bytes({**DOCUMENT, "schema_version": version}), NAME)


def test_version_1_0_0_is_refused_with_the_command_that_imports_it() -> None:
    with pytest.raises(SchemaVersionError, match=r"schema 1.0.0 is older than 2.0.0, the first schema") as raised:
        codec.decode_raw(as_bytes({**DOCUMENT, "schema_version": "1.0.0"}), NAME)
    assert "llm-energy-measure -o NEW_DIR import FILE" in raised.value.advice


def _to_1_9_0(document: dict[str, Any]) -> dict[str, Any]:
    """Migrate from the invented version 1.8.0, which had millijoules."""
    energy = dict(document["energy_metrics"])
    energy["total_energy_j"] = energy.pop("total_energy_mj") / 1000
    return {**document, "energy_metrics": energy}


def _to_2_0_0(document: dict[str, Any]) -> dict[str, Any]:
    """Migrate from the invented version 1.9.0, in which the index was `rank`."""
    return {"process_index" if key == "rank" else key: value for key, value in document.items()}


STEPS = (
    Migration(source="1.8.0", target="1.9.0", apply=_to_1_9_0),
    Migration(source="1.9.0", target="2.0.0", apply=_to_2_0_0),
)


def _as_1_9_0() -> dict[str, Any]:
    document = {"rank" if key == "process_index" else key: value for key, value in DOCUMENT.items()}
    return {**document, "schema_version": "1.9.0"}


def _as_1_8_0() -> dict[str, Any]:
    energy = dict(DOCUMENT["energy_metrics"])
    energy["total_energy_mj"] = energy.pop("total_energy_j") * 1000
    return {**_as_1_9_0(), "schema_version": "1.8.0", "energy_metrics": energy}


@pytest.mark.parametrize("document", [_as_1_8_0(), _as_1_9_0()])
def test_older_versions_are_migrated_step_by_step(document: dict[str, Any]) -> None:
    migrated = codec.decode_raw(as_bytes({**document, "new": 1}), NAME, migrations=STEPS)
    assert migrated == msgspec.structs.replace(factories.full_raw(), unknown_fields={"/new": 1})
    assert migrated.schema_version == "2.0.0"


def test_migrated_record_keeps_its_bytes() -> None:
    data = as_bytes(_as_1_8_0())
    stored = codec.decode_raw(data, NAME, migrations=STEPS).stored
    assert stored is not None
    assert stored.data == data


@pytest.mark.parametrize(
    "steps",
    [
        STEPS[:1],
        STEPS[1:],
        (STEPS[0], Migration(source="1.9.0", target="1.8.0", apply=dict)),
        (Migration(source="1.8.0", target="1.8.0", apply=dict),),
    ],
    ids=["ends early", "starts late", "a circle of two", "a circle of one"],
)
def test_migrations_that_do_not_reach_the_current_version_fail(steps: tuple[Migration, ...]) -> None:
    with pytest.raises(SchemaVersionError, match="schema 1.8.0 is older than 2.0.0"):
        codec.decode_raw(as_bytes(_as_1_8_0()), NAME, migrations=steps)


def test_older_file_that_a_migration_cannot_read_is_corrupt() -> None:
    with pytest.raises(ResultCorruptError, match=r"^cannot load .* not a record of schema version '1.8.0' \(KeyError"):
        codec.decode_raw(b'{"schema_version": "1.8.0"}', NAME, migrations=STEPS)


# Checks at save time


class TorchLike:
    """An object with the methods of a tensor of one value."""

    def tolist(self) -> float:
        return 12.5


class UnreadableTensor:
    """A tensor whose value cannot be read, for example on another device."""

    def tolist(self) -> float:
        raise RuntimeError("cannot copy out of a meta tensor")

    def __repr__(self) -> str:
        return "<tensor>"


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


@pytest.mark.parametrize(
    "number",
    [np.float64(12.5), np.float32(12.5), np.array(12.5), TorchLike(), 12.5],
    ids=lambda value: repr(type(value)),
)
def test_numpy_numbers_become_plain_numbers(number: object) -> None:
    record = codec.require_valid_raw(factories.raw(energy_metrics=factories.energy(total_energy_j=number)))
    assert record.energy_metrics.total_energy_j == 12.5
    assert type(record.energy_metrics.total_energy_j) is float


def test_numpy_integers_and_arrays_become_plain_values() -> None:
    record = codec.require_valid_raw(
        factories.raw(
            process_index=np.int64(3),  # type: ignore[arg-type]  # as in the field
            gpu_is_mig=np.bool_(False),  # noqa: FBT003 - numpy takes no keyword
            model_name=np.str_("m"),
            effective_config={"sizes": np.arange(3), "path": Path("a/b"), "pair": (1, 2)},
            inference_metrics=factories.inference(
                latency_measurements=factories.latency(np.array([1.0, 2.0]), [], []),  # type: ignore[arg-type]  # as in the field
            ),
        )
    )
    assert (type(record.process_index), record.gpu_is_mig, type(record.model_name)) == (int, False, str)
    expected = {"sizes": [0, 1, 2], "path": "a/b", "pair": [1, 2]}
    assert json.loads(codec.encode_raw(record))["effective_config"] == expected
    assert record.inference_metrics is not None
    assert record.inference_metrics.latency_measurements is not None
    assert record.inference_metrics.latency_measurements.ttft_ms == [1.0, 2.0]


def _loop() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["self"] = [loop, loop]
    return loop


def _deep(levels: int) -> list[Any]:
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    return deep


NAIVE = datetime(2026, 1, 1)
AWARE = datetime(2026, 1, 1, tzinfo=UTC)

INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"energy_metrics": factories.energy(total_energy_j=float("nan"))}, "energy_metrics.total_energy_j is nan"),
    "infinity": (
        {"compute_metrics": factories.compute(flops_total=float("inf"))},
        "compute_metrics.flops_total is inf",
    ),
    "numpy NaN": (
        {"energy_metrics": factories.energy(gpu_power_w=np.float64("nan"))},
        "energy_metrics.gpu_power_w is nan",
    ),
    "negative": ({"energy_metrics": factories.energy(total_energy_j=-1.0)}, "total_energy_j: .*found -1.0"),
    "text for a number": ({"energy_metrics": factories.energy(total_energy_j="5")}, "total_energy_j: .*found '5'"),
    "true for a number": ({"process_index": True}, "process_index: .*found True"),
    "negative index": ({"process_index": -1}, "process_index: .*found -1"),
    "null for a record": ({"energy_metrics": None}, "energy_metrics: .*null"),
    "array for a number": (
        {"energy_metrics": factories.energy(total_energy_j=np.arange(2.0))},
        "total_energy_j: .*array",
    ),
    "NaN in the configuration": (
        {"effective_config": {"a": [{"b": float("nan")}]}},
        r"effective_config.a\[0\].b is nan",
    ),
    "NaN in a tuple": ({"effective_config": {"a": (1, float("nan"))}}, r"effective_config.a\[1\] is nan"),
    "NaN in an array": ({"effective_config": {"a": np.array([1, np.nan])}}, r"effective_config.a\[1\] is nan"),
    "NaN among samples": (
        {"inference_metrics": factories.inference(latency_measurements=factories.latency([1.0, float("nan")], [], []))},
        r"latency_measurements.ttft_ms\[1\] is nan",
    ),
    "an object": ({"effective_config": {"a": Odd()}}, r"can't be stored as JSON \(NotImplementedError: Odd <odd>\)"),
    "a complex number": ({"effective_config": {"a": 1j}}, "can't be stored as JSON"),
    "an unwilling tensor": ({"effective_config": {"a": UnreadableTensor()}}, "meta tensor"),
    "numbers as keys": ({"effective_config": {1: 2}}, "effective_config"),
    "half a surrogate pair": ({"model_name": "m\ud800"}, "can't be stored as JSON"),
    "undecodable path": ({"effective_config": {"\udcff": "\udcff"}}, "can't be stored as JSON"),
    "itself inside": ({"effective_config": _loop()}, "can't be stored as JSON"),
    "200 levels": ({"effective_config": {"a": _deep(197)}}, "nested more than 100 levels deep"),
    "100,000 levels": ({"effective_config": {"a": _deep(100_000)}}, "can't be stored as JSON"),
    "end before start": ({"timestamps": factories.timestamps(seconds=-1.0, duration_sec=1.0)}, "is before start"),
    "naive and aware": (
        {"timestamps": factories.timestamps(NAIVE, end=AWARE)},
        "timestamps: only one of start and end has a UTC offset",
    ),
    "negative duration": (
        {"timestamps": factories.timestamps(duration_sec=-0.5)},
        "timestamps.duration_sec: -0.5 is negative",
    ),
    "reversed window": (
        {"energy_metrics": factories.energy(window=factories.timestamps(seconds=-1.0, duration_sec=None))},
        "energy_metrics.window: end .* is before start",
    ),
    "no digest": ({"origin": ImportOrigin(tool="codecarbon", sha256="XYZ")}, "origin.sha256"),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_value_is_refused_in_one_sentence(kind: str) -> None:
    changes, found = INVALID[kind]
    with pytest.raises(InvalidResultError, match=found) as caught:
        codec.require_valid_raw(factories.raw(**changes))
    assert caught.value.problems
    assert str(caught.value).startswith("cannot save raw result of experiment 'exp_7', process ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", INVALID)
def test_refused_record_is_kept_with_its_reasons(kind: str) -> None:
    record = factories.raw(**INVALID[kind][0])
    kept = json.loads(rejected_document(record, ["the reason"]))
    assert kept["rejected"] == ["the reason"]
    assert kept["record"]["experiment_id"] == "exp_7"
    assert set(kept["record"]) >= set(RawProcessResult.__struct_fields__) - {"unknown_fields", "recording_environment"}


def test_kept_record_shows_the_invalid_values() -> None:
    samples = np.full(5000, 1.5)
    samples[4999] = np.nan
    odd = {"path": "\udcff", "odd": Odd(), "when": AWARE, "cost": Decimal("1.5"), "huge": 10**5000, "samples": samples}
    kept = json.loads(rejected_document(factories.raw(effective_config=odd), []))["record"]["effective_config"]
    assert kept["path"] == "\\udcff"
    assert kept["odd"] == "<odd>"
    assert kept["when"] == "2026-01-01T00:00:00+00:00"
    assert kept["cost"] == "Decimal('1.5')"
    assert int(kept["huge"], 16) == 10**5000
    assert kept["samples"] == [1.5] * 4999 + ["nan"]


def test_one_error_names_all_invalid_times_or_numbers() -> None:
    record = factories.raw(
        energy_metrics=factories.energy(total_energy_j=float("nan"), gpu_power_w=float("inf")),
    )
    with pytest.raises(InvalidResultError) as caught:
        codec.require_valid_raw(record)
    assert len(caught.value.problems) == 2
    reversed_twice = factories.raw(timestamps=factories.timestamps(seconds=-1.0))
    with pytest.raises(InvalidResultError) as caught:
        codec.require_valid_raw(reversed_twice)
    assert len(caught.value.problems) == 2


def test_numpy_and_torch_are_not_imported_for_their_numbers() -> None:
    source = Path(sys.modules[codec.__name__].__file__ or "").read_text(encoding="utf-8")
    assert "import numpy" not in source
    assert "import torch" not in source


@pytest.mark.parametrize("text", [b'{"a": "[[[["}', b'{"a": "[", "b": "]"}', b'{"a": "\\"[[["}', b'{"a": {"b": []}}'])
def test_brackets_in_strings_are_not_nesting(text: bytes) -> None:
    assert not json_text.is_too_deep(text, 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, 0, 2]), st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
def test_unique_keys_are_recognised(
    value: Any, indent: int | None, ascii_only: bool, separators: tuple[str, str]
) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=separators).encode(
        errors="surrogatepass"
    )
    assume(b"\\" not in body and b"\xed" not in body)
    assert json_text.has_unique_keys(body, msgspec.json.encode(msgspec.json.decode(body)))


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters='"\\'), max_size=4), JSON, min_size=1, max_size=4
    )
)
def test_duplicate_key_is_never_called_unique(value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    first = json.dumps(next(iter(value)), ensure_ascii=False)
    for twice in (f"{text[:-1]}, {first}: 1}}", f'{text[:-1]},\n\t{first} :":{{"}}'):
        body = f'[{twice}, ":x", {{"": ":"}}]'.encode(errors="replace")
        assert not json_text.has_unique_keys(body, msgspec.json.encode(msgspec.json.decode(body)))
        with pytest.raises(ValueError, match="not valid JSON"):
            json_text.parse(body)


def test_record_with_a_hundred_levels_can_be_aggregated() -> None:
    deep: Any = 0
    for _ in range(98):
        deep = [deep]
    record = factories.raw(effective_config={"d": deep})
    data = codec.encode_aggregated(factories.aggregated(process_results=[record]))
    assert codec.decode_aggregated(data, "exp_7.json").process_results == [record]
