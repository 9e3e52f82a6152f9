"""Immutable records of measurements, and calculations on them. No I/O, no logging.

The record classes can be imported from here: `from llm_energy_measure.domain import RawProcessResult`. `README.md` in
this folder describes the modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import (
        AggregatedResult,
        AggregationMetadata,
        CompletenessReport,
        Manifest,
        RawProcessResult,
    )
    from llm_energy_measure.domain.latency import LatencyMeasurements, LatencyStatistics
    from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps

__all__ = [
    "AggregatedResult",
    "AggregationMetadata",
    "CompletenessReport",
    "ComputeMetrics",
    "EnergyMetrics",
    "InferenceMetrics",
    "LatencyMeasurements",
    "LatencyStatistics",
    "Manifest",
    "RawProcessResult",
    "Timestamps",
]

# The module of each record class. `__getattr__` imports the module at the first use of the class. So a program that
# needs only `domain.units`, for example, does not import the record classes.
_MODULES = {
    **dict.fromkeys(
        ("AggregatedResult", "AggregationMetadata", "CompletenessReport", "Manifest", "RawProcessResult"), "experiment"
    ),
    **dict.fromkeys(("LatencyMeasurements", "LatencyStatistics"), "latency"),
    **dict.fromkeys(("ComputeMetrics", "EnergyMetrics", "InferenceMetrics", "Timestamps"), "metrics"),
}


def __getattr__(name: str) -> object:
    """Import the module of a record class, and return the class."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
