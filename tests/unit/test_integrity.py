"""Digests of aggregates: another layout of the same values keeps them valid, and each changed value breaks them."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import summary_of
from llm_energy_measure.exceptions import ResultCorruptError
from llm_energy_measure.results.aggregation import aggregate_results
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.integrity import processes_digest, values_digest
from tests.support import factories, strategies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_energy_measure.domain.experiment import AggregatedResult

Path = tuple[str | int, ...]


def stored(records: int = 2, **changes: Any) -> AggregatedResult:
    """Return an aggregate of records with all fields, as `aggregate` makes it from raw files."""
    raws = [
        codec.decode_raw(codec.encode_raw(factories.full_raw(process_index=index, **changes)), f"process_{index}.json")
        for index in range(records)
    ]
    return aggregate_results(factories.EXPERIMENT, raws, strict=False)


def integrity(data: bytes) -> tuple[str | None, str | None]:
    """Return what both decoders say."""
    return codec.decode_aggregated(data, "x").integrity, codec.decode_summary(data, "x").integrity


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each value that is not an object or a list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths_of(inner, (*path, index))
    else:
        yield path


def changed(document: Any, path: Path) -> Any:
    """Return a copy of a document with another value of the same type at a path."""
    document = copy.deepcopy(document)
    parent = document
    for part in path[:-1]:
        parent = parent[part]
    value = parent[path[-1]]
    if isinstance(value, bool):
        parent[path[-1]] = not value
    elif isinstance(value, int | float):
        parent[path[-1]] = value + 1 if value < 1 else value / 2 if isinstance(value, float) else value - 1
    elif isinstance(value, str) and value[4:5] == "-" and value[10:11] == "T":
        parent[path[-1]] = value.replace(value[:4], "2031", 1)
    elif isinstance(value, str):
        parent[path[-1]] = value[:-1] + ("0" if value[-1:] == "1" else "1")
    return document


def whole_floats_as_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: whole_floats_as_integers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole_floats_as_integers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_nulls(value: Any) -> Any:
    """Return a document without the null fields of records; objects of the user keep theirs."""
    if isinstance(value, dict):
        free = ("effective_config", "cli_overrides")
        return {
            key: inner if key in free else without_nulls(inner) for key, inner in value.items() if inner is not None
        }
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        random.Random(len(keys)).shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


WRITERS: dict[str, Callable[[Any], str]] = {
    "compact": lambda document: json.dumps(document, separators=(",", ":")),
    "indent of four and sorted keys": lambda document: json.dumps(document, indent=4, sort_keys=True),
    "other order of keys": lambda document: json.dumps(shuffled(document), ensure_ascii=False),
    "integers for whole numbers": lambda document: json.dumps(whole_floats_as_integers(document)),
    "nulls left out": lambda document: json.dumps(without_nulls(document)),
    "exponents": lambda document: re.sub(r": 0\.25(?=[,}])", ": 2.5E-1", json.dumps(document)),
}

CONFIGS = [
    {},
    {"batch_size": 8, "temperature": 1.0, "top_p": 0.25, "top_k": None, "nested": [{"a": [1.0, 2, True]}, []]},
    {"seed": 2**70, "big": 1e300, "minus": -(2**65), "zero": 0.0},
]


@pytest.mark.parametrize("config", CONFIGS)
def test_aggregate_that_was_just_written_is_sealed(config: dict[str, Any]) -> None:
    assert integrity(codec.encode_aggregated(stored(effective_config=config))) == ("sealed", "sealed")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("config", CONFIGS)
def test_other_layout_keeps_the_aggregate_sealed(writer: str, config: dict[str, Any]) -> None:
    document = json.loads(codec.encode_aggregated(stored(effective_config=config)))
    assert integrity(WRITERS[writer](document).encode()) == ("sealed", "sealed")


def test_byte_order_mark_keeps_the_aggregate_sealed() -> None:
    assert integrity(codec.BOM + codec.encode_aggregated(stored())) == ("sealed", "sealed")


@pytest.mark.parametrize("part", ["summary", "processes"])
def test_each_changed_value_makes_the_aggregate_altered(part: str) -> None:
    document = json.loads(codec.encode_aggregated(stored(effective_config=CONFIGS[1])))
    paths = [path for path in paths_of(document) if (path[0] == "process_results") == (part == "processes")]
    tried = 0
    for path in paths:
        edited = changed(document, path)
        if edited != document and path[-1] != "schema_version":
            try:
                found = integrity(json.dumps(edited).encode())
            except ResultCorruptError:
                continue  # another value of this field is not valid
            assert found == ("altered", "altered"), path
            tried += 1
    assert tried > 50


@pytest.mark.parametrize("value", [1, 0.5, "1", None, [True], {"a": True}])
def test_other_type_of_a_configured_value_makes_it_altered(value: Any) -> None:
    document = json.loads(codec.encode_aggregated(stored(effective_config={"use_cache": True})))
    for holder in (document, document["process_results"][1]):
        edited = copy.deepcopy(document)
        target = edited if holder is document else edited["process_results"][1]
        target["effective_config"]["use_cache"] = value
        assert integrity(json.dumps(edited).encode()) == ("altered", "altered")


def test_added_removed_or_reordered_parts_make_it_altered() -> None:
    document = json.loads(codec.encode_aggregated(stored()))
    processes = document["process_results"]
    for edited in (
        {**document, "note": "mine"},
        {name: value for name, value in document.items() if name != "effective_config"},
        {name: value for name, value in document.items() if name != "processes_sha256"},
        {**document, "process_results": processes[:1]},
        {**document, "process_results": processes[::-1]},
        {**document, "process_results": [processes[0], {**processes[1], "note": 1}]},
    ):
        assert integrity(json.dumps(edited).encode()) == ("altered", "altered")


def test_damaged_text_in_an_altered_aggregate_raises_no_other_error() -> None:
    data = codec.encode_aggregated(stored())
    head, mark, embedded = data.replace(b'"total_tokens": ', b'"total_tokens": 1', 1).partition(b'"process_results"')
    damaged = head + mark + embedded.replace(b'"backend": "', b'"backend": "\xd7', 1)
    assert codec.decode_summary(damaged, "x").integrity == "altered"
    with pytest.raises(ResultCorruptError):
        codec.decode_aggregated(damaged, "x")


def test_aggregate_without_digests_is_unsealed() -> None:
    document = json.loads(codec.encode_aggregated(stored()))
    del document["values_sha256"], document["processes_sha256"]
    document["total_energy_j"] /= 2
    assert integrity(json.dumps(document).encode()) == ("unsealed", "unsealed")


def test_aggregate_of_a_release_with_fewer_fields_stays_sealed() -> None:
    """That release computed the digests without the fields that it did not know."""
    data = codec.encode_aggregated(stored(gpu_power_limit_w=None))
    document = json.loads(data)
    assert document["partial_energy_j"] is None
    del document["partial_energy_j"]
    for process in document["process_results"]:
        del process["gpu_power_limit_w"]
    result = codec.decode_aggregated(data, "x")
    document["processes_sha256"] = processes_digest(result.process_results, document["process_results"])
    document["values_sha256"] = values_digest(summary_of(result), document["processes_sha256"], document)
    assert document["values_sha256"] != json.loads(data)["values_sha256"]
    assert document["processes_sha256"] != json.loads(data)["processes_sha256"]
    assert integrity(json.dumps(document).encode()) == ("sealed", "sealed")
    document["total_energy_j"] /= 2
    assert integrity(json.dumps(document).encode()) == ("altered", "altered")


@given(strategies.aggregated_records())
def test_any_saved_aggregate_is_sealed_in_any_layout(record: AggregatedResult) -> None:
    data = codec.encode_aggregated(record)
    assert integrity(data) == ("sealed", "sealed")
    assert integrity(json.dumps(shuffled(json.loads(data)), indent=1).encode()) == ("sealed", "sealed")
    assert codec.decode_aggregated(data, "x") == record


@given(strategies.aggregated_records(), st.data())
def test_any_changed_number_makes_the_aggregate_altered(record: AggregatedResult, data: st.DataObject) -> None:
    document = json.loads(codec.encode_aggregated(record))
    paths = [path for path in paths_of(document) if path[-1] not in ("schema_version", "values_sha256")]
    edited = changed(document, data.draw(st.sampled_from(paths)))
    assume(edited != document)  # null has no other value, and adding 1 does not change the largest numbers
    try:
        found = integrity(json.dumps(edited).encode())
    except ResultCorruptError:
        return
    assert found == ("altered", "altered")
