"""Reads of many values from a store that answers through a network: several requests are in flight at one time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING

from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.storage.base import Entry, Store

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Answer = bytes | ResultsError


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
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()
        self._fetched: dict[str, tuple[list[Entry], dict[str, Future[Answer]]]] = {}
        self._walked: dict[str, list[Entry]] | None = None
        self.listed: dict[str, list[Entry]] = {}
        """The entries of each subfolder, listed before the last `read` read its values."""

    def close(self) -> None:
        """End the threads. Requests that have not started are not sent."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def prefetch(self, name: str) -> None:
        """Start to read the JSON values of a subfolder, which `read` then returns. Ignore errors."""
        try:
            entries = self._store.list(f"{self._prefix}/{name}")
        except ResultsError:
            return  # `read` reports it
        self._fetched[name] = entries, self._submit(name, entries, lambda file: file.endswith(".json"))

    def read(self, name: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Answer]]:
        """Yield each wanted value of a subfolder: its name, and its content or the error of reading it."""
        entries, futures = self._fetched.pop(name, (None, {}))
        if entries is None:
            entries = self._store.list(f"{self._prefix}/{name}")
        self.listed[name] = entries
        names = {entry.name for entry in entries if wanted(entry.name) and not entry.is_folder}
        futures |= self._submit(name, entries, lambda file: file in names and file not in futures)
        for file in sorted(names):
            yield file, futures[file].result()

    def walked(self, name: str) -> list[Entry]:
        """Return the entries of a subfolder at the time of the first call, which lists the whole prefix at once."""
        if self._walked is None:
            self._walked = {}
            for entry in self._store.walk(self._prefix):
                folder, _, rest = entry.name.partition("/")
                self._walked.setdefault(folder, []).append(entry._replace(name=rest))
        return self._walked.get(name, [])

    def _submit(self, name: str, entries: list[Entry], wanted: Callable[[str], bool]) -> dict[str, Future[Answer]]:
        from concurrent.futures import ThreadPoolExecutor  # directories need no threads

        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._store.parallel_requests)
            pool = self._pool
        keys = {entry.name: f"{self._prefix}/{name}/{entry.name}" for entry in entries if not entry.is_folder}
        return {file: pool.submit(self._get, key) for file, key in keys.items() if wanted(file)}

    def _get(self, key: str) -> Answer:
        try:
            return self._store.get(key)
        except ResultsError as error:
            return error
