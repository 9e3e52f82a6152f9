"""`llm-energy-measure results sync`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from llm_energy_measure.catalogue.paths import cache_folder
from llm_energy_measure.cli import formatting, options, streams, terminal
from llm_energy_measure.constants import RESULTS_DIR_ENV
from llm_energy_measure.results.batch.sync import SyncedExperiment, changed_experiments, sync_results
from llm_energy_measure.results.batch.uploads import upload_waiting
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.storage.base import StorePath


@click.command(
    epilog=options.examples(
        "results sync s3://bucket/results",
        "-o results results sync s3://bucket/results",
        "-q -o results results sync gs://bucket/results",
    )
)
@click.argument("other", metavar="URL", type=options.PathName())
@click.option(
    "--rehash",
    is_flag=True,
    help="Compare the content of all experiments, even if no name, size, mtime or ETag of a file has changed.",
)
@options.shared_options
@streams.finish_work
def sync(*, other: str, rehash: bool) -> None:
    """Copy missing files in both directions, between the results directory (-o) and URL.

    The command first uploads the results that recordings could not upload to URL. If URL is a bucket, and neither -o
    nor LLM_ENERGY_MEASURE_RESULTS_DIR is set, the command uploads only these results. No result is replaced or deleted:
    an equal file is skipped, and a different file is a conflict. The command can run from cron, and several hosts may
    use one URL at the same time. If the command is interrupted, run the command again. The exit status is 1 if there
    was a conflict or a file could not be copied.
    """
    remote = FileSystemRepository(other)
    local = _local(remote)
    counts: Counter[str] = Counter()
    for upload, synced in upload_waiting(remote, os.environ):
        _count(counts, synced, f"{upload.base_path}/")
    if local is not None:
        path = _state_path(local, remote)
        state = {} if rehash else _load(path)
        for synced in _with_progress(local, remote, state):
            _count(counts, synced)
        _save(path, state)
    problems = formatting.plural(counts["problems"], "problem")
    terminal.info(f"{counts['uploaded']:,} uploaded, {counts['downloaded']:,} downloaded, {problems}")
    if counts["problems"]:
        raise SystemExit(1)


def _local(remote: FileSystemRepository) -> FileSystemRepository | None:
    """Return the results directory. None if the directory is URL, or if URL is a bucket and no directory is set."""
    is_given = options.given_results_dir() is not None or RESULTS_DIR_ENV in os.environ
    if not is_given and isinstance(remote.base_path, StorePath):
        return None
    found = options.repository(must_exist=False)
    return None if found.base_path == remote.base_path else found


def _count(counts: Counter[str], synced: SyncedExperiment, place: str = "") -> None:
    """Count the copied files of an experiment, and print its problems."""
    counts["uploaded"] += sum(one.outcome == "copied" for one in synced.uploaded)
    counts["downloaded"] += sum(one.outcome == "copied" for one in synced.downloaded)
    for problem in synced.problems:
        counts["problems"] += 1
        terminal.error(f"{problem.outcome}: {place}{problem.key}: {problem.reason}")


def _with_progress(
    local: FileSystemRepository, remote: FileSystemRepository, state: dict[str, str]
) -> Iterator[SyncedExperiment]:
    """Return the experiments. Show a progress bar if stderr is a terminal and at least 2 experiments changed."""
    if terminal.shows_progress() and (total := len(changed_experiments(local, remote, state))) > 1:
        # Only commands that print a table or a progress display import rich.
        from llm_energy_measure.cli.progress import with_progress_bar

        return with_progress_bar(sync_results(local, remote, state), "syncing", total)
    return sync_results(local, remote, state)


def _state_path(local: FileSystemRepository, remote: FileSystemRepository) -> Path:
    """Return the file in the user's cache folder with the fingerprints of the last sync of these two places."""
    places = [place.resolve() if isinstance(place, Path) else place for place in (local.base_path, remote.base_path)]
    name = hashlib.sha256("\n".join(map(str, places)).encode()).hexdigest()[:32]
    return cache_folder() / f"{name}.sync.json"


def _load(path: Path) -> dict[str, str]:
    """Return the stored fingerprints. Without fingerprints, the sync compares all experiments."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()):
            return found
    return {}


def _save(path: Path, state: dict[str, str]) -> None:
    """Store the fingerprints. An error is ignored: without fingerprints, the next sync is only slower."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(path)
