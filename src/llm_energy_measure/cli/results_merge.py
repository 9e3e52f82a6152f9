"""`llm-energy-measure results merge`."""

from __future__ import annotations

from collections import Counter

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR
from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.results.batch.merge import merge_results
from llm_energy_measure.results.repository import FileSystemRepository


@click.command(epilog=("\b\nExamples:\n  llm-energy-measure -o all results merge node1/results node2/results"))
@click.argument("others", metavar="OTHER...", nargs=-1, required=True, type=options.PathName())
@options.shared_options
def merge(*, others: tuple[str, ...]) -> None:
    """Copy what OTHER results directories hold into this one.

    Nothing here is replaced: the same content is skipped, so an interrupted merge is simply run again, and different
    content is a conflict that is told. The exit status is 1 if there was a conflict or something could not be copied.
    """
    target = options.repository(must_exist=False)
    sources = [FileSystemRepository(other) for other in others]
    for source in sources:
        if not source.base_path.is_dir():
            raise StorageError(f"cannot merge {source.base_path}", "it is no directory", "check the spelling")
        if not options.holds_results(source.base_path):
            found = f"it holds neither {RAW_DIR}/ nor {AGGREGATED_DIR}/"
            raise StorageError(f"cannot merge {source.base_path}", found, "name a results directory")
    counts: Counter[str] = Counter()
    for source in sources:
        for merged in merge_results(target, source):
            counts[merged.outcome] += 1
            if merged.outcome in ("conflict", "failed"):
                terminal.error(f"{merged.outcome}: {source.base_path}/{merged.key}: {merged.reason}")
            else:
                terminal.detail(f"{merged.outcome}: {merged.key}")
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("copied", "same", "conflict", "failed"))
    terminal.note(said)
    if counts["conflict"] or counts["failed"]:
        raise SystemExit(1)
