"""Shards are disjoint, complete and stable for any folder names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results.batch.shards import Shard, parse_shard

NAMES = st.lists(st.text(min_size=1, max_size=30), max_size=30, unique=True)


@given(NAMES, st.integers(1, 40))
def test_each_name_is_in_exactly_one_shard(names: list[str], count: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    assert all(sum(shard.has(name) for shard in shards) == 1 for name in names)


def test_shard_of_a_name_never_changes() -> None:
    """Tasks of one array can run different releases, so the hash is part of the interface."""
    numbers = {
        name: next(n for n in range(1, 17) if Shard(n, 16).has(name)) for name in ("exp_7", "a", "smollm2_b1_c0")
    }
    assert numbers == {"exp_7": 4, "a": 11, "smollm2_b1_c0": 14}


def test_shards_have_similar_sizes() -> None:
    sizes = [sum(Shard(number, 8).has(f"exp_{index}") for index in range(8000)) for number in range(1, 9)]
    assert min(sizes) > 800
    assert max(sizes) < 1200


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "1/0", "3", "/", "1/3/5", "-1/3", "one/3", "1/1000001", "", " 1/3", "\u0661/3"]
)
def test_text_that_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot select the shard"):
        parse_shard(text)


def test_first_shard_of_one_has_all() -> None:
    assert parse_shard("1/1") == Shard(1, 1)
    assert all(parse_shard("1/1").has(name) for name in ("a", "b", "c"))
