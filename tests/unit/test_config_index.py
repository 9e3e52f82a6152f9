"""Configuration keys in the catalogue: conditions, sort orders, groups, and damage of the index."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.catalogue.paths import CATALOGUE_NAME
from llm_energy_measure.catalogue.query import where_clause
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from tests.support import factories

CONFIGS: dict[str, dict[str, Any]] = {
    "a": {"batching": {"batch_size": 8}, "streaming": True, "precision": "float16", "seed": 1, "gpus": [0, 1]},
    "b": {"batching": {"batch_size": 16}, "streaming": False, "precision": "int8", "seed": 2},
    "c": {"batching": {"batch_size": "auto"}, "streaming": None, "precision": "float16"},
    "d": {"batching": {"batch_size": 8.0}, "data": {"batch_size": "64"}, "größe": "ü"},
}


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    """Return a directory with a pending experiment `e`, whose configuration is that of `b`."""
    repository = FileSystemRepository(tmp_path / "results")
    for name, config in CONFIGS.items():
        if name != "d":
            add(repository, name, config)
    repository.save_raw("e", factories.raw("e", effective_config=CONFIGS["b"]))
    return repository


def add(repository: FileSystemRepository, name: str, config: dict[str, Any]) -> None:
    repository.save_raw(name, factories.raw(name, effective_config=config))
    repository.save_aggregated(aggregate_results(name, repository.load_all_raw(name)))


def selected(repository: FileSystemRepository, where: str, **changes: Any) -> str:
    rows = query_catalogue(repository, lambda catalogue: catalogue.summaries(Query(where=where, **changes)))
    return "".join(row.experiment_id for row in rows)


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("config.batch_size >= 8", "ab"),
        ("config.batching.batch_size = 8", "a"),
        ("config.batch_size = 8.0", "a"),
        ("config.batch_size < 16", "a"),
        ("config.batch_size = auto", "c"),
        ("config.batch_size ~ AU", "c"),
        ("config.batch_size in (8, auto)", "ac"),
        ("config.batch_size != 8", "bc"),
        ("config.streaming = true", "a"),
        ("not config.streaming = true", "b"),
        ("config.streaming is unknown", "c"),
        ("config.gpus = '[0,1]'", "a"),
        ("config.seed > 1 and config.precision = int8", "b"),
    ],
)
def test_condition_on_a_configuration_key(repository: FileSystemRepository, where: str, wanted: str) -> None:
    assert selected(repository, where) == wanted


def test_pending_experiments_have_a_configuration(repository: FileSystemRepository) -> None:
    assert selected(repository, "config.batch_size = 16", with_pending=True) == "be"


def test_number_and_text_of_equal_value_sort_and_compare_as_numbers(repository: FileSystemRepository) -> None:
    add(repository, "d", CONFIGS["d"])
    assert selected(repository, "config.batching.batch_size = 8") == "ad"
    assert selected(repository, "config.data.batch_size > 60") == "d"
    assert selected(repository, "config.größe = ü") == "d"


def test_ambiguous_key_is_an_error_that_names_the_keys(repository: FileSystemRepository) -> None:
    add(repository, "d", CONFIGS["d"])
    message = "config.batch_size is ambiguous: config.batching.batch_size, config.data.batch_size match"
    with pytest.raises(ConfigurationError, match=message):
        selected(repository, "config.batch_size > 1")


def test_key_that_is_the_end_of_another_key_is_not_preferred(repository: FileSystemRepository) -> None:
    add(repository, "d", {"batch_size": 8, "precision": "int8"})
    message = r"config.batch_size is ambiguous: config..batch_size, config.batching.batch_size match; use one of these"
    with pytest.raises(ConfigurationError, match=message):
        selected(repository, "config.batch_size = 8")
    assert selected(repository, "config..batch_size = 8") == "d"
    assert selected(repository, "config.batching.batch_size = 8") == "a"


def test_unknown_key_is_an_error_that_names_similar_keys(repository: FileSystemRepository) -> None:
    with pytest.raises(ConfigurationError, match=r"the key 'batchsize'; did you mean config.batching.batch_size\?"):
        selected(repository, "config.batchsize > 1")


def test_configuration_keys_sort_and_group(repository: FileSystemRepository) -> None:
    def sort(reverse: bool) -> str:
        rows = query_catalogue(
            repository, lambda catalogue: catalogue.summaries(Query(), sort="config.batch_size", reverse=reverse)
        )
        return "".join(row.experiment_id for row in rows)

    assert (sort(reverse=False), sort(reverse=True)) == ("abc", "bac")
    groups = query_catalogue(
        repository, lambda catalogue: catalogue.groups(Query(), ["config.precision", "config.streaming"])
    )
    assert [list(group.by.values()) for group in groups] == [["float16", True], ["float16", None], ["int8", False]]
    assert [group.experiments for group in groups] == [1, 1, 1]


def test_config_values_count_experiments(repository: FileSystemRepository) -> None:
    query = Query(with_pending=True)
    found = query_catalogue(repository, lambda catalogue: catalogue.config_values(query))
    counts = {f"{one.key}={one.value!r}": one.experiments for one in found if one.key in ("precision", "streaming")}
    assert counts == {"precision='float16'": 2, "precision='int8'": 2, "streaming=True": 1, "streaming=False": 2}
    assert {one.value for one in found if one.is_other} == {1, 2}, "only the seed does not separate repeats"


def test_keys_of_deleted_experiments_are_forgotten(repository: FileSystemRepository) -> None:
    add(repository, "d", CONFIGS["d"])
    assert selected(repository, "config.größe = ü") == "d"
    repository.delete_experiment("d")
    assert selected(repository, "config.batch_size = 8") == "a", "not ambiguous any more"
    with pytest.raises(ConfigurationError, match="no configuration has the key 'größe'"):
        selected(repository, "config.größe = ü")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE config SET value = 99 WHERE value = 8",
        "UPDATE config SET type = 'text' WHERE value = 8",
        "DELETE FROM config WHERE value = 8",
        "UPDATE config_keys SET key = 'x' WHERE key = 'batching.batch_size'",
        "DELETE FROM config_keys",
        "DELETE FROM config_parts",
        "UPDATE config_parts SET data = '{\"batching.batch_size\":99}'",
        "UPDATE experiments SET config = 1",
        "INSERT INTO config SELECT part, 999, 'integer', 1 FROM config_parts",
    ],
)
def test_damaged_index_is_rebuilt(repository: FileSystemRepository, damage: str) -> None:
    assert selected(repository, "config.batch_size = 8") == "a"
    warnings: list[str] = []
    with sqlite3.connect(repository.base_path / CATALOGUE_NAME) as database:
        database.execute(damage)
    database.close()
    rows = query_catalogue(
        repository, lambda catalogue: catalogue.summaries(Query(where="config.batch_size = 8")), warn=warnings.append
    )
    assert [row.experiment_id for row in rows] == ["a"]
    assert len(warnings) == 1


def test_conditions_do_not_scan_all_keys(tmp_path: Path) -> None:
    """A condition on one of 4,000 keys reads the rows of this key. It does not scan the table of keys and values."""
    repository = FileSystemRepository(tmp_path)
    for number in range(20):
        add(repository, f"x{number:02}", {"options": {f"key_{key}": key + number for key in range(4_000)}})
    assert selected(repository, "config.key_7 >= 20") == "".join(f"x{n:02}" for n in range(13, 20))
    where = where_clause("config.options.key_7 = auto", {})
    with sqlite3.connect(repository.base_path / CATALOGUE_NAME) as database:
        query = f"EXPLAIN QUERY PLAN SELECT folder FROM experiments WHERE {where.sql}"  # noqa: S608 - the SQL under test
        steps = [row[3] for row in database.execute(query, where.values)]
        columns = len(database.execute("PRAGMA table_info(experiments)").fetchall())
    database.close()
    assert [step for step in steps if step.startswith("SEARCH config USING PRIMARY KEY (part=? AND key=?)")]
    assert not [step for step in steps if step.startswith("SCAN config")]
    assert columns < 200
