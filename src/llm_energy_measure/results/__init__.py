"""Store, recover, aggregate and export results. `README.md` in this folder has examples."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_energy_measure.results.aggregation import aggregate_results, calculate_efficiency_metrics
    from llm_energy_measure.results.batch.bulk import aggregate_all
    from llm_energy_measure.results.batch.recovery import recover_all
    from llm_energy_measure.results.batch.verify import VerifiedExperiment, verify_all
    from llm_energy_measure.results.exporters import (
        ResultsExporter,
        export_aggregated_to_csv,
        export_raw_to_csv,
        export_to_csv,
        export_to_json,
        flatten_model,
    )
    from llm_energy_measure.results.repeats import RepeatStatistics, group_repeats, repeat_statistics
    from llm_energy_measure.results.repository import FileSystemRepository

__all__ = [
    "FileSystemRepository",
    "RepeatStatistics",
    "ResultsExporter",
    "VerifiedExperiment",
    "aggregate_all",
    "aggregate_results",
    "calculate_efficiency_metrics",
    "export_aggregated_to_csv",
    "export_raw_to_csv",
    "export_to_csv",
    "export_to_json",
    "flatten_model",
    "group_repeats",
    "recover_all",
    "repeat_statistics",
    "verify_all",
]

# The module of each public name. The module is imported when the name is first used, because a process that measures
# does not need the exporters, for example.
_MODULES = {
    "FileSystemRepository": "repository",
    "RepeatStatistics": "repeats",
    "ResultsExporter": "exporters",
    "VerifiedExperiment": "batch.verify",
    "aggregate_all": "batch.bulk",
    "aggregate_results": "aggregation",
    "calculate_efficiency_metrics": "aggregation",
    "export_aggregated_to_csv": "exporters",
    "export_raw_to_csv": "exporters",
    "export_to_csv": "exporters",
    "export_to_json": "exporters",
    "flatten_model": "exporters",
    "group_repeats": "repeats",
    "recover_all": "batch.recovery",
    "repeat_statistics": "repeats",
    "verify_all": "batch.verify",
}

_OLD_NAMES = {
    "CycleStatistics": "RepeatStatistics",
    "cycle_statistics": "repeat_statistics",
    "group_cycles": "group_repeats",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name, and return the value of the name. Names of the previous release also work."""
    if name in _OLD_NAMES:
        new_name = _OLD_NAMES[name]
        warnings.warn(f"{__name__}.{name} is now {new_name}; use the new name", DeprecationWarning, stacklevel=2)
        name = new_name
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
