"""Results in Python and in notebooks: `load` returns the experiments of a results directory.

The methods of `Experiments` return statistics, comparisons, tables and figures. `from llm_energy_measure import load`
imports none of pandas, polars and pyarrow; only the methods that need these packages import them.
"""

from __future__ import annotations

from llm_energy_measure.api.experiment import Experiment
from llm_energy_measure.api.experiments import Experiments, load
from llm_energy_measure.api.tables import ComparisonTable, RepeatTable

__all__ = ["ComparisonTable", "Experiment", "Experiments", "RepeatTable", "load"]
