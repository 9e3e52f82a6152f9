"""Readers of 2.0.0 that allow no null where the first tool always wrote a value."""

from __future__ import annotations

import json
from typing import Any

from llm_energy_measure.results.store import codec
from tests.support import factories

STRICT = ("backend", "gpu_id", "gpu_name", "config_name", "model_name", "inference_metrics", "compute_metrics")
STRICT_METRICS = {
    "timestamps": ("start", "end", "duration_sec"),
    "inference_metrics": ("total_tokens", "inference_time_sec", "tokens_per_second"),
    "energy_metrics": ("total_energy_j", "gpu_energy_j", "cpu_energy_j", "ram_energy_j", "duration_sec"),
    "compute_metrics": ("flops_total",),
}


def nulls(document: dict[str, Any]) -> set[str]:
    found = {name for name in STRICT if document[name] is None}
    for part, names in STRICT_METRICS.items():
        found |= {f"{part}.{name}" for name in names if document[part] is not None and document[part][name] is None}
    return found


def test_record_with_all_values_has_no_null_for_a_strict_reader() -> None:
    assert nulls(json.loads(codec.encode_raw(factories.full_raw()))) == set()


def test_unknown_value_is_null_and_never_a_placeholder() -> None:
    record = factories.full_raw().replace(gpu_name=None, backend=None, compute_metrics=None)
    record = record.replace(energy_metrics=record.energy_metrics.replace(gpu_energy_j=None))
    written = json.loads(codec.encode_raw(record))
    assert nulls(written) == {"gpu_name", "backend", "compute_metrics", "energy_metrics.gpu_energy_j"}
