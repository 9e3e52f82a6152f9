"""Latency samples of requests, and latency statistics of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct, field

from llm_energy_measure.domain.statistics import mean, percentile
from llm_energy_measure.domain.units import Count, Milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable


class LatencyMeasurements(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Latency samples of one process. All samples are in milliseconds, at least 0; None means unknown.

    Attributes:
        ttft_ms: Time to first token: from the request to its first output token; one sample per request.
        itl_full_ms: Inter-token latency: all gaps between two successive output tokens.
        itl_trimmed_ms: `itl_full_ms` without the first and the last gap of each request.
        request_count: Number of measured requests.
        total_output_tokens: Number of output tokens of these requests.
        excluded_tokens: Number of output tokens that are not in the gaps.
        streaming_mode: True if the process received the tokens one by one.
        warmup_requests_excluded: Number of warm-up requests, which are not in the samples.
    """

    ttft_ms: Annotated[list[Milliseconds], Meta(description="time to first token of each request, in ms")] = field(
        default_factory=list
    )
    itl_full_ms: Annotated[list[Milliseconds], Meta(description="all gaps between output tokens, in ms")] = field(
        default_factory=list
    )
    itl_trimmed_ms: Annotated[list[Milliseconds], Meta(description="gaps without first and last, in ms")] = field(
        default_factory=list
    )
    request_count: Count | None = None
    total_output_tokens: Count | None = None
    excluded_tokens: Count | None = None
    streaming_mode: bool | None = None
    warmup_requests_excluded: Count | None = None


class LatencyStatistics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Latency statistics over all requests of all processes, in milliseconds, at least 0; None without samples.

    `ttft_*` is the time to first token, `itl_*` the trimmed inter-token latency, and `itl_full_*` the full one.
    Percentiles are computed from the pooled samples, because a mean of percentiles is not a percentile.
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


def pool_latency(measurements: Iterable[LatencyMeasurements]) -> LatencyStatistics | None:
    """Return the statistics of the pooled samples of all processes, or None without samples.

    Args:
        measurements: The samples of each process, in any order. They are not changed.

    Example:
        >>> pool_latency([LatencyMeasurements(ttft_ms=[10.0, 20.0]), LatencyMeasurements(ttft_ms=[60.0])]).ttft_mean_ms
        30.0
    """
    ttft: list[float] = []
    itl: list[float] = []
    itl_full: list[float] = []
    for measured in measurements:
        ttft += measured.ttft_ms
        itl += measured.itl_trimmed_ms
        itl_full += measured.itl_full_ms
    if not (ttft or itl or itl_full):
        return None
    for samples in (ttft, itl, itl_full):
        samples.sort()
    return LatencyStatistics(
        ttft_mean_ms=mean(ttft),
        ttft_median_ms=percentile(ttft, 50),
        ttft_p95_ms=percentile(ttft, 95),
        ttft_p99_ms=percentile(ttft, 99),
        ttft_min_ms=ttft[0] if ttft else None,
        ttft_max_ms=ttft[-1] if ttft else None,
        ttft_samples=len(ttft),
        itl_mean_ms=mean(itl),
        itl_median_ms=percentile(itl, 50),
        itl_p95_ms=percentile(itl, 95),
        itl_p99_ms=percentile(itl, 99),
        itl_samples=len(itl),
        itl_full_mean_ms=mean(itl_full),
        itl_full_p99_ms=percentile(itl_full, 99),
    )
