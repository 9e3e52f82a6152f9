"""Later attempts and deletions in a bucket: stopped at any step, no acknowledged result is lost or comes back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import obstore.store
import pytest

from llm_energy_measure.domain.experiment import Launcher, Manifest, RawProcessResult
from llm_energy_measure.exceptions import ResultExistsError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store, remove_leftovers
from llm_energy_measure.results.store import bucket_moves, deletion, layout
from llm_energy_measure.storage.objects import ObjectStore
from tests.support import factories
from tests.support.faulty_store import CrashedError, FaultyStore

STEPS = 12
"""More steps than an archiving or a deletion of two results has."""


def bucket() -> ObjectStore:
    return ObjectStore("s3://bucket/results", client=obstore.store.MemoryStore(), sleep=lambda _: None)


def record(attempt: int, process: int) -> RawProcessResult:
    return factories.raw("exp", process, launcher=Launcher(name="slurm", attempt=attempt))


def begin(repository: FileSystemRepository, attempt: int, process: int) -> None:
    repository.begin_experiment(Manifest(experiment_id="exp", expected_processes=2, attempt=attempt), process)


def two_results(store: ObjectStore) -> FileSystemRepository:
    repository = FileSystemRepository(store=store)
    for process in (0, 1):
        begin(repository, 0, process)
        repository.save_raw("exp", record(0, process))
    return repository


@pytest.mark.parametrize("at", range(STEPS))
@pytest.mark.parametrize("when", ["before", "after"])
def test_stopped_archiving_loses_no_result(at: int, when: str) -> None:
    store = bucket()
    repository = two_results(store)
    # An object store has the methods that the faulty store calls.
    faulty = FaultyStore(store, at, when, "crash")  # type: ignore[arg-type]
    try:
        begin(FileSystemRepository(store=faulty), 1, 0)
    except CrashedError:
        hidden = bucket_moves.is_hidden(store, "exp")
        assert len(repository.list_raw("exp")) == (0 if hidden else len(repository.list_raw("exp")))
        remove_leftovers(repository, list(check_store(repository)))
    begin(repository, 1, 0)
    repository.save_raw("exp", record(1, 0))
    assert repository.recover_raw("exp", attempt=0).results == [record(0, 0), record(0, 1)]
    assert repository.load_all_raw("exp") == [record(1, 0)]
    assert repository.list_attempts("exp") == [0]
    assert not bucket_moves.is_hidden(store, "exp")


@pytest.mark.parametrize("at", range(STEPS))
@pytest.mark.parametrize("when", ["before", "after"])
def test_stopped_deletion_is_all_or_nothing(at: int, when: str) -> None:
    store = bucket()
    repository = two_results(store)
    # An object store has the methods that the faulty store calls.
    faulty = FaultyStore(store, at, when, "crash")  # type: ignore[arg-type]
    try:
        FileSystemRepository(store=faulty).delete_experiment("exp")
    except CrashedError:
        assert len(repository.list_raw("exp")) in (0, 2)
        assert repository.list_experiments() in ([], ["exp"])
        remove_leftovers(repository, list(check_store(repository)))
    if repository.list_raw("exp"):
        assert repository.delete_experiment("exp") is True
    assert store.walk("raw") == []
    repository.save_raw("exp", record(0, 1))
    assert [place.name for place in repository.list_raw("exp")] == ["process_1.json"]


def test_many_processes_begin_a_later_attempt_at_once() -> None:
    repository = two_results(bucket())

    def run(process: int) -> None:
        begin(repository, 1, process)
        repository.save_raw("exp", record(1, process))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(16)))
    assert len(repository.load_all_raw("exp")) == 16
    assert repository.recover_raw("exp", attempt=0).results == [record(0, 0), record(0, 1)]


def test_archiving_with_an_old_manifest_keeps_the_new_results() -> None:
    store = bucket()
    repository = two_results(store)
    earlier = repository.load_manifest("exp")
    assert earlier is not None
    begin(repository, 1, 0)
    repository.save_raw("exp", record(1, 0))
    bucket_moves.archive(store, "exp", earlier)
    assert repository.load_all_raw("exp") == [record(1, 0)]
    assert repository.recover_raw("exp", attempt=0).results == [record(0, 0), record(0, 1)]


@pytest.mark.parametrize("at", range(STEPS))
def test_process_that_was_overtaken_leaves_the_new_results(at: int) -> None:
    store = bucket()
    repository = two_results(store)
    earlier = repository.load_manifest("exp")
    assert earlier is not None

    def others() -> None:
        bucket_moves.finish_archive(store, "exp")  # they have waited for a long time
        begin(repository, 1, 5)
        repository.save_raw("exp", record(1, 5))

    overtaken = OvertakenStore(store, at, others)
    # It has the methods of a store.
    bucket_moves.archive(overtaken, "exp", earlier)  # type: ignore[arg-type]
    assert repository.recover_raw("exp", attempt=0).results == [record(0, 0), record(0, 1)]
    assert repository.load_all_raw("exp") == ([record(1, 5)] if overtaken.calls > at else [])


class OvertakenStore:
    """A store of which other processes use the time before one call.

    Args:
        store: The store.
        at: Number of the call.
        others: What they do.
    """

    def __init__(self, store: ObjectStore, at: int, others: Callable[[], None]) -> None:
        self._store, self._at, self._others = store, at, others
        self.calls = 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*args: object) -> object:
            self.calls += 1
            if self.calls == self._at + 1:
                self._others()
            return getattr(self._store, name)(*args)

        return call


def test_late_result_of_an_archived_attempt_is_refused() -> None:
    repository = two_results(bucket())
    begin(repository, 1, 0)
    with pytest.raises(ResultExistsError):
        repository.save_raw("exp", record(0, 2))
    assert repository.load_all_raw("exp") == []


def test_process_takes_over_an_archiving_that_does_not_end() -> None:
    store = bucket()
    repository = two_results(store)
    marker = f"{layout.archiving_folder('exp')}/manifest.json"
    store.create(marker, store.get("raw/exp/manifest.json"))
    now = iter(range(100))
    bucket_moves.wait_for_archive(store, "exp", patience_sec=3, clock=lambda: next(now), sleep=lambda _: None)
    assert not bucket_moves.is_hidden(store, "exp")
    assert len(repository.recover_raw("exp", attempt=0).results) == 2


def test_archive_with_other_content_is_refused_and_nothing_is_lost() -> None:
    store = bucket()
    repository = two_results(store)
    store.create(f"{layout.earlier_attempt_folder('exp', 0)}/process_0.json", b"other")
    with pytest.raises(ResultExistsError, match="cannot archive"):
        begin(repository, 1, 0)
    assert len(repository.load_all_raw("exp")) == 2


def test_check_names_an_interrupted_change_and_clean_finishes_it() -> None:
    store = bucket()
    repository = two_results(store)
    store.create(f"{layout.archiving_folder('exp')}/manifest.json", store.get("raw/exp/manifest.json"))
    findings = list(check_store(repository))
    assert [(one.code, one.message) for one in findings if one.code.startswith("leftover")] == [
        ("leftover.folder", "the archiving of an attempt was interrupted")
    ]
    assert deletion.finish(store, "exp") is True
    assert repository.list_attempts("exp") == [0]
