"""Observations: one per experiment, with its configuration, its figures and the facts that make it comparable."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import Struct, field

from llm_energy_measure.catalogue.facts import Configuration, ExperimentFacts
from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.catalogue.query import full_key, is_config, key_advice
from llm_energy_measure.catalogue.reader import CataloguedExperiment, paused_collector
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.catalogue.sqlite_schema import to_utc
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.domain.configuration import PREFIX, Value
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.verification.codes import joules

EnergyKind = Literal["attributed", "plain"]

NOT_AGGREGATED = "not aggregated"
"""Start of the reason that excludes an experiment without an aggregate."""

_REPEAT_ID = re.compile(r"_c[0-9]+$")


class Metric(NamedTuple):
    """A figure of an experiment.

    Attributes:
        unit: Unit of the values.
        direction: Whether `lower` or `higher` values are better.
        label: Name for people, without the unit.
        uses_energy: Whether the figure depends on the energy.
    """

    unit: str
    direction: Literal["lower", "higher"]
    label: str
    uses_energy: bool


METRICS: dict[str, Metric] = {
    "j_per_token": Metric("J/token", "lower", "energy per token", uses_energy=True),
    "j_per_output_token": Metric("J/token", "lower", "energy per output token", uses_energy=True),
    "j_per_request": Metric("J/request", "lower", "energy per request", uses_energy=True),
    "energy": Metric("J", "lower", "energy", uses_energy=True),
    "tokens_per_s": Metric("token/s", "higher", "throughput of a process", uses_energy=False),
    "ttft_p50": Metric("ms", "lower", "median time to first token", uses_energy=False),
    "itl_p50": Metric("ms", "lower", "median inter-token latency", uses_energy=False),
    "power": Metric("W", "lower", "mean power", uses_energy=True),
}
"""The figures of an experiment, by name."""


class Observation(Struct, frozen=True, kw_only=True):
    """One experiment as a repeat of a configuration. None means unknown.

    Attributes:
        experiment_id: Id of the experiment.
        directory: The results directory.
        configuration: Values of the keys that separate repeats, by dotted key: repeats have equal values of these keys.
        ignored: The keys that do not separate repeats, with their values.
        identity: Facts that agree between repeats: model, precision, GPUs, number of hosts, software, and the values
            that the user groups by. Without a configuration, also the id without a final `_c<n>`.
        comparability: Facts that must agree between two sides of a comparison: `model_name`, `token_budget`,
            `energy_scope`, `provenance`, `metric_version` and `gpu`.
        start: Earliest start.
        end: Latest end.
        hosts: Names of the machines.
        tags: Tags of the user, by key.
        values: Figures by the names in `METRICS`. They use the attributed or the plain energy.
        resolution: Resolution of the sensor in the unit of the figure, by the names in `METRICS`.
        content: Digest of the measurement. Copies of one experiment have equal digests.
        corrected: True if the plain sum counts some energy more than once, and `values` use the attributed energy.
        is_unreadable: True if a file cannot be read.
        excluded: Reason why the experiment takes part in no statistics. None if the experiment takes part.
    """

    experiment_id: str
    directory: str | None = None
    configuration: dict[str, Value]
    ignored: dict[str, Value] = field(default_factory=dict)
    identity: dict[str, str | None]
    comparability: dict[str, str | None]
    start: datetime | None = None
    end: datetime | None = None
    hosts: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    values: dict[str, float | None]
    resolution: dict[str, float | None] = field(default_factory=dict)
    content: str
    corrected: bool = False
    is_unreadable: bool = False
    excluded: str | None = None


class ObservationGroup(Struct, frozen=True, kw_only=True):
    """The repeats of one configuration.

    Attributes:
        name: The values that differ from other groups, as `key=value` words; the model if none differs.
        differs: The same values by key: configuration keys have the prefix `config.`.
        observations: The repeats, sorted by start and id. Copies of one measurement occur once.
        left_out: Reason by experiment id, for the members that take part in no statistics.
    """

    name: str
    differs: dict[str, Value | None]
    observations: list[Observation]
    left_out: dict[str, str] = field(default_factory=dict)


@paused_collector()
def read_observations(
    directory: str | Path | FileSystemRepository,
    *,
    where: str | None = None,
    energy: EnergyKind = "attributed",
    split_by: Sequence[str] = (),
    ignore: Sequence[str] = (),
    by: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Observation]:
    """Return the observations of a results directory, sorted by id.

    Args:
        directory: The results directory or its repository.
        where: Condition in the grammar of `results list --where`. None selects all experiments. Experiments without an
            aggregate are included, and have a reason in `excluded`.
        energy: `attributed` counts each joule once. `plain` uses the total of the strategy, by default the plain sum.
        split_by: Configuration keys that separate repeats, although they are ignored by default.
        ignore: Further configuration keys, or facts of `Observation.identity`, that do not separate repeats.
        by: Values that separate repeats: `tag.KEY`, `date`, `host`, or `config.KEY`.
        metrics: The figures that are needed. If none of them uses the energy, an undetermined energy excludes no
            experiment.
        warn: Function that is called with a message if the catalogue cannot be used.

    Raises:
        ConfigurationError: The condition or a key is wrong.
    """
    repository = directory if isinstance(directory, FileSystemRepository) else FileSystemRepository(directory)
    query = Query(where=where, with_pending=True, energy=energy)
    found = query_catalogue(
        repository, lambda catalogue: catalogue.experiments(query), full=True, ids=query.ids(), warn=warn
    )
    return observations_of(
        found,
        str(repository.base_path),
        energy=energy,
        split_by=split_by,
        ignore=ignore,
        by=by,
        uses_energy=metrics is None or any(METRICS[metric].uses_energy for metric in metrics),
    )


def observations_of(
    found: Sequence[CataloguedExperiment],
    directory: str,
    *,
    energy: EnergyKind = "attributed",
    split_by: Sequence[str] = (),
    ignore: Sequence[str] = (),
    by: Sequence[str] = (),
    uses_energy: bool = True,
) -> list[Observation]:
    """Return the observations of catalogued experiments, in their order.

    Args:
        found: The experiments.
        directory: The results directory.
        energy: See `read_observations`.
        split_by: See `read_observations`.
        ignore: See `read_observations`.
        by: See `read_observations`.
        uses_energy: Whether an undetermined energy excludes an experiment.

    Raises:
        ConfigurationError: A key is wrong.
    """
    keys = {key for one in found for part in one.configuration for key in part}
    ignored_facts = {name for name in ignore if name in IDENTITY_NAMES}
    selection = _Selection(
        shown={full_key(key, keys, "cannot split") for key in split_by}
        | {full_key(name, keys, "cannot group", _NAMES) for name in by if is_config(name)},
        hidden={full_key(key, keys, "cannot ignore") for key in ignore if key not in ignored_facts},
    )
    getters = {name: _getter(name, keys) for name in by if not is_config(name) and name not in IDENTITY_NAMES}
    return [
        _observation(
            one,
            selection.split(one.configuration),
            identity=_identity(one, getters, ignored_facts),
            directory=directory,
            energy=energy,
            uses_energy=uses_energy,
        )
        for one in found
    ]


def figures_of(row: ExperimentSummary, facts: ExperimentFacts, energy_j: float | None) -> dict[str, float | None]:
    """Return the figures of an experiment by the names in `METRICS`, if its energy is `energy_j`."""
    return {
        "j_per_token": ratio(energy_j, row.total_tokens),
        "j_per_output_token": ratio(energy_j, facts.output_tokens),
        "j_per_request": ratio(energy_j, facts.requests),
        "energy": energy_j,
        "tokens_per_s": row.avg_tokens_per_second,
        "ttft_p50": facts.ttft_p50_ms,
        "itl_p50": facts.itl_p50_ms,
        "power": ratio(energy_j, facts.window_sec),
    }


class _Selection:
    """Selects the keys that separate repeats: the settings without `hidden` keys, and all `shown` keys."""

    def __init__(self, *, shown: set[str], hidden: set[str]) -> None:
        self._shown = shown
        self._hidden = hidden
        self._known: dict[tuple[int, int], Configuration] = {}

    def split(self, configuration: Configuration) -> Configuration:
        """Return the keys that separate repeats as `settings`, and all other keys as `others`.

        Experiments with equal configurations share the returned dictionaries.
        """
        if not (self._shown or self._hidden):
            return configuration
        # `id` identifies a dictionary: the catalogue has one for equal configurations, and the caller keeps references.
        key = (id(configuration.settings), id(configuration.others))
        if key not in self._known:
            changed = Configuration({}, {})
            for part, is_setting in ((configuration.settings, True), (configuration.others, False)):
                for name, value in part.items():
                    is_kept = name in self._shown or (is_setting and name not in self._hidden)
                    (changed.settings if is_kept else changed.others)[name] = value
            self._known[key] = changed
        return self._known[key]


IDENTITY_NAMES = frozenset(
    ("model", "precision", "gpus", "hosts", "processes", "backend", "backend_version", "libraries", "method", "id")
)
"""The facts in `Observation.identity` that every experiment has."""


_GETTERS: dict[str, Callable[[ExperimentSummary], str | None]] = {
    "date": lambda row: _date(row.start_time),
    "host": lambda row: ", ".join(row.hosts) or None,
}
_NAMES = IDENTITY_NAMES.union(_GETTERS)
FACT_NAMES = f"tag.KEY, config.KEY, {', '.join(sorted(_NAMES))}"
"""The names of facts, as advice for a user."""


def is_fact(name: str) -> bool:
    """Return True for a name to group by, such as `host` or `tag.KEY`. Any key of tags and configuration is valid."""
    return name.startswith("tag.") or is_config(name) or name in _NAMES


def _getter(name: str, keys: Collection[str]) -> Callable[[ExperimentSummary], str | None]:
    """Return the function that reads a value to group by. Raises `ConfigurationError` for an unknown name."""
    if name.startswith("tag."):
        return lambda row: row.tags.get(name.removeprefix("tag."))
    if name in _GETTERS:
        return _GETTERS[name]
    advice = key_advice(name, keys) or f"use {FACT_NAMES}"
    raise ConfigurationError(f"cannot group by {name!r}", "there is no value with this name", advice)


def _date(start: datetime | None) -> str | None:
    moment = start and to_utc(start)
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d}"


def _identity(
    one: CataloguedExperiment,
    getters: dict[str, Callable[[ExperimentSummary], str | None]],
    ignored: set[str],
) -> dict[str, str | None]:
    known = {} if one.facts is None else one.facts.identity
    if not one.configuration.settings:  # only the id shows which experiments are repeats
        known = {**known, "id": _REPEAT_ID.sub("", one.summary.experiment_id)}
    if ignored:
        known = {name: value for name, value in known.items() if name not in ignored}
    return {**known, **{name: getter(one.summary) for name, getter in getters.items()}} if getters else known


def _observation(
    one: CataloguedExperiment,
    configuration: Configuration,
    *,
    identity: dict[str, str | None],
    directory: str,
    energy: EnergyKind,
    uses_energy: bool,
) -> Observation:
    row, facts = one.summary, one.facts or ExperimentFacts(content=one.summary.experiment_id)
    return Observation(
        experiment_id=row.experiment_id,
        directory=directory,
        configuration=configuration.settings,
        ignored=configuration.others,
        identity=identity,
        comparability={**facts.comparability, "metric_version": "plain sum"}
        if energy == "plain"
        else facts.comparability,
        start=facts.start,
        end=facts.end,
        hosts=row.hosts,
        tags=row.tags,
        values=figures_of(row, facts, _energy_j(row, energy)),
        resolution=_resolution(facts, row.total_tokens),
        content=facts.content,
        corrected=energy == "attributed" and (row.attribution_factor or 1.0) > 1,
        is_unreadable=bool(row.problems),
        excluded=_reason(row, facts, energy, uses_energy=uses_energy),
    )


def _resolution(facts: ExperimentFacts, tokens: int | None) -> dict[str, float | None]:
    """Return the resolution of the sensor in the unit of each figure, where it is known."""
    if facts.resolution_j is None:
        return {}
    return {
        "j_per_token": ratio(facts.resolution_j, tokens),
        "j_per_output_token": ratio(facts.resolution_j, facts.output_tokens),
        "j_per_request": ratio(facts.resolution_j, facts.requests),
        "energy": facts.resolution_j,
        "power": ratio(facts.resolution_j, facts.window_sec),
    }


def _energy_j(row: ExperimentSummary, energy: EnergyKind) -> float | None:
    """Return the energy of an experiment. An aggregate without attribution has only its total."""
    if energy == "attributed" and row.attributed_bounds_j is not None:
        return row.attributed_energy_j
    return row.total_energy_j


def _reason(row: ExperimentSummary, facts: ExperimentFacts, energy: EnergyKind, *, uses_energy: bool) -> str | None:
    """Return the reason why an experiment takes part in no statistics. None if the experiment takes part."""
    if row.verdict == "pending" and not row.problems:
        return f"{NOT_AGGREGATED}; run 'llm-energy-measure aggregate {row.experiment_id}'"
    if row.verdict in ("unreadable", "pending", "interrupted", "altered"):
        found = row.problems[0] if row.problems else row.verdict
        return f"{found}; 'llm-energy-measure results verify {row.experiment_id}' shows more"
    if row.status == "stale":
        return f"stale: raw files changed after the aggregation; run 'llm-energy-measure aggregate {row.experiment_id}'"
    if row.is_lower_bound:
        return f"lower bound: {row.found_processes} of {row.expected_processes} processes, or a missing energy"
    is_range = row.attributed_energy_j is None and row.attributed_bounds_j is not None
    if uses_energy and energy == "attributed" and is_range:
        low, high = row.attributed_bounds_j or (0.0, 0.0)
        assume = f"{facts.assumption} --force" if facts.assumption is not None else "--assume NAME=VALUE --force"
        advice = f"llm-energy-measure aggregate {row.experiment_id} {assume}"
        range_j = f"{joules(low)} to {joules(high)}"
        return (
            f"undetermined: {range_j}; if you know the missing facts, state them with '{advice}'; or use --energy plain"
        )
    return None


@paused_collector()
def group_observations(observations: Iterable[Observation]) -> list[ObservationGroup]:
    """Return the groups of repeats, sorted by the values that differ between them.

    Two observations are repeats if their configuration and their identity agree. A key that only one observation has
    is a difference. Excluded observations and copies of one measurement are listed in `left_out`.
    """
    groups: dict[tuple[object, ...], list[Observation]] = {}
    numbers: dict[int, int] = {}  # by `id`: many experiments share a dictionary, and it is hashed once
    known: dict[tuple[object, ...], int] = {}
    for one in (observations := list(observations)):
        if (shared := id(one.configuration)) not in numbers:
            numbers[shared] = known.setdefault(tuple(one.configuration.items()), len(known))
        groups.setdefault((numbers[shared], *one.identity.items()), []).append(one)
    members = list(groups.values())
    facts = [facts_of(group[0]) for group in members]
    differing = DifferingKeys()
    for values in facts:
        differing.add(values)
    keys = differing.keys()
    found = [_group(group, {key: one.get(key) for key in keys}) for group, one in zip(members, facts, strict=True)]
    return sorted(found, key=lambda group: [value_order(value) for value in group.differs.values()])


def facts_of(one: Observation) -> dict[str, Value | None]:
    """Return the identity and the configuration of an observation; configuration keys have the prefix `config.`."""
    return {**one.identity, **{PREFIX + key: value for key, value in one.configuration.items()}}


class DifferingKeys:
    """The keys whose values differ between the facts of several observations. An absent key has the value None."""

    def __init__(self) -> None:
        """Start without observations."""
        self._first: dict[str, Value | None] = {}
        self._differing: set[str] = set()
        self._is_first = True

    def add(self, facts: dict[str, Value | None]) -> None:
        """Add the facts of an observation."""
        for name, value in facts.items():
            if self._first.setdefault(name, value if self._is_first else None) != value:
                self._differing.add(name)
        self._differing.update(name for name, value in self._first.items() if value is not None and name not in facts)
        self._is_first = False

    def keys(self) -> list[str]:
        """Return the keys whose values differ, in the order of their first occurrence."""
        return [name for name in self._first if name in self._differing]


def _group(members: Sequence[Observation], differs: dict[str, Value | None]) -> ObservationGroup:
    left_out = {one.experiment_id: one.excluded for one in members if one.excluded is not None}
    used: dict[str, Observation] = {}
    for one in sorted((one for one in members if one.excluded is None), key=_order):
        first = used.setdefault(one.content, one)
        if first is not one:
            left_out[one.experiment_id] = f"copy: the same measurement as {first.experiment_id}"
    name = group_name(members[0], differs)
    return ObservationGroup(name=name, differs=differs, observations=list(used.values()), left_out=left_out)


def group_name(first: Observation, differs: dict[str, Value | None]) -> str:
    """Return the name of a group, from its first observation and the values that differ from other groups."""
    words = [f"{key.removeprefix(PREFIX)}={value}" for key, value in differs.items() if value is not None]
    return ", ".join(words) or first.identity.get("model") or first.experiment_id


def _order(one: Observation) -> tuple[float, str]:
    moment = one.start and to_utc(one.start)
    return (moment.timestamp() if moment else float("inf"), one.experiment_id)


def value_order(value: Value | None) -> tuple[int, float, str]:
    """Return the sort key of a value: numbers, then texts, then unknown values."""
    if value is None:
        return (2, 0.0, "")
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, value)
