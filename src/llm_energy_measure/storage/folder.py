"""One folder of a store, looked at and read many times over: as few system calls as its guarantees allow.

Each method costs what the bare calls cost and says the same as the store's own: no symbolic link is followed, nothing
blocks on what is no regular file, and whatever is unusual (a large file, a link, an error) goes the store's own way.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING, Self

from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.storage.atomic import temporary_path
from llm_energy_measure.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from llm_energy_measure.storage.base import Store

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_FOLDER = _FLAGS | getattr(os, "O_DIRECTORY", 0)

# Most raw results have a tenth of it. One read of it costs no more than one of their size.
_CHUNK_BYTES = 1 << 16


class Folder:
    """What stands under a prefix of a store.

    Args:
        store: The store.
        prefix: The prefix, which need not be there.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        """Open the folder, if it is there and one of the file system."""
        self.store = store
        self.prefix = prefix
        self._descriptor: int | None = None
        if isinstance(store, LocalStore) and os.open in os.supports_dir_fd and os.listdir in os.supports_fd:
            try:
                self._descriptor = os.open(store.path(prefix), _FOLDER)
            except OSError:
                self._descriptor = None  # absent, or whatever the store's own way will say

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def names(self) -> Iterator[str]:
        """Names of what may be folders in it, sorted; a hundred thousand cost a megabyte once they are sorted."""
        if self._descriptor is None:
            yield from (entry.name for entry in self.store.list(self.prefix) if entry.is_folder)
            return
        # One text, in a tenth of the memory of as many: no name has a slash in it.
        for found in re.finditer("[^/]+", "/".join(sorted(os.listdir(self._descriptor)))):
            yield found[0]

    def timestamp_ns(self, name: str) -> int | None:
        """When a file says that it was last written, or a folder that it was last changed, moved or copied here.

        In nanoseconds since 1970-01-01 UTC, by the clock of the file system. None if nothing is there, if it is
        unknown, of an empty file, in which nothing was written yet, or of one that nobody has stamped or moved since it
        was written, as a plain copy: when its content was made is not known.
        """
        if self._descriptor is None:
            return None
        try:
            found = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return None
        if stat.S_ISDIR(found.st_mode):
            # Not the time of modification, which a folder keeps that is moved or copied to the place of another.
            return found.st_ctime_ns
        return found.st_mtime_ns if found.st_size and found.st_mtime_ns != found.st_ctime_ns else None

    def is_absent(self, name: str) -> bool:
        """True if it is known that nothing of that name is there."""
        if self._descriptor is None:
            return not any(entry.name == name for entry in self.store.list(self.prefix))
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def read(self, name: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | ResultsError]]:
        """The files of a folder in it, in any order: name, and content or why it can't be had.

        Args:
            name: The folder's name.
            wanted: Whether to read a file of that name.

        Raises:
            StorageError: The folder can't be listed.
        """
        folder = self._open(name)
        if folder is None:
            for entry in self.store.list(f"{self.prefix}/{name}"):
                if not entry.is_folder and wanted(entry.name):
                    yield entry.name, self._get(f"{name}/{entry.name}")
            return
        try:
            for file in filter(wanted, os.listdir(folder)):
                data = _read(file, folder)
                if data is not None:
                    yield file, data
                elif not self._is_folder(file, folder):
                    yield file, self._get(f"{name}/{file}")
        finally:
            os.close(folder)

    def prefetch(self, name: str) -> None:
        """Have the system read the files of a folder in it, which then are in its cache; nothing is said of them."""
        folder = self._open(name)
        if folder is None:
            return
        try:
            for file in os.listdir(folder):
                _read(file, folder)
        except OSError:
            return  # whoever reads it in earnest is told
        finally:
            os.close(folder)

    def get(self, name: str) -> bytes | None:
        """The content of a file in it; None if it can't be had."""
        data = None if self._descriptor is None else _read(name, self._descriptor)
        if data is None:
            found = self._get(name)
            return found if isinstance(found, bytes) else None
        return data

    def set_mtime(self, name: str, timestamp_ns: int) -> None:
        """Say as of when a file is current; nothing happens where that can't be said."""
        if self._descriptor is not None:
            try:
                os.utime(name, ns=(timestamp_ns, timestamp_ns), dir_fd=self._descriptor, follow_symlinks=False)
            except OSError:
                return

    def _open(self, name: str) -> int | None:
        if self._descriptor is None:
            return None
        try:
            return os.open(name, _FOLDER, dir_fd=self._descriptor)
        except OSError:
            return None

    def _get(self, name: str) -> bytes | ResultsError:
        try:
            return self.store.get(f"{self.prefix}/{name}")
        except ResultsError as error:
            return error

    @staticmethod
    def _is_folder(name: str, folder: int) -> bool:
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except OSError:
            return True  # gone since: nothing to read


def store_time_ns(store: Store, prefix: str) -> int:
    """The time by the clock that stamps the files of a store, which may be another machine's; 0 if it can't be told.

    Whatever is written from here on has this stamp or a later one.

    Args:
        store: The store.
        prefix: A folder of it that can be written to; if it is not there yet, the store's own is asked.
    """
    if not isinstance(store, LocalStore):
        return 0
    for folder in (store.path(prefix), store.root):
        try:
            return _stamp_of_new_file(os.fspath(folder))
        except OSError:
            continue
    return 0


def _stamp_of_new_file(folder: str) -> int:
    """The stamp of a file that is made there and gone at once; where it can, it never has a name."""
    flags = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    if hasattr(os, "O_TMPFILE"):
        with contextlib.suppress(OSError):  # not every file system has files without names
            return _closed_stamp(os.open(folder, flags | os.O_TMPFILE, 0o600))
    probe = temporary_path(f"{folder}{os.sep}clock")
    try:
        return _closed_stamp(os.open(probe, flags | os.O_CREAT | os.O_EXCL, 0o600))
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)


def _closed_stamp(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _read(name: str, folder: int) -> bytes | None:
    """A small regular file; None for anything else, which the store then reads or explains."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=folder)
    except OSError:
        return None
    try:
        data = os.pread(descriptor, _CHUNK_BYTES, 0)  # which a pipe refuses, whatever waits in it
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # An empty one may be a device, and a full chunk may be a part.
    return data if 0 < len(data) < _CHUNK_BYTES else None
