"""`Folder`: fast reads of the files in one folder, with the same results as the store."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import StorageError, UnsafePathError
from llm_energy_measure.storage.folder import Folder, store_time_ns
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.storage.base import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


def content(store: Store, name: str) -> dict[str, object]:
    with Folder(store, "raw") as folder:
        return {
            file: data if isinstance(data, bytes) else type(data)
            for file, data in folder.read(name, lambda file: file != "unwanted")
        }


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 300_000])
def test_read_returns_whole_files_of_any_size(store: Store, size: int) -> None:
    data = os.urandom(size)
    for name in ("one", "unwanted"):
        store.put(f"raw/e/{name}", data)
    store.put("raw/e/empty", b"")
    store.put("raw/e/below/two", b"2")
    assert content(store, "e") == {"one": data, "empty": b""}


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 300_000])
def test_get_returns_whole_file_of_any_size(store: Store, size: int) -> None:
    data = os.urandom(size)
    store.put("raw/one", data)
    store.put("raw/empty", b"")
    store.put("raw/below/two", b"2")
    with Folder(store, "raw") as folder:
        assert [folder.get(name) for name in ("one", "empty", "below", "absent")] == [data, b"", None, None]


def test_names_are_sorted_and_absent_folder_is_empty(store: Store) -> None:
    with Folder(store, "raw") as folder:
        assert (list(folder.names()), list(folder.read("e", bool))) == ([], [])
        assert folder.is_absent("e")
    for name in ("b", "a", "c"):
        store.put(f"raw/{name}/x", b"1")
    with Folder(store, "raw") as folder:
        assert list(folder.names()) == ["a", "b", "c"]
        assert (folder.is_absent("a"), folder.is_absent("d")) == (False, True)
        assert content(store, "d") == {}


def test_names_lists_every_name_that_the_file_system_accepts(tmp_path: Path) -> None:
    names = {b"a b", b"two\nlines", "\u00fc\u4e00\U0001f50b".encode(), b"\xff", b"\xc3\x28", b"tab\t", b"~", b"end "}
    for name in names:
        os.mkdir(os.fsencode(tmp_path) + b"/raw-" + name)  # noqa: PTH102 - the name is bytes
    with Folder(LocalStore(tmp_path.parent), tmp_path.name) as folder:
        found = list(folder.names())
    assert found == sorted(found)
    assert {os.fsencode(name) for name in found} == {b"raw-" + name for name in names}


def test_read_reports_links_and_pipes_without_blocking(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/e/file", b"1")
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "raw" / "e"
    (folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    assert content(store, "e") == {"file": b"1", "link": UnsafePathError, "pipe": UnsafePathError}


def test_read_does_not_consume_data_from_pipes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/e/file", b"1")
    for path in (tmp_path / "raw" / "e" / "pipe", tmp_path / "raw" / "pipe"):
        os.mkfifo(path)
        end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            os.write(end, b"waiting")
            assert content(store, "e")["file"] == b"1"
            assert content(store, "e")["pipe"] is UnsafePathError
            with Folder(store, "raw") as folder:
                assert folder.get("pipe") is None
            assert os.read(end, 100) == b"waiting"
        finally:
            os.close(end)


def test_symbolic_link_to_folder_is_not_followed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put("raw/e/file", b"1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"secret")
    (tmp_path / "store" / "raw" / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError):
        content(store, "linked")
    (tmp_path / "store" / "raw").rename(tmp_path / "store" / "other")
    (tmp_path / "store" / "raw").symlink_to("other")
    with Folder(store, "raw") as folder, pytest.raises(UnsafePathError):
        list(folder.names())
    with pytest.raises(UnsafePathError):
        content(store, "e")


def test_file_in_place_of_folder_raises_storage_error(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"")
    with pytest.raises(StorageError):
        content(LocalStore(tmp_path), "e")


def test_store_time_is_file_system_clock_and_leaves_no_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    before = store_time_ns(store, "aggregated")
    assert before > 0
    assert list(tmp_path.iterdir()) == []
    store.put("aggregated/e.json", b"1")
    with Folder(store, "aggregated") as folder:
        written = store.path("aggregated/e.json").stat().st_mtime_ns
        assert folder.timestamp_ns("e.json") in (written, None)  # None if written in one clock tick
        assert before <= written <= store_time_ns(store, "aggregated")
        folder.set_mtime("e.json", 5)
        assert folder.timestamp_ns("e.json") == 5
        assert (folder.timestamp_ns("absent"), folder.timestamp_ns("absent/e")) == (None, None)
        folder.set_mtime("absent", 5)
    assert [path.name for path in (tmp_path / "aggregated").iterdir()] == ["e.json"]


def test_store_time_is_zero_without_a_clock(tmp_path: Path) -> None:
    assert store_time_ns(MemoryStore(), "aggregated") == 0
    assert store_time_ns(LocalStore(tmp_path / "nowhere"), "aggregated") == 0


def test_concurrent_reads_return_the_requested_folders(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    wanted = {f"e{number}": {"file": bytes([number]) * 30_000} for number in range(8)}
    for name, files in wanted.items():
        store.put(f"raw/{name}/file", files["file"])
    with Folder(store, "raw") as folder, ThreadPoolExecutor(8) as threads:
        for _ in range(40):
            found = threads.map(lambda name: dict(folder.read(name, bool)), wanted)
            assert dict(zip(wanted, found, strict=True)) == wanted


def test_names_are_those_of_folders_and_links(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/exp/process_0.json", b"{}")
    (tmp_path / "raw" / "README").write_text("notes of a user")
    (tmp_path / "raw" / "link").symlink_to("exp")
    with Folder(store, "raw") as folder:
        assert list(folder.names()) == ["exp", "link"]
