"""The `Store` protocol: bytes under keys, and what every store guarantees.

A key is a relative path with `/` between its parts, such as `raw/exp_7/process_0.json`.

Guarantees, of every method of every store:

- A value is either absent or whole. No reader ever sees a part of one.
- `create` never replaces anything: of two callers with one key, exactly one succeeds.
- What `create`, `put`, `put_many` and `exchange` have returned from survives a crash of the machine, as far as the
  file system keeps what it was told to sync.
- No method follows a symbolic link inside the store, or blocks on a file that is no regular file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from llm_energy_measure.exceptions import UnsafePathError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


_NO_NAMES = frozenset({"", ".", ".."})


class Entry(NamedTuple):
    """One name directly under a prefix.

    Attributes:
        name: The last part of the key.
        is_folder: True if it is a prefix of further keys.
        size_bytes: Size of the value; 0 for a folder.
        mtime_sec: When it was last written, in seconds since 1970-01-01 UTC; 0 if that is unknown.
    """

    name: str
    is_folder: bool
    size_bytes: int
    mtime_sec: float = 0.0


def split_key(key: str) -> list[str]:
    """The parts of a key.

    Raises:
        UnsafePathError: It leads out of a store, or could on some system.
    """
    parts = key.split("/")
    if "\\" in key or "\0" in key or not _NO_NAMES.isdisjoint(parts):
        raise UnsafePathError(f"cannot use the key {key!r}", "it leads out of the store", "use plain names")
    return parts


class Store(Protocol):
    """Bytes under keys. The module's docstring has the guarantees.

    Every method raises `StorageError` where the file system refuses, and `UnsafePathError` for a key that leads out.
    """

    def path(self, key: str) -> Path:
        """Where the value of a key lies, whether or not it exists."""

    def get(self, key: str) -> bytes:
        """The value. Raises `ResultNotFoundError` if there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Store a new value durably; False, with nothing changed, if the key has one already."""

    def put(self, key: str, data: bytes) -> None:
        """Store a value durably, in place of an older one if there is one."""

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> None:
        """Store several values durably, each in place of an older one if there is one, with one sync for all.

        Where it raises, each of them is as it was or stored, and whole. With `mtime_ns` they appear as last written
        then, in nanoseconds since 1970-01-01 UTC, in a store that keeps stamps.
        """

    def exchange(self, key: str, data: bytes) -> str:
        """Store a value durably in place of the one that is there, and return a fresh key that holds that one.

        Of several callers at once each gets another's value, so that none is lost between them.
        """

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        """Give a value a second key in the same folder; False, with nothing changed, if that key has one already."""

    def list(self, prefix: str) -> list[Entry]:
        """What stands directly under a prefix, sorted by name; nothing if the prefix is absent."""

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        """Give everything under a prefix another one, at once; False if there is nothing or the new one is taken."""

    def delete(self, key: str) -> bool:
        """Remove a value; False if there was none."""

    def delete_folder(self, prefix: str) -> bool:
        """Remove everything under a prefix; False if there was nothing. It is out of sight at once, or not at all."""
