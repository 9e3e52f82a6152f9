"""Run batches in this process, in worker processes or in an executor, and return the results in order."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal, TypeVar

from llm_energy_measure.exceptions import AggregationError, ConfigurationError

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

BatchT = TypeVar("BatchT")
ResultT = TypeVar("ResultT")

# With jobs="auto", workers start after this time of work in this process, if two more batches follow. Starting
# a worker takes about as long, so workers save no time if all work takes less time than this.
_WORKERS_AFTER_SEC = 0.5

# Batches per worker that run or wait in the queue: enough that no worker is idle, and few enough for little memory.
_BATCHES_PER_WORKER = 2

# Maximum number of finished batches that wait for an earlier batch: as many as this process can finish while a
# worker starts.
_MAX_FINISHED = 6


def run_batches(
    work: Callable[[BatchT], list[ResultT]],
    batches: Iterator[BatchT],
    *,
    jobs: int | Literal["auto"] | None = None,
    executor: Executor | None = None,
    names_of: Callable[[BatchT], set[str]] = lambda _: set(),
    workers_after_sec: float = _WORKERS_AFTER_SEC,
) -> Iterator[ResultT]:
    """Yield the results of each batch, in the order of the batches.

    Args:
        work: Function that returns the results of a batch. If other processes run the function, the function, the
            batches and the results must be picklable.
        batches: The batches. They are taken from the iterator as they are needed.
        jobs: Number of processes, at least 1, including this one; default 1. With an executor, the number of batches
            that run at the same time; default is the number of processors. `auto` begins with one process, and uses
            one per processor after `workers_after_sec`.
        executor: Runs all batches instead of this process and its workers.
        names_of: Function that returns a set of names for a batch, such as the folders that it changes. In an executor,
            two batches with a common name do not run at the same time: the later batch waits.
        workers_after_sec: Time of work in this process before `auto` starts workers, in seconds.

    Raises:
        ConfigurationError: The number of jobs is not valid.
        AggregationError: A worker ended before it had returned its results.
    """
    if jobs not in (None, "auto") and (type(jobs) is not int or jobs < 1):
        raise ConfigurationError("cannot run worker processes", f"jobs is {jobs!r}", "use 1 or more (--jobs N)")
    if executor is not None:
        with _explain_lost_workers():
            yield from _run_in(executor, jobs if isinstance(jobs, int) else _processor_count(), work, batches, names_of)
        return
    if jobs == "auto":
        jobs = _processor_count()
        if jobs > 1:
            yield from _run_for(workers_after_sec, work, batches)
            following = list(islice(batches, 2))
            jobs = jobs if len(following) == 2 else 1
            batches = chain(following, batches)
    if jobs is None or jobs == 1:
        for batch in batches:
            yield from work(batch)
        return
    with _explain_lost_workers(), ExitStack() as stack:
        workers = _start_workers(jobs - 1)
        stack.callback(workers.shutdown, cancel_futures=True)
        yield from _run_with(workers, jobs - 1, work, batches)


def _run_for(seconds: float, work: Callable[[BatchT], list[ResultT]], batches: Iterator[BatchT]) -> Iterator[ResultT]:
    """Run batches in this process until their work has taken `seconds`; the iterator keeps the other batches."""
    spent = 0.0
    for batch in batches:
        began = time.perf_counter()
        results = work(batch)
        spent += time.perf_counter() - began
        yield from results
        if spent >= seconds:
            return


def _processor_count() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _explain_lost_workers() -> Iterator[None]:
    """Raise `AggregationError` if a worker process ends early."""
    from concurrent.futures import BrokenExecutor

    try:
        yield
    except BrokenExecutor as error:
        found = "a worker process ended early: it was killed, ran out of memory, or could not start"
        advice = "run the command again, if necessary with fewer workers (--jobs N); finished work is kept"
        raise AggregationError("cannot run worker processes", found, advice) from error


def _run_in(
    executor: Executor,
    jobs: int,
    work: Callable[[BatchT], list[ResultT]],
    batches: Iterator[BatchT],
    names_of: Callable[[BatchT], set[str]],
) -> Iterator[ResultT]:
    """Run all batches in an executor."""
    waiting: deque[tuple[set[str], Future[list[ResultT]]]] = deque()
    try:
        for batch in batches:
            names = names_of(batch)
            while any(not names.isdisjoint(earlier) for earlier, _ in waiting):
                yield from waiting.popleft()[1].result()
            waiting.append((names, executor.submit(work, batch)))
            if len(waiting) >= jobs * _BATCHES_PER_WORKER:
                yield from waiting.popleft()[1].result()
        while waiting:
            yield from waiting.popleft()[1].result()
    finally:
        for _, future in waiting:
            future.cancel()


def _run_with(
    workers: Executor, count: int, work: Callable[[BatchT], list[ResultT]], batches: Iterator[BatchT]
) -> Iterator[ResultT]:
    """Run batches in workers and in this process. This process does not wait until the workers have started."""
    waiting: deque[Future[list[ResultT]]] = deque()
    futures: list[Future[list[ResultT]]] = []
    try:
        for number, batch in enumerate(batches):
            futures = [future for future in futures if not future.done()]
            if number and len(futures) < count * _BATCHES_PER_WORKER:
                with _block_interrupts():
                    futures.append(workers.submit(work, batch))
                waiting.append(futures[-1])
            else:
                waiting.append(_run_here(work, batch))
            while waiting and (waiting[0].done() or len(waiting) > count * _BATCHES_PER_WORKER + _MAX_FINISHED):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        for future in futures:
            future.cancel()


def _run_here(work: Callable[[BatchT], list[ResultT]], batch: BatchT) -> Future[list[ResultT]]:
    """Run a batch in this process. The future keeps an exception until the earlier results are returned."""
    from concurrent.futures import Future

    future: Future[list[ResultT]] = Future()
    try:
        future.set_result(work(batch))
    except Exception as error:  # noqa: BLE001 - `Future.result` raises it
        future.set_exception(error)
    return future


def _start_workers(count: int) -> Executor:
    # These imports take time, and work in one process does not need them.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_all_start_methods, get_context

    # Not "fork": if another thread holds a lock at that moment, the lock stays locked in the child.
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver, resource_tracker

        resource_tracker.ensure_running()  # before SIGINT is blocked: starting the tracker unblocks it
        with _block_interrupts():
            forkserver.ensure_running()
    return ProcessPoolExecutor(count, mp_context=context, initializer=_exit_with_parent)


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Block SIGINT while worker processes start, so that they inherit the mask and only this process handles Ctrl-C."""
    import signal

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # The mask is read first, because the call that blocks SIGINT can raise KeyboardInterrupt for an earlier signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)  # in case another signal interrupts the first call


def _exit_with_parent() -> None:
    """End this worker when its parent is killed. Otherwise the worker would wait and keep pipes open forever."""
    from multiprocessing import parent_process
    from threading import Thread

    parent = parent_process()
    assert parent is not None  # noqa: S101 - a worker has a parent

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
