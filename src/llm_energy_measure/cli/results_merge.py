"""`llm-energy-measure results merge`."""

from __future__ import annotations

from collections import Counter

import click

from llm_energy_measure.cli import options, streams, terminal
from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR
from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.results.batch.merge import merge_results
from llm_energy_measure.results.repository import FileSystemRepository


@click.command(epilog=options.examples("-o all results merge node1/results node2/results"))
@click.argument("others", metavar="OTHER...", nargs=-1, required=True, type=options.PathName())
@options.shared_options
@streams.finish_work
def merge(*, others: tuple[str, ...]) -> None:
    """Copy the files of OTHER results directories into the results directory (-o).

    No file is replaced: an equal file is skipped, and a different one is reported as a conflict. If the command is
    interrupted, run it again. The exit status is 1 if there was a conflict or a file could not be copied.
    """
    target = options.repository(must_exist=False)
    sources = [FileSystemRepository(other) for other in others]
    for source in sources:
        problem = None
        if not source.base_path.is_dir():
            problem = "it is not a directory"
        elif not options.has_results(source.base_path):
            problem = f"it contains neither {RAW_DIR}/ nor {AGGREGATED_DIR}/"
        if problem:
            raise StorageError(f"cannot merge {source.base_path}", problem, "give the path of a results directory")
    counts: Counter[str] = Counter()
    for source in sources:
        for merged in merge_results(target, source):
            counts[merged.outcome] += 1
            if merged.outcome in ("conflict", "failed"):
                terminal.error(f"{merged.outcome}: {source.base_path}/{merged.key}: {merged.reason}")
            else:
                terminal.debug(f"{merged.outcome}: {merged.key}")
    terminal.info(", ".join(f"{counts[outcome]} {outcome}" for outcome in ("copied", "same", "conflict", "failed")))
    if counts["conflict"] or counts["failed"]:
        raise SystemExit(1)
