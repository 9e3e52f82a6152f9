"""Locks: exactly one running process has a lock, and a dead process has none."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llm_energy_measure.exceptions import RecorderError, ResultNotFoundError
from llm_energy_measure.recorder.locks import LockOwner, Locks, this_process
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore
from tests.support.children import PATIENCE_SEC, outcomes_in_children

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_energy_measure.storage.base import Store

BOOT = "8cb83392-fc0a-40f4-b649-77d192ce3fb3"


def me(process_index: int = 0, **changes: Any) -> LockOwner:
    """Return this process, which runs."""
    real = this_process(process_index, attempt=0, host="node-a", boot_id=BOOT)
    return msgspec.structs.replace(real, **changes)


def dead(process_index: int = 0, **changes: Any) -> LockOwner:
    """Return a process of this machine that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return me(process_index, **{"pid": pid, "started": 1, **changes})


def locks(store: Store, owner: LockOwner) -> Locks:
    return Locks(store, "exp_7", owner)


def test_first_process_gets_the_lock_and_others_get_its_owner() -> None:
    store = MemoryStore()
    first = locks(store, me(0))
    assert first.acquire("cpu-8cb83392") is None
    assert locks(store, me(1)).acquire("cpu-8cb83392") == me(0)
    assert locks(store, me(1)).acquire("ram-8cb83392") is None
    assert [entry.name for entry in store.list("raw/exp_7")] == [
        "claim-cpu-8cb83392-1.json",
        "claim-ram-8cb83392-1.json",
    ]


def test_release_removes_the_locks_of_dead_predecessors() -> None:
    store = MemoryStore()
    locks(store, dead(0)).acquire("cpu")
    locks(store, dead(1)).acquire("ram")
    own = locks(store, me(2))
    assert own.acquire("cpu") is None
    own.release()
    assert [entry.name for entry in store.list("raw/exp_7")] == ["claim-ram-1.json"]


def test_release_frees_only_the_own_locks() -> None:
    store = MemoryStore()
    first, other = locks(store, me(0)), locks(store, me(1))
    first.acquire("cpu")
    other.acquire("ram")
    first.release()
    first.release()
    assert locks(store, me(2)).acquire("cpu") is None
    assert locks(store, me(2)).acquire("ram") == me(1)


def test_lock_of_a_dead_process_is_free_and_its_file_stays() -> None:
    store = MemoryStore()
    locks(store, dead(0)).acquire("cpu")
    assert locks(store, me(1)).acquire("cpu") is None
    assert locks(store, me(2)).acquire("cpu") == me(1)
    assert [entry.name for entry in store.list("raw/exp_7")] == ["claim-cpu-1.json", "claim-cpu-2.json"]


@pytest.mark.parametrize(
    ("owner", "is_dead"),
    [
        (me(), False),
        (me(started=1), True),  # another process has the same id now
        (me(started=None), False),
        (me(attempt=-1), True),  # an earlier attempt
        (me(pid=2**22 + 1, pid_namespace="pid:[1]"), False),  # another container: the id belongs to another namespace
        (me(boot_id="another"), True),  # an earlier boot of the same machine
        (me(boot_id="another", host="node-b"), False),  # another machine: this process cannot know
        (me(boot_id=None), False),
        (me(attempt=1), False),  # a later attempt
    ],
)
def test_is_dead_only_with_proof(owner: LockOwner, *, is_dead: bool) -> None:
    assert owner.is_dead(me()) is is_dead


def test_unreadable_lock_file_has_no_owner() -> None:
    store = MemoryStore()
    store.create("raw/exp_7/claim-cpu-1.json", b"{")
    assert locks(store, me(1)).acquire("cpu") is None


class Interleaved:
    """A store that calls a function after the first list, and another before the first create."""

    def __init__(self, store: Store, after_list: Callable[[], object], before_create: Callable[[], object]) -> None:
        self._store = store
        self._after_list, self._before_create = [after_list], [before_create]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, prefix: str) -> Any:
        found = self._store.list(prefix)
        if self._after_list:
            self._after_list.pop()()
        return found

    def create(self, key: str, data: bytes) -> bool:
        if self._before_create:
            self._before_create.pop()()
        return self._store.create(key, data)


@pytest.mark.parametrize("has_dead", [False, True])
def test_lock_released_during_acquire_goes_to_one_process(*, has_dead: bool) -> None:
    store = MemoryStore()
    if has_dead:
        locks(store, dead(9)).acquire("cpu")
    holder, other = locks(store, me(0)), locks(store, me(2))
    assert holder.acquire("cpu") is None
    outcomes = []
    late: Any = Interleaved(store, holder.release, lambda: outcomes.append(other.acquire("cpu")))
    outcomes.append(locks(late, me(1)).acquire("cpu"))
    assert outcomes == [None, me(2)]


def test_lock_file_that_is_listed_but_missing_is_an_error() -> None:
    store = MemoryStore()
    store.create("raw/exp_7/claim-cpu-1.json", b"{}")

    class MissingFile(Interleaved):
        def get(self, key: str) -> bytes:
            raise ResultNotFoundError("cannot read", key, "check the store")

    store_without_file: Any = MissingFile(store, lambda: None, lambda: None)
    with pytest.raises(RecorderError, match="cannot lock cpu: its lock files are listed but cannot be found"):
        locks(store_without_file, me(1)).acquire("cpu")


def test_too_many_lock_files_are_an_error() -> None:
    store = MemoryStore()
    store.create("raw/exp_7/claim-cpu-9999999.json", b"{}")
    with pytest.raises(RecorderError, match="number 9999999, above the limit of .*; remove .*/raw/exp_7/claim-cpu"):
        locks(store, me(1)).acquire("cpu")


def test_second_process_with_the_same_rank_gets_an_error() -> None:
    store = MemoryStore()
    locks(store, me(3)).acquire_rank()
    locks(store, me(4)).acquire_rank()
    with pytest.raises(
        RecorderError, match=rf"cannot record process 3: process {os.getpid()} on host node-a already records this rank"
    ):
        locks(store, me(3)).acquire_rank()


@pytest.mark.parametrize("has_dead", [False, True])
def test_exactly_one_of_many_processes_gets_the_lock(tmp_path: Path, *, has_dead: bool) -> None:
    """This holds also if all processes first find the lock file of a dead process."""
    store = LocalStore(tmp_path / "results")
    if has_dead:
        locks(store, dead(99)).acquire("cpu")
    have_tried = multiprocessing.get_context("fork").Barrier(8)

    def take(index: int) -> int | None:
        holder = locks(store, this_process(index, attempt=0, host="node-a", boot_id=BOOT)).acquire("cpu")
        have_tried.wait(PATIENCE_SEC)  # a lock of a process that has ended would be free again
        return None if holder is None else holder.process_index

    outcomes = outcomes_in_children([lambda index=index: take(index) for index in range(8)])  # type: ignore[misc]  # a default binds it
    winners = [index for index, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1
    assert {outcome for outcome in outcomes if outcome is not None} == set(winners)
