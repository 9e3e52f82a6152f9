"""Text for people: the functions of `domain.formatting`, and `aggregate_line`."""

from __future__ import annotations

from llm_energy_measure.domain.experiment import AggregatedSummary
from llm_energy_measure.domain.formatting import (
    UNKNOWN,
    attributed_energy,
    cell,
    config_value,
    count,
    date_time,
    energy,
    energy_scale,
    mean_with_interval,
    natural_key,
    number,
    plural,
    quantity,
    scale,
    scaled,
    verdict,
)
from llm_energy_measure.verification.completeness import describe_found

__all__ = [
    "UNKNOWN",
    "aggregate_line",
    "attributed_energy",
    "cell",
    "config_value",
    "count",
    "date_time",
    "energy",
    "energy_scale",
    "mean_with_interval",
    "natural_key",
    "number",
    "plural",
    "quantity",
    "scale",
    "scaled",
    "verdict",
]


def aggregate_line(result: AggregatedSummary) -> str:
    """Return the id, the number of processes, the attributed energy and the tokens of an aggregate in one line."""
    at_least = "at least " if result.is_lower_bound else ""
    point_j, bounds_j = result.attributed_energy_j, result.attributed_bounds_j
    plain_j = result.partial_energy_j if result.total_energy_j is None else result.total_energy_j
    if point_j is None and bounds_j is not None:
        joules = energy(bounds_j[0], at_least=at_least)
        joules += "" if result.is_lower_bound else f" to {energy(bounds_j[1])} (undetermined)"
    else:
        joules = energy(plain_j if point_j is None else point_j, at_least=at_least, unknown="unknown energy")
        is_corrected = result.attribution_factor is not None and result.attribution_factor > 1
        joules += f" (plain sum {energy(result.plain_energy_j)})" if is_corrected else ""
    tokens = "unknown" if result.total_tokens is None else count(result.total_tokens)
    return f"{result.experiment_id}: {describe_found(result.completeness)}, {joules}, {tokens} tokens"
