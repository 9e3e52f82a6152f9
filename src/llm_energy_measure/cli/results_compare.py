"""`llm-energy-measure results compare`."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import click

from llm_energy_measure.analysis.comparison import compare
from llm_energy_measure.analysis.observations import METRICS, Observation, read_observations
from llm_energy_measure.analysis.pairing import Selection
from llm_energy_measure.analysis.selections import column, full_names, sides_of
from llm_energy_measure.cli import comparison_output, energies, options, streams, terminal
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results.repository import FileSystemRepository

_FORMATS = {".md": "markdown", ".tex": "latex", ".json": "json", ".xml": "junit"}
_CONDITIONS = ("worse", "undecided", "confounded")
_NAME = re.compile(r"[^\s=<>~!(),'\"]+")
_FAILED = 3
"""Exit status if a condition of --fail-on is met."""
_PARTIAL = 4
"""Exit status if some candidates were not compared, and no condition of --fail-on is met."""


def _margin(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    """Return the margin as a fraction between 0 and 1. `3%` and `0.03` give 0.03."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)\s*", value)
    margin = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < margin < 1:
        raise click.BadParameter(f"{value!r} is not a margin between 0 and 1; write 3% or 0.03")
    return margin


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    return options.names_of(value)


def _fail_on(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    """Return the conditions of a comma-separated list."""
    conditions = options.names_of(value)
    for word in conditions:
        if word not in _CONDITIONS:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(_CONDITIONS)}")
    return conditions


_HELP = """Compare configurations: ratio, 95 % interval and a verdict for each.

BASE and each CAND select runs: a results directory, or a condition of 'results list --where'. With --by, one value of
a column is the base, and each other value is a candidate. Rows are the configurations that both sides have.

\b
Verdicts:
  worse, better  p is less than 0.05 and the change is beyond the margin
  equivalent     the 90 % interval of the change is within the margin
  undecided      none of these; the output has the number of further repeats that give a verdict if the ratio and the
                 spread stay the same

The mark 'confounded' means that all runs of one side started before all runs of the other side, or that the sides ran
on different hosts. Time or host can then explain the change, too. 'results order' prints an interleaved order of runs.

The change is the ratio of the geometric means minus 1, in percent. The test is Welch's t test on logarithms; with
--block, it is the paired t test. p is adjusted for the number of rows (Holm); the interval is not adjusted. The command
refuses runs that differ in model, GPU, token budget, or in scope, provenance or version of the energy, unless --vary
names this field. If a side has one run, there is no verdict.

\b
Exit status:
  0  the comparison was done, and no condition of --fail-on is met
  1  the comparison was not done
  2  wrong usage
  3  a condition of --fail-on is met; a row without a verdict counts as undecided
  4  some candidates were not compared, and the others meet no condition of --fail-on
"""


@click.command(
    help=_HELP,
    epilog=options.examples(
        'results compare "config.batch_size = 1" "config.batch_size = 4"',
        "results compare baseline/ nightly/ --metric j_per_output_token --margin 5%",
        "results compare --by tag.commit --base a1b2c3d --fail-on worse --to report.xml",
    ),
)
@click.argument("selections", metavar="[BASE CAND...]", nargs=-1, type=options.Text())
@click.option("--by", metavar="COLUMN", type=options.Text(), help="Compare the values of tag.KEY, config.KEY or date.")
@click.option("--base", metavar="VALUE", type=options.Text(), help="With --by: compare with the runs of this value.")
@click.option("--where", metavar="CONDITION", help="Compare only experiments that match CONDITION.")
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(list(METRICS)),
    multiple=True,
    help="Compare this metric; can be repeated. [default: j_per_token]",
)
@click.option(
    "--margin", metavar="PERCENT", callback=_margin, default="3%", show_default=True, help="Ignore smaller changes."
)
@click.option(
    "--block",
    metavar="COLUMN",
    help="Pair the runs by date, host or tag.KEY, if at least three values of this column occur on both sides.",
)
@click.option("--vary", metavar="FIELD,...", callback=_names, help="Allow these fields to differ between the sides.")
@click.option("--ignore", metavar="KEY,...", callback=_names, help="Do not separate the runs by these keys or facts.")
@click.option(
    "--fail-on",
    metavar="CONDITION,...",
    callback=_fail_on,
    help="Exit with status 3 if a row meets one of these conditions: worse, undecided, confounded.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "latex", "json", "junit"]),
    help="Print this format. [default: by suffix of --to, else table]",
)
@click.option("--to", "target", metavar="FILE|-", type=options.PathName(), help="Write to FILE, or to stdout (-).")
@energies.energy_option
@energies.unit_option
@options.json_option
@options.shared_options
@streams.finish_work
def compare_results(
    *,
    selections: tuple[str, ...],
    by: str | None,
    base: str | None,
    where: str | None,
    metrics: tuple[str, ...],
    margin: float,
    block: str | None,
    vary: list[str],
    ignore: list[str],
    fail_on: list[str],
    form: str | None,
    target: str | None,
    kind: energies.EnergyKind,
    unit: str | None,
    as_json: bool,
) -> None:
    """Compare configurations; `_HELP` is the help text."""
    figures = list(dict.fromkeys(metrics)) or ["j_per_token"]
    energies.require_unit_fits(unit, figures)
    form = "json" if as_json else form or options.format_of(target or "", _FORMATS, default="table")
    reader = _Reader(where, kind)
    if by is not None:
        if base is None or selections:
            raise click.UsageError("--by COLUMN needs --base VALUE, and cannot be used with BASE and CAND.")
        base_side, candidates = _sides_by(by, base, reader)
    elif len(selections) < 2 or base is not None:
        raise click.UsageError("Give BASE and CAND, or --by COLUMN with --base VALUE.")
    else:
        base_side, *candidates = (_selection(text, reader) for text in selections)
    runs = [one for side in (base_side, *candidates) for one in side.observations]
    for folder in {one.directory for one in runs}:
        options.require_safe_target(FileSystemRepository(folder), target or "-")
    with options.usage_errors("--block"):
        block_of = column(block, runs, f"cannot pair by {block}") if block is not None else None
    with options.usage_errors("--vary"):
        fields = full_names(vary, runs, "cannot vary")
    with options.usage_errors("--ignore"):
        ignored = full_names(ignore, runs, "cannot ignore")
    comparison = compare(
        base_side,
        candidates,
        metrics=figures,
        margin=margin,
        vary=fields,
        ignore=ignored,
        block_of=block_of,
        keep_going=True,
    )
    if form == "table" and target in (None, "-"):
        comparison_output.print_tables(comparison, kind, unit)  # the table fits the width of the terminal
    else:
        data = comparison_output.encoded(comparison, form, fail_on, kind, unit)
        terminal.write_or_print(data, target or "-", content=comparison_output.summary(comparison))
    if any(comparison.has(condition) for condition in fail_on):
        raise SystemExit(_FAILED)
    if comparison.not_compared:
        raise SystemExit(_PARTIAL)


class _Reader(NamedTuple):
    """Reads runs with the options `--where` (None reads all runs) and `--energy`."""

    where: str | None
    kind: energies.EnergyKind

    def read(self, directory: str | None = None, condition: str | None = None) -> list[Observation]:
        """Return the runs of `directory`, by default the one of -o, that match `--where` and `condition`."""
        conditions = [f"({text})" for text in (self.where, condition) if text is not None]
        try:
            return read_observations(
                options.repository() if directory is None else directory,
                where=" and ".join(conditions) or None,
                energy=self.kind,
                warn=terminal.warn,
            )
        except ConfigurationError as error:
            if not error.doing.startswith("cannot filter"):
                raise
            if condition is None:
                raise click.BadParameter(str(error), param_hint="--where") from error
            found = f"{error.found}; {error.advice}"
            if _NAME.fullmatch(condition):
                is_path = "/" in condition
                advice = (
                    "give an existing directory" if is_path else f'to select an experiment, write "id = {condition}"'
                )
                found = f"there is no directory with this name; {advice}"
            message = f"{condition!r} is neither a directory nor a condition: {found}"
            raise click.BadParameter(message, param_hint="BASE or CAND") from error


def _sides_by(by: str, base: str, reader: _Reader) -> tuple[Selection, list[Selection]]:
    """Return the base and the candidates of --by."""
    runs = reader.read()
    with options.usage_errors("--by"):
        read = column(by, runs, f"cannot compare by {by}")
    for one in runs:
        if one.excluded is not None and read(one) is None:
            terminal.warn(f"left out: {one.experiment_id} has no {by}: {one.excluded}")
    return sides_of(runs, by, base)


def _selection(text: str, reader: _Reader) -> Selection:
    """Return the runs of the directory `text`. If `text` is not a directory, it is read as a condition."""
    # Path.is_dir raises an error for a long condition, because no file name is that long.
    if os.path.isdir(text):  # noqa: PTH112 - see above
        return Selection(text, reader.read(directory=text))
    return Selection(text, reader.read(condition=text))
