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
from llm_energy_measure.exceptions import ResultNotFoundError, StorageError, UnsafePathError
from llm_energy_measure.storage import atomic
from llm_energy_measure.storage.base import Entry, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
# How often a folder may vanish under a writer before it gives up: each later attempt, or deletion, moves it once.
_TRIES = 10
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


def read_file(path: Path, *, follow_links: bool) -> bytes:
    """The content of a regular file of at most `constants.MAX_RECORD_BYTES`.

    Args:
        path: The file.
        follow_links: Whether a symbolic link may stand there.

    Raises:
        ResultNotFoundError: Nothing is there.
        UnsafePathError: A symbolic link, a pipe, a device or a folder is there.
        StorageError: The file system refused, or the file is too large.
    """
    doing = f"cannot read {path}"
    if not follow_links and path.is_symlink():
        raise UnsafePathError(doing, "it is a symbolic link", "put the file itself there")
    with _translated(doing):
        try:
            descriptor = os.open(path, _OPEN_FLAGS | (0 if follow_links else _NO_FOLLOW))
        except FileNotFoundError:
            raise ResultNotFoundError(doing, "the file was not found", "check the spelling") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnsafePathError(doing, "it is not a regular file", "put a file there")
            if status.st_size > MAX_RECORD_BYTES:
                found = f"it has {status.st_size} bytes, more than the limit of {MAX_RECORD_BYTES}"
                raise StorageError(doing, found, "check whether it is a result at all")
            # A read can return less than was asked for, and the file can have grown since.
            chunks = []
            while chunk := os.read(descriptor, status.st_size + 1):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            os.close(descriptor)


class LocalStore:
    """A `Store` in a folder. The folder is made when the first value is stored, not before.

    Args:
        root: The folder.
    """

    def __init__(self, root: str | Path) -> None:
        """Remember the folder; nothing is touched."""
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Where the value of a key lies, whether or not it exists."""
        return self.root.joinpath(*parts_of(key))

    def _way(self, key: str, *, to_folder: bool = False) -> Path:
        """Where the value, or the folder, of a key lies, once it is known that no symbolic link stands on the way."""
        parts = parts_of(key)
        folder = os.fspath(self.root)
        for part in parts if to_folder else parts[:-1]:
            folder = f"{folder}{os.sep}{part}"
            if os.path.islink(folder):  # noqa: PTH114 - each access comes through here, and a Path costs five times as much
                found = f"{folder} is a symbolic link"
                raise UnsafePathError(f"cannot use the key {key!r}", found, "put the folder itself there")
        return self.root.joinpath(*parts)

    def get(self, key: str) -> bytes:
        """The value. Raises `ResultNotFoundError` if there is none."""
        return read_file(self._way(key), follow_links=False)

    def create(self, key: str, data: bytes) -> bool:
        """Store a new value durably; False, with nothing changed, if the key has one already."""
        path = self._way(key)
        with _translated(f"cannot write {path}"):
            try:
                self._write_new(path, data)
            except FileExistsError:
                # Whoever asks may take what is there for stored: its name is made durable, whoever published it.
                with contextlib.suppress(FileNotFoundError):  # moved since: then nothing is there
                    atomic.sync_folder(path.parent)
                return False
        return True

    def _write_new(self, path: Path, data: bytes) -> None:
        """Write a new file, also if its folder is moved or deleted meanwhile: in a new folder then."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(FileNotFoundError):
                atomic.make_folder(path.parent)
                atomic.write_new(path, data)
                return
        atomic.make_folder(path.parent)
        atomic.write_new(path, data)

    def put(self, key: str, data: bytes) -> None:
        """Store a value durably, in place of an older one if there is one."""
        path = self._way(key)
        with _translated(f"cannot write {path}"):
            atomic.make_folder(path.parent)
            atomic.write_replacing(path, data)

    def exchange(self, key: str, data: bytes) -> str:
        """Store a value durably in place of the one that is there, and return a fresh key that holds that one."""
        path = self._way(key)
        with _translated(f"cannot replace {path}"):
            kept = atomic.write_exchanging(path, data)
        return f"{key.rpartition('/')[0]}/{kept.name}"

    def copy_new(self, key: str, new_key: str) -> bool:
        """Give a value a second key in the same folder; False, with nothing changed, if that key has one already."""
        path, new_path = self._way(key), self._way(new_key)
        with _translated(f"cannot keep a copy of {path}"):
            try:
                atomic.link_new(path, new_path)
            except FileExistsError:
                return False
        return True

    def list(self, prefix: str) -> list[Entry]:
        """What stands directly under a prefix, sorted by name; nothing if the prefix is absent."""
        path = self._way(prefix, to_folder=True)
        found = []
        with _translated(f"cannot list {path}"):
            try:
                entries = os.scandir(path)
            except FileNotFoundError:
                if self.root.exists() and not self.root.is_dir():
                    raise NotADirectoryError(
                        errno.ENOTDIR, "a file stands where a folder is needed", str(self.root)
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
        with _translated(f"cannot move {path} to {new_path}"):
            try:
                path.rename(new_path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
            atomic.sync_folder(new_path.parent)
        return True

    def delete(self, key: str) -> bool:
        """Remove a value; False if there was none."""
        path = self._way(key)
        with _translated(f"cannot delete {path}"):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            atomic.sync_folder(path.parent)
        return True

    def delete_folder(self, prefix: str) -> bool:
        """Remove everything under a prefix; False if there was nothing. It is out of sight at once, or not at all."""
        path = self._way(prefix, to_folder=True)
        hidden = path if atomic.published_name(path.name) else atomic.leftover_path(path)
        with _translated(f"cannot delete {path}"):
            try:
                path.rename(hidden)
            except FileNotFoundError:
                return False
            atomic.sync_folder(path.parent)
            # From here on it is deleted. What a stranger's read-only folder holds back is left for a sweep.
            _make_writable(hidden)
            shutil.rmtree(hidden, ignore_errors=path != hidden)
        return True


def _make_writable(folder: Path) -> None:
    for where, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(where).chmod(0o700)


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn what the operating system raises into one sentence."""
    try:
        yield
    except (ResultNotFoundError, UnsafePathError, StorageError):
        raise
    except OSError as error:
        refused = StorageError(doing, error.strerror or str(error), _advice(error))
        refused.errno = error.errno
        raise refused from error


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "check the permissions"
    if isinstance(error, NotADirectoryError):
        return "name a folder as the results directory"
    return "check the file system, then try again"
