"""Locks between the processes of an experiment: files that exactly one process can create.

A process locks its rank, so that no other process records the same rank. A process also locks each sensor that several
processes can read, so that each joule counts once. The process that creates the lock file first gets the lock. At the
end of its recording, this process deletes the file, and another process can get the lock. The lock file of a killed
process remains. The file contains host, boot id, process id and attempt, so that other processes detect a dead owner.

The names of lock files contain a number. If the owner of the last file is dead, the process that creates the file with
the next number gets the lock. At the end, a process deletes the files with lower numbers first, and its own file last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.exceptions import RecorderError, ResultNotFoundError, ResultsError
from llm_energy_measure.recorder.procfs import stat_fields
from llm_energy_measure.recorder.sources import Sensor
from llm_energy_measure.results.store import layout
from llm_energy_measure.storage.base import Store

# If a lock file vanishes between listing and reading more often than this, an error is raised.
_MAX_TRIES = 1_000

# Lock names contain this many characters of the boot id.
_BOOT_DIGITS = 8


class LockOwner(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds a lock; the content of a lock file.

    Attributes:
        process_index: Rank of the process in the experiment.
        attempt: Number of earlier starts of the experiment.
        host: Name of the machine.
        boot_id: Id of the machine's boot; None if unknown.
        pid: Process id.
        pid_namespace: Namespace of the process id; None if unknown.
        started: Start of the process, in clock ticks since the boot; None if unknown.
    """

    process_index: int
    attempt: int = 0
    host: str | None = None
    boot_id: str | None = None
    pid: int
    pid_namespace: str | None = None
    started: int | None = None

    def is_dead(self, observer: LockOwner) -> bool:
        """Return True only if the observer can prove that this process no longer runs.

        A process of an earlier attempt counts as dead.
        """
        if self.attempt != observer.attempt:
            return self.attempt < observer.attempt
        if self.boot_id is None or self.boot_id != observer.boot_id:
            # If the same machine has another boot id now, the process is dead. The observer cannot see processes
            # of other machines.
            return None not in (self.boot_id, observer.boot_id) and self.host == observer.host
        if self.pid_namespace != observer.pid_namespace:
            return False
        return not _is_running(self.pid, self.started)


_DECODER = msgspec.json.Decoder(LockOwner)


def this_process(process_index: int, *, attempt: int, host: str | None, boot_id: str | None) -> LockOwner:
    """Return the calling process as an owner of locks."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = None
    return LockOwner(
        process_index=process_index,
        attempt=attempt,
        host=host,
        boot_id=boot_id,
        pid=os.getpid(),
        pid_namespace=namespace,
        started=_start_ticks(os.getpid()),
    )


def _is_running(pid: int, started: int | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # the process runs and belongs to another user
    now = _start_ticks(pid)
    return started is None or now is None or now == started


def _start_ticks(pid: int) -> int | None:
    """Return the start of a process in clock ticks since the boot (field 22 of proc_pid_stat(5)); None if unknown."""
    try:
        return int(stat_fields(pid)[19])
    except (OSError, IndexError, ValueError):
        return None


class _Waiting(NamedTuple):
    """Sensors that another process reads, and the rank of the last known process that reads them."""

    holder: int
    sensors: list[Sensor]


class Locks:
    """The locks that this process holds in one experiment.

    Args:
        store: Store of the experiment.
        folder: Folder name of the experiment.
        owner: This process.
    """

    def __init__(self, store: Store, folder: str, owner: LockOwner) -> None:
        self.owner = owner
        self.store = store
        self.folder = folder
        self._keys: list[tuple[str, int]] = []  # name and number of each lock that this process holds
        self._waiting: dict[str, _Waiting] = {}

    def acquire(self, name: str) -> LockOwner | None:
        """Try to get a lock. Return None on success, else the running process that holds the lock.

        Args:
            name: Name of the lock, the same in every process that needs it.
        """
        is_ours, owner = self._acquire(name)
        return None if is_ours else owner

    def _acquire(self, name: str) -> tuple[bool, LockOwner | None]:
        """Try to get a lock. Return whether this succeeded, and the owner of the last lock file of another process."""
        while True:
            number, last = self._last(name)
            if last is not None and not last.is_dead(self.owner):
                return False, last
            key = layout.claim_key(self.folder, name, number + 1)
            if self.store.create(key, msgspec.json.encode(self.owner)):
                self._keys.append((name, number + 1))
                return True, last

    def acquire_rank(self) -> None:
        """Lock the rank of this process. Raises `RecorderError` if another running process has this rank."""
        other = self.acquire(f"process_{self.owner.process_index}")
        if other is not None:
            folder = self.store.path(layout.raw_folder(self.folder))
            found = f"process {other.pid} on host {other.host} already records this rank"
            advice = (
                f"give each process its own rank; if that process no longer runs, remove its claim-* files in {folder}"
            )
            raise RecorderError(f"cannot record process {self.owner.process_index}", found, advice)

    def acquire_sensors(self, sensors: Iterable[Sensor]) -> tuple[list[Sensor], list[Sensor]]:
        """Lock the sensors that other processes can read too.

        Returns:
            The sensors that this process reads, and the sensors that are read elsewhere: by another process, or by this
            process through another sensor of the same board.
        """
        # Containers of one machine share its boot id and may have different host names.
        machine = self.owner.boot_id[:_BOOT_DIGITS] if self.owner.boot_id is not None else self.owner.host
        holders: dict[str, LockOwner | None] = {}
        own: list[Sensor] = []
        others: list[Sensor] = []
        boards: set[tuple[str, str]] = set()
        for sensor in sensors:
            board, name = _board(sensor), _lock_name(sensor, machine)
            if name is not None and name not in holders:
                holders[name] = self.acquire(name)
            holder = holders[name] if name is not None else None
            # True for the second slice of a board, and for a GPU that the user selected twice.
            is_second = board is not None and (board, sensor.component) in boards
            if board is not None:
                boards.add((board, sensor.component))
            (own if holder is None and not is_second else others).append(sensor)
            if name is not None and holder is not None and not is_second:
                waiting = self._waiting.setdefault(name, _Waiting(holder.process_index, []))
                waiting.sensors.append(sensor)
        return own, others

    @property
    def is_waiting(self) -> bool:
        """True if another process reads a sensor that this process can take over."""
        return bool(self._waiting)

    def take_over(self) -> list[tuple[list[Sensor], list[int]]]:
        """Try to get the locks of the sensors that other processes read.

        Returns:
            For each lock that this process gets now: its sensors, and the ranks of the processes that may have read
            the sensors last.
        """
        taken = []
        for name, waiting in list(self._waiting.items()):
            is_ours, last = self._acquire(name)
            if is_ours:
                del self._waiting[name]
                # Without a lock file, the last owner is unknown: other processes may have had the lock after `holder`.
                readers = self._ended_since(waiting.holder) if last is None else [last.process_index]
                taken.append((waiting.sensors, readers))
            elif last is not None:
                self._waiting[name] = _Waiting(last.process_index, waiting.sensors)
        return taken

    def _ended_since(self, process_index: int) -> list[int]:
        """Return `process_index`, and each other rank whose result is not older than that of `process_index`."""
        results = {
            index: entry.mtime_sec
            for entry in self.store.list(layout.raw_folder(self.folder))
            if (index := process_index_of(entry.name)) is not None
        }
        first = results.get(process_index)
        return [process_index] if first is None else [index for index, mtime in results.items() if mtime >= first]

    def release(self) -> None:
        """Release all locks. A file that cannot be deleted does no harm, because this process ends soon.

        Lock files with lower numbers belong to dead processes, and are deleted first. The file of this process still
        exists then and has the last number, so no other process can create a file with a lower number.
        """
        while self._keys:
            name, number = self._keys.pop()
            with contextlib.suppress(ResultsError):
                for earlier in range(1, number + 1):
                    self.store.delete(layout.claim_key(self.folder, name, earlier))

    def _last(self, name: str) -> tuple[int, LockOwner | None]:
        """Return number and owner of the last lock file: 0 and None without a file. An unreadable owner is None."""
        for _ in range(_MAX_TRIES):
            names = {entry.name for entry in self.store.list(layout.raw_folder(self.folder))}
            numbers = [number for entry in names if (number := layout.claim_number(entry, name)) is not None]
            number = max(numbers, default=0)
            if number == 0:
                return 0, None
            if number > MAX_PROCESSES:
                files = str(self.store.path(layout.claim_key(self.folder, name, number))).removesuffix(f"{number}.json")
                found = f"its last lock file has the number {number}, above the limit of {MAX_PROCESSES}"
                raise RecorderError(f"cannot lock {name}", found, f"remove {files}*.json")
            try:
                data = self.store.get(layout.claim_key(self.folder, name, number))
                return number, _DECODER.decode(data)
            except ResultNotFoundError:
                # The owner released the lock after the listing, so list again. If this process created the next number,
                # another process could create this number, and both processes would hold the lock.
                continue
            except msgspec.DecodeError:
                return number, None
        found = "its lock files are listed but cannot be found"
        raise RecorderError(f"cannot lock {name}", found, "check the file system of the results directory")


def _board(sensor: Sensor) -> str | None:
    """Return the UUID of the board that a sensor reads; None if unknown."""
    return sensor.board or (sensor.device.gpu_uuid if sensor.device is not None else None)


def _lock_name(sensor: Sensor, machine: str | None) -> str | None:
    """Return the name of a sensor's lock, the same in all processes that see the sensor; None if only one can."""
    if sensor.scope == "process":
        return None
    if (board := _board(sensor)) is not None:
        return board
    if sensor.device is not None and sensor.device.gpu_id is not None:
        return f"{sensor.component}-{machine}-{sensor.device.gpu_id}"
    return f"{sensor.component}-{machine}"
