"""Latencies of the requests of one process, in bounded memory."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from itertools import pairwise

from msgspec import UNSET

from llm_energy_measure.domain.latency import MAX_SAMPLES, LatencyMeasurements, LatencySketches
from llm_energy_measure.domain.sketch import LatencySketch, SketchBuilder, buckets_of

# The seed is fixed, so that equal samples give an equal record.
_SEED = 0

_LARGEST_BELOW_1 = math.nextafter(1.0, 0.0)


class Samples:
    """Latency samples in milliseconds: all samples up to `MAX_SAMPLES`, then a uniform random selection of this size.

    Source: Li, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))", ACM TOMS 20 (1994), algorithm L.
    The algorithm draws the number of samples to skip, so most samples need no random number.

    Attributes:
        kept: All samples, or the random selection.
    """

    __slots__ = ("_builder", "_next", "_random", "_weight", "kept")

    def __init__(self) -> None:
        self.kept: list[float] = []
        self._builder: SketchBuilder | None = None
        self._random = random.Random(_SEED)  # noqa: S311 - a statistical selection, no secret
        self._weight = 1.0
        self._next = 0  # position of the next sample that replaces one in `kept`

    @property
    def count(self) -> int:
        """Number of samples so far."""
        return len(self.kept) if self._builder is None else self._builder.count

    @property
    def is_exact(self) -> bool:
        """True while `kept` contains all samples."""
        return self._builder is None

    def sketch(self) -> LatencySketch | None:
        """Return the histogram of all samples; None while `kept` contains all samples."""
        return None if self._builder is None else self._builder.sketch()

    def add(self, samples_ms: list[float], buckets: list[int | None] | None = None) -> None:
        """Add samples.

        Args:
            samples_ms: Samples in milliseconds, at least 0.
            buckets: `buckets_of(samples_ms)`, if the caller has computed it already.
        """
        if self._builder is None:
            if len(self.kept) + len(samples_ms) <= MAX_SAMPLES:
                self.kept += samples_ms
                return
            room = MAX_SAMPLES - len(self.kept)
            self.kept += samples_ms[:room]
            self._builder, self._next = SketchBuilder().add(self.kept), MAX_SAMPLES - 1
            self._skip()
            samples_ms, buckets = samples_ms[room:], None
        first = self._builder.count
        self._builder.add(samples_ms, buckets)
        while self._next < first + len(samples_ms):
            self.kept[self._random.randrange(MAX_SAMPLES)] = samples_ms[self._next - first]
            self._skip()

    def _skip(self) -> None:
        """Draw the position of the next sample that goes into `kept`."""
        self._weight *= math.exp(math.log(1 - self._random.random()) / MAX_SAMPLES)
        stay = math.log1p(-min(self._weight, _LARGEST_BELOW_1))
        self._next += math.floor(math.log(1 - self._random.random()) / stay) + 1

    def copy(self) -> Samples:
        """Return an independent copy."""
        copied = Samples()
        copied.kept = self.kept.copy()
        copied._weight, copied._next = self._weight, self._next
        if self._builder is not None:
            copied._builder, copied._random = self._builder.copy(), copy.copy(self._random)
        return copied


class RequestLatencies:
    """Latencies of a set of requests.

    Attributes:
        requests: Number of requests, without warm-up requests.
        warmup_requests: Number of warm-up requests.
    """

    __slots__ = ("_itl_full", "_itl_trimmed", "_ttft", "requests", "warmup_requests")

    def __init__(self) -> None:
        self.requests = 0
        self.warmup_requests = 0
        self._ttft, self._itl_full, self._itl_trimmed = Samples(), Samples(), Samples()

    def copy(self) -> RequestLatencies:
        """Return an independent copy."""
        copied = RequestLatencies()
        for name in RequestLatencies.__slots__:
            value = getattr(self, name)
            setattr(copied, name, value.copy() if isinstance(value, Samples) else value)
        return copied

    def add(self, sent: float, token_times: Sequence[float], *, is_warmup: bool) -> None:
        """Add the latencies of a request.

        Args:
            sent: When the request was sent, in seconds on a monotonic clock.
            token_times: When each token arrived, in seconds on the same clock.
            is_warmup: Whether the latencies are left out.
        """
        if is_warmup:
            self.warmup_requests += 1
            return
        # Times are rounded to nanoseconds, the resolution of the clock. A signal handler can save a record between two
        # changes of this object, and that record lacks some latencies. To make this unlikely, the gaps are computed
        # before the first change.
        gaps_ms = [round((later - earlier) * 1e3, 6) for earlier, later in pairwise(token_times)]
        buckets = None if self._itl_full.is_exact else buckets_of(gaps_ms)
        self.requests += 1
        if token_times:
            self._ttft.add([round((token_times[0] - sent) * 1e3, 6)])
        self._itl_full.add(gaps_ms, buckets)
        self._itl_trimmed.add(gaps_ms[1:-1], None if buckets is None else buckets[1:-1])

    def measurements(self) -> LatencyMeasurements:
        """Return the record of the latencies."""
        ttft, full, trimmed = self._ttft, self._itl_full, self._itl_trimmed
        is_exact = ttft.is_exact and full.is_exact and trimmed.is_exact
        return LatencyMeasurements(
            ttft_ms=ttft.kept,
            itl_full_ms=full.kept,
            itl_trimmed_ms=trimmed.kept,
            request_count=self.requests,
            total_output_tokens=ttft.count + full.count,
            excluded_tokens=full.count - trimmed.count,
            streaming_mode=True,
            warmup_requests_excluded=self.warmup_requests,
            sketches=UNSET
            if is_exact
            else LatencySketches(ttft_ms=ttft.sketch(), itl_full_ms=full.sketch(), itl_trimmed_ms=trimmed.sketch()),
        )
