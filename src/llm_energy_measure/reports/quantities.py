"""The values that an axis can show: metrics, columns of the catalogue, configuration keys and other facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct, structs

from llm_energy_measure.analysis.observations import FACT_NAMES, METRICS, Observation, is_fact
from llm_energy_measure.analysis.repeats import RepeatGroup
from llm_energy_measure.analysis.selections import column, text_order
from llm_energy_measure.catalogue.query import ALIASES
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.domain.configuration import PREFIX
from llm_energy_measure.domain.statistics import SampleStatistics, sample_statistics
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.reports.plots import Axis
from llm_energy_measure.reports.reading import Results
from llm_energy_measure.results.columns import SUMMARY_COLUMNS

_UNITS = {one.name: one.unit for one in SUMMARY_COLUMNS}


class Quantity(Struct, frozen=True, kw_only=True):
    """Values of experiments that an axis shows.

    Attributes:
        name: Name that the user gives.
        axis: Label and unit, and the categories if the values are text.
        is_measured: True if repeats can have different values, so that a configuration has a mean and an interval.
        is_greater_better: True for the metrics whose greater values are better.
        value: Function that returns the number of an experiment, or the index of its category. None if unknown.
    """

    name: str
    axis: Axis
    is_measured: bool
    is_greater_better: bool
    value: Callable[[Observation], float | None]

    def statistics(self, group: RepeatGroup, results: Results) -> SampleStatistics:
        """Return the statistics over the repeats of a configuration."""
        if self.name in group.statistics:
            return group.statistics[self.name]
        return sample_statistics(self.repeats(group, results))

    def repeats(self, group: RepeatGroup, results: Results) -> list[float]:
        """Return the known values of the repeats of a configuration."""
        values = (self.value(results.observation_of[name]) for name in group.experiment_ids)
        return [value for value in values if value is not None]


def stored_columns(names: Sequence[str]) -> list[str]:
    """Return the full names of the numeric columns of the catalogue in `names`. Metrics are left out."""
    full = [ALIASES.get(name, name) for name in names if name not in METRICS]
    return list(dict.fromkeys(name for name in full if COLUMNS.get(name) in ("integer", "number")))


def is_number(name: str) -> bool:
    """Return True for the name of a metric or of a numeric column."""
    return name in METRICS or bool(stored_columns([name]))


def require_value(name: str) -> None:
    """Raise `ConfigurationError` unless the name is a metric, a numeric column or a fact."""
    if not (is_number(name) or is_fact(name)):
        # The configuration keys are not known yet.
        advice = (
            f"for a configuration key, write {PREFIX}{name}; "
            f"otherwise use a metric ({', '.join(METRICS)}), a numeric column of an export, or a fact ({FACT_NAMES})"
        )
        raise ConfigurationError(f"cannot draw {name!r}", "there is no value with this name", advice)


def uses_energy(name: str) -> bool:
    """Return True if a value of this name depends on the energy."""
    if name in METRICS:
        return METRICS[name].uses_energy
    return "J" in _UNITS.get(ALIASES.get(name, name), "")


def quantity_of(name: str, results: Results) -> Quantity:
    """Return the values of a name: a metric, a numeric column, `config.KEY`, `tag.KEY`, `date`, `host` or a fact.

    Raises:
        ConfigurationError: The name is unknown.
    """
    if name in METRICS:
        metric = METRICS[name]
        return Quantity(
            name=name,
            axis=Axis(label=metric.label, unit=metric.unit),
            is_measured=True,
            is_greater_better=metric.direction == "higher",
            value=lambda one: _finite(one.values.get(name)),
        )
    if (stored := ALIASES.get(name, name)) in results.values:
        numbers = results.values[stored]
        return Quantity(
            name=stored,
            axis=Axis(label=stored.removeprefix("shown_").replace("_", " "), unit=_UNITS.get(stored, "")),
            is_measured=True,
            is_greater_better=False,
            value=lambda one: _finite(numbers.get(one.experiment_id)),
        )
    return _fact(name, results)


def _fact(name: str, results: Results) -> Quantity:
    """Return a value that is equal in all repeats: a number if all its values are numbers, otherwise a category."""
    read = column(name, results.observations, f"cannot draw {name!r}")
    texts = {one.experiment_id: read(one) for one in results.observations}
    known = sorted({text for text in texts.values() if text is not None}, key=text_order)
    label = name.rpartition(".")[2].replace("_", " ")
    if known and all(_number(text) is not None for text in known):
        return Quantity(
            name=name,
            axis=Axis(label=label),
            is_measured=False,
            is_greater_better=False,
            value=lambda one: _number(texts[one.experiment_id]),
        )
    index = {text: float(number) for number, text in enumerate(known)}
    return Quantity(
        name=name,
        axis=Axis(label=label, categories=known),
        is_measured=False,
        is_greater_better=False,
        value=lambda one: index.get(texts[one.experiment_id] or ""),
    )


def as_categories(quantity: Quantity, results: Results) -> Quantity:
    """Return a fact with its numbers as categories, so that bars have equal distances. Measured values stay numbers."""
    if quantity.is_measured or quantity.axis.categories is not None:
        return quantity
    known = {value for one in results.observations if (value := quantity.value(one)) is not None}
    places = {value: float(place) for place, value in enumerate(sorted(known))}
    axis = structs.replace(quantity.axis, categories=[f"{value:g}" for value in places])
    number = quantity.value

    def place(one: Observation) -> float | None:
        value = number(one)
        return None if value is None else places[value]

    return structs.replace(quantity, axis=axis, value=place)


def texts_of(name: str, results: Results) -> Callable[[Observation], str]:
    """Return the function that reads a fact as text. An experiment without the fact gives `unknown`.

    Raises:
        ConfigurationError: The name is unknown.
    """
    read = column(name, results.observations, f"cannot separate by {name!r}")
    return lambda one: read(one) or "unknown"


def sorted_texts(texts: Sequence[str]) -> list[str]:
    """Return the distinct texts, numbers by value before words."""
    return sorted(set(texts), key=text_order)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else _finite(float(text))
    except ValueError:
        return None


def _finite(value: float | None) -> float | None:
    """Return a finite value unchanged, and None for other values, which a figure shows as gaps."""
    return value if value is not None and math.isfinite(value) else None
