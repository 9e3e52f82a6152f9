"""Pair the configurations of two selections of runs, and refuse runs that must not be compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal

from msgspec import Struct

from llm_energy_measure.analysis.observations import NOT_AGGREGATED, Observation, value_order
from llm_energy_measure.catalogue.query import no_match_hint
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.domain.configuration import PREFIX, Value
from llm_energy_measure.exceptions import ConfigurationError, IncompatibleResultsError

Side = Literal["base", "new"]
Facts = dict[str, Value | None]
Configured = tuple[Facts, list[Observation]]
Key = tuple[Value | None, ...]

COMPARABLE_FIELDS = ("model_name", "token_budget", "energy_scope", "provenance", "metric_version", "gpu")
"""The fields of `Observation.comparability`, which must agree between the two sides."""

_ENERGY_FIELDS = frozenset({"energy_scope", "provenance", "metric_version"})


class Selection(Struct, frozen=True):
    """The runs of one side.

    Attributes:
        name: What the user selected: a directory, a condition, or a column and its value.
        observations: The runs.
    """

    name: str
    observations: list[Observation]


class LeftOut(Struct, frozen=True):
    """A run that takes part in no comparison, and the reason."""

    side: Side
    experiment_id: str
    directory: str | None
    reason: str


class Pair(Struct, frozen=True):
    """The runs of one configuration that both sides have.

    Attributes:
        facts: The values of the configuration that both sides share.
        base: Runs of the base, at least one.
        new: Runs of the candidate, at least one.
    """

    facts: Facts
    base: list[Observation]
    new: list[Observation]


class Pairing(Struct, frozen=True):
    """The configurations of two selections.

    Attributes:
        pairs: Configurations that both sides have.
        only_base: Facts of the configurations that only the base has.
        only_new: Facts of the configurations that only the candidate has.
        differs: The values of each side, by the name of each fact that does not separate the pairs. The sides have no
            common value of this fact, or the fact is in `vary`.
        left_out: Runs that are excluded, or that are copies of other runs.
    """

    pairs: list[Pair]
    only_base: list[Facts]
    only_new: list[Facts]
    differs: dict[str, tuple[list[Value | None], list[Value | None]]]
    left_out: list[LeftOut]


def pair_selections(
    base: Selection, new: Selection, *, vary: Collection[str] = (), ignore: Collection[str] = ()
) -> Pairing:
    """Return the configurations of two selections, in pairs that agree in all facts except the compared change.

    If each run of the base differs from each run of the candidate in a fact, this fact is a compared change. A compared
    change does not separate the pairs.

    Args:
        base: The base.
        new: The candidate.
        vary: Names of further facts that do not separate the pairs.
        ignore: Names of facts that separate neither pairs nor repeats.

    Raises:
        ConfigurationError: A side has only runs that are left out, the sides have no configuration in common, or one
            side of a pair has several configurations.
    """
    left_out: list[LeftOut] = []
    seen: dict[str, tuple[Side, str]] = {}
    old_runs = list(_usable(base, "base", seen, left_out))
    new_runs = list(_usable(new, "new", seen, left_out))
    for selection, runs in ((base, old_runs), (new, new_runs)):
        if not runs:
            raise ConfigurationError(f"cannot compare {selection.name!r}", *_nothing_left(selection, left_out))
    sides = [_by_configuration(runs, ignore) for runs in (old_runs, new_runs)]
    names = _varying([facts for side in sides for facts, _ in side])
    values = [{name: _distinct(facts.get(name) for facts, _ in side) for name in names} for side in sides]
    factors = [name for name in names if name in vary or not set(values[0][name]) & set(values[1][name])]
    shared = [name for name in names if name not in factors]
    rows = [_rows(side, shared) for side in sides]
    common = [key for key in rows[0] if key in rows[1]]
    if not common:
        raise ConfigurationError(f"cannot compare {base.name!r} with {new.name!r}", *_nothing_common(shared, rows))
    for key in common:
        for row in rows:
            _require_one_configuration(row[key], names)
    return Pairing(
        pairs=[Pair(dict(zip(shared, key, strict=True)), *(_runs(row[key]) for row in rows)) for key in common],
        only_base=[dict(zip(shared, key, strict=True)) for key in rows[0] if key not in rows[1]],
        only_new=[dict(zip(shared, key, strict=True)) for key in rows[1] if key not in rows[0]],
        differs={name: (values[0][name], values[1][name]) for name in factors},
        left_out=left_out,
    )


def require_comparable(pair: Pair, vary: Collection[str], *, uses_energy: bool) -> None:
    """Raise `IncompatibleResultsError` if the runs of a pair differ in a field of `COMPARABLE_FIELDS`.

    Args:
        pair: The runs.
        vary: Fields that may differ.
        uses_energy: Whether the compared figure depends on the energy. If not, `energy_scope`, `provenance` and
            `metric_version` may differ.

    Raises:
        IncompatibleResultsError: The runs have different known values of a field that is not in `vary`. The message has
            the field and both values.
    """
    for name in COMPARABLE_FIELDS:
        if name in vary or (name in _ENERGY_FIELDS and not uses_energy):
            continue
        owners: dict[str, str] = {}
        for one in (*pair.base, *pair.new):
            if (value := one.comparability.get(name)) is not None:
                owners.setdefault(value, one.experiment_id)
        if len(owners) > 1:
            (first, owner), (second, other) = list(owners.items())[:2]
            found = f"{name} is {first!r} in {owner} and {second!r} in {other}"
            advice = f"select runs that agree, or pass --vary {name}"
            refused = IncompatibleResultsError("cannot compare these runs", found, advice)
            refused.field, refused.values = name, (first, second)
            raise refused


def labels(facts: Sequence[Facts]) -> list[str]:
    """Return a short name of each configuration: the values that differ between them.

    A fact is left out if an earlier fact separates the configurations in the same way.

    Example:
        >>> labels(
        ...     [{"precision": "fp16", "config.run.batch_size": 1}, {"precision": "fp16", "config.run.batch_size": 8}]
        ... )
        ['batch_size=1', 'batch_size=8']
    """
    short = separating_names(facts)
    return [
        ", ".join(f"{short[name]}={text(one.get(name))}" for name in short if one.get(name) is not None) or "all runs"
        for one in facts
    ]


def separating_names(facts: Sequence[Facts]) -> dict[str, str]:
    """Return the names of the facts that separate the configurations, each with a short form of the name.

    A fact is left out as in `labels`.
    """
    partitions: dict[tuple[int, ...], str] = {}
    for name in _varying(facts):
        column = [one.get(name) for one in facts]
        first = {value: index for index, value in reversed(list(enumerate(column)))}
        partitions.setdefault(tuple(first[value] for value in column), name)
    return _short_names(partitions.values())


def text(value: Value | None) -> str:
    """Return a value in the syntax of a condition: `true`, `0.5`, `fp16`. None becomes `unknown`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Return the last part of each dotted name, or the whole name if the last part is not unique."""
    whole = list(names)
    last = [name.rpartition(".")[2] for name in whole]
    return {name: part if last.count(part) == 1 else name for name, part in zip(whole, last, strict=True)}


def _usable(
    selection: Selection, side: Side, seen: dict[str, tuple[Side, str]], left_out: list[LeftOut]
) -> Iterator[Observation]:
    """Yield the runs that are neither excluded nor copies of a run of either side. Append the others to `left_out`."""
    for one in selection.observations:
        reason = one.excluded
        if reason is None:
            first_side, first = seen.setdefault(one.content, (side, one.experiment_id))
            if (first_side, first) == (side, one.experiment_id):
                yield one
                continue
            reason = f"copy: the same measurement as {first}{'' if first_side == side else ' of the base'}"
        left_out.append(LeftOut(side, one.experiment_id, one.directory, reason))


def _nothing_left(selection: Selection, left_out: Sequence[LeftOut]) -> tuple[str, str]:
    ids = {one.experiment_id for one in selection.observations}
    reasons = [one for one in left_out if one.experiment_id in ids]
    if not reasons:
        advice = "run 'llm-energy-measure results list --all' to see the experiments"
        return "no aggregated experiment matches", no_match_hint(selection.name, COLUMNS) or advice
    first = reasons[0]
    if first.reason.startswith(NOT_AGGREGATED):
        return f"{first.experiment_id} is not aggregated", "run 'llm-energy-measure aggregate --all'"
    advice = "choose another metric with --metric, or run 'llm-energy-measure results repeats' for all reasons"
    return f"each run is left out, for example {first.experiment_id}: {first.reason}", advice


def _nothing_common(shared: Sequence[str], rows: Sequence[dict[Key, list[Configured]]]) -> tuple[str, str]:
    """Return the reason and the advice if no configuration is common, with the names that differ."""
    one, other = (next(iter(side)) for side in rows)
    different = [name for name, old, new in zip(shared, one, other, strict=True) if old != new]
    listed = ", ".join(name.removeprefix(PREFIX) for name in different[:5])
    advice = f"for example, {listed} differ; pass --ignore KEY for a key that has no effect"
    return "the two sides have no configuration in common", advice


def _require_one_configuration(row: Sequence[Configured], names: Sequence[str]) -> None:
    """Raise `ConfigurationError` for runs of two configurations: their mean describes neither configuration."""
    if len(row) == 1:
        return
    (first, [run, *_]), (second, [other, *_]) = row[:2]
    name = next(name for name in names if first.get(name) != second.get(name))
    key = name.removeprefix(PREFIX)
    values = f"{text(first.get(name))} in {run.experiment_id} and {text(second.get(name))} in {other.experiment_id}"
    advice = f"narrow the selection to one value, or pass --ignore {key} if it has no effect"
    raise ConfigurationError(
        "cannot treat different configurations as repeats", f"{key} is {values}, on the same side", advice
    )


def _by_configuration(runs: Iterable[Observation], ignore: Collection[str]) -> list[Configured]:
    """Return the facts of each configuration, and its runs."""
    found: dict[tuple[object, ...], list[Observation]] = {}
    for one in runs:
        # `id` is fast, because experiments share dictionaries. The loop below merges equal dictionaries.
        found.setdefault((id(one.configuration), *one.identity.items()), []).append(one)
    merged: dict[tuple[object, ...], Configured] = {}
    for same in found.values():
        facts = {**same[0].identity, **{PREFIX + key: value for key, value in same[0].configuration.items()}}
        facts = {name: value for name, value in facts.items() if name not in ignore}
        merged.setdefault(tuple(facts.items()), (facts, []))[1].extend(same)
    return list(merged.values())


def _varying(facts: Sequence[Facts]) -> list[str]:
    """Return the names whose values differ, in the order of their first occurrence. An absent value is None."""
    names = dict.fromkeys(name for one in facts for name in one)
    return [name for name in names if any(one.get(name) != facts[0].get(name) for one in facts)]


def _distinct(values: Iterable[Value | None]) -> list[Value | None]:
    return list(dict.fromkeys(values))


def _rows(side: Iterable[Configured], shared: Sequence[str]) -> dict[Key, list[Configured]]:
    """Return the configurations of a side by the values of the shared names, sorted by these values."""
    rows: dict[Key, list[Configured]] = {}
    for facts, runs in side:
        rows.setdefault(tuple(facts.get(name) for name in shared), []).append((facts, runs))
    return dict(sorted(rows.items(), key=lambda row: [value_order(value) for value in row[0]]))


def _runs(row: Sequence[Configured]) -> list[Observation]:
    return [one for _, runs in row for one in runs]
