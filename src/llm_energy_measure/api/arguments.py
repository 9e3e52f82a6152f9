"""Convert the arguments of the methods of `Experiments`: names, metrics and values."""

from __future__ import annotations

from collections.abc import Sequence

from llm_energy_measure.analysis.observations import METRICS
from llm_energy_measure.domain import formatting
from llm_energy_measure.exceptions import ConfigurationError


def names_of(names: str | Sequence[str]) -> list[str]:
    """Return the names as a list. A string is one name."""
    return [names] if isinstance(names, str) else list(names)


def metrics_of(names: str | Sequence[str]) -> list[str]:
    """Return the names of metrics as a list. Raises `ConfigurationError` if a name is unknown or no name is given."""
    metrics = names_of(names)
    for name in metrics:
        if name not in METRICS:
            raise ConfigurationError(
                "cannot compute", f"there is no metric {name!r}", f"use one of {', '.join(METRICS)}"
            )
    if not metrics:
        raise ConfigurationError("cannot compute", "no metric is named", f"use one of {', '.join(METRICS)}")
    return metrics


def text_of(value: object) -> str:
    """Return a value of a column as text, in the form that conditions of `--where` use."""
    return formatting.config_value(value)
