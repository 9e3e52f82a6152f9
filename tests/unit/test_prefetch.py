"""Prefetching: order of the items, when threads read, and how the threads end."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from itertools import chain, count, repeat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore
from llm_energy_measure.storage.prefetch import prefetch, thread_wait_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.storage.base import Store


def waits_for_every_file() -> Callable[[], int]:
    """Return a wait counter of a thread that waits for every file."""
    return count(step=1_000).__next__


class RecordingFolder(Folder):
    """A folder that records the prefetched names and the threads."""

    def __init__(self, store: Store, prefix: str) -> None:
        super().__init__(store, prefix)
        self.prefetched: list[tuple[str, threading.Thread]] = []

    def prefetch(self, name: str) -> None:
        super().prefetch(name)
        self.prefetched.append((name, threading.current_thread()))

    def prefetched_names(self) -> list[str]:
        return sorted(name for name, _ in self.prefetched)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@given(st.integers(0, 400), st.lists(st.integers(0, 40), max_size=60))
def test_prefetch_yields_every_item_once_and_in_order(amount: int, waited: list[int]) -> None:
    waits = chain(waited, repeat(100))
    total = 0

    def wait_count() -> int:
        nonlocal total
        total += next(waits)
        return total

    with (
        Folder(MemoryStore(), "raw") as folder,
        closing(prefetch(folder, range(amount), str, wait_count=wait_count)) as items,
    ):
        assert list(items) == list(range(amount))


def test_prefetch_reads_nothing_if_the_caller_never_waits(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    taken = iter(range(100))
    with (
        RecordingFolder(LocalStore(tmp_path), "raw") as folder,
        closing(prefetch(folder, taken, str, wait_count=lambda: 7)) as items,
    ):
        assert [next(items), next(taken), next(items)] == [0, 1, 2]  # no item is taken in advance
        assert list(items) == list(range(3, 100))
        assert folder.prefetched_names() == []


def test_prefetch_reads_next_folders_in_threads_if_caller_waits(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / "raw" / str(number)).mkdir(parents=True)
    with (
        RecordingFolder(LocalStore(tmp_path), "raw") as folder,
        closing(
            prefetch(
                folder,
                range(100),
                lambda number: str(number) if number % 2 else None,
                wait_count=waits_for_every_file(),
            )
        ) as items,
    ):
        for number in items:
            while number == 40 and len(folder.prefetched) < 4:
                time.sleep(0.001)
        names = folder.prefetched_names()
    assert len(names) == len(set(names)) >= 4
    assert set(names) <= {
        str(number) for number in range(4, 100) if number % 2
    }  # each name at most once, and only names of items with a folder
    assert threading.current_thread() not in {thread for _, thread in folder.prefetched}


@pytest.mark.parametrize("until", [0, 7, 8, 9, 30, 99])
def test_prefetch_threads_end_when_the_caller_stops(tmp_path: Path, until: int) -> None:
    (tmp_path / "raw").mkdir()
    before = threading.active_count()

    def work() -> None:
        with (
            Folder(LocalStore(tmp_path), "raw") as folder,
            closing(prefetch(folder, range(100), str, wait_count=waits_for_every_file())) as items,
        ):
            for number in items:
                if number == until:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert threading.active_count() == before


def test_folder_prefetch_ignores_errors_and_closes_files(tmp_path: Path) -> None:
    for name in ("whole", "odd", "locked"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    (tmp_path / "raw" / "whole" / "process_0.json").write_bytes(b"{}")
    os.mkfifo(tmp_path / "raw" / "odd" / "process_0.json")
    (tmp_path / "raw" / "odd" / "link").symlink_to("/dev/zero")
    (tmp_path / "raw" / "odd" / "below").mkdir()
    (tmp_path / "raw" / "file").write_bytes(b"1")
    (tmp_path / "raw" / "elsewhere").symlink_to(tmp_path / "raw" / "whole")
    (tmp_path / "raw" / "locked").chmod(0)
    before = open_files()
    with Folder(LocalStore(tmp_path), "raw") as folder:
        for name in ("whole", "odd", "locked", "file", "elsewhere", "absent"):
            folder.prefetch(name)
    assert open_files() == before


def test_prefetch_works_if_no_thread_can_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_thread: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    (tmp_path / "raw").mkdir()
    monkeypatch.setattr(threading.Thread, "start", refused)
    with (
        Folder(LocalStore(tmp_path), "raw") as folder,
        closing(prefetch(folder, range(200), str, wait_count=waits_for_every_file())) as items,
    ):
        assert list(items) == list(range(200))


def test_thread_wait_count_counts_waits() -> None:
    before = thread_wait_count()
    for _ in range(5):
        threading.Event().wait(0.001)
    assert thread_wait_count() >= before + 5
