"""Latency samples of single requests, and their statistics over an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct, field

from llm_energy_measure.domain.statistics import mean, percentile
from llm_energy_measure.domain.units import Count, Milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable


class LatencyMeasurements(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Latency samples that one process took.

    Attributes:
        ttft_ms: Time from sending a request to its first output token, one sample a request, in ms.
        itl_full_ms: Every gap between successive output tokens, in ms.
        itl_trimmed_ms: The gaps without the first and the last of each request, in ms.
        request_count: Requests measured.
        total_output_tokens: Output tokens of these requests.
        excluded_tokens: Output tokens left out of the gaps.
        streaming_mode: Whether tokens were seen one by one as they came.
        warmup_requests_excluded: Requests left out as warm-up.
    """

    ttft_ms: Annotated[list[Milliseconds], Meta(description="time to first token, a sample a request, in ms")] = field(
        default_factory=list
    )
    itl_full_ms: Annotated[list[Milliseconds], Meta(description="every gap between output tokens, in ms")] = field(
        default_factory=list
    )
    itl_trimmed_ms: Annotated[list[Milliseconds], Meta(description="gaps but the first and last, in ms")] = field(
        default_factory=list
    )
    request_count: Count | None = None
    total_output_tokens: Count | None = None
    excluded_tokens: Count | None = None
    streaming_mode: bool | None = None
    warmup_requests_excluded: Count | None = None


class LatencyStatistics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Latency over all requests of all processes, in milliseconds; None where there is no sample.

    `ttft_*` is the time to the first token, `itl_*` the trimmed gap between tokens, `itl_full_*` every gap.
    Percentiles are taken from the pooled samples: a mean of percentiles is not a percentile.
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
    """Statistics over the samples of all processes together, or None if there is no sample.

    Args:
        measurements: The samples of each process, in any order.

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
