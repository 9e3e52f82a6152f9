"""Latency samples of requests, and latency statistics of an experiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from msgspec import UNSET, Struct, UnsetType, field

from llm_energy_measure.domain.record import Record
from llm_energy_measure.domain.sketch import LatencySketch, SketchBuilder
from llm_energy_measure.domain.statistics import mean, percentile
from llm_energy_measure.domain.units import Count, Milliseconds

MAX_SAMPLES = 10_000
"""Maximum number of samples of each kind in a new record. Older and imported records may have more samples."""

_Kind = Literal["ttft_ms", "itl_full_ms", "itl_trimmed_ms"]


class LatencySketches(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Histogram of each kind of samples. None if the list in `LatencyMeasurements` has all samples of this kind.

    Attributes:
        ttft_ms: Histogram of the times to first token.
        itl_full_ms: Histogram of all gaps between two successive output tokens.
        itl_trimmed_ms: Histogram of the gaps without the first and the last gap of each request.
    """

    ttft_ms: LatencySketch | None = None
    itl_full_ms: LatencySketch | None = None
    itl_trimmed_ms: LatencySketch | None = None


class LatencyMeasurements(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Latency samples of one process. All samples are in milliseconds, at least 0; None means unknown.

    A list has all samples of its kind. If `sketches` has a histogram of this kind, the list has only a uniform random
    choice of 10,000 samples. In both cases, the numbers of requests and tokens count all requests and tokens. In a
    record of a raw file above 8 MiB, a long list is an `array.array("d")`, which takes a quarter of the memory.

    Attributes:
        ttft_ms: Time to first token: from the request to its first output token; one sample per request.
        itl_full_ms: Inter-token latency: all gaps between two successive output tokens.
        itl_trimmed_ms: `itl_full_ms` without the first and the last gap of each request.
        request_count: Number of measured requests.
        total_output_tokens: Number of output tokens of these requests.
        excluded_tokens: Number of output tokens whose gap is in `itl_full_ms` but not in `itl_trimmed_ms`.
        streaming_mode: True if the process received the tokens one by one.
        warmup_requests_excluded: Number of warm-up requests, which are not in the samples.
        sketches: Histograms of all samples, for each kind with more than 10,000 samples. UNSET without one.
    """

    ttft_ms: list[Milliseconds] = field(default_factory=list)
    itl_full_ms: list[Milliseconds] = field(default_factory=list)
    itl_trimmed_ms: list[Milliseconds] = field(default_factory=list)
    request_count: Count | None = None
    total_output_tokens: Count | None = None
    excluded_tokens: Count | None = None
    streaming_mode: bool | None = None
    warmup_requests_excluded: Count | None = None
    sketches: LatencySketches | UnsetType = UNSET

    def __repr__(self) -> str:
        found = f"request_count={self.request_count}, total_output_tokens={self.total_output_tokens}"
        return f"{type(self).__name__}({found})"

    def sketch(self, kind: _Kind) -> LatencySketch | None:
        """Return the histogram of one kind of samples; None if the list of this kind has all samples."""
        return None if self.sketches is UNSET else getattr(self.sketches, kind)

    def count(self, kind: _Kind) -> int:
        """Return the number of samples of one kind, including samples that are only in the histogram."""
        sketch = self.sketch(kind)
        return len(getattr(self, kind)) if sketch is None else sketch.count

    def mean_ms(self, kind: _Kind) -> float | None:
        """Return the mean of all samples of one kind, in milliseconds; None without samples."""
        sketch = self.sketch(kind)
        return mean(getattr(self, kind)) if sketch is None else sketch.mean_ms


class LatencyStatistics(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Latency statistics over all requests of all processes, in milliseconds, at least 0; None without samples.

    `ttft_*` is the time to first token. `itl_*` is the inter-token latency of `itl_trimmed_ms`, and `itl_full_*` the
    latency of `itl_full_ms`. Percentiles are computed from the pooled samples, because a mean of percentiles is not a
    percentile.
    """

    ttft_mean_ms: Milliseconds | None = None
    ttft_median_ms: Milliseconds | None = None
    ttft_p95_ms: Milliseconds | None = None
    ttft_p99_ms: Milliseconds | None = None
    ttft_min_ms: Milliseconds | None = None
    ttft_max_ms: Milliseconds | None = None
    ttft_samples: Count = 0
    itl_mean_ms: Milliseconds | None = None
    itl_median_ms: Milliseconds | None = None
    itl_p95_ms: Milliseconds | None = None
    itl_p99_ms: Milliseconds | None = None
    itl_samples: Count = 0
    itl_full_mean_ms: Milliseconds | None = None
    itl_full_p99_ms: Milliseconds | None = None


class _Pool(NamedTuple):
    """Statistics of all samples of one kind. The samples themselves are not kept, because they can be millions."""

    number: int
    mean: float | None
    percentiles: dict[int, float | None]


_PERCENTS = (0, 50, 95, 99, 100)


def _pool(measurements: Sequence[LatencyMeasurements], kind: _Kind) -> _Pool:
    """Return the statistics: exact, or from a histogram if any process has only a histogram of its samples."""
    sketches = [measured.sketch(kind) for measured in measurements]
    if not any(sketches):
        ordered = sorted(sample for measured in measurements for sample in getattr(measured, kind))
        return _Pool(len(ordered), mean(ordered), {percent: percentile(ordered, percent) for percent in _PERCENTS})
    builder = SketchBuilder()
    for measured, sketch in zip(measurements, sketches, strict=True):
        _ = builder.add(getattr(measured, kind)) if sketch is None else builder.merge(sketch)
    pooled = builder.sketch()
    if pooled is None:
        return _Pool(0, None, dict.fromkeys(_PERCENTS))
    return _Pool(pooled.count, pooled.mean_ms, {percent: pooled.percentile(percent) for percent in _PERCENTS})


def pool_latency(measurements: Iterable[LatencyMeasurements]) -> LatencyStatistics | None:
    """Return the statistics of the pooled samples of all processes, or None without samples.

    If a record has a histogram, percentiles have a relative error of at most 1 %. Numbers of samples, means, minimum
    and maximum are exact.

    Args:
        measurements: The samples of each process, in any order. They are not changed.

    Example:
        >>> pool_latency([LatencyMeasurements(ttft_ms=[10.0, 20.0]), LatencyMeasurements(ttft_ms=[60.0])]).ttft_mean_ms
        30.0
    """
    processes = list(measurements)
    ttft, itl, itl_full = (_pool(processes, kind) for kind in ("ttft_ms", "itl_trimmed_ms", "itl_full_ms"))
    if not (ttft.number or itl.number or itl_full.number):
        return None
    return LatencyStatistics(
        ttft_mean_ms=ttft.mean,
        ttft_median_ms=ttft.percentiles[50],
        ttft_p95_ms=ttft.percentiles[95],
        ttft_p99_ms=ttft.percentiles[99],
        ttft_min_ms=ttft.percentiles[0],
        ttft_max_ms=ttft.percentiles[100],
        ttft_samples=ttft.number,
        itl_mean_ms=itl.mean,
        itl_median_ms=itl.percentiles[50],
        itl_p95_ms=itl.percentiles[95],
        itl_p99_ms=itl.percentiles[99],
        itl_samples=itl.number,
        itl_full_mean_ms=itl_full.mean,
        itl_full_p99_ms=itl_full.percentiles[99],
    )
