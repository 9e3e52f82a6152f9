"""The memory that a bundle needs does not grow with the number of its files."""

from __future__ import annotations

import hashlib
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING

from llm_energy_measure.bundle import manifests, names
from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.checking import check_whole
from llm_energy_measure.bundle.zip_writer import ZipWriter
from tests.support import bundles

if TYPE_CHECKING:
    from pathlib import Path

EMPTY = hashlib.sha256(b"").hexdigest()
OTHERS = (names.CRATE, names.SELECTION, names.VERDICTS)


def write(path: Path, experiments: int) -> None:
    """Write a bundle whose files are empty."""
    payload = [f"data/raw/experiment_{number:06}/process_0.json" for number in range(experiments)]
    payload = sorted([*payload, *OTHERS], key=names.order_key)
    files = {
        names.BAGIT: manifests.BAGIT_TEXT,
        names.README: b"",
        names.BAG_INFO: manifests.bag_info(
            software="test", date="2026-01-01", payload_bytes=0, payload_files=len(payload)
        ),
        names.MANIFEST: b"".join(manifests.line_of(EMPTY, name) for name in payload),
    }
    files[names.TAG_MANIFEST] = b"".join(bundles.line(name, files[name]) for name in names.TAG_FILES)
    with path.open("wb") as file, closing(ZipWriter(file)) as writer:
        for name in sorted([*files, *payload], key=names.order_key):
            writer.add(name, files.get(name, b""))
        writer.finish()


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """The limit is about the size of the buffers. A name, a size and a digest of each file would need 1.5 MB more."""
    path = tmp_path / "many.zip"
    write(path, 3_000)
    tracemalloc.start()
    try:
        with opened(path) as source:
            found = check_whole(source)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.problems, found.experiments, found.files) == ([], 3_000, 3_000 + len(OTHERS))
    assert peak_bytes < 1_500_000
