"""Bundles in memory, and bundles that another person changed and packed again."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING

from llm_energy_measure.bundle import manifests, names
from llm_energy_measure.bundle.names import order_key
from llm_energy_measure.bundle.zip_writer import ZipWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Files:
    """A source of files in a dictionary."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    @property
    def names(self) -> list[str]:
        return sorted(self.files, key=order_key)

    def size(self, name: str) -> int:
        return len(self.files[name])

    def chunks(self, name: str) -> Iterator[bytes]:
        yield self.files[name]


def unpacked(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle, read by the standard library."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: dict[str, bytes], path: Path) -> Path:
    """Write files as a canonical archive."""
    with path.open("wb") as file, ZipWriter(file) as writer:
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
