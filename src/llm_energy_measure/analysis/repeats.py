"""Statistics over the repeats of each configuration."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from llm_energy_measure.analysis.observations import METRICS, Observation, ObservationGroup, group_observations
from llm_energy_measure.analysis.pairing import separating_names, text
from llm_energy_measure.domain.configuration import PREFIX, Value
from llm_energy_measure.domain.statistics import SampleStatistics, sample_statistics

DEFAULT_METRICS = ("j_per_token", "energy", "tokens_per_s")


class RepeatGroup(Struct, frozen=True, kw_only=True):
    """The repeats of one configuration, and their statistics.

    Attributes:
        name: The values that differ from other groups, as `key=value` words.
        differs: These values by key; configuration keys have the prefix `config.`.
        experiment_ids: The repeats in the statistics, sorted by start.
        statistics: Statistics by metric, in the unit of the metric. They omit repeats without a value of the metric.
        corrected: The repeats whose plain sum counts some energy more than once, and whose attributed energy is used.
    """

    name: str
    differs: dict[str, Value | None]
    experiment_ids: list[str]
    statistics: dict[str, SampleStatistics]
    corrected: list[str]


class Repeats(Struct, frozen=True, kw_only=True):
    """The repeats of several configurations.

    Attributes:
        units: Unit by metric.
        separating: The keys that separate the groups, and a short name of each. A key is left out if an earlier key
            separates the groups in the same way.
        common: Facts that agree in all groups, such as the model.
        ignored: Keys that do not separate repeats and that vary, with the prefix `config.`.
        groups: One group for each configuration.
        left_out: Reason by experiment id, for the experiments that take part in no statistics.
    """

    units: dict[str, str]
    separating: dict[str, str]
    common: dict[str, Value | None]
    ignored: list[str]
    groups: list[RepeatGroup]
    left_out: dict[str, str]


def repeats_of(observations: Sequence[Observation], metrics: Sequence[str] = DEFAULT_METRICS) -> Repeats:
    """Return the statistics over the repeats of each configuration.

    Args:
        observations: The experiments.
        metrics: Names in `METRICS`.
    """
    used, left_out = [], {}
    for one in observations:
        if one.excluded is not None:
            left_out[one.experiment_id] = one.excluded
        elif all(one.values[metric] is None for metric in metrics):
            left_out[one.experiment_id] = f"no figure: the records do not give {' or '.join(metrics)}"
        else:
            used.append(one)
    groups = group_observations(used)
    for group in groups:
        left_out |= group.left_out
    separating = separating_names([group.differs for group in groups])
    first = used[0].identity if used else {}
    return Repeats(
        units={metric: METRICS[metric].unit for metric in metrics},
        separating=separating,
        common={
            name: value
            for name, value in first.items()
            if value is not None and all(one.identity.get(name) == value for one in used)
        },
        ignored=_ignored_that_vary(used),
        groups=[_group(group, separating, metrics) for group in groups],
        left_out=left_out,
    )


def _group(group: ObservationGroup, separating: dict[str, str], metrics: Sequence[str]) -> RepeatGroup:
    values = group.differs
    words = [f"{short}={text(values[name])}" for name, short in separating.items() if values[name] is not None]
    return RepeatGroup(
        name=", ".join(words) or "all runs",
        differs=values,
        experiment_ids=[one.experiment_id for one in group.observations],
        statistics={
            metric: sample_statistics(
                [value for one in group.observations if (value := one.values[metric]) is not None]
            )
            for metric in metrics
        },
        corrected=[one.experiment_id for one in group.observations if one.corrected],
    )


def _ignored_that_vary(observations: Sequence[Observation]) -> list[str]:
    """Return the ignored keys that have several values, sorted. A key that some experiments do not have is included."""
    parts = list({id(one.ignored): one.ignored for one in observations}.values())
    values: dict[str, set[tuple[bool, Value]]] = {}
    for part in parts:
        for key, value in part.items():
            values.setdefault(key, set()).add((isinstance(value, bool), value))
    number: dict[str, int] = dict.fromkeys(values, 0)
    for part in parts:
        for key in part:
            number[key] += 1
    return sorted(PREFIX + key for key, found in values.items() if len(found) > 1 or number[key] < len(parts))
