"""Histogram of latencies with logarithmic buckets, which needs bounded memory for any number of samples.

Source: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
PVLDB 12 (2019). A sketch has no parameters, so sketches of different processes can always be merged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from msgspec import Meta, Struct, field

from llm_energy_measure.domain.units import Count, Milliseconds

RELATIVE_ERROR = 0.01
"""Largest relative error of a percentile."""

# Bucket i holds samples s with GROWTH**(i-1) < s <= GROWTH**i, in milliseconds.
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_BUCKETS_PER_E = 1 / math.log(_GROWTH)

# Samples up to 1 ns, the resolution of the clocks, count as zero.
_ZERO_MS = 1e-6

# The buckets of the smallest and of the largest double are inside this range.
_MAX_INDEX = 50_000

_BucketIndex = Annotated[int, Meta(ge=-_MAX_INDEX, le=_MAX_INDEX)]


class LatencySketch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Histogram of samples in milliseconds. Percentiles have a relative error of at most 1 %.

    Bucket i holds the samples s with g^(i-1) < s <= g^i, where g is 1.01/0.99.

    Attributes:
        count: Number of samples, at least 1.
        sum_ms: Sum of the samples.
        min_ms: Smallest sample.
        max_ms: Largest sample.
        zero_count: Number of samples of at most 1e-6 ms, which are in no bucket.
        first_bucket: Index i of the first number in `bucket_counts`.
        bucket_counts: Number of samples in each bucket, in the order of the buckets.
    """

    count: Annotated[int, Meta(ge=1)]
    sum_ms: Milliseconds
    min_ms: Milliseconds
    max_ms: Milliseconds
    zero_count: Count = 0
    first_bucket: _BucketIndex = 0
    bucket_counts: Annotated[
        list[Count],
        Meta(max_length=2 * _MAX_INDEX),
    ] = field(default_factory=list)

    @property
    def mean_ms(self) -> float:
        """Mean of the samples, in milliseconds. It is never outside the range of the samples."""
        return min(max(self.sum_ms / self.count, self.min_ms), self.max_ms)

    def percentile(self, percent: float) -> float:
        """Return a percentile in milliseconds, with a relative error of at most 1 %.

        Args:
            percent: 0 to 100. `statistics.percentile` defines the rank.
        """
        rank = (self.count - 1) * percent / 100
        low, high = self._sample(math.floor(rank)), self._sample(math.ceil(rank))
        return low + (high - low) * (rank % 1)

    def _sample(self, rank: int) -> float:
        """Return the approximate sample with a rank, counted from 0 in ascending order."""
        if rank <= 0 or rank >= self.count - 1:
            return self.min_ms if rank <= 0 else self.max_ms
        seen, middle = self.zero_count, 0.0
        for index, number in enumerate(self.bucket_counts, self.first_bucket):
            if seen > rank:
                break
            if number:
                seen += number
                middle = _middle_ms(index)
        return min(max(middle, self.min_ms), self.max_ms)


class SketchBuilder:
    """Counts samples for a `LatencySketch`.

    Attributes:
        count: Number of samples.
    """

    __slots__ = ("_buckets", "_max_ms", "_min_ms", "_sum_ms", "count")

    def __init__(self) -> None:
        self.count = 0
        self._sum_ms = 0.0
        self._min_ms = math.inf
        self._max_ms = 0.0
        self._buckets: Counter[int | None] = Counter()

    def add(self, samples_ms: Sequence[float], buckets: list[int | None] | None = None) -> Self:
        """Add samples, and return this builder.

        Args:
            samples_ms: Finite samples in milliseconds, at least 0.
            buckets: `buckets_of(samples_ms)`, if the caller has computed it already.
        """
        if samples_ms:
            self.count += len(samples_ms)
            self._sum_ms += sum(samples_ms)
            smallest_ms, largest_ms = min(samples_ms), max(samples_ms)
            self._min_ms = min(self._min_ms, smallest_ms)
            self._max_ms = max(self._max_ms, largest_ms)
            self._buckets.update(buckets_of(samples_ms) if buckets is None else buckets)
        return self

    def merge(self, sketch: LatencySketch) -> Self:
        """Add the samples of a sketch, and return this builder."""
        self.count += sketch.count
        self._sum_ms += sketch.sum_ms
        self._min_ms = min(self._min_ms, sketch.min_ms)
        self._max_ms = max(self._max_ms, sketch.max_ms)
        self._buckets[None] += sketch.zero_count
        for index, number in enumerate(sketch.bucket_counts, sketch.first_bucket):
            if number:
                self._buckets[index] += number
        return self

    def copy(self) -> SketchBuilder:
        """Return an independent copy."""
        copied = SketchBuilder()
        for name in ("count", "_sum_ms", "_min_ms", "_max_ms"):
            setattr(copied, name, getattr(self, name))
        copied._buckets = self._buckets.copy()
        return copied

    def sketch(self) -> LatencySketch | None:
        """Return the sketch of all samples so far; None without samples."""
        if not self.count:
            return None
        indices = [index for index in self._buckets if index is not None]
        first, end = (min(indices), max(indices) + 1) if indices else (0, 0)
        return LatencySketch(
            count=self.count,
            sum_ms=self._sum_ms,
            min_ms=self._min_ms,
            max_ms=self._max_ms,
            zero_count=self._buckets[None],
            first_bucket=first,
            bucket_counts=[self._buckets[index] for index in range(first, end)],
        )


def buckets_of(samples_ms: Iterable[float]) -> list[int | None]:
    """Return the index of the bucket of each sample; None for a sample that counts as zero."""
    return [math.ceil(math.log(sample) * _BUCKETS_PER_E) if sample > _ZERO_MS else None for sample in samples_ms]


def _middle_ms(index: int) -> float:
    """Return the value whose relative distance to both ends of a bucket is `RELATIVE_ERROR`."""
    try:
        return (1 + RELATIVE_ERROR) * _GROWTH ** (index - 1)
    except OverflowError:
        return math.inf  # the caller limits the value to the largest sample
