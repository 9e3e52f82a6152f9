"""Observations of experiments, and the groups of repeats."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.analysis.observations import METRICS, Observation, group_observations, read_observations
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.store.tags import change_tags
from tests.support import factories


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    return FileSystemRepository(tmp_path / "results")


def save(
    repository: FileSystemRepository, name: str, number: int = 0, *, tags: dict[str, str] | None = None, **changes: Any
) -> None:
    """Save and aggregate an experiment of one process, which starts at this hour and measures on its own GPU."""
    start = factories.START + timedelta(hours=number)
    energy = factories.energy(
        total_energy_j=100.0 + number, gpu_scope="device", cpu_scope="process", total_scope="host"
    )
    fields: dict[str, Any] = {
        "timestamps": factories.timestamps(start),
        "energy_metrics": energy,
        "effective_config": {"batching": {"batch_size": 8}, "seed": number, "cycle_id": number},
        "world_size": 1,
        "host": "node-1",
    }
    repository.save_raw(name, factories.raw(name, **{**fields, **changes}))
    repository.save_aggregated(aggregate_results(name, repository.load_all_raw(name)))
    if tags:
        change_tags(repository.store, name, dict(tags))


def names(observations: list[Observation]) -> list[list[str]]:
    return [[one.experiment_id for one in group.observations] for group in group_observations(observations)]


def test_seeds_and_counters_do_not_separate_repeats(repository: FileSystemRepository) -> None:
    for number in range(3):
        save(repository, f"run{number}", number)
    [one, *_] = found = read_observations(repository)
    assert names(found) == [["run0", "run1", "run2"]]
    assert (one.configuration, one.ignored) == ({"batching.batch_size": 8}, {"seed": 0, "cycle_id": 0})
    assert set(one.values) == set(METRICS)


def test_key_of_the_configuration_separates_repeats(repository: FileSystemRepository) -> None:
    save(repository, "x_c0", 0, effective_config={"batching": {"batch_size": 8}})
    save(repository, "x_c1", 1, effective_config={"batching": {"batch_size": 16}})
    groups = group_observations(read_observations(repository))
    assert [group.differs for group in groups] == [
        {"config.batching.batch_size": 8},
        {"config.batching.batch_size": 16},
    ]
    assert [group.name for group in groups] == ["batching.batch_size=8", "batching.batch_size=16"]
    assert names(read_observations(repository, ignore=["config.batch_size"])) == [["x_c0", "x_c1"]]


@pytest.mark.parametrize(
    "changes",
    [{"model_name": "other"}, {"host": None}, {"backend_version": "torch=9"}, {"library_versions": {"torch": "9"}}],
)
def test_model_hardware_and_software_separate_repeats(repository: FileSystemRepository, changes: Any) -> None:
    save(repository, "a", 0)
    save(repository, "b", 1, **changes)
    assert names(read_observations(repository)) in ([["a"], ["b"]], [["b"], ["a"]])


def test_split_by_separates_an_ignored_key(repository: FileSystemRepository) -> None:
    for number in range(2):
        save(repository, f"run{number}", number)
    assert names(read_observations(repository, split_by=["seed"])) == [["run0"], ["run1"]]


def test_two_nights_are_split_by_their_commit_tag(repository: FileSystemRepository) -> None:
    for number, commit in enumerate(["a1", "a1", "b2", "b2"]):
        save(repository, f"run{number}", number, tags={"commit": commit})
    assert names(read_observations(repository)) == [["run0", "run1", "run2", "run3"]]
    groups = group_observations(read_observations(repository, by=["tag.commit"]))
    assert [group.differs for group in groups] == [{"tag.commit": "a1"}, {"tag.commit": "b2"}]


def test_lower_bound_is_left_out_with_its_reason(repository: FileSystemRepository) -> None:
    save(repository, "whole", 0)
    save(repository, "part", 1, world_size=2)
    [group] = group_observations(read_observations(repository, ignore=["processes"]))
    assert [one.experiment_id for one in group.observations] == ["whole"]
    assert group.left_out["part"].startswith("lower bound: 1 of 2 processes")


def test_copy_of_a_measurement_counts_once(repository: FileSystemRepository) -> None:
    save(repository, "a", 0)
    save(repository, "b", 0)
    [group] = group_observations(read_observations(repository))
    assert [one.experiment_id for one in group.observations] == ["a"]
    assert group.left_out == {"b": "copy: the same measurement as a"}


def test_where_selects_experiments(repository: FileSystemRepository) -> None:
    save(repository, "a", 0)
    save(repository, "b", 1)
    assert [one.experiment_id for one in read_observations(repository, where="id = b")] == ["b"]


@pytest.mark.parametrize("options", [{"by": ["nonsense"]}, {"ignore": ["nonsense"]}, {"split_by": ["batch"]}])
def test_unknown_key_is_an_error(repository: FileSystemRepository, options: Any) -> None:
    save(repository, "a", 0)
    with pytest.raises(ConfigurationError):
        read_observations(repository, **options)
