"""`llm-energy-measure results plot`."""

from __future__ import annotations

from pathlib import Path

import click

from llm_energy_measure.analysis.observations import METRICS
from llm_energy_measure.catalogue.query import no_match_hint
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.cli import energies, formatting, options, terminal
from llm_energy_measure.cli.plot_output import print_figure
from llm_energy_measure.reports.figures import Choice, figure_of, read_for
from llm_energy_measure.reports.images import FORMATS, encode_image
from llm_energy_measure.reports.plots import KINDS, Kind
from llm_energy_measure.reports.style import Size, size_of

_HELP = f"""Draw a figure of experiments, for a paper or in the terminal.

Each configuration has one mark: the mean of its repeats, with the 95 % interval. If the energy of an experiment is a
range or a lower bound, the mark shows the range or the bound. Without --to, the figure is drawn in the terminal. Equal
results give equal files.

\b
Values of --x and --y:
{chr(10).join(f"  {name:<20}{metric.label}, in {metric.unit}" for name, metric in METRICS.items())}
  config.KEY          a key of the configuration (only --x)
  tag.KEY, date, host, model, precision, gpus, backend   (only --x)
  any numeric column of an export, for example ttft_p99_ms

Files need the package matplotlib; drawing in the terminal needs no package.
"""


def _size(_context: click.Context, _parameter: click.Parameter, value: str) -> Size:
    with options.usage_errors("--width"):
        return size_of(value)


@click.command(
    help=_HELP,
    epilog=options.examples(
        "results plot --x itl_p50 --y j_per_output_token --by precision --pareto --to fig.pdf",
        "results plot --x config.batch_size --y j_per_output_token --kind line",
        "results plot --x model --kind bars --facet gpus --width double --to fig.svg",
    ),
)
@click.option("--x", "x_name", metavar="NAME", type=options.Text(), required=True, help="Value on the first axis.")
@click.option(
    "--y",
    "y_name",
    metavar="NAME",
    type=options.Text(),
    default="j_per_output_token",
    show_default=True,
    help="Value on the second axis.",
)
@click.option(
    "--by",
    metavar="NAME",
    type=options.Text(),
    help="Draw each value of config.KEY, tag.KEY or another fact in its own colour.",
)
@click.option("--facet", metavar="NAME", type=options.Text(), help="Draw one panel for each value of this fact.")
@click.option(
    "--kind", "form", type=click.Choice(KINDS), default="points", show_default=True, help="Draw this kind of figure."
)
@click.option("--pareto", is_flag=True, help="Draw the Pareto front: no other mark is better in both values.")
@options.where_option
@click.option(
    "--width",
    metavar="single|double|CM",
    default="single",
    show_default=True,
    callback=_size,
    help="Width of the figure: one column (8.8 cm), two columns (18.1 cm), or centimetres.",
)
@click.option("--to", "target", metavar="FILE", type=options.PathName(), help="Write to FILE: .pdf, .svg or .png.")
@energies.energy_option
@options.shared_options
def plot(
    *,
    x_name: str,
    y_name: str,
    by: str | None,
    facet: str | None,
    form: Kind,
    pareto: bool,
    where: str | None,
    width: Size,
    target: str | None,
    kind: energies.EnergyKind,
) -> None:
    """Draw a figure; the exit status is 1 if no aggregated experiment is selected."""
    suffix = Path(target or "figure.pdf").suffix.lower()
    if suffix not in FORMATS:
        message = f"{target!r} has no suffix of an image; use {', '.join(FORMATS)}"
        raise click.BadParameter(message, param_hint="--to")
    repository = options.repository()
    options.require_safe_target(repository, target or "-")
    choice = Choice(x=x_name, y=y_name, by=by, facet=facet, kind=form, is_front_drawn=pareto)
    with options.usage_errors("--x, --y, --by or --facet"):
        results = read_for(repository, choice, where=where, kind=kind, warn=terminal.warn, on_progress=terminal.info)
    if not results.experiments:
        advice = no_match_hint(where, COLUMNS) or "run 'llm-energy-measure aggregate --all'"
        terminal.error(f"nothing to draw: no aggregated experiment; {advice}")
        raise SystemExit(1)
    figure = figure_of(results, choice)
    if target is None:
        print_figure(figure)
        return
    data = encode_image(figure, width, FORMATS[suffix])
    terminal.write_or_print(data, target, content=f"figure with {formatting.plural(len(figure.marks()), 'mark')}")
