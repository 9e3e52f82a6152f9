"""Counts of tokens, and the instants at which the output tokens of each request arrive."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import NamedTuple, Self

from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.latency_samples import RequestLatencies


class TokenCounts(NamedTuple):
    """Tokens up to an instant.

    Attributes:
        input: Prompt tokens from `add_tokens` and from requests that state their prompt tokens.
        output: Generated tokens from `add_tokens`.
        streamed: Generated tokens of requests that do not state their prompt tokens. `add_tokens` may count them too.
        requested: Generated tokens of requests that state their prompt tokens.
    """

    input: int = 0
    output: int = 0
    streamed: int = 0
    requested: int = 0

    def generated(self, run: TokenCounts) -> int:
        """Return `requested` + `output`, or `requested` + `streamed` if `streamed` exceeds `output` in the whole run.

        `output` and `streamed` can count the same tokens. If a program calls `add_tokens` at the end of each request,
        `output` does not contain the tokens of cancelled requests.
        """
        return self.requested + (self.output if run.output >= run.streamed else self.streamed)

    def plus_difference(self, later: TokenCounts, earlier: TokenCounts) -> TokenCounts:
        """Return these tokens plus the tokens between two instants."""
        return TokenCounts(*(own + end - start for own, end, start in zip(self, later, earlier, strict=True)))


class Request:
    """One request, from the moment it is sent to its last token. Several requests may run at the same time.

    The arrival times of its tokens give the latencies. Each token counts when it arrives, so that no token is lost if
    the request fails or if the run ends first. If the request states its prompt tokens, all its tokens are added to the
    tokens of the process. Otherwise `add_tokens` can count the same tokens, and the greater number is used. A token
    that arrives outside the block of the request has no latency; the record contains the number of these tokens.

    Args:
        counter: The counter of the process.
        now: A monotonic clock, in seconds.
        is_warmup: Whether the latencies of this request are left out.
        input_tokens: Prompt tokens of this request; None if `add_tokens` counts its tokens.

    Attributes:
        sent: When the request was sent, in seconds on the clock `now`.
        token_times: When each token arrived, in seconds on the same clock.
    """

    __slots__ = ("_append", "_counter", "_now", "_was_sent", "input_tokens", "is_warmup", "sent", "token_times")

    def __init__(
        self, counter: TokenCounter, now: Callable[[], float], *, is_warmup: bool, input_tokens: int | None = None
    ) -> None:
        self._counter = counter
        self._now = now
        self.is_warmup = is_warmup
        self.input_tokens = None if input_tokens is None else _token_number(input_tokens, "input tokens")
        self.token_times: list[float] = []
        self._append: Callable[[float], None] = self._count_outside
        self._was_sent = False
        self.sent = 0.0

    def __enter__(self) -> Self:
        if self._was_sent:
            raise RecorderError("cannot measure a request", "it was sent before", "create another one: run.request()")
        self._was_sent = True
        self._append = self.token_times.append
        self.sent = self._now()
        self._counter.begin_request(self)
        return self

    def __exit__(self, *_: object) -> None:
        """End the request. A failed request keeps the tokens that arrived."""
        self._append = self._count_outside
        self._counter.end_request(self)

    def _count_outside(self, _time: float) -> None:
        self._counter.count_outside()

    def token(self, count: int = 1) -> None:
        """Record that output tokens arrive now.

        Args:
            count: Number of tokens, 0 or more. Tokens of one call have a gap of 0 ms between them.
        """
        if count == 1:
            self._append(self._now())
        else:
            now = self._now()
            for _ in range(_token_number(count, "tokens of a request")):
                self._append(now)


class TokenCounter:
    """Counts the tokens and requests of one process. All methods are thread-safe."""

    def __init__(self) -> None:
        # Reentrant: a signal handler reads the counts in the main thread, which may be counting.
        self._lock = threading.RLock()
        self._input = 0
        self._output = 0
        self._outside = 0
        self._streamed = 0  # tokens of ended requests
        self._requested = 0
        self._ended = RequestLatencies()
        self._open: dict[Request, None] = {}

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """Count prompt tokens and generated tokens, each 0 or more."""
        # This is called for each batch of the measured program. The common case, two plain ints, skips the conversion.
        if type(input_tokens) is not int or input_tokens < 0:
            input_tokens = _token_number(input_tokens, "input tokens")
        if type(output_tokens) is not int or output_tokens < 0:
            output_tokens = _token_number(output_tokens, "output tokens")
        with self._lock:
            self._input += input_tokens
            self._output += output_tokens

    def disable_in_child(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may hold the old lock."""
        self._lock = threading.RLock()

    def begin_request(self, request: Request) -> None:
        """Count a request that was sent, and its tokens from now on."""
        with self._lock:
            self._input += request.input_tokens or 0
            self._open[request] = None

    def end_request(self, request: Request) -> None:
        """Add the tokens and the latencies of a request that has ended."""
        with self._lock:
            self._ended.add(request.sent, request.token_times, is_warmup=request.is_warmup)
            if request.input_tokens is None:
                self._streamed += len(request.token_times)
            else:
                self._requested += len(request.token_times)
            del self._open[request]

    def count_outside(self) -> None:
        """Count a token that arrived outside the block of its request."""
        with self._lock:
            self._outside += 1

    def warnings(self) -> list[str]:
        """Return the warnings about the counts, one sentence each, for the record."""
        counts, texts = self.counts, []
        if sum(counts) and not counts.input:
            texts.append("no prompt tokens were counted: input_tokens is 0, and total_tokens has output tokens only")
        if self._outside:
            texts.append(f"{self._outside} tokens arrived outside the block of their request and have no latency")
        return texts

    @property
    def counts(self) -> TokenCounts:
        """Tokens so far."""
        with self._lock:
            streamed, requested = self._streamed, self._requested
            for request in self._open:
                if request.input_tokens is None:
                    streamed += len(request.token_times)
                else:
                    requested += len(request.token_times)
            return TokenCounts(self._input, self._output, streamed, requested)

    def latencies(self) -> LatencyMeasurements | None:
        """Return the latencies of all requests so far; None if there was no request."""
        with self._lock:
            latencies, open_requests = self._ended.copy(), list(self._open)
        # This loop runs without the lock, so that measured threads do not wait. The list also
        # keeps requests that end during the loop.
        for request in open_requests:
            # A copy, because another thread may append a time.
            latencies.add(request.sent, request.token_times.copy(), is_warmup=request.is_warmup)
        return latencies.measurements() if latencies.requests or latencies.warmup_requests else None


def _token_number(count: int, what: str) -> int:
    try:
        number = operator.index(count)
    except TypeError:
        number = -1
    if number < 0:
        raise ConfigurationError(
            f"cannot count {what}", f"{count!r} is not a number of tokens", "give a whole number, 0 or more"
        )
    return number
