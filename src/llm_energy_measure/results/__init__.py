"""Results: stored, recovered, aggregated, exported. See `README.md` beside this file for a tour."""

from __future__ import annotations

from llm_energy_measure.results.aggregation import aggregate_results, calculate_efficiency_metrics
from llm_energy_measure.results.bulk import aggregate_all, aggregate_experiment
from llm_energy_measure.results.cycle_statistics import cycle_statistics, group_cycles
from llm_energy_measure.results.exporters import (
    ResultsExporter,
    export_aggregated_to_csv,
    export_raw_to_csv,
    export_to_csv,
    export_to_json,
    flatten_model,
)
from llm_energy_measure.results.repository import FileSystemRepository

__all__ = [
    "FileSystemRepository",
    "ResultsExporter",
    "aggregate_all",
    "aggregate_experiment",
    "aggregate_results",
    "calculate_efficiency_metrics",
    "cycle_statistics",
    "export_aggregated_to_csv",
    "export_raw_to_csv",
    "export_to_csv",
    "export_to_json",
    "flatten_model",
    "group_cycles",
]
