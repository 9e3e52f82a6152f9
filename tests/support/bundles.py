"""Bundles in memory, and bundles that another person changed and packed again."""

from __future__ import annotations

import hashlib
import zipfile
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from llm_energy_measure.bundle import manifests, names
from llm_energy_measure.bundle.names import folder_of, order_key
from llm_energy_measure.bundle.sources import StoredFile
from llm_energy_measure.bundle.zip_writer import ZipWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Files:
    """A source of files in a dictionary."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    @property
    def others(self) -> dict[str, StoredFile]:
        return {name: self._stored(name) for name in self.contents if folder_of(name) is None}

    def files(self) -> Iterator[StoredFile]:
        return map(self._stored, sorted(self.contents, key=order_key))

    def _stored(self, name: str) -> StoredFile:
        return StoredFile(name, len(self.contents[name]), partial(self.chunks, name))

    def chunks(self, name: str) -> Iterator[bytes]:
        yield self.contents[name]


def unpacked(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle, read by the standard library."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: dict[str, bytes], path: Path) -> Path:
    """Write files as a canonical archive."""
    with path.open("wb") as file, closing(ZipWriter(file)) as writer:
        for name in sorted(files, key=order_key):
            writer.add(name, files[name])
        writer.finish()
    return path


def content_positions(path: Path) -> set[int]:
    """Return the positions of the bytes in an archive that belong to the contents of its entries."""
    data = path.read_bytes()
    positions: set[int] = set()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            start = data.index(archive.read(entry), entry.header_offset)
            positions.update(range(start, start + entry.file_size))
    return positions


def listed_again(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return files whose manifests are computed again, as a person would who wants to hide a change."""
    files = {name: data for name, data in files.items() if name not in (names.MANIFEST, names.TAG_MANIFEST)}
    payload = sorted((name for name in files if name.startswith("data/")), key=order_key)
    size = sum(len(files[name]) for name in payload)
    info = files[names.BAG_INFO].decode().splitlines()
    kept = [line for line in info if not line.startswith("Payload-Oxum")]
    files[names.BAG_INFO] = "".join(f"{line}\n" for line in [*kept, f"Payload-Oxum: {size}.{len(payload)}"]).encode()
    files[names.MANIFEST] = b"".join(line(name, files[name]) for name in payload)
    files[names.TAG_MANIFEST] = b"".join(line(name, files[name]) for name in names.TAG_FILES)
    return files


def line(name: str, data: bytes) -> bytes:
    """Return the line of a file in a manifest."""
    return manifests.line_of(hashlib.sha256(data).hexdigest(), name)
