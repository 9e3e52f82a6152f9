"""`llm-energy-measure results repeats`."""

from __future__ import annotations

import click

from llm_energy_measure.analysis import repeats_text
from llm_energy_measure.analysis.observations import METRICS, read_observations
from llm_energy_measure.analysis.repeats import DEFAULT_METRICS, repeats_of
from llm_energy_measure.catalogue.query import no_match_hint
from llm_energy_measure.catalogue.reader import paused_collector
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.cli import energies, formatting, options, repeats_output, selection, terminal

_FORMATS = {".csv": "csv", ".json": "json", ".md": "markdown", ".tex": "latex"}


def _metrics(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    names = options.names_of(value) or list(DEFAULT_METRICS)
    for name in names:
        if name not in METRICS:
            raise click.BadParameter(f"there is no metric {name!r}; choose from {', '.join(METRICS)}")
    return names


_HELP = f"""Show mean and spread over repeats: repeated runs of one configuration.

Experiments are repeats if they agree in configuration, model, precision, hardware, software and the values of --by.
Configuration keys for ids, seeds, output paths, schedules and counters of repeats are ignored; the output names the
ignored keys that vary.
Experiments without a configuration are repeats if their ids differ only in a final _c<n>.

The figures use the attributed energy, which counts each joule once. "±" is half of the t-based 95 % interval of the
mean. CV is the standard deviation divided by the mean. The statistics leave out lower bounds, undetermined and
unreadable results, and copies of a measurement; the output has the reason for each of these experiments.

\b
Metrics:
{chr(10).join(f"  {name:<20}{metric.label}, in {metric.unit}" for name, metric in METRICS.items())}

The exit status is 1 if an aggregate can't be read.
"""


@click.command(
    help=_HELP,
    epilog=options.examples(
        "results repeats --metrics j_per_token,ttft_p50 --by tag.commit",
        'results repeats --where "config.batch_size >= 8" --to table.tex',
    ),
)
@selection.selection_options
@click.option(
    "--metrics",
    metavar="NAME,...",
    callback=_metrics,
    help=f"Show these metrics. [default: {','.join(DEFAULT_METRICS)}]",
)
@click.option("--by", metavar="NAME,...", help="Separate the runs also by tag.KEY, config.KEY, date or host.")
@click.option("--split-by", metavar="KEY,...", help="Separate the runs by these keys, which are ignored by default.")
@click.option("--ignore", metavar="KEY,...", help="Do not separate the runs by these keys, or by a fact such as hosts.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", *_FORMATS.values()]),
    help="Print this format. [default: by suffix of --to, else table]",
)
@click.option("--to", "target", metavar="FILE|-", type=options.PathName(), help="Write to FILE, or to stdout (-).")
@energies.energy_option
@energies.unit_option
@options.json_option
@options.shared_options
@paused_collector()
def repeats(
    *,
    ids: tuple[str, ...],
    where: str | None,
    metrics: list[str],
    by: str | None,
    split_by: str | None,
    ignore: str | None,
    form: str | None,
    target: str | None,
    kind: energies.EnergyKind,
    unit: str | None,
    as_json: bool,
) -> None:
    """Show mean and spread over repeats; the exit status is 1 if an aggregate can't be read."""
    energies.require_unit_fits(unit, metrics)
    if as_json:
        form = form or "json"
    form = form or options.format_of(target or "", _FORMATS, default="table")
    if form == "table" and target not in (None, "-"):
        raise click.UsageError(f"Choose a format for the file with --format, or a suffix of {', '.join(_FORMATS)}.")
    repository = options.repository()
    options.require_safe_target(repository, target or "-")
    observations = read_observations(
        repository,
        where=selection.condition_of(selection.selected(repository, ids), where),
        energy=kind,
        split_by=options.names_of(split_by),
        ignore=options.names_of(ignore),
        by=options.names_of(by),
        metrics=metrics,
        warn=terminal.warn,
    )
    found = repeats_of(observations, metrics)
    if form != "table":
        if form == "csv":  # the other formats contain the runs that are left out
            for line in repeats_text.left_out(found):
                terminal.warn(line)
        content = formatting.plural(len(found.groups), "configuration")
        terminal.write_or_print(repeats_output.encoded(found, form, kind, unit), target or "-", content=content)
    elif found.groups or found.left_out:
        repeats_output.print_table(found, kind, unit)
    else:
        advice = no_match_hint(where, COLUMNS) or "'llm-energy-measure aggregate --all' aggregates them"
        terminal.info(f"no aggregated experiments; {advice}")
    if any(one.is_unreadable for one in observations):
        raise SystemExit(1)
