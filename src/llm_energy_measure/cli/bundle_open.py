"""`llm-energy-measure bundle open`."""

from __future__ import annotations

import click

from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.manifests import DIGEST_PREFIX
from llm_energy_measure.bundle.opening import open_bundle
from llm_energy_measure.cli import formatting, options, streams, terminal


@click.command(
    "open",
    epilog=options.examples("bundle open fig3.zip --to fig3", "llm-energy-measure -o fig3/data results list --all"),
)
@click.argument("path", metavar="PATH", type=options.PathName())
@click.option("--to", "target", metavar="DIR", required=True, type=options.PathName(), help="Create this folder.")
@options.verbosity_options
@streams.finish_work
def open_(*, path: str, target: str) -> None:
    """Extract a bundle into the new folder DIR; DIR/data is then a results directory.

    No file is extracted if a file is changed or missing, or if no manifest lists it. 'bundle verify DIR' checks the
    folder again.
    """
    with opened(path) as source:
        found = open_bundle(source, target)
    terminal.info(f"{formatting.plural(found.files, 'file')} extracted, digest {DIGEST_PREFIX}{found.digest}")
    terminal.info(f"to list the experiments: {options.PROGRAM} -o {found.results_dir} results list --all")
