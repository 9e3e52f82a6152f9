"""Read a bundle that was unzipped into a folder. No link is followed, and no pipe or device is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llm_energy_measure.bundle.names import PAYLOAD, check_names, order_key
from llm_energy_measure.bundle.outcomes import refuse
from llm_energy_measure.bundle.zip_writer import CHUNK_BYTES
from llm_energy_measure.exceptions import StorageError, UnsafePathError
from llm_energy_measure.storage.contained import ContainedFolder, noun_of

# The catalogue of `results list` is derived from the results, and can be deleted at any time.
_CATALOGUE = f"{PAYLOAD}/.catalogue.sqlite"

# Folders of a bundle have three levels. A received folder can have any depth.
_MAX_DEPTH = 16


class FolderSource:
    """The files of a folder that holds a bundle.

    Args:
        path: The folder.

    Raises:
        BundleError: The folder has a link, a pipe, a device or an unsafe name.
        StorageError: The folder cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        """List the folder; no file is read."""
        self._path = os.fspath(path)
        self._sizes: dict[str, int] = {}
        try:
            self._scan("", 0)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            doing = f"cannot read the bundle {path}"
            raise StorageError(doing, error.strerror or str(error), "check the permissions") from error
        self.names = sorted(self._sizes, key=order_key)
        check_names(self.names)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self._sizes[name]

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file in parts."""
        *folders, file_name = name.split("/")
        folder = ContainedFolder(self._path)
        try:
            for part in folders:
                inner = folder.subfolder(part)
                folder.close()
                folder = inner
            with folder.open(file_name) as file:
                while data := file.read(CHUNK_BYTES):
                    yield data
        except UnsafePathError as error:
            raise refuse("folder.link", name, error.found) from error
        except OSError as error:
            raise refuse("file.changed", name, f"it cannot be read: {error.strerror or error}") from error
        finally:
            folder.close()

    def _scan(self, prefix: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise refuse("bag.form", prefix, f"the folder has more than {_MAX_DEPTH} levels")
        with os.scandir(Path(self._path, prefix)) as entries:
            for entry in entries:
                name = f"{prefix}/{entry.name}" if prefix else entry.name
                if name.startswith(_CATALOGUE):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    self._scan(name, depth + 1)
                    continue
                status = entry.stat(follow_symlinks=False)
                if not entry.is_file(follow_symlinks=False):
                    raise refuse("folder.link", name, f"it is {noun_of(status.st_mode)}")
                self._sizes[name] = status.st_size
