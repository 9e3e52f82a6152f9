"""Where the catalogue of a results directory lies: in it, or in the user's cache where it can't."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

CATALOGUE_NAME = ".catalogue.sqlite"
"""Its name in a results directory."""

DATASET_NAME = "dataset"
"""Name of the folder of Parquet files beside it."""

# SQLite's write-ahead log needs shared memory, which no network file system has.
_NETWORK = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"),
        *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs"),
        *("vboxsf", "virtiofs"),
    }
)


def catalogue_path(results_dir: Path) -> Path | None:
    """The file of the catalogue of a results directory; None if there is no place for one.

    In the directory itself, unless that or another user's file in it is read-only, or it is on a network file system;
    then in the user's cache.

    Args:
        results_dir: The results directory, which is there.
    """
    own = results_dir / CATALOGUE_NAME
    if _is_writable(own) and not is_on_network(results_dir):
        return own
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"{_cached_name(results_dir)}.sqlite" if os.access(folder, os.W_OK) else None


def dataset_path(results_dir: Path) -> Path:
    """The folder of the dataset that is kept up to date for queries: beside the results, or in the user's cache."""
    own = results_dir / DATASET_NAME
    return own if _is_writable(own) else cache_folder() / f"{_cached_name(results_dir)}.{DATASET_NAME}"


def _is_writable(own: Path) -> bool:
    """Whether this user can write something of ours in a results directory: another may have made it."""
    is_there = os.path.lexists(own)
    return os.access(own.parent, os.W_OK) and not own.is_symlink() and (not is_there or os.access(own, os.W_OK))


def _cached_name(results_dir: Path) -> str:
    """A name for a results directory in the cache, which many share."""
    return hashlib.sha256(os.fsencode(results_dir.resolve())).hexdigest()[:32]


def cache_folder() -> Path:
    """The user's cache: `$XDG_CACHE_HOME`, else `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path(os.environ.get("HOME") or "~").expanduser() / ".cache"
    return home / "llm-energy-measure"


def is_on_network(folder: Path, mounts: str | None = None) -> bool:
    """True if a folder is known to be on a network file system.

    Args:
        folder: The folder.
        mounts: The table of mounts, as `/proc/mounts` has it; by default that file's text.
    """
    if mounts is None:
        if sys.platform != "linux":
            return False
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return False
    path = os.fspath(folder.resolve())
    kind, longest = "", -1
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) > 2:
            point = fields[1].replace("\\040", " ").rstrip("/")
            # Of several mounts on one point the last is what is seen.
            if (path == point or path.startswith(f"{point}/")) and len(point) >= longest:
                kind, longest = fields[2], len(point)
    return kind in _NETWORK
