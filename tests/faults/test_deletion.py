"""A deletion that is stopped at any step: the experiment is there whole, or gone for every reader."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import InvalidResultError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.checking import check_store, sweep
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


def whole(store: MemoryStore) -> None:
    """Results, what is kept beside them, an earlier attempt, aggregates of ours and of another tool, tags."""
    repository = FileSystemRepository(store=store)
    for attempt in (0, 1):
        repository.begin_experiment(Manifest(experiment_id=EXP, attempt=attempt))
        repository.save_raw(EXP, factories.raw())
    repository.save_raw(EXP, factories.raw(gpu_name="another"), overwrite=True)
    store.put(f"aggregated/{EXP}.json", codec.encode_aggregated(factories.aggregated()))
    repository.save_aggregated(aggregate_results(EXP, repository.load_all_raw(EXP)))
    store.put(TAGS, b"{}")


def only_derived(store: MemoryStore) -> None:
    """An aggregate of another tool and tags, and no raw results."""
    store.put(f"aggregated/{EXP}.json", codec.encode_aggregated(factories.aggregated()))
    store.put(TAGS, b"{}")


def seen(repository: FileSystemRepository) -> tuple[object, ...]:
    """What readers see of the experiment."""
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


@pytest.mark.parametrize("make", [whole, only_derived])
@pytest.mark.parametrize("when", ["before", "after"])
def test_it_is_there_whole_or_gone_and_a_sweep_finishes_it(make: Callable[[MemoryStore], None], when: When) -> None:
    counted = FaultyStore(_made(make), at=-1)
    assert FileSystemRepository(store=counted).delete_experiment(EXP)
    states = set()
    for at in range(len(counted.steps)):
        store = _made(make)
        before = seen(FileSystemRepository(store=store))
        with pytest.raises(CrashedError):
            FileSystemRepository(store=FaultyStore(store, at, when, "crash")).delete_experiment(EXP)
        repository = FileSystemRepository(store=store)
        after = seen(repository)
        assert after in (before, GONE), (at, counted.steps)
        states.add(after == GONE)
        if after == GONE:
            sweep(repository, check_store(repository))
            assert not store._values, at
    assert True in states
    assert (False in states) is (
        when == "before" or make is only_derived
    )  # nothing to rename: its first step is no deed


@pytest.mark.parametrize("make", [whole, only_derived])
def test_whoever_uses_the_id_next_gets_nothing_of_what_was_deleted(make: Callable[[MemoryStore], None]) -> None:
    store = _made(make)
    with pytest.raises(CrashedError):
        FileSystemRepository(store=FaultyStore(store, 1, "after", "crash")).delete_experiment(EXP)
    repository = FileSystemRepository(store=store)
    assert seen(repository) == GONE
    repository.save_raw(EXP, factories.raw(gpu_name="new"))
    assert repository.load_aggregated(EXP) is None
    assert set(store._values) == {f"raw/{EXP}/manifest.json", f"raw/{EXP}/process_0.json"}


def test_nor_does_an_aggregate_that_is_saved_without_its_results() -> None:
    store = _made(whole)
    with pytest.raises(CrashedError):
        FileSystemRepository(store=FaultyStore(store, 0, "after", "crash")).delete_experiment(EXP)
    repository = FileSystemRepository(store=store)
    repository.save_aggregated(factories.aggregated())
    assert repository.load_aggregated(EXP) == factories.aggregated()
    assert set(store._values) == {f"aggregated/{EXP}.json"}


def _made(make: Callable[[MemoryStore], None]) -> MemoryStore:
    store = MemoryStore()
    make(store)
    return store


def test_a_refused_record_brings_nothing_back_either() -> None:
    store = _made(whole)
    with pytest.raises(CrashedError):
        FileSystemRepository(store=FaultyStore(store, 0, "after", "crash")).delete_experiment(EXP)
    repository = FileSystemRepository(store=store)
    with pytest.raises(InvalidResultError):
        repository.save_raw(EXP, factories.raw(process_index=-1))
    assert repository.list_aggregated() == []
    assert set(store._values) == {f"raw/{EXP}/rejected-process_unknown-1.json"}


class CannotDelete(MemoryStore):
    """A store in which nothing can be deleted under `aggregated/`."""

    def delete(self, key: str) -> bool:
        if key.startswith("aggregated/"):
            raise StorageError(f"cannot delete {key}", "Permission denied", "check the permissions")
        return super().delete(key)


def test_a_measurement_does_not_wait_for_a_deletion_that_cannot_be_finished() -> None:
    store = CannotDelete()
    whole(store)
    repository = FileSystemRepository(store=store)
    with pytest.raises(StorageError):
        repository.delete_experiment(EXP)
    assert seen(repository) == GONE
    repository.save_raw("other", factories.raw("other"))
    # Of the attempt that the record would belong to something is still there, so a later one is begun.
    repository.begin_experiment(Manifest(experiment_id=EXP, attempt=2))
    repository.save_raw(EXP, factories.raw(gpu_name="new"))
    assert [record.gpu_name for record in repository.load_all_raw(EXP)] == ["new"]


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_stranger_with_the_name_of_the_marker_stops_no_save(tmp_path: Path, *, is_folder: bool) -> None:
    repository = FileSystemRepository(tmp_path)
    marker = tmp_path / "raw" / f".{EXP}~deleted"
    marker.parent.mkdir(parents=True)
    marker.mkdir() if is_folder else marker.write_bytes(b"mine")
    repository.save_raw(EXP, factories.raw())
    repository.save_aggregated(aggregate_results(EXP, repository.load_all_raw(EXP)))
    assert repository.list_aggregated() == [EXP]
    assert is_folder or marker.read_bytes() == b"mine"


def test_an_empty_folder_is_deleted_as_a_whole(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    (tmp_path / "raw" / EXP).mkdir(parents=True)
    repository.store.put(f"aggregated/{EXP}.json", codec.encode_aggregated(factories.aggregated()))
    assert repository.delete_experiment(EXP)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert list((tmp_path / "raw").iterdir()) == []


def test_what_a_locked_folder_of_a_stranger_holds_is_deleted_too(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder)
    stranger = repository.save_raw(EXP, factories.raw()).with_name("locked")
    stranger.mkdir()
    (stranger / "file").touch()
    stranger.chmod(0)

    def delete() -> list[str]:
        repository.delete_experiment(EXP)
        return [path.name for path in (open_folder / "raw").iterdir()]

    for path in (open_folder, *open_folder.rglob("*")):
        os.chown(path, 65534, 65534)
    assert outcome_in_child(delete, unprivileged=True) == []
