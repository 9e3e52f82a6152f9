"""Guarantees of every store. The tests prepare and inspect values without the store under test."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Protocol

import obstore.store
import pytest

from llm_energy_measure.exceptions import ResultNotFoundError, ResultsError, StorageError, UnsafePathError
from llm_energy_measure.storage.base import Entry, Store, names_with
from llm_energy_measure.storage.group_commit import GroupCommitStore
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore
from llm_energy_measure.storage.objects import ObjectStore
from llm_energy_measure.storage.temporary import target_name

if TYPE_CHECKING:
    from pathlib import Path

KEY = "raw/exp/process_0.json"
LARGE = bytes(range(256)) * 12_000


class DirectAccess(Protocol):
    """A store, and direct access to its values."""

    store: Store

    def plant(self, key: str, data: bytes) -> None:
        """Write a value without the store."""

    def peek(self, key: str) -> bytes | None:
        """Read a value without the store. None if it is absent."""

    def names(self) -> set[str]:
        """Return all keys, temporary files included."""


class DirectLocalAccess:
    """`LocalStore`, and direct access to its files."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "store"
        self.store: Store = LocalStore(self.root)

    def plant(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def peek(self, key: str) -> bytes | None:
        path = self.root / key
        return path.read_bytes() if path.exists() else None

    def names(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}


class DirectMemoryAccess:
    """`MemoryStore`, and direct access to its dict."""

    def __init__(self, _: Path) -> None:
        self.memory = MemoryStore()
        self.store: Store = self.memory

    def plant(self, key: str, data: bytes) -> None:
        self.memory._values[key] = data

    def peek(self, key: str) -> bytes | None:
        return self.memory._values.get(key)

    def names(self) -> set[str]:
        return set(self.memory._values)


class DirectGroupCommitAccess(DirectLocalAccess):
    """`GroupCommitStore`, and direct access to its files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store = GroupCommitStore(self.root)


class DirectObjectAccess:
    """`ObjectStore` over obstore's store in memory, and direct access to its objects."""

    def __init__(self, _: Path) -> None:
        self.client = obstore.store.MemoryStore()
        self.store: Store = ObjectStore("s3://bucket/results", client=self.client, sleep=lambda _: None)

    def plant(self, key: str, data: bytes) -> None:
        obstore.put(self.client, key, data)

    def peek(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self.client, key).bytes())
        except FileNotFoundError:
            return None

    def names(self) -> set[str]:
        return {meta["path"] for chunk in obstore.list(self.client) for meta in chunk}


WITH_FOLDERS = [DirectLocalAccess, DirectGroupCommitAccess, DirectMemoryAccess]


@pytest.fixture(params=[*WITH_FOLDERS, DirectObjectAccess])
def access(request: pytest.FixtureRequest, tmp_path: Path) -> DirectAccess:
    access: DirectAccess = request.param(tmp_path)
    return access


@pytest.fixture(params=WITH_FOLDERS)
def with_folders(request: pytest.FixtureRequest, tmp_path: Path) -> DirectAccess:
    """Return the access to a store that has folders. A bucket has only keys."""
    access: DirectAccess = request.param(tmp_path)
    assert access.store.supports_folder_move
    return access


def test_put_many_stores_and_replaces_values(access: DirectAccess) -> None:
    access.plant("a/one", b"older")
    access.store.put_many({"a/one": b"1", "a/two": b"", "b/c/three": b"3"})
    assert [access.peek(key) for key in ("a/one", "a/two", "b/c/three")] == [b"1", b"", b"3"]
    access.store.put_many({})
    assert access.names() == {"a/one", "a/two", "b/c/three"}


def test_failed_put_many_leaves_every_value_whole(with_folders: DirectAccess) -> None:
    for key, data in (("a/one", b"older"), ("a/two", b"older"), ("b/file", b"")):
        with_folders.plant(key, data)
    with pytest.raises(StorageError):
        with_folders.store.put_many({"a/one": b"newer", "b/file/below": b"", "a/two": b"newer"})
    assert {with_folders.peek("a/one"), with_folders.peek("a/two")} <= {b"older", b"newer"}
    assert with_folders.names() == {"a/one", "a/two", "b/file"}


def test_put_many_with_an_invalid_key_stores_nothing(access: DirectAccess) -> None:
    access.plant("a/one", b"older")
    with pytest.raises(UnsafePathError):
        access.store.put_many({"a/one": b"newest", "../out": b""})
    assert access.peek("a/one") == b"older"
    assert access.names() == {"a/one"}


def test_get_of_absent_key_raises_not_found(access: DirectAccess) -> None:
    with pytest.raises(ResultNotFoundError, match="not found"):
        access.store.get(KEY)


@pytest.mark.parametrize("data", [b"", b"x", b"\0\r\n\xff", LARGE])
def test_create_stores_the_whole_value(access: DirectAccess, data: bytes) -> None:
    assert access.store.create(KEY, data) is True
    assert access.peek(KEY) == access.store.get(KEY) == data
    assert access.names() == {KEY}


def test_get_reads_values_that_the_store_did_not_write(access: DirectAccess) -> None:
    access.plant(KEY, LARGE)
    assert access.store.get(KEY) == LARGE


def test_create_never_replaces(access: DirectAccess) -> None:
    access.plant(KEY, b"first")
    assert access.store.create(KEY, b"second") is False
    assert access.store.create(KEY, b"first") is False
    assert access.peek(KEY) == b"first"
    assert access.names() == {KEY}


def test_exactly_one_of_many_concurrent_creates_succeeds(access: DirectAccess) -> None:
    values = [b"%d" % number * 1000 for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda value: access.store.create(KEY, value), values))
    assert sum(outcomes) == 1
    assert access.peek(KEY) == values[outcomes.index(True)]
    assert access.names() == {KEY}


def test_put_stores_and_replaces(access: DirectAccess) -> None:
    for data in (b"first", LARGE, b""):
        access.store.put(KEY, data)
        assert access.peek(KEY) == data
    assert access.names() == {KEY}


def test_reader_sees_either_old_or_new_value(access: DirectAccess) -> None:
    values = [bytes([65 + number]) * 50_000 for number in range(20)]
    access.store.put(KEY, values[0])

    def write() -> None:
        for value in values:
            access.store.put(KEY, value)

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write)
        seen = [access.store.get(KEY)]
        while not writing.done():
            seen.append(access.store.get(KEY))
        writing.result()
    assert set(seen) <= set(values)


def test_copy_is_independent_of_the_original(access: DirectAccess) -> None:
    access.plant(KEY, b"first")
    assert access.store.copy_if_absent(KEY, "raw/exp/kept-1.json") is True
    access.store.put(KEY, b"second")
    assert access.peek("raw/exp/kept-1.json") == b"first"
    access.store.delete(KEY)
    assert access.peek("raw/exp/kept-1.json") == b"first"


def test_copy_if_absent_never_replaces(access: DirectAccess) -> None:
    access.plant(KEY, b"first")
    access.plant("raw/exp/kept-1.json", b"other")
    assert access.store.copy_if_absent(KEY, "raw/exp/kept-1.json") is False
    assert access.peek("raw/exp/kept-1.json") == b"other"


def test_copy_of_absent_key_is_an_error(access: DirectAccess) -> None:
    with pytest.raises(ResultsError):
        access.store.copy_if_absent(KEY, "raw/exp/kept-1.json")


def test_list_returns_direct_children_sorted(access: DirectAccess) -> None:
    for key, data in {"raw/b/x": b"1", "raw/b/y/z": b"2", "raw/a": b"33", "raw/B": b"", "other/c": b"4"}.items():
        access.plant(key, data)
    listed = access.store.list("raw")
    assert [entry._replace(mtime_sec=0.0, version="") for entry in listed] == [
        Entry("B", is_folder=False, size_bytes=0),
        Entry("a", is_folder=False, size_bytes=2),
        Entry("b", is_folder=True, size_bytes=0),
    ]
    assert all(entry.mtime_sec == 0 or abs(entry.mtime_sec - time.time()) < 60 for entry in listed)
    assert [entry.name for entry in access.store.list("raw/b")] == ["x", "y"]
    assert access.store.list("absent") == access.store.list("raw/absent") == []


def test_list_range_returns_the_entries_between_two_names(access: DirectAccess) -> None:
    for name in (".a~attempt-0/m", ".a~attempt-12/m", ".a-b~attempt-0/m", ".a~deleted/m", "a/m", "a.json", "a-b.json"):
        access.plant(f"raw/{name}", b"1")
    access.plant("raw-1/b/m", b"1")
    listed = access.store.list("raw")
    names = sorted([*(entry.name for entry in listed), ".a~attempt-1", "b"])
    for start, end in [*product(names, names), (".", "/"), names_with(".a~attempt-"), ("a", "zz")]:
        expected = [entry for entry in listed if start <= entry.name < end]
        assert access.store.list_range("raw", start, end) == expected, (start, end)
    assert access.store.list_range("absent", "a", "b") == []


def test_find_returns_the_entry_of_a_listing(access: DirectAccess) -> None:
    access.plant("raw/exp/process_0.json", b"123")
    access.plant("raw/exp.json", b"1")
    for prefix in ("raw/exp", "raw"):
        for entry in access.store.list(prefix):
            assert access.store.find(f"{prefix}/{entry.name}") == (None if entry.is_folder else entry)
    assert access.store.find("raw/absent") is None
    assert access.store.find("absent/exp.json") is None


def test_walk_returns_all_values_below_a_prefix(access: DirectAccess) -> None:
    for key, data in {"raw/b/x": b"1", "raw/b/y/z": b"2", "raw/a": b"33", "rawer/c": b"4"}.items():
        access.plant(key, data)
    found = access.store.walk("raw")
    assert [(entry.name, entry.is_folder, entry.size_bytes) for entry in found] == [
        ("a", False, 2),
        ("b/x", False, 1),
        ("b/y/z", False, 1),
    ]
    assert access.store.walk("absent") == []


def test_delete_removes_the_value(access: DirectAccess) -> None:
    access.plant(KEY, b"first")
    access.plant("raw/exp/other", b"other")
    assert access.store.delete(KEY) is True
    assert access.names() == {"raw/exp/other"}
    assert access.store.delete(KEY) is False
    assert access.store.create(KEY, b"second") is True


def test_delete_folder_removes_everything_below_it(access: DirectAccess) -> None:
    for key in ("raw/a/x", "raw/a/y/z", "raw/ab/x", "raw/b"):
        access.plant(key, b"1")
    assert access.store.delete_folder("raw/a") is True
    assert access.names() == {"raw/ab/x", "raw/b"}
    assert [entry.name for entry in access.store.list("raw")] == ["ab", "b"]
    assert access.store.delete_folder("raw/a") is False


@pytest.mark.parametrize(
    "key", ["", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a/./b", "a\\..\\b", "a\0b"]
)
def test_every_method_rejects_invalid_keys(access: DirectAccess, key: str) -> None:
    for call in (
        lambda: access.store.path(key),
        lambda: access.store.get(key),
        lambda: access.store.create(key, b""),
        lambda: access.store.put(key, b""),
        lambda: access.store.copy_if_absent(key, "x"),
        lambda: access.store.copy_if_absent("x", key),
        lambda: access.store.list(key),
        lambda: access.store.list_range(key, "a", "b"),
        lambda: access.store.find(key),
        lambda: access.store.walk(key),
        lambda: access.store.exchange(key, b""),
        lambda: access.store.move_folder(key, "x"),
        lambda: access.store.move_folder("x", key),
        lambda: access.store.delete(key),
        lambda: access.store.delete_folder(key),
    ):
        with pytest.raises(UnsafePathError, match="it is not a path inside the store"):
            call()


def test_paths_are_distinct_and_end_with_the_key(access: DirectAccess) -> None:
    paths = {access.store.path(key) for key in (KEY, "raw/exp/process_1.json", "raw/exp", "raw")}
    assert len(paths) == 4
    assert access.store.path(KEY).parts[-3:] == ("raw", "exp", "process_0.json")
    assert not access.store.supports_paths or not access.store.path(KEY).exists()
    assert access.names() == set()


def test_path_of_local_store_is_the_file_of_the_value(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create(KEY, b"first")
    assert store.path(KEY).read_bytes() == b"first"


# Replacing and moving


def test_exchange_returns_new_key_of_previous_value(access: DirectAccess) -> None:
    access.plant(KEY, b"first")
    kept = access.store.exchange(KEY, b"second")
    assert access.peek(KEY) == b"second"
    assert access.peek(kept) == access.store.get(kept) == b"first"
    assert access.names() == {KEY, kept}
    assert target_name(kept.rpartition("/")[2]) == "process_0.json"
    assert kept.rpartition("/")[0] == "raw/exp"


def test_exchange_of_absent_key_is_an_error_and_stores_nothing(access: DirectAccess) -> None:
    access.plant("raw/exp/other", b"")
    with pytest.raises(ResultsError):
        access.store.exchange(KEY, b"second")
    assert access.names() == {"raw/exp/other"}


def test_concurrent_exchanges_lose_no_value(access: DirectAccess) -> None:
    values = [b"%d" % number * 1000 for number in range(16)]
    access.plant(KEY, b"first")
    with ThreadPoolExecutor(16) as pool:
        kept = list(pool.map(lambda value: access.store.exchange(KEY, value), values))
    assert len(set(kept)) == 16
    assert sorted([access.store.get(KEY), *map(access.store.get, kept)]) == sorted([b"first", *values])


def test_move_folder_moves_everything_below_it(with_folders: DirectAccess) -> None:
    for key in ("raw/a/x", "raw/a/y/z", "raw/ab/x"):
        with_folders.plant(key, key.encode())
    assert with_folders.store.move_folder("raw/a", "raw/.a~attempt-0") is True
    assert with_folders.names() == {"raw/.a~attempt-0/x", "raw/.a~attempt-0/y/z", "raw/ab/x"}
    assert with_folders.peek("raw/.a~attempt-0/y/z") == b"raw/a/y/z"
    assert with_folders.store.list("raw/a") == []


def test_move_folder_never_replaces_a_folder(with_folders: DirectAccess) -> None:
    with_folders.plant("raw/a/x", b"first")
    with_folders.plant("raw/b/y", b"second")
    assert with_folders.store.move_folder("raw/a", "raw/b") is False
    assert with_folders.store.move_folder("raw/absent", "raw/c") is False
    assert with_folders.names() == {"raw/a/x", "raw/b/y"}


def test_exactly_one_of_many_concurrent_moves_succeeds(with_folders: DirectAccess) -> None:
    with_folders.plant("raw/a/x", b"first")
    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(lambda _: with_folders.store.move_folder("raw/a", "raw/b"), range(8)))
    assert sum(moved) == 1
    assert with_folders.names() == {"raw/b/x"}


def test_move_without_the_capability_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    access = DirectObjectAccess(tmp_path)
    assert not access.store.supports_folder_move
    access.plant("raw/a/x", b"first")
    with pytest.raises(StorageError, match="cannot move"):
        access.store.move_folder("raw/a", "raw/b")
    assert access.names() == {"raw/a/x"}


def test_path_is_a_file_only_with_the_capability(access: DirectAccess) -> None:
    access.store.create(KEY, b"first")
    place = access.store.path(KEY)
    assert place.name == "process_0.json"
    if access.store.supports_paths:
        assert place.read_bytes() == b"first"
    else:
        assert str(place).endswith("/raw/exp/process_0.json")


# Files and folders


def test_file_and_folder_under_one_key_is_an_error(with_folders: DirectAccess) -> None:
    with_folders.plant("raw/exp/process_0.json", b"first")
    for call in (
        lambda: with_folders.store.get("raw/exp"),
        lambda: with_folders.store.put("raw/exp", b""),
        lambda: with_folders.store.list(KEY),
        lambda: with_folders.store.create(f"{KEY}/deeper", b""),
        lambda: with_folders.store.put(f"{KEY}/deeper", b""),
    ):
        with pytest.raises(ResultsError):
            call()
    assert with_folders.store.create("raw/exp", b"") is False
    assert with_folders.names() == {KEY}


def test_list_and_delete_create_nothing(access: DirectAccess) -> None:
    assert access.store.list("raw") == []
    assert access.store.delete(KEY) is access.store.delete_folder("raw") is False
    assert access.names() == set()
