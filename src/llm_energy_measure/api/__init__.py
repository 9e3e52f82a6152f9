"""Results in Python and in notebooks: `load` reads a results directory, and its views compute and draw.

`from llm_energy_measure import load` imports only this package's names; pandas, polars and pyarrow are imported by the
methods that need them.
"""

from __future__ import annotations

from llm_energy_measure.api.experiment import Experiment
from llm_energy_measure.api.experiments import Experiments, load
from llm_energy_measure.api.tables import ComparisonTable, RepeatTable

__all__ = ["ComparisonTable", "Experiment", "Experiments", "RepeatTable", "load"]
