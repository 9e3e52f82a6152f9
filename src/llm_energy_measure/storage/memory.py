"""A store in memory: for tests, and for programs that don't want files. What it holds is gone with the process."""

from __future__ import annotations

from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from llm_energy_measure.exceptions import ResultNotFoundError, StorageError
from llm_energy_measure.storage.atomic import temporary_path
from llm_energy_measure.storage.base import Entry, split_key

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path("/memory")


class MemoryStore:
    """A `Store` in a dict. Threads may share it; a folder is there as long as something is in it.

    "Durable" means here that it outlives the objects which wrote it, not the process.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._values: dict[str, bytes] = {}
        self._lock = RLock()

    def path(self, key: str) -> Path:
        """A made-up path for a key: no file is ever there."""
        return ROOT.joinpath(*split_key(key))

    def get(self, key: str) -> bytes:
        """The value. Raises `ResultNotFoundError` if there is none."""
        doing = f"cannot read {self.path(key)}"
        with self._lock:
            if key not in self._values:
                if self._under(key):
                    raise StorageError(doing, "it is a folder", "name a file")
                raise ResultNotFoundError(doing, "the file was not found", "check the spelling")
            return self._values[key]

    def create(self, key: str, data: bytes) -> bool:
        """Store a new value; False, with nothing changed, if the key has one already."""
        with self._lock:
            if key in self._values or self._under(key):
                return False
            self.put(key, data)
            return True

    def put(self, key: str, data: bytes) -> None:
        """Store a value, in place of an older one if there is one."""
        doing = f"cannot write {self.path(key)}"
        with self._lock:
            if self._under(key):
                raise StorageError(doing, "it is a folder", "name a file")
            parts = key.split("/")
            if any("/".join(parts[:number]) in self._values for number in range(1, len(parts))):
                raise StorageError(doing, "a file stands where a folder is needed", "move it away")
            self._values[key] = bytes(data)

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> None:  # noqa: ARG002 - keeps none
        """Store several values, each in place of an older one if there is one."""
        for key in values:
            split_key(key)
        with self._lock:
            for key, data in values.items():
                self.put(key, data)

    def exchange(self, key: str, data: bytes) -> str:
        """Store a value in place of the one that is there, and return a fresh key that holds that one."""
        parent, slash, name = key.rpartition("/")
        kept = f"{parent}{slash}{temporary_path(name)}"
        with self._lock:
            if key not in self._values:
                raise StorageError(f"cannot replace {self.path(key)}", "nothing is there", "store it")
            self._values[kept] = self._values[key]
            self._values[key] = bytes(data)
        return kept

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        """Give a value a second key in the same folder; False, with nothing changed, if that key has one already."""
        self.path(new_key)
        with self._lock:
            return self.create(new_key, self.get(key))

    def list(self, prefix: str) -> list[Entry]:
        """What stands directly under a prefix, sorted by name; nothing if the prefix is absent."""
        path = self.path(prefix)
        with self._lock:
            if prefix in self._values:
                raise StorageError(f"cannot list {path}", "it is a file", "name a folder")
            entries = {}
            for key in self._under(prefix):
                name, _, rest = key[len(prefix) + 1 :].partition("/")
                entries[name] = Entry(name, bool(rest), 0 if rest else len(self._values[key]))
        return sorted(entries.values())

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        """Give everything under a prefix another one, at once; False if there is nothing or the new one is taken."""
        self.path(prefix), self.path(new_prefix)
        with self._lock:
            keys = self._under(prefix)
            if not keys or self._under(new_prefix) or new_prefix in self._values:
                return False
            for key in keys:
                self._values[new_prefix + key[len(prefix) :]] = self._values.pop(key)
        return True

    def delete(self, key: str) -> bool:
        """Remove a value; False if there was none."""
        self.path(key)
        with self._lock:
            return self._values.pop(key, None) is not None

    def delete_folder(self, prefix: str) -> bool:
        """Remove everything under a prefix, at once; False if there was nothing."""
        self.path(prefix)
        with self._lock:
            keys = self._under(prefix)
            for key in keys:
                del self._values[key]
        return bool(keys)

    def _under(self, prefix: str) -> tuple[str, ...]:
        return tuple(key for key in self._values if key.startswith(f"{prefix}/"))
