"""A lock on a file name, for file systems on which no single system call publishes or exchanges a file.

The lock is a file that open(2) creates with O_EXCL, which is exclusive on every file system, also between hosts. Its
content names the process that holds the lock. On one machine, flock(2) on the folder makes the processes wait for each
other, and lets them remove the lock of a killed process safely. Source: open(2) and flock(2).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.storage.temporary import lock_path, temporary_path, writer_has_ended

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows has no such module

PATIENCE_SEC = 60.0
"""Maximum time to wait for the lock of another process, in seconds."""

# A process that creates a lock writes its name into the lock at once. So if a process has waited for this time and the
# lock is empty, the lock belongs to a killed process.
_UNNAMED_SEC = 5.0
_POLL_SEC = 0.005
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def locked(path: str, *, patience_sec: float = PATIENCE_SEC, unnamed_sec: float = _UNNAMED_SEC) -> Iterator[None]:
    """Hold the lock on a path inside a `with` block.

    Args:
        path: The path. It need not exist, but its folder must.
        patience_sec: Maximum time to wait, in seconds.
        unnamed_sec: Time after which an empty lock counts as the lock of a killed process, in seconds.

    Raises:
        StorageError: After `patience_sec`, another process still holds the lock, or the lock of a killed process on
            another machine still exists.
        OSError: The file system returned an error.
    """
    lock, token = lock_path(path), os.path.basename(temporary_path(path)).encode()
    start = time.monotonic()
    with _folder_lock(os.path.dirname(path), start + patience_sec) as has_folder:
        while not _create(lock, token):
            waited = time.monotonic() - start
            if has_folder and _is_abandoned(lock, is_old=waited > unnamed_sec):
                _remove(lock)
            elif waited > patience_sec:
                found = f"another process has held the lock {lock} for more than {patience_sec:g} s"
                raise StorageError(f"cannot write {path}", found, "if that process has ended, delete the lock")
            else:
                time.sleep(_POLL_SEC)
        try:
            yield
        finally:
            _remove(lock)


@contextlib.contextmanager
def _folder_lock(folder: str, deadline: float) -> Iterator[bool]:
    """Hold flock(2) on a folder. Yield False if the system does not support flock(2), or after the deadline."""
    if fcntl is None:
        yield False
        return
    descriptor = os.open(folder or os.curdir, os.O_RDONLY)
    try:
        yield _flock(descriptor, deadline)
    finally:
        os.close(descriptor)  # this releases the lock


def _flock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SEC)
        except OSError:
            return False
        else:
            return True


def _create(lock: str, token: bytes) -> bool:
    """Create the lock with the name of this process. Return False if another process holds the lock."""
    try:
        descriptor = os.open(lock, _CREATE_FLAGS, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, token)
    except OSError:
        _remove(lock)
        raise
    finally:
        os.close(descriptor)
    return _content(lock) == token  # this process may have paused so long that another one removed the lock


def _is_abandoned(lock: str, *, is_old: bool) -> bool:
    """Return True if the process that created a lock has ended. The caller holds flock(2) on the folder."""
    token = _content(lock)
    if token is None:
        return False
    return writer_has_ended(token.decode(errors="replace"), 0) if token else is_old


def _content(lock: str) -> bytes | None:
    """Return the content of a lock; None if it was released or cannot be read."""
    try:
        descriptor = os.open(lock, _READ_FLAGS)
    except OSError:
        return None
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _remove(lock: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(lock)
