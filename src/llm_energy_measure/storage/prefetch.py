"""Folders that will be looked into soon, brought from the disk into the system's cache meanwhile.

A disk answers several questions at once about as fast as one, and who reads file by file asks one at a time, and has no
question at all while he works with the answer. Threads that ask the next questions are all that it takes. They hand
nothing on: what they read is read again, from the cache, by whoever reads in earnest, and says what is wrong with it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Executor, Future

    from llm_energy_measure.storage.folder import Folder

ItemT = TypeVar("ItemT")

# Items whose folders are brought at a time: few, so that the first are there soon; each time, threads take turns.
_TOGETHER = 8

# How many of those are on their way or wait to be used, and how many threads bring them.
_AHEAD = 8
_READERS = 2

# An item comes from the disk if it was waited for more than once, as a folder has several files; so many in a row
# are no chance, and after so many one looks again: what is in the cache is slower with threads than without.
_WAITS = 2
_IN_A_ROW = 4
_BETWEEN_LOOKS = 128


def thread_wait_count() -> int:
    """How often this thread has waited for anything, so far; 0 where the system does not count that."""
    try:
        from resource import RUSAGE_THREAD, getrusage
    except ImportError:
        return 0
    return getrusage(RUSAGE_THREAD).ru_nvcsw


def prefetch(
    folder: Folder,
    items: Iterable[ItemT],
    name_of: Callable[[ItemT], str | None],
    *,
    waits: Callable[[], int] = thread_wait_count,
) -> Generator[ItemT, None, None]:
    """The items, each when it is its turn; the folders of the next are read meanwhile, where that pays.

    Whether it pays the first few show: whoever does not wait for them has them in the cache already, and threads would
    only be in the way. To be closed before the folder is.

    Args:
        folder: The folder in which theirs are.
        items: What is worked on; taken some ahead only where that pays.
        name_of: The name of an item's folder, which need not be there; None if nothing will be read.
        waits: How often whoever works on them has waited so far.
    """
    items = iter(items)
    before, in_a_row = waits(), 0
    for item in items:
        yield item
        now = waits()
        in_a_row = in_a_row + 1 if now - before >= _WAITS else 0
        before = now
        if in_a_row == _IN_A_ROW:
            yield from _brought(folder, islice(items, _BETWEEN_LOOKS), name_of)
            before, in_a_row = waits(), 0


def _brought(folder: Folder, items: Iterator[ItemT], name_of: Callable[[ItemT], str | None]) -> Iterator[ItemT]:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(_READERS)
    waiting: deque[tuple[Future[None] | None, list[ItemT]]] = deque()
    try:
        while some := list(islice(items, _TOGETHER)):
            waiting.append((_submitted(pool, folder, [name_of(item) for item in some]), some))
            if len(waiting) >= _AHEAD:
                yield from _next_of(waiting)
        while waiting:
            yield from _next_of(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: Executor, folder: Folder, names: list[str | None]) -> Future[None] | None:
    """The folders on their way; None where no thread is to be had, as under a limit of processes."""
    try:
        return pool.submit(_bring, folder, names)
    except RuntimeError:
        return None


def _next_of(waiting: deque[tuple[Future[None] | None, list[ItemT]]]) -> list[ItemT]:
    """The next items, brought, unless nobody has begun with them: then nobody need."""
    future, items = waiting.popleft()
    if future is not None and not future.cancel():
        future.result()
    return items


def _bring(folder: Folder, names: list[str | None]) -> None:
    for name in names:
        if name is not None:
            folder.prefetch(name)
