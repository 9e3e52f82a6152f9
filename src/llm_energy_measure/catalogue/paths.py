"""Paths of the catalogue and the dataset: in the results directory, or in the cache of the user."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from llm_energy_measure.storage.base import StorePath
from llm_energy_measure.storage.contained import unusual_type

CATALOGUE_NAME = ".catalogue.sqlite"
"""File name of the catalogue in a results directory."""

DATASET_NAME = "dataset"
"""Name of the folder of Parquet files in a results directory."""

# The write-ahead log of SQLite needs shared memory, which network file systems do not support.
_NETWORK = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"),
        *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs"),
        *("vboxsf", "virtiofs"),
    }
)


def catalogue_path(results_dir: Path) -> Path | None:
    """Return the path of the catalogue of an existing results directory; None if there is no writable folder.

    The catalogue is in the results directory, except in these cases. It is then in the cache of the user:

    - The results are in a bucket.
    - The directory or the catalogue file is not writable, or a file of the catalogue is unsafe.
    - The directory is on a network file system.
    - The directory is the payload of a bag (BagIt).
    """
    own = results_dir / CATALOGUE_NAME
    if (
        not _is_bucket(results_dir)
        and not _is_payload(results_dir)
        and _is_writable(own)
        and unsafe_catalogue_file(results_dir) is None
        and not is_on_network(results_dir)
    ):
        return own
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"{_cached_name(results_dir)}.sqlite" if os.access(folder, os.W_OK) else None


def unsafe_catalogue_file(results_dir: Path) -> str | None:
    """Return the catalogue file that must not be opened, and why; None if all files are safe.

    SQLite changes its files in place. Through a link or a second hard link, SQLite could change a file outside the
    directory. Opening a pipe or a device can block. SQLite also opens files next to the catalogue.
    """
    for suffix in () if _is_bucket(results_dir) else ("", "-wal", "-shm", "-journal"):
        path = results_dir / f"{CATALOGUE_NAME}{suffix}"
        found = unusual_type(path)
        if found is not None:
            return f"{path} is {found}"
    return None


def dataset_path(results_dir: Path) -> Path:
    """Return the folder of the dataset for SQL queries: in the results directory, or in the cache of the user."""
    own = results_dir / DATASET_NAME
    is_place = not _is_bucket(results_dir) and not _is_payload(results_dir)
    is_possible = is_place and _is_writable(own) and (own.is_dir() or not os.path.lexists(own))
    return own if is_possible else cached_dataset_path(results_dir)


def cached_dataset_path(results_dir: Path) -> Path:
    """Return the folder of the dataset of a results directory in the cache of the user."""
    return cache_folder() / f"{_cached_name(results_dir)}.{DATASET_NAME}"


def _is_writable(own: Path) -> bool:
    """Return True if this user can create or write a file or folder. Another user may have created it."""
    exists = os.path.lexists(own)
    return os.access(own.parent, os.W_OK) and not own.is_symlink() and (not exists or os.access(own, os.W_OK))


def _cached_name(results_dir: Path) -> str:
    """Return a unique name for a results directory in the cache."""
    place = str(results_dir) if _is_bucket(results_dir) else results_dir.resolve()
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:32]


def _is_bucket(results_dir: Path) -> bool:
    """Return True if results are in a bucket: their catalogue and dataset are always in the cache of the user."""
    return isinstance(results_dir, StorePath)


def _is_payload(results_dir: Path) -> bool:
    """Return True if the directory is the payload of a bag (BagIt). A further file would make the bag invalid."""
    return (results_dir / os.pardir / "bagit.txt").is_file()


def cache_folder() -> Path:
    """Return the cache folder of the user, in `$XDG_CACHE_HOME` or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path(os.environ.get("HOME") or "~").expanduser() / ".cache"
    return home / "llm-energy-measure"


def is_on_network(folder: Path, mounts: str | None = None) -> bool:
    """Return True if a folder is on a network file system. False if unknown.

    Args:
        folder: The folder.
        mounts: Text of the mount table. None reads `/proc/mounts`.
    """
    if _is_bucket(folder):
        return False
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
            # The last of several mounts on one point hides the others.
            if (path == point or path.startswith(f"{point}/")) and len(point) >= longest:
                kind, longest = fields[2], len(point)
    return kind in _NETWORK
