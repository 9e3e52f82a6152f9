"""The SQLite file of the index: opened or made anew, written under its lock, and told damaged from busy.

Beside it lies its seal: what the system said of the file when one of us had last written it, or looked it through. As
long as the system says the same, nobody else has written to it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from typing import TYPE_CHECKING

from llm_energy_measure.catalogue.query import FUNCTIONS
from llm_energy_measure.catalogue.sqlite_schema import DDL
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.storage.local import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = 3
"""Counts the forms that the file has had; one of another version is made anew."""

BUSY_SEC = 2.0
"""How long to wait for another process that writes."""


def open_database(path: Path | None) -> sqlite3.Connection:
    """The database with its tables; one of another version is removed and made anew."""
    version = zlib.crc32(repr((VERSION, DDL)).encode()) & 0x7FFFFFFF
    for _ in range(2):
        # A transaction begins where the code says so.
        database = sqlite3.connect(":memory:" if path is None else path, timeout=BUSY_SEC, isolation_level=None)
        try:
            # The file may have come with somebody else's results: whatever its schema calls is not run.
            database.execute("PRAGMA trusted_schema = OFF")
            for name, (arguments, function) in FUNCTIONS.items():
                database.create_function(name, arguments, function, deterministic=True)
            found = database.execute("PRAGMA user_version").fetchone()[0]
            if found == version:
                return database
            if found == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                _make(database, version)
                return database
        except sqlite3.Error:
            database.close()
            raise
        database.close()
        if path is not None:
            remove(path)
    msg = "another process keeps making it anew in another version"
    raise sqlite3.OperationalError(msg)


def _make(database: sqlite3.Connection, version: int) -> None:
    # Derived data needs no durability: what a crash takes is made anew.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    with writing(database):
        if not database.execute("SELECT 1 FROM sqlite_master").fetchone():  # another process may have been faster
            for statement in DDL:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {version}")


@contextlib.contextmanager
def writing(database: sqlite3.Connection) -> Iterator[None]:
    """A transaction that takes the lock for writing at once, so that it waits for another and never has to give up."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def is_damage(error: Exception) -> bool:
    """True unless the file is fine and only can't be used now."""
    code = getattr(error, "sqlite_errorcode", None)
    busy = {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
    }
    # The low byte is the kind, the rest its variety.
    return code is None or code & 0xFF not in busy


def is_unmodified(path: Path) -> bool:
    """True if nobody has written to the file since it was sealed; to be asked before it is opened."""
    try:
        return not _has_log(path) and read_file(_fingerprint_path(path), follow_links=False) == _fingerprint(path)
    except (OSError, ResultsError):
        return False


def save_fingerprint(path: Path) -> None:
    """Remember the file as it is now, once all that was written is in it; where that can't be, it is not sealed."""
    with contextlib.suppress(OSError):
        if _has_log(path) or is_unmodified(path):
            return
        _fingerprint_path(path).unlink(missing_ok=True)
        with _fingerprint_path(path).open("xb") as file:  # a new one: whatever stands there is not written through
            file.write(_fingerprint(path))


def data_version(database: sqlite3.Connection) -> int:
    """A number that is another one after others have written to the file, and the same whatever this one writes."""
    [number] = database.execute("PRAGMA data_version").fetchone()
    return int(number)


def _has_log(path: Path) -> bool:
    """Whether something is written beside the file that may not be in it yet."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _fingerprint(path: Path) -> bytes:
    found = path.lstat()
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}".encode()


def _fingerprint_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-seal")


def remove(path: Path) -> None:
    """Remove the file, its seal, and what SQLite keeps beside it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-seal"):
        with contextlib.suppress(OSError):
            path.with_name(name).unlink()
