"""Results: stored, recovered, aggregated, exported. See `README.md` beside this file for a tour."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not late like the others: the module has the function's name, and would stand in its place.
from llm_energy_measure.results.repeats import cycle_statistics, group_cycles

if TYPE_CHECKING:
    from llm_energy_measure.results.aggregation import aggregate_results, calculate_efficiency_metrics
    from llm_energy_measure.results.batch.bulk import aggregate_all
    from llm_energy_measure.results.batch.recovery import recover_all
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
    "aggregate_results",
    "calculate_efficiency_metrics",
    "cycle_statistics",
    "export_aggregated_to_csv",
    "export_raw_to_csv",
    "export_to_csv",
    "export_to_json",
    "flatten_model",
    "group_cycles",
    "recover_all",
]

# Where each name is: a list needs no aggregation, and a measuring process no exporters.
_HOMES = {
    "FileSystemRepository": "repository",
    "ResultsExporter": "exporters",
    "aggregate_all": "batch.bulk",
    "aggregate_results": "aggregation",
    "calculate_efficiency_metrics": "aggregation",
    "export_aggregated_to_csv": "exporters",
    "export_raw_to_csv": "exporters",
    "export_to_csv": "exporters",
    "export_to_json": "exporters",
    "flatten_model": "exporters",
    "recover_all": "batch.recovery",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module it is in, which is imported now."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
