"""Select the sides of a comparison by the values of one column, and read the block of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC

from llm_energy_measure.analysis.observations import Observation
from llm_energy_measure.analysis.pairing import COMPARABLE_FIELDS, Selection, text
from llm_energy_measure.catalogue.query import full_key, key_advice
from llm_energy_measure.catalogue.sqlite_schema import to_utc
from llm_energy_measure.domain.configuration import PREFIX
from llm_energy_measure.exceptions import ConfigurationError

_ALIASES = {"model": "model_name", "scope": "energy_scope"}


def column(name: str, observations: Sequence[Observation], doing: str) -> Callable[[Observation], str | None]:
    """Return the function that reads a column of a run as text.

    Args:
        name: `tag.KEY`, `config.KEY` (the end of a key is enough), `date`, `host`, or a name of
            `Observation.identity`.
        observations: The runs. Their configurations contain the possible keys.
        doing: First part of the error message.

    Raises:
        ConfigurationError: There is no column with this name.
    """
    if name == "date":
        return _date
    if name == "host":
        return lambda one: ", ".join(sorted(one.hosts)) or None
    if name.startswith("tag."):
        key = name.removeprefix("tag.")
        return lambda one: one.tags.get(key)
    if name.startswith(PREFIX):
        key = full_key(name, _keys(observations), doing, _names(observations))
        return lambda one: None if (value := one.configuration.get(key)) is None else text(value)
    known = _names(observations)
    if name in known:
        return lambda one: one.identity.get(name)
    advice = key_advice(name, _keys(observations)) or f"use tag.KEY, config.KEY, {', '.join(sorted(known))}"
    raise ConfigurationError(doing, f"there is no column {name!r}", advice)


def sides_of(observations: Sequence[Observation], name: str, base: str) -> tuple[Selection, list[Selection]]:
    """Return the runs whose column has the value of the base, and one candidate for each other value, sorted.

    Runs without a value belong to no side.

    Raises:
        ConfigurationError: No column has this name, no run has the value `base`, or all runs have the value `base`.
    """
    doing = f"cannot compare by {name}"
    read = column(name, observations, doing)
    sides: dict[str, list[Observation]] = {}
    for one in observations:
        if (value := read(one)) is not None:
            sides.setdefault(value, []).append(one)
    found = sorted(sides, key=text_order)
    if base not in sides:
        advice = f"choose the base from: {', '.join(found[:10])}" if found else "choose another column for --by"
        raise ConfigurationError(doing, f"no run has the value {base!r}", advice)
    if len(found) == 1:
        raise ConfigurationError(doing, f"all runs have the value {base!r}", "record runs with another value")
    selections = [Selection(f"{name} = {value}", sides[value]) for value in found]
    index = found.index(base)
    return selections[index], selections[:index] + selections[index + 1 :]


def text_order(value: str) -> tuple[bool, float, str]:
    """Return the sort key of a value as text: numbers by value, then other texts."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    return (False, number, value) if math.isfinite(number) else (True, 0.0, value)


def full_names(names: Iterable[str], observations: Sequence[Observation], doing: str) -> list[str]:
    """Return the full names of fields and keys.

    Args:
        names: Fields of `Observation.comparability`, names of `Observation.identity`, or configuration keys.
        observations: The runs.
        doing: First part of the error message.

    Raises:
        ConfigurationError: A name is unknown.
    """
    identity = {name for one in observations for name in one.identity}
    found = []
    for name in names:
        full = _ALIASES.get(name, name)
        if full in COMPARABLE_FIELDS or full in identity:
            found.append(full)
        else:
            found.append(PREFIX + full_key(name, _keys(observations), doing))
    return found


def _names(observations: Iterable[Observation]) -> set[str]:
    return {"date", "host"}.union(*(one.identity for one in observations))


def _keys(observations: Iterable[Observation]) -> set[str]:
    return {key for one in observations for key in one.configuration}


def _date(one: Observation) -> str | None:
    moment = one.start and to_utc(one.start)
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d}"
