"""Tests of a disk that fails at any step (EIO), before or after the step has its effect, and of a wrong clock."""

from __future__ import annotations

import contextlib
import errno
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import InvalidResultError, ResultsError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.state import source_changes
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import factories
from tests.support.faulty_store import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faulty_store import When

EXP = factories.EXPERIMENT
OLD, NEW = factories.raw(), factories.raw(gpu_name="another")

OPERATIONS: dict[str, Callable[[FileSystemRepository], object]] = {
    "save": lambda repository: repository.save_raw(EXP, factories.raw(process_index=1)),
    "overwrite": lambda repository: repository.save_raw(EXP, NEW, overwrite=True),
    "save of an id that its folder does not name": lambda repository: repository.save_raw("a/b", factories.raw("a/b")),
    "aggregate": lambda repository: repository.save_aggregated(aggregate_results(EXP, [OLD])),
    "begin": lambda repository: repository.begin_experiment(Manifest(experiment_id="other"), 1),
    "load": lambda repository: repository.load_all_raw(EXP),
    "list": lambda repository: repository.list_experiments(),
    "delete": lambda repository: repository.delete_experiment(EXP),
}


def store_with_one_result() -> MemoryStore:
    store = MemoryStore()
    FileSystemRepository(store=store).save_raw(EXP, OLD)
    return store


def step_count(operation: str) -> int:
    counting = FaultyStore(store_with_one_result(), at=-1, reads_too=True)
    OPERATIONS[operation](FileSystemRepository(store=counting))
    return len(counting.steps)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_eio_at_any_step_loses_no_record(operation: str, when: When) -> None:
    for at in range(step_count(operation)):
        store = store_with_one_result()
        faulty = FaultyStore(store, at, when, reads_too=True)
        with contextlib.suppress(ResultsError):  # not each step raises; an error must be one of our types
            OPERATIONS[operation](FileSystemRepository(store=faulty))
        repository = FileSystemRepository(store=store)
        if operation == "delete":
            assert repository.load_all_raw(EXP) in ([OLD], [])
            continue
        first = repository.load_all_raw(EXP)[0]
        kept = [store.get(f"raw/{EXP}/{entry.name}") for entry in store.list(f"raw/{EXP}")]
        assert first in (OLD, NEW)
        if first == NEW:
            assert any(b'"NVIDIA A100-PCIE-40GB"' in data for data in kept), "the replaced record is lost"


@pytest.mark.parametrize("operation", ["save", "aggregate", "begin", "list"])
def test_eio_becomes_a_storage_error_with_its_errno(operation: str) -> None:
    faulty = FaultyStore(store_with_one_result(), at=0, reads_too=operation == "list")
    with pytest.raises(StorageError, match="Input/output error") as caught:
        OPERATIONS[operation](FileSystemRepository(store=faulty))
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("operation", ["save", "overwrite", "aggregate", "begin", "delete"])
def test_operation_that_eio_stopped_succeeds_at_the_second_try(operation: str) -> None:
    for at in range(step_count(operation)):
        store = store_with_one_result()
        faulty = FaultyStore(store, at, "before", reads_too=True)
        repository = FileSystemRepository(store=faulty)
        try:
            OPERATIONS[operation](repository)
        except ResultsError:
            OPERATIONS[operation](repository)
        if operation == "delete":
            assert not repository.has_raw(EXP)
        else:
            assert {result.process_index for result in repository.load_all_raw(EXP)} >= {0}


def test_eio_of_one_file_does_not_hide_the_other_files() -> None:
    store = store_with_one_result()
    FileSystemRepository(store=store).save_raw(EXP, factories.raw(process_index=1))
    faulty = FaultyStore(
        store, at=2, reads_too=True
    )  # the first reads are the manifest and the list; the third is the first file
    recovery = FileSystemRepository(store=faulty).recover_raw(EXP)
    assert [result.process_index for result in recovery.results] == [1]
    assert [(file.name, file.reason) for file in recovery.unreadable] == [("process_0.json", "Input/output error")]


# A clock that was set back


def test_record_that_ends_before_it_starts_is_refused_and_kept() -> None:
    stepped_back = factories.timestamps(end=factories.START - timedelta(seconds=3), duration_sec=40.5)
    store = store_with_one_result()
    with pytest.raises(InvalidResultError) as caught:
        FileSystemRepository(store=store).save_raw(EXP, factories.raw(process_index=1, timestamps=stepped_back))
    assert caught.value.kept is not None
    assert b'"duration_sec": 40.5' in store.get(f"raw/{EXP}/{caught.value.kept.name}")


def test_saves_do_not_depend_on_the_timestamps_of_records() -> None:
    """A record whose clock is one hour behind still replaces the stored record."""
    store = store_with_one_result()
    repository = FileSystemRepository(store=store)
    earlier = factories.raw(timestamps=factories.timestamps(factories.START - timedelta(hours=1)))
    repository.save_raw(EXP, earlier, overwrite=True)
    repository.save_raw(EXP, factories.raw(process_index=1))
    assert repository.load_all_raw(EXP) == [earlier, factories.raw(process_index=1)]
    made = aggregate_results(EXP, repository.load_all_raw(EXP))
    repository.save_aggregated(made)
    assert made.start_time == earlier.timestamps.start
    assert not source_changes(repository, made)
    save = partial(repository.save_raw, EXP, OLD, overwrite=True)
    save()
    assert source_changes(repository, made).changed == ["process_0.json"]
