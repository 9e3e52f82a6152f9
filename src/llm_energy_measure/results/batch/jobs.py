"""Batches of work, one after the other here or several at once in other processes; the results come in order."""

from __future__ import annotations

import os
from collections import deque
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal, TypeVar

from llm_energy_measure.exceptions import AggregationError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future

BatchT = TypeVar("BatchT")
ResultT = TypeVar("ResultT")

# Batches after which processes of our own pay for their start, where nobody said how many: about a second of work.
_BATCHES_THAT_PAY = 12

# Batches that wait for a worker, for each one at work: enough that none is idle, few enough that memory stays flat.
_AHEAD = 2

# Batches that are done and wait for an earlier one: as many as are done here until another process has started.
_MOST_DONE = 6


def run_batches(
    work: Callable[[BatchT], list[ResultT]],
    batches: Iterator[BatchT],
    *,
    jobs: int | Literal["auto"] | None = None,
    executor: Executor | None = None,
) -> Iterator[ResultT]:
    """What the work makes of each batch, in the order of the batches.

    Args:
        work: What to do with a batch; in other processes it has to be picklable, as do batches and results.
        batches: The batches, taken as they are needed.
        jobs: How many at once, at least 1, one of them here; by default only that one, or as many as there are
            processors for an executor, and none here. `auto` is one here while there are few, and one a processor
            for many.
        executor: Where they run; by default here, or in processes of our own.

    Raises:
        ConfigurationError: An impossible number of jobs.
        AggregationError: A worker ended before its work was done.
    """
    if jobs not in (None, "auto") and (type(jobs) is not int or jobs < 1):
        raise ConfigurationError("cannot run worker processes", f"jobs is {jobs!r}", "use 1 or more (--jobs N)")
    if executor is not None:
        with _telling_of_workers():
            yield from _submitted(executor, jobs if isinstance(jobs, int) else processors(), work, batches)
        return
    if jobs == "auto":
        first = list(islice(batches, _BATCHES_THAT_PAY))
        jobs = 1 if len(first) < _BATCHES_THAT_PAY else processors()
        batches = chain(first, batches)
    if jobs is None or jobs == 1:
        for batch in batches:
            yield from work(batch)
        return
    with _telling_of_workers(), ExitStack() as stack:
        pool = _processes(jobs - 1)
        stack.callback(pool.shutdown, cancel_futures=True)
        yield from _shared(pool, jobs - 1, work, batches)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _telling_of_workers() -> Iterator[None]:
    """Say in a sentence that a process ended under its work. Raises `AggregationError`."""
    from concurrent.futures import BrokenExecutor

    try:
        yield
    except BrokenExecutor as error:
        found = "a worker process ended early: it was killed, ran out of memory, or could not start"
        advice = "run the command again, if necessary with fewer workers (--jobs N); finished work is kept"
        raise AggregationError("cannot run worker processes", found, advice) from error


def _submitted(
    executor: Executor, jobs: int, work: Callable[[BatchT], list[ResultT]], batches: Iterator[BatchT]
) -> Iterator[ResultT]:
    waiting: deque[Future[list[ResultT]]] = deque()
    try:
        for batch in batches:
            waiting.append(executor.submit(work, batch))
            if len(waiting) >= jobs * _AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _shared(
    executor: Executor, others: int, work: Callable[[BatchT], list[ResultT]], batches: Iterator[BatchT]
) -> Iterator[ResultT]:
    """The others have as many batches as keep them busy, this process does the rest: nothing waits for their start."""
    waiting: deque[Future[list[ResultT]]] = deque()
    futures: list[Future[list[ResultT]]] = []
    try:
        for number, batch in enumerate(batches):
            futures = [future for future in futures if not future.done()]
            if number and len(futures) < others * _AHEAD:
                with _uninterrupted():
                    futures.append(executor.submit(work, batch))
                waiting.append(futures[-1])
            else:
                waiting.append(_done_here(work, batch))
            while waiting and (waiting[0].done() or len(waiting) > others * _AHEAD + _MOST_DONE):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        for future in futures:
            future.cancel()


def _done_here(work: Callable[[BatchT], list[ResultT]], batch: BatchT) -> Future[list[ResultT]]:
    """A batch that was done by this process; what it raised comes in its turn, after what was done before."""
    from concurrent.futures import Future

    future: Future[list[ResultT]] = Future()
    try:
        future.set_result(work(batch))
    except Exception as error:  # noqa: BLE001 - raised when its turn comes
        future.set_exception(error)
    return future


def _processes(jobs: int) -> Executor:
    # Imported late: what runs in one process does not pay for it.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_all_start_methods, get_context

    # Never plain fork: a lock that another thread holds at that instant would stay locked in the child.
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver, resource_tracker

        resource_tracker.ensure_running()  # first, since its start takes the mask away
        with _uninterrupted():
            forkserver.ensure_running()
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Start processes so that Ctrl-C, which reaches all that a terminal runs, is left to this one, and comes after."""
    import signal

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # asked first: what blocks can raise, for a signal before it
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is started inherits it
        yield
    finally:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)  # where another signal raises on the way there


def _end_with_parent() -> None:
    """End this worker when the process that started it is killed: it would wait for work, and hold pipes, for ever."""
    from multiprocessing import parent_process
    from threading import Thread

    parent = parent_process()
    assert parent is not None  # noqa: S101 - a worker has one

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
