"""The contract of every store, on real servers; SeaweedFS is behind a proxy that injects faults."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import obstore
import pytest

from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.storage.objects import ObjectStore
from tests.contract import test_store
from tests.support import buckets
from tests.support.fault_proxy import Fault, FaultProxy

if TYPE_CHECKING:
    from llm_energy_measure.storage.base import Store
    from tests.contract.test_store import DirectAccess

FAULTS: tuple[Fault | None, ...] = (None, None, "lost", None, None, "503 after", None, None, None, "reset", None, None)
"""Faults of the requests, in turn. A conflict (409) and slow answers have tests of their own."""

UNSURE = {
    "test_concurrent_exchanges_lose_no_value",
    "test_create_never_replaces",
    "test_delete_folder_removes_everything_below_it",
}
"""Tests that need an answer to each request (they count the copies of a value, or create equal bytes a second time) or
a server that lists no empty folder. `test_faults` tests that no value is lost without an answer."""


class DirectBucketAccess:
    """`ObjectStore` through a proxy with faults, and direct access to the server without the proxy."""

    def __init__(self, url: str, port: int) -> None:
        self.store: Store = ObjectStore(url, sleep=lambda _: None)
        self._client = buckets.client_of(port, url.rpartition("/")[2])

    def plant(self, key: str, data: bytes) -> None:
        obstore.put(self._client, key, data)

    def peek(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._client, key).bytes())
        except FileNotFoundError:
            return None

    def names(self) -> set[str]:
        found = {meta["path"] for chunk in obstore.list(self._client) for meta in chunk}
        return {name for name in found if not name.startswith(".probe")}


@pytest.fixture
def access(url: str, proxy: FaultProxy, seaweedfs_port: int) -> DirectAccess:
    proxy.fault_of = lambda _method, _path, number: FAULTS[number % len(FAULTS)]
    return DirectBucketAccess(url, seaweedfs_port)


def contract() -> dict[str, object]:
    """Return the tests of the contract that need no folders."""
    functions = inspect.getmembers(test_store, inspect.isfunction)
    return {
        name: test
        for name, test in functions
        if name.startswith("test_") and "access" in inspect.signature(test).parameters and name not in UNSURE
    }


globals().update(contract())


@pytest.mark.skipif(not buckets.IS_LONG, reason="it needs moto[server]; make test-cloud runs it")
def test_moto_is_safe_or_refused(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in buckets.variables(f"http://127.0.0.1:{moto_port}").items():
        monkeypatch.setenv(name, value)
    store = ObjectStore(f"s3://{buckets.BUCKET}/results")
    created = [store._requests.create("raw/a", data) for data in (b"1", b"2")]
    if created == [True, False] and store.get("raw/a") == b"1":
        store.require_safe_writes()
    else:
        with pytest.raises(StorageError, match="the server is not safe"):
            store.require_safe_writes()
