"""Open a bundle for reading: an archive, or the folder into which it was unzipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llm_energy_measure.bundle.folder_source import FolderSource
from llm_energy_measure.bundle.sources import Source
from llm_energy_measure.bundle.zip_reader import ZipSource


@contextmanager
def opened(path: str | Path) -> Iterator[Source]:
    """Return the files of the bundle at a path.

    Raises:
        BundleError: The archive or the folder is unsafe to read.
        ResultNotFoundError: The path does not exist.
        StorageError: The path cannot be read.
    """
    if Path(path).is_dir():
        with closing(FolderSource(path)) as folder:
            yield folder
        return
    with closing(ZipSource(path)) as source:
        yield source
