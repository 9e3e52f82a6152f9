"""Files that are kept aside, under the names of this release and of earlier ones: no reader takes them for results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import InvalidResultError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.batch.merge import merge_results
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT

OLD_NAMES = (
    f"raw/{EXP}/rejected-process_0-1.json",
    f"raw/{EXP}/superseded-process_0-1.json",
    f"aggregated/superseded-{EXP}-1.json",
)


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    repository = FileSystemRepository(tmp_path / "results")
    repository.save_raw(EXP, factories.raw(gpu_name="A"))
    return repository


def plant_old_names(repository: FileSystemRepository) -> None:
    for number, name in enumerate(OLD_NAMES):
        path = repository.base_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)


def files(repository: FileSystemRepository) -> list[str]:
    paths = (path for path in repository.base_path.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(repository.base_path)) for path in paths)


def test_glob_of_json_finds_results_only(repository: FileSystemRepository) -> None:
    repository.save_raw(EXP, factories.raw(gpu_name="B"), overwrite=True)
    with pytest.raises(InvalidResultError):
        repository.save_raw(EXP, factories.raw(process_index=1, config_name=7))
    external = repository.base_path / "aggregated" / f"{EXP}.json"
    external.parent.mkdir()
    external.write_bytes(b"{}")
    list(aggregate_all(repository, force=True, strict=False))
    assert [path.name for path in (repository.base_path / "aggregated").glob("*.json")] == [f"{EXP}.json"]
    assert sorted(path.name for path in (repository.base_path / "raw" / EXP).glob("*.json")) == [
        "manifest.json",
        "process_0.json",
    ]
    assert [name for name in files(repository) if name.endswith(".json.kept")] == [
        f"aggregated/superseded-{EXP}-1.json.kept",
        f"raw/{EXP}/rejected-process_1-1.json.kept",
        f"raw/{EXP}/superseded-process_0-1.json.kept",
    ]


def test_check_reports_files_under_their_old_names(repository: FileSystemRepository) -> None:
    plant_old_names(repository)
    found = {finding.key: finding.code for finding in check_store(repository)}
    assert [found[name] for name in OLD_NAMES] == ["raw.rejected", "raw.superseded", "aggregate.superseded"]


def test_delete_removes_files_under_their_old_names(repository: FileSystemRepository) -> None:
    plant_old_names(repository)
    assert repository.delete_experiment(EXP) is True
    assert files(repository) == []


def test_merge_copies_files_with_old_names_to_new_ones(repository: FileSystemRepository, tmp_path: Path) -> None:
    plant_old_names(repository)
    target = FileSystemRepository(tmp_path / "target")
    outcomes = {merged.key: merged for merged in merge_results(target, repository)}
    assert {outcomes[name].outcome for name in OLD_NAMES} == {"copied"}
    assert {f"{name}.kept" for name in OLD_NAMES} < set(files(target))
    assert not set(OLD_NAMES) & set(files(target))
    again = {merged.key: merged for merged in merge_results(target, repository)}
    assert {again[name].outcome for name in OLD_NAMES} == {"same"}


def test_file_with_an_old_name_is_not_kept_twice(repository: FileSystemRepository) -> None:
    refused = factories.raw(process_index=1, config_name=7)
    with pytest.raises(InvalidResultError) as caught:
        repository.save_raw(EXP, refused)
    kept = caught.value.kept
    assert kept is not None
    old = kept.rename(kept.with_name(kept.name.removesuffix(".kept")))
    with pytest.raises(InvalidResultError) as caught:
        repository.save_raw(EXP, refused)
    assert caught.value.kept == old
