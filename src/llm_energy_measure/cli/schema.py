"""`llm-energy-measure schema`."""

from __future__ import annotations

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.domain.schema import json_schema


@click.command(epilog=options.examples("schema raw > raw.schema.json"))
@click.argument("kind", type=click.Choice(["raw", "aggregated"]))
@options.shared_options
def schema(*, kind: str) -> None:
    """Print the JSON Schema of a raw result (one process) or an aggregated result (one experiment)."""
    terminal.print_json(json_schema(kind))
