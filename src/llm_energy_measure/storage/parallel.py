"""Parallel requests to a store in a network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.storage.base import Entry, Store, by_folder

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Answer = bytes | ResultsError
Fetched = tuple[list[Entry], dict[str, "Future[Answer]"]]
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")

# Maximum number of calls per thread that run, or whose result the caller has not used yet. Two keep all threads busy,
# and memory does not grow.
_AHEAD = 2

# The threads of `at_once`. They are kept, because starting three threads takes longer than four requests to a server on
# loopback. The process id is stored too, because a forked process inherits the pool without its threads. If two threads
# create a pool at the same time, both pools work.
_kept: tuple[int, ThreadPoolExecutor] | None = None


def at_once(store: Store, *calls: Callable[[], ResultT]) -> list[ResultT]:
    """Return the results of independent calls, in order. If the store is in a network, the calls run in parallel.

    Calls may run twice. A call must not use `at_once`: if all threads wait for inner calls, no inner call can start.

    Raises:
        ResultsError: The first error in the order of the calls. With threads, all calls have ended; without threads, no
            later call is made.
    """
    if store.parallel_requests == 1 or len(calls) < 2:
        return [call() for call in calls]
    from concurrent.futures import wait  # directories need no threads

    try:
        futures = [_kept_threads(store.parallel_requests).submit(call) for call in calls]
    except RuntimeError:  # no thread can start: the interpreter exits, or the number of processes is limited
        return [call() for call in calls]
    wait(futures)
    return [future.result() for future in futures]


def ahead(
    store: Store, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
) -> Generator[tuple[ItemT, ResultT], None, None]:
    """Yield each item and the result of the function, in order. For a store in a network, threads work ahead.

    The function must not use `at_once`. Close the generator first, and then the objects that the function uses.
    """
    if store.parallel_requests == 1:
        yield from ((item, function(item)) for item in items)
        return
    pool = _Threads(store.parallel_requests)
    waiting: deque[tuple[ItemT, Future[ResultT]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > store.parallel_requests * _AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        yield from ((item, future.result()) for item, future in waiting)
    finally:
        pool.close()


def _kept_threads(count: int) -> ThreadPoolExecutor:
    """Return the threads that this process keeps for `at_once`."""
    from concurrent.futures import ThreadPoolExecutor

    global _kept  # noqa: PLW0603 - all stores of a process share the threads
    kept = _kept
    if kept is None or kept[0] != os.getpid():
        _kept = kept = os.getpid(), ThreadPoolExecutor(count)
    return kept[1]


class _Threads:
    """Threads that make calls. If no thread can start, `submit` itself makes the call.

    Args:
        count: Maximum number of threads.
    """

    def __init__(self, count: int) -> None:
        from concurrent.futures import ThreadPoolExecutor  # directories need no threads

        self._pool = ThreadPoolExecutor(count)
        self._can_start = True
        self._is_closed = False

    def submit(self, function: Callable[..., ResultT], *arguments: object) -> Future[ResultT]:
        """Return the future of a call. The call may run twice. After `close`, the future is cancelled."""
        from concurrent.futures import Future

        if self._can_start:
            try:
                return self._pool.submit(function, *arguments)
            except RuntimeError:  # closed; or the interpreter exits, or the number of processes is limited
                self._can_start = False
        made = Future[ResultT]()
        if self._is_closed:
            made.cancel()
            return made
        try:
            made.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - `Future.result` raises it
            made.set_exception(error)
        return made

    def close(self) -> None:
        """End the threads. Calls that have not started are not made."""
        self._is_closed = True
        self._pool.shutdown(cancel_futures=True)


class ParallelReader:
    """Reads the values in the subfolders of a prefix.

    Args:
        store: The store. Several threads use it.
        prefix: The prefix.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        """Store the arguments; nothing is read."""
        self._store = store
        self._prefix = prefix
        self._pool: _Threads | None = None
        self._lock = Lock()
        self._fetched: dict[str, Future[Fetched]] = {}
        self._walked: dict[str, list[Entry]] | None = None
        self.listed: dict[str, list[Entry]] = {}
        """The entries of each subfolder by its name, as the last `read` listed them before it read values."""

    def close(self) -> None:
        """End the threads. Requests that have not started are not sent."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def prefetch(self, name: str) -> None:
        """Start to list a subfolder and to read its JSON values, which `read` then returns. Ignore errors."""
        self._fetched[name] = self._threads().submit(self._fetch, name)

    def _fetch(self, name: str) -> Fetched:
        entries = self._store.list(f"{self._prefix}/{name}")
        return entries, self._submit(name, entries, lambda file: file.endswith(".json"))

    def read(self, name: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Answer]]:
        """Yield each wanted value of a subfolder: its name, and its content or the error of reading it."""
        entries, futures = self._taken(name)
        self.listed[name] = entries
        names = {entry.name for entry in entries if wanted(entry.name) and not entry.is_folder}
        futures |= self._submit(name, entries, lambda file: file in names and file not in futures)
        for file in sorted(names):
            yield file, futures[file].result()

    def _taken(self, name: str) -> Fetched:
        """Return the entries and requests of `prefetch`. If it failed or was not called, list the subfolder now."""
        fetched = self._fetched.pop(name, None)
        if fetched is not None:
            with suppress(ResultsError):
                return fetched.result()
        return self._store.list(f"{self._prefix}/{name}"), {}

    def use_walked(self, below: dict[str, list[Entry]]) -> None:
        """Store the entries of all subfolders, which the caller has listed, for `walked`."""
        self._walked = below

    def walked(self, name: str) -> list[Entry]:
        """Return the entries of a subfolder. The first call lists the whole prefix; later calls use this listing."""
        with self._lock:
            if self._walked is None:
                self._walked = by_folder(self._store.walk(self._prefix))
            return self._walked.get(name, [])

    def _submit(self, name: str, entries: list[Entry], wanted: Callable[[str], bool]) -> dict[str, Future[Answer]]:
        threads = self._threads()
        keys = {entry.name: f"{self._prefix}/{name}/{entry.name}" for entry in entries if not entry.is_folder}
        return {file: threads.submit(self._get, key) for file, key in keys.items() if wanted(file)}

    def _threads(self) -> _Threads:
        with self._lock:
            if self._pool is None:
                self._pool = _Threads(self._store.parallel_requests)
            return self._pool

    def _get(self, key: str) -> Answer:
        try:
            return self._store.get(key)
        except ResultsError as error:
            return error
