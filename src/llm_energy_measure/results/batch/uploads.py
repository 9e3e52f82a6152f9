"""Keep the results of recordings on the local disk until they are uploaded to their bucket.

Each recording has a separate results directory, so that attempts and processes do not conflict there. The name of the
directory identifies the process that writes to it. All directories for one bucket and prefix are in one folder.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from llm_energy_measure.constants import FALLBACK_DIR_ENV, RAW_DIR
from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.results.batch.sync import SyncedExperiment, upload_results
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.storage.base import StorePath
from llm_energy_measure.storage.temporary import unique_suffix, writer_has_ended

_MAX_NAME = 80


def uploads_folder(url: str, environ: Mapping[str, str]) -> Path:
    """Return the local folder of the results that are not yet uploaded to this bucket and prefix.

    Args:
        url: Bucket and prefix, such as `s3://bucket/results`.
        environ: Environment variables. `LLM_ENERGY_MEASURE_FALLBACK_DIR` names the folder that contains the folder of
            each URL. The default is `~/.local/state/llm-energy-measure/uploads`; `XDG_STATE_HOME` replaces
            `~/.local/state`.

    Example:
        >>> uploads_folder("s3://bucket/results", {"LLM_ENERGY_MEASURE_FALLBACK_DIR": "/scratch"}).name
        's3_bucket_results-3333f854'
    """
    given = environ.get(FALLBACK_DIR_ENV)
    state = environ.get("XDG_STATE_HOME", "")
    home = Path(state) if Path(state).is_absolute() else Path(environ.get("HOME") or "~").expanduser() / ".local/state"
    name = re.sub("[^A-Za-z0-9.-]+", "_", url)[:_MAX_NAME]
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    return (Path(given) if given else home / "llm-energy-measure" / "uploads") / f"{name}-{digest}"


def new_upload(folder: Path, name: str) -> FileSystemRepository:
    """Return a new results directory for one recording. The first save creates it.

    Args:
        folder: The folder of the bucket, from `uploads_folder`.
        name: First part of the name of the directory.
    """
    return FileSystemRepository(folder.absolute() / f"{name}{unique_suffix()}")


def remove_upload(local: FileSystemRepository) -> None:
    """Remove the results directory of a recording whose results are in the bucket."""
    shutil.rmtree(local.base_path, ignore_errors=True)


def upload_waiting(
    remote: FileSystemRepository, environ: Mapping[str, str], *, min_age_sec: float = 0.0
) -> Iterator[tuple[FileSystemRepository, SyncedExperiment]]:
    """Upload the results of earlier recordings, and remove their directories. Yield each directory and its outcome.

    A directory with a problem is not removed. An interrupted call can be repeated, and several processes may upload the
    same results. A recording that still runs is left out, unless one of its results is at least `min_age_sec` old.

    Args:
        remote: The results in the bucket.
        environ: Environment variables, as for `uploads_folder`.
        min_age_sec: Minimum age of a result whose process still runs, in seconds. Younger results are left out.
    """
    if not isinstance(remote.base_path, StorePath):
        return
    folder = uploads_folder(str(remote.base_path), environ)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_symlink() and path.is_dir() and _has_ended(path, min_age_sec):
            local = FileSystemRepository(path)
            outcomes = list(upload_results(local, remote))
            yield from ((local, outcome) for outcome in outcomes)
            if not any(outcome.problems for outcome in outcomes):
                remove_upload(local)


def _has_ended(path: Path, min_age_sec: float) -> bool:
    """Return True if the recording has ended, or if one of its results is at least `min_age_sec` old."""
    try:
        if writer_has_ended(f".{path.name}", path.stat().st_mtime):
            return True
        results = [file for file in path.glob(f"{RAW_DIR}/*/*.json") if process_index_of(file.name) is not None]
        return any(time.time() - file.stat().st_mtime >= min_age_sec for file in results)
    except OSError:
        return False  # another process has uploaded and removed the directory meanwhile
