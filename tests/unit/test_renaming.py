"""`merge --prefix`: experiments of two directories with equal ids are renamed, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_energy_measure.analysis.observations import group_observations, read_observations
from llm_energy_measure.domain.experiment import ImportOrigin, Manifest
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.merge import merge_results
from llm_energy_measure.results.batch.renaming import merge_renamed
from llm_energy_measure.results.batch.state import inspect_experiment
from llm_energy_measure.results.store.tags import change_tags, load_tags
from tests.support import factories
from tests.support.command import run


def night(folder: Path, joules: float, **changes: Any) -> FileSystemRepository:
    """Return a results directory with two aggregated experiments `a` and `b`, of which `a` has tags."""
    repository = FileSystemRepository(folder)
    repository.begin_experiment(Manifest(experiment_id="a", expected_processes=2))
    for name in ("a", "b"):
        for process in range(2):
            parts = dict.fromkeys(("gpu_energy_j", "cpu_energy_j", "ram_energy_j", "gpu_power_w", "cpu_power_w"))
            energy = factories.energy(process, total_energy_j=joules + process, **parts)
            fields = {"energy_metrics": energy, "world_size": 2, **changes}
            repository.save_raw(name, factories.raw(name, process, **fields))
    list(aggregate_all(repository))
    change_tags(repository.store, "a", {"commit": "abc"}, note="quiet")
    return repository


@pytest.fixture
def nights(tmp_path: Path) -> list[FileSystemRepository]:
    return [night(tmp_path / name / "results", joules) for name, joules in (("mon", 100.0), ("tue", 110.0))]


def outcomes(target: FileSystemRepository, source: FileSystemRepository, prefix: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for merged in merge_renamed(target, source, prefix):
        counts[merged.outcome] = counts.get(merged.outcome, 0) + 1
    return counts


def test_merge_with_prefix_changes_only_the_id(tmp_path: Path, nights: list[FileSystemRepository]) -> None:
    target = FileSystemRepository(tmp_path / "all")
    for source, prefix in zip(nights, ("mon", "tue"), strict=True):
        assert outcomes(target, source, prefix).keys() == {"copied"}
    assert target.list_experiments() == target.list_aggregated() == ["mon-a", "mon-b", "tue-a", "tue-b"]
    for old, new in zip(nights[0].load_all_raw("a"), target.load_all_raw("mon-a"), strict=True):
        origin = ImportOrigin(tool="llm-energy-measure", experiment_id="a")
        assert new == msgspec.structs.replace(old, experiment_id="mon-a", origin=origin)
    old_aggregate, aggregate = nights[0].load_aggregated("a"), target.load_aggregated("mon-a")
    assert old_aggregate is not None
    assert aggregate is not None
    same = {"experiment_id": "a", "sources": old_aggregate.sources, "process_results": old_aggregate.process_results}
    assert msgspec.structs.replace(aggregate, **same) == old_aggregate
    assert inspect_experiment(target, "mon-a").status == "current"
    assert target.load_manifest("mon-a") == Manifest(experiment_id="mon-a", expected_processes=2)
    tags = load_tags(target.store, "mon-a")
    assert (tags.experiment_id, tags.tags, tags.note) == ("mon-a", {"commit": "abc"}, "quiet")


def test_merge_with_prefix_does_not_seal_an_altered_aggregate(
    tmp_path: Path, nights: list[FileSystemRepository]
) -> None:
    path = nights[0].base_path / "aggregated" / "a.json"
    path.write_bytes(path.read_bytes().replace(b'"total_energy_j": 201.0', b'"total_energy_j": 100.5', 1))
    target = FileSystemRepository(tmp_path / "all")
    failed = [merged for merged in merge_renamed(target, nights[0], "mon") if merged.outcome == "failed"]
    assert [merged.key for merged in failed] == ["aggregated/a.json"]
    assert "another program changed values in it" in (failed[0].reason or "")
    assert inspect_experiment(target, "mon-a").status == "pending"


def test_merge_with_prefix_keeps_an_unsealed_aggregate_unsealed(
    tmp_path: Path, nights: list[FileSystemRepository]
) -> None:
    path = nights[0].base_path / "aggregated" / "a.json"
    document = {name: value for name, value in json.loads(path.read_bytes()).items() if not name.endswith("_sha256")}
    path.write_text(json.dumps(document))
    target = FileSystemRepository(tmp_path / "all")
    assert outcomes(target, nights[0], "mon").keys() == {"copied"}
    copies = [target.load_summary(name) for name in ("mon-a", "mon-b")]
    assert [copy and copy.integrity for copy in copies] == ["unsealed", "sealed"]


def test_repeated_merge_with_prefix_copies_nothing(tmp_path: Path, nights: list[FileSystemRepository]) -> None:
    target = FileSystemRepository(tmp_path / "all")
    first = outcomes(target, nights[0], "mon")
    change_tags(target.store, "mon-a", {"night": "1"})
    assert outcomes(target, nights[0], "mon") == {"same": first["copied"]}


def test_second_renaming_keeps_the_first_id(tmp_path: Path, nights: list[FileSystemRepository]) -> None:
    middle, target = FileSystemRepository(tmp_path / "middle"), FileSystemRepository(tmp_path / "all")
    outcomes(middle, nights[0], "mon")
    outcomes(target, middle, "march")
    [first, _] = target.load_all_raw("march-mon-a")
    assert first.origin is not None
    assert first.origin.experiment_id == "a"


def test_origin_of_an_imported_record_is_kept(tmp_path: Path) -> None:
    origin = ImportOrigin(tool="codecarbon", file="emissions.csv", row=3)
    target = FileSystemRepository(tmp_path / "all")
    outcomes(target, night(tmp_path / "one", 100.0, origin=origin), "x")
    [first, _] = target.load_all_raw("x-a")
    assert first.origin == msgspec.structs.replace(origin, experiment_id="a")


def test_stale_aggregate_stays_stale(tmp_path: Path, nights: list[FileSystemRepository]) -> None:
    nights[0].save_raw("b", factories.raw("b", 2))
    target = FileSystemRepository(tmp_path / "all")
    outcomes(target, nights[0], "mon")
    assert inspect_experiment(target, "mon-b").status == "stale"
    assert inspect_experiment(target, "mon-a").status == "current"


def test_unreadable_file_is_reported_and_the_others_are_merged(
    tmp_path: Path, nights: list[FileSystemRepository]
) -> None:
    (nights[0].base_path / "raw" / "a" / "process_1.json").write_bytes(b"{")
    target = FileSystemRepository(tmp_path / "all")
    found = list(merge_renamed(target, nights[0], "mon"))
    [failed] = [merged for merged in found if merged.outcome == "failed"]
    assert (failed.key, "cannot be renamed" in (failed.reason or "")) == ("raw/a/process_1.json", True)
    assert [record.process_index for record in target.recover_raw("mon-a").results] == [0]


def test_copies_under_two_names_count_once(tmp_path: Path, nights: list[FileSystemRepository]) -> None:
    target = FileSystemRepository(tmp_path / "all")
    outcomes(target, nights[0], "x")
    outcomes(target, nights[0], "y")
    groups = group_observations(read_observations(target, energy="plain"))
    assert sum(len(group.observations) for group in groups) == 1, "a and b of the night have equal figures"


def test_tags_of_the_target_may_be_more_than_those_of_the_source(
    tmp_path: Path, nights: list[FileSystemRepository]
) -> None:
    target = FileSystemRepository(tmp_path / "all")
    list(merge_results(target, nights[0]))
    change_tags(target.store, "a", {"night": "1"})
    assert {merged.outcome for merged in merge_results(target, nights[0])} == {"same"}
    change_tags(target.store, "a", {"commit": "other"})
    assert "conflict" in {merged.outcome for merged in merge_results(target, nights[0])}


# Command line


def test_command_merges_nights_by_folder_name_and_tags_them(tmp_path: Path, nights: list[FileSystemRepository]) -> None:
    folders = [night.base_path for night in nights]
    arguments = ("-o", tmp_path / "all", "results", "merge", *folders, "--prefix", "folder", "--tag", "suite=nightly")
    assert run(*arguments).status == 0
    rows = run("-o", tmp_path / "all", "results", "list", "--columns", "id,tag.suite,tag.commit", "--json").json()
    assert [tuple(row.values()) for row in rows] == [
        *(("mon-a", "nightly", "abc"), ("mon-b", "nightly", None)),
        *(("tue-a", "nightly", "abc"), ("tue-b", "nightly", None)),
    ]
    again = run(*arguments)
    assert (again.status, again.err.startswith("0 copied")) == (0, True)
    assert run("-o", tmp_path / "all", "results", "verify", "--all").status == 0


@pytest.mark.parametrize(
    ("prefix", "message"), [("a/b", "cannot begin the name of a folder"), ("x", "several directories get the prefix")]
)
def test_invalid_or_equal_prefixes_are_wrong_usage(
    tmp_path: Path, nights: list[FileSystemRepository], prefix: str, message: str
) -> None:
    folders = [night.base_path for night in nights]
    done = run("-o", tmp_path / "all", "results", "merge", *folders, "--prefix", prefix)
    assert (done.status, message in done.err) == (2, True)
    assert not (tmp_path / "all").exists()
