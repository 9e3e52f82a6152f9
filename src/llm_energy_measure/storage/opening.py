"""Open the store of a results directory: a folder, or the URL of a bucket."""

from __future__ import annotations

import re
from pathlib import Path

from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.storage.base import Store, StorePath
from llm_energy_measure.storage.local import LocalStore

# A scheme has at least two characters, so that `C:/results` is a path on Windows. One slash is accepted, because `Path`
# replaces `s3://` by `s3:/`.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(.*)", re.DOTALL)
_BUCKETS = frozenset({"s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"})


def place_of(place: str | Path) -> Path:
    """Return the path of a folder, or a `StorePath` for the URL of a bucket.

    Args:
        place: A folder, `file:///folder`, or bucket and prefix: `s3://bucket/results`, `gs://...`, `az://...`.

    Raises:
        ConfigurationError: The scheme of the URL is unknown, or the URL is not valid.

    Example:
        >>> place_of("results").name, str(place_of("s3://bucket/results/"))
        ('results', 's3://bucket/results')
    """
    if isinstance(place, StorePath):
        return place
    match = _URL.fullmatch(str(place))
    if match is None:
        return Path(place)
    scheme, rest = match[1].lower(), match[2].rstrip("/")
    doing = f"cannot use {str(place)!r} as results directory"
    if scheme == "file":
        from urllib.parse import unquote, urlsplit  # only URLs need this import

        return Path(unquote(urlsplit(f"file:///{rest}").path))
    if scheme not in _BUCKETS:
        found = f"no store for the scheme {match[1]!r} exists"
        raise ConfigurationError(doing, found, "use a folder, s3://BUCKET/PREFIX, gs://... or az://...")
    if {"", ".", ".."} & set(rest.split("/")) or "?" in rest or "#" in rest:
        found = "it contains '?' or '#', or a part between slashes that is empty, '.' or '..'"
        raise ConfigurationError(doing, found, f"write {scheme}://BUCKET/PREFIX without these")
    return StorePath(f"{scheme}://{rest}")


def open_store(place: Path) -> Store:
    """Return the store of a place that `place_of` returned. Nothing is read or created.

    Raises:
        ConfigurationError: The URL or an environment variable of the store is not valid.
        MissingExtraError: obstore, which reads and writes buckets, is not installed.
    """
    if not isinstance(place, StorePath):
        return LocalStore(place)
    # Only commands that use a bucket need this import.
    from llm_energy_measure.storage.objects import ObjectStore

    return ObjectStore(str(place))
