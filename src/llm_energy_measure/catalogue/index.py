"""The index: one row per experiment, in a SQLite file that is derived from the results directory.

A refresh lists `raw/`, `aggregated/` and `tags/`, compares the mtimes with those in the rows, and reads only new and
changed experiments. A file that is damaged or of another version is rebuilt. If the file is locked or not writable, the
rows are built in memory. Queries return the same answers in all cases.

An mtime is trusted only if it is old enough. File systems count time in ticks, so a second change within one tick can
leave the same mtime.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llm_energy_measure.catalogue import bucket_versions, config_index
from llm_energy_measure.catalogue.bucket_versions import BucketListing
from llm_energy_measure.catalogue.config_index import part_of
from llm_energy_measure.catalogue.database import (
    BUSY_SEC,
    data_version,
    is_damage,
    is_unmodified,
    open_database,
    remove,
    save_fingerprint,
    writing,
)
from llm_energy_measure.catalogue.export_rows import encode_row
from llm_energy_measure.catalogue.paths import CATALOGUE_NAME, catalogue_path, is_on_network, unsafe_catalogue_file
from llm_energy_measure.catalogue.reader import CatalogueReader, Mtimes
from llm_energy_measure.catalogue.sqlite_schema import INSERT, row_values
from llm_energy_measure.catalogue.summary import (
    ExperimentScan,
    scan_experiment,
    up_to_date_aggregate,
)
from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR, TAGS_DIR
from llm_energy_measure.exceptions import CatalogueError, ConfigurationError, ExperimentIdError, LLMEnergyMeasureError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import bucket_moves, layout
from llm_energy_measure.storage.base import Entry
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.parallel import ahead

AnswerT = TypeVar("AnswerT")

# With more experiments than this, a refresh first compares only the mtimes of the folders raw, aggregated and tags.
SCAN_LIMIT = 2_000

_ROWS_PER_COMMIT = 1_000

# In a bucket, each named experiment takes five requests. For more experiments than this, the command lists all objects,
# which is faster.
_MAX_NAMED = 32

TICK_SEC = 2.0
"""Time in which a second change can leave the same mtime: one tick of a file system's clock."""
# On a network file system, the clock of the server can also differ from the local clock by up to this time.
_SKEW_SEC = 3600.0


class Catalogue(CatalogueReader):
    """The rows of the experiments in a results directory; the methods of the base class answer queries.

    Args:
        repository: The results directory.
        path: The SQLite file. None keeps the rows in memory.
        scan_limit: With more experiments than this, `refresh` first compares only the mtimes of the three folders
            `raw`, `aggregated` and `tags`.
        busy_sec: Maximum time to wait for the lock of another process, in seconds.

    Attributes:
        as_of: Time of the last scan of the results, in seconds since 1970-01-01 UTC; 0 before the first scan.
        is_current: True if `refresh` scanned the results, False if it used the rows of an earlier scan.
    """

    def __init__(
        self,
        repository: FileSystemRepository,
        path: Path | None,
        *,
        scan_limit: int = SCAN_LIMIT,
        busy_sec: float = BUSY_SEC,
    ) -> None:
        """Open or create the file. The results are not read."""
        self.repository = repository
        self.path = path
        self.scan_limit = scan_limit
        self.as_of = 0.0
        self.is_current = False
        self._was_unmodified = self._is_intact = path is None or is_unmodified(path)
        self._data_version: int | None = None
        self._database = open_database(path, busy_sec)
        self._skew_sec = _SKEW_SEC if is_on_network(repository.base_path) else TICK_SEC

    def close(self) -> None:
        """Close the file, and save its fingerprint unless another process wrote to it."""
        is_ours = False
        with contextlib.suppress(sqlite3.Error):
            is_ours = self._data_version == data_version(self._database)
        self._database.close()
        if self.path is not None and self._is_intact and is_ours:
            save_fingerprint(self.path)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Run all queries of the `with` block on one snapshot, even if other processes write."""
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.execute("ROLLBACK")

    def refresh(
        self,
        *,
        full: bool = False,
        rehash: bool = False,
        ids: Collection[str] | None = None,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Update the rows of new, changed and deleted experiments, and set `as_of` and `is_current`.

        Args:
            full: Compare the mtimes of all experiments, even if those of the three folders are unchanged.
            rehash: Read all experiments, because an edit of a file does not change the mtime of its folder.
            ids: The experiments whose rows are needed. In a bucket, only these are listed. None means all.
            on_progress: Function that is called with a message before long work.
        """
        now = time.time()
        own = self._folder_mtimes()
        last = self._database.execute("SELECT scanned, raw, aggregated, tags, number FROM scans").fetchone()
        if (
            not (full or rehash)
            and self._was_unmodified  # else another program may have deleted rows, and no checksum shows this
            and last is not None
            and last[0] <= now  # else the clock was set back after the scan
            and last[4] > self.scan_limit
            and tuple(last[1:4]) == own
            and None not in own
        ):
            self.as_of = last[0]
            return
        store = self.repository.store
        named = self._named_folders(ids)
        known = self._known_rows(named)
        listing = self._bucket_listing(named, sorted(known))
        mtimes = self._mtimes() if listing is None else self._fingerprints(listing)
        if any(row[3] > time.time() for row in known.values()) or (last is not None and last[0] > time.time()):
            self._expire_future_scans()
        changed = [folder for folder, found in mtimes.items() if rehash or not self._is_known(found, known.get(folder))]
        # A deletion can begin after the listing, so changed folders need a check. An unchanged folder needs none:
        # when it was listed, it still had all its objects.
        if changed and named is None and (hidden := bucket_moves.hidden_folders(store)):
            mtimes = {folder: found for folder, found in mtimes.items() if folder not in hidden}
            changed = [folder for folder in changed if folder not in hidden]
        if len(changed) > self.scan_limit:
            on_progress(f"reading {len(changed):,} experiments into the catalogue; the next command reads only changes")
        for scans in self._scans({folder: mtimes[folder] for folder in changed}, rehash=rehash, listing=listing):
            self._store(scans, now)
        deleted = [(folder, now) for folder in known.keys() - mtimes.keys()]
        trusted = [mtime if mtime is not None and mtime < now - self._skew_sec else None for mtime in own]
        scan = (now, *trusted, len(mtimes)) if named is None else None
        has_unused_parts = bool(deleted) or not known.keys().isdisjoint(changed)
        if changed or deleted or len(mtimes) > self.scan_limit:
            self._finish(deleted, scan, has_unused_parts=has_unused_parts)
        self.as_of, self.is_current = now, True

    def _named_folders(self, ids: Collection[str] | None) -> list[str] | None:
        """Return the folders of a few experiments in a bucket. None if it is faster or necessary to list all."""
        store = self.repository.store
        if ids is None or store.supports_mtime or store.supports_folder_move or len(ids) > _MAX_NAMED:
            return None
        try:
            return sorted({folder for one in ids for folder in layout.possible_folders(one)})
        except ExperimentIdError:
            return None

    def _known_rows(self, named: list[str] | None) -> dict[str, tuple[Any, ...]]:
        """Return the mtimes and the time of the scan of all rows, or of those of the named folders, by folder."""
        sql = "SELECT folder, raw, aggregated, tags, scanned FROM rows"
        if named is None:
            return {row[0]: row[1:] for row in self._database.execute(sql)}
        found = (self._database.execute(f"{sql} WHERE folder = ?", (folder,)).fetchone() for folder in named)
        return {row[0]: row[1:] for row in found if row is not None}

    def _bucket_listing(self, named: list[str] | None, known: list[str]) -> BucketListing | None:
        """Return the objects of the named experiments, or of all; None in a store with mtimes."""
        store = self.repository.store
        if named is not None:
            return bucket_versions.list_named(store, named)
        return None if store.supports_mtime else bucket_versions.list_bucket(store, known)

    def update(self, folders: Sequence[str]) -> None:
        """Write the rows of experiments that have changed. Other rows do not change."""
        for start in range(0, len(folders), _ROWS_PER_COMMIT):
            now = time.time()
            mtimes = {folder: self._mtimes_of(folder) for folder in folders[start : start + _ROWS_PER_COMMIT]}
            for scans in self._scans(mtimes, rehash=False):
                self._store(scans, now)

    def _mtimes_of(self, folder: str) -> Mtimes:
        mtimes: list[float | None] = []
        for key in (layout.raw_folder(folder), layout.aggregated_key(folder), layout.tags_key(folder)):
            try:
                mtimes.append(self.repository.store.path(key).lstat().st_mtime)
            except FileNotFoundError:
                mtimes.append(None)
        return Mtimes(*mtimes)

    def require_intact(self) -> None:
        """Raise `sqlite3.DatabaseError` if another program changed rows. Check nothing if the fingerprint matches."""
        with self.snapshot():
            self._data_version = data_version(self._database)
            if self._is_intact:
                return
            [outcome] = self._database.execute("PRAGMA integrity_check(1)").fetchone()
            if outcome != "ok":
                raise sqlite3.DatabaseError(outcome)
            orphan = self._database.execute(
                "SELECT folder FROM (SELECT folder FROM experiments UNION SELECT folder FROM tags) "
                "WHERE folder NOT IN (SELECT folder FROM rows) LIMIT 1"
            ).fetchone()
            if orphan is not None:
                raise sqlite3.DatabaseError(f"the row of {orphan[0]!r} is missing")
            rows = self._database.execute(
                "SELECT folder, summary, rows.crc, values_crc, facts, exported, details.crc "
                "FROM rows LEFT JOIN details USING (folder)"
            )
            for folder, data, crc, values_crc, *details in rows:
                found = [zlib.crc32(data), self._values_crc(folder), _details_crc(*details[:2])]
                if found != [crc, values_crc, details[2]]:
                    raise sqlite3.DatabaseError(f"the row of {folder!r} has a wrong checksum")
            if (wrong := config_index.damage(self._database)) is not None:
                raise sqlite3.DatabaseError(wrong)
        self._is_intact = True

    def _values_crc(self, folder: str) -> int:
        """Return the checksum of the values of an experiment that queries use."""
        values = self._database.execute("SELECT * FROM experiments WHERE folder = ?", (folder,)).fetchone()
        tags = self._database.execute("SELECT key, value FROM tags WHERE folder = ? ORDER BY key", (folder,)).fetchall()
        return zlib.crc32(repr((values, tags)).encode())

    def _finish(
        self, deleted: list[tuple[str, float]], scan: tuple[float | None, ...] | None, *, has_unused_parts: bool
    ) -> None:
        """Delete the rows of deleted experiments. Store `scan`, if given, unless the file contains a later scan."""
        with writing(self._database):
            for table in ("experiments", "tags", "details"):
                self._database.executemany(
                    f"DELETE FROM {table} WHERE folder IN (SELECT folder FROM rows WHERE folder = ? AND scanned < ?)",
                    deleted,
                )
            self._database.executemany("DELETE FROM rows WHERE folder = ? AND scanned < ?", deleted)
            if has_unused_parts:
                config_index.remove_unused_parts(self._database)
            if scan is not None:
                self._database.execute(
                    "INSERT INTO scans VALUES (1, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET scanned = excluded.scanned, "
                    "raw = excluded.raw, aggregated = excluded.aggregated, tags = excluded.tags, "
                    "number = excluded.number WHERE excluded.scanned >= scanned",
                    scan,
                )

    def _expire_future_scans(self) -> None:
        """Mark scans with a time after now as outdated. They were stored before the clock was set back."""
        with writing(self._database):
            for table in ("rows", "scans"):
                self._database.execute(f"UPDATE {table} SET scanned = 0 WHERE scanned > ?", (time.time(),))

    def _folder_mtimes(self) -> tuple[float | None, ...]:
        mtimes: list[float | None] = []
        if not self.repository.store.supports_mtime:
            return None, None, None
        for name in (RAW_DIR, AGGREGATED_DIR, TAGS_DIR):
            try:
                mtimes.append(self.repository.store.path(name).stat().st_mtime)
            except FileNotFoundError:
                mtimes.append(0.0)
            except OSError:
                mtimes.append(None)
        return tuple(mtimes)

    def _mtimes(self) -> dict[str, Mtimes]:
        """Return the mtimes of all experiments, by folder name."""
        store = self.repository.store
        entries = store.list(RAW_DIR)
        raw = {
            entry.name: entry.mtime_sec for entry in entries if entry.is_folder and layout.is_folder_name(entry.name)
        }
        deleted = {layout.deleted_folder_of(entry.name) for entry in entries} - raw.keys()
        aggregated, tags = (
            {
                folder: entry.mtime_sec
                for entry in store.list(prefix)
                if not entry.is_folder and (folder := layout.aggregated_folder_of(entry.name)) not in (None, *deleted)
            }
            for prefix in (AGGREGATED_DIR, TAGS_DIR)
        )
        folders = sorted(folder for folder in raw.keys() | aggregated.keys() if folder is not None)
        return {folder: Mtimes(raw.get(folder), aggregated.get(folder), tags.get(folder)) for folder in folders}

    def _fingerprints(self, listing: BucketListing) -> dict[str, Mtimes]:
        """Return the fingerprints of all experiments in a store without mtimes, by folder name."""
        store = self.repository.store
        raw, aggregated, tags = listing.raw, listing.aggregated, listing.tags
        if store.supports_folder_move:
            hidden = {name for folder in raw if (name := layout.deleted_folder_of(folder)) is not None} - raw.keys()
        else:
            hidden = bucket_moves.hidden_folders(store, raw)
        folders = {folder for folder in raw if layout.is_folder_name(folder)} | aggregated.keys()
        return {
            folder: Mtimes(raw.get(folder), aggregated.get(folder), tags.get(folder))
            for folder in sorted(folders - hidden)
        }

    def _is_known(self, found: Mtimes, row: tuple[Any, ...] | None) -> bool:
        """Return True if a row was built from these mtimes, and the mtimes were old enough then."""
        if row is None or tuple(row[:3]) != tuple(found):
            return False
        return all(mtime is None or 0 < mtime < row[3] - self._skew_sec for mtime in found)

    def _scans(
        self, mtimes: dict[str, Mtimes], *, rehash: bool, listing: BucketListing | None = None
    ) -> Iterator[list[tuple[str, Mtimes, ExperimentScan]]]:
        """Read experiments, and yield them in batches for `_store`."""
        if not mtimes:
            return
        store = self.repository.store
        # Open both folders once for all batches, because in a bucket, opening them again lists all objects again.
        with (
            Folder(store, RAW_DIR) as raw,
            Folder(store, AGGREGATED_DIR) as aggregated,
            closing(ahead(store, partial(self._scan, raw, aggregated, rehash=rehash), mtimes.items())) as scans,
        ):
            if listing is not None:
                raw.use_listing(
                    {name: Entry(name, is_folder=True, size_bytes=0) for name in listing.raw}, listing.folders
                )
                aggregated.use_listing(listing.aggregates)
            while batch := list(islice(scans, _ROWS_PER_COMMIT)):
                yield [(folder, found, scan) for (folder, found), scan in batch]

    def _scan(self, raw: Folder, aggregated: Folder, item: tuple[str, Mtimes], *, rehash: bool) -> ExperimentScan:
        folder, found = item
        up_to_date = None if rehash else up_to_date_aggregate(raw, aggregated, folder)
        opened = None if self.repository.store.parallel_requests == 1 else (raw, aggregated)
        tagged = found.tags is not None
        return scan_experiment(self.repository, folder, up_to_date=up_to_date, tagged=tagged, opened=opened)

    def _store(self, scans: list[tuple[str, Mtimes, ExperimentScan]], now: float) -> None:
        """Write the rows of a scan, except rows that a later scan has written."""
        with writing(self._database):
            newer = {
                folder
                for folder, _, _ in scans
                for found in self._database.execute("SELECT scanned FROM rows WHERE folder = ?", (folder,))
                if found[0] > now
            }
            scans = [scan for scan in scans if scan[0] not in newer]
            encoded = [(folder, mtimes, msgspec.json.encode(scan.summary)) for folder, mtimes, scan in scans]
            details = [
                (folder, msgspec.json.encode(scan.facts), encode_row(scan.aggregated, scan.process_values))
                for folder, _, scan in scans
            ]
            self._database.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                [(folder, *mtimes, now, data, zlib.crc32(data)) for folder, mtimes, data in encoded],
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO details VALUES (?, ?, ?, ?)",
                [(*found, _details_crc(*found[1:])) for found in details],
            )
            parts = {
                folder: (part_of(scan.configuration.settings), part_of(scan.configuration.others))
                for folder, _, scan in scans
            }
            config_index.store_parts(self._database, (part for pair in parts.values() for part in pair))
            self._database.executemany(
                INSERT,
                [
                    row_values(folder, scan, parts[folder], has_aggregate=mtimes.aggregated is not None)
                    for folder, mtimes, scan in scans
                ],
            )
            self._database.executemany("DELETE FROM tags WHERE folder = ?", [(folder,) for folder, _, _ in scans])
            self._database.executemany(
                "INSERT INTO tags VALUES (?, ?, ?)",
                [(folder, key, value) for folder, _, scan in scans for key, value in scan.summary.tags.items()],
            )
            self._database.executemany(
                "UPDATE rows SET values_crc = ? WHERE folder = ?",
                [(self._values_crc(folder), folder) for folder, _, _ in scans],
            )


def query_catalogue(
    repository: FileSystemRepository,
    read: Callable[[Catalogue], AnswerT],
    *,
    full: bool = False,
    rehash: bool = False,
    ids: Collection[str] | None = None,
    warn: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[str], None] = lambda _: None,
    scan_limit: int = SCAN_LIMIT,
    busy_sec: float = BUSY_SEC,
) -> AnswerT:
    """Refresh the catalogue of a results directory and return the result of `read(catalogue)`.

    A damaged file is rebuilt. If the file cannot be created or is locked, the rows are built in memory. In both cases,
    `read` can be called a second time.

    Args:
        repository: The results directory.
        read: Function that queries the catalogue and returns the answer.
        full: Compare the mtimes of all experiments.
        rehash: Read all experiments.
        ids: See `Catalogue.refresh`: ids or folder names of the only experiments that `read` uses.
        warn: Function that is called with a message if the catalogue file cannot be used.
        on_progress: Function that is called with a message before long work.
        scan_limit: See `Catalogue`.
        busy_sec: See `Catalogue`.

    Raises:
        ConfigurationError: The query is too large for SQLite.
        CatalogueError: SQLite fails in memory too.
    """
    path = database_path(repository)
    if path is not None and (unsafe := unsafe_catalogue_file(repository.base_path)) is not None:
        warn(f"the catalogue cannot be used ({unsafe}); move this file away. The catalogue {path} is used instead")
    tries = [path, path, None] if path is not None else [None]
    while tries:
        path = tries.pop(0)
        try:
            with closing(Catalogue(repository, path, scan_limit=scan_limit, busy_sec=busy_sec)) as catalogue:
                catalogue.require_intact()
                catalogue.refresh(full=full, rehash=rehash, ids=ids, on_progress=on_progress)
                with catalogue.snapshot():
                    return read(catalogue)
        except LLMEnergyMeasureError:
            raise
        except (sqlite3.Error, TypeError, ValueError) as error:  # a damaged value can have any type or invalid UTF-8
            _require_valid_query(repository, read)
            if path is None and not isinstance(error, sqlite3.Error):
                raise
            if path is None:
                doing, found = f"cannot list {repository.base_path}", f"SQLite failed in memory ({error})"
                raise CatalogueError(doing, found, f"delete {CATALOGUE_NAME}; the next command rebuilds it") from error
            if is_damage(error):
                warn(f"the catalogue {path} is damaged ({error}); it is rebuilt")
                remove(path)
            else:
                warn(f"the catalogue {path} cannot be used ({error}); all experiments are read instead")
                tries = [None]
    raise AssertionError  # the last try returns or raises


def _details_crc(facts: bytes | None, exported: bytes | None) -> int | None:
    return None if facts is None or exported is None else zlib.crc32(exported, zlib.crc32(facts))


def _require_valid_query(repository: FileSystemRepository, read: Callable[[Catalogue], object]) -> None:
    """Raise `ConfigurationError` if the query also fails on an empty database. The file is then not the cause."""
    with closing(Catalogue(repository, None)) as empty:
        try:
            read(empty)
        except LLMEnergyMeasureError:
            pass  # for example, the empty database has no configuration key
        except sqlite3.Error as error:
            found = f"it is too large for SQLite ({error})"
            raise ConfigurationError("cannot answer the query", found, "use a shorter condition") from error


def database_path(repository: FileSystemRepository) -> Path | None:
    """Return the path of the catalogue. None for a store in memory, without results, or if no place is writable."""
    base = repository.base_path
    is_directory = repository.store.path(RAW_DIR) == base / RAW_DIR
    has_results = not repository.store.supports_paths or any(
        (base / name).is_dir() for name in (RAW_DIR, AGGREGATED_DIR)
    )
    return catalogue_path(base) if is_directory and has_results else None
