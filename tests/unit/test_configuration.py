"""Flattened configurations: keys, values, ignored keys, digest and names of keys."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.configuration import digest, flatten, is_ignored, keys_named, shortest_name

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


def test_flatten_joins_names_with_dots_and_leaves_out_null() -> None:
    config = {"b": {"x": None, "y": [1, {"z": 2}], "n": {}}, "a": True, "c": math.nan, "d": 1.5}
    assert flatten(config) == {"a": True, "b.y": '[1,{"z":2}]', "d": 1.5}


def test_flatten_keeps_both_values_of_one_dotted_key() -> None:
    assert flatten({"a.b": 1, "a": {"b": 2}}) == {"a.b": 1, "a.b#2": 2}


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4))
def test_flattened_configuration_is_sorted_and_storable(config: dict[str, Any]) -> None:
    flat = flatten(config)
    assert list(flat) == sorted(flat)
    assert msgspec.json.decode(msgspec.json.encode(flat)).keys() == flat.keys()
    assert digest(flat) == digest(dict(reversed(flat.items())))


def test_deep_configuration_does_not_exhaust_the_stack() -> None:
    config: dict[str, Any] = {"leaf": 1}
    for _ in range(5000):
        config = {"x": config}
    assert list(flatten(config).values()) == [1]


@pytest.mark.parametrize(
    "key",
    [
        *("cycle_id", "num_cycles", "config_name", "experiment_id", "run.id", "random_seed", "prompt_source.seed"),
        *("data_seed", "io_config.results_dir", "output_dir", "schedule_config.at", "legacy.x", "zeus.start_time"),
    ],
)
def test_key_that_does_not_separate_repeats_is_ignored(key: str) -> None:
    assert is_ignored(key, ["zeus"])


@pytest.mark.parametrize(
    "key", ["batch_size", "pad_token_id", "seeds", "scheduler.policy", "lr_schedule", "gpu_list", "model_name", "zeus"]
)
def test_key_of_the_configuration_is_not_ignored(key: str) -> None:
    assert not is_ignored(key)


def test_digest_of_equal_numbers_is_equal_and_of_a_boolean_differs() -> None:
    assert digest({"a": 1}) == digest({"a": 1.0}) != digest({"a": True})


def test_name_of_a_key_is_the_key_or_a_whole_ending() -> None:
    keys = ["a.size", "size", "b.max_size", "b.size.max"]
    assert keys_named("size", keys) == ["a.size", "size"]
    assert keys_named(".size", keys) == ["size"]
    assert keys_named("b.size.max", keys) == keys_named(".b.size.max", keys) == ["b.size.max"]
    assert keys_named(".max", keys) == []
    assert keys_named("max", keys) == ["b.size.max"]
    assert keys_named("x", keys) == []
    assert keys_named("size", ["a.size", "c.size"]) == ["a.size", "c.size"]


@given(st.sets(st.text("ab.", min_size=1, max_size=6)))
def test_shortest_name_selects_exactly_its_key(keys: set[str]) -> None:
    keys = {key for key in keys if "" not in key.split(".")}
    for key in keys:
        assert keys_named(shortest_name(key, keys), keys) == [key]
