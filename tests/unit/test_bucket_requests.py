"""The number of requests that a save, a list and an aggregation send to a bucket."""

from __future__ import annotations

import threading
from collections import Counter

import obstore
import obstore.store
import pytest

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ExperimentIdError, ResultExistsError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.store import bucket_moves, codec, layout
from llm_energy_measure.storage.base import Entries
from llm_energy_measure.storage.objects import ObjectStore
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
