"""The lock on a file name: one owner at a time, and locks of ended processes do not block."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store, remove_leftovers
from llm_energy_measure.storage.lock import locked
from llm_energy_measure.storage.temporary import is_lock, lock_path, temporary_path
from tests.support import factories
from tests.support.children import outcomes_in_children


def token(path: Path, *, pid: int | None = None, host: str | None = None) -> bytes:
    """Return the content of a lock of another process or host."""
    parts = Path(temporary_path(str(path))).name.split("~")
    machine, boot, own, chance = parts[1].split("-")
    return f"{parts[0]}~{host or machine}-{boot}-{pid or own}-{chance}".encode()


def ended_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    return ended.pid


def test_lock_is_a_hidden_file_that_names_its_process(tmp_path: Path) -> None:
    path = tmp_path / "process_0.json"
    with locked(str(path)):
        [lock] = tmp_path.iterdir()
        assert is_lock(lock.name)
        assert str(lock) == lock_path(str(path))
        assert f"-{os.getpid()}-" in lock.read_text()
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(20):
            with locked(str(counter)):
                counter.write_text(str(int(counter.read_text()) + 1))

    assert outcomes_in_children([count] * 8) == [None] * 8
    assert counter.read_text() == "160"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_lock_of_an_ended_process_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "value"
    Path(lock_path(str(path))).write_bytes(token(path, pid=ended_pid()))
    with locked(str(path), patience_sec=0):
        assert f"-{os.getpid()}-" in Path(lock_path(str(path))).read_text()


def test_lock_without_a_name_is_taken_after_some_time(tmp_path: Path) -> None:
    path = tmp_path / "value"
    Path(lock_path(str(path))).write_bytes(b"")
    with locked(str(path), patience_sec=60, unnamed_sec=0):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("holder", ["running", "other host"])
def test_lock_of_another_process_is_named_in_the_error(tmp_path: Path, holder: str) -> None:
    path = tmp_path / "value"
    lock = Path(lock_path(str(path)))
    lock.write_bytes(token(path) if holder == "running" else token(path, host="00000000", pid=ended_pid()))
    found = f"another process has held the lock {lock} for more than 0 s; if that process has ended, delete the lock"
    with pytest.raises(StorageError, match=found), locked(str(path), patience_sec=0):
        pass
    assert lock.exists()


@pytest.mark.parametrize("is_ended", [True, False])
def test_check_names_a_lock_that_was_left(tmp_path: Path, *, is_ended: bool) -> None:
    repository = FileSystemRepository(tmp_path)
    path = repository.save_raw("exp", factories.raw("exp"))
    lock = Path(lock_path(str(path)))
    lock.write_bytes(token(path, pid=ended_pid()) if is_ended else b"")
    [finding] = check_store(repository)
    assert (finding.code, finding.key) == (
        "leftover.file" if is_ended else "leftover.in_use",
        f"raw/exp/{lock.name}",
    )
    assert remove_leftovers(repository, [finding]) == ([finding.key] if is_ended else [])
