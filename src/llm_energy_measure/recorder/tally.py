"""What a process counts while it works: tokens, and the instants at which the tokens of each request came."""

from __future__ import annotations

import operator
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Counts(NamedTuple):
    """Tokens up to an instant: counted prompt and generated tokens, and tokens that requests saw come."""

    input: int = 0
    output: int = 0
    stamped: int = 0

    def generated(self, whole: Counts) -> int:
        """Generated tokens: those counted or, where in the whole run nobody counted any, those that requests saw."""
        return self.output if whole.output else self.stamped

    def less(self, earlier: Counts) -> Counts:
        """What was counted since an earlier instant."""
        return Counts(self.input - earlier.input, self.output - earlier.output, self.stamped - earlier.stamped)

    def plus(self, more: Counts) -> Counts:
        """Both together."""
        return Counts(self.input + more.input, self.output + more.output, self.stamped + more.stamped)


class Request:
    """One request, from when it was sent to its last token. Any number can be under way, in threads or tasks.

    Its tokens give latencies and are not added to the process's tokens; `add_tokens` counts those.

    Args:
        tally: Where it is counted when it ends.
        now: The clock, in seconds.
        is_warmup: Whether its latencies are left out.
    """

    __slots__ = ("_append", "_is_warmup", "_now", "_sent", "_stamps", "_tally")

    def __init__(self, tally: Tally, now: Callable[[], float], *, is_warmup: bool) -> None:
        """Prepare it; it is sent when its block begins."""
        self._tally = tally
        self._now = now
        self._is_warmup = is_warmup
        self._stamps: list[float] = []
        self._append = self._stamps.append
        self._sent = 0.0

    def __enter__(self) -> Self:
        """Send it now."""
        self._sent = self._now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count it, also if it failed: the tokens that came, came."""
        self._tally.add_request(self._sent, self._stamps, is_warmup=self._is_warmup)

    def token(self, count: int = 1) -> None:
        """Output tokens came now.

        Args:
            count: How many, at least 1; those that come together have no time between them.
        """
        if count == 1:
            self._append(self._now())
        else:
            self._stamps.extend([self._now()] * _whole(count, "tokens of a request"))


class Tally:
    """The counts of one process. Every method can be called from any thread."""

    def __init__(self) -> None:
        """Begin at zero."""
        # Reentrant: the handler of a signal takes what was counted while the main thread may be counting.
        self._lock = threading.RLock()
        self._input = 0
        self._output = 0
        self._requests = 0
        self._warmup_requests = 0
        self._stamped = 0
        self._ttft_ms: list[float] = []
        self._full_ms: list[float] = []
        self._trimmed_ms: list[float] = []

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """Count prompt tokens and generated tokens, each 0 or more."""
        # Each call costs the run: what is a plain count is not looked at twice.
        if type(input_tokens) is not int or input_tokens < 0:
            input_tokens = _whole(input_tokens, "input tokens")
        if type(output_tokens) is not int or output_tokens < 0:
            output_tokens = _whole(output_tokens, "output tokens")
        with self._lock:
            self._input += input_tokens
            self._output += output_tokens

    def add_request(self, sent: float, stamps: list[float], *, is_warmup: bool) -> None:
        """Count a request that has ended.

        Args:
            sent: When it was sent, in seconds.
            stamps: When each of its tokens came, in seconds on the same clock.
            is_warmup: Whether its latencies are left out.
        """
        # To the nanosecond, which is what the clock tells.
        gaps_ms = [round((later - earlier) * 1e3, 6) for earlier, later in pairwise(stamps)]
        with self._lock:
            self._stamped += len(stamps)
            if is_warmup:
                self._warmup_requests += 1
                return
            self._requests += 1
            if stamps:
                self._ttft_ms.append(round((stamps[0] - sent) * 1e3, 6))
            self._full_ms += gaps_ms
            self._trimmed_ms += gaps_ms[1:-1]

    @property
    def counts(self) -> Counts:
        """Tokens so far."""
        with self._lock:
            return Counts(self._input, self._output, self._stamped)

    def latencies(self) -> LatencyMeasurements | None:
        """The latencies of the requests that have ended; None if there was none."""
        with self._lock:
            if not self._requests and not self._warmup_requests:
                return None
            return LatencyMeasurements(
                ttft_ms=list(self._ttft_ms),
                itl_full_ms=list(self._full_ms),
                itl_trimmed_ms=list(self._trimmed_ms),
                request_count=self._requests,
                total_output_tokens=len(self._ttft_ms) + len(self._full_ms),
                excluded_tokens=len(self._full_ms) - len(self._trimmed_ms),
                streaming_mode=True,
                warmup_requests_excluded=self._warmup_requests,
            )


def _whole(count: int, what: str) -> int:
    try:
        whole = operator.index(count)
    except TypeError:
        whole = -1
    if whole < 0:
        raise ConfigurationError(f"cannot count {what}", f"{count!r} is no number of tokens", "give a whole number")
    return whole
