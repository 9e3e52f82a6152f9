"""Requests to a bucket through obstore: one method per request, with a limited number of retries.

The retries of obstore are off, because a repeated request hides what the first one did. Tests with obstore 0.12.1 show
that it reports AlreadyExists in two cases although no other writer created the object. In the first case, the server
answered 409 (ConditionalRequestConflict) and stored nothing. In the second case, obstore's own first request stored the
bytes, and only the answer was lost. Therefore `create` reads the key after AlreadyExists.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.exceptions import ConfigurationError, MissingExtraError, StorageError
from llm_energy_measure.storage.base import Entry

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore as Client

AnswerT = TypeVar("AnswerT")

_MAX_TRIES = 8
_FIRST_PAUSE_SEC = 0.1
_MAX_PAUSE_SEC = 5.0
_MAX_MESSAGE = 300

# The last ASCII character that can be printed. An offset that ends with it is no name.
_LAST_CHARACTER = "~"

# The HTTP status in a message of obstore, which has no exception class for most statuses. If the status matches,
# `_sent` does not repeat the request. 408, 409 and 429 do not match.
_FINAL_STATUS = re.compile(r"status code: 4(?!08|09|29)[0-9]{2}")


class Version(NamedTuple):
    """The version of an object. Both texts are opaque; a server sends at least one of them.

    Attributes:
        e_tag: ETag of the object. None if the server sends none.
        number: Version id or generation of the object. None if the server sends none.
    """

    e_tag: str | None
    number: str | None


def connect(url: str) -> Client:
    """Return obstore's client for a URL. Environment variables set keys, endpoint and region. No request is sent.

    Raises:
        MissingExtraError: obstore is not installed.
        ConfigurationError: obstore refuses the URL or an environment variable.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        advice = f"pip install {EXTRA_PACKAGES['cloud']}"
        raise MissingExtraError(f"cannot open {url}", "obstore is not installed", advice) from error
    try:
        # obstore does not repeat requests, because `Requests` does. Options of the HTTP client are not set, because
        # they would hide environment variables such as AWS_ALLOW_HTTP.
        return from_url(url, retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=120)})
    except (BaseError, ValueError) as error:
        advice = "check the URL and the variables of the store, such as AWS_ENDPOINT_URL and AWS_REGION"
        raise ConfigurationError(f"cannot open {url}", _text(error), advice) from error


class Requests:
    """The requests to one bucket.

    Args:
        client: obstore's client.
        url: URL of the bucket, for messages.
        sleep: Function that waits for a number of seconds.
    """

    def __init__(self, client: Client, url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Store the arguments; no request is sent."""
        self._client = client
        self._url = url
        self._sleep = sleep

    def get(self, key: str, *, max_bytes: int | None = None) -> tuple[bytes, Version] | None:
        """Return the object and its version; None if the key is absent.

        Raises:
            StorageError: The object has more than `max_bytes` bytes, or the server can't be reached.
        """
        import obstore

        def send() -> tuple[bytes, Version]:
            found = obstore.get(self._client, key)
            size = found.meta["size"]
            if max_bytes is not None and size > max_bytes:
                reason = f"it has {size:,} bytes; the limit is {max_bytes:,}"
                advice = "check that it is a result file, or raise --max-file-size"
                raise StorageError(f"cannot read {self._url}/{key}", reason, advice)
            data = bytes(found.bytes())
            if len(data) != size:
                raise ConnectionError(f"the server sent {len(data):,} of {size:,} bytes")
            return data, _version(found.meta)

        return self._sent(f"cannot read {self._url}/{key}", send)

    def find(self, key: str) -> Entry | None:
        """Return the entry of an object, as a listing has it. None if the key is absent."""
        import obstore

        found = self._sent(f"cannot read {self._url}/{key}", lambda: obstore.head(self._client, key))
        return None if found is None else _entry(key.rpartition("/")[0], found)

    def create(self, key: str, data: bytes) -> bool:
        """Store an object if the key is absent. Return False and change nothing if it exists.

        If the answer was lost and an object with the same bytes exists then, this object counts as created by this
        call.
        """
        import obstore

        was_lost = False
        problem: Exception | None = None
        for number in range(_MAX_TRIES):
            try:
                obstore.put(self._client, key, data, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                found = self.get(key)
                if found is not None and not (was_lost and _is_cut(found[0], data)):
                    return was_lost and found[0] == data
                if found is not None and self.replace(key, data, found[1]):
                    return True
                # The server answered 409 and stored nothing, or another process has deleted the object meanwhile.
            except (obstore.exceptions.GenericError, ConnectionError) as error:
                was_lost, problem = True, error
            except Exception as error:
                raise self._refused(f"cannot write {self._url}/{key}", error) from error
            else:
                return True
            self._pause(number)
        raise self._gave_up(f"cannot write {self._url}/{key}", problem)

    def replace(self, key: str, data: bytes, version: Version) -> bool | None:
        """Replace an object if it still has this version. Return False if it has another version or does not exist.

        The result is None if the answer was lost and the object then has neither this version nor the new data. The
        data may have been stored, and then replaced by another writer.
        """
        import obstore

        was_lost = False
        problem: Exception | None = None
        for number in range(_MAX_TRIES):
            try:
                mode = {"e_tag": version.e_tag, "version": version.number}
                update = {name: value for name, value in mode.items() if value is not None}
                # `update` has the keys of obstore's typed dict.
                obstore.put(self._client, key, data, mode=update, use_multipart=False)  # type: ignore[arg-type]
            except (obstore.exceptions.PreconditionError, obstore.exceptions.AlreadyExistsError):
                found = self.get(key)
                if found is not None and was_lost and found[0] == data:
                    return True
                if found is not None and was_lost and _is_cut(found[0], data):
                    version = found[1]
                elif found is None or found[1] != version:
                    return None if was_lost else False
                # The server answered 409 and stored nothing.
            except FileNotFoundError:
                return False
            except (obstore.exceptions.GenericError, ConnectionError) as error:
                was_lost, problem = True, error
            except Exception as error:
                raise self._refused(f"cannot replace {self._url}/{key}", error) from error
            else:
                return True
            self._pause(number)
        raise self._gave_up(f"cannot replace {self._url}/{key}", problem)

    def put(self, key: str, data: bytes) -> str:
        """Store an object and replace an existing one. Return its `Entry.version`; empty if unknown."""
        import obstore

        doing = f"cannot write {self._url}/{key}"
        made = self._sent(doing, lambda: obstore.put(self._client, key, data, use_multipart=False))
        if made is None:
            raise StorageError(doing, "the bucket does not exist", "create the bucket, or correct the URL")
        return made["e_tag"] or made["version"] or ""

    def entries(self, prefix: str) -> list[Entry]:
        """Return the objects and folders directly under a prefix, sorted by name."""
        import obstore

        doing = f"cannot list {self._url}/{prefix}"
        found = self._sent(doing, lambda: obstore.list_with_delimiter(self._client, prefix))
        if found is None:
            raise StorageError(doing, "the bucket does not exist", "create the bucket, or correct the URL")
        entries = [
            Entry(name.rstrip("/").rpartition("/")[2], is_folder=True, size_bytes=0)
            for name in found["common_prefixes"]
        ]
        entries += [_entry(prefix, meta) for meta in found["objects"] if meta["path"].startswith(f"{prefix}/")]
        return sorted(entries)

    def entries_in(self, prefix: str, start: str, end: str) -> list[Entry]:
        """Return the objects and folders directly under a prefix from the name `start` up to `end`, sorted by name.

        The server lists keys after an offset, so the offset is a text just before `start`.
        """
        import obstore

        offset = f"{prefix}/{start[:-1]}{chr(ord(start[-1]) - 1)}{_LAST_CHARACTER}"
        # Keys in the folder `a` come after the object `a-b`, because `/` comes after `-`. They come before
        # `a0`, because `0` comes after `/`.
        folders = [end[:length] for length in range(1, len(end)) if end[:length] >= start]
        last = max([end, *(f"{folder}0" for folder in folders)])

        def send() -> list[Entry]:
            found: dict[str, Entry] = {}
            for chunk in obstore.list(self._client, prefix, offset=offset):
                for meta in chunk:
                    rest = meta["path"][len(prefix) + 1 :]
                    if rest >= last:
                        return sorted(found.values())
                    name, slash, _ = rest.partition("/")
                    if start <= name < end:
                        found[name] = Entry(name, is_folder=True, size_bytes=0) if slash else _entry(prefix, meta)
            return sorted(found.values())

        return self._sent(f"cannot list {self._url}/{prefix}", send) or []

    def all_below(self, prefix: str, bounds: Sequence[str] = ()) -> list[Entry]:
        """Return all objects under a prefix, at any depth; each name is the part of its key after the prefix.

        Args:
            prefix: The prefix.
            bounds: Sorted keys that divide the listing into parts. The parts are requested at the same time.
        """
        found = self._all_parts(prefix, bounds) if bounds else None
        if found is None:
            found = self._part(prefix, None, None)[0]
        return sorted(_entry(prefix, meta) for meta in found if meta["path"].startswith(f"{prefix}/"))

    def _all_parts(self, prefix: str, bounds: Sequence[str]) -> list[ObjectMeta] | None:
        """Return the joined parts of a listing; None if two parts don't meet at one key, or if no thread can start.

        Two parts meet if the first key after the earlier part is the first key of the later part. They do not meet if
        the server does not list from an offset or has another order of keys. They also do not meet if another process
        stores or deletes an object between the two parts during the listing.
        """
        with ThreadPoolExecutor(len(bounds) + 1) as pool:
            try:
                results = pool.map(partial(self._part, prefix), [None, *bounds], [*bounds, None])
            except RuntimeError:  # the interpreter exits, or the number of processes is limited
                return None
            parts = list(results)
        starts = [found[0]["path"] if found else after for found, after in parts]
        ends = [after for _, after in parts]
        return [meta for found, _ in parts for meta in found] if ends[:-1] == starts[1:] else None

    def _part(self, prefix: str, start: str | None, end: str | None) -> tuple[list[ObjectMeta], str | None]:
        """Return the objects after the key `start` up to the key `end`, and the first key after `end` (or None)."""
        import obstore

        def send() -> tuple[list[ObjectMeta], str | None]:
            found: list[ObjectMeta] = []
            for chunk in obstore.list(self._client, prefix, offset=start):
                for meta in chunk:
                    if end is not None and meta["path"] > end:
                        return found, meta["path"]
                    found.append(meta)
            return found, None

        return self._sent(f"cannot list {self._url}/{prefix}", send) or ([], None)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. Absent keys are accepted."""
        import obstore

        if keys:
            self._sent(f"cannot delete {self._url}/{keys[0]}", lambda: obstore.delete(self._client, [*keys]))

    def _sent(self, doing: str, send: Callable[[], AnswerT]) -> AnswerT | None:
        """Send a request that may be repeated; return the answer, or None if the key is absent."""
        import obstore

        problem: Exception | None = None
        for number in range(_MAX_TRIES):
            try:
                return send()
            except FileNotFoundError:
                return None
            except StorageError:
                raise
            except (obstore.exceptions.GenericError, obstore.exceptions.AlreadyExistsError, ConnectionError) as error:
                # AlreadyExists: the server answered 409 to a request without a condition.
                if _FINAL_STATUS.search(str(error)):
                    raise self._refused(doing, error) from error
                problem = error
            except Exception as error:
                raise self._refused(doing, error) from error
            self._pause(number)
        raise self._gave_up(doing, problem)

    def _pause(self, number: int) -> None:
        """Wait after a failed try; the random part keeps many writers from repeating at the same instant."""
        longest = min(_MAX_PAUSE_SEC, _FIRST_PAUSE_SEC * 2**number)
        if number < _MAX_TRIES - 1:
            self._sleep(random.uniform(longest / 2, longest))  # noqa: S311 - no secret

    def _gave_up(self, doing: str, error: Exception | None) -> StorageError:
        found = "the server kept reporting a conflict" if error is None else _text(error)
        made = StorageError(doing, f"{found}; {_MAX_TRIES} tries", "check the network and the server, then try again")
        made.__cause__ = error
        return made

    def _refused(self, doing: str, error: Exception) -> StorageError:
        """Return the error for an answer that a repeated request would not change."""
        name = type(error).__name__
        if isinstance(error, PermissionError) or "Permission" in name or "Unauthenticated" in name:
            advice = "check the access keys and their rights, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        else:
            advice = "check that the bucket exists, and the address of the server (such as AWS_ENDPOINT_URL)"
        return StorageError(doing, _text(error), advice)


def _is_cut(stored: bytes, data: bytes) -> bool:
    """Return True if an interrupted request to store `data` can have stored the bytes `stored`.

    SeaweedFS 4.48 stores an empty object if the connection ends before the first byte of the body.
    """
    return not stored and bool(data)


def _version(meta: ObjectMeta) -> Version:
    return Version(meta["e_tag"], meta["version"])


def _entry(prefix: str, meta: ObjectMeta) -> Entry:
    name = meta["path"][len(prefix) + 1 :]
    return Entry(name, is_folder=False, size_bytes=meta["size"], version=meta["e_tag"] or meta["version"] or "")


def _text(error: BaseException) -> str:
    """Return the first line of obstore's message, without the XML or HTML of the answer."""
    text = str(error).strip().partition("\n")[0].partition(": <")[0]
    return f"{text[:_MAX_MESSAGE]}..." if len(text) > _MAX_MESSAGE else text or type(error).__name__
