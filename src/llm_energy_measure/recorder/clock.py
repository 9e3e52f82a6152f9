"""The clocks that a recording reads: this machine's, the boot that the monotonic one counts from, and the store's."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from llm_energy_measure.storage.folder import store_time_ns
from llm_energy_measure.storage.local import LocalStore

if TYPE_CHECKING:
    from llm_energy_measure.storage.base import Store

_MOUNTS = Path("/proc/self/mountinfo")

# File systems that many hosts write to, and on which each of them stamps with its own clock. Of those in user space
# (`fuse.glusterfs`, `fuse.sshfs`) nobody knows.
_STAMPED_BY_CLIENTS = frozenset({"afs", "ceph", "fuse", "gfs2", "gpfs", "lustre", "ocfs2"})

# A kernel stamps files with the time of its last tick, at least 100 times a second. Source: current_time() of Linux.
_TICK_NS = 10_000_000
_SECOND_NS = 1_000_000_000

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What a recording asks for the time."""

    def wall(self) -> float:
        """Wall clock, in seconds since 1970-01-01 UTC."""

    def monotonic(self) -> float:
        """A clock that never goes back, in seconds since some instant."""

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""

    def boot_id(self) -> str | None:
        """Identity of the boot that the monotonic clock counts from; None if unknown."""


class SystemClock:
    """The clocks of this machine."""

    # The functions themselves, not methods around them: a token's stamp costs half as much so.
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    def boot_id(self) -> str | None:
        """Identity of this boot of this machine, the same in all its containers; None where the system tells none."""
        try:
            return _BOOT_ID.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None


class StoreTime(NamedTuple):
    """One reading of a store's clock.

    Attributes:
        store: What it said, in seconds since 1970-01-01 UTC.
        monotonic: When, by the monotonic clock of this machine, in seconds.
        error_sec: How far `store` may be wrong, in seconds.
    """

    store: float
    monotonic: float
    error_sec: float

    @classmethod
    def of_stamp(cls, timestamp_ns: int, start: float, end: float) -> StoreTime:
        """What a file's stamp says that was made between two instants of the monotonic clock."""
        tick_ns = _tick_ns(timestamp_ns)
        error_sec = (tick_ns / _SECOND_NS + end - start) / 2
        return cls((timestamp_ns + tick_ns / 2) / _SECOND_NS, (start + end) / 2, error_sec)

    def at(self, monotonic: float) -> float:
        """What the store's clock said at another instant of this machine's monotonic one."""
        return self.store + (monotonic - self.monotonic)


class StoreClock:
    """The clock that stamps the files of a store: the only one that hosts which share it have in common.

    Args:
        store: The store.
        mark: Key of a value that every process sees and none changes; in its folder a file is made for each reading,
            and gone at once.
    """

    def __init__(self, store: Store, mark: str) -> None:
        """Find out whether it is one clock for all hosts, and which store's."""
        self._store, self._folder = store, mark.rpartition("/")[0]
        self.store_id: str | None = None
        if isinstance(store, LocalStore):
            try:
                found = store.path(mark).stat()
                if not stamped_by_clients(found.st_dev, _mounts()):
                    # The same on every host that has mounted the store, and another one in a copy.
                    self.store_id = f"{found.st_ino:x}-{found.st_mtime_ns:x}"
            except OSError:
                self.store_id = None

    def read(self, clock: Clock) -> StoreTime | None:
        """What it says; None where it tells nothing, or nothing that holds for other hosts."""
        if self.store_id is None:
            return None
        start = clock.monotonic()
        timestamp_ns = store_time_ns(self._store, self._folder)
        end = clock.monotonic()
        return StoreTime.of_stamp(timestamp_ns, start, end) if timestamp_ns else None


def stamped_by_clients(device: int, mounts: str) -> bool:
    """Whether each host stamps the files of a file system with its own clock; False if nothing says so.

    Args:
        device: The file system's number, as `os.stat` gives it.
        mounts: What is mounted where. Source: proc_pid_mountinfo(5).
    """
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [f"{os.major(device)}:{os.minor(device)}"]:
            return after.split(" ")[0].partition(".")[0] in _STAMPED_BY_CLIENTS
    return False


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not Linux


def _tick_ns(timestamp_ns: int) -> int:
    """How long the clock behind a stamp may stand still: some count whole seconds, or every other one."""
    if timestamp_ns % _SECOND_NS:
        return _TICK_NS
    return 2 * _SECOND_NS if timestamp_ns % (2 * _SECOND_NS) == 0 else _SECOND_NS
