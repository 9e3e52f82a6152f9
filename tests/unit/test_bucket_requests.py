"""The number of requests that a save, a list and an aggregation send to a bucket."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import obstore
import obstore.store
import pytest

from llm_energy_measure.catalogue.dataset import rows_of
from llm_energy_measure.catalogue.index import Catalogue
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ExperimentIdError, ResultExistsError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store import bucket_moves, codec, layout
from llm_energy_measure.results.store.tags import change_tags
from llm_energy_measure.storage import requests as requests_module
from llm_energy_measure.storage.base import Entries, Entry
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.memory import MemoryStore
from llm_energy_measure.storage.objects import ObjectStore
from llm_energy_measure.storage.parallel import ParallelReader, ahead, at_once
from tests.support import factories


class CountingStore(ObjectStore):
    """A bucket in memory that records each call that sends one request: its name, and the key or prefix."""

    def __init__(self) -> None:
        super().__init__("s3://bucket/results", client=obstore.store.MemoryStore(), sleep=lambda _: None)
        self.sent: list[tuple[str, str]] = []

    def get(self, key: str) -> bytes:
        self.sent.append(("get", key))
        return super().get(key)

    def create(self, key: str, data: bytes) -> bool:
        self.sent.append(("create", key))
        return super().create(key, data)

    def list(self, prefix: str) -> Entries:
        self.sent.append(("list", prefix))
        return super().list(prefix)

    def list_range(self, prefix: str, start: str, end: str) -> Entries:
        self.sent.append(("list_range", f"{prefix}/{start}"))
        return super().list_range(prefix, start, end)

    def find(self, key: str) -> Entry | None:
        self.sent.append(("find", key))
        return super().find(key)

    def walk(self, prefix: str, folders: Sequence[str] = ()) -> Entries:
        self.sent.append(("walk", prefix))
        return super().walk(prefix, folders)


def test_first_save_sends_nine_requests() -> None:
    store = CountingStore()
    FileSystemRepository(store=store).save_raw("exp", factories.raw("exp", 0))
    manifest, archived = ("get", "raw/exp/manifest.json"), ("get", "raw/.exp~attempt-0/manifest.json")
    marker = ("get", "raw/.exp~archiving/manifest.json")
    assert store.sent[0] == manifest
    assert {*store.sent[1:5]} == {archived, marker, ("list", "raw/.exp~deleted"), ("list", "raw/exp")}
    assert store.sent[5:] == [("create", manifest[1]), archived, ("create", "raw/exp/process_0.json"), manifest]


def test_later_save_sends_three_requests() -> None:
    store = CountingStore()
    repository = FileSystemRepository(store=store)
    repository.save_raw("exp", factories.raw("exp", 0))
    store.sent.clear()
    repository.save_raw("exp", factories.raw("exp", 1))
    manifest = ("get", "raw/exp/manifest.json")
    assert store.sent == [manifest, ("create", "raw/exp/process_1.json"), manifest]


def test_checks_of_a_first_save_are_in_flight_at_one_time() -> None:
    store = MeetingStore()
    FileSystemRepository(store=store).save_raw("exp", factories.raw("exp", 0))
    assert len(store.met) == 4


class MeetingStore(CountingStore):
    """A bucket that answers the four reads after the first one of the manifest only together."""

    def __init__(self) -> None:
        super().__init__()
        self.met: set[str] = set()
        self._barrier = threading.Barrier(4, timeout=10)

    def _meet(self, key: str) -> None:
        if key != "raw/exp/manifest.json" and len(self.met) < 4:
            self.met.add(key)
            self._barrier.wait()

    def get(self, key: str) -> bytes:
        self._meet(key)
        return super().get(key)

    def list(self, prefix: str) -> Entries:
        self._meet(prefix)
        return super().list(prefix)


def test_first_save_refuses_the_results_of_another_experiment() -> None:
    store = CountingStore()
    store.put("raw/a_b/process_3.json", codec.encode_raw(factories.raw("a b", 3)))
    with pytest.raises(ExperimentIdError, match="belongs to the experiment 'a b'"):
        FileSystemRepository(store=store).save_raw("a_b", factories.raw("a_b", 0))


def test_first_save_refuses_a_folder_that_is_being_deleted() -> None:
    store = CountingStore()
    bucket_moves.hide_deleted(store, "exp", "exp")
    with pytest.raises(ResultExistsError, match="its deletion has not finished"):
        FileSystemRepository(store=store).save_raw("exp", factories.raw("exp", 0))
    assert [entry.name for entry in store.list("raw/exp") if not entry.name.startswith("rejected")] == []


def test_first_save_names_the_deletion_of_another_experiment() -> None:
    """The id is free after the deletion, so the advice is not another id."""
    store = CountingStore()
    store.put("raw/a_b/process_3.json", codec.encode_raw(factories.raw("a b", 3)))
    bucket_moves.hide_deleted(store, "a_b", "a b")
    with pytest.raises(ResultExistsError, match=r"its deletion has not finished; run .* results check --clean"):
        FileSystemRepository(store=store).save_raw("a_b", factories.raw("a_b", 0))


def test_first_save_waits_for_an_archiving_and_is_refused_after_it() -> None:
    store = CountingStore()
    marker = f"{layout.archiving_folder('exp')}/manifest.json"
    manifest = codec.encode_manifest(Manifest(experiment_id="exp"))
    store.create(marker, manifest)

    def finish() -> None:
        store.create("raw/.exp~attempt-0/manifest.json", manifest)
        store.delete(marker)

    other = threading.Timer(0.3, finish)
    other.start()
    with pytest.raises(ResultExistsError, match="a later attempt has archived attempt 0"):
        FileSystemRepository(store=store).save_raw("exp", factories.raw("exp", 0))
    other.join()
    assert "manifest.json" not in Counter(entry.name for entry in store.list("raw/exp"))


def fill(repository: FileSystemRepository) -> None:
    """Save experiments in each state, and aggregate the first four."""
    for number in range(6):
        for process in (0, 1):
            repository.save_raw(f"exp_{number}", factories.raw(f"exp_{number}", process, world_size=2))
    assert {outcome.result for outcome in aggregate_all(repository, [f"exp_{number}" for number in range(4)])} == {
        "aggregated"
    }
    repository.save_raw("exp_1", factories.raw("exp_1", 0, gpu_name="another", world_size=2), overwrite=True)
    altered = repository.store.get("aggregated/exp_2.json").replace(b"baseline", b"baselone")
    repository.store.put("aggregated/exp_2.json", altered)
    repository.store.put("aggregated/exp_3.json", b"{")
    repository.store.put("raw/exp_4/process_1.json", b"{")
    repository.begin_experiment(Manifest(experiment_id="exp_6"))
    change_tags(repository.store, "exp_5", {"paper": "one"})


def rows(repository: FileSystemRepository) -> list[ExperimentSummary]:
    with closing(Catalogue(repository, None)) as catalogue:
        catalogue.refresh()
        return catalogue.summaries(Query(with_pending=True))


def test_list_of_a_bucket_has_the_rows_of_a_directory(tmp_path: Path) -> None:
    local, remote = FileSystemRepository(tmp_path), FileSystemRepository(store=CountingStore())
    for repository in (local, remote):
        fill(repository)
    assert [row.status for row in rows(local)] == ["current", "stale", "altered", "unreadable", *["pending"] * 3]
    assert rows(remote) == rows(local)


def test_first_list_reads_each_pending_result_once() -> None:
    store = CountingStore()
    repository = FileSystemRepository(store=store)
    for number in range(5):
        repository.save_raw(f"exp_{number}", factories.raw(f"exp_{number}"))
    store.sent.clear()
    assert len(rows(repository)) == 5
    gets = [f"raw/exp_{number}/{name}" for number in range(5) for name in ("manifest.json", "process_0.json")]
    assert sorted(key for call, key in store.sent if call == "get") == gets
    assert len(store.sent) == len(gets) + 5 + 4, (
        "one listing per experiment, three of the whole bucket, and one of the markers"
    )


def test_second_list_sends_three_listings() -> None:
    store = CountingStore()
    fill(FileSystemRepository(store=store))
    with closing(Catalogue(FileSystemRepository(store=store), None)) as catalogue:
        catalogue.refresh()
        store.sent.clear()
        catalogue.refresh()
    assert sorted(store.sent) == [("list", "aggregated"), ("list", "tags"), ("walk", "raw")]


def test_named_experiments_are_listed_alone() -> None:
    store = CountingStore()
    fill(FileSystemRepository(store=store))
    with closing(Catalogue(FileSystemRepository(store=store), None)) as catalogue:
        store.sent.clear()
        catalogue.refresh(ids=["exp_0", "absent"])
        assert {call for call, _ in store.sent} == {"find", "get", "list"}
        assert {key for call, key in store.sent if call == "list"} >= {"raw/exp_0", "raw/absent"}
        assert not any(f"exp_{number}" in key for _, key in store.sent for number in range(1, 7))
        assert [row.experiment_id for row in catalogue.summaries(Query())] == ["exp_0"]
        catalogue.refresh()
        store.sent.clear()
        catalogue.refresh(ids=["exp_0", "exp_5"])
        sent = {key for call, key in store.sent if call == "get"}
        assert sent == {f"raw/.exp_{number}~archiving/manifest.json" for number in (0, 5)}, "they are up to date"


def test_named_experiment_is_hidden_by_a_deletion_that_begins_meanwhile() -> None:
    store = CountingStore()
    repository = FileSystemRepository(store=store)
    for name in ("exp_0", "exp_1"):
        repository.save_raw(name, factories.raw(name))
    with closing(Catalogue(repository, None)) as catalogue:
        catalogue.refresh()
        bucket_moves.hide_deleted(store, "exp_1", "exp_1")
        catalogue.refresh(ids=["exp_0", "exp_1"])
        assert [row.experiment_id for row in catalogue.summaries(Query(with_pending=True))] == ["exp_0"]


def test_catalogue_lists_all_if_many_or_wrong_ids_are_named() -> None:
    for ids in ([f"exp_{number}" for number in range(100)], ["exp_1", ""]):
        store = CountingStore()
        with closing(Catalogue(FileSystemRepository(store=store), None)) as catalogue:
            catalogue.refresh(ids=ids)
        assert ("walk", "raw") in store.sent


def test_aggregation_lists_all_aggregates_once() -> None:
    store = CountingStore()
    repository = FileSystemRepository(store=store)
    for number in range(30):
        repository.save_raw(f"exp_{number:02}", factories.raw(f"exp_{number:02}"))
    store.sent.clear()
    assert [outcome.result for outcome in aggregate_all(repository)] == ["aggregated"] * 30
    assert store.sent.count(("list", "aggregated")) <= 1
    store.sent.clear()
    assert [outcome.result for outcome in aggregate_all(repository, ["exp_03", "exp_07"], force=True)] == [
        "aggregated"
    ] * 2
    assert ("list", "aggregated") not in store.sent


def test_ids_of_experiments_need_one_walk() -> None:
    local, remote = FileSystemRepository(store=MemoryStore()), FileSystemRepository(store=CountingStore())
    for repository in (local, remote):
        fill(repository)
        repository.store.put("raw/other/notes.txt", b"1")
        repository.store.put("raw/other/nested/process_0.json", b"1")
    assert isinstance(remote.store, CountingStore)
    remote.store.sent.clear()
    assert remote.list_experiments() == local.list_experiments()
    assert remote.store.sent == [("walk", "raw"), ("list_range", "raw/.")]


def test_rows_of_a_dataset_need_one_walk_of_the_bucket() -> None:
    store = CountingStore()
    fill(FileSystemRepository(store=store))
    store.sent.clear()
    [rows] = rows_of(FileSystemRepository(store=store), [f"exp_{number}" for number in (0, 1)], {})
    assert [row["status"] for row in rows["experiments"]] == ["current", "stale"]
    assert store.sent.count(("walk", "raw")) == 1


def test_list_hides_an_experiment_whose_deletion_begins_meanwhile() -> None:
    store = DeletingStore()
    repository = FileSystemRepository(store=store)
    for name in ("exp_0", "exp_1"):
        repository.save_raw(name, factories.raw(name))
    assert [row.experiment_id for row in rows(repository)] == ["exp_0"]


class DeletingStore(CountingStore):
    """A bucket in which another process begins to delete an experiment while it is listed."""

    def walk(self, prefix: str, folders: Sequence[str] = ()) -> Entries:
        entries = super().walk(prefix, folders)
        bucket_moves.hide_deleted(self, "exp_1", "exp_1")
        return entries


def test_older_proofs_are_found_by_the_folder_name() -> None:
    store = CountingStore()
    names = [".a~follows-1", ".a~follows-2", ".a-b~follows-1", "a.json", ".ab~follows-3"]
    for name in names:
        store.put(f"aggregated/{name}", b"1")
    with Folder(store, "aggregated") as folder:
        assert folder.names_with(".a~follows-") == names[:2]
        assert folder.names_with("b") == []


def test_at_once_raises_the_first_error_after_all_calls() -> None:
    ended: list[int] = []

    def call(number: int) -> int:
        time.sleep(0.02 * number)
        ended.append(number)
        if number in (1, 2):
            raise StorageError(f"call {number}", "it fails", "try again")
        return number

    store = CountingStore()
    assert at_once(store, lambda: call(3), lambda: call(0)) == [3, 0]
    with pytest.raises(StorageError, match="call 2"):
        at_once(store, lambda: call(2), lambda: call(1), lambda: call(3))
    assert sorted(ended) == [0, 1, 2, 3, 3]


def test_ahead_yields_in_order_and_computes_only_the_next_results() -> None:
    store, computed = CountingStore(), list[int]()

    def square(number: int) -> int:
        computed.append(number)
        return number**2

    results = ahead(store, square, range(1_000))
    assert [next(results) for _ in range(3)] == [(0, 0), (1, 1), (2, 4)]
    results.close()
    assert len(computed) <= 3 + 2 * store.parallel_requests


class FailingOnceStore(CountingStore):
    """A bucket whose first listing of all keys fails."""

    def walk(self, prefix: str, folders: Sequence[str] = ()) -> Entries:
        if not self.sent:
            self.sent.append(("walk", prefix))
            raise StorageError(f"cannot list {prefix}", "the network is unreachable", "check the network")
        return super().walk(prefix, folders)


def test_listing_that_failed_is_requested_by_the_next_call() -> None:
    store = FailingOnceStore()
    store.put("raw/exp/process_0.json", b"1")
    with closing(ParallelReader(store, "raw")) as reader:
        with pytest.raises(StorageError, match="the network is unreachable"):
            reader.walked("exp")
        assert [entry.name for entry in reader.walked("exp")] == ["process_0.json"]
    assert store.sent == [("walk", "raw")] * 2


def test_requests_are_sequential_if_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store, names = CountingStore(), ("process_0.json", "process_1.json")
    for name in names:
        store.put(f"raw/exp/{name}", name.encode())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with closing(ahead(store, store.list, ["raw", "raw/absent"])) as listed:
        assert [(item, len(entries)) for item, entries in listed] == [("raw", 1), ("raw/absent", 0)]
    with closing(ParallelReader(store, "raw")) as reader:
        reader.prefetch("exp")
        assert list(reader.read("exp", lambda _: True)) == [(name, name.encode()) for name in names]
        assert store.sent.count(("get", "raw/exp/process_0.json")) == 1
        reader.prefetch("absent")
        assert list(reader.read("absent", lambda _: True)) == []
    requests = Requests(filled_client(), "s3://bucket")
    assert requests.all_below("raw", ["raw/exp_14~"]) == requests.all_below("raw")
    assert not requests.is_divided


class SlowListStore(CountingStore):
    """A bucket whose listings wait for an event."""

    def __init__(self) -> None:
        super().__init__()
        self.begins, self.ends = threading.Event(), threading.Event()

    def list(self, prefix: str) -> Entries:
        self.begins.set()
        self.ends.wait(10)
        return super().list(prefix)


def test_close_sends_no_request_that_has_not_started() -> None:
    store = SlowListStore()
    store.put("raw/exp/process_0.json", b"1")
    reader = ParallelReader(store, "raw")
    reader.prefetch("exp")
    store.begins.wait(10)
    other = threading.Timer(0.2, store.ends.set)
    other.start()
    reader.close()
    other.join()
    assert store.sent == [("list", "raw/exp")]


FOLDERS = [*(f"exp_{number}" for number in range(20)), "exp_1-b", "exp", "é"]


def filled_client() -> obstore.store.MemoryStore:
    client = obstore.store.MemoryStore()
    for folder in FOLDERS:
        for process in (0, 1):
            obstore.put(client, f"raw/{folder}/process_{process}.json", folder.encode())
    return client


def test_parts_of_a_listing_are_the_whole_listing() -> None:
    requests = Requests(filled_client(), "s3://bucket")
    whole = requests.all_below("raw")
    assert len(whole) == 2 * len(FOLDERS)
    for folders in (["exp_1"], ["exp_1", "exp_15", "exp_3"], ["a", "b", "z"], sorted(FOLDERS)):
        bounds = sorted(f"raw/{folder}~" for folder in folders)
        assert requests.all_below("raw", bounds) == whole
        assert requests.is_divided


def test_listing_whose_parts_do_not_meet_is_made_as_a_whole() -> None:
    requests = Requests(filled_client(), "s3://bucket", skips="raw/exp_15/process_0.json")
    assert requests.all_below("raw", ["raw/exp_14~"]) == requests.all_below("raw")
    assert not requests.is_divided


class Requests(requests_module.Requests):
    """Requests that record whether the last listing had parts; a listing from an offset lacks one key (`skips`)."""

    def __init__(self, client: obstore.store.MemoryStore, url: str, *, skips: str = "") -> None:
        super().__init__(client, url)
        self.skips, self.is_divided = skips, False

    def _all_parts(self, prefix: str, bounds: Sequence[str]) -> list[obstore.ObjectMeta] | None:
        found = super()._all_parts(prefix, bounds)
        self.is_divided = found is not None
        return found

    def _part(self, prefix: str, start: str | None, end: str | None) -> tuple[list[obstore.ObjectMeta], str | None]:
        found, after = super()._part(prefix, start, end)
        return [meta for meta in found if start is None or meta["path"] != self.skips], after
