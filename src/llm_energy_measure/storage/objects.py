"""A store in a bucket: Amazon S3 and servers with its interface, Google Cloud Storage, Azure Blob Storage.

A bucket has no folders and no rename, and its modification times do not prove that an object is unchanged. It has two
conditional writes: create an object if its key is absent, and replace an object if it still has a known ETag. All
guarantees follow from these two writes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import HIDDEN_MARK
from llm_energy_measure.exceptions import ResultNotFoundError, StorageError
from llm_energy_measure.storage.base import Entries, Entry, StorePath, list_range, split_key
from llm_energy_measure.storage.local import max_file_bytes
from llm_energy_measure.storage.requests import Requests, connect
from llm_energy_measure.storage.temporary import temporary_path

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

PARALLEL_REQUESTS = 16
"""Number of requests that one process should have in flight."""

# Minimum number of known folders in each part of a walk; the last part may have fewer. The parts are listed at the same
# time. Each part except the last also receives up to 1,000 objects of the next part. On SeaweedFS, 10,000 folders take
# 1.0 s in four parts and 1.6 s in one part (medians of 8).
_FOLDERS_PER_PART = 2_500

# URL schemes of services that can list only the keys after an offset. Other services always send the whole listing.
_LISTS_FROM_OFFSET = ("s3:", "s3a:", "gs:")

# Maximum number of tries of one exchange. A try fails if another writer replaces the object at the same time.
_MAX_EXCHANGES = 200


class ObjectStore:
    """A `Store` in a bucket. Before the first write, the store checks that the server obeys conditional writes.

    Args:
        url: Bucket and prefix, such as `s3://bucket/results`.
        client: obstore's client with this prefix; by default a client with the keys and the endpoint of obstore's
            environment variables.
        sleep: Function that waits for a number of seconds before a request is repeated.
        folders_per_part: Least number of known folders in one part of a walk.

    Raises:
        MissingExtraError: obstore is not installed.
        ConfigurationError: The URL or an environment variable is not valid.
    """

    supports_paths = False
    supports_folder_move = False
    supports_mtime = False
    parallel_requests = PARALLEL_REQUESTS

    def __init__(
        self,
        url: str,
        *,
        client: Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
        folders_per_part: int = _FOLDERS_PER_PART,
    ) -> None:
        """Create the client. No request is sent."""
        self.url = url.rstrip("/")
        self._requests = Requests(connect(self.url) if client is None else client, self.url, sleep)
        self._folders_per_part = folders_per_part
        self._is_proved = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the URL: a worker process reads keys and endpoint from its environment variables."""
        return ObjectStore, (self.url,)

    def path(self, key: str) -> Path:
        """Return the `StorePath` of a key. The value need not exist."""
        split_key(key)
        return StorePath(f"{self.url}/{key}")

    def get(self, key: str) -> bytes:
        """Return the value of a key. Raises `ResultNotFoundError` if the key is absent."""
        split_key(key)
        found = self._requests.get(key, max_bytes=max_file_bytes())
        if found is None:
            raise ResultNotFoundError(f"cannot read {self.url}/{key}", "the object was not found", "check the spelling")
        return found[0]

    def create(self, key: str, data: bytes) -> bool:
        """Store a value durably if the key is absent. Return False and change nothing if it exists."""
        split_key(key)
        self.require_safe_writes()
        return self._requests.create(key, data)

    def put(self, key: str, data: bytes) -> None:
        """Store a value durably and replace an existing one."""
        split_key(key)
        self.require_safe_writes()
        self._requests.put(key, data)

    def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> dict[str, str]:  # noqa: ARG002 - no modification times
        """Store several values durably, with parallel requests, and replace existing ones."""
        from concurrent.futures import ThreadPoolExecutor

        for key in values:
            split_key(key)
        if not values:
            return {}
        self.require_safe_writes()
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            futures = {key: pool.submit(self._requests.put, key, data) for key, data in values.items()}
            return {key: future.result() for key, future in futures.items()}

    def exchange(self, key: str, data: bytes) -> str:
        """Replace an existing value durably, and return a new key that holds the previous value."""
        parent, slash, name = "/".join(split_key(key)).rpartition("/")
        self.require_safe_writes()
        for _ in range(_MAX_EXCHANGES):
            found = self._requests.get(key)
            if found is None:
                raise StorageError(f"cannot replace {self.url}/{key}", "it does not exist", "create it first")
            kept = f"{parent}{slash}{temporary_path(name)}"
            # The copy is stored first: a process that is killed between the two writes loses nothing.
            self._requests.create(kept, found[0])
            is_replaced = self._requests.replace(key, data, found[1])
            if is_replaced:
                return kept
            if is_replaced is False:  # None means unknown: the previous value may exist only in the copy
                self._requests.delete([kept])
        reason = "other processes keep replacing it"
        raise StorageError(f"cannot replace {self.url}/{key}", reason, "try again")

    def copy_if_absent(self, key: str, new_key: str) -> bool:
        """Copy a value to `new_key` in the same folder. Return False and change nothing if `new_key` exists."""
        split_key(new_key)
        return self.create(new_key, self.get(key))

    def list(self, prefix: str) -> Entries:
        """Return the entries directly under a prefix, sorted by name. An absent prefix has none."""
        split_key(prefix)
        return self._requests.entries(prefix)

    def list_range(self, prefix: str, start: str, end: str) -> Entries:
        """Return the entries of `list` whose names are at least `start` and less than `end`.

        On a server that lists from an offset, the answer has at most a page of 1,000 keys outside the range.
        """
        split_key(prefix)
        if not self.url.startswith(_LISTS_FROM_OFFSET):
            return list_range(self, prefix, start, end)
        return self._requests.entries_in(prefix, start, end)

    def find(self, key: str) -> Entry | None:
        """Return the entry of a value. None if the key is absent."""
        split_key(key)
        return self._requests.find(key)

    def walk(self, prefix: str, folders: Sequence[str] = ()) -> Entries:
        """Return all values under a prefix, at any depth, sorted by name: the part of the key after the prefix."""
        split_key(prefix)
        step = max(self._folders_per_part, -(-len(folders) // PARALLEL_REQUESTS))
        inner = folders[step::step] if self.url.startswith(_LISTS_FROM_OFFSET) else ()
        # If the offset is the name of a folder, SeaweedFS omits all objects in this folder. HIDDEN_MARK prevents this:
        # no folder name ends with it.
        return self._requests.all_below(prefix, sorted(f"{prefix}/{name}{HIDDEN_MARK}" for name in inner))

    def move_folder(self, prefix: str, new_prefix: str) -> bool:
        """Raise `StorageError`: a bucket can't rename several objects atomically."""
        split_key(prefix), split_key(new_prefix)
        reason = "a bucket cannot rename a folder atomically"
        raise StorageError(f"cannot move {self.url}/{prefix}", reason, "use a results directory on a file system")

    def delete(self, key: str) -> bool:
        """Delete a value. Return False if the key is absent."""
        split_key(key)
        if self._requests.find(key) is None:
            return False
        self._requests.delete([key])
        return True

    def delete_folder(self, prefix: str) -> bool:
        """Delete a folder and everything below it, object by object. Return False if it is absent."""
        split_key(prefix)
        keys = [f"{prefix}/{entry.name}" for entry in self._requests.all_below(prefix)]
        self._requests.delete(keys)
        return bool(keys)

    def require_safe_writes(self) -> None:
        """Check once that the server refuses a second create of a key, and a replace with an old ETag.

        Some servers ignore the condition and accept every write: `create` then returned True for 16 of 16 writers.

        Raises:
            StorageError: The server ignores a condition, or this user can't write.
        """
        if self._is_proved:
            return
        requests = self._requests
        key = f".probe{HIDDEN_MARK}{os.urandom(8).hex()}"
        try:
            created = [requests.create(key, data) for data in (b"1", b"2")]
            first = requests.get(key)
            replaced = [first is not None and requests.replace(key, data, first[1]) for data in (b"3", b"4")]
        finally:
            with contextlib.suppress(StorageError):  # the object is small; an error above is more important
                requests.delete([key])
        if created != [True, False] or first is None or first[0] != b"1":
            ignored = "it stores an object although the key exists (If-None-Match is ignored)"
        elif replaced not in ([True, False], [True, None]):  # None: an answer was lost
            ignored = "it replaces an object although the object has another ETag (If-Match is ignored)"
        else:
            self._is_proved = True
            return
        advice = "use a server with conditional writes, such as Amazon S3 or SeaweedFS"
        raise StorageError(f"cannot write to {self.url}", f"the server is not safe: {ignored}", advice)
