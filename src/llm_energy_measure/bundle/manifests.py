r"""The manifests of a bag: a line `<sha256>  <name>\n` for each file. `sha256sum -c` reads the same lines.

Source: RFC 8493 (BagIt 1.0), sections 2.1 and 2.2. Our names have no characters that BagIt encodes.
"""

from __future__ import annotations

import hashlib
import re

from llm_energy_measure.bundle import sources
from llm_energy_measure.bundle.names import check_names
from llm_energy_measure.bundle.outcomes import refuse
from llm_energy_measure.bundle.sources import Source

BAGIT_TEXT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
"""Content of `bagit.txt`."""

DIGEST_PREFIX = "sha256:"
"""Start of the digest of a bundle."""

_MAX_LINE_BYTES = 1 << 12
# Each missing file is named, but a manifest of many gigabytes would fill the memory.
_MORE_LINES = 100_000

_LINE = re.compile(rb"([0-9a-f]{64})  ([!-~]+)")
_OXUM = re.compile(rb"Payload-Oxum: ([0-9]{1,20})\.([0-9]{1,20})")


def line_of(digest: str, name: str) -> bytes:
    """Return the line of a file in a manifest."""
    return f"{digest}  {name}\n".encode("ascii")


def read_manifest(source: Source, manifest: str) -> dict[str, bytes]:
    """Return the digest of each file that a manifest lists, in its order, as 32 bytes.

    Raises:
        BundleError: A line has another form, or a name is unsafe or occurs twice.
    """
    listed: dict[str, bytes] = {}
    count = 0
    limit = 2 * len(source.names) + _MORE_LINES
    for line in sources.lines(source, manifest, _MAX_LINE_BYTES):
        count += 1
        if count > limit:
            raise refuse("bag.form", manifest, f"it lists more than {limit:,} files, but the bundle has fewer")
        match = _LINE.fullmatch(line)
        if match is None:
            raise refuse("bag.form", manifest, f"line {count} is not '<SHA-256>  <name>'")
        listed[match[2].decode("ascii")] = bytes.fromhex(match[1].decode("ascii"))
    check_names(listed)
    if len(listed) != count:
        raise refuse("name.duplicate", manifest, "it lists one file twice")
    return listed


def digest_of(source: Source, name: str) -> bytes:
    """Return the SHA-256 of a file. Raises `BundleError` if it cannot be read."""
    digest = hashlib.sha256()
    for part in source.chunks(name):
        digest.update(part)
    return digest.digest()


def bag_info(*, software: str, date: str, payload_bytes: int, payload_files: int) -> bytes:
    """Return the content of `bag-info.txt`. The date is the date of the results, not of today."""
    lines = (
        f"Bag-Software-Agent: {software}",
        f"Bagging-Date: {date}",
        f"Payload-Oxum: {payload_bytes}.{payload_files}",
    )
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def payload_of(info: bytes) -> tuple[int, int] | None:
    """Return the number of bytes and of files that `bag-info.txt` states. None if it does not state them."""
    match = _OXUM.search(info)
    return (int(match[1]), int(match[2])) if match else None
