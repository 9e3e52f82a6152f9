"""Results of other tools, as records of ours and a report of what was lost. Nothing here writes.

Example:
    >>> from llm_energy_measure import importers
    >>> reading = importers.read("emissions.csv")  # doctest: +SKIP
    >>> records = list(reading)  # doctest: +SKIP
    >>> reading.report.counts  # doctest: +SKIP
    {'seen': 78, 'kept': 78, 'repaired': 0, 'refused': 0}
"""

from __future__ import annotations

from llm_energy_measure.importers.loss import CODES, Entry, LossReport
from llm_energy_measure.importers.reading import Reading, read
from llm_energy_measure.importers.registry import format_names

__all__ = ["CODES", "Entry", "LossReport", "Reading", "format_names", "read"]
