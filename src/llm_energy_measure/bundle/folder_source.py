"""Read a bundle that was unzipped into a folder. No link is followed, and no pipe or device is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from llm_energy_measure.bundle.name_table import NameTable, scratch_database
from llm_energy_measure.bundle.names import BAGIT, check_name, folder_of, order_key
from llm_energy_measure.bundle.outcomes import MISSING_BAG_FILE, refuse
from llm_energy_measure.bundle.sources import StoredFile, add_other
from llm_energy_measure.bundle.zip_writer import CHUNK_BYTES
from llm_energy_measure.exceptions import StorageError, UnsafePathError
from llm_energy_measure.storage.contained import ContainedFolder, noun_of

# Folders of a bundle have three levels. A received folder can have any depth.
_MAX_DEPTH = 16


class FolderSource:
    """The files of a bundle that was unzipped into a folder. Close this object after use.

    Args:
        path: The folder.

    Raises:
        BundleError: The folder has a link, a pipe, a device or an unsafe name.
        StorageError: The folder cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        """List the folder; no file is read."""
        self.others: dict[str, StoredFile] = {}
        self._path = os.fspath(path)
        if not os.path.lexists(Path(path, BAGIT)):  # a folder without a bundle can be too large to scan
            raise refuse("bag.missing", BAGIT, MISSING_BAG_FILE)
        self._stack = ExitStack()
        try:
            self._database = self._stack.enter_context(scratch_database())
            self._scan()
            self._check_names()
        except OSError as error:
            self._stack.close()
            if isinstance(error, StorageError):
                raise
            doing = f"cannot read the bundle {path}"
            raise StorageError(doing, error.strerror or str(error), "check the permissions") from error
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Delete the temporary database."""
        self._stack.close()

    def files(self) -> Iterator[StoredFile]:
        """Yield all files in the canonical order."""
        for name, size in self._database.execute("SELECT name, size FROM files ORDER BY place, folder, name"):
            yield StoredFile(name, size, partial(self._chunks, name))

    def _chunks(self, name: str) -> Iterator[bytes]:
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

    def _scan(self) -> None:
        self._database.execute("CREATE TABLE files (place INTEGER, folder TEXT, name TEXT, size INTEGER)")
        self._database.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", self._rows("", 0))
        self._database.execute("CREATE INDEX canonical ON files (place, folder, name, size)")

    def _rows(self, prefix: str, depth: int) -> Iterator[tuple[int, str, str, int]]:
        """Yield the order key and the size of each file."""
        if depth > _MAX_DEPTH:
            raise refuse("bag.form", prefix, f"the folder has more than {_MAX_DEPTH} levels")
        with os.scandir(Path(self._path, prefix)) as entries:
            for entry in entries:
                name = f"{prefix}/{entry.name}" if prefix else entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from self._rows(name, depth + 1)
                    continue
                status = entry.stat(follow_symlinks=False)
                if not entry.is_file(follow_symlinks=False):
                    raise refuse("folder.link", name, f"it is {noun_of(status.st_mode)}")
                check_name(name)
                yield *order_key(name), status.st_size

    def _check_names(self) -> None:
        with scratch_database() as database:
            table = NameTable(database)
            for file in self.files():
                table.add(file.name)
                if folder_of(file.name) is None:
                    add_other(self.others, file)
