"""The `Store` protocol: bytes under keys, and the guarantees of every store.

A key is a relative path with `/` between its parts, such as `raw/exp_7/process_0.json`.

Guarantees of all methods:

- A value is absent or whole. No reader sees a part of a value.
- `create` never replaces a value. If several callers create the same key, at most one succeeds, and the value is the
  value of one of them. If no call fails and no answer of a server is lost, exactly one succeeds.
- After `create`, `put`, `put_many` or `exchange` returns, the value survives a crash of the machine (if the file
  system honours fsync). Only `MemoryStore` does not guarantee this.
- No method follows a symbolic link inside the store, and no method blocks on a pipe or a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from llm_energy_measure.exceptions import UnsafePathError

_NO_NAMES = frozenset({"", ".", ".."})
_KEY_ADVICE = "use a relative path without empty parts, the parts '.' and '..', backslashes and NUL characters"


class Entry(NamedTuple):
    """A value or a folder directly under a prefix.

    Attributes:
        name: The last part of the key.
        is_folder: True for a folder. The keys of the values in it start with the key of the folder and a slash.
        size_bytes: Size of the value in bytes; 0 for a folder.
        mtime_sec: Time of the last modification, in seconds since 1970-01-01 UTC; 0 if unknown.
        version: Opaque text that changes with the value, such as the ETag of an object; empty if the store has none.
    """

    name: str
    is_folder: bool
    size_bytes: int
    mtime_sec: float = 0.0
    version: str = ""


if TYPE_CHECKING:
    # mypy sees a `StorePath` as a `Path`, because most callers use directories and open the paths. Code that opens a
    # path checks `supports_paths` first.
    _PathBase = Path
else:
    _PathBase = object


class StorePath(_PathBase):
    """The URL of a value in a store without files. `str` returns the URL. A program cannot open it as a file path.

    Example:
        >>> place = StorePath("s3://bucket/results") / "raw" / "process_0.json"
        >>> str(place), place.name
        ('s3://bucket/results/raw/process_0.json', 'process_0.json')
    """

    def __new__(cls, url: str) -> Self:
        """Return the `StorePath` of a URL."""
        made = object.__new__(cls)
        object.__setattr__(made, "_url", url.rstrip("/"))
        return made

    def __init__(self, url: str) -> None:
        """Do nothing: `__new__` stores the URL."""

    _url: str

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self._url.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The `StorePath` without the last part."""
        return type(self)(self._url.rpartition("/")[0])

    @property
    def parts(self) -> tuple[str, ...]:
        """Scheme and bucket as one part, then the other parts of the URL."""
        scheme, _, rest = self._url.partition("://")
        bucket, *others = rest.split("/")
        return (f"{scheme}://{bucket}", *others)

    def __truediv__(self, key: object) -> Self:
        return type(self)(f"{self._url}/{key}")

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"StorePath({self._url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._url,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)


Entries = list[Entry]
"""A list of entries. In a class with a method `list`, annotations cannot use the type `list`."""


def split_key(key: str) -> list[str]:
    """Return the parts of a key.

    Raises:
        UnsafePathError: The key has an empty part, a part `.` or `..`, a backslash or a NUL character.
    """
    parts = key.split("/")
    if "\\" in key or "\0" in key or not _NO_NAMES.isdisjoint(parts):
        raise UnsafePathError(f"cannot use the key {key!r}", "it is not a path inside the store", _KEY_ADVICE)
    return parts


class Store(Protocol):
    """Bytes under keys. The docstring of the module lists the guarantees.

    All methods raise `StorageError` if the file system returns an error, and `UnsafePathError` for an invalid key.

    `get`, `create`, `put`, `exchange`, `list` and `delete` are the core, which each store has. Code that needs another
    capability checks its flag, and never the class of the store.

    Attributes:
        supports_paths: `path` returns the file or the folder of a key, which other code can open.
        supports_folder_move: `move_folder` works, and `delete_folder` is atomic.
        supports_mtime: Values have modification times, which `put_many` can set.
        parallel_requests: Number of requests that one process should have in flight: 1 without a network.
    """

    supports_paths: bool
    supports_folder_move: bool
    supports_mtime: bool
    parallel_requests: int

    def path(self, key: str) -> Path:
        """Return the path of a key, which need not exist. In a bucket, the path is a `StorePath`."""

    def require_safe_writes(self) -> None:
        """Check that the server behind the store keeps the guarantees; raise `StorageError` otherwise."""

    def get(self, key: str) -> bytes:
        """Return the value of a key. Raises `ResultNotFoundError` if the key is absent."""

    def create(self, key: str, data: bytes) -> bool:
        """Store a value durably if the key is absent. Return False and change nothing if it exists."""

    def put(self, key: str, data: bytes) -> None:
        """Store a value durably and replace an existing one."""

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> dict[str, str]:
        """Store several values durably with one sync, and replace existing ones.

        If the call raises, each key has its old or its new value.

        Args:
            values: The values by key.
            mtime_ns: Modification time of the values, in nanoseconds since 1970-01-01 UTC. None is now. Stores
                without modification times ignore this argument.

        Returns:
            The version of each new value, as `list` returns it. Empty if the store has no versions.
        """

    def exchange(self, key: str, data: bytes) -> str:
        """Replace an existing value durably, and return a new key that holds the previous value.

        If several callers exchange the same key at once, each gets a different previous value, so no value is lost.
        """

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        """Copy a value to `new_key` in the same folder. Return False and change nothing if `new_key` exists."""

    def list(self, prefix: str) -> Entries:
        """Return the entries directly under a prefix, sorted by name. An absent prefix has none."""

    def list_range(self, prefix: str, start: str, end: str) -> Entries:
        """Return the entries of `list` whose names are at least `start` and less than `end`; `start` is not empty."""

    def find(self, key: str) -> Entry | None:
        """Return the entry of a value, as `list` returns it. None if the key is absent, or is a folder."""

    def walk(self, prefix: str, folders: Sequence[str] = ()) -> Entries:
        """Return all values under a prefix, at any depth, sorted by name.

        A name is the part of the key after the prefix.

        Args:
            prefix: The prefix.
            folders: Sorted names of folders under the prefix that the caller knows. A store may divide the listing at
                these names and request the parts in parallel. The result does not depend on them.
        """

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        """Rename a folder atomically. Return False if it is absent or if `new_prefix` exists.

        Raises `StorageError` without `supports_folder_move`.
        """

    def delete(self, key: str) -> bool:
        """Delete a value. Return False if the key is absent."""

    def delete_folder(self, prefix: str) -> bool:
        """Delete a folder and everything below it. Return False if it is absent.

        With `supports_folder_move`, the folder disappears atomically. Otherwise its values disappear one after the
        other.
        """


def names_with(start: str) -> tuple[str, str]:
    """Return the arguments of `Store.list_range` for the names that start with a text.

    Example:
        >>> names_with(".exp_7~attempt-")
        ('.exp_7~attempt-', '.exp_7~attempt.')
    """
    return start, start[:-1] + chr(ord(start[-1]) + 1)


def list_range(store: Store, prefix: str, start: str, end: str) -> list[Entry]:
    """Return the entries in a range of names, from one listing of all entries, for stores that cannot list a range."""
    return [entry for entry in store.list(prefix) if start <= entry.name < end]


def find_listed(store: Store, key: str) -> Entry | None:
    """Return the entry of a value, from one listing of its folder. Stores with folders use it for `find`.

    The names are compared exactly, also on a file system that ignores case.
    """
    parent, _, name = key.rpartition("/")
    return next((entry for entry in store.list(parent) if entry.name == name and not entry.is_folder), None)


def by_folder(walked: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of `Store.walk` by folder: the first part of the name. Values outside folders are left out."""
    found: dict[str, list[Entry]] = {}
    for entry in walked:
        folder, slash, name = entry.name.partition("/")
        if slash:
            found.setdefault(folder, []).append(entry._replace(name=name))
    return found


def walk_folders(store: Store, prefix: str) -> list[Entry]:
    """Return all values under a prefix, with one listing per folder. Stores with folders use it for `walk`."""
    found = []
    for entry in store.list(prefix):
        if entry.is_folder:
            below = walk_folders(store, f"{prefix}/{entry.name}")
            found += [one._replace(name=f"{entry.name}/{one.name}") for one in below]
        else:
            found.append(entry)
    return sorted(found)
