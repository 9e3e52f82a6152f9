"""The `Store` protocol: bytes under keys, and the guarantees of every store.

A key is a relative path with `/` between its parts, such as `raw/exp_7/process_0.json`.

Guarantees of all methods:

- A value is absent or whole. No reader sees a part of a value.
- `create` never replaces a value. If two callers create the same key, exactly one succeeds.
- After `create`, `put`, `put_many` or `exchange` returns, the value survives a crash of the machine (if the file
  system honours fsync).
- No method follows a symbolic link inside the store, and no method blocks on a pipe or a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from llm_energy_measure.exceptions import UnsafePathError

_NO_NAMES = frozenset({"", ".", ".."})


class Entry(NamedTuple):
    """A value or a folder directly under a prefix.

    Attributes:
        name: The last part of the key.
        is_folder: True if further keys start with this key.
        size_bytes: Size of the value in bytes; 0 for a folder.
        mtime_sec: Time of the last modification, in seconds since 1970-01-01 UTC; 0 if unknown.
    """

    name: str
    is_folder: bool
    size_bytes: int
    mtime_sec: float = 0.0


def split_key(key: str) -> list[str]:
    """Return the parts of a key.

    Raises:
        UnsafePathError: The key has an empty part, a part `.` or `..`, a backslash or a NUL character.
    """
    parts = key.split("/")
    if "\\" in key or "\0" in key or not _NO_NAMES.isdisjoint(parts):
        raise UnsafePathError(f"cannot use the key {key!r}", "it is not a path inside the store", "use plain names")
    return parts


class Store(Protocol):
    """Bytes under keys. The docstring of the module lists the guarantees.

    All methods raise `StorageError` if the file system returns an error, and `UnsafePathError` for an invalid key.

    `get`, `create`, `put`, `exchange`, `list` and `delete` are the core, which each store has. Code that needs more
    asks for the capability, and never for the class of the store.

    Attributes:
        supports_paths: `path` returns the file or the folder of a key, which other code can open.
        supports_folder_move: `move_folder` works, and `delete_folder` is atomic.
        supports_mtime: Values have modification times, which `put_many` can set.
    """

    supports_paths: bool
    supports_folder_move: bool
    supports_mtime: bool

    def path(self, key: str) -> Path:
        """Return the path of the value of a key. The value need not exist."""

    def get(self, key: str) -> bytes:
        """Return the value of a key. Raises `ResultNotFoundError` if the key is absent."""

    def create(self, key: str, data: bytes) -> bool:
        """Store a value durably if the key is absent. Return False and change nothing if it exists."""

    def put(self, key: str, data: bytes) -> None:
        """Store a value durably and replace an existing one."""

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> None:
        """Store several values durably with one sync, and replace existing ones.

        If it raises, each key has its old or its new value.

        Args:
            values: The values by key.
            mtime_ns: Modification time of the values, in nanoseconds since 1970-01-01 UTC. None is now. Stores
                without modification times ignore it.
        """

    def exchange(self, key: str, data: bytes) -> str:
        """Replace an existing value durably, and return a new key that holds the previous value.

        If several callers exchange the same key at once, each gets a different previous value, so no value is lost.
        """

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        """Copy a value to `new_key` in the same folder. Return False and change nothing if `new_key` exists."""

    def list(self, prefix: str) -> list[Entry]:
        """Return the entries directly under a prefix, sorted by name. An absent prefix has none."""

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        """Rename a folder atomically. Return False if it is absent or if `new_prefix` exists."""

    def delete(self, key: str) -> bool:
        """Delete a value. Return False if the key is absent."""

    def delete_folder(self, prefix: str) -> bool:
        """Delete a folder and everything below it; the folder disappears atomically. Return False if it is absent."""
