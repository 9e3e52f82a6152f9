"""`llm-energy-measure doctor`."""

from __future__ import annotations

import os

import click
import msgspec

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.recorder.clock import SystemClock
from llm_energy_measure.recorder.doctor import SourceCheck, examine_sources
from llm_energy_measure.recorder.ranks import ProcessRank
from llm_energy_measure.recorder.sources import Settings

_COLUMNS = [
    *(("source", "left"), ("sensor", "left"), ("measures", "left"), ("sees", "left"), ("figure is", "left")),
    ("reads now", "right"),
]


@click.command(epilog="\b\nExamples:\n  llm-energy-measure doctor\n  llm-energy-measure doctor --json")
@click.option(
    "--w-per-core",
    metavar="WATTS",
    type=click.FloatRange(min=0, min_open=True),
    help="Power of a busy core, for the source cpu_model.",
)
@options.json_option
@options.verbosity_options
def doctor(*, w_per_core: float | None, as_json: bool) -> int:
    """Say which energy sensors work here, which do not and why, and what to do.

    The exit status is 1 if none works.
    """
    # Everything this machine shows, not what would be one rank's share of it.
    settings = Settings(environ=os.environ, rank=ProcessRank(process_index=0, world_size=1), w_per_core=w_per_core)
    checks = examine_sources(settings, SystemClock())
    if as_json:
        terminal.out_json([msgspec.to_builtins(check) for check in checks])
    else:
        _show(checks)
    return 0 if any(check.works for check in checks) else 1


def _show(checks: list[SourceCheck]) -> None:
    rows = [
        (
            check.source,
            sensor.instance,
            sensor.component,
            sensor.scope,
            sensor.provenance,
            sensor.problem or terminal.quantity(sensor.power_w, "W"),
        )
        for check in checks
        for sensor in check.sensors
    ]
    if rows:
        terminal.out_table(_COLUMNS, rows)
        terminal.out("")
    for check in checks:
        if not check.works:
            terminal.out(f"{check.source} does not work: {check.problem}; {check.advice}")
    automatic = [check.source for check in checks if check.works and check.is_automatic]
    terminal.note(f"record takes, where none is named: {', '.join(automatic) or 'none, so that energy is unknown'}")
