"""`llm-energy-measure results report`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import click

from llm_energy_measure.analysis.comparison import Comparison, compare
from llm_energy_measure.analysis.observations import METRICS
from llm_energy_measure.analysis.pairing import Selection
from llm_energy_measure.analysis.selections import column, sides_of
from llm_energy_measure.cli import energies, formatting, options, selection, terminal
from llm_energy_measure.reports.build import build_report
from llm_energy_measure.reports.html import encode_report
from llm_energy_measure.reports.reading import Results, read_results
from llm_energy_measure.results.repository import FileSystemRepository

_SHOW_PROGRESS_FROM = 50

_HELP = """Write a report of experiments as one HTML page.

The page needs no network and no server, and opens in any browser. The page shows the energy per output token of each
configuration with its interval, energy against latency, and the components of the energy. Further sections show the
repeats, the power over time if samples are stored, and the verdict and the findings of each experiment. The page also
lists the experiments that are left out, with the reason, and the commands that print the same numbers. Without ids and
--where, the page has all experiments.

--by and --base, or --compare, add the table of 'results compare'. The command needs the packages matplotlib and jinja2.

The exit status is 1 if no experiment is selected, or if a file can't be read.
"""


@click.command(
    help=_HELP,
    epilog=options.examples(
        "results report --to report.html",
        "results report exp_7 exp_8 --to report.html",
        'results report --where "model ~ llama" --by config.batch_size --base 1 --to report.html',
    ),
)
@selection.selection_options
@click.option(
    "--to", "target", metavar="FILE|-", required=True, type=options.PathName(), help="Write to FILE, or to stdout (-)."
)
@click.option("--by", metavar="COLUMN", type=options.Text(), help="Compare the values of tag.KEY, config.KEY or date.")
@click.option("--base", metavar="VALUE", type=options.Text(), help="With --by: compare with the runs of this value.")
@click.option(
    "--compare",
    "sides",
    metavar="BASE CAND",
    nargs=2,
    type=options.Text(),
    help="Compare the experiments of two conditions.",
)
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(list(METRICS)),
    multiple=True,
    help="Compare this metric; can be repeated. [default: j_per_token]",
)
@energies.energy_option
@options.shared_options
def report(
    *,
    ids: tuple[str, ...],
    target: str,
    where: str | None,
    by: str | None,
    base: str | None,
    sides: tuple[str, str] | None,
    metrics: tuple[str, ...],
    kind: energies.EnergyKind,
) -> None:
    """Write a report; the exit status is 1 if no experiment is selected, or if a file can't be read."""
    if (by is None) != (base is None) or (by is not None and sides is not None):
        raise click.UsageError("Give --by COLUMN with --base VALUE, or --compare BASE CAND.")
    repository = options.repository()
    options.require_safe_target(repository, target)
    condition = selection.condition_of(selection.selected(repository, ids), where)
    results = read_results(
        repository,
        where=condition,
        kind=kind,
        warn=terminal.warn,
        on_progress=terminal.info,
    )
    metrics = metrics or ("j_per_token",)
    comparison, commands = None, []
    if by is not None and base is not None:
        comparison = _compare_by(results, by, base, metrics)
        commands = [_command(results, ["--by", by, "--base", base], metrics)]
    elif sides is not None:
        comparison = _compare_sides(repository, results, sides, metrics)
        commands = [_command(results, sides, metrics)]
    data = encode_report(build_report(results, comparison=comparison, commands=commands, on_step=_with_progress))
    number = len(results.experiments) + len(results.pending)
    terminal.write_or_print(data, target, content=f"report of {formatting.plural(number, 'experiment')}")
    problems = [problem for one in results.experiments for problem in one.summary.problems]
    problems += [problem for row in results.pending for problem in row.problems]
    for problem in problems:
        terminal.warn(problem)
    if problems:
        raise SystemExit(1)


def _compare_by(results: Results, by: str, base: str, metrics: Sequence[str]) -> Comparison:
    with options.usage_errors("--by"):
        column(by, results.observations, f"cannot compare by {by}")
    return compare(*sides_of(results.observations, by, base), metrics=metrics)


def _compare_sides(
    repository: FileSystemRepository, results: Results, sides: Sequence[str], metrics: Sequence[str]
) -> Comparison:
    """Return the comparison of two conditions, which select from the experiments of the report."""
    selections = []
    for text in sides:
        where = text if results.where is None else f"({results.where}) and ({text})"
        with options.usage_errors("--compare"):
            found = read_results(repository, where=where, kind=results.kind, warn=terminal.warn)
        selections.append(Selection(text, found.observations))
    return compare(selections[0], selections[1:], metrics=metrics)


def _command(results: Results, words: Sequence[str], metrics: Sequence[str]) -> str:
    """Return the command that prints the numbers of the comparison."""
    where = [] if results.where is None else ["--where", results.where]
    chosen = [word for metric in metrics for word in ("--metric", metric)]
    energy = [] if results.kind == "attributed" else ["--energy", "plain"]
    directory = results.repository.base_path.name or "results"
    return shlex.join(
        [options.PROGRAM, "-o", directory, "results", "compare", *words, *where, *chosen, *energy, "--json"]
    )


def _with_progress(names: Sequence[str]) -> Iterator[str]:
    """Return the ids. Show a progress bar on a terminal if there are at least `_SHOW_PROGRESS_FROM` ids."""
    if len(names) < _SHOW_PROGRESS_FROM or not terminal.shows_progress():
        return iter(names)
    from llm_energy_measure.cli.progress import with_progress_bar

    return with_progress_bar(names, "reading", len(names))
