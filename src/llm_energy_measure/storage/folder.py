"""Fast reads of many files in one folder of a store, with few system calls.

The results and guarantees are those of the store: no symbolic link is followed, and no read blocks on a pipe or a
device. For special cases (a large file, a symbolic link, an error), the methods call the store.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from threading import Lock
from typing import TYPE_CHECKING

from llm_energy_measure.exceptions import ResultNotFoundError, ResultsError
from llm_energy_measure.storage.atomic import NO_FOLLOW, READ_FLAGS
from llm_energy_measure.storage.base import Entry, Store
from llm_energy_measure.storage.handle import FolderHandle
from llm_energy_measure.storage.temporary import temporary_path

if TYPE_CHECKING:
    from llm_energy_measure.storage.parallel import ParallelReader

_FILE_FLAGS = READ_FLAGS | NO_FOLLOW
_FOLDER_FLAGS = _FILE_FLAGS | getattr(os, "O_DIRECTORY", 0)

# Ten times the size of most raw results. The unused part of the buffer does not make reading slower.
_CHUNK_BYTES = 1 << 16


# A file can be in a listing and still not be found. The file is then read again, at most `_MAX_READS` times, with a
# pause before each repeated read.
_MAX_READS = 10
_PAUSE_SEC = 0.001


class Folder(FolderHandle):
    """The files and subfolders under a prefix of a store.

    Args:
        store: The store.
        prefix: The prefix. It need not exist.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        """Open the folder if the store is local and the folder exists."""
        self.store = store
        self.prefix = prefix
        super().__init__(None)
        self._parallel: ParallelReader | None = None
        if store.parallel_requests > 1:
            from llm_energy_measure.storage.parallel import ParallelReader  # directories do not need this import

            self._parallel = ParallelReader(store, prefix)
        self._entries: dict[str, Entry] | None = None
        self._names: list[str] | None = None
        self._lock = Lock()  # threads that read a bucket share one listing
        if store.supports_paths and os.open in os.supports_dir_fd and os.listdir in os.supports_fd:
            try:
                self._descriptor = os.open(store.path(prefix), _FOLDER_FLAGS)
            except OSError:
                self._descriptor = None  # the methods then call the store, which reports the error

    def close(self) -> None:
        """Close the folder."""
        super().close()
        if self._parallel is not None:
            self._parallel.close()

    def names(self) -> Iterator[str]:
        """Yield the names of subfolders, sorted. In a local store, names of links are included."""
        if self._descriptor is None:
            yield from (entry.name for entry in self.store.list(self.prefix) if entry.is_folder)
            return
        with os.scandir(self._descriptor) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False) or entry.is_symlink())
        # One string needs a tenth of the memory of a list: 100,000 names take 1 MB. A name contains no slash.
        for name in re.finditer("[^/]+", "/".join(found)):
            yield name[0]

    def entries(self) -> dict[str, Entry]:
        """Return the entries of the folder by name. The first call lists the folder; later calls use this listing."""
        with self._lock:
            if self._entries is None:
                self._entries = {entry.name: entry for entry in self.store.list(self.prefix)}
            return self._entries

    def use_listing(self, entries: dict[str, Entry], below: dict[str, list[Entry]] | None = None) -> None:
        """Use listings that the caller has made, so that `entries` makes no request.

        Args:
            entries: The entries of the folder by name.
            below: The entries of each subfolder, by the name of the subfolder. `listing` then makes no request either.
                None if the caller did not list the subfolders.
        """
        self._entries = entries
        if self._parallel is not None and below is not None:
            self._parallel.use_walked(below)

    def names_with(self, prefix: str) -> list[str]:
        """Return the names in `entries` that start with a prefix, sorted."""
        if self._names is None:
            self._names = sorted(self.entries())
        start = bisect_left(self._names, prefix)
        return list(takewhile(lambda name: name.startswith(prefix), islice(self._names, start, None)))

    def listing(self, name: str, *, before_read: bool = False) -> list[Entry]:
        """Return the entries of a subfolder with their versions; empty if the store has no versions.

        Args:
            name: Name of the subfolder.
            before_read: True: return the listing that the last `read` of the subfolder made before it read values.
                False: the first call lists all subfolders at once, and each call returns the part of one subfolder.
        """
        if self._parallel is None:
            return []
        return self._parallel.listed.get(name, []) if before_read else self._parallel.walked(name)

    def timestamp_ns(self, name: str, *, of_folder: bool = False) -> int | None:
        """Return the mtime of a file or the ctime of a folder, in nanoseconds since 1970-01-01 UTC.

        The file system sets these times with its own clock. The result is None if the name is absent, if the time is
        unknown, or if the file is empty. It is also None if the name belongs to another type of file (a link, a pipe).

        If mtime and ctime of a file are equal, the result is None too: the file may be a plain copy of an older file.
        Renaming a file or setting its mtime makes the two times different.
        """
        if self._descriptor is None:
            return None
        try:
            found = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return None
        if stat.S_IFMT(found.st_mode) != (stat.S_IFDIR if of_folder else stat.S_IFREG):
            return None
        if of_folder:
            # A folder that is moved or copied here keeps its mtime, but not its ctime.
            return found.st_ctime_ns
        return found.st_mtime_ns if found.st_size and found.st_mtime_ns != found.st_ctime_ns else None

    def is_absent(self, name: str) -> bool:
        """Return True if the name is certainly absent. Return False if it exists, or if stat(2) returns another error.

        In a bucket, all calls use one listing.

        Raises:
            StorageError: The folder of a bucket, or a folder without a descriptor, cannot be listed.
        """
        if self._parallel is not None:
            return name not in self.entries()
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
        """Yield each wanted file of a subfolder, in any order: its name, and its content or the error of reading it.

        Args:
            name: Name of the subfolder.
            wanted: Function that returns True for the names of the files to read. It is also called with names of
                folders.

        Raises:
            StorageError: The subfolder cannot be listed.
        """
        if self._parallel is not None:
            yield from self._parallel.read(name, wanted)
            return
        folder = self._open(name)
        if folder is None:
            for entry in self.store.list(f"{self.prefix}/{name}"):
                if wanted(entry.name) and not entry.is_folder:
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
        """Read the files of a subfolder into the page cache. In a bucket, start to fetch them. Ignore all errors."""
        if self._parallel is not None:
            self._parallel.prefetch(name)
            return
        folder = self._open(name)
        if folder is None:
            return
        try:
            for file in os.listdir(folder):
                _read(file, folder)
        except OSError:
            return  # `read` reports the error
        finally:
            os.close(folder)

    def get(self, name: str) -> bytes | None:
        """Return the content of a file. None if it cannot be read."""
        data = None if self._descriptor is None else _read(name, self._descriptor)
        if data is None:
            found = self._get(name)
            return found if isinstance(found, bytes) else None
        return data

    def set_mtime(self, name: str, mtime_ns: int) -> None:
        """Set the mtime of a file, in nanoseconds since 1970-01-01 UTC, if the store supports it. Ignore errors."""
        if self._descriptor is not None:
            try:
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=self._descriptor, follow_symlinks=False)
            except OSError:
                return

    def _open(self, name: str) -> int | None:
        if self._descriptor is None:
            return None
        try:
            return os.open(name, _FOLDER_FLAGS, dir_fd=self._descriptor)
        except OSError:
            return None

    def _get(self, name: str) -> bytes | ResultsError:
        try:
            return get_listed(self.store, f"{self.prefix}/{name}")
        except ResultsError as error:
            return error

    @staticmethod
    def _is_folder(name: str, folder: int) -> bool:
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except OSError:
            return True  # another process deleted the file: with True, `read` skips the name


def get_listed(store: Store, key: str) -> bytes:
    """Return the value of a key that was listed. Raises `ResultNotFoundError` if the key is not listed any more.

    Through FUSE, a value that another process replaces is absent for an instant: 1 of 100 reads failed on bindfs.
    """
    for _ in range(_MAX_READS):
        try:
            return store.get(key)
        except ResultNotFoundError:
            if store.find(key) is None:
                raise
            time.sleep(_PAUSE_SEC)
    return store.get(key)


def store_time_ns(store: Store, prefix: str) -> int:
    """Return the time of the clock that sets the mtime of new files, in nanoseconds since 1970-01-01 UTC.

    The clock can belong to another machine, such as a file server. Files that are written later have this mtime or a
    later one. The result is 0 if the time is unknown.

    Args:
        store: The store.
        prefix: A writable folder of the store. If it does not exist, the root folder of the store is used.
    """
    if not (store.supports_mtime and store.supports_paths):
        return 0
    path = store.path(prefix)
    root = path.parents[prefix.count("/")]
    for folder in (path, root):
        if folder != root and os.path.islink(folder):  # a new file would be outside the store
            continue
        try:
            return _mtime_of_new_file(os.fspath(folder))
        except OSError:
            continue
    return 0


def _mtime_of_new_file(folder: str) -> int:
    """Return the mtime of a new file in a folder. The file has no name (O_TMPFILE), or is deleted at once."""
    flags = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    if hasattr(os, "O_TMPFILE"):
        with contextlib.suppress(OSError):  # some file systems do not support O_TMPFILE
            return _mtime_and_close(os.open(folder, flags | os.O_TMPFILE, 0o600))
    probe = temporary_path(f"{folder}{os.sep}clock")
    try:
        return _mtime_and_close(os.open(probe, flags | os.O_CREAT | os.O_EXCL, 0o600))
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)


def _mtime_and_close(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _read(name: str, folder: int) -> bytes | None:
    """Return the content of a small regular file. None for other files: `LocalStore.get` reads them or raises."""
    try:
        descriptor = os.open(name, _FILE_FLAGS, dir_fd=folder)
    except OSError:
        return None
    try:
        data = os.pread(descriptor, _CHUNK_BYTES, 0)  # fails on a pipe, and takes no data out of it
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # 0 bytes can come from a device, and a full buffer can be only a part of the file.
    return data if 0 < len(data) < _CHUNK_BYTES else None
