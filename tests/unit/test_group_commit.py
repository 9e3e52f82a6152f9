"""Group commit: values that threads create at the same time share their syncs, and keep their guarantees."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.merge import merge_results
from llm_energy_measure.storage import atomic
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.group_commit import GroupCommitStore, map_in_threads
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import factories


def test_every_thread_learns_whether_it_created_the_value(tmp_path: Path) -> None:
    store = GroupCommitStore(tmp_path / "store")
    keys = [f"raw/exp_{number % 50}/process_0.json" for number in range(200)]
    with ThreadPoolExecutor(32) as pool:
        is_new = list(pool.map(lambda pair: store.create(pair[1], str(pair[0]).encode()), enumerate(keys)))
    assert sum(is_new) == 50
    winners = {key: number for number, (key, new) in enumerate(zip(keys, is_new, strict=True)) if new}
    assert {key: int(store.get(key)) for key in winners} == winners
    assert list(tmp_path.rglob(".*")) == []


def test_an_error_concerns_only_its_own_value(tmp_path: Path) -> None:
    store = GroupCommitStore(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "file").write_bytes(b"no folder")

    def create(number: int) -> bool | StorageError:
        try:
            return store.create("raw/file/x" if number == 7 else f"raw/exp_{number}/x", b"data")
        except StorageError as error:
            return error

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(create, range(16)))
    assert isinstance(outcomes.pop(7), StorageError)
    assert outcomes == [True] * 15


@pytest.mark.skipif(os.name != "posix", reason="needs fsync of folders")
def test_many_creates_need_few_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    source = FileSystemRepository(tmp_path / "source")
    for number in range(40):
        for record in factories.raws(2, f"exp_{number:02d}"):
            source.save_raw(record.experiment_id, record)
    before = len(synced)
    target = FileSystemRepository(tmp_path / "target")
    merged = list(merge_results(target, source))
    assert [found.outcome for found in merged] == ["copied"] * 40 * 3
    assert [found.key for found in merged] == sorted(found.key for found in merged)
    assert (len(synced) - before) * 5 < before
    assert [found.outcome for found in merge_results(target, source)] == ["same"] * 40 * 3


def test_an_error_of_the_disk_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", fail)
    files = {str(tmp_path / f"{number}.json"): b"data" for number in range(3)}
    with pytest.raises(OSError, match="No space left"):
        atomic.create_files(files, root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_local", [True, False])
def test_results_are_in_order_and_equal_names_never_overlap(tmp_path: Path, is_local: bool) -> None:
    running: set[int] = set()
    lock = threading.Lock()

    def work(_store: Store, number: int) -> int:
        with lock:
            assert number % 3 not in running
            running.add(number % 3)
        with lock:
            running.remove(number % 3)
        return number

    store = LocalStore(tmp_path) if is_local else MemoryStore()
    assert list(map_in_threads(store, work, range(100), lambda number: str(number % 3))) == list(range(100))


def test_an_exception_ends_the_map_and_is_raised(tmp_path: Path) -> None:
    def work(_store: Store, number: int) -> int:
        if number == 3:
            raise ValueError("third")
        return number

    found = map_in_threads(LocalStore(tmp_path), work, range(100), str)
    with pytest.raises(ValueError, match="third"):
        list(found)


def test_an_interrupt_reaches_every_waiting_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = GroupCommitStore(tmp_path)
    store.create("raw/first", b"data")

    def interrupt(*_: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", interrupt)

    def create(number: int) -> bool:
        try:
            store.create(f"raw/{number}", b"data")
        except KeyboardInterrupt:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(create, range(8)))
    monkeypatch.undo()
    assert store.create("raw/last", b"data")
