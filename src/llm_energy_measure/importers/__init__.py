"""Import result files of other tools as records, with a report. No function here writes to a results directory.

Example:
    >>> from llm_energy_measure import importers
    >>> imported = importers.read("emissions.csv")  # doctest: +SKIP
    >>> records = list(imported)  # doctest: +SKIP
    >>> imported.report.counts  # doctest: +SKIP
    {'seen': 78, 'kept': 78, 'repaired': 0, 'refused': 0}
"""

from __future__ import annotations

import warnings

from llm_energy_measure.importers.reader import ImportedRecords, read
from llm_energy_measure.importers.registry import format_names
from llm_energy_measure.importers.report import CODES, Entry, ImportReport

__all__ = ["CODES", "Entry", "ImportReport", "ImportedRecords", "format_names", "read"]

_OLD_NAMES = {"LossReport": "ImportReport", "Reading": "ImportedRecords"}


def __getattr__(name: str) -> object:
    """Return the class that had this name in the previous release."""
    if name not in _OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new_name = _OLD_NAMES[name]
    warnings.warn(f"{__name__}.{name} is now {new_name}; use the new name", DeprecationWarning, stacklevel=2)
    return globals()[new_name]
