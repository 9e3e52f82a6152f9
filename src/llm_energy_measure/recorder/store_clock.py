"""The clock that sets the modification times of a store's files: the only clock that all hosts of a store share."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from llm_energy_measure.recorder.clock import Clock
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.folder import store_time_ns

# Shared file systems on which each host sets modification times from its own clock. `fuse` includes all file systems
# in user space (fuse.glusterfs, fuse.sshfs), because the clock that they use is unknown.
_CLIENT_TIMESTAMPS = frozenset({"afs", "ceph", "fuse", "gfs2", "gpfs", "lustre", "ocfs2"})

# A kernel sets a modification time to the time of its last clock tick. There are at least 100 ticks per second.
# Source: current_time() of Linux.
_TICK_NS = 10_000_000
_SECOND_NS = 1_000_000_000


class StoreTime(NamedTuple):
    """One reading of the clock of a store.

    Attributes:
        store: Time of the store, in seconds since 1970-01-01 UTC.
        monotonic: The same instant on the monotonic clock of this machine, in seconds.
        error_sec: Largest possible error of `store`, in seconds.
    """

    store: float
    monotonic: float
    error_sec: float

    @classmethod
    def from_mtime(cls, mtime_ns: int, start: float, end: float) -> StoreTime:
        """Return the reading, computed from the mtime of a file that was created between two monotonic instants."""
        tick_ns = _tick_ns(mtime_ns)
        error_sec = (tick_ns / _SECOND_NS + end - start) / 2
        return cls((mtime_ns + tick_ns / 2) / _SECOND_NS, (start + end) / 2, error_sec)

    def at(self, monotonic: float) -> float:
        """Return the time of the store at another instant of this machine's monotonic clock."""
        return self.store + (monotonic - self.monotonic)


class StoreClock:
    """Reads the clock of a store through the modification time of a temporary file.

    Args:
        store: The store.
        key: Key of a value that exists, that every process sees, and that does not change. The temporary file is in
            the same folder.

    Attributes:
        store_id: Id of the store, equal on every host that mounts it and different in a copy of the store. None if
            hosts do not share the clock of this store.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._folder = store, key.rpartition("/")[0]
        self.store_id: str | None = None
        if store.supports_paths and store.supports_mtime:
            with contextlib.suppress(OSError):
                found = store.path(key).stat()
                if not has_client_timestamps(found.st_dev, _mounts()):
                    self.store_id = f"{found.st_ino:x}-{found.st_mtime_ns:x}"

    def read(self, clock: Clock) -> StoreTime | None:
        """Return the time of the store; None if the clock cannot be read or hosts do not share it."""
        if self.store_id is None:
            return None
        start = clock.monotonic()
        mtime_ns = store_time_ns(self._store, self._folder)
        end = clock.monotonic()
        return StoreTime.from_mtime(mtime_ns, start, end) if mtime_ns else None


def has_client_timestamps(device: int, mounts: str) -> bool:
    """Return whether each host sets modification times from its own clock; False if unknown.

    Args:
        device: Number of the file system, from `os.stat`.
        mounts: Content of /proc/self/mountinfo. Source: proc_pid_mountinfo(5).
    """
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [f"{os.major(device)}:{os.minor(device)}"]:
            return after.split(" ")[0].partition(".")[0] in _CLIENT_TIMESTAMPS
    return False


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # this system is not Linux


def _tick_ns(mtime_ns: int) -> int:
    """Return the resolution of an mtime, in nanoseconds. Some file systems store only multiples of 1 s or of 2 s."""
    if mtime_ns % _SECOND_NS:
        return _TICK_NS
    return 2 * _SECOND_NS if mtime_ns % (2 * _SECOND_NS) == 0 else _SECOND_NS
