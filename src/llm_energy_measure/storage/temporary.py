"""Names of temporary files and locks. The name of a temporary file identifies the process that created the file.

Paths are strings here, because creating a `Path` costs as much time as a system call.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from functools import cache
from pathlib import Path

from llm_energy_measure.constants import HIDDEN_MARK

_TEMPORARY = re.compile(
    rf"\.(?P<name>.+){HIDDEN_MARK}(?P<host>[0-9a-f]{{8}})-(?P<boot>[0-9a-f]{{8}})-(?P<pid>[0-9]+)-[0-9a-f]{{8}}"
)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROCESS_NAMESPACE = Path("/proc/self/ns/pid")

_LOCK = re.compile(rf"\.(?P<name>.+){HIDDEN_MARK}lock")


def temporary_path(path: str, suffix: str | None = None) -> str:
    """Return a new temporary path in the folder of `path`. Readers of results ignore the file.

    The name is `.<name>~<host>-<boot>-<pid>-<random>`, so that `writer_has_ended` can check its writer later.

    Args:
        path: The final path of the file.
        suffix: Suffix from `unique_suffix`, which files with different names can share. None creates a new one.
    """
    folder, separator, name = path.rpartition(os.sep)
    return f"{folder}{separator}.{name}{unique_suffix() if suffix is None else suffix}"


def unique_suffix() -> str:
    """Return a suffix that identifies this process and that no other call returns."""
    host, boot = _machine()
    return f"{HIDDEN_MARK}{host}-{boot}-{os.getpid()}-{os.urandom(4).hex()}"


def target_name(temporary: str) -> str | None:
    """Return the final name of a temporary file, or None if `temporary` is not the name of a temporary file.

    Example:
        >>> target_name(".process_3.json~1a2b3c4d-5e6f7a8b-4711-89abcdef"), target_name("process_3.json")
        ('process_3.json', None)
    """
    match = _TEMPORARY.fullmatch(temporary)
    return match["name"] if match else None


def writer_has_ended(temporary: str, mtime_sec: float) -> bool:
    """Return True if the process that wrote a temporary file has certainly ended, False if it exists or is unknown.

    The process has ended if it belonged to this boot and process namespace and its id does not exist. It has also
    ended if it ran on this host and the file is older than this boot. For a process of another host, return False.

    Args:
        temporary: Name of the temporary file.
        mtime_sec: Modification time of the file, in seconds since 1970-01-01 UTC; 0 if unknown.
    """
    match = _TEMPORARY.fullmatch(temporary)
    host, boot = _machine()
    if match is None or match["host"] != host or os.name != "posix":
        return False
    if match["boot"] != boot:
        return 0 < mtime_sec < _boot_time_sec()
    try:
        os.kill(int(match["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _boot_time_sec() -> float:
    """Return the boot time of this machine, in seconds since 1970-01-01 UTC; 0 if unknown."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if clock is None else time.time() - time.clock_gettime(clock)


def writer_is_remote(temporary: str) -> bool:
    """Return True if another host, boot or container wrote the file, so that its writer cannot be checked."""
    match = _TEMPORARY.fullmatch(temporary)
    return match is not None and (match["host"], match["boot"]) != _machine()


@cache
def _machine() -> tuple[str, str]:
    """Return one token for this host, and one for this boot and process namespace, in which process ids are valid."""
    facts = []
    for path in (_BOOT_ID, _PROCESS_NAMESPACE):
        try:
            facts.append(path.read_text(encoding="ascii") if path == _BOOT_ID else str(path.readlink()))
        except OSError:
            facts.append("")
    host = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return _token(host), _token(" ".join(facts))


def _token(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def lock_path(path: str) -> str:
    """Return the path of the lock file for a path. Readers of results ignore the lock file."""
    folder, separator, name = path.rpartition(os.sep)
    return f"{folder}{separator}.{name}{HIDDEN_MARK}lock"


def is_lock(name: str) -> bool:
    """Return True if a file name is that of a lock.

    Example:
        >>> is_lock(".process_3.json~lock"), is_lock("process_3.json")
        (True, False)
    """
    return _LOCK.fullmatch(name) is not None
