"""A store in memory, for tests and for programs that need no files. Its values are lost when the process ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import RLock

from llm_energy_measure.exceptions import ResultNotFoundError, StorageError
from llm_energy_measure.storage.base import Entries, Entry, find_listed, list_range, split_key, walk_folders
from llm_energy_measure.storage.temporary import temporary_path

ROOT = Path("/memory")


class MemoryStore:
    """A `Store` in a dict. It is thread-safe. A folder exists while it contains a value. Values are not durable."""

    supports_paths = False
    supports_folder_move = True
    supports_mtime = False
    parallel_requests = 1

    def __init__(self) -> None:
        """Create an empty store."""
        self._values: dict[str, bytes] = {}
        self._lock = RLock()

    def path(self, key: str) -> Path:
        """Return a path for a key. No file exists at this path."""
        return ROOT.joinpath(*split_key(key))

    def require_safe_writes(self) -> None:
        """Do nothing: no server can break the guarantees."""

    def get(self, key: str) -> bytes:
        """Return the value of a key. Raises `ResultNotFoundError` if the key is absent."""
        doing = f"cannot read {self.path(key)}"
        with self._lock:
            if key not in self._values:
                if self._under(key):
                    raise StorageError(doing, "it is a folder", "use the key of a file")
                raise ResultNotFoundError(doing, "the file was not found", "check the spelling")
            return self._values[key]

    def create(self, key: str, data: bytes) -> bool:
        """Store a value if the key is absent. Return False and change nothing if it exists."""
        with self._lock:
            if key in self._values or self._under(key):
                return False
            self.put(key, data)
            return True

    def put(self, key: str, data: bytes) -> None:
        """Store a value and replace an existing one."""
        doing = f"cannot write {self.path(key)}"
        with self._lock:
            if self._under(key):
                raise StorageError(doing, "it is a folder", "use the key of a file")
            parts = key.split("/")
            if any("/".join(parts[:number]) in self._values for number in range(1, len(parts))):
                raise StorageError(doing, "a parent folder is a file", "move this file away")
            self._values[key] = bytes(data)

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> dict[str, str]:  # noqa: ARG002 - no modification times
        """Store several values and replace existing ones."""
        for key in values:
            split_key(key)
        with self._lock:
            for key, data in values.items():
                self.put(key, data)
        return {}

    def exchange(self, key: str, data: bytes) -> str:
        """Replace an existing value, and return a new key that holds the previous value."""
        parent, slash, name = key.rpartition("/")
        kept = f"{parent}{slash}{temporary_path(name)}"
        with self._lock:
            if key not in self._values:
                raise StorageError(f"cannot replace {self.path(key)}", "it does not exist", "create it first")
            self._values[kept] = self._values[key]
            self._values[key] = bytes(data)
        return kept

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        """Copy a value to `new_key` in the same folder. Return False and change nothing if `new_key` exists."""
        self.path(new_key)
        with self._lock:
            return self.create(new_key, self.get(key))

    def list(self, prefix: str) -> Entries:
        """Return the entries directly under a prefix, sorted by name. An absent prefix has none."""
        path = self.path(prefix)
        with self._lock:
            if prefix in self._values:
                raise StorageError(f"cannot list {path}", "it is a file", "use the key of a folder")
            entries = {}
            for key in self._under(prefix):
                name, _, rest = key[len(prefix) + 1 :].partition("/")
                entries[name] = Entry(name, bool(rest), 0 if rest else len(self._values[key]))
        return sorted(entries.values())

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
        self.path(prefix), self.path(new_prefix)
        with self._lock:
            keys = self._under(prefix)
            if not keys or self._under(new_prefix) or new_prefix in self._values:
                return False
            for key in keys:
                self._values[new_prefix + key[len(prefix) :]] = self._values.pop(key)
        return True

    def delete(self, key: str) -> bool:
        """Delete a value. Return False if the key is absent."""
        self.path(key)
        with self._lock:
            return self._values.pop(key, None) is not None

    def delete_folder(self, prefix: str) -> bool:
        """Delete a folder and everything below it atomically. Return False if it is absent."""
        self.path(prefix)
        with self._lock:
            keys = self._under(prefix)
            for key in keys:
                del self._values[key]
        return bool(keys)

    def _under(self, prefix: str) -> tuple[str, ...]:
        return tuple(key for key in self._values if key.startswith(f"{prefix}/"))
