"""Claims: which process does what only one may do, by exclusive create in the store.

Two things are claimed: a rank of the experiment, so that no two processes have one, and every sensor that sees more
than its process, so that no joule is counted by two. First come, first served; a claim ends with the recording. One
whose process died stays, and doesn't count: it names host, boot, process and attempt, by which others tell.

Claims of one thing are numbered. Whoever finds the last one dead creates the next, which exactly one can, so that no
two take it over at once; and each process removes only what it made itself.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.exceptions import RecorderError, ResultNotFoundError, ResultsError
from llm_energy_measure.results.store import layout

if TYPE_CHECKING:
    from llm_energy_measure.storage.base import Store

_PROCESS_NAMESPACE = Path("/proc/self/ns/pid")

# How often a claim may vanish between its being listed and its being read.
_TRIES = 1_000


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """The process that has claimed something.

    Attributes:
        process_index: Its rank in the experiment.
        attempt: How often the experiment was started before.
        host: Name of its machine.
        boot_id: Identity of the boot; None if unknown.
        pid: Number of the process.
        pid_namespace: What that number counts in; None if unknown.
        started: When the process started, in clock ticks since the boot; None if unknown.
    """

    process_index: int
    attempt: int = 0
    host: str | None = None
    boot_id: str | None = None
    pid: int
    pid_namespace: str | None = None
    started: int | None = None

    def is_dead(self, seen_by: Claimant) -> bool:
        """True only if this process is known not to run any more, as another one can tell."""
        if self.attempt != seen_by.attempt:
            return self.attempt < seen_by.attempt
        if self.boot_id is None or self.boot_id != seen_by.boot_id:
            # Another boot of the same machine; a machine of another name can't be looked at from here.
            return None not in (self.boot_id, seen_by.boot_id) and self.host == seen_by.host
        if self.pid_namespace != seen_by.pid_namespace:
            return False
        return not _runs(self.pid, self.started)


def this_process(process_index: int, *, attempt: int, host: str | None, boot_id: str | None) -> Claimant:
    """The process that runs this."""
    try:
        namespace = str(_PROCESS_NAMESPACE.readlink())
    except OSError:
        namespace = None
    return Claimant(
        process_index=process_index,
        attempt=attempt,
        host=host,
        boot_id=boot_id,
        pid=os.getpid(),
        pid_namespace=namespace,
        started=_started(os.getpid()),
    )


def _runs(pid: int, started: int | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is somebody else's
    now = _started(pid)
    return started is None or now is None or now == started


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None where it can't be told. Source: proc_pid_stat(5)."""
    try:
        # The name, in parentheses, can hold anything; behind it, 22 is the 20th field.
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError, ValueError):
        return None


class Claims:
    """What this process has claimed in an experiment.

    Args:
        store: Where the experiment is.
        folder: The experiment's folder name.
        claimant: This process.
    """

    def __init__(self, store: Store, folder: str, claimant: Claimant) -> None:
        """Remember them; nothing is claimed."""
        self.claimant = claimant
        self._store = store
        self._folder = folder
        self._held: list[str] = []

    def take(self, name: str) -> Claimant | None:
        """Claim something; None, and it is this process's, or else the living process that has it.

        Args:
            name: What is claimed, the same in every process that could.
        """
        while True:
            number, last = self._last(name)
            if last is not None and not last.is_dead(self.claimant):
                return last
            key = layout.claim_key(self._folder, name, number + 1)
            if self._store.create(key, msgspec.json.encode(self.claimant)):
                self._held.append(key)
                return None

    def take_rank(self) -> None:
        """Claim this process's rank. Raises `RecorderError` if another process has it."""
        holder = self.take(f"process_{self.claimant.process_index}")
        if holder is not None:
            where = self._store.path(layout.raw_folder(self._folder))
            found = f"process {holder.pid} on host {holder.host} is recording it"
            advice = f"give each process a rank of its own, or remove its claims from {where} if it runs no more"
            raise RecorderError(f"cannot record process {self.claimant.process_index}", found, advice)

    def release(self) -> None:
        """Give back everything; what can't be removed is a dead process's claim soon."""
        while self._held:
            with contextlib.suppress(ResultsError):
                self._store.delete(self._held.pop())

    def _last(self, name: str) -> tuple[int, Claimant | None]:
        """Number of the last claim, 0 if there is none, and whose it is; an unreadable one counts as nobody's."""
        for _ in range(_TRIES):
            names = {entry.name for entry in self._store.list(layout.raw_folder(self._folder))}
            numbers = [found for entry in names if (found := layout.claim_number(entry, name)) is not None]
            number = max(numbers, default=0)
            if number == 0:
                return 0, None
            if number > MAX_PROCESSES:
                raise RecorderError(f"cannot claim {name}", f"there are {number} claims of it", "remove them")
            try:
                data = self._store.get(layout.claim_key(self._folder, name, number))
                return number, msgspec.json.decode(data, type=Claimant)
            except ResultNotFoundError:
                # Released meanwhile. Its number is free again: to claim the next one would leave it to somebody else.
                continue
            except msgspec.DecodeError:
                return number, None
        problem = "its claims are listed and can't be found"
        raise RecorderError(f"cannot claim {name}", problem, "check the file system of the results directory")
