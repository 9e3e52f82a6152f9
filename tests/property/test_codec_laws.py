"""Properties of encoding and decoding records."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.exceptions import ResultCorruptError
from llm_energy_measure.results.store import codec
from tests.support import factories, strategies

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult

GOOD = codec.encode_raw(factories.full_raw())


@given(strategies.raw_records())
def test_raw_record_survives_encoding_decoding_and_validation(record: RawProcessResult) -> None:
    """One test of three laws, because drawing a record costs more than the laws."""
    assert codec.require_valid_raw(record) == record
    encoded = codec.encode_raw(record)
    decoded = codec.decode_raw(encoded, "process_0.json")
    assert decoded == record
    assert codec.encode_raw(decoded) == encoded


@given(strategies.aggregated_records())
def test_aggregate_survives_encoding_and_decoding(record: AggregatedResult) -> None:
    assert codec.decode_aggregated(codec.encode_aggregated(record), "exp.json") == record


@given(strategies.raw_records(), strategies.unknown_names, strategies.json_values, st.data())
def test_unknown_field_survives_at_any_place(
    record: RawProcessResult, name: str, value: object, data: st.DataObject
) -> None:
    document = json.loads(codec.encode_raw(record))
    # Any name is valid in library_versions, so no name is unknown there.
    place = data.draw(st.sampled_from([one for one in _objects(document) if one is not document["library_versions"]]))
    place[name] = value
    encoded = codec.encode_raw(codec.decode_raw(factories.as_bytes(document), "process_0.json"))
    assert json.loads(encoded) == document


@given(st.lists(strategies.raw_records(), min_size=1, max_size=3), st.booleans())
def test_aggregate_contains_the_bytes_of_raw_files(records: list[RawProcessResult], newer: bool) -> None:
    files = [codec.encode_raw(record) for record in records]
    loaded = [codec.decode_raw(data, f"process_{index}.json") for index, data in enumerate(files)]
    sources = [record.stored.source for record in loaded if record.stored]
    built = factories.aggregated(
        process_results=loaded, sources=sources, unknown_fields={"/new": 1} if newer else msgspec.UNSET
    )
    encoded = codec.encode_aggregated(built)
    assert all(data in encoded for data in files)
    decoded = codec.decode_aggregated(encoded, "exp.json")
    assert [record.stored and codec.digest(record.stored.data) for record in decoded.process_results] == [
        source.sha256 for source in decoded.sources or []
    ]
    assert codec.encode_aggregated(decoded) == encoded


@given(st.integers(0, len(GOOD) - 1))
def test_truncated_file_is_rejected_at_any_length(position: int) -> None:
    with pytest.raises(ResultCorruptError, match="^cannot load raw result exp/process_0.json: "):
        codec.decode_raw(GOOD[:position], "exp/process_0.json")


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3))
def test_damaged_file_loads_or_is_rejected_in_one_line(position: int, junk: bytes) -> None:
    _loads_or_is_rejected(GOOD[:position] + junk + GOOD[position + len(junk) :])


@given(st.one_of(st.binary(max_size=60), strategies.json_values.map(factories.as_bytes)))
def test_random_bytes_load_or_are_rejected_in_one_line(data: bytes) -> None:
    _loads_or_is_rejected(data)


@given(st.sampled_from(sorted(json.loads(GOOD))), strategies.json_values)
def test_random_field_value_loads_or_is_rejected_in_one_line(name: str, value: object) -> None:
    _loads_or_is_rejected(factories.as_bytes({**json.loads(GOOD), name: value}))


def _loads_or_is_rejected(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", codec.NewerMinorVersionWarning)
        try:
            codec.decode_raw(data, "exp/process_0.json")
        except ResultCorruptError as error:
            assert str(error).startswith(("cannot load", "cannot load"))  # noqa: PT017 - the record may also load
            assert "\n" not in str(error)  # noqa: PT017 - as above


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return all objects of a document except those in free-form fields, where every key is valid."""
    if isinstance(value, list):
        return [found for item in value for found in _objects(item)]
    if not isinstance(value, dict):
        return []
    free = {"effective_config", "cli_overrides"}
    inner = [found for key, item in value.items() if key not in free and " " not in key for found in _objects(item)]
    return [value, *inner]
