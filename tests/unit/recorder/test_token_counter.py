"""Token counts and latencies of requests in threads and asyncio tasks."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.token_counter import Request, TokenCounter, TokenCounts
from tests.support.replay import ManualClock


def test_request_gives_ttft_and_gaps_between_tokens() -> None:
    counter, clock = TokenCounter(), ManualClock()
    with Request(counter, clock.monotonic, is_warmup=False) as request:
        for pause_sec in (0.25, 0.01, 0.02, 0.03):
            clock.now += pause_sec
            request.token()
    latencies = counter.latencies()
    assert latencies is not None
    assert latencies.ttft_ms == [250.0]
    assert latencies.itl_full_ms == [10.0, 20.0, 30.0]
    assert latencies.itl_trimmed_ms == [20.0]
    assert (latencies.request_count, latencies.total_output_tokens, latencies.excluded_tokens) == (1, 4, 2)


def test_tokens_of_one_call_have_zero_gaps() -> None:
    counter, clock = TokenCounter(), ManualClock()
    with Request(counter, clock.monotonic, is_warmup=False) as request:
        clock.now += 0.5
        request.token(3)
        clock.now += 0.5
        request.token(0)
        request.token(np.int64(1))  # type: ignore[arg-type]  # frameworks return NumPy integers
    latencies = counter.latencies()
    assert latencies is not None
    assert latencies.itl_full_ms == [0.0, 0.0, 500.0]


def test_request_without_tokens_has_no_latencies() -> None:
    counter = TokenCounter()
    with Request(counter, ManualClock().monotonic, is_warmup=False):
        pass
    latencies = counter.latencies()
    assert latencies is not None
    assert (latencies.request_count, latencies.ttft_ms, latencies.itl_full_ms) == (1, [], [])
    assert counter.counts == TokenCounts()


def test_failed_request_keeps_its_tokens() -> None:
    counter, clock = TokenCounter(), ManualClock()

    def block(request: Request) -> None:
        clock.now += 0.5
        request.token()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Request(counter, clock.monotonic, is_warmup=False) as request:
        block(request)
    latencies = counter.latencies()
    assert latencies is not None
    assert latencies.ttft_ms == [500.0]


def test_warmup_requests_are_left_out_of_latencies() -> None:
    counter, clock = TokenCounter(), ManualClock()
    with Request(counter, clock.monotonic, is_warmup=True) as request:
        request.token()
        request.token()
    latencies = counter.latencies()
    assert latencies is not None
    assert (latencies.request_count, latencies.warmup_requests_excluded, latencies.ttft_ms) == (0, 1, [])
    assert counter.counts.streamed == 2


def test_tokens_of_a_request_count_when_they_arrive() -> None:
    counter, clock = TokenCounter(), ManualClock()
    with Request(counter, clock.monotonic, is_warmup=False) as request:
        clock.now += 0.25
        request.token()
        clock.now += 0.01
        request.token()
        assert counter.counts == TokenCounts(streamed=2)
        so_far = counter.latencies()
        assert so_far is not None
        assert (so_far.ttft_ms, so_far.itl_full_ms, so_far.request_count) == ([250.0], [10.0], 1)
    assert counter.counts == TokenCounts(streamed=2)
    assert counter.latencies() == so_far


def test_request_can_be_sent_once() -> None:
    request = Request(TokenCounter(), ManualClock().monotonic, is_warmup=False)
    with request, pytest.raises(RecorderError, match="it was sent before; create another one"), request:
        pass


def test_tokens_outside_the_block_have_no_latency() -> None:
    counter, clock = TokenCounter(), ManualClock()
    counter.add(1, 1)
    request = Request(counter, clock.monotonic, is_warmup=False)
    request.token()
    with request:
        clock.now += 0.25
        request.token()
    assert counter.warnings() == [
        "1 tokens arrived outside the block of their request and have no latency",
    ]
    clock.now += 1.0
    request.token(2)
    latencies = counter.latencies()
    assert latencies is not None
    assert (latencies.ttft_ms, latencies.itl_full_ms) == ([250.0], [])
    assert counter.counts == TokenCounts(1, 1, 1)
    assert counter.warnings()[-1].startswith("3 tokens arrived outside")


def test_no_requests_give_no_latencies() -> None:
    assert TokenCounter().latencies() is None


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", None])
def test_wrong_number_of_tokens_is_refused(wrong: int) -> None:
    counter = TokenCounter()
    with pytest.raises(ConfigurationError, match="is not a number of tokens"):
        counter.add(wrong, 0)
    with pytest.raises(ConfigurationError, match="is not a number of tokens"):
        counter.add(1, wrong)
    assert counter.counts == TokenCounts()


def test_threads_lose_no_tokens() -> None:
    counter, clock = TokenCounter(), ManualClock()

    def work() -> None:
        for _ in range(500):
            counter.add(2, 1)
            with Request(counter, clock.monotonic, is_warmup=False) as request:
                request.token()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latencies = counter.latencies()
    assert latencies is not None
    assert counter.counts == TokenCounts(8_000, 4_000, 4_000)
    assert latencies.request_count == 4_000


def test_simultaneous_requests_have_separate_latencies() -> None:
    counter, clock = TokenCounter(), ManualClock()

    async def answer(tick: asyncio.Event, tokens: int) -> None:
        with Request(counter, clock.monotonic, is_warmup=False) as request:
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
    latencies = counter.latencies()
    assert latencies is not None
    assert sorted(latencies.ttft_ms) == [1000.0, 2000.0, 3000.0]
    assert latencies.total_output_tokens == 6


def test_request_with_prompt_tokens_counts_all_its_tokens() -> None:
    counter, clock = TokenCounter(), ManualClock()
    counter.add(100, 50)
    with Request(counter, clock.monotonic, is_warmup=False, input_tokens=7) as request:
        request.token(3)
        assert counter.counts == TokenCounts(107, 50, 0, 3)
    assert counter.counts.generated(counter.counts) == 53


def test_cancelled_requests_count_beyond_add_tokens() -> None:
    counter, clock = TokenCounter(), ManualClock()
    for index in range(3):
        with Request(counter, clock.monotonic, is_warmup=False) as request:
            request.token(10)
        if index < 2:  # the third request is cancelled before the program counts its tokens
            counter.add(4, 10)
    assert counter.counts == TokenCounts(8, 20, 30)
    assert counter.counts.generated(counter.counts) == 30


def test_wrong_number_of_prompt_tokens_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot count input tokens: -1"):
        Request(TokenCounter(), ManualClock().monotonic, is_warmup=False, input_tokens=-1)
