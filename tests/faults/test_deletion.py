"""Tests of a deletion that stops at any step: each reader sees the whole experiment, or nothing of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import InvalidResultError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.checking import check_store, remove_leftovers
from llm_energy_measure.results.store import codec
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import factories
from tests.support.children import open_folder, outcome_in_child
from tests.support.faulty_store import CrashedError, FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.faulty_store import When

__all__ = ["open_folder"]  # a fixture

EXP = factories.EXPERIMENT
TAGS = f"tags/{EXP}.json"


def save_everything(store: MemoryStore) -> None:
    """Save results, a superseded result, an earlier attempt, our aggregate, one of another tool, and tags."""
    repository = FileSystemRepository(store=store)
    for attempt in (0, 1):
        repository.begin_experiment(Manifest(experiment_id=EXP, attempt=attempt))
        repository.save_raw(EXP, factories.raw())
    repository.save_raw(EXP, factories.raw(gpu_name="another"), overwrite=True)
    store.put(f"aggregated/{EXP}.json", codec.encode_aggregated(factories.aggregated()))
    repository.save_aggregated(aggregate_results(EXP, repository.load_all_raw(EXP)))
    store.put(TAGS, b"{}")


def save_derived(store: MemoryStore) -> None:
    """Save an aggregate of another tool and tags, without raw results."""
    store.put(f"aggregated/{EXP}.json", codec.encode_aggregated(factories.aggregated()))
    store.put(TAGS, b"{}")


def visible(repository: FileSystemRepository) -> tuple[object, ...]:
    """Return everything that a reader sees of the experiment."""
    is_gone = not repository.has_raw(EXP) and not repository.has_aggregated(EXP)
    return (
        repository.list_experiments(),
        repository.list_aggregated(),
        repository.load_all_raw(EXP),
        repository.load_aggregated(EXP),
        repository.read_aggregated(EXP),
        [] if is_gone else repository.list_attempts(EXP),
        None if is_gone else repository.store.get(TAGS),
    )


GONE: tuple[object, ...] = ([], [], [], None, None, [], None)


@pytest.mark.parametrize("make", [save_everything, save_derived])
@pytest.mark.parametrize("when", ["before", "after"])
def test_stopped_deletion_is_all_or_nothing_and_clean_finishes_it(
    make: Callable[[MemoryStore], None], when: When
) -> None:
    counted = FaultyStore(_store(make), at=-1)
    assert FileSystemRepository(store=counted).delete_experiment(EXP)
    states = set()
    for at in range(len(counted.steps)):
        store = _store(make)
        before = visible(FileSystemRepository(store=store))
        with pytest.raises(CrashedError):
            FileSystemRepository(store=FaultyStore(store, at, when, "crash")).delete_experiment(EXP)
        repository = FileSystemRepository(store=store)
        after = visible(repository)
        assert after in (before, GONE), (at, counted.steps)
        states.add(after == GONE)
        if after == GONE:
            remove_leftovers(repository, check_store(repository))
            assert not store._values, at
    assert True in states
    assert (False in states) is (when == "before")


@pytest.mark.parametrize("make", [save_everything, save_derived])
def test_next_experiment_with_the_id_gets_nothing_that_was_deleted(make: Callable[[MemoryStore], None]) -> None:
    store = _store(make)
    with pytest.raises(CrashedError):
        FileSystemRepository(store=FaultyStore(store, 1, "after", "crash")).delete_experiment(EXP)
    repository = FileSystemRepository(store=store)
    assert visible(repository) == GONE
    repository.save_raw(EXP, factories.raw(gpu_name="new"))
    assert repository.load_aggregated(EXP) is None
    assert set(store._values) == {f"raw/{EXP}/manifest.json", f"raw/{EXP}/process_0.json"}


def test_new_aggregate_without_results_restores_nothing_deleted() -> None:
    store = _store(save_everything)
    with pytest.raises(CrashedError):
        FileSystemRepository(store=FaultyStore(store, 0, "after", "crash")).delete_experiment(EXP)
    repository = FileSystemRepository(store=store)
    repository.save_aggregated(factories.aggregated())
    assert repository.load_aggregated(EXP) == factories.aggregated()
    assert set(store._values) == {f"aggregated/{EXP}.json"}


def _store(make: Callable[[MemoryStore], None]) -> MemoryStore:
    store = MemoryStore()
    make(store)
    return store


def test_rejected_record_restores_nothing_that_was_deleted() -> None:
    store = _store(save_everything)
    with pytest.raises(CrashedError):
        FileSystemRepository(store=FaultyStore(store, 0, "after", "crash")).delete_experiment(EXP)
    repository = FileSystemRepository(store=store)
    with pytest.raises(InvalidResultError):
        repository.save_raw(EXP, factories.raw(process_index=-1))
    assert repository.list_aggregated() == []
    assert set(store._values) == {f"raw/{EXP}/rejected-process_unknown-1.json.kept"}


class CannotDelete(MemoryStore):
    """A store that refuses each deletion below `aggregated/`."""

    def delete(self, key: str) -> bool:
        if key.startswith("aggregated/"):
            raise StorageError(f"cannot delete {key}", "Permission denied", "check the permissions")
        return super().delete(key)


def test_new_results_can_be_saved_while_a_deletion_cannot_finish() -> None:
    store = CannotDelete()
    save_everything(store)
    repository = FileSystemRepository(store=store)
    with pytest.raises(StorageError):
        repository.delete_experiment(EXP)
    assert visible(repository) == GONE
    repository.save_raw("other", factories.raw("other"))
    # The store still has a file of the current attempt, so the next record needs a later attempt.
    repository.begin_experiment(Manifest(experiment_id=EXP, attempt=2))
    repository.save_raw(EXP, factories.raw(gpu_name="new"))
    assert [record.gpu_name for record in repository.load_all_raw(EXP)] == ["new"]


@pytest.mark.parametrize("is_folder", [True, False])
def test_unrelated_entry_with_the_name_of_the_marker_stops_no_save(tmp_path: Path, *, is_folder: bool) -> None:
    repository = FileSystemRepository(tmp_path)
    marker = tmp_path / "raw" / f".{EXP}~deleted"
    marker.parent.mkdir(parents=True)
    marker.mkdir() if is_folder else marker.write_bytes(b"mine")
    repository.save_raw(EXP, factories.raw())
    repository.save_aggregated(aggregate_results(EXP, repository.load_all_raw(EXP)))
    assert repository.list_aggregated() == [EXP]
    assert is_folder or marker.read_bytes() == b"mine"


def test_delete_removes_an_empty_raw_folder_and_its_aggregate(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    (tmp_path / "raw" / EXP).mkdir(parents=True)
    repository.store.put(f"aggregated/{EXP}.json", codec.encode_aggregated(factories.aggregated()))
    assert repository.delete_experiment(EXP)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert list((tmp_path / "raw").iterdir()) == []


def test_delete_removes_an_unrelated_folder_without_permissions(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder)
    unrelated = repository.save_raw(EXP, factories.raw()).with_name("locked")
    unrelated.mkdir()
    (unrelated / "file").touch()
    unrelated.chmod(0)

    def delete() -> list[str]:
        repository.delete_experiment(EXP)
        return [path.name for path in (open_folder / "raw").iterdir()]

    for path in (open_folder, *open_folder.rglob("*")):
        os.chown(path, 65534, 65534)
    assert outcome_in_child(delete, unprivileged=True) == []
