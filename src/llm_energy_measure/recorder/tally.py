"""What a process counts while it works: tokens, and the instants at which the tokens of each request came."""

from __future__ import annotations

import copy
import operator
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.exceptions import ConfigurationError, RecorderError

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

    What came of it counts at once, so that it is there also where the run ends before the request does.

    Its tokens give latencies and are not added to the process's tokens; `add_tokens` counts those. A token that comes
    before or after the block has no latency: the record says how many did.

    Args:
        tally: Where it is counted.
        now: The clock, in seconds.
        is_warmup: Whether its latencies are left out.
    """

    __slots__ = ("_append", "_now", "_stamps", "_tally", "_was_sent", "is_warmup", "sent")

    def __init__(self, tally: Tally, now: Callable[[], float], *, is_warmup: bool) -> None:
        """Prepare it; it is sent when its block begins."""
        self._tally = tally
        self._now = now
        self.is_warmup = is_warmup
        self._stamps: list[float] = []
        self._append: Callable[[float], None] = self._outside
        self._was_sent = False
        self.sent = 0.0

    def __enter__(self) -> Self:
        """Send it now."""
        if self._was_sent:
            raise RecorderError("cannot measure a request", "it was sent before", "make a new one: run.request()")
        self._was_sent = True
        self._append = self._stamps.append
        self.sent = self._now()
        self._tally.begin_request(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, also if it failed: the tokens that came, came."""
        self._append = self._outside
        self._tally.end_request(self)

    def _outside(self, _stamp: float) -> None:
        self._tally.count_outside()

    @property
    def stamps(self) -> list[float]:
        """When each of its tokens came so far, in seconds on its clock."""
        return self._stamps.copy()

    @property
    def count(self) -> int:
        """Tokens that came so far."""
        return len(self._stamps)

    def token(self, count: int = 1) -> None:
        """Output tokens came now.

        Args:
            count: How many, at least 1; those that come together have no time between them.
        """
        if count == 1:
            self._append(self._now())
        else:
            stamp = self._now()
            for _ in range(_whole(count, "tokens of a request")):
                self._append(stamp)


class Tally:
    """The counts of one process. Every method can be called from any thread."""

    def __init__(self) -> None:
        """Begin at zero."""
        # Reentrant: the handler of a signal takes what was counted while the main thread may be counting.
        self._lock = threading.RLock()
        self._input = 0
        self._output = 0
        self._outside = 0
        self._ended = _Samples()
        self._open: dict[Request, None] = {}

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

    def forget(self) -> None:
        """In a forked child: wait for no lock that a thread of the parent held."""
        self._lock = threading.RLock()

    def begin_request(self, request: Request) -> None:
        """Count a request that was sent, and from now on what comes of it."""
        with self._lock:
            self._open[request] = None

    def end_request(self, request: Request) -> None:
        """Count nothing more of a request."""
        with self._lock:
            self._ended.add(request)
            del self._open[request]

    def count_outside(self) -> None:
        """Count a token that came while its request was not under way."""
        with self._lock:
            self._outside += 1

    def warnings(self) -> list[str]:
        """What a reader has to know of the counts so far, a sentence each."""
        counts, texts = self.counts, []
        if sum(counts) and not counts.input:
            texts.append("no prompt tokens were counted: input_tokens is 0, and total_tokens are the generated ones")
        if self._outside:
            texts.append(f"tokens that came outside the block of their request, and have no latency: {self._outside}")
        return texts

    @property
    def counts(self) -> Counts:
        """Tokens so far."""
        with self._lock:
            stamped = self._ended.stamped + sum(request.count for request in self._open)
            return Counts(self._input, self._output, stamped)

    def latencies(self) -> LatencyMeasurements | None:
        """The latencies of the requests so far; None if there was none."""
        with self._lock:
            samples = self._ended.copy()
            for request in self._open:
                samples.add(request)
        return samples.measurements() if samples.requests or samples.warmup_requests else None


class _Samples:
    """Latencies of some requests."""

    def __init__(self) -> None:
        self.requests = 0
        self.warmup_requests = 0
        self.stamped = 0
        self.ttft_ms: list[float] = []
        self.full_ms: list[float] = []
        self.trimmed_ms: list[float] = []

    def copy(self) -> _Samples:
        copied = copy.copy(self)
        for name in ("ttft_ms", "full_ms", "trimmed_ms"):
            setattr(copied, name, list(getattr(self, name)))
        return copied

    def add(self, request: Request) -> None:
        stamps = request.stamps
        # To the nanosecond, which is what the clock tells. Worked out first: a signal's handler that came between the
        # counts below would see half of them.
        gaps_ms = [round((later - earlier) * 1e3, 6) for earlier, later in pairwise(stamps)]
        self.stamped += len(stamps)
        if request.is_warmup:
            self.warmup_requests += 1
            return
        self.requests += 1
        if stamps:
            self.ttft_ms.append(round((stamps[0] - request.sent) * 1e3, 6))
        self.full_ms += gaps_ms
        self.trimmed_ms += gaps_ms[1:-1]

    def measurements(self) -> LatencyMeasurements:
        return LatencyMeasurements(
            ttft_ms=self.ttft_ms,
            itl_full_ms=self.full_ms,
            itl_trimmed_ms=self.trimmed_ms,
            request_count=self.requests,
            total_output_tokens=len(self.ttft_ms) + len(self.full_ms),
            excluded_tokens=len(self.full_ms) - len(self.trimmed_ms),
            streaming_mode=True,
            warmup_requests_excluded=self.warmup_requests,
        )


def _whole(count: int, what: str) -> int:
    try:
        whole = operator.index(count)
    except TypeError:
        whole = -1
    if whole < 0:
        raise ConfigurationError(f"cannot count {what}", f"{count!r} is no number of tokens", "give a whole number")
    return whole
