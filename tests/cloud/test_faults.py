"""Faults of the network and the server: each request of the store has a certain answer, and no value is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import ResultNotFoundError, StorageError
from llm_energy_measure.storage.objects import ObjectStore
from tests.support.fault_proxy import FAULTS, Fault, FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "raw/exp/process_0.json"
DATA = bytes(range(256)) * 40


def store_of(url: str) -> ObjectStore:
    store = ObjectStore(url, sleep=lambda _: None)
    store.require_safe_writes()
    return store


def once(method: str, fault: Fault) -> Callable[[str, str, int], Fault | None]:
    """Return a function that gives the fault to the first request with this method."""
    faults = [fault]
    return lambda found, _path, _number: faults.pop() if found == method and faults else None


@pytest.mark.parametrize("fault", FAULTS)
def test_create_with_a_fault_stores_the_value(proxy: FaultProxy, url: str, fault: Fault) -> None:
    store = store_of(url)
    proxy.fault_of = once("PUT", fault)
    assert store.create(KEY, DATA) is True
    assert store.get(KEY) == DATA


@pytest.mark.parametrize("fault", FAULTS)
def test_create_with_a_fault_never_replaces(proxy: FaultProxy, url: str, fault: Fault) -> None:
    store = store_of(url)
    store.create(KEY, b"first")
    proxy.fault_of = once("PUT", fault)
    assert store.create(KEY, DATA) is False
    assert store.get(KEY) == b"first"


@pytest.mark.parametrize("fault", FAULTS)
def test_exchange_with_a_fault_keeps_both_values(proxy: FaultProxy, url: str, fault: Fault) -> None:
    store = store_of(url)
    store.create(KEY, b"first")
    for number in range(2):  # the copy, then the replacement
        proxy.fault_of = _nth("PUT", number, fault)
        kept = store.exchange(KEY, b"data %d" % number)
        assert store.get(kept) == (b"data %d" % (number - 1) if number else b"first")
        assert store.get(KEY) == b"data %d" % number


def _nth(method: str, wanted: int, fault: Fault) -> Callable[[str, str, int], Fault | None]:
    count = iter(range(1000))
    return lambda found, _path, _number: fault if found == method and next(count) == wanted else None


def test_object_that_a_lost_request_left_empty_is_replaced(proxy: FaultProxy, url: str) -> None:
    """SeaweedFS stores an empty object if the connection ends before the first byte of the body."""
    for number in (0, 2):  # a create and a replace of the check that the server is safe
        proxy.fault_of = _nth("PUT", number, "part")
        store = store_of(f"{url}/{number}")
    proxy.fault_of = _nth("PUT", 0, "part")
    assert store.create(KEY, b"1") is True
    proxy.fault_of = _nth("PUT", 1, "part")
    kept = store.exchange(KEY, b"2")
    assert (store.get(KEY), store.get(kept)) == (b"2", b"1")


@pytest.mark.parametrize("fault", FAULTS)
def test_reads_with_a_fault_are_whole(proxy: FaultProxy, url: str, fault: Fault) -> None:
    store = store_of(url)
    store.create(KEY, DATA)
    for _ in range(2):
        proxy.fault_of = once("GET", fault)
        assert store.get(KEY) == DATA
        proxy.fault_of = once("GET", fault)
        assert [entry.name for entry in store.list("raw/exp")] == ["process_0.json"]
    with pytest.raises(ResultNotFoundError):
        store.get("raw/exp/process_1.json")


@pytest.mark.parametrize("fault", FAULTS)
def test_delete_with_a_fault_deletes(proxy: FaultProxy, url: str, fault: Fault) -> None:
    store = store_of(url)
    store.create(KEY, DATA)
    for method in ("DELETE", "POST"):
        proxy.fault_of = once(method, fault)
        store.delete(KEY)
    assert store.list("raw/exp") == []


def test_server_that_never_answers_is_an_error(proxy: FaultProxy, url: str) -> None:
    store = store_of(url)
    proxy.fault_of = lambda *_: "503 before"
    for call in (lambda: store.create(KEY, DATA), lambda: store.get(KEY), lambda: store.list("raw")):
        with pytest.raises(StorageError, match=r"8 tries; check the network and the server"):
            call()


def test_create_that_is_overwritten_before_its_answer_is_a_refusal(proxy: FaultProxy, url: str) -> None:
    """The answer to the writer is lost, and an overwrite follows: no create succeeds, and no value is lost."""
    other, kept = store_of(url), list[str]()
    first = ObjectStore(url, sleep=lambda _: kept.append(other.exchange(KEY, b"newer")))
    first.require_safe_writes()
    proxy.fault_of = once("PUT", "lost")
    assert first.create(KEY, DATA) is False
    assert (other.get(KEY), [other.get(key) for key in kept]) == (b"newer", [DATA])


def test_create_that_gets_no_answer_is_an_error_and_may_be_stored(proxy: FaultProxy, url: str) -> None:
    """All answers to the writer are lost, so the writer reports an error. No other create can succeed."""
    store = store_of(url)
    proxy.fault_of = lambda *_: "lost"
    with pytest.raises(StorageError, match="8 tries"):
        store.create(KEY, DATA)
    proxy.fault_of = lambda *_: None
    assert store.create(KEY, b"other") is False
    assert store.get(KEY) == DATA
    assert store.create(KEY, DATA) is False, "the second call cannot know that the value is its own"


def test_many_writers_through_faults_lose_nothing(proxy: FaultProxy, url: str) -> None:
    """64 writers of one key: one result wins, and each of the others gets a refusal or keeps the previous value."""
    store = store_of(url)
    faults: tuple[Fault, ...] = ("lost", "409", "503 after", "reset")
    # One request in eight fails. If one in three failed, all eight tries of one writer could fail.
    proxy.fault_of = lambda _method, _path, number: None if number % 8 else faults[number // 8 % len(faults)]
    values = [b"value %d" % number * 100 for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        created = list(pool.map(lambda data: store.create(KEY, data), values))
        assert created.count(True) == 1
        first = values[created.index(True)]
        assert store.get(KEY) == first
        newer = [b"newer %d" % number * 100 for number in range(24)]
        kept = list(pool.map(lambda data: store.exchange(KEY, data), newer))
    proxy.fault_of = lambda *_: None
    assert len(set(kept)) == len(newer)
    found = {store.get(KEY), *(store.get(f"raw/exp/{entry.name}") for entry in store.list("raw/exp"))}
    assert found == {first, *newer}
