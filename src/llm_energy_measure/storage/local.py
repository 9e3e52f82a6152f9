"""A store in a folder of the local file system, or of one that looks like it (NFS, Lustre)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure.constants import MAX_RECORD_BYTES
from llm_energy_measure.exceptions import ResultNotFoundError, ResultsError, StorageError, UnsafePathError
from llm_energy_measure.storage import atomic
from llm_energy_measure.storage.base import Entry, split_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
# How often a folder may vanish under a writer before it gives up: each later attempt, or deletion, moves it once.
_TRIES = 10
# Of so many folders a store remembers that their names are durable.
_FOLDERS_REMEMBERED = 10_000
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


def read_file(path: str | Path, *, follow_links: bool) -> bytes:
    """The content of a regular file of at most `constants.MAX_RECORD_BYTES`.

    Args:
        path: The file.
        follow_links: Whether a symbolic link may stand there.

    Raises:
        ResultNotFoundError: Nothing is there.
        UnsafePathError: A symbolic link, a pipe, a device or a folder is there.
        StorageError: The file system refused, or the file is too large.
    """
    # Where the system can't refuse links by itself (Windows), it is asked before.
    if not follow_links and not _NO_FOLLOW and os.path.islink(path):
        raise _read_refusal(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP)), follow_links=False)
    try:
        descriptor = os.open(path, _OPEN_FLAGS if follow_links else _OPEN_FLAGS | _NO_FOLLOW)
        try:
            return _read(descriptor, path)
        finally:
            os.close(descriptor)
    except OSError as error:
        if isinstance(error, ResultsError):
            raise
        raise _read_refusal(path, error, follow_links=follow_links) from (
            error if error.errno != errno.ENOENT else None
        )


def _read(descriptor: int, path: str | Path) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(f"cannot read {path}", "it is not a regular file", "put a file there")
    if status.st_size > MAX_RECORD_BYTES:
        found = f"it has {status.st_size} bytes, more than the limit of {MAX_RECORD_BYTES}"
        raise StorageError(f"cannot read {path}", found, "check whether it is a result at all")
    data = os.read(descriptor, status.st_size + 1)
    if len(data) == status.st_size:
        return data
    # A read can return less than was asked for, and the file can have grown since.
    chunks = [data]
    while chunk := os.read(descriptor, status.st_size + 1):
        chunks.append(chunk)
    return b"".join(chunks)


def _read_refusal(path: str | Path, error: OSError, *, follow_links: bool) -> ResultsError:
    doing = f"cannot read {path}"
    if error.errno == errno.ENOENT:
        return ResultNotFoundError(doing, "the file was not found", "check the spelling")
    if not follow_links and os.path.islink(path):
        return UnsafePathError(doing, "it is a symbolic link", "put the file itself there")
    return _refusal(doing, error)


class LocalStore:
    """A `Store` in a folder. The folder is made when the first value is stored, not before.

    Args:
        root: The folder.
    """

    def __init__(self, root: str | Path) -> None:
        """Remember the folder; nothing is touched."""
        self.root = Path(root)
        self._root = os.fspath(self.root)
        self._durable_folders: set[str] = set()

    def path(self, key: str) -> Path:
        """Where the value of a key lies, whether or not it exists."""
        return Path(os.sep.join([self._root, *split_key(key)]))

    def _way(self, key: str, *, to_folder: bool = False) -> str:
        """Where the value, or the folder, of a key lies, once it is known that no symbolic link stands on the way."""
        parts = split_key(key)
        path = self._root
        name = None if to_folder else parts.pop()
        for part in parts:
            path = f"{path}{os.sep}{part}"
            try:
                is_link = stat.S_ISLNK(os.lstat(path).st_mode)
            except (OSError, ValueError):  # what can't be looked at is told by whoever uses it
                break
            if is_link:
                found = f"{path} is a symbolic link"
                raise UnsafePathError(f"cannot use the key {key!r}", found, "put the folder itself there")
        return os.sep.join([self._root, *parts] if name is None else [self._root, *parts, name])

    def get(self, key: str) -> bytes:
        """The value. Raises `ResultNotFoundError` if there is none."""
        return read_file(self._way(key), follow_links=False)

    def create(self, key: str, data: bytes) -> bool:
        """Store a new value durably; False, with nothing changed, if the key has one already."""
        path = self._way(key)
        with _translated("cannot write", path):
            try:
                self._in_folder(path, lambda: atomic.create_file(path, data))
            except FileExistsError:
                # Whoever asks may take what is there for stored: its name is made durable, whoever published it.
                with contextlib.suppress(FileNotFoundError):  # moved since: then nothing is there
                    atomic.sync_folder(os.path.dirname(path))
                return False
        return True

    def _in_folder(self, path: str, write: Callable[[], None]) -> None:
        """Write a file, also if its folder is moved or deleted meanwhile: in a new folder then."""
        self._in_folders([os.path.dirname(path)], write)

    def _in_folders(self, folders: Sequence[str], write: Callable[[], None]) -> None:
        """Write into folders, as `_in_folder` does into one."""
        for left in reversed(range(_TRIES)):
            try:
                for folder in folders:
                    self._make_folder(folder)
                write()
            except FileNotFoundError:
                if not left:
                    raise
                self._durable_folders.difference_update(folders)
            else:
                return

    def _make_folder(self, folder: str) -> None:
        """Make a folder, or make sure once that the one which is there has a durable name."""
        if folder not in self._durable_folders:
            atomic.make_folder(folder, root=self._root)
            if len(self._durable_folders) >= _FOLDERS_REMEMBERED:
                self._durable_folders.clear()
            self._durable_folders.add(folder)

    def put(self, key: str, data: bytes) -> None:
        """Store a value durably, in place of an older one if there is one."""
        path = self._way(key)
        with _translated("cannot write", path):
            self._in_folder(path, lambda: atomic.replace_file(path, data))

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> None:
        """Store several values durably, each in place of an older one if there is one, with one sync for all."""
        folders: dict[str, str] = {}
        files = {}
        for key, data in values.items():
            *parents, name = split_key(key)
            prefix = "/".join(parents)
            if prefix not in folders:
                folders[prefix] = os.path.dirname(self._way(key))  # looked at once, not for each of thousands
            files[f"{folders[prefix]}{os.sep}{name}"] = data
        with _translated("cannot write to", self._root):
            self._in_folders([*folders.values()], lambda: atomic.replace_files(files, mtime_ns=mtime_ns))

    def exchange(self, key: str, data: bytes) -> str:
        """Store a value durably in place of the one that is there, and return a fresh key that holds that one."""
        path = self._way(key)
        with _translated("cannot replace", path):
            kept = atomic.exchange_file(path, data)
        return f"{key.rpartition('/')[0]}/{os.path.basename(kept)}"

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        """Give a value a second key in the same folder; False, with nothing changed, if that key has one already."""
        path, new_path = self._way(key), self._way(new_key)
        with _translated("cannot keep a copy of", path):
            try:
                atomic.link_file(path, new_path)
            except FileExistsError:
                return False
        return True

    def list(self, prefix: str) -> list[Entry]:
        """What stands directly under a prefix, sorted by name; nothing if the prefix is absent."""
        path = self._way(prefix, to_folder=True)
        found = []
        with _translated("cannot list", path):
            try:
                entries = os.scandir(path)
            except FileNotFoundError:
                if self.root.exists() and not self.root.is_dir():
                    raise NotADirectoryError(
                        errno.ENOTDIR, "a file stands where a folder is needed", self._root
                    ) from None
                return []
            with entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        size = 0 if is_folder else status.st_size
                        found.append(Entry(entry.name, is_folder, size, status.st_mtime))
        return sorted(found)

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        """Give everything under a prefix another one, at once; False if there is nothing or the new one is taken."""
        path, new_path = self._way(prefix, to_folder=True), self._way(new_prefix, to_folder=True)
        with _translated("cannot move", path):
            try:
                os.rename(path, new_path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
            atomic.sync_folder(os.path.dirname(new_path))
        return True

    def delete(self, key: str) -> bool:
        """Remove a value; False if there was none."""
        path = self._way(key)
        with _translated("cannot delete", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return False
            atomic.sync_folder(os.path.dirname(path))
        return True

    def delete_folder(self, prefix: str) -> bool:
        """Remove everything under a prefix; False if there was nothing. It is out of sight at once, or not at all."""
        path = self._way(prefix, to_folder=True)
        hidden = path if atomic.target_name(os.path.basename(path)) else atomic.temporary_path(path)
        with _translated("cannot delete", path):
            try:
                os.rename(path, hidden)
            except FileNotFoundError:
                return False
            atomic.sync_folder(os.path.dirname(path))
            # From here on it is deleted. What a stranger's read-only folder holds back is left for a sweep.
            _make_writable(hidden)
            shutil.rmtree(hidden, ignore_errors=path != hidden)
        return True


def _make_writable(folder: str) -> None:
    """Let a folder and those in it be emptied; what is ours and locked would keep its content for ever."""
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            inside = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for path in inside:
            _make_writable(path)


class _translated:  # noqa: N801 - reads as the context manager it is
    """Turn what the operating system raises into one sentence: what was being done, to what."""

    __slots__ = ("doing", "path")

    def __init__(self, doing: str, path: str) -> None:
        self.doing = doing
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, ResultsError):
            raise _refusal(f"{self.doing} {self.path}", error) from error


def _refusal(doing: str, error: OSError) -> StorageError:
    refused = StorageError(doing, error.strerror or str(error), _advice(error))
    refused.errno = error.errno
    return refused


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "check the permissions"
    if isinstance(error, NotADirectoryError):
        return "name a folder as the results directory"
    return "check the file system, then try again"
