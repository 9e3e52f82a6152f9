"""Tests of batches: each batch runs once and in order, with any number of processes."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import AggregationError
from llm_energy_measure.results.batch.jobs import run_batches

if TYPE_CHECKING:
    from collections.abc import Iterator


def doubled(batch: list[int]) -> list[int]:
    return [2 * number for number in batch]


def refused(batch: list[int]) -> list[int]:
    if 3 in batch:
        raise ValueError(batch)
    return batch


@pytest.mark.parametrize("number", [0, 1, 11, 12, 13, 14, 40])
@pytest.mark.parametrize(
    "how",
    [
        *({}, {"jobs": 1}, {"jobs": 2}, {"executor": ThreadPoolExecutor(3)}),
        *({"jobs": "auto"}, {"jobs": "auto", "workers_after_sec": 0}),
    ],
)
def test_each_batch_runs_once_and_in_order(number: int, how: dict[str, Any]) -> None:
    batches = ([first, first + 1] for first in range(0, 2 * number, 2))
    assert list(run_batches(doubled, batches, **how)) == [2 * value for value in range(2 * number)]


def pid_of(_: list[int]) -> list[int]:
    time.sleep(0.02)
    return [os.getpid()]


@pytest.mark.parametrize(("number", "seconds"), [(30, 3600.0), (2, 0.0)])
def test_short_work_starts_no_workers(number: int, seconds: float) -> None:
    batches = ([batch] for batch in range(number))
    found = list(run_batches(pid_of, batches, jobs="auto", workers_after_sec=seconds))
    assert found == [os.getpid()] * number


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_longer_work_starts_workers() -> None:
    found = list(run_batches(pid_of, ([batch] for batch in range(200)), jobs="auto", workers_after_sec=0.1))
    assert found[:4] == [os.getpid()] * 4
    assert len(set(found)) > 1


def test_batches_are_taken_lazily() -> None:
    taken = []

    def batches() -> Iterator[list[int]]:
        for number in range(100):
            taken.append(number)
            yield [number]

    with ThreadPoolExecutor(2) as threads:
        results = run_batches(doubled, batches(), jobs=2, executor=threads)
        assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
        assert len(taken) <= 10, "no more than are at work and in front of them"


def killed(batch: list[int]) -> list[int]:
    if 3 in batch:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


@pytest.mark.parametrize("start", [None, "spawn", "forkserver"])
def test_killed_worker_is_reported(start: str | None) -> None:
    executor = None if start is None else ProcessPoolExecutor(2, mp_context=get_context(start))
    with pytest.raises(AggregationError, match="a worker process ended early.*finished work is kept"):
        list(run_batches(killed, iter([[1], [2], [3], [4]]), jobs=2, executor=executor))
    if executor is not None:
        executor.shutdown()


@pytest.mark.parametrize("how", [{}, {"jobs": 2}, {"executor": ThreadPoolExecutor(2)}])
def test_exception_of_the_work_is_raised(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\[3\]"):
        list(run_batches(refused, iter([[1], [2], [3], [4]]), **how))


def test_interrupt_before_the_block_leaves_sigint_unblocked(monkeypatch: pytest.MonkeyPatch) -> None:
    real = signal.pthread_sigmask

    def interrupted(how: int, mask: set[int]) -> object:
        before = real(how, mask)
        if how == signal.SIG_BLOCK and mask == {signal.SIGINT}:
            raise KeyboardInterrupt  # for a signal that arrived before the call
        return before

    monkeypatch.setattr(signal, "pthread_sigmask", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_batches(doubled, ([number] for number in range(20)), jobs=2))
        assert signal.SIGINT not in real(signal.SIG_BLOCK, set())
    finally:
        real(signal.SIG_UNBLOCK, {signal.SIGINT})


@pytest.mark.parametrize("how", [{}, {"jobs": 2}, {"executor": ThreadPoolExecutor(2)}])
def test_finished_batches_come_before_the_exception(how: dict[str, Any]) -> None:
    results = run_batches(refused, iter([[1], [2], [4], [3], [5]]), **how)
    assert list(islice(results, 3)) == [1, 2, 4]
    with pytest.raises(ValueError, match=r"\[3\]"):
        next(results)
