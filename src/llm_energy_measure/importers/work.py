"""The work of a run: its tokens, and what its client saw of each request."""

from __future__ import annotations

from typing import Any

from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.domain.metrics import InferenceMetrics
from llm_energy_measure.importers.cells import number, whole


def work(given: int | None, generated: int | None, **more: Any) -> InferenceMetrics | None:
    """The work of a run, once its input and its output tokens are known; else None.

    Args:
        given: Input tokens.
        generated: Output tokens.
        **more: Other fields of the metrics; throughput and inference time are unknown without.

    Example:
        >>> work(100, 28, inference_time_sec=2.5).total_tokens, work(100, None)
        (128, None)
    """
    if given is None or generated is None:
        return None
    counted = {"total_tokens": given + generated, "input_tokens": given, "output_tokens": generated}
    return InferenceMetrics(**{"inference_time_sec": None, "tokens_per_second": None, **counted, **more})


def client_work(document: dict[str, Any], samples: LatencyMeasurements | None) -> InferenceMetrics | None:
    """The work as the client of a server counted it, in the fields of `vllm bench serve`; older shapes have no counts.

    Args:
        document: The client's result, of vLLM or of a benchmark that took its fields over.
        samples: Its latencies.

    Source: vLLM, `vllm bench serve --save-result`.
    """
    return work(
        whole(document.get("total_input_tokens")),
        whole(document.get("total_output_tokens")),
        inference_time_sec=number(document.get("duration")),
        tokens_per_second=number(document.get("total_token_throughput")),
        time_to_first_token_ms=number(document.get("mean_ttft_ms")),
        latency_measurements=samples,
    )


def latency(ttfts: object, itls: object, requests: int | None) -> LatencyMeasurements | None:
    """Latency samples in milliseconds, of one value in seconds, and one list of gaps in seconds, for each request.

    Args:
        ttfts: Times to the first token; a request that failed has 0.
        itls: Gaps between tokens.
        requests: Requests that succeeded.
    """
    if not isinstance(ttfts, list) or not isinstance(itls, list):
        return None
    first = [sec * 1e3 for value in ttfts if (sec := number(value))]
    gaps = [[sec * 1e3 for value in gap if (sec := number(value)) is not None] for gap in itls if isinstance(gap, list)]
    return LatencyMeasurements(
        ttft_ms=first,
        itl_full_ms=[gap for gaps_of_one in gaps for gap in gaps_of_one],
        itl_trimmed_ms=[gap for gaps_of_one in gaps for gap in gaps_of_one[1:-1]],
        request_count=requests,
        streaming_mode=True,
    )
