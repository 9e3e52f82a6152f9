"""A store in a folder of a POSIX file system, local or shared (NFS, Lustre)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llm_energy_measure.constants import MAX_FILE_BYTES, MAX_FILE_SIZE_ENV
from llm_energy_measure.domain.units import parse_size
from llm_energy_measure.exceptions import (
    ConfigurationError,
    ResultNotFoundError,
    ResultsError,
    StorageError,
    UnsafePathError,
)
from llm_energy_measure.storage import atomic
from llm_energy_measure.storage.base import Entries, Entry, find_listed, list_range, split_key, walk_folders
from llm_energy_measure.storage.contained import remove_tree
from llm_energy_measure.storage.temporary import target_name, temporary_path

# Maximum number of writes of one file. A write is repeated if another process moves or deletes its folder.
_MAX_ATTEMPTS = 10
# Maximum number of folders in `_durable_folders`, whose names are known to be durable.
_MAX_DURABLE_FOLDERS = 10_000


def max_file_bytes() -> int:
    """Return the maximum size of a result file in bytes.

    Raises:
        ConfigurationError: The environment variable is not a size.
    """
    value = os.environ.get(MAX_FILE_SIZE_ENV)
    try:
        return parse_size(value) if value else MAX_FILE_BYTES
    except ValueError as error:
        raise ConfigurationError(
            "cannot read the limit of file sizes", str(error), f"correct {MAX_FILE_SIZE_ENV}"
        ) from error


def read_file(path: str | Path, *, follow_links: bool) -> bytes:
    """Return the content of a regular file of at most `max_file_bytes()` bytes.

    Raises:
        ResultNotFoundError: The file does not exist.
        UnsafePathError: The path is a symbolic link, a pipe, a device or a folder.
        StorageError: The file system returned an error, or the file is too large.
    """
    if not follow_links and not atomic.NO_FOLLOW and os.path.islink(path):
        raise _read_error(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP)), follow_links=False)
    try:
        descriptor = os.open(path, atomic.READ_FLAGS | (0 if follow_links else atomic.NO_FOLLOW))
        try:
            return _read(descriptor, path)
        finally:
            os.close(descriptor)
    except OSError as error:
        if isinstance(error, ResultsError):
            raise
        raise _read_error(path, error, follow_links=follow_links) from (error if error.errno != errno.ENOENT else None)


def _read(descriptor: int, path: str | Path) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(f"cannot read {path}", "it is not a regular file", "replace it with a regular file")
    if status.st_size > (limit := max_file_bytes()):
        found = f"it has {status.st_size:,} bytes; the limit is {limit:,}"
        raise StorageError(f"cannot read {path}", found, "check that it is a result file, or raise --max-file-size")
    data = os.read(descriptor, status.st_size + 1)
    if len(data) == status.st_size:
        return data
    # A read can return fewer bytes than requested, and the file can grow.
    chunks = [data]
    while chunk := os.read(descriptor, status.st_size + 1):
        chunks.append(chunk)
    return b"".join(chunks)


def _read_error(path: str | Path, error: OSError, *, follow_links: bool) -> ResultsError:
    doing = f"cannot read {path}"
    if error.errno == errno.ENOENT:
        return ResultNotFoundError(doing, "the file was not found", "check the spelling")
    if not follow_links and os.path.islink(path):
        return UnsafePathError(doing, "it is a symbolic link", "replace the link with the file")
    if error.errno == errno.ENXIO:
        return UnsafePathError(doing, "it is a socket", "replace it with a regular file")
    return _storage_error(doing, error)


class LocalStore:
    """A `Store` in a folder. The first write creates the folder.

    Args:
        root: The folder.
    """

    supports_paths = True
    supports_folder_move = True
    supports_mtime = True
    parallel_requests = 1

    def __init__(self, root: str | Path) -> None:
        """Set the folder. No file is opened or created."""
        self.root = Path(root)
        self._root = os.fspath(self.root)
        self._durable_folders: set[str] = set()

    def path(self, key: str) -> Path:
        """Return the path of the value of a key. The value need not exist."""
        return Path(os.sep.join([self._root, *split_key(key)]))

    def _checked_path(self, key: str, *, to_folder: bool = False) -> str:
        """Return the path of a value or a folder. Raises `UnsafePathError` if a parent folder is a symbolic link."""
        parts = split_key(key)
        path = self._root
        name = None if to_folder else parts.pop()
        for part in parts:
            path = f"{path}{os.sep}{part}"
            try:
                is_link = stat.S_ISLNK(os.lstat(path).st_mode)
            except (OSError, ValueError):  # using the path raises the same error
                break
            if is_link:
                found = f"{path} is a symbolic link"
                raise UnsafePathError(f"cannot use the key {key!r}", found, "replace the link with the folder")
        return os.sep.join([self._root, *parts] if name is None else [self._root, *parts, name])

    def require_safe_writes(self) -> None:
        """Do nothing: no server can break the guarantees."""

    def get(self, key: str) -> bytes:
        """Return the value of a key. Raises `ResultNotFoundError` if the key is absent."""
        return read_file(self._checked_path(key), follow_links=False)

    def create(self, key: str, data: bytes) -> bool:
        """Store a value durably if the key is absent. Return False and change nothing if it exists."""
        path = self._checked_path(key)
        with _storage_errors("cannot write", path):
            try:
                self._write_in_folders([os.path.dirname(path)], lambda: atomic.create_file(path, data))
            except FileExistsError:
                # The caller may treat the existing value as stored, so its name must be durable too.
                with contextlib.suppress(FileNotFoundError):  # another process moved the folder
                    atomic.sync_folder(os.path.dirname(path))
                return False
        return True

    def _write_in_folders(self, folders: Sequence[str], write: Callable[[], None]) -> None:
        """Write files. If another process moves or deletes a folder, create the folder again and repeat."""
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            try:
                for folder in folders:
                    self._make_folder(folder)
                write()
            except FileNotFoundError:
                if not attempts_left:
                    raise
                self._durable_folders.difference_update(folders)
            else:
                return

    def _make_folder(self, folder: str) -> None:
        """Create a folder, or make the name of an existing one durable. Each folder is synced once."""
        if folder not in self._durable_folders:
            atomic.make_folder(folder, root=self._root)
            if len(self._durable_folders) >= _MAX_DURABLE_FOLDERS:
                self._durable_folders.clear()
            self._durable_folders.add(folder)

    def put(self, key: str, data: bytes) -> None:
        """Store a value durably and replace an existing one."""
        path = self._checked_path(key)
        with _storage_errors("cannot write", path):
            self._write_in_folders([os.path.dirname(path)], lambda: atomic.replace_file(path, data))

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> dict[str, str]:
        """Store several values durably with one sync, and replace existing ones."""
        folders: dict[str, str] = {}
        files = {}
        for key, data in values.items():
            *parents, name = split_key(key)
            prefix = "/".join(parents)
            if prefix not in folders:
                folders[prefix] = os.path.dirname(self._checked_path(key))  # once per folder, not per key
            files[f"{folders[prefix]}{os.sep}{name}"] = data
        with _storage_errors("cannot write to", self._root):
            self._write_in_folders([*folders.values()], lambda: atomic.replace_files(files, mtime_ns=mtime_ns))
        return {}

    def exchange(self, key: str, data: bytes) -> str:
        """Replace an existing value durably, and return a new key that holds the previous value."""
        path = self._checked_path(key)
        with _storage_errors("cannot replace", path):
            kept = atomic.exchange_file(path, data)
        return f"{key.rpartition('/')[0]}/{os.path.basename(kept)}"

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        """Copy a value to `new_key` in the same folder. Return False and change nothing if `new_key` exists."""
        path, new_path = self._checked_path(key), self._checked_path(new_key)
        with _storage_errors("cannot keep a copy of", path):
            try:
                atomic.link_file(path, new_path)
            except FileExistsError:
                return False
        return True

    def list(self, prefix: str) -> Entries:
        """Return the entries directly under a prefix, sorted by name. An absent prefix has none."""
        path = self._checked_path(prefix, to_folder=True)
        found = []
        with _storage_errors("cannot list", path):
            try:
                entries = os.scandir(path)
            except FileNotFoundError:
                if self.root.exists() and not self.root.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", self._root) from None
                return []
            with entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        size = 0 if is_folder else status.st_size
                        found.append(Entry(entry.name, is_folder, size, status.st_mtime))
        return sorted(found)

    def list_range(self, prefix: str, start: str, end: str) -> Entries:
        """Return the entries of `list` whose names are at least `start` and less than `end`."""
        return list_range(self, prefix, start, end)

    def find(self, key: str) -> Entry | None:
        """Return the entry of a value. None if the key is absent, or is a folder."""
        split_key(key)
        return find_listed(self, key)

    def walk(self, prefix: str, folders: Sequence[str] = ()) -> Entries:  # noqa: ARG002 - folders are listed one by one
        """Return all values under a prefix, at any depth, sorted by name (the key without the prefix)."""
        return walk_folders(self, prefix)

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        """Rename a folder atomically. Return False if it is absent or if `new_prefix` exists."""
        path, new_path = self._checked_path(prefix, to_folder=True), self._checked_path(new_prefix, to_folder=True)
        with _storage_errors("cannot move", path):
            try:
                os.rename(path, new_path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
            atomic.sync_folder(os.path.dirname(new_path))
        return True

    def delete(self, key: str) -> bool:
        """Delete a value. Return False if the key is absent."""
        path = self._checked_path(key)
        with _storage_errors("cannot delete", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return False
            atomic.sync_folder(os.path.dirname(path))
        return True

    def delete_folder(self, prefix: str) -> bool:
        """Delete a folder and everything below it; the folder disappears atomically. Return False if it is absent."""
        path = self._checked_path(prefix, to_folder=True)
        hidden = path if target_name(os.path.basename(path)) else temporary_path(path)
        with _storage_errors("cannot delete", path):
            try:
                os.rename(path, hidden)
            except FileNotFoundError:
                return False
            atomic.sync_folder(os.path.dirname(path))
            # Readers now ignore the folder. Files that cannot be removed now, for example because another user owns
            # their folder, are removed by a later `results check --clean`.
            try:
                remove_tree(hidden)
            except OSError:
                if path == hidden:
                    raise
        return True


class _storage_errors:  # noqa: N801 - a context manager
    """Convert an `OSError` into a `StorageError` that names the operation and the path."""

    __slots__ = ("doing", "path")

    def __init__(self, doing: str, path: str) -> None:
        self.doing = doing
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, ResultsError):
            raise _storage_error(f"{self.doing} {self.path}", error) from error


def _storage_error(doing: str, error: OSError) -> StorageError:
    converted = StorageError(doing, error.strerror or str(error), _advice(error))
    converted.errno = error.errno
    return converted


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "check the permissions"
    if isinstance(error, NotADirectoryError):
        return "use a folder as the results directory"
    return "check the file system, then try again"
