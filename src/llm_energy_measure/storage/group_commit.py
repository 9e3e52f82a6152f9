"""Group commit: threads that create values at the same time share two syncs.

Most of the time of a merge or an import is spent in fsync, several times per file. Each thread still does its steps one
after the other and waits until its value is durable, so that all guarantees of the store hold.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from llm_energy_measure.constants import RAW_DIR
from llm_energy_measure.storage import atomic
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.local import LocalStore

if TYPE_CHECKING:
    from concurrent.futures import Future

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_THREADS = 64
# A batch of this size gets no further value. A larger batch would take more memory without a gain.
_MAX_BATCH_BYTES = 64 * 1024 * 1024


class _Request(NamedTuple):
    """A value to create. The result of `is_new` is True if the value was created, False if the key existed."""

    key: str
    path: str
    data: bytes
    is_new: Future[bool]


class GroupCommitStore(LocalStore):
    """A `LocalStore` whose method `create` shares its syncs with the calls of other threads."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Set the folder. No file is opened or created."""
        super().__init__(os.fspath(root))
        self._lock = Lock()
        self._waiting: deque[_Request] = deque()
        self._is_committing = False

    def create(self, key: str, data: bytes) -> bool:
        """Store a value durably if the key is absent. Return False and change nothing if it exists."""
        from concurrent.futures import Future  # a dry run does not need this import

        request = _Request(key, self._checked_path(key), data, Future())
        with self._lock:
            self._waiting.append(request)
            leads = not self._is_committing
            self._is_committing = True
        if leads:
            self._commit_all()
        return request.is_new.result()

    def _commit_all(self) -> None:
        """Commit all requests, including requests that arrive during the commit."""
        batch: list[_Request] = []
        try:
            while batch := self._next_batch():
                self._commit(batch)
        except BaseException as error:
            # Without a result, the other threads would wait forever.
            with self._lock:
                unfinished = [*batch, *self._waiting]
                self._waiting.clear()
                self._is_committing = False
            for request in unfinished:
                if not request.is_new.done():
                    request.is_new.set_exception(error)
            raise

    def _next_batch(self) -> list[_Request]:
        """Return waiting requests with different keys. If none wait, let the next caller of `create` commit."""
        batch: dict[str, _Request] = {}
        size_bytes = 0
        with self._lock:
            while self._waiting and self._waiting[0].path not in batch and size_bytes < _MAX_BATCH_BYTES:
                request = self._waiting.popleft()
                batch[request.path] = request
                size_bytes += len(request.data)
            self._is_committing = bool(batch)
        return list(batch.values())

    def _commit(self, batch: list[_Request]) -> None:
        created: set[str] = set()
        is_synced = False
        if len(batch) > 1 and os.path.isdir(self.root):
            # After an error, each value is created alone, so that each caller gets its own error.
            with contextlib.suppress(OSError):
                for folder in {os.path.dirname(request.path) for request in batch}:
                    os.makedirs(folder, exist_ok=True)
                files = {request.path: request.data for request in batch}
                created.update(atomic.create_files(files, root=os.fspath(self.root)))
                is_synced = True
        for request in batch:
            try:
                is_new = request.path in created
                if not is_new and not (is_synced and os.path.lexists(request.path)):
                    is_new = super().create(request.key, request.data)
            except Exception as error:  # noqa: BLE001 - `Future.result` raises it in the thread of the caller
                request.is_new.set_exception(error)
            else:
                request.is_new.set_result(is_new)


def map_in_threads(
    store: Store, function: Callable[[Store, ItemT], ResultT], items: Iterable[ItemT], key: Callable[[ItemT], str]
) -> Iterator[ResultT]:
    """Yield `function(store, item)` for each item, in order. In a store with paths, threads share their syncs.

    In a store that answers through a network, threads send several requests at one time.

    Args:
        store: The store. If it has neither paths nor a network, everything runs in this thread.
        function: The work for one item. It must use the store that it gets as argument.
        items: The items. They are taken from the iterator as they are needed, in this thread.
        key: Function that returns a name for each item. Items with equal names run one after the other.
    """
    if not store.supports_paths and store.parallel_requests == 1:
        for item in items:
            yield function(store, item)
        return
    from concurrent.futures import ThreadPoolExecutor

    shared = GroupCommitStore(store.path(RAW_DIR).parent) if store.supports_paths else store
    threads = _THREADS if store.supports_paths else store.parallel_requests
    running: deque[tuple[str, Future[ResultT]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                name = key(item)
                while len(running) >= 2 * threads or any(name == other for other, _ in running):
                    yield running.popleft()[1].result()
                running.append((name, pool.submit(function, shared, item)))
            while running:
                yield running.popleft()[1].result()
        finally:
            for _, future in running:
                future.cancel()
