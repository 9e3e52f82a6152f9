"""The names of a bundle, in a temporary SQLite database: memory does not grow with the number of files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from llm_energy_measure.bundle.names import check_name
from llm_energy_measure.bundle.outcomes import refuse

_CACHE_KIB = 512


@contextmanager
def scratch_database() -> Iterator[sqlite3.Connection]:
    """Return an empty SQLite database in an unnamed temporary file, which disappears even if the process is killed."""
    database = sqlite3.connect("")
    try:
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        database.execute("PRAGMA journal_mode = OFF")
        yield database
    finally:
        database.close()


class NameTable:
    """The paths of the files of a bundle and of their folders.

    Args:
        database: An empty database.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        """Start without names."""
        self._database = database
        database.execute("CREATE TABLE paths (lower TEXT PRIMARY KEY, path TEXT, is_file INTEGER) WITHOUT ROWID")
        self._folder = ""

    def add(self, name: str) -> None:
        """Add the name of a file.

        Raises:
            BundleError: The name is unsafe, was added before, differs from an earlier name only in case, or belongs to
                a file and to a folder.
        """
        check_name(name)
        path = name
        while path:
            is_file = path == name
            if path == self._folder and not is_file:
                break  # the parents were added with the previous file, which is in the same folder
            lower = path.lower()
            found = self._database.execute("SELECT path, is_file FROM paths WHERE lower = ?", (lower,)).fetchone()
            if found is None:
                self._database.execute("INSERT INTO paths VALUES (?, ?, ?)", (lower, path, is_file))
                path = path.rpartition("/")[0]
                continue
            if found[0] != path:
                raise refuse("name.case", name, f"{found[0]!r} differs from it only in upper and lower case")
            if is_file and found[1]:
                raise refuse("name.duplicate", name, "two entries have this name")
            if found[1] != is_file:
                raise refuse("name.folder", path, "a file and a folder have this name")
            break
        self._folder = name.rpartition("/")[0]
