"""Build parts of a record, such as its inference metrics, for the importers of several tools."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from llm_energy_measure.domain.experiment import ImportOrigin, RawProcessResult
from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.domain.metrics import (
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    Provenance,
    Scope,
    Timestamps,
)
from llm_energy_measure.importers.report import Notes, RefusedInputError
from llm_energy_measure.importers.values import add_seconds, as_integer, as_number

_DEFAULTS: dict[str, Any] = {
    "process_index": 0,
    **dict.fromkeys(("gpu_id", "config_name", "model_name", "inference_metrics", "compute_metrics")),
}


def imported_record(
    experiment_id: str, *, timestamps: Timestamps, energy_metrics: EnergyMetrics, origin: ImportOrigin, **fields: Any
) -> RawProcessResult:
    """Return the record of one process; the process index is 0 and all other fields are None by default."""
    return RawProcessResult(
        experiment_id=experiment_id,
        timestamps=timestamps,
        energy_metrics=energy_metrics,
        origin=origin,
        **_DEFAULTS | fields,
    )


def component(
    name: str, energy_j: float | None, scope: Scope | None, provenance: Provenance | None = None
) -> dict[str, Any]:
    """Return the fields of `EnergyMetrics` for `total`, `gpu`, `cpu` or `ram`.

    Scope and provenance are None if the energy is unknown.
    """
    is_known = energy_j is not None
    return {
        f"{name}_energy_j": energy_j,
        f"{name}_scope": scope if is_known else None,
        f"{name}_provenance": provenance if is_known else None,
    }


def total_of_components(energies: Mapping[str, float | None], missing: str, notes: Notes) -> float | None:
    """Return the sum of the known components, in their unit; None if fewer than two components are known.

    Args:
        energies: Energy of each component by name; None if it is unknown.
        missing: Name of the total that the source lacks.
        notes: Gets a note with the components of the sum.
    """
    known = {name: value for name, value in energies.items() if value is not None}
    if len(known) < 2:
        notes.add("no_energy", f"{missing} is blank, not mapped or not usable, and fewer than two components are known")
        return None
    parts = " + ".join(known)
    if len(known) == len(energies):
        found = f"{missing} is missing or damaged; the total is {parts}"
        notes.repair("total_from_components", found)
    else:
        unknown = " and ".join(name for name in energies if name not in known)
        found = f"the total is only {parts}, because {unknown} is unknown"
        notes.warn("partial_total", found, is_repair=True)
    return sum(known.values())


def unmeasured_devices(board: str | None, number: int | None) -> list[DeviceEnergy] | None:
    """Return one device without energy for each board of the host; None if their number is unknown."""
    return [DeviceEnergy(gpu_name=board)] * number if number else None


def timestamps_before(end: datetime | None, duration_sec: float | None) -> Timestamps:
    """Return the timestamps of a run whose end and duration are recorded; refuse a start outside the calendar."""
    start = add_seconds(end, -duration_sec) if end is not None and duration_sec is not None else None
    if start is None and end is not None and duration_sec is not None:
        found = f"duration is {duration_sec!r} s, so the start of the run is outside the calendar"
        raise RefusedInputError("impossible_value", f"{found} (its end is {end.isoformat()}); correct the duration")
    return Timestamps(start=start, end=end, duration_sec=duration_sec)


def inference_metrics(
    input_tokens: int | None, output_tokens: int | None, **other_fields: Any
) -> InferenceMetrics | None:
    """Return the inference metrics of a run; None unless input and output tokens are known.

    Example:
        >>> inference_metrics(100, 28, inference_time_sec=2.5).total_tokens, inference_metrics(100, None)
        (128, None)
    """
    if input_tokens is None or output_tokens is None:
        return None
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    defaults = {"inference_time_sec": None, "tokens_per_second": None, "total_tokens": input_tokens + output_tokens}
    return InferenceMetrics(**{**defaults, **counts, **other_fields})


def client_metrics(document: dict[str, Any], latency: LatencyMeasurements | None) -> InferenceMetrics | None:
    """Return the inference metrics from a result of `vllm bench serve`; None if it has no token counts.

    The ML.ENERGY benchmark uses the same fields.

    Source: vLLM, `vllm bench serve --save-result`.
    """
    return inference_metrics(
        as_integer(document.get("total_input_tokens")),
        as_integer(document.get("total_output_tokens")),
        inference_time_sec=as_number(document.get("duration")),
        tokens_per_second=as_number(document.get("total_token_throughput")),
        time_to_first_token_ms=as_number(document.get("mean_ttft_ms")),
        latency_measurements=latency,
    )


def latency_samples(ttfts: object, itls: object, requests: int | None) -> LatencyMeasurements | None:
    """Return latency samples in milliseconds; None unless both arguments are lists.

    Args:
        ttfts: Time to the first token of each request, in seconds; 0 for a failed request, which is left out.
        itls: For each request, the list of gaps between output tokens, in seconds.
        requests: Number of requests that succeeded.
    """
    if not isinstance(ttfts, list) or not isinstance(itls, list):
        return None
    lists = [gaps for gaps in itls if isinstance(gaps, list)]
    gaps_ms = [[sec * 1e3 for gap in gaps if (sec := as_number(gap)) is not None] for gaps in lists]
    return LatencyMeasurements(
        ttft_ms=[sec * 1e3 for value in ttfts if (sec := as_number(value))],
        itl_full_ms=[gap for gaps in gaps_ms for gap in gaps],
        itl_trimmed_ms=[gap for gaps in gaps_ms for gap in gaps[1:-1]],
        request_count=requests,
        streaming_mode=True,
    )
