"""Save, aggregate and verify energy measurements of LLM inference.

`record` measures a process, and `load` reads a results directory into tables. `llm_energy_measure.domain` defines the
records, and `llm_energy_measure.results` saves and aggregates the records. `import llm_energy_measure` imports none of
these modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure._version import __version__

if TYPE_CHECKING:
    from llm_energy_measure.api.experiments import load
    from llm_energy_measure.recorder.recording import record

__all__ = ["__version__", "load", "record"]


def __getattr__(name: str) -> object:
    if name == "load":
        from llm_energy_measure.api.experiments import load

        return load
    if name == "record":
        from llm_energy_measure.recorder.recording import record

        return record
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
