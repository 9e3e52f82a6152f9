r"""The manifests of a bag: a line `<sha256>  <name>\n` for each file. `sha256sum -c` reads the same lines.

Source: RFC 8493 (BagIt 1.0), sections 2.1 and 2.2. Names in a bundle have no characters that BagIt encodes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from llm_energy_measure.bundle import sources
from llm_energy_measure.bundle.names import check_name, order_key
from llm_energy_measure.bundle.outcomes import refuse
from llm_energy_measure.bundle.sources import StoredFile

BAGIT_TEXT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
"""Content of `bagit.txt`."""

DIGEST_PREFIX = "sha256:"
"""Prefix of the digest of a bundle, as a paper states it."""

_MAX_LINE_BYTES = 1 << 12

_LINE = re.compile(rb"([0-9a-f]{64})  ([!-~]+)")
_OXUM = re.compile(rb"Payload-Oxum: ([0-9]{1,20})\.([0-9]{1,20})")


def line_of(digest: str, name: str) -> bytes:
    """Return the line of a file in a manifest."""
    return f"{digest}  {name}\n".encode("ascii")


def read_manifest(manifest: StoredFile) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the SHA-256 (32 bytes) of each file that a manifest lists, in the canonical order of names.

    Raises:
        BundleError: A line is not `<SHA-256>  <name>`, a name is unsafe, or the names are not in the canonical order.
    """
    before: tuple[int, str, str] | None = None
    for number, line in enumerate(sources.lines(manifest, _MAX_LINE_BYTES), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise refuse("bag.form", manifest.name, f"line {number} is not '<SHA-256>  <name>'")
        name = match[2].decode("ascii")
        check_name(name)
        key = order_key(name)
        if key == before:
            raise refuse("name.duplicate", manifest.name, f"it lists {name} twice")
        if before is not None and key < before:
            raise refuse("bag.form", manifest.name, f"line {number} is not in the canonical order: {name}")
        before = key
        yield name, bytes.fromhex(match[1].decode("ascii"))


def digest_of(file: StoredFile) -> bytes:
    """Return the SHA-256 of a file (32 bytes). Raises `BundleError` if the file cannot be read."""
    digest = hashlib.sha256()
    for part in file.chunks():
        digest.update(part)
    return digest.digest()


def bag_info(*, software: str, date: str, payload_bytes: int, payload_files: int) -> bytes:
    """Return the content of `bag-info.txt`. `date` is the date of the results, not the current date."""
    lines = (
        f"Bag-Software-Agent: {software}",
        f"Bagging-Date: {date}",
        f"Payload-Oxum: {payload_bytes}.{payload_files}",
    )
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def stated_payload(info: bytes) -> tuple[int, int] | None:
    """Return the number of bytes and of files that `bag-info.txt` states. None if it does not state them."""
    match = _OXUM.search(info)
    return (int(match[1]), int(match[2])) if match else None
