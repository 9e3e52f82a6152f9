"""Keep, aggregate and verify the energy measurements of language models.

Importing this package is cheap: the records live in `llm_energy_measure.domain`, the store and the
aggregation in `llm_energy_measure.results`, and each is imported where it is used. So is `record`, which measures
a process: `from llm_energy_measure import record`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_energy_measure.recorder.recording import record

__version__ = "0.1.0"

__all__ = ["__version__", "record"]


def __getattr__(name: str) -> object:
    if name == "record":
        from llm_energy_measure.recorder.recording import record

        return record
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
