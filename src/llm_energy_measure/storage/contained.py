"""Safe access to files in a folder that can come from another person: no method follows a link or opens a device.

A received folder can have links, pipes and devices under any name. Each method opens one name relative to the
descriptor of its folder (openat(2) with O_NOFOLLOW and O_NONBLOCK) and checks the type of the opened file. Therefore
no method blocks, and an attacker gains nothing by replacing a name with a link between two calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from llm_energy_measure.constants import HIDDEN_MARK
from llm_energy_measure.exceptions import UnsafePathError
from llm_energy_measure.storage.atomic import NO_FOLLOW, READ_FLAGS
from llm_energy_measure.storage.handle import FolderHandle
from llm_energy_measure.storage.temporary import temporary_path

_FILE_FLAGS = READ_FLAGS | NO_FOLLOW
_FOLDER_FLAGS = READ_FLAGS | getattr(os, "O_DIRECTORY", 0)
_CREATE_FLAGS = (
    os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_HAS_DESCRIPTORS = {os.open, os.stat, os.unlink, os.mkdir, os.rmdir, os.rename} <= os.supports_dir_fd

_NOUNS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


def noun_of(mode: int) -> str:
    """Return the type of a file in words, from its `st_mode`."""
    return _NOUNS.get(stat.S_IFMT(mode), "a special file")


def unusual_type(path: str | Path) -> str | None:
    """Return, in words, the type of a file that is unsafe to open and change in place; None if it is safe or absent.

    A regular file with several hard links is unsafe, because another of its names can be outside the folder.
    """
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None  # absent, or opening it raises the same error
    if stat.S_ISREG(found.st_mode):
        return None if found.st_nlink == 1 else f"a file with {found.st_nlink} hard links"
    return noun_of(found.st_mode)


def require_no_link(path: str | Path, base: str | Path) -> None:
    """Raise `UnsafePathError` if a part of `path` below the folder `base` is a link, a pipe or a device.

    A path outside `base` is not checked, because the user chose it.
    """
    parts: list[str] = []
    parent = os.path.abspath(path)
    while not _is_same(parent, base):
        parent, name = os.path.split(parent)
        if not name:
            return
        parts.append(parent + os.sep + name)
    for part in reversed(parts):
        try:
            mode = os.lstat(part).st_mode
        except OSError:
            return  # absent
        if not stat.S_ISDIR(mode) and not (part == parts[0] and stat.S_ISREG(mode)):
            raise UnsafePathError(f"cannot write {path}", f"{part} is {noun_of(mode)}", "choose another file")


def remove_tree(path: str) -> None:
    """Remove a folder and everything below it, at any depth. No link is followed.

    Each subfolder is moved to the top folder before it is emptied. Therefore neither the recursion limit of Python nor
    the maximum length of a path limits the depth.

    Raises:
        OSError: An entry could not be removed. The function has tried to remove all other entries.
    """
    if not _HAS_DESCRIPTORS:
        shutil.rmtree(path)
        return
    problems: list[OSError] = []
    with contextlib.suppress(OSError):  # the folder belongs to another user
        os.chmod(path, 0o700)
    top = os.open(path, _FOLDER_FLAGS | NO_FOLLOW)
    try:
        pending = _emptied(top, top, problems)
        while pending:
            name = pending.pop()
            try:
                folder = os.open(name, _FOLDER_FLAGS | NO_FOLLOW, dir_fd=top)
                try:
                    pending += _emptied(folder, top, problems)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
            except OSError as error:
                problems.append(error)
    finally:
        os.close(top)
    if problems:
        raise problems[0]
    os.rmdir(path)


def _emptied(folder: int, top: int, problems: list[OSError]) -> list[str]:
    """Remove the files of a folder, move its subfolders to `top`, and return their new names."""
    moved = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        try:
            if not is_folder:
                os.unlink(name, dir_fd=folder)
                continue
            with contextlib.suppress(OSError):  # a read-only folder cannot be emptied or moved
                os.chmod(name, 0o700, dir_fd=folder)
            new = name if folder == top else f"{HIDDEN_MARK}{os.urandom(8).hex()}"
            if folder != top:
                os.rename(name, new, src_dir_fd=folder, dst_dir_fd=top)
            moved.append(new)
        except OSError as error:
            problems.append(error)
    return moved


def unsafe_entries(root: str | Path, prefixes: Iterable[str]) -> dict[str, str]:
    """Return the type, in words, of each link, pipe, socket and device, by its path relative to `root`.

    Args:
        root: The folder.
        prefixes: Only names in `root` that start with one of these texts are scanned, with all their subfolders.
    """
    starts = tuple(prefixes)
    found: dict[str, str] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if not folder and not name.startswith(starts):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif not entry.is_file(follow_symlinks=False):
                        found[name] = noun_of(entry.stat(follow_symlinks=False).st_mode)
        except OSError:
            continue  # the caller reports a folder that cannot be listed
    return found


def _is_same(path: str, base: str | Path) -> bool:
    try:
        return os.path.samefile(path, base)
    except (OSError, ValueError):
        return False


class ContainedFolder(FolderHandle):
    """An open folder; its methods follow no link in it. Use it as a context manager.

    Args:
        path: The folder. Links in this path are followed, because the caller chose the path.
        descriptor: An open descriptor of the folder, which `close` closes. None: open `path`.

    Attributes:
        path: The path of the folder, for messages.

    Raises:
        OSError: The folder is absent or cannot be opened.
    """

    def __init__(self, path: str | Path, descriptor: int | None = None) -> None:
        """Open the folder if no descriptor is given."""
        self.path = os.fspath(path)
        super().__init__(descriptor)
        if _HAS_DESCRIPTORS and descriptor is None:
            self._descriptor = os.open(self.path, _FOLDER_FLAGS)
        elif descriptor is None and not os.path.isdir(self.path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.path)

    def names(self) -> list[str]:
        """Return the names in the folder, sorted."""
        return sorted(os.listdir(self.path if self._descriptor is None else self._descriptor))

    def subfolder(self, name: str, *, create: bool = False) -> ContainedFolder:
        """Open a folder in this folder; with `create`, create it durably if it is absent.

        Raises:
            FileNotFoundError: The subfolder is absent, and `create` is False.
            UnsafePathError: The name belongs to a link or to another file that is no folder.
        """
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._place(name), dir_fd=self._descriptor)
                self.sync()
        status = self._status(name)
        if not stat.S_ISDIR(status.st_mode):
            raise self._unsafe(name, status.st_mode, "folder")
        descriptor = None
        if self._descriptor is not None:
            descriptor = os.open(name, _FOLDER_FLAGS | NO_FOLLOW, dir_fd=self._descriptor)
        return ContainedFolder(os.path.join(self.path, name), descriptor)

    def open(self, name: str) -> BinaryIO:
        """Open a regular file for reading.

        Raises:
            FileNotFoundError: The file is absent.
            UnsafePathError: The name belongs to a link, a pipe, a device or a folder.
        """
        before = self._status(name)
        if not stat.S_ISREG(before.st_mode):  # opening a device can have an effect, so check the type first
            raise self._unsafe(name, before.st_mode, "file")
        file = os.fdopen(os.open(self._place(name), _FILE_FLAGS, dir_fd=self._descriptor), "rb")
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):  # another process replaced the file
            file.close()
            raise self._unsafe(name, mode, "file")
        return file

    def create_temporary(self, name: str) -> tuple[str, BinaryIO]:
        """Create a temporary file for `name`; return the temporary name, and the file, open for reading and writing."""
        temp = temporary_path(name)
        return temp, os.fdopen(os.open(self._place(temp), _CREATE_FLAGS, 0o666, dir_fd=self._descriptor), "w+b")

    def publish(self, temp: str, name: str) -> None:
        """Rename a synced temporary file to `name` durably. A file or a link with this name is replaced."""
        os.replace(self._place(temp), self._place(name), src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        self.sync()

    def remove(self, name: str) -> None:
        """Remove a file or a link. An absent name is accepted."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._place(name), dir_fd=self._descriptor)

    def remove_empty(self, name: str) -> None:
        """Remove a folder in this folder if it is empty."""
        with contextlib.suppress(OSError):
            os.rmdir(self._place(name), dir_fd=self._descriptor)

    def sync(self) -> None:
        """Make the names in the folder durable, where the system can sync a folder."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # not all file systems support fsync of folders
                os.fsync(self._descriptor)

    def _place(self, name: str) -> str:
        return name if self._descriptor is not None else os.path.join(self.path, name)

    def _status(self, name: str) -> os.stat_result:
        return os.stat(self._place(name), dir_fd=self._descriptor, follow_symlinks=False)

    def _unsafe(self, name: str, mode: int, wanted: str) -> UnsafePathError:
        doing = f"cannot use {os.path.join(self.path, name)}"
        return UnsafePathError(doing, f"it is {noun_of(mode)}, not a {wanted}", "move it away")
