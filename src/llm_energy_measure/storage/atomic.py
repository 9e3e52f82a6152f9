"""Atomic and durable writes: write a temporary file in the same folder, sync it, then link or rename it.

Source: rename(2), link(2) and fsync(2). A new name is durable after an fsync of its folder.

Paths are strings here, because creating a `Path` costs as much time as a system call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Mapping

from llm_energy_measure.storage.lock import locked
from llm_energy_measure.storage.temporary import temporary_path, unique_suffix

# Errors of link(2) on file systems without hard links (FAT, some FUSE and network mounts).
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

# Errors of fsync(2) on file systems that do not support it for folders.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of open(2) for reading. Opening a pipe does not block."""

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Flag of open(2) that rejects symbolic links; 0 on Windows, which has none."""

_HAS_SYNCFS = sys.platform == "linux"

# From linux/fcntl.h and linux/fs.h.
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


def create_file(path: str, data: bytes) -> None:
    """Create a file durably.

    Raises:
        FileExistsError: `path` exists. It was not changed.
        OSError: The file system returned an error. `path` exists only if the error came after its creation, when the
            temporary file was deleted or the folder was synced.
    """
    temp = _write_temporary(path, data)
    try:
        _publish_new(temp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)
    # FileNotFoundError: a new attempt of the experiment has already archived the folder with this file.
    with contextlib.suppress(FileNotFoundError):
        sync_folder(os.path.dirname(path))


def replace_file(path: str, data: bytes) -> None:
    """Write a file durably and replace an existing one. A reader sees the old or the new content.

    The new file keeps the permissions of the old one.

    Raises:
        OSError: The file system returned an error. `path` is unchanged, unless only the sync of the folder failed.
    """
    temp = _write_temporary(path, data)
    try:
        _replace(temp, path)
    except OSError:
        _remove(temp)
        raise
    sync_folder(os.path.dirname(path))


def replace_files(files: Mapping[str, bytes], *, mtime_ns: int | None = None) -> None:
    """Write several files durably like `replace_file`, with one sync for all.

    The bytes of all files are on the disk before the first file is renamed. Without syncfs (not Linux), and for a
    single file, each file is synced separately.

    Args:
        files: The bytes of each path. All paths are on one file system.
        mtime_ns: Modification time of the files, in nanoseconds since 1970-01-01 UTC. None is now.

    Raises:
        OSError: The file system returned an error. Each path has its old or its new content.
    """
    temps: dict[str, str] = {}
    suffix = unique_suffix()
    # A single file needs only fsync. syncfs also waits for the data of other processes.
    at_once = _HAS_SYNCFS and len(files) > 1
    try:
        for path, data in files.items():
            temps[path] = _write_temporary(path, data, sync=not at_once, mtime_ns=mtime_ns, suffix=suffix)
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


def create_files(files: Mapping[str, bytes], *, root: str) -> list[str]:
    """Create several files durably like `create_file`, with two syncs for all. Return the paths that were created.

    A path that exists, or whose folder another process has deleted, is not created. Without syncfs (not Linux), each
    file and each folder is synced separately.

    Args:
        files: The bytes of each path. Their folders exist.
        root: A folder on the same file system.

    Raises:
        OSError: The file system returned an error. Files that were created before the error are whole.
    """
    temps: dict[str, str] = {}
    created: list[str] = []
    suffix = unique_suffix()
    try:
        for path, data in files.items():
            if os.path.lexists(path):
                continue
            with contextlib.suppress(FileNotFoundError):
                temps[path] = _write_temporary(path, data, sync=not _HAS_SYNCFS, suffix=suffix)
        if _HAS_SYNCFS and temps:
            _sync_file_system(root)
        for path, temp in temps.items():
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                _publish_new(temp, path)
                created.append(path)
    finally:
        for temp in temps.values():
            _remove(temp)
    if _HAS_SYNCFS:
        # The caller may treat an existing path as stored, so its name must be durable too.
        _sync_file_system(root)
    else:
        for folder in sorted({os.path.dirname(path) for path in files}):
            with contextlib.suppress(FileNotFoundError):
                sync_folder(folder)
    return created


def exchange_file(path: str, data: bytes) -> str:
    """Replace a file durably, and return the path of a temporary file with the previous content.

    If several writers exchange a file at once, each gets a different previous content. Without RENAME_EXCHANGE (not
    Linux, or not supported by the file system), the exchange has two steps, and a lock makes the writers wait for each
    other.

    Raises:
        FileNotFoundError: `path` does not exist.
        StorageError: Another process holds the lock of `path`. `path` is unchanged.
        OSError: The file system returned an error. `path` is unchanged, unless only the sync of the folder failed.
    """
    temp = _write_temporary(path, data)
    try:
        if _renameat2(temp, path, _RENAME_EXCHANGE) != 0:
            with locked(path):
                kept = temporary_path(path)
                if not _has_linked(path, kept):
                    kept = _write_temporary(path, _read_regular(path))
                os.replace(temp, path)
            temp = kept
    except OSError:
        _remove(temp)
        raise
    sync_folder(os.path.dirname(path))
    return temp


def link_file(path: str, new_path: str) -> None:
    """Create a hard link durably. On a file system without hard links, create a copy.

    `path` and `new_path` are in the same folder.

    Raises:
        FileExistsError: `new_path` exists. It was not changed.
        OSError: The file system returned an error.
    """
    if _has_linked(path, new_path):
        sync_folder(os.path.dirname(path))
    else:
        create_file(new_path, _read_regular(path))


def _has_linked(path: str, new_path: str) -> bool:
    """Create a hard link. Return False if the file system has no hard links."""
    try:
        os.link(path, new_path, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_HARD_LINKS:
            return False
        raise
    return True


def _read_regular(path: str) -> bytes:
    descriptor = os.open(path, READ_FLAGS | NO_FOLLOW)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EPERM, "it is not a regular file", path)
        return file.read()


def make_folder(path: str, *, root: str | None = None) -> None:
    """Create a folder and its parents durably. An existing folder is accepted.

    Args:
        path: The folder.
        root: `path` or a parent folder of it. The names of all existing folders from `root` to `path` are made durable
            too, because another process may have created these folders and not synced them yet.
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
        # os.stat raises FileNotFoundError if another process has deleted the folder. isdir() would only return False.
        if not stat.S_ISDIR(os.stat(new).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", new)
        sync_folder(os.path.dirname(new))
    while root is not None and len(root) <= len(folder) != len(parent := os.path.dirname(folder)):
        with contextlib.suppress(PermissionError):  # an existing parent may be unreadable for this user
            sync_folder(parent)
        folder = parent


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable. Do nothing on systems that cannot open folders (Windows)."""
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


def publish_folder(temp: str, path: str) -> None:
    """Rename a new folder to `path` durably. Its files and names are on the disk before the rename.

    Without syncfs (not Linux), each file and each folder is synced separately.

    Raises:
        OSError: The file system returned an error, or `path` exists and is not an empty folder.
    """
    if _HAS_SYNCFS:
        _sync_file_system(temp)
    else:
        for folder, _, files in os.walk(temp):
            for name in files:
                _sync_file(os.path.join(folder, name))
            sync_folder(folder)
    os.rename(temp, path)
    sync_folder(os.path.dirname(path))


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR)  # Windows cannot sync a file that is open for reading only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_temporary(
    path: str, data: bytes, *, sync: bool = True, mtime_ns: int | None = None, suffix: str | None = None
) -> str:
    """Write a temporary file with default permissions in the folder of `path`, and return its path."""
    temp = temporary_path(path, suffix)
    # tempfile.mkstemp would set mode 0600, and then the group cannot read the file.
    # os.open takes most of the time, so Ctrl-C most often comes while it runs. So os.open is inside the try block.
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
    """Rename a temporary file to `path`. Keep the permissions of an existing file."""
    if os.access(path, os.F_OK):  # cheaper than an exception for each of thousands of new files
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(path).st_mode
            if stat.S_ISREG(found) and found & 0o777 != os.lstat(temp).st_mode & 0o777:
                os.chmod(temp, found & 0o777)
    os.replace(temp, path)


def _remove(temp: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temp)


def _publish_new(temp: str, path: str) -> None:
    """Link a temporary file to `path`. Raise `FileExistsError` if `path` exists."""
    try:
        os.link(temp, path, follow_symlinks=False)
    except FileExistsError:
        # If the answer was lost, an NFS client repeats the request, and gets EEXIST for its own link (2 links).
        if os.stat(temp).st_nlink == 1:
            raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_new(temp, path)


def _rename_new(temp: str, path: str) -> None:
    """Rename without replacing, for file systems without hard links."""
    code = _renameat2(temp, path, _RENAME_NOREPLACE)
    if code == errno.EEXIST:
        raise FileExistsError(code, os.strerror(code), path)
    if code == 0:
        return
    # RENAME_NOREPLACE is not supported. The check and the rename are two steps, so each writer needs the lock.
    with locked(path):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        os.rename(temp, path)


def _renameat2(source: str, target: str, flags: int) -> int:
    """Call renameat2(2) (since Linux 3.15), for which Python has no function. Return 0 or the errno."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "renameat2"):
        return errno.ENOSYS
    done = library.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags)
    return 0 if done == 0 else ctypes.get_errno()


def _sync_file_system(path: str) -> None:
    """Call syncfs(2) (since Linux 2.6.39), for which Python has no function, on the file system of a file.

    Since Linux 5.8, syncfs reports write errors.
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
