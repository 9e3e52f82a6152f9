"""Files that are absent or whole: write beside, sync, then publish under the name.

Source: the sequence is the one that ext4, xfs and POSIX agree on; see rename(2), link(2) and fsync(2), whose notes
say that a new name is only durable once its folder was synced too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from typing import TYPE_CHECKING

from llm_energy_measure.constants import LEFTOVER_MARK

if TYPE_CHECKING:
    from pathlib import Path

# How link(2) is refused by file systems without hard links (FAT, some FUSE and network mounts).
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


# How fsync(2) of a folder is refused by file systems that keep names durable by themselves, or not at all.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

# Of renameat2(2), which Linux has since 3.15 and Python has no binding for.
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def leftover_path(path: Path) -> Path:
    """A fresh hidden name beside `path` that no reader takes for a result and a sweep recognises."""
    return path.with_name(f".{path.name}{LEFTOVER_MARK}{os.getpid()}-{secrets.token_hex(4)}")


def write_new(path: Path, data: bytes) -> None:
    """Create `path` with `data`, durably, or leave everything as it was.

    Raises:
        FileExistsError: The name is taken; it was not touched.
        OSError: The file system refused.
    """
    temp = _write_beside(path, data, durable=True)
    try:
        _publish_new(temp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temp.unlink()
    sync_folder(path.parent)


def write_replacing(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Make `path` hold `data`, in place of what it held; a reader sees the one or the other.

    Args:
        path: The file.
        data: Its new content.
        durable: Also wait until it is on the disk.

    Raises:
        OSError: The file system refused; `path` is as it was.
    """
    temp = _write_beside(path, data, durable=durable)
    try:
        temp.replace(path)
    except OSError:
        temp.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def link_new(path: Path, new_path: Path) -> None:
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
        write_new(new_path, path.read_bytes())
    else:
        sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, each durable in its own parent; fine if it is there already."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        if path.parent == path:
            break
        path = path.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file stands where a folder is needed", str(folder))
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Does nothing where folders can't be opened (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _write_beside(path: Path, data: bytes, *, durable: bool) -> Path:
    """The path of a finished temporary file in the same folder, with the permissions that the folder asks for."""
    temp = leftover_path(path)
    # Not tempfile.mkstemp: its 0600 would lock the group out of its own results.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temp, flags, 0o666)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    return temp


def _publish_new(temp: Path, path: Path) -> None:
    """Give the finished file its name, unless the name is taken."""
    try:
        os.link(temp, path, follow_symlinks=False)
    except FileExistsError:
        # A server (NFS) that made the link and lost its answer is asked again and says that the name is taken.
        if temp.stat().st_nlink == 1:
            raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_new(temp, path)


def _rename_new(temp: Path, path: Path) -> None:
    """Rename without replacement, for file systems without hard links."""
    import ctypes  # noqa: PLC0415 - only file systems without hard links need it

    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "renameat2"):
        names = os.fsencode(temp), os.fsencode(path)
        if library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code == errno.EEXIST:
            raise FileExistsError(code, os.strerror(code), str(path))
    # Neither is to be had: the check and the rename are two steps, and a writer in between would be replaced.
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    temp.rename(path)
