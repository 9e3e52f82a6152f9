"""`llm-energy-measure results list`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llm_energy_measure.catalogue.index import GROUP_FIGURES, Catalogue, Group, Query, query_catalogue
from llm_energy_measure.catalogue.query import ALIASES, column_of, where_clause
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS, to_utc
from llm_energy_measure.cli import options, terminal
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_energy_measure.catalogue.summary import ExperimentSummary

_HEADERS = (
    ("id", "left"),
    ("model", "left"),
    ("processes", "right"),
    ("energy", "right"),
    ("tokens", "right"),
    ("tokens/s", "right"),
    ("tokens/J", "right"),
    ("verdict", "left"),
    ("date", "left"),
)
_GROUP_HEADERS = (
    ("experiments", "right"),
    ("energy", "right"),
    ("tokens", "right"),
    ("tokens/J", "right"),
    ("without energy", "right"),
    ("lower bounds", "right"),
)


class _Answer(msgspec.Struct):
    """What a list shows: rows or groups, and what has to be said about them."""

    rows: list[Any]
    matching: int
    pending: int
    problems: list[tuple[str, str]]
    as_of: float | None
    groups: int | None = None


def _names(by: str | None) -> list[str]:
    """Names of columns, once each."""
    return list(dict.fromkeys(name.strip() for name in by.split(","))) if by is not None else []


def _meaningful(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """A callback that takes what makes sense: what does not is wrong usage."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            try:
                check(value)
            except ConfigurationError as error:
                raise click.BadParameter(f"{error.found}; {error.advice}") from error
        return value

    return callback


_CONDITION = _meaningful(lambda text: where_clause(text, COLUMNS))
_COLUMN_LIST = _meaningful(lambda names: [column_of(name, COLUMNS, "cannot group") for name in _names(names)])


@click.command(
    "list",
    epilog=(
        "\b\n"
        "Examples:\n"
        "  llm-energy-measure results list --all --sort energy --limit 10 --model llama\n"
        '  llm-energy-measure results list --where "energy_j > 1000 and tag.paper = fig3"\n'
        "  llm-energy-measure results list --by model,precision"
    ),
)
@click.option("--all", "with_pending", is_flag=True, help="Also those that are not aggregated yet.")
@click.option("--where", metavar="CONDITION", callback=_CONDITION, help="Only those for which it holds, as said above.")
@click.option(
    "--sort",
    "key",
    metavar="COLUMN",
    help="Order by, groups by one of theirs or of their figures; what is unknown comes last. [default: id]",
)
@click.option("--reverse", is_flag=True, help="Greatest first.")
@click.option("--limit", metavar="N", type=click.IntRange(min=0), help="Show at most N rows or groups.")
@click.option("--model", metavar="TEXT", type=options.Text(), help="Only models whose name contains TEXT, in any case.")
@click.option(
    "--by",
    metavar="COLUMN,...",
    callback=_COLUMN_LIST,
    help="Totals of those alike in these columns.",
)
@click.option("--totals", is_flag=True, help="Totals over all of them.")
@click.option("--refresh", is_flag=True, help="Look at every experiment's stamps, however many there are.")
@click.option("--rehash", is_flag=True, help="Read every file again: edits in place leave no stamp on a folder.")
@options.json_option
@options.shared_options
def list_results(
    *,
    with_pending: bool,
    where: str | None,
    key: str | None,
    reverse: bool,
    limit: int | None,
    model: str | None,
    by: str | None,
    totals: bool,
    refresh: bool,
    rehash: bool,
    as_json: bool,
) -> None:
    """List the experiments.

    The verdict on an aggregate that is current is complete, over-counted (the sum counts joules more than once),
    partial (a lower bound), failed (a check did not hold: 'results verify' explains) or warned; else it is stale (raw
    files came, changed or went since), pending (not aggregated), external (derived by another tool) or unreadable. The
    exit status is 1 if a file can't be read.

    A condition compares columns with values: = != < <= > >= ~ (contains) !~, "in (a, b)", "is unknown", joined by and,
    or, not and parentheses. Columns are those of an export, status, verdict, hosts, gpus, precision, note and
    tag.KEY; dates may be a year, a month or a day, in UTC.
    """
    columns = _names(by)
    grouped = bool(columns or totals)
    order = _order(key, columns, grouped=grouped)
    repository = options.repository()
    query = Query(where=where, model=model, with_pending=with_pending)

    def answer(catalogue: Catalogue) -> _Answer:
        groups = catalogue.groups(query, columns, sort=order, reverse=reverse) if grouped else []
        rows: list[Any] = (
            groups[:limit] if grouped else catalogue.summaries(query, sort=order or "id", reverse=reverse, limit=limit)
        )
        return _Answer(
            rows=rows,
            matching=catalogue.count(query),
            pending=0 if with_pending else catalogue.pending(),
            problems=catalogue.problems(query),
            as_of=None if catalogue.is_current else catalogue.as_of,
            groups=len(groups) if grouped else None,
        )

    found = query_catalogue(
        repository, answer, full=refresh, rehash=rehash, warn=terminal.warn, on_progress=terminal.note
    )
    _warn(found)
    if as_json:
        terminal.out_json(msgspec.to_builtins(found.rows))
    elif columns or totals:
        _print_groups(columns, found.rows)
    else:
        _print(found.rows)
    _count(found)
    if found.problems:
        raise SystemExit(1)


def _order(key: str | None, columns: Sequence[str], *, grouped: bool) -> str | None:
    """The column or figure to sort by, once it is known to be one; None is the usual order."""
    if key is None:
        return None
    figure = ALIASES.get(key.lower(), key.lower())
    if grouped and figure in GROUP_FIGURES:
        return figure
    try:
        wanted = column_of(key, COLUMNS, "cannot sort")
    except ConfigurationError as error:
        raise click.BadParameter(f"{error.found}; {error.advice}", param_hint="--sort") from error
    if not grouped:
        return key
    same = [name for name in columns if column_of(name, COLUMNS, "cannot sort") == wanted]
    if not same:
        known = f"groups have {', '.join(GROUP_FIGURES)}"
        raise click.BadParameter(f"{key!r} is neither in --by nor a figure of a group; {known}", param_hint="--sort")
    return same[0]


def _warn(found: _Answer) -> None:
    """Name what can't be read, and only count what belongs to rows that a limit cut off."""
    is_cut = found.groups is None and len(found.rows) < found.matching
    shown = {row.experiment_id for row in found.rows} if is_cut else set()
    hidden = 0
    for experiment, problem in found.problems:
        if is_cut and experiment not in shown:
            hidden += 1
        else:
            terminal.warn(problem)
    if hidden:
        terminal.warn(f"{hidden} more can't be read; without --limit they are named")


def _print(rows: list[ExperimentSummary]) -> None:
    if rows:
        cells = [_cells(row) for row in rows]
        terminal.out_table(_HEADERS, cells, optional=("date", "tokens/s", "tokens", "model"))


def _cells(row: ExperimentSummary) -> tuple[str, ...]:
    found, expected = (terminal.UNKNOWN if n is None else str(n) for n in (row.found_processes, row.expected_processes))
    return (
        row.experiment_id,
        row.model_name or terminal.UNKNOWN,
        f"{found}/{expected}",
        terminal.energy(row.total_energy_j, at_least="≥ " if row.is_lower_bound else ""),
        terminal.count(row.total_tokens),
        terminal.quantity(row.avg_tokens_per_second),
        terminal.quantity(row.tokens_per_joule),
        row.verdict,
        terminal.moment(row.start_time and to_utc(row.start_time)),  # as a condition takes it
    )


def _print_groups(columns: Sequence[str], groups: Sequence[Group]) -> None:
    headers = (*((name, "left") for name in columns), *_GROUP_HEADERS)
    cells = [
        (
            *(_common(value) for value in group.by.values()),
            terminal.count(group.experiments),
            terminal.energy(group.total_energy_j, at_least="≥ " if group.lower_bounds or group.unknown_energy else ""),
            terminal.count(group.total_tokens),
            terminal.quantity(group.tokens_per_joule),
            terminal.count(group.unknown_energy),
            terminal.count(group.lower_bounds),
        )
        for group in groups
    ]
    if cells:
        terminal.out_table(headers, cells, optional=("lower bounds", "without energy", "tokens"))


def _common(value: object) -> str:
    if isinstance(value, datetime):
        return terminal.moment(value)
    return terminal.UNKNOWN if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _count(found: _Answer) -> None:
    """What is not on screen, on stderr."""
    shown = len(found.rows)
    said = terminal.plural(found.matching, "experiment")
    if found.groups is not None and shown < found.groups:
        said = f"{shown} of {found.groups} groups, of {said}"
    elif found.groups is None and shown < found.matching:
        said = f"{shown} of {said}"
    if found.pending:
        said += f"; {found.pending} not aggregated yet (--all lists them, 'aggregate --all' aggregates them)"
    if found.as_of is not None:
        stamp = datetime.fromtimestamp(found.as_of).astimezone()
        said += f"; as of {stamp:%Y-%m-%d %H:%M:%S} (--refresh looks at every experiment again)"
    terminal.note(said)
