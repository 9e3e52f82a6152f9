"""`llm-energy-measure results merge`."""

from __future__ import annotations

from collections import Counter

import click

from llm_energy_measure.cli import options, streams, terminal
from llm_energy_measure.constants import AGGREGATED_DIR, DEFAULT_RESULTS_DIR, RAW_DIR
from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.results.batch.merge import folder_of, merge_results, owner
from llm_energy_measure.results.batch.renaming import merge_renamed, prefix_of
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import layout


@click.command(
    epilog=options.examples(
        "-o all results merge node1/results node2/results",
        "-o all results merge monday/results tuesday/results --prefix folder",
        "-o all results merge nightly/results --prefix 2026-03-01 --tag commit=a1b2c3d",
    )
)
@click.argument("others", metavar="OTHER...", nargs=-1, required=True, type=options.PathName())
@click.option(
    "--prefix",
    metavar="NAME|folder",
    type=options.Text(),
    help="Rename each experiment to NAME-<id>; with 'folder', NAME is the name of the OTHER directory (node1 for "
    "node1/results). The records keep the original id in origin.",
)
@options.tag_option
@options.shared_options
@streams.finish_work
def merge(*, others: tuple[str, ...], prefix: str | None, tags: dict[str, str]) -> None:
    """Copy the files of OTHER results directories into the results directory (-o).

    No file is replaced: an equal file is skipped, and a different file is reported as a conflict. If the command is
    interrupted, run the command again. The exit status is 1 if there was a conflict or a file could not be copied.
    """
    target = options.repository(must_exist=False)
    sources = [FileSystemRepository(other) for other in others]
    _require_results(sources)
    prefixes = _prefixes(prefix, sources)
    counts: Counter[str] = Counter()
    for source, own_prefix in zip(sources, prefixes, strict=True):
        folders: dict[str, None] = {}
        merging = merge_results(target, source) if own_prefix is None else merge_renamed(target, source, own_prefix)
        for merged in merging:
            counts[merged.outcome] += 1
            if merged.outcome in ("copied", "same") and (folder := folder_of(merged)) is not None:
                folders[folder] = None
            if merged.outcome in ("conflict", "failed"):
                terminal.error(f"{merged.outcome}: {source.base_path}/{merged.key}: {merged.reason}")
            else:
                terminal.debug(f"{merged.outcome}: {merged.key}")
        for folder in folders if tags else ():
            options.set_tags(target, owner(target, folder) or folder, tags)
    terminal.info(", ".join(f"{counts[outcome]} {outcome}" for outcome in ("copied", "same", "conflict", "failed")))
    if counts["conflict"] or counts["failed"]:
        raise SystemExit(1)


def _prefixes(prefix: str | None, sources: list[FileSystemRepository]) -> list[str | None]:
    """Return the prefix of the new ids for each source; None keeps the ids.

    Raises:
        click.BadParameter: The prefix is not valid, or two sources get the same prefix.
    """
    if prefix is None:
        return [None] * len(sources)
    if not layout.is_folder_name(prefix):
        advice = "use at most 200 letters, digits, '.', '_' and '-', and a letter or a digit first"
        message = f"{prefix!r} cannot begin the name of a folder; {advice}"
        raise click.BadParameter(message, param_hint="--prefix")
    found = [prefix_of(prefix, source, DEFAULT_RESULTS_DIR) for source in sources]
    if len(set(found)) < len(found):
        repeated = max(found, key=found.count)
        message = f"several directories get the prefix {repeated!r}; merge each one separately with --prefix NAME"
        raise click.BadParameter(message, param_hint="--prefix")
    return list(found)


def _require_results(sources: list[FileSystemRepository]) -> None:
    """Raise `StorageError` for a source that is not a results directory."""
    for source in sources:
        problem = source.missing_reason()
        if problem is None and source.store.supports_paths and not options.has_results(source.base_path):
            problem = f"it contains neither {RAW_DIR}/ nor {AGGREGATED_DIR}/"
        if problem:
            raise StorageError(f"cannot merge {source.base_path}", problem, "give the path of a results directory")
