"""Prefetching: threads read the next folders into the page cache while the caller works on the current one.

A disk answers several requests at once about as fast as one. The threads return no data: the caller reads the files
again, from the cache, and handles all errors. For a bucket, the next folders are always prefetched, because each
request waits for the network. The page cache does not contain objects of a bucket, so `Folder` keeps the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from llm_energy_measure.storage.folder import Folder

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

ItemT = TypeVar("ItemT")

# Items per task of a thread. The size is small, so that the first items are ready soon.
_BATCH_SIZE = 8

# Maximum number of batches that are being read or wait for the caller, and number of threads.
_MAX_BATCHES = 8
_THREADS = 2

# An item is a folder with several files. If they come from the disk and not from the page cache, the caller waits at
# least twice for the item. After four such items in a row, the next 128 items are prefetched. Then the waits are
# counted again, because threads make reading slower if the files are in the cache already.
_MIN_WAITS = 2
_WAITING_ITEMS = 4
_PREFETCHED_ITEMS = 128


def thread_wait_count() -> int:
    """Return how often this thread has waited so far (voluntary context switches); 0 if the system does not count."""
    try:
        from resource import RUSAGE_THREAD, getrusage  # not on every system
    except ImportError:
        return 0
    return getrusage(RUSAGE_THREAD).ru_nvcsw


def prefetch(
    folder: Folder,
    items: Iterable[ItemT],
    name_of: Callable[[ItemT], str | None],
    *,
    wait_count: Callable[[], int] = thread_wait_count,
) -> Generator[ItemT, None, None]:
    """Yield the items in order. Prefetch the folders of the next items if the caller waits for the disk.

    Close the generator before `folder`.

    Args:
        folder: The parent folder of the folders to prefetch.
        items: The items of the caller. Items are taken in advance only while prefetching.
        name_of: Function that returns the name of an item's folder, or None if the caller will not read it. The folder
            need not exist.
        wait_count: Function that returns how often the caller has waited so far.
    """
    if folder.store.parallel_requests > 1:
        yield from _prefetched_from_bucket(folder, items, name_of)
        return
    items = iter(items)
    before, waiting_items = wait_count(), 0
    for item in items:
        yield item
        now = wait_count()
        waiting_items = waiting_items + 1 if now - before >= _MIN_WAITS else 0
        before = now
        if waiting_items == _WAITING_ITEMS:
            yield from _prefetched(folder, islice(items, _PREFETCHED_ITEMS), name_of)
            before, waiting_items = wait_count(), 0


def _prefetched_from_bucket(
    folder: Folder, items: Iterable[ItemT], name_of: Callable[[ItemT], str | None]
) -> Iterator[ItemT]:
    """Yield the items in order, while requests for the next folders are in flight: at least one per thread."""
    waiting: deque[ItemT] = deque()
    for item in items:
        if (name := name_of(item)) is not None:
            folder.prefetch(name)
        waiting.append(item)
        if len(waiting) > folder.store.parallel_requests:
            yield waiting.popleft()
    yield from waiting


def _prefetched(folder: Folder, items: Iterator[ItemT], name_of: Callable[[ItemT], str | None]) -> Iterator[ItemT]:
    from concurrent.futures import ThreadPoolExecutor  # not needed if all files are in the cache

    pool = ThreadPoolExecutor(_THREADS)
    batches: deque[tuple[Future[None] | None, list[ItemT]]] = deque()
    try:
        while batch := list(islice(items, _BATCH_SIZE)):
            batches.append((_submit(pool, folder, [name_of(item) for item in batch]), batch))
            if len(batches) >= _MAX_BATCHES:
                yield from _next_batch(batches)
        while batches:
            yield from _next_batch(batches)
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: Executor, folder: Folder, names: list[str | None]) -> Future[None] | None:
    """Start prefetching the folders. Return None if no thread can start (the number of processes is limited)."""
    try:
        return pool.submit(_prefetch_all, folder, names)
    except RuntimeError:
        return None


def _next_batch(batches: deque[tuple[Future[None] | None, list[ItemT]]]) -> list[ItemT]:
    """Return the next items. Wait for their folders only if a thread has started to read them."""
    future, items = batches.popleft()
    if future is not None and not future.cancel():
        future.result()
    return items


def _prefetch_all(folder: Folder, names: list[str | None]) -> None:
    for name in names:
        if name is not None:
            folder.prefetch(name)
