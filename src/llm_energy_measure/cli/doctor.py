"""`llm-energy-measure doctor`."""

from __future__ import annotations

import os

import click
import msgspec

from llm_energy_measure.cli import formatting, options, terminal
from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.recorder.clock import SystemClock
from llm_energy_measure.recorder.doctor import SourceCheck, examine_sources
from llm_energy_measure.recorder.ranks import ProcessRank
from llm_energy_measure.recorder.sources import Settings

_HEADERS = (
    *(("source", "left"), ("sensor", "left"), ("component", "left"), ("scope", "left"), ("provenance", "left")),
    ("power now", "right"),
)


@click.command(epilog=options.examples("doctor", "doctor --json", "doctor -o s3://bucket/results"))
@options.w_per_core_option
@options.json_option
@options.shared_options
def doctor(*, w_per_core: float | None, as_json: bool) -> int:
    """Show which energy sensors work on this machine.

    For each source that does not work, the output has the reason and what to do. With -o URL, the command also checks
    that several processes can write results to the bucket safely. The exit status is 1 if no source works, or if the
    bucket is not safe.
    """
    # Rank 0 of 1 reads all GPUs of the machine. Other ranks read only their own GPUs.
    settings = Settings(environ=os.environ, rank=ProcessRank(process_index=0, world_size=1), w_per_core=w_per_core)
    checks = examine_sources(settings, SystemClock())
    if as_json:
        terminal.print_json([msgspec.to_builtins(check) for check in checks])
    else:
        _print_checks(checks)
    is_safe = _is_safe_place(options.given_results_dir())
    return 0 if is_safe and any(check.works for check in checks) else 1


def _is_safe_place(place: str | None) -> bool:
    """Write a probe to a bucket, and return False if the bucket is not safe for results. A directory is not checked."""
    # --help does not need this import.
    from llm_energy_measure.results.repository import FileSystemRepository

    if place is None:
        return True
    repository = FileSystemRepository(place)
    store = repository.store
    if store.supports_paths:
        terminal.info(f"{place}: {repository.missing_reason() or 'a directory'}; only buckets are checked")
        return True
    try:
        store.require_safe_writes()
    except StorageError as error:
        terminal.error(error)
        return False
    terminal.info(f"{place}: read, list, write and delete work; conditional writes work (If-None-Match, If-Match)")
    return True


def _print_checks(checks: list[SourceCheck]) -> None:
    rows = [
        (
            check.source,
            sensor.instance,
            sensor.component,
            sensor.scope,
            sensor.provenance,
            sensor.problem or formatting.quantity(sensor.power_w, "W"),
        )
        for check in checks
        for sensor in check.sensors
    ]
    if rows:
        terminal.print_table(_HEADERS, rows)
        terminal.print_line("")
    for check in checks:
        if not check.works:
            terminal.print_text(f"{check.source} does not work: {check.problem}; {check.advice}")
        elif not check.is_automatic:
            how = f"--source {check.source} (sources=[{check.source!r}])"
            terminal.print_text(f"{check.source} works, but only with {how}")
    automatic = [check.source for check in checks if check.works and check.is_automatic]
    terminal.info(f"sources that 'record' uses by default: {', '.join(automatic) or 'none, so the energy is unknown'}")
