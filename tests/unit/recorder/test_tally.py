"""Tokens and the latencies of requests, from any number of threads and tasks."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.tally import Counts, Request, Tally
from tests.support.replay import ManualClock


def test_ttft_and_gaps_of_a_request() -> None:
    tally, clock = Tally(), ManualClock()
    with Request(tally, clock.monotonic, is_warmup=False) as request:
        for pause_sec in (0.25, 0.01, 0.02, 0.03):
            clock.now += pause_sec
            request.token()
    latencies = tally.latencies()
    assert latencies is not None
    assert latencies.ttft_ms == [250.0]
    assert latencies.itl_full_ms == [10.0, 20.0, 30.0]
    assert latencies.itl_trimmed_ms == [20.0]
    assert (latencies.request_count, latencies.total_output_tokens, latencies.excluded_tokens) == (1, 4, 2)


def test_tokens_that_come_together_have_no_time_between_them() -> None:
    tally, clock = Tally(), ManualClock()
    with Request(tally, clock.monotonic, is_warmup=False) as request:
        clock.now += 0.5
        request.token(3)
        clock.now += 0.5
        request.token(0)
        request.token(np.int64(1))  # type: ignore[arg-type]  # what frameworks count with
    latencies = tally.latencies()
    assert latencies is not None
    assert latencies.itl_full_ms == [0.0, 0.0, 500.0]


def test_a_request_without_a_token_has_no_latency() -> None:
    tally = Tally()
    with Request(tally, ManualClock().monotonic, is_warmup=False):
        pass
    latencies = tally.latencies()
    assert latencies is not None
    assert (latencies.request_count, latencies.ttft_ms, latencies.itl_full_ms) == (1, [], [])
    assert tally.counts == Counts()


def test_a_request_that_fails_keeps_the_tokens_that_came() -> None:
    tally, clock = Tally(), ManualClock()

    def block(request: Request) -> None:
        clock.now += 0.5
        request.token()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Request(tally, clock.monotonic, is_warmup=False) as request:
        block(request)
    latencies = tally.latencies()
    assert latencies is not None
    assert latencies.ttft_ms == [500.0]


def test_warm_up_requests_are_counted_and_left_out() -> None:
    tally, clock = Tally(), ManualClock()
    with Request(tally, clock.monotonic, is_warmup=True) as request:
        request.token()
        request.token()
    latencies = tally.latencies()
    assert latencies is not None
    assert (latencies.request_count, latencies.warmup_requests_excluded, latencies.ttft_ms) == (0, 1, [])
    assert tally.counts.stamped == 2


def test_the_tokens_of_a_request_count_as_they_come() -> None:
    tally, clock = Tally(), ManualClock()
    with Request(tally, clock.monotonic, is_warmup=False) as request:
        clock.now += 0.25
        request.token()
        clock.now += 0.01
        request.token()
        assert tally.counts == Counts(stamped=2)
        under_way = tally.latencies()
        assert under_way is not None
        assert (under_way.ttft_ms, under_way.itl_full_ms, under_way.request_count) == ([250.0], [10.0], 1)
    assert tally.counts == Counts(stamped=2)
    assert tally.latencies() == under_way


def test_a_request_is_sent_once() -> None:
    request = Request(Tally(), ManualClock().monotonic, is_warmup=False)
    with request, pytest.raises(RecorderError, match="it was sent before; make a new one"), request:
        pass


def test_tokens_outside_of_the_block_are_told_and_have_no_latency() -> None:
    tally, clock = Tally(), ManualClock()
    tally.add(1, 1)
    request = Request(tally, clock.monotonic, is_warmup=False)
    request.token()
    with request:
        clock.now += 0.25
        request.token()
    assert tally.warnings() == [
        "tokens that came outside the block of their request, and have no latency: 1",
    ]
    clock.now += 1.0
    request.token(2)
    latencies = tally.latencies()
    assert latencies is not None
    assert (latencies.ttft_ms, latencies.itl_full_ms) == ([250.0], [])
    assert tally.counts == Counts(1, 1, 1)
    assert tally.warnings()[-1].endswith(": 3")


def test_nothing_counted_is_no_latency() -> None:
    assert Tally().latencies() is None


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", None])
def test_what_is_no_number_of_tokens_is_refused(wrong: int) -> None:
    tally = Tally()
    with pytest.raises(ConfigurationError, match="is no number of tokens"):
        tally.add(wrong, 0)
    with pytest.raises(ConfigurationError, match="is no number of tokens"):
        tally.add(1, wrong)
    assert tally.counts == Counts()


def test_threads_lose_no_token() -> None:
    tally, clock = Tally(), ManualClock()

    def work() -> None:
        for _ in range(500):
            tally.add(2, 1)
            with Request(tally, clock.monotonic, is_warmup=False) as request:
                request.token()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latencies = tally.latencies()
    assert latencies is not None
    assert tally.counts == Counts(8_000, 4_000, 4_000)
    assert latencies.request_count == 4_000


def test_many_requests_at_once_keep_their_own_latencies() -> None:
    tally, clock = Tally(), ManualClock()

    async def answer(tick: asyncio.Event, tokens: int) -> None:
        with Request(tally, clock.monotonic, is_warmup=False) as request:
            await tick.wait()
            for _ in range(tokens):
                request.token()
                await asyncio.sleep(0)

    async def serve() -> None:
        ticks = [asyncio.Event() for _ in range(3)]
        tasks = [asyncio.create_task(answer(tick, index + 1)) for index, tick in enumerate(ticks)]
        await asyncio.sleep(0)
        for tick in ticks:
            clock.now += 1.0
            tick.set()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(serve())
    latencies = tally.latencies()
    assert latencies is not None
    assert sorted(latencies.ttft_ms) == [1000.0, 2000.0, 3000.0]
    assert latencies.total_output_tokens == 6
