"""Figures with a mark for each configuration (mean and interval) and for each experiment with an uncertain energy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from llm_energy_measure.analysis.observations import METRICS, EnergyKind, Observation
from llm_energy_measure.analysis.repeats import RepeatGroup, Repeats, repeats_of
from llm_energy_measure.domain import formatting
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.reports.plots import FRONT_NOTE, Axis, Kind, Mark, Panel, Plot, Series, pareto_front
from llm_energy_measure.reports.quantities import (
    Quantity,
    as_categories,
    is_number,
    quantity_of,
    require_value,
    sorted_texts,
    stored_columns,
    texts_of,
    uses_energy,
)
from llm_energy_measure.reports.reading import Results, read_results
from llm_energy_measure.reports.style import MOST_SERIES
from llm_energy_measure.results.repository import FileSystemRepository

INTERVAL_NOTE = "Bars: t-based 95 % interval of the mean over repeats. A mark without a bar is one run."
RANGE_NOTE = (
    "A wide pale bar is the range that the records allow. A triangle is a lower bound: the true value can be greater."
)


class Choice(Struct, frozen=True, kw_only=True):
    """The values and the kind of a figure, as the user chooses them.

    Attributes:
        y: Name of the value on the second axis.
        x: Name of the value on the first axis.
        by: Name of the fact that gives the colour. None for one colour.
        facet: Name of the fact that separates the panels. None for one panel.
        kind: How the marks are drawn.
        is_front_drawn: Whether the Pareto front is drawn.
    """

    y: str
    x: str
    by: str | None = None
    facet: str | None = None
    kind: Kind = "points"
    is_front_drawn: bool = False


class _Member(Struct, frozen=True):
    """A mark, and an experiment that has the facts of the mark."""

    mark: Mark
    first: Observation


def metrics_of(*names: str | None) -> list[str]:
    """Return the names that are metrics; all metrics if none of the names is a metric."""
    return [name for name in dict.fromkeys(names) if name in METRICS] or list(METRICS)


def read_for(
    repository: FileSystemRepository,
    choice: Choice,
    *,
    where: str | None = None,
    kind: EnergyKind = "attributed",
    warn: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Results:
    """Return the experiments of a figure, with the values that it shows.

    Args:
        repository: The results directory.
        choice: What the figure shows.
        where: Condition in the grammar of `results list --where`. None selects all experiments.
        kind: `attributed` counts each joule once; `plain` uses the plain sums.
        warn: Function that is called with a message if the catalogue cannot be used.
        on_progress: Function that is called with a message before long work.

    Raises:
        ConfigurationError: The condition or a name is wrong.
    """
    names = [choice.x, choice.y]
    for name in names:
        require_value(name)
    # Tags, date, host, and the configuration keys that are ignored by default separate repeats only if `by` has them.
    facts = [name for name in (choice.x, choice.by, choice.facet) if name is not None and not is_number(name)]
    return read_results(
        repository,
        where=where,
        kind=kind,
        by=facts,
        columns=stored_columns(names),
        uses_energy=any(map(uses_energy, names)),
        warn=warn,
        on_progress=on_progress,
    )


def figure_of(results: Results, choice: Choice, *, name: str = "figure") -> Plot:
    """Return the figure that a user chose.

    Raises:
        ConfigurationError: A name is unknown, no experiment has both values, or two configurations share a position.
    """
    x, y = quantity_of(choice.x, results), quantity_of(choice.y, results)
    if choice.kind in ("bars", "box"):
        x = as_categories(x, results)
    if y.axis.categories is not None:
        doing = f"cannot draw {choice.y!r} on the second axis"
        raise ConfigurationError(doing, "its values are text", f"use a metric: {', '.join(METRICS)}")
    repeats = repeats_of(results.observations, metrics_of(choice.x, choice.y))
    members = [*_of_groups(results, repeats.groups, x, y), *_of_ranges(results, x, y)]
    if not members:
        doing, found = f"cannot draw {choice.y} over {choice.x}", "no experiment has both values"
        raise ConfigurationError(doing, found, "'llm-energy-measure results repeats' shows the known values")
    if choice.kind in ("bars", "line", "box"):
        _require_one_place(members, choice, results, repeats)
    panels = [
        Panel(title=title, series=series, front=_front(series, x, y) if choice.is_front_drawn else [])
        for title, series in _panels(members, results, choice)
    ]
    by = "" if choice.by is None else choice.by.rpartition(".")[2].replace("_", " ")
    return Plot(
        name=name,
        title=_capital(f"{y.axis.label} over {x.axis.label}"),
        description=_description(x, y, len(members), choice),
        kind=choice.kind,
        x=x.axis,
        y=y.axis,
        panels=panels,
        by=by,
        notes=notes_of([member.mark for member in members], has_front=choice.is_front_drawn),
    )


def _description(x: Quantity, y: Quantity, number: int, choice: Choice) -> str:
    coloured = "" if choice.by is None else f", coloured by {choice.by}"
    return f"{formatting.plural(number, 'mark').capitalize()}: {y.axis.label} over {x.axis.label}{coloured}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def notes_of(marks: Sequence[Mark], *, has_front: bool = False) -> list[str]:
    """Return the sentences that explain the marks of a figure."""
    notes = [INTERVAL_NOTE] if any(mark.y is not None and mark.y_low is not None for mark in marks) else []
    if any(mark.is_range or mark.is_lower_bound for mark in marks):
        notes.append(RANGE_NOTE)
    return [*notes, FRONT_NOTE] if has_front else notes


def _of_groups(results: Results, groups: Sequence[RepeatGroup], x: Quantity, y: Quantity) -> Iterator[_Member]:
    """Yield a mark for each configuration that has both values."""
    for group in groups:
        first = results.observation_of[group.experiment_ids[0]]
        at, value = x.statistics(group, results), y.statistics(group, results)
        position = at.mean if x.is_measured else x.value(first)
        if position is None or value.mean is None:
            continue
        mark = Mark(
            x=position,
            y=value.mean,
            y_low=value.ci_95_lower if y.is_measured else None,
            y_high=value.ci_95_upper if y.is_measured else None,
            x_low=at.ci_95_lower if x.is_measured else None,
            x_high=at.ci_95_upper if x.is_measured else None,
            repeats=y.repeats(group, results),
            name=f"{group.name} (n={value.n})",
            verdict=verdicts_of(results, group.experiment_ids),
            target=results.anchor(first.experiment_id),
        )
        yield _Member(mark, first)


def _of_ranges(results: Results, x: Quantity, y: Quantity) -> Iterator[_Member]:
    """Yield a mark for each experiment whose energy is only a range or a lower bound."""
    if y.name not in METRICS:
        return
    for one in results.observations:
        mark = range_mark(results, one, y.name, x.value(one))
        if mark is not None:
            yield _Member(mark, one)


def range_mark(results: Results, one: Observation, metric: str, position: float | None) -> Mark | None:
    """Return the mark of an experiment that takes part in no statistics, because its energy is a range or a bound.

    Args:
        results: All experiments.
        one: The experiment.
        metric: Name of the metric.
        position: Position of the mark on the first axis. None if unknown.

    Returns:
        The mark. None if the experiment is in the statistics, or if its aggregate is stale, altered, unreadable or
        missing. Also None if the position is unknown, or if the value is neither a range nor a lower bound.
    """
    row = results.by_id[one.experiment_id].summary
    if one.excluded is None or position is None or row.verdict in ("stale", "altered", "unreadable", "pending"):
        return None
    bounds = results.bounds(one.experiment_id, metric)
    if bounds is None:
        return None
    low, high = bounds
    is_open = high is None
    if not is_open and low == high:  # the ratio of a partial experiment is neither a range nor a bound
        return None
    return Mark(
        x=position,
        y=low if is_open else None,
        y_low=None if is_open else low,
        y_high=high,
        is_lower_bound=is_open,
        name=one.experiment_id,
        verdict=row.verdict,
        target=results.anchor(one.experiment_id),
    )


def verdicts_of(results: Results, experiment_ids: Sequence[str]) -> str:
    """Return the verdicts on experiments: one word if all agree, otherwise each word with its number of experiments.

    `formatting.verdict` marks a verdict that depends on an assumption.
    """
    rows = [results.by_id[name].summary for name in experiment_ids]
    words = Counter(formatting.verdict(row.verdict, row.attribution_basis) for row in rows)
    if len(words) == 1:
        return next(iter(words))
    return ", ".join(f"{number} {word}" for word, number in words.most_common())


def _panels(members: Sequence[_Member], results: Results, choice: Choice) -> list[tuple[str, list[Series]]]:
    """Return title and series of each panel. All panels have the same series, so that a colour has one meaning."""
    facet, by = _reader(choice.facet, results), _reader(choice.by, results)
    titles = sorted_texts([facet(one.first) for one in members])
    names = sorted_texts([by(one.first) for one in members])
    for option, found in (("--by", names), ("--facet", titles)):
        if len(found) > MOST_SERIES:
            doing, problem = f"cannot draw {len(found)} values of {option}", f"a figure shows at most {MOST_SERIES}"
            raise ConfigurationError(doing, problem, "select with --where, or choose a fact with fewer values")
    members_of: dict[tuple[str, str], list[Mark]] = {}
    for one in members:
        members_of.setdefault((facet(one.first), by(one.first)), []).append(one.mark)
    return [
        (
            title,
            [
                Series(
                    name=name,
                    marks=sorted(members_of.get((title, name), []), key=lambda mark: mark.x),
                )
                for name in names
            ],
        )
        for title in titles
    ]


def _reader(name: str | None, results: Results) -> Callable[[Observation], str]:
    return (lambda _: "") if name is None else texts_of(name, results)


def _front(series: Sequence[Series], x: Quantity, y: Quantity) -> list[tuple[float, float]]:
    marks = [mark for one in series for mark in one.marks]
    return pareto_front(marks, is_greater_x_better=x.is_greater_better, is_greater_y_better=y.is_greater_better)


def _require_one_place(members: Sequence[_Member], choice: Choice, results: Results, repeats: Repeats) -> None:
    """Raise `ConfigurationError` if two configurations have the same position in bars, lines or boxes."""
    facet, by = _reader(choice.facet, results), _reader(choice.by, results)
    points = [one for one in members if not (one.mark.is_range or one.mark.is_lower_bound)]
    places = Counter((facet(one.first), by(one.first), one.mark.x) for one in points)
    shared = [place for place, number in places.items() if number > 1]
    if not shared:
        return
    keys = [key for key in repeats.separating if key not in (choice.x, choice.by, choice.facet)]
    used = {(name or "").rpartition(".")[2] for name in (choice.x, choice.by, choice.facet)}
    differing = [key for key in keys if key.rpartition(".")[2] not in used]
    names = ", ".join(differing) or "their ids"
    found = f"several configurations share {formatting.plural(len(shared), 'position')}; they also differ in {names}"
    advice = "add --by or --facet with this key, select with --where, or use --kind points"
    raise ConfigurationError(f"cannot draw {choice.kind}", found, advice)


def row_name(name: str, verdict: str, number: int) -> str:
    """Return the name of a configuration with the number of its repeats, and their verdict if it is not complete."""
    return f"{name} (n={number})" if verdict == "complete" else f"{name} (n={number}; {verdict})"


def rows_figure(
    results: Results, repeats: Repeats, metric: str, *, name: str, most: int, title: str | None = None
) -> Plot | None:
    """Return a figure with one row per configuration, then one per experiment whose energy is a range or a lower bound.

    Args:
        results: All experiments.
        repeats: The configurations with their statistics, which include the metric.
        metric: Name of the metric.
        name: Id of the figure in the document.
        most: Greatest number of rows.
        title: Title; by default the label of the metric.

    Returns:
        The figure; None without rows.
    """
    quantity = quantity_of(metric, results)
    categories: list[str] = []
    marks: list[Mark] = []
    for group in repeats.groups:
        found = group.statistics[metric]
        if found.mean is not None:
            mark = Mark(
                x=float(len(categories)),
                y=found.mean,
                y_low=found.ci_95_lower,
                y_high=found.ci_95_upper,
                repeats=quantity.repeats(group, results),
                name=f"{group.name} (n={found.n})",
                verdict=verdicts_of(results, group.experiment_ids),
                target=results.anchor(group.experiment_ids[0]),
            )
            categories.append(row_name(group.name, mark.verdict, found.n))
            marks.append(mark)
    for one in results.observations:
        ranged = range_mark(results, one, metric, float(len(categories)))
        if ranged is not None:
            categories.append(f"{one.experiment_id} ({ranged.verdict})")
            marks.append(ranged)
    if not marks:
        return None
    notes = notes_of(marks[:most])
    if len(marks) > most:
        notes.append(f"The figure shows the first {most} of {len(marks)} configurations.")
    label = METRICS[metric].label
    return Plot(
        name=name,
        title=title or _capital(label),
        description=f"One row for each of {formatting.plural(min(len(marks), most), 'configuration')}.",
        kind="rows",
        x=Axis(label="configuration", categories=categories[:most]),
        y=quantity.axis,
        panels=[Panel(series=[Series(name="", marks=marks[:most])])],
        notes=notes,
    )
