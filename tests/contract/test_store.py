"""What every store promises. Each test goes around the store under test to set up, or to look."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import pytest

from llm_energy_measure.exceptions import ResultNotFoundError, ResultsError, StorageError, UnsafePathError
from llm_energy_measure.storage.atomic import target_name
from llm_energy_measure.storage.base import Entry, Store
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

KEY = "raw/exp/process_0.json"
LARGE = bytes(range(256)) * 12_000


class Around(Protocol):
    """A store, and ways around it."""

    store: Store

    def plant(self, key: str, data: bytes) -> None:
        """Put a value there without the store."""

    def peek(self, key: str) -> bytes | None:
        """What is there, read without the store."""

    def names(self) -> set[str]:
        """Everything that is there, leftovers included."""


class AroundLocalStore:
    """`LocalStore`, and ways around it."""

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


class AroundMemoryStore:
    """`MemoryStore`, and ways around it."""

    def __init__(self, _: Path) -> None:
        self.memory = MemoryStore()
        self.store: Store = self.memory

    def plant(self, key: str, data: bytes) -> None:
        self.memory._values[key] = data

    def peek(self, key: str) -> bytes | None:
        return self.memory._values.get(key)

    def names(self) -> set[str]:
        return set(self.memory._values)


@pytest.fixture(params=[AroundLocalStore, AroundMemoryStore])
def around(request: pytest.FixtureRequest, tmp_path: Path) -> Around:
    built: Around = request.param(tmp_path)
    return built


def test_put_many_stores_and_replaces_values(around: Around) -> None:
    around.plant("a/one", b"older")
    around.store.put_many({"a/one": b"1", "a/two": b"", "b/c/three": b"3"})
    assert [around.peek(key) for key in ("a/one", "a/two", "b/c/three")] == [b"1", b"", b"3"]
    around.store.put_many({})
    assert around.names() == {"a/one", "a/two", "b/c/three"}


def test_failed_put_many_leaves_every_value_whole(around: Around) -> None:
    for key, data in (("a/one", b"older"), ("a/two", b"older"), ("b/file", b"")):
        around.plant(key, data)
    with pytest.raises(StorageError):
        around.store.put_many({"a/one": b"newer", "b/file/below": b"", "a/two": b"newer"})
    assert {around.peek("a/one"), around.peek("a/two")} <= {b"older", b"newer"}
    with pytest.raises(UnsafePathError):
        around.store.put_many({"a/one": b"newest", "../out": b""})
    assert around.peek("a/one") != b"newest"
    assert around.names() == {"a/one", "a/two", "b/file"}


def test_get_of_absent_key_raises_not_found(around: Around) -> None:
    with pytest.raises(ResultNotFoundError, match="not found"):
        around.store.get(KEY)


@pytest.mark.parametrize("data", [b"", b"x", b"\0\r\n\xff", LARGE])
def test_create_stores_the_whole_value(around: Around, data: bytes) -> None:
    assert around.store.create(KEY, data) is True
    assert around.peek(KEY) == around.store.get(KEY) == data
    assert around.names() == {KEY}


def test_get_reads_values_that_the_store_did_not_write(around: Around) -> None:
    around.plant(KEY, LARGE)
    assert around.store.get(KEY) == LARGE


def test_create_never_replaces(around: Around) -> None:
    around.plant(KEY, b"first")
    assert around.store.create(KEY, b"second") is False
    assert around.store.create(KEY, b"first") is False
    assert around.peek(KEY) == b"first"
    assert around.names() == {KEY}


def test_exactly_one_of_many_concurrent_creates_succeeds(around: Around) -> None:
    values = [b"%d" % number * 1000 for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda value: around.store.create(KEY, value), values))
    assert sum(outcomes) == 1
    assert around.peek(KEY) == values[outcomes.index(True)]
    assert around.names() == {KEY}


def test_put_stores_and_replaces(around: Around) -> None:
    for data in (b"first", LARGE, b""):
        around.store.put(KEY, data)
        assert around.peek(KEY) == data
    assert around.names() == {KEY}


def test_reader_sees_either_old_or_new_value(around: Around) -> None:
    values = [bytes([65 + number]) * 50_000 for number in range(20)]
    around.store.put(KEY, values[0])

    def write() -> None:
        for value in values:
            around.store.put(KEY, value)

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write)
        seen = [around.store.get(KEY)]
        while not writing.done():
            seen.append(around.store.get(KEY))
        writing.result()
    assert set(seen) <= set(values)


def test_copy_is_independent_of_the_original(around: Around) -> None:
    around.plant(KEY, b"first")
    assert around.store.copy_if_absent(KEY, "raw/exp/kept-1.json") is True
    around.store.put(KEY, b"second")
    assert around.peek("raw/exp/kept-1.json") == b"first"
    around.store.delete(KEY)
    assert around.peek("raw/exp/kept-1.json") == b"first"


def test_copy_if_absent_never_replaces(around: Around) -> None:
    around.plant(KEY, b"first")
    around.plant("raw/exp/kept-1.json", b"other")
    assert around.store.copy_if_absent(KEY, "raw/exp/kept-1.json") is False
    assert around.peek("raw/exp/kept-1.json") == b"other"


def test_copy_of_absent_key_is_an_error(around: Around) -> None:
    with pytest.raises(ResultsError):
        around.store.copy_if_absent(KEY, "raw/exp/kept-1.json")


def test_list_returns_direct_children_sorted(around: Around) -> None:
    for key, data in {"raw/b/x": b"1", "raw/b/y/z": b"2", "raw/a": b"33", "raw/B": b"", "other/c": b"4"}.items():
        around.plant(key, data)
    listed = around.store.list("raw")
    assert [entry._replace(mtime_sec=0.0) for entry in listed] == [
        Entry("B", is_folder=False, size_bytes=0),
        Entry("a", is_folder=False, size_bytes=2),
        Entry("b", is_folder=True, size_bytes=0),
    ]
    assert all(entry.mtime_sec == 0 or abs(entry.mtime_sec - time.time()) < 60 for entry in listed)
    assert [entry.name for entry in around.store.list("raw/b")] == ["x", "y"]
    assert around.store.list("absent") == around.store.list("raw/absent") == []


def test_delete_removes_the_value(around: Around) -> None:
    around.plant(KEY, b"first")
    around.plant("raw/exp/other", b"other")
    assert around.store.delete(KEY) is True
    assert around.names() == {"raw/exp/other"}
    assert around.store.delete(KEY) is False
    assert around.store.create(KEY, b"second") is True


def test_delete_folder_removes_everything_below_it(around: Around) -> None:
    for key in ("raw/a/x", "raw/a/y/z", "raw/ab/x", "raw/b"):
        around.plant(key, b"1")
    assert around.store.delete_folder("raw/a") is True
    assert around.names() == {"raw/ab/x", "raw/b"}
    assert [entry.name for entry in around.store.list("raw")] == ["ab", "b"]
    assert around.store.delete_folder("raw/a") is False


@pytest.mark.parametrize(
    "key", ["", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a/./b", "a\\..\\b", "a\0b"]
)
def test_every_method_rejects_invalid_keys(around: Around, key: str) -> None:
    for call in (
        lambda: around.store.path(key),
        lambda: around.store.get(key),
        lambda: around.store.create(key, b""),
        lambda: around.store.put(key, b""),
        lambda: around.store.copy_if_absent(key, "x"),
        lambda: around.store.copy_if_absent("x", key),
        lambda: around.store.list(key),
        lambda: around.store.exchange(key, b""),
        lambda: around.store.move_folder(key, "x"),
        lambda: around.store.move_folder("x", key),
        lambda: around.store.delete(key),
        lambda: around.store.delete_folder(key),
    ):
        with pytest.raises(UnsafePathError, match="it leads out of the store"):
            call()


def test_paths_are_distinct_and_end_with_the_key(around: Around) -> None:
    paths = {around.store.path(key) for key in (KEY, "raw/exp/process_1.json", "raw/exp", "raw")}
    assert len(paths) == 4
    assert around.store.path(KEY).parts[-3:] == ("raw", "exp", "process_0.json")
    assert not around.store.path(KEY).exists()
    assert around.names() == set()


def test_path_of_local_store_is_the_file_of_the_value(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create(KEY, b"first")
    assert store.path(KEY).read_bytes() == b"first"


# Replacing and moving


def test_exchange_returns_new_key_of_previous_value(around: Around) -> None:
    around.plant(KEY, b"first")
    kept = around.store.exchange(KEY, b"second")
    assert around.peek(KEY) == b"second"
    assert around.peek(kept) == around.store.get(kept) == b"first"
    assert around.names() == {KEY, kept}
    assert target_name(kept.rpartition("/")[2]) == "process_0.json"
    assert kept.rpartition("/")[0] == "raw/exp"


def test_exchange_of_absent_key_is_an_error_and_stores_nothing(around: Around) -> None:
    around.plant("raw/exp/other", b"")
    with pytest.raises(ResultsError):
        around.store.exchange(KEY, b"second")
    assert around.names() == {"raw/exp/other"}


def test_concurrent_exchanges_lose_no_value(around: Around) -> None:
    values = [b"%d" % number * 1000 for number in range(16)]
    around.plant(KEY, b"first")
    with ThreadPoolExecutor(16) as pool:
        kept = list(pool.map(lambda value: around.store.exchange(KEY, value), values))
    assert len(set(kept)) == 16
    assert sorted([around.store.get(KEY), *map(around.store.get, kept)]) == sorted([b"first", *values])


def test_move_folder_moves_everything_below_it(around: Around) -> None:
    for key in ("raw/a/x", "raw/a/y/z", "raw/ab/x"):
        around.plant(key, key.encode())
    assert around.store.move_folder("raw/a", "raw/.a~attempt-0") is True
    assert around.names() == {"raw/.a~attempt-0/x", "raw/.a~attempt-0/y/z", "raw/ab/x"}
    assert around.peek("raw/.a~attempt-0/y/z") == b"raw/a/y/z"
    assert around.store.list("raw/a") == []


def test_move_folder_never_replaces_a_folder(around: Around) -> None:
    around.plant("raw/a/x", b"first")
    around.plant("raw/b/y", b"second")
    assert around.store.move_folder("raw/a", "raw/b") is False
    assert around.store.move_folder("raw/absent", "raw/c") is False
    assert around.names() == {"raw/a/x", "raw/b/y"}


def test_exactly_one_of_many_concurrent_moves_succeeds(around: Around) -> None:
    around.plant("raw/a/x", b"first")
    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(lambda _: around.store.move_folder("raw/a", "raw/b"), range(8)))
    assert sum(moved) == 1
    assert around.names() == {"raw/b/x"}


# Files and folders


def test_file_and_folder_under_one_key_is_an_error(around: Around) -> None:
    around.plant("raw/exp/process_0.json", b"first")
    for call in (
        lambda: around.store.get("raw/exp"),
        lambda: around.store.put("raw/exp", b""),
        lambda: around.store.list(KEY),
        lambda: around.store.create(f"{KEY}/deeper", b""),
        lambda: around.store.put(f"{KEY}/deeper", b""),
    ):
        with pytest.raises(ResultsError):
            call()
    assert around.store.create("raw/exp", b"") is False
    assert around.names() == {KEY}


def test_list_and_delete_create_nothing(around: Around) -> None:
    assert around.store.list("raw") == []
    assert around.store.delete(KEY) is around.store.delete_folder("raw") is False
    assert around.names() == set()
