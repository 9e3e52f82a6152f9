"""Find the configuration keys that vary among experiments, and their values."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from llm_energy_measure.catalogue.reader import ConfigValue
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


def key_values(values: Iterable[ConfigValue], total: int, *, only_varying: bool = True) -> list[KeyValues]:
    """Return the keys of configurations and their values: first the keys that separate repeats, sorted by key.

    Args:
        values: The distinct values of each key.
        total: Number of experiments.
        only_varying: Leave out the keys with one value in all experiments.
    """
    by_key: dict[str, list[ConfigValue]] = {}
    for one in values:
        by_key.setdefault(one.key, []).append(one)
    found = []
    for key, of_key in by_key.items():
        absent = total - sum(one.experiments for one in of_key)
        if not only_varying or len(of_key) > 1 or absent:
            listed = [KeyValue(one.value, one.experiments) for one in sorted(of_key, key=_sort_key)]
            separates = not (is_ignored(key) or any(one.is_other for one in of_key))
            found.append(KeyValues(key=PREFIX + key, separates_repeats=separates, values=listed, absent=absent))
    return sorted(found, key=lambda one: (not one.separates_repeats, one.key))


def _sort_key(one: ConfigValue) -> tuple[bool, float, str]:
    value = one.value
    return (False, float(value), "") if isinstance(value, int | float) else (True, 0.0, value)
