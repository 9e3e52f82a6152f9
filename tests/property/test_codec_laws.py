"""Laws of the codec, over whole records."""

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
def test_a_raw_record_comes_back_from_its_bytes(record: RawProcessResult) -> None:
    assert codec.decode_raw(codec.encode_raw(record), "process_0.json") == record


@given(strategies.raw_records())
def test_what_may_be_stored_is_stored_unchanged(record: RawProcessResult) -> None:
    assert codec.require_valid_raw(record) == record


@given(strategies.aggregated_records())
def test_an_aggregate_comes_back_from_its_bytes(record: AggregatedResult) -> None:
    assert codec.decode_aggregated(codec.encode_aggregated(record), "exp.json") == record


@given(strategies.raw_records())
def test_encoding_is_a_function_of_the_content(record: RawProcessResult) -> None:
    encoded = codec.encode_raw(record)
    assert codec.encode_raw(codec.decode_raw(encoded, "process_0.json")) == encoded


@given(strategies.raw_records(), strategies.unknown_names, strategies.json_values, st.data())
def test_an_unknown_field_survives_wherever_it_stands(
    record: RawProcessResult, name: str, value: object, data: st.DataObject
) -> None:
    document = json.loads(codec.encode_raw(record))
    # But for the versions of libraries, whose names are anybody's.
    place = data.draw(st.sampled_from([one for one in _objects(document) if one is not document["library_versions"]]))
    place[name] = value
    there_and_back = codec.encode_raw(codec.decode_raw(factories.as_bytes(document), "process_0.json"))
    assert json.loads(there_and_back) == document


@given(st.lists(strategies.raw_records(), min_size=1, max_size=3), st.booleans())
def test_embedded_raw_files_stand_verbatim_in_the_aggregate(records: list[RawProcessResult], newer: bool) -> None:
    files = [codec.encode_raw(record) for record in records]
    loaded = [codec.decode_raw(data, f"process_{index}.json") for index, data in enumerate(files)]
    sources = [record.stored.source for record in loaded if record.stored]
    built = factories.aggregated(
        process_results=loaded, sources=sources, unknown_fields={"/new": 1} if newer else msgspec.UNSET
    )
    encoded = codec.encode_aggregated(built)
    assert all(data in encoded for data in files)
    again = codec.decode_aggregated(encoded, "exp.json")
    assert [record.stored and codec.digest(record.stored.data) for record in again.process_results] == [
        source.sha256 for source in again.sources or []
    ]
    assert codec.encode_aggregated(again) == encoded


@given(st.integers(0, len(GOOD) - 1))
def test_a_file_cut_anywhere_is_told_from_a_whole_one(position: int) -> None:
    with pytest.raises(ResultCorruptError, match="^Failed to load raw result exp/process_0.json: "):
        codec.decode_raw(GOOD[:position], "exp/process_0.json")


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3))
def test_a_damaged_file_loads_or_is_refused_in_one_sentence(position: int, junk: bytes) -> None:
    _loads_or_is_refused(GOOD[:position] + junk + GOOD[position + len(junk) :])


@given(st.one_of(st.binary(max_size=60), strategies.json_values.map(factories.as_bytes)))
def test_any_bytes_load_or_are_refused_in_one_sentence(data: bytes) -> None:
    _loads_or_is_refused(data)


@given(st.sampled_from(sorted(json.loads(GOOD))), strategies.json_values)
def test_any_value_in_any_field_loads_or_is_refused_in_one_sentence(name: str, value: object) -> None:
    _loads_or_is_refused(factories.as_bytes({**json.loads(GOOD), name: value}))


def _loads_or_is_refused(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", codec.NewerMinorVersionWarning)
        try:
            codec.decode_raw(data, "exp/process_0.json")
        except ResultCorruptError as refused:
            assert str(refused).startswith(("Failed to load", "cannot load"))  # noqa: PT017 - both ways are right
            assert "\n" not in str(refused)  # noqa: PT017 - as above


def _objects(value: Any) -> list[dict[str, Any]]:
    """Every object in a document that a record stands for: what a free-form field holds is no record."""
    if isinstance(value, list):
        return [found for item in value for found in _objects(item)]
    if not isinstance(value, dict):
        return []
    free = {"effective_config", "cli_overrides"}
    inner = [found for key, item in value.items() if key not in free and " " not in key for found in _objects(item)]
    return [value, *inner]
