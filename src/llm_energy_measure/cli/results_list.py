"""`llm-energy-measure results list`."""

from __future__ import annotations

import click
import msgspec

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.cli.overview import SORT_KEYS, Overview, overview, sort_key

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


@click.command(
    "list",
    epilog=("\b\nExamples:\n  llm-energy-measure results list --all --sort energy --limit 10 --model llama"),
)
@click.option("--all", "with_pending", is_flag=True, help="Also those that are not aggregated yet.")
@click.option("--sort", "key", type=click.Choice(list(SORT_KEYS)), default="id", show_default=True, help="Order by.")
@click.option("--reverse", is_flag=True, help="Greatest first.")
@click.option("--limit", metavar="N", type=click.IntRange(min=0), help="Show at most N.")
@click.option("--model", metavar="TEXT", help="Only models whose name contains TEXT, in any case.")
@options.json_option
@options.results_dir_option
def list_results(
    *, with_pending: bool, key: str, reverse: bool, limit: int | None, model: str | None, as_json: bool
) -> None:
    """List the experiments.

    The verdict on an aggregate that is current is complete, over-counted (the sum counts joules more than once),
    partial (a lower bound), failed (a check did not hold: 'results verify' explains) or warned; else it is stale (raw
    files came or changed since), pending (not aggregated), foreign (derived by another tool) or unreadable. The exit
    status is 1 if a file can't be read.
    """
    repository = options.repository()
    names = set(repository.list_aggregated())
    pending = set(repository.list_experiments()) - names
    rows = [overview(repository, name) for name in sorted(names | pending if with_pending else names)]
    # What can't be read might be of the model that was asked for.
    problems = [problem for row in rows if row.model_name is None or _is_of(model, row) for problem in row.problems]
    rows = [row for row in rows if _is_of(model, row)]
    rows.sort(key=lambda row: sort_key(row, key))
    if reverse:
        known = [row for row in rows if not sort_key(row, key)[0]]
        rows = known[::-1] + rows[len(known) :]
    shown = rows if limit is None else rows[:limit]
    for problem in problems:
        terminal.warn(problem)
    if as_json:
        terminal.out_json(msgspec.to_builtins(shown))
    else:
        _print(shown)
        _count(shown=len(shown), matching=len(rows), hidden=0 if with_pending else len(pending))
    if problems:
        raise SystemExit(1)


def _is_of(model: str | None, row: Overview) -> bool:
    return model is None or (row.model_name is not None and model.casefold() in row.model_name.casefold())


def _print(rows: list[Overview]) -> None:
    if rows:
        cells = [_cells(row) for row in rows]
        terminal.out_table(_HEADERS, cells, optional=("date", "tokens/s", "tokens", "model"))


def _cells(row: Overview) -> tuple[str, ...]:
    found, expected = (terminal.UNKNOWN if n is None else str(n) for n in (row.found_processes, row.expected_processes))
    return (
        row.experiment_id,
        row.model_name or terminal.UNKNOWN,
        f"{found}/{expected}",
        ("≥ " if row.is_lower_bound else "") + terminal.quantity(row.total_energy_j, "J"),
        terminal.count(row.total_tokens),
        terminal.quantity(row.avg_tokens_per_second),
        terminal.quantity(row.tokens_per_joule),
        row.verdict,
        terminal.moment(row.start_time),
    )


def _count(*, shown: int, matching: int, hidden: int) -> None:
    """What is not on screen, on stderr."""
    said = terminal.plural(shown, "experiment") if shown == matching else f"{shown} of {matching} experiments"
    if hidden:
        said += f"; {hidden} not aggregated yet (--all lists them, 'aggregate --all' aggregates them)"
    terminal.note(said)
