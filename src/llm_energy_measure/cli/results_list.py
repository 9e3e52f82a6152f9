"""`llm-energy-measure results list`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from llm_energy_measure.catalogue.index import Catalogue, query_catalogue
from llm_energy_measure.catalogue.query import ALIASES, column_of, is_config, no_match_hint, where_clause
from llm_energy_measure.catalogue.selection import GROUP_FIGURES, Group, Query
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS, to_utc
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.cli import energies, formatting, options, terminal
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.results.strategies import WHOLE_THROUGHPUT
from llm_energy_measure.verification.verdicts import VERDICTS

_HEADERS = (
    ("id", "left"),
    ("model", "left"),
    ("processes", "right"),
    ("energy", "right"),
    ("tokens", "right"),
    ("tokens/s/process", "right"),
    ("tokens/J", "right"),
    ("verdict", "left"),
    ("warnings", "right"),
    ("date", "left"),
)
# Indices of the columns that are left out on a narrow terminal, the least important column first.
_OPTIONAL = (9, 8, 5, 4, 1, 6, 2, 7)
_GROUP_HEADERS = (
    ("experiments", "right"),
    ("energy", "right"),
    ("tokens", "right"),
    ("tokens/J", "right"),
    ("without energy", "right"),
    ("lower bounds", "right"),
)

# The figure of a group by which `--sort TITLE` sorts: (with attributed energies, with plain sums).
_GROUP_TITLES = {
    "energy": ("attributed_high_j", "total_energy_j"),
    **dict.fromkeys(("efficiency", "tokens/j"), ("attributed_tokens_per_joule", "tokens_per_joule")),
    "without energy": ("unknown_energy", "unknown_energy"),
    "lower bounds": ("lower_bounds", "lower_bounds"),
}
# Names with which --columns shows a column of the default table, and the title of this column.
_TITLES = {"energy": "energy", "efficiency": "tokens/J", "tokens/j": "tokens/J"}


class _Listing(msgspec.Struct):
    """The rows or groups to print, and the numbers for the messages.

    Attributes:
        rows: Experiments, or groups.
        values: Values of the columns of --columns, by row.
        matching: Number of experiments that match.
        pending: Number of pending experiments that are left out. 0 with --all.
        problems: Id and message of each unreadable file.
        as_of: Unix time of the last scan, in seconds. None if this command has scanned the results.
        groups: Number of groups before --limit; None if the rows are experiments.
    """

    rows: list[Any]
    values: list[list[Any]]
    matching: int
    pending: int
    problems: list[tuple[str, str]]
    as_of: float | None
    groups: int | None = None


_CONDITION = options.validated_by(lambda text: where_clause(text, COLUMNS))
_GROUP_COLUMNS = options.validated_by(
    lambda text: [column_of(name, COLUMNS, "cannot group") for name in options.names_of(text)]
)
_LIST_COLUMNS = options.validated_by(
    lambda text: [column_of(name, COLUMNS, "cannot list") for name in options.names_of(text)]
)
_HELP = """List experiments, or totals per group.

\b
Verdicts:
{verdicts}

\b
Conditions:
  energy > 1000 and model ~ llama          (~ contains, !~ does not)
  verdict in (failed, partial) or not date < 2026-03
  tag.paper = fig3 and host is unknown
  config.batch_size >= 8                   (a key of the configuration, or the end of a key after a dot)
  energy < 1 kJ and ttft_p99_ms < 0.5 s    (a quantity with its unit; without unit, in base units)
  warnings > 0 and tokens/J < 10           (the title of a column means the value in the table)

Conditions, --columns and --sort accept the columns of an export, the metrics of 'results repeats', and status, verdict,
hosts, gpus, precision, note, tag.KEY and config.KEY ('results configs' lists the keys). The column energy is the number
in the table, without signs such as ≤. energy_j is the plain sum. attributed_energy_j counts each joule once;
attributed_low_j and attributed_high_j are its bounds. A date is a year, a month or a day in UTC. ~ and --model ignore
case. The exit status is 1 if a file can't be read.
""".format(verdicts="\n".join(f"  {word:<13} {meaning}" for word, meaning in VERDICTS.items()))


@click.command(
    "list",
    help=_HELP,
    epilog=options.examples(
        "results list --all --sort energy --limit 10 --model llama",
        'results list --where "energy > 1000 and tag.paper = fig3"',
        "results list --by model,precision,config.batch_size",
        'results list --where "config.batch_size >= 8" --columns id,config.batch_size,energy',
    ),
)
@click.option("-a", "--all", "with_pending", is_flag=True, help="List also experiments that are not aggregated yet.")
@click.option("--where", metavar="CONDITION", callback=_CONDITION, help="List only experiments that match CONDITION.")
@click.option(
    "--sort",
    "key",
    metavar="COLUMN",
    help="Sort by this column, with unknown values last. [default: id; with --by: the group columns]",
)
@click.option("--reverse", is_flag=True, help="Sort in descending order.")
@click.option("--limit", metavar="N", type=options.WholeNumber(min=0), help="Show at most N rows or groups.")
@click.option("--model", metavar="TEXT", type=options.Text(), help="List only models whose name contains TEXT.")
@click.option(
    "--by", metavar="COLUMN,...", callback=_GROUP_COLUMNS, help="Group by these columns; show totals per group."
)
@click.option(
    "--columns",
    "shown",
    metavar="COLUMN,...",
    callback=_LIST_COLUMNS,
    help="Show these columns instead of the default columns.",
)
@click.option("--totals", is_flag=True, help="Show the totals over all listed experiments.")
@click.option(
    "--refresh", is_flag=True, help="Scan all experiments for changed files, even if there are more than 2,000."
)
@energies.energy_option
@energies.unit_option
@options.rehash_option
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
    shown: str | None,
    totals: bool,
    refresh: bool,
    kind: energies.EnergyKind,
    unit: str | None,
    rehash: bool,
    as_json: bool,
) -> None:
    """List experiments, or totals per group; `_HELP` is the help text."""
    columns = options.names_of(by)
    grouped = bool(columns or totals)
    if shown is not None and grouped:
        raise click.UsageError("--columns selects columns of experiments; omit --by and --totals.")
    shown_columns = options.names_of(shown)
    order = _sort_column(key, columns, grouped=grouped, kind=kind)
    repository = options.repository()
    query = Query(where=where, model=model, with_pending=with_pending, energy=kind)

    def read(catalogue: Catalogue) -> _Listing:
        groups = catalogue.groups(query, columns, sort=order, reverse=reverse) if grouped else []
        selected: dict[str, Any] = {"sort": order or "id", "reverse": reverse, "limit": limit}
        rows: list[Any] = groups[:limit] if grouped else catalogue.summaries(query, **selected)
        values = [] if shown is None else catalogue.values(query, shown_columns, **selected)
        return _Listing(
            rows=rows,
            values=values,
            matching=catalogue.count(query),
            pending=0 if with_pending else catalogue.pending(),
            problems=catalogue.problems(query),
            as_of=None if catalogue.is_current else catalogue.as_of,
            groups=len(groups) if grouped else None,
        )

    # The message without --all counts all pending experiments. A name config.KEY can be the end of any key of any
    # configuration. Both need the rows of all experiments.
    names = [*columns, *shown_columns, order or ""]
    needed = query.ids() if with_pending and not any(map(is_config, names)) else None
    listing = query_catalogue(
        repository, read, full=refresh, rehash=rehash, ids=needed, warn=terminal.warn, on_progress=terminal.info
    )
    _warn_about_problems(listing)
    if shown is not None:
        _print_columns(shown_columns, listing, kind, unit, as_json=as_json)
    elif as_json:
        terminal.print_json(msgspec.to_builtins(listing.rows))
    elif grouped:
        _print_groups(columns, listing.rows, kind, unit)
    elif listing.rows:
        cells = _all_cells(listing.rows, kind, unit)
        terminal.print_table(_HEADERS, cells, optional=_OPTIONAL, short={1: _short_models(listing.rows)})
        energies.print_footnote(energies.energy_of(row, kind) for row in listing.rows)
    _print_count(listing, where)
    if listing.problems:
        raise SystemExit(1)


def _sort_column(key: str | None, columns: Sequence[str], *, grouped: bool, kind: energies.EnergyKind) -> str | None:
    """Return the column or group figure to sort by; None for the default order.

    A title of the table selects the figure in this column.

    Raises:
        click.BadParameter: The column is unknown, or groups do not have the column.
    """
    if key is None:
        return None
    figure = key.lower()
    if grouped and figure in _GROUP_TITLES:
        return _GROUP_TITLES[figure][kind == "plain"]
    if grouped and (figure := ALIASES.get(figure, figure)) in GROUP_FIGURES:
        return figure
    with options.usage_errors("--sort"):
        wanted = column_of(key, COLUMNS, "cannot sort")
    if not grouped:
        return key
    same = [name for name in columns if column_of(name, COLUMNS, "cannot sort") == wanted]
    if not same:
        message = f"groups have no column {key!r}; sort by a column of --by, or by {', '.join(GROUP_FIGURES)}"
        raise click.BadParameter(message, param_hint="--sort")
    return same[0]


def _warn_about_problems(listing: _Listing) -> None:
    """Print a warning for each unreadable file, and the number of unreadable files that --limit left out."""
    is_cut = listing.groups is None and len(listing.rows) < listing.matching
    shown = {row.experiment_id for row in listing.rows} if is_cut else set()
    hidden = 0
    for experiment, problem in listing.problems:
        if is_cut and experiment not in shown:
            hidden += 1
        else:
            terminal.warn(problem, fails=True)
    if hidden:
        terminal.warn(f"{formatting.plural(hidden, 'more problem')} not shown; omit --limit to see all", fails=True)


def _all_cells(rows: Sequence[ExperimentSummary], kind: energies.EnergyKind, unit: str | None) -> list[tuple[str, ...]]:
    shown = [energies.energy_of(row, kind) for row in rows]
    scale = energies.scale_of(shown, unit)
    return [_cells(row, energy, scale) for row, energy in zip(rows, shown, strict=True)]


def _cells(row: ExperimentSummary, energy: energies.Energy, scale: tuple[float, str]) -> tuple[str, ...]:
    return (
        row.experiment_id,
        row.model_name or formatting.UNKNOWN,
        f"{formatting.cell(row.found_processes)}/{formatting.cell(row.expected_processes)}",
        energy.cell(scale),
        formatting.count(row.total_tokens),
        formatting.quantity(row.avg_tokens_per_second) + (" (total)" if row.method in WHOLE_THROUGHPUT else ""),
        energy.efficiency_cell(ratio(row.total_tokens, energy.high_j)),
        formatting.verdict(row.verdict, row.attribution_basis),
        formatting.count(len(row.warning_codes)),
        # Conditions compare dates in UTC, so the table shows UTC.
        formatting.date_time(row.start_time and to_utc(row.start_time)),
    )


def _print_columns(
    columns: Sequence[str], listing: _Listing, kind: energies.EnergyKind, unit: str | None, *, as_json: bool
) -> None:
    """Print the columns of --columns. Energy and efficiency have the values and the signs of the default table."""
    titles = {name: _TITLES[name.lower()] for name in columns if name.lower() in _TITLES}
    energy = [energies.energy_of(row, kind) for row in listing.rows]
    if as_json:
        known = [None if one.is_undetermined else one.low_j for one in energy]
        per_joule = [ratio(row.total_tokens, energy_j) for row, energy_j in zip(listing.rows, known, strict=True)]
        own = {"energy": known, "tokens/J": per_joule}
        terminal.print_json(
            [
                {
                    name: own[titles[name]][number] if name in titles else value
                    for name, value in zip(columns, values, strict=True)
                }
                for number, values in enumerate(listing.values)
            ]
        )
        return
    numbers = {name for index, name in enumerate(columns) if _is_numeric(row[index] for row in listing.values)}
    headers = [(name, "right" if name in numbers or name in titles else "left") for name in columns]
    cells = []
    scale = energies.scale_of(energy, unit)
    for row, one, values in zip(listing.rows, energy, listing.values, strict=True):
        usual = {"energy": one.cell(scale), "tokens/J": one.efficiency_cell(ratio(row.total_tokens, one.high_j))}
        cells.append(
            [
                usual[titles[name]] if name in titles else _cell(name, value)
                for name, value in zip(columns, values, strict=True)
            ]
        )
    if cells:
        terminal.print_table(headers, cells)
        if titles:
            energies.print_footnote(energy)


def _short_models(rows: Sequence[ExperimentSummary]) -> list[str]:
    """Return the model names without their organisation, unless two models would then have the same name."""
    names = {row.model_name: (row.model_name or formatting.UNKNOWN).rpartition("/")[2] for row in rows}
    is_clear = len(set(names.values())) == len(names)
    return [names[row.model_name] if is_clear else row.model_name or formatting.UNKNOWN for row in rows]


def _optional_of_groups(columns: int) -> tuple[int, ...]:
    """Return the indices of the least important columns, which come after the group columns."""
    return columns + 5, columns + 4, columns + 2


def _is_numeric(values: Iterable[Any]) -> bool:
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def _cell(name: str, value: Any) -> str:
    if is_config(name):
        return formatting.config_value(value)
    return formatting.date_time(value) if isinstance(value, datetime) else formatting.cell(value)


def _print_groups(columns: Sequence[str], groups: Sequence[Group], kind: energies.EnergyKind, unit: str | None) -> None:
    headers = (*((name, "left") for name in columns), *_GROUP_HEADERS)
    shown = [energies.energy_of_group(group, kind) for group in groups]
    scale = energies.scale_of(shown, unit)
    cells = [
        (
            *(_cell(name, value) for name, value in group.by.items()),
            formatting.count(group.experiments),
            energy.cell(scale),
            formatting.count(group.total_tokens),
            energy.efficiency_cell(group.tokens_per_joule if kind == "plain" else group.attributed_tokens_per_joule),
            formatting.count(group.unknown_energy),
            formatting.count(group.lower_bounds),
        )
        for group, energy in zip(groups, shown, strict=True)
    ]
    if cells:
        terminal.print_table(headers, cells, optional=_optional_of_groups(len(columns)))
        energies.print_footnote(shown)


def _print_count(listing: _Listing, where: str | None) -> None:
    """Print on stderr how many experiments match `where`, how many are pending, and the age of the data."""
    shown = len(listing.rows)
    text = formatting.plural(listing.matching, "experiment")
    if listing.groups is not None and shown < listing.groups:
        text = f"{shown:,} of {listing.groups:,} groups, of {text}"
    elif listing.groups is None and shown < listing.matching:
        text = f"{shown:,} of {text}"
    if not listing.matching and (hint := no_match_hint(where, COLUMNS)):
        text += f"; {hint}"
    if listing.pending:
        text += f"; {listing.pending:,} not aggregated yet (--all lists them, 'aggregate --all' aggregates them)"
    if listing.as_of is not None:
        scanned = datetime.fromtimestamp(listing.as_of).astimezone()
        text += f"; as of {scanned:%Y-%m-%d %H:%M:%S} (--refresh scans all experiments again)"
    terminal.info(text)
