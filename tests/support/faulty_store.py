"""A store that fails at one step: the process stops there, or the disk returns EIO."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Literal

from llm_energy_measure.exceptions import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from llm_energy_measure.storage.base import Entries, Entry, Store

Fault = Literal["crash", "EIO"]
When = Literal["before", "after"]


class CrashedError(BaseException):
    """The process stops here. The package must not catch this exception."""


def eio(doing: str) -> StorageError:
    """Return the error of a store whose disk fails."""
    error = StorageError(doing, "Input/output error", "check the file system, then try again")
    error.errno = errno.EIO
    return error


class FaultyStore:
    """A `Store` that forwards every call to another store, and fails at one step.

    Args:
        store: The other store.
        at: Number of the step that fails, from 0. -1: no step fails.
        when: `before` the other store does the step, or `after`: only the reply is lost.
        fault: `EIO` raises an error once. After a `crash` every later step fails too: the process has ended.
        reads_too: Count reads as steps. By default only changes are steps.

    Attributes:
        steps: Names of the steps so far.
    """

    supports_paths = False  # each step passes through this object
    supports_mtime = False
    parallel_requests = 1

    def __init__(
        self, store: Store, at: int, when: When = "before", fault: Fault = "EIO", *, reads_too: bool = False
    ) -> None:
        self.store = store
        self.supports_folder_move = store.supports_folder_move
        self.at = at
        self.when = when
        self.fault = fault
        self.reads_too = reads_too
        self.steps: list[str] = []
        self.has_crashed = False

    def _step(self, name: str, work: Callable[[], Any]) -> Any:
        if self.has_crashed:
            raise CrashedError
        self.steps.append(name)
        fails = len(self.steps) - 1 == self.at
        if fails and self.when == "before":
            self._fail(name)
        done = work()
        if fails:
            self._fail(name)
        return done

    def _fail(self, name: str) -> None:
        if self.fault == "EIO":
            raise eio(f"cannot {name}")
        self.has_crashed = True
        raise CrashedError

    def _read(self, name: str, work: Callable[[], Any]) -> Any:
        return self._step(name, work) if self.reads_too else work()

    def path(self, key: str) -> Path:
        return self.store.path(key)

    def require_safe_writes(self) -> None:
        self.store.require_safe_writes()

    def get(self, key: str) -> bytes:
        return self._read("get", lambda: self.store.get(key))

    def list(self, prefix: str) -> list[Entry]:
        return self._read("list", lambda: self.store.list(prefix))

    def list_range(self, prefix: str, start: str, end: str) -> Entries:
        return self._read("list_range", lambda: self.store.list_range(prefix, start, end))

    def find(self, key: str) -> Entry | None:
        return self._read("find", lambda: self.store.find(key))

    def walk(self, prefix: str, folders: Sequence[str] = ()) -> Entries:  # noqa: ARG002 - folders are listed one by one
        return self._read("walk", lambda: self.store.walk(prefix))

    def create(self, key: str, data: bytes) -> bool:
        return self._step("create", lambda: self.store.create(key, data))

    def put(self, key: str, data: bytes) -> None:
        self._step("put", lambda: self.store.put(key, data))

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> dict[str, str]:
        return self._step("put_many", lambda: self.store.put_many(values, mtime_ns=mtime_ns))

    def exchange(self, key: str, data: bytes) -> str:
        return self._step("exchange", lambda: self.store.exchange(key, data))

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        return self._step("copy_if_absent", lambda: self.store.copy_if_absent(key, new_key))

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        return self._step("move_folder", lambda: self.store.move_folder(prefix, new_prefix))

    def delete(self, key: str) -> bool:
        return self._step("delete", lambda: self.store.delete(key))

    def delete_folder(self, prefix: str) -> bool:
        return self._step("delete_folder", lambda: self.store.delete_folder(prefix))
