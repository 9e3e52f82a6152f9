"""The SQLite file of the catalogue: open, rebuild, lock, and detect damage.

The file contains its own inode number. A file that was copied or received has another inode and is rebuilt, because its
rows can contain values that are in no result, and its schema can be malicious.

After this tool has written or checked the file, it stores the inode, size, mtime and ctime in a fingerprint file in the
same folder. If these values are unchanged, no other program has written to the file.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from llm_energy_measure.catalogue.query import FUNCTIONS
from llm_energy_measure.catalogue.sqlite_schema import DDL
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.storage.local import read_file

VERSION = 6
"""Version of the file format. A file of another version is rebuilt."""

_FINGERPRINT_SUFFIX = "-seal"  # as in earlier releases, so that old files are deleted too

BUSY_SEC = 2.0
"""Maximum time to wait for the lock of another process, in seconds."""


def open_database(path: Path | None, busy_sec: float = BUSY_SEC) -> sqlite3.Connection:
    """Open the database and create its tables. A copied file or one of another version is deleted first.

    Args:
        path: The file. None creates the database in memory.
        busy_sec: Maximum time to wait for the lock of another process, in seconds.
    """
    version = format_version()
    for _ in range(2):
        # isolation_level=None: transactions begin only with an explicit BEGIN.
        database = sqlite3.connect(":memory:" if path is None else path, timeout=busy_sec, isolation_level=None)
        try:
            # The file can come from another user. Functions in its schema must not run.
            database.execute("PRAGMA trusted_schema = OFF")
            for name, (arguments, function) in FUNCTIONS.items():
                database.create_function(name, arguments, function, deterministic=True)
            found = database.execute("PRAGMA user_version").fetchone()[0]
            if found == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                _make(database, version, _inode_mark(path))
                return database
            if found == version and database.execute("PRAGMA application_id").fetchone()[0] == _inode_mark(path):
                return database
        except sqlite3.Error:
            database.close()
            raise
        database.close()
        if path is not None:
            remove(path)
    error = sqlite3.OperationalError("another process rebuilds the catalogue in another format version")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY  # the file is not damaged
    raise error


def format_version() -> int:
    """Return the number of the format. A change of the tables changes this number."""
    return zlib.crc32(repr((VERSION, DDL)).encode()) & 0x7FFFFFFF


def _inode_mark(path: Path | None) -> int:
    """Return a number of 31 bits for the inode of the file; 0 in memory."""
    return 0 if path is None else zlib.crc32(str(path.stat().st_ino).encode()) & 0x7FFFFFFF


def _make(database: sqlite3.Connection, version: int, mark: int) -> None:
    # All rows can be rebuilt from the results, so they need not survive a crash.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    with writing(database):
        # Another process can create the tables before this transaction.
        if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in DDL:
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {mark}")
            database.execute(f"PRAGMA user_version = {version}")


@contextlib.contextmanager
def writing(database: sqlite3.Connection) -> Iterator[None]:
    """Run the block in a transaction, which waits for the write lock at its start. Later statements do not wait."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def is_damage(error: Exception) -> bool:
    """Return True if the file is damaged, False if the file cannot be used now, for example because of a lock."""
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
    # The low byte of an extended error code is the primary code.
    return code is None or code & 0xFF not in busy


def is_unmodified(path: Path) -> bool:
    """Return True if the file still matches its fingerprint. Call this function before the file is opened."""
    try:
        return not _has_log(path) and read_file(_fingerprint_path(path), follow_links=False) == _fingerprint(path)
    except (OSError, ResultsError):
        return False


def save_fingerprint(path: Path) -> None:
    """Save the fingerprint of the file. Do nothing if a write-ahead log remains or writing fails."""
    with contextlib.suppress(OSError):
        if _has_log(path) or is_unmodified(path):
            return
        _fingerprint_path(path).unlink(missing_ok=True)
        with _fingerprint_path(path).open("xb") as file:  # exclusive: never write through an existing link
            file.write(_fingerprint(path))


def data_version(database: sqlite3.Connection) -> int:
    """Return a number that changes when another connection commits. See PRAGMA data_version."""
    [number] = database.execute("PRAGMA data_version").fetchone()
    return int(number)


def _has_log(path: Path) -> bool:
    """Return True if the write-ahead log contains data."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _fingerprint(path: Path) -> bytes:
    found = path.lstat()
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}".encode()


def _fingerprint_path(path: Path) -> Path:
    return path.with_name(path.name + _FINGERPRINT_SUFFIX)


def remove(path: Path) -> None:
    """Delete the file, its fingerprint and the files of SQLite next to it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", path.name + _FINGERPRINT_SUFFIX):
        with contextlib.suppress(OSError):
            path.with_name(name).unlink()
