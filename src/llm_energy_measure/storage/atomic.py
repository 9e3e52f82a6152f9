"""Files that are absent or whole: write beside, sync, then publish under the name.

Source: the sequence is the one that ext4, xfs and POSIX agree on; see rename(2), link(2) and fsync(2), whose notes
say that a new name is only durable once its folder was synced too.

Paths are strings here: to make a `Path` costs as much as the system call that it is for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure.constants import HIDDEN_MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

# How link(2) is refused by file systems without hard links (FAT, some FUSE and network mounts).
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


_LEFTOVER = re.compile(
    rf"\.(?P<name>.+){HIDDEN_MARK}(?P<host>[0-9a-f]{{8}})-(?P<boot>[0-9a-f]{{8}})-(?P<pid>[0-9]+)-[0-9a-f]{{8}}"
)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROCESS_NAMESPACE = Path("/proc/self/ns/pid")

# How fsync(2) of a folder is refused by file systems that keep names durable by themselves, or not at all.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

# Neither a link is followed nor a pipe waited for.
_COPY_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_HAS_SYNCFS = sys.platform == "linux"

# From linux/fcntl.h and linux/fs.h.
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


def temporary_path(path: str, mark: str | None = None) -> str:
    """A fresh hidden name beside `path` that no reader takes for a result and a sweep recognises.

    It says who is at work on it, `.<name>~<host>-<boot>-<pid>-<random>`, so that `writer_has_ended` can tell later.

    Args:
        path: The name that the file is meant for.
        mark: What comes after the name, from `_fresh_mark`; files of different names can share one.
    """
    folder, separator, name = path.rpartition(os.sep)
    return f"{folder}{separator}.{name}{_fresh_mark() if mark is None else mark}"


def _fresh_mark() -> str:
    host, boot = _machine()
    return f"{HIDDEN_MARK}{host}-{boot}-{os.getpid()}-{os.urandom(4).hex()}"


def target_name(leftover: str) -> str | None:
    """The name that an unfinished file of ours was meant for, or None if the name is none of ours.

    Example:
        >>> target_name(".process_3.json~1a2b3c4d-5e6f7a8b-4711-89abcdef"), target_name("process_3.json")
        ('process_3.json', None)
    """
    match = _LEFTOVER.fullmatch(leftover)
    return match["name"] if match else None


def writer_has_ended(leftover: str, mtime_sec: float) -> bool:
    """True only if the process that made an unfinished file is known not to run any more.

    Either it was a process of this boot and process namespace, and there is none of that number any more, or it was of
    this host and the file was last written before this boot. What another host writes can't be told from here.

    Args:
        leftover: Name of the file.
        mtime_sec: When it was last written, in seconds since 1970-01-01 UTC; 0 if that is unknown.
    """
    match = _LEFTOVER.fullmatch(leftover)
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
    """When this machine was started, in seconds since 1970-01-01 UTC; 0 if that can't be told."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if clock is None else time.time() - time.clock_gettime(clock)


def writer_is_remote(leftover: str) -> bool:
    """True if an unfinished file is of another host, boot or container: whether it is being written can't be told."""
    match = _LEFTOVER.fullmatch(leftover)
    return match is not None and (match["host"], match["boot"]) != _machine()


@cache
def _machine() -> tuple[str, str]:
    """Tokens for this host, and for this boot and process namespace of it: process numbers mean nothing beyond."""
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


def create_file(path: str, data: bytes) -> None:
    """Create `path` with `data`, durably, or leave everything as it was.

    Raises:
        FileExistsError: The name is taken; it was not touched.
        OSError: The file system refused.
    """
    temp = _write_beside(path, data)
    try:
        _publish_new(temp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)
    # A folder that was moved since (a later attempt begins) took the file along under its name.
    with contextlib.suppress(FileNotFoundError):
        sync_folder(os.path.dirname(path))


def replace_file(path: str, data: bytes) -> None:
    """Make `path` hold `data`, durably, in place of what it held; a reader sees the one or the other.

    The permissions of what it replaces stay.

    Raises:
        OSError: The file system refused; `path` is as it was.
    """
    temp = _write_beside(path, data)
    try:
        _replace(temp, path)
    except OSError:
        _remove(temp)
        raise
    sync_folder(os.path.dirname(path))


def replace_files(files: Mapping[str, bytes], *, mtime_ns: int | None = None) -> None:
    """Make each path hold its data, durably, as `replace_file` does, with one sync for all.

    Either every file's bytes are on the disk before the first takes its name, or none takes it. A file system that
    can't be synced as a whole (it is no Linux) gets a sync a file, as does a single one.

    Args:
        files: The bytes of each path. All paths lie on one file system.
        mtime_ns: When they shall say that they were last written, in nanoseconds since 1970-01-01 UTC.

    Raises:
        OSError: The file system refused; each path holds what it held, or its data.
    """
    temps: dict[str, str] = {}
    mark = _fresh_mark()
    at_once = _HAS_SYNCFS and len(files) > 1  # for one file alone nothing of others has to reach the disk
    try:
        for path, data in files.items():
            temps[path] = _write_beside(path, data, sync=not at_once, mtime_ns=mtime_ns, mark=mark)
        if at_once:
            _sync_file_system(next(iter(temps.values())))
        for path in files:
            _replace(temps[path], path)
            del temps[path]
    finally:
        for temp in temps.values():
            _remove(temp)
    for folder in sorted({os.path.dirname(path) for path in files}):
        sync_folder(folder)


def exchange_file(path: str, data: bytes) -> str:
    """Make `path` hold `data`, durably, and return the hidden file beside it that now holds what it held.

    Of several writers at once each gets another's. Where the system can't exchange two files (it is no Linux, or the
    file system refuses), keeping and replacing are two steps, and what a writer in between has put there is lost.

    Raises:
        FileNotFoundError: There is nothing to replace.
        OSError: The file system refused; `path` is as it was.
    """
    temp = _write_beside(path, data)
    try:
        if _renameat2(temp, path, _RENAME_EXCHANGE) != 0:
            kept = temporary_path(path)
            link_file(path, kept)
            os.replace(temp, path)
            temp = kept
    except OSError:
        _remove(temp)
        raise
    sync_folder(os.path.dirname(path))
    return temp


def link_file(path: str, new_path: str) -> None:
    """Give the file a second name, durably.

    Raises:
        FileExistsError: The new name is taken; it was not touched.
        OSError: The file system refused.
    """
    try:
        os.link(path, new_path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        descriptor = os.open(path, _COPY_FLAGS)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise
            data = file.read()
        create_file(new_path, data)
    else:
        sync_folder(os.path.dirname(path))


def make_folder(path: str, *, root: str | None = None) -> None:
    """Create a folder and its parents, each durable in its own parent; fine if it is there already.

    Args:
        path: The folder.
        root: A folder above it, down from which names are made durable even if they are there: somebody else may have
            made them this instant, and not have synced them.
    """
    missing, folder = [], path
    while not os.path.isdir(folder or os.curdir):
        missing.append(folder)
        if os.path.dirname(folder) == folder:
            break
        folder = os.path.dirname(folder)
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(new)
        # One look only: what is no folder because it was deleted just now is no file either.
        if not stat.S_ISDIR(os.stat(new).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "a file stands where a folder is needed", new)
        sync_folder(os.path.dirname(new))
    while root is not None and len(root) <= len(folder) != len(parent := os.path.dirname(folder)):
        with contextlib.suppress(PermissionError):  # a folder that was there for long needs no leave to be read
            sync_folder(parent)
        folder = parent


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable. Does nothing where folders can't be opened (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder or os.curdir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _write_beside(
    path: str, data: bytes, *, sync: bool = True, mtime_ns: int | None = None, mark: str | None = None
) -> str:
    """The path of a finished temporary file in the same folder, with the permissions that the folder asks for."""
    temp = temporary_path(path, mark)
    # Not tempfile.mkstemp: its 0600 would lock the group out of its own results.
    # Inside: most of the time goes into making the file, and Ctrl-C comes then.
    try:
        descriptor = os.open(temp, _NEW_FLAGS, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if mtime_ns is not None:
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        _remove(temp)
        raise
    return temp


def _replace(temp: str, path: str) -> None:
    """Give the finished file its name, and the permissions of what had it."""
    if os.access(path, os.F_OK):  # an error that is raised for each of thousands costs more than the question
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(path).st_mode
            if stat.S_ISREG(found) and found & 0o777 != os.lstat(temp).st_mode & 0o777:
                os.chmod(temp, found & 0o777)
    os.replace(temp, path)


def _remove(temp: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temp)


def _publish_new(temp: str, path: str) -> None:
    """Give the finished file its name, unless the name is taken."""
    try:
        os.link(temp, path, follow_symlinks=False)
    except FileExistsError:
        # A server (NFS) that made the link and lost its answer is asked again and says that the name is taken.
        if os.stat(temp).st_nlink == 1:
            raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_new(temp, path)


def _rename_new(temp: str, path: str) -> None:
    """Rename without replacement, for file systems without hard links."""
    code = _renameat2(temp, path, _RENAME_NOREPLACE)
    if code == errno.EEXIST:
        raise FileExistsError(code, os.strerror(code), path)
    if code == 0:
        return
    # Neither is to be had: the check and the rename are two steps, and a writer in between would be replaced.
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    os.rename(temp, path)


def _renameat2(source: str, target: str, flags: int) -> int:
    """Call renameat2(2), which Linux has since 3.15 and Python no binding for; 0, or the number of the error."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "renameat2"):
        return errno.ENOSYS
    done = library.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags)
    return 0 if done == 0 else ctypes.get_errno()


def _sync_file_system(path: str) -> None:
    """Call syncfs(2), which Linux has since 2.6.39 and Python no binding for, on the file system of a file.

    Since Linux 5.8 it tells of data that could not be written.
    """
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if library.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(descriptor)
