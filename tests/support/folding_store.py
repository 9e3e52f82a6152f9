"""A store that ignores the case of keys and keeps the case of new names, as exFAT, APFS and NTFS do."""

from __future__ import annotations

from collections.abc import Mapping

from llm_energy_measure.storage.base import Entry
from llm_energy_measure.storage.memory import MemoryStore


class FoldingStore(MemoryStore):
    """A `MemoryStore` in which `raw/Exp` and `raw/exp` are one folder."""

    def _stored(self, key: str) -> str:
        """Return the key with the case of the names that the store has."""
        found = ""
        for part in key.split("/"):
            names = [entry.name for entry in MemoryStore.list(self, found)] if found else ["raw", "aggregated", "tags"]
            same = [name for name in names if name.casefold() == part.casefold()]
            found = "/".join(filter(None, [found, same[0] if same else part]))
        return found

    def get(self, key: str) -> bytes:
        return super().get(self._stored(key))

    def put(self, key: str, data: bytes) -> None:
        super().put(self._stored(key), data)

    def create(self, key: str, data: bytes) -> bool:
        return super().create(self._stored(key), data)

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> dict[str, str]:
        return super().put_many({self._stored(key): data for key, data in values.items()}, mtime_ns=mtime_ns)

    def exchange(self, key: str, data: bytes) -> str:
        return super().exchange(self._stored(key), data)

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        return super().copy_if_absent(self._stored(key), self._stored(new_key))

    def list(self, prefix: str) -> list[Entry]:
        return super().list(self._stored(prefix))

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        return super().move_folder(self._stored(prefix), self._stored(new_prefix))

    def delete(self, key: str) -> bool:
        return super().delete(self._stored(key))

    def delete_folder(self, prefix: str) -> bool:
        return super().delete_folder(self._stored(prefix))
