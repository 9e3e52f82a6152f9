"""Which configuration keys vary among experiments, with their values."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from llm_energy_measure.catalogue.facts import Configuration
from llm_energy_measure.domain.configuration import PREFIX, Value, is_ignored


class KeyValue(Struct, frozen=True):
    """A value of a key, and the number of experiments with this value."""

    value: Value
    experiments: int


class KeyValues(Struct, frozen=True, kw_only=True):
    """A configuration key and its values.

    Attributes:
        key: The key with the prefix `config.`.
        separates_repeats: False for ids, seeds, paths, schedules and counters of repeats.
        values: The values, sorted: numbers, then text.
        absent: Number of experiments without this key, or with null.
    """

    key: str
    separates_repeats: bool
    values: list[KeyValue]
    absent: int


def key_values(configurations: Iterable[tuple[Configuration, int]], *, only_varying: bool = True) -> list[KeyValues]:
    """Return the keys of configurations and their values: first the keys that separate repeats, sorted by key.

    Args:
        configurations: Distinct configurations, and the number of experiments with each.
        only_varying: Leave out the keys with one value in all experiments.
    """
    total = 0
    counts: dict[str, dict[tuple[bool, Value], int]] = {}
    others: set[str] = set()
    for configuration, number in configurations:
        total += number
        others.update(configuration.others)
        for part in configuration:
            for key, value in part.items():
                values = counts.setdefault(key, {})
                # In Python, True equals 1.
                typed = (isinstance(value, bool), value)
                values[typed] = values.get(typed, 0) + number
    found = []
    for key, values in counts.items():
        absent = total - sum(values.values())
        if not only_varying or len(values) > 1 or absent:
            listed = [KeyValue(value, number) for (_, value), number in sorted(values.items(), key=_sort_key)]
            separates = key not in others and not is_ignored(key)
            found.append(KeyValues(key=PREFIX + key, separates_repeats=separates, values=listed, absent=absent))
    return sorted(found, key=lambda one: (not one.separates_repeats, one.key))


def _sort_key(item: tuple[tuple[bool, Value], int]) -> tuple[bool, float, str]:
    value = item[0][1]
    return (False, float(value), "") if isinstance(value, int | float) else (True, 0.0, value)
