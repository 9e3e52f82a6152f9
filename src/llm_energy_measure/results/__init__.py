"""Results: stored, recovered, aggregated, exported. See `README.md` beside this file for a tour."""

from __future__ import annotations

from llm_energy_measure.results.aggregation import aggregate_results, calculate_efficiency_metrics
from llm_energy_measure.results.repository import FileSystemRepository

__all__ = ["FileSystemRepository", "aggregate_results", "calculate_efficiency_metrics"]
