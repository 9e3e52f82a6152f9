"""The index: one row an experiment, in a SQLite file that is derived from the results directory and never needed.

A refresh lists `raw/`, `aggregated/` and `tags/`, compares the mtimes of what is in them with those of the rows, and
reads only what is new or changed. Whatever is wrong with the file (damaged, locked, of another version, nowhere to be
put), the same rows are made in memory: the same answers, later.

A mtime is trusted once it is old enough that no change could have left it as it was: file systems count time in ticks.

One class refreshes the rows and answers from them, since an answer says as of when it is: so the module is long.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from llm_energy_measure.catalogue.database import (
    data_version,
    is_damage,
    is_unmodified,
    open_database,
    remove,
    save_fingerprint,
    writing,
)
from llm_energy_measure.catalogue.paths import catalogue_path, is_on_network
from llm_energy_measure.catalogue.query import Clause, column_of, contains_clause, where_clause
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS, INSERT, row_values
from llm_energy_measure.catalogue.summary import (
    ExperimentScan,
    ExperimentSummary,
    scan_experiment,
    up_to_date_aggregate,
)
from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR, TAGS_DIR
from llm_energy_measure.exceptions import CatalogueError, ConfigurationError, LLMEnergyMeasureError
from llm_energy_measure.results.store import layout
from llm_energy_measure.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llm_energy_measure.results.repository import FileSystemRepository

AnswerT = TypeVar("AnswerT")

# With more experiments a list scans at the mtimes of the folders alone, and says as of when it answers.
SCAN_LIMIT = 2_000

_ROWS_A_COMMIT = 1_000
_MOST_ROWS = 2**63 - 1
_OVERVIEW = msgspec.json.Decoder(ExperimentSummary)

# How long after a change another one could leave the same mtime: a tick of the file system, and on another machine's
# also as much as its clock may be off.
_TICK_SEC = 2.0
_SKEW_SEC = 3600.0


class Mtimes(NamedTuple):
    """When the folder, the aggregate and the tags of an experiment were last written; 0 is unknown, None is absent."""

    raw: float | None
    aggregated: float | None
    tags: float | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What several experiments come to; None is unknown.

    Attributes:
        by: Values of the columns that they have in common.
        experiments: How many they are.
        total_energy_j: Energy of those that know it, in joules.
        total_tokens: Tokens of those that know them.
        tokens_per_joule: Tokens over energy, of those that know both.
        unknown_energy: How many of them don't know their energy.
        lower_bounds: How many of them are known to be too small.
    """

    by: dict[str, Any]
    experiments: int
    total_energy_j: float | None
    total_tokens: int | None
    tokens_per_joule: float | None
    unknown_energy: int
    lower_bounds: int


GROUP_FIGURES = ("experiments", "total_energy_j", "total_tokens", "tokens_per_joule", "unknown_energy", "lower_bounds")
"""What groups can be ordered by: their figures."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        where: A condition in the grammar of `catalogue.query`; None is all.
        model: Text that the model's name contains, in any case.
        with_pending: Also those that have no aggregate.
    """

    where: str | None = None
    model: str | None = None
    with_pending: bool = False


class Catalogue:
    """The rows of a results directory.

    Args:
        repository: The results directory.
        path: The file; None is memory.

    Attributes:
        as_of: When the results were last looked at, in seconds since 1970-01-01 UTC.
        scanned: Whether that was now.
    """

    def __init__(self, repository: FileSystemRepository, path: Path | None) -> None:
        """Open the file, or make it; nothing is read of the results yet."""
        self.repository = repository
        self.path = path
        self.as_of = 0.0
        self.is_current = False
        self._was_unmodified = self._is_intact = path is None or is_unmodified(path)
        self._seen: int | None = None
        self._database = open_database(path)
        self._skew_sec = _SKEW_SEC if is_on_network(repository.base_path) else _TICK_SEC

    def close(self) -> None:
        """Let go of the file, which is sealed unless others wrote to it meanwhile."""
        is_seen = False
        with contextlib.suppress(sqlite3.Error):
            is_seen = self._seen == data_version(self._database)
        self._database.close()
        if self.path is not None and self._is_intact and is_seen:
            save_fingerprint(self.path)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything asked inside is answered from one state, whatever others write meanwhile."""
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.execute("ROLLBACK")

    def refresh(
        self, *, full: bool = False, rehash: bool = False, on_progress: Callable[[str], None] = lambda _: None
    ) -> None:
        """Bring the rows up to date by difference; `scanned` says whether the results were looked at for it.

        Args:
            full: Look at every mtime also where the folders' own say that nothing came or went.
            rehash: Read every experiment again: edits in place leave no mtime on a folder.
            on_progress: Told what takes long.
        """
        now = time.time()
        own = self._folder_mtimes()
        last = self._database.execute("SELECT scanned, raw, aggregated, tags, number FROM scans").fetchone()
        if (
            not (full or rehash)
            and self._was_unmodified  # what others wrote to may have lost rows, and no checksum of them
            and last is not None
            and last[0] <= now  # a scan in the future is from before the clock was set back
            and last[4] > SCAN_LIMIT
            and tuple(last[1:4]) == own
            and None not in own
        ):
            self.as_of = last[0]
            return
        mtimes = self._mtimes()
        rows = self._database.execute("SELECT folder, raw, aggregated, tags, scanned FROM rows")
        known = {row[0]: row[1:] for row in rows}
        if any(row[3] > time.time() for row in known.values()) or (last is not None and last[0] > time.time()):
            self._forget_the_future()
        changed = [folder for folder, found in mtimes.items() if rehash or not self._is_known(found, known.get(folder))]
        if len(changed) > SCAN_LIMIT:
            on_progress(f"reading {len(changed):,} experiments into the catalogue; what is unchanged is not read again")
        for start in range(0, len(changed), _ROWS_A_COMMIT):
            batch = {folder: mtimes[folder] for folder in changed[start : start + _ROWS_A_COMMIT]}
            self._store(self._scans(batch, rehash=rehash), now)
        gone = [(folder, now) for folder in known.keys() - mtimes.keys()]
        up_to_date = [mtime if mtime is not None and mtime < now - self._skew_sec else None for mtime in own]
        if changed or gone or len(mtimes) > SCAN_LIMIT:
            self._finish(gone, (now, *up_to_date, len(mtimes)))
        self.as_of, self.is_current = now, True

    def require_intact(self) -> None:
        """Raise `sqlite3.DatabaseError` if others wrote to the file, and it is not what we wrote any more."""
        with self.snapshot():
            self._seen = data_version(self._database)
            if self._is_intact:
                return
            [said] = self._database.execute("PRAGMA integrity_check(1)").fetchone()
            tables = ("experiments", "tags")
            lost = [f"SELECT folder FROM {table} WHERE folder NOT IN (SELECT folder FROM rows)" for table in tables]
            stray = self._database.execute(f"{' UNION '.join(lost)} LIMIT 1").fetchone()
            if said != "ok" or stray is not None:
                raise sqlite3.DatabaseError(said if said != "ok" else f"it has no row of {stray[0]!r}")
            for folder, data, *checksums in self._database.execute("SELECT folder, summary, crc, values_crc FROM rows"):
                if checksums != [zlib.crc32(data), self._values_crc(folder)]:
                    msg = f"the row of {folder!r} is not what was written"
                    raise sqlite3.DatabaseError(msg)
        self._is_intact = True

    def _values_crc(self, folder: str) -> int:
        """The checksum of all by which an experiment is chosen, ordered and added up."""
        values = self._database.execute("SELECT * FROM experiments WHERE folder = ?", (folder,)).fetchone()
        tags = self._database.execute("SELECT key, value FROM tags WHERE folder = ? ORDER BY key", (folder,)).fetchall()
        return zlib.crc32(repr((values, tags)).encode())

    def _finish(self, gone: list[tuple[str, float]], scan: tuple[float | None, ...]) -> None:
        """Forget what is gone, and remember the scan, unless a later one was faster."""
        with writing(self._database):
            for table in ("experiments", "tags"):
                self._database.executemany(
                    f"DELETE FROM {table} WHERE folder IN (SELECT folder FROM rows WHERE folder = ? AND scanned < ?)",
                    gone,
                )
            self._database.executemany("DELETE FROM rows WHERE folder = ? AND scanned < ?", gone)
            self._database.execute(
                "INSERT INTO scans VALUES (1, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET scanned = excluded.scanned, "
                "raw = excluded.raw, aggregated = excluded.aggregated, tags = excluded.tags, number = excluded.number "
                "WHERE excluded.scanned >= scanned",
                scan,
            )

    def _forget_the_future(self) -> None:
        """Take scans that are later than now for old ones: they are from before the clock was set back."""
        with writing(self._database):
            for table in ("rows", "scans"):
                self._database.execute(f"UPDATE {table} SET scanned = 0 WHERE scanned > ?", (time.time(),))

    def summaries(
        self, query: Query, *, sort: str = "id", reverse: bool = False, limit: int | None = None
    ) -> list[ExperimentSummary]:
        """The rows that are asked for, in order; what is unknown comes last."""
        clause = self._where(query)
        column = column_of(sort, COLUMNS, "cannot sort")
        down = " DESC" if reverse else ""
        keys = _order_keys(column.sql, reverse=reverse, is_tag=bool(column.values))
        if column.sql == "experiment_id":  # never unknown, and an index has its order already
            keys = keys[1:]
        sql = f"SELECT folder FROM experiments WHERE {clause.sql} ORDER BY {', '.join(keys)}, folder{down} LIMIT ?"
        values = (*clause.values, *(column.values * len(keys)))
        folders = self._database.execute(sql, (*values, -1 if limit is None else min(limit, _MOST_ROWS))).fetchall()
        one = "SELECT summary, crc FROM rows WHERE folder = ?"
        return [_decode(*self._database.execute(one, folder).fetchone()) for folder in folders]

    def count(self, query: Query) -> int:
        """How many rows are asked for."""
        clause = self._where(query)
        [number] = self._database.execute(
            f"SELECT count(*) FROM experiments WHERE {clause.sql}", clause.values
        ).fetchone()
        return int(number)

    def pending(self) -> int:
        """How many experiments have no aggregate."""
        sql = "SELECT count(*) FROM experiments WHERE listed = 1 AND has_aggregate = 0"
        return int(self._database.execute(sql).fetchone()[0])

    def problems(self, query: Query) -> list[tuple[str, str]]:
        """What can't be read of the experiments that are asked for, or of those that might be: id and reason."""
        base = self._base(query)
        clause = self._conditions(query)
        sql = (
            "SELECT folder FROM experiments INDEXED BY by_problem "
            f"WHERE problems IS NOT NULL AND {base} AND ({clause.sql}) IS NOT 0"
        )
        rows = self._database.execute(
            f"SELECT summary, crc FROM rows WHERE folder IN ({sql}) ORDER BY folder", clause.values
        )
        found = (_decode(*row) for row in rows)
        return [(summary.experiment_id, problem) for summary in found for problem in summary.problems]

    def sources(self) -> Iterator[tuple[str, float | None, Mtimes]]:
        """Folder, start (seconds since 1970-01-01 UTC) and mtimes of every experiment that has an aggregate."""
        sql = (
            "SELECT folder, start_time, raw, aggregated, rows.tags FROM experiments JOIN rows USING (folder) "
            "WHERE listed = 1 AND has_aggregate = 1 ORDER BY folder"
        )
        for folder, start, *mtimes in self._database.execute(sql):
            yield folder, start, Mtimes(*mtimes)

    def groups(self, query: Query, by: Sequence[str], *, sort: str | None = None, reverse: bool = False) -> list[Group]:
        """What the experiments that are asked for come to, by the values of columns; without columns all together.

        Args:
            query: Which experiments.
            by: Names of columns.
            sort: Which of `GROUP_FIGURES`, or of the columns, to order by; by default the columns in turn. What is
                unknown comes last.
            reverse: Greatest first.
        """
        clause = self._where(query)
        columns = [column_of(name, COLUMNS, "cannot group") for name in by]
        names = [f"c{number}" for number in range(len(columns))]
        selected = "".join(f"{column.sql} AS {name}, " for column, name in zip(columns, names, strict=True))
        both = "total_tokens IS NOT NULL AND total_energy_j IS NOT NULL"
        sql = (
            f"SELECT {selected}count(*) AS f0, sum(total_energy_j) AS f1, "
            # Not sum(), which refuses whole numbers that are too large together.
            "CASE WHEN count(total_tokens) THEN total(total_tokens) END AS f2, "
            f"total(iif({both}, total_tokens, NULL)) / nullif(total(iif({both}, total_energy_j, NULL)), 0) AS f3, "
            "count(*) - count(total_energy_j) AS f4, count(CASE WHEN is_lower_bound THEN 1 END) AS f5 "
            f"FROM experiments WHERE {clause.sql}"
        )
        if names:
            figures = {name: f"f{number}" for number, name in enumerate(GROUP_FIGURES)}
            shown = figures | dict(zip(by, names, strict=True))
            order = [*([shown[sort]] if sort is not None else []), *names]
            tags = {name for column, name in zip(columns, names, strict=True) if column.values}
            keys = [key for name in order for key in _order_keys(name, reverse=reverse, is_tag=name in tags)]
            sql += f" GROUP BY {', '.join(names)} ORDER BY {', '.join(keys)}"
        values = (*(value for column in columns for value in column.values), *clause.values)
        kinds = [COLUMNS.get(column.sql, "text") for column in columns]
        return [_group(by, kinds, row) for row in self._database.execute(sql, values)]

    def _base(self, query: Query) -> str:
        # Compared, not just named: only so SQLite finds them in an index, and in its order.
        return "listed = 1" if query.with_pending else "listed = 1 AND has_aggregate = 1"

    def _conditions(self, query: Query) -> Clause:
        clauses = [where_clause(query.where, COLUMNS)] if query.where is not None else []
        if query.model is not None:
            clauses.append(contains_clause(Clause("model_name", ()), query.model))
        sql = " AND ".join(clause.sql for clause in clauses) or "1"
        return Clause(sql, tuple(value for clause in clauses for value in clause.values))

    def _where(self, query: Query) -> Clause:
        clause = self._conditions(query)
        return Clause(f"{self._base(query)} AND {clause.sql}", clause.values)

    def _folder_mtimes(self) -> tuple[float | None, ...]:
        mtimes: list[float | None] = []
        for name in (RAW_DIR, AGGREGATED_DIR, TAGS_DIR):
            try:
                mtimes.append(self.repository.store.path(name).stat().st_mtime)
            except FileNotFoundError:
                mtimes.append(0.0)
            except OSError:
                mtimes.append(None)
        return tuple(mtimes)

    def _mtimes(self) -> dict[str, Mtimes]:
        """What there is, by folder name."""
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

    def _is_known(self, found: Mtimes, row: tuple[Any, ...] | None) -> bool:
        """True if a row was made of these very mtimes, when they were old enough."""
        if row is None or tuple(row[:3]) != tuple(found):
            return False
        return all(mtime is None or 0 < mtime < row[3] - self._skew_sec for mtime in found)

    def _scans(self, mtimes: dict[str, Mtimes], *, rehash: bool) -> list[tuple[str, Mtimes, ExperimentScan]]:
        store, scans = self.repository.store, []
        with Folder(store, RAW_DIR) as raw, Folder(store, AGGREGATED_DIR) as aggregated:
            for folder, found in mtimes.items():
                up_to_date = None if rehash else up_to_date_aggregate(raw, aggregated, folder)
                scan = scan_experiment(self.repository, folder, up_to_date=up_to_date, tagged=found.tags is not None)
                scans.append((folder, found, scan))
        return scans

    def _store(self, scans: list[tuple[str, Mtimes, ExperimentScan]], now: float) -> None:
        """Write rows, unless a later scan has written them already."""
        with writing(self._database):
            newer = {
                folder
                for folder, _, _ in scans
                for found in self._database.execute("SELECT scanned FROM rows WHERE folder = ?", (folder,))
                if found[0] > now
            }
            scans = [scan for scan in scans if scan[0] not in newer]
            encoded = [(folder, mtimes, msgspec.json.encode(scan.summary)) for folder, mtimes, scan in scans]
            self._database.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                [(folder, *mtimes, now, data, zlib.crc32(data)) for folder, mtimes, data in encoded],
            )
            self._database.executemany(
                INSERT,
                [
                    row_values(folder, scan, has_aggregate=mtimes.aggregated is not None)
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
    query: Callable[[Catalogue], AnswerT],
    *,
    full: bool = False,
    rehash: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> AnswerT:
    """The answer of the catalogue of a results directory, once it is up to date.

    A file that is damaged is made anew; where there can be none, or another process locks it, the rows are made in
    memory. The query may be asked several times for that.

    Args:
        repository: The results directory.
        query: What to do with the catalogue.
        full: Look at every mtime.
        rehash: Read every experiment again.
        warn: Told what is wrong with the catalogue, so that the answer comes later.
        on_progress: Told what takes long.

    Raises:
        ConfigurationError: The query is more than SQLite answers.
        CatalogueError: Not even that goes.
    """
    place = _place(repository)
    tries = [place, place, None] if place is not None else [None]
    while tries:
        place = tries.pop(0)
        try:
            with contextlib.closing(Catalogue(repository, place)) as catalogue:
                catalogue.require_intact()
                catalogue.refresh(full=full, rehash=rehash, on_progress=on_progress)
                with catalogue.snapshot():
                    return query(catalogue)
        except LLMEnergyMeasureError:
            raise
        except (sqlite3.Error, TypeError, ValueError) as error:  # a damaged value has any type, or no UTF-8
            _require_answerable(repository, query)
            if place is None and not isinstance(error, sqlite3.Error):
                raise
            if place is None:
                doing, found = f"cannot list {repository.base_path}", f"SQLite refused in memory ({error})"
                raise CatalogueError(doing, found, "delete the catalogue; it is made anew") from error
            if is_damage(error):
                warn(f"the catalogue {place} is damaged ({error}) and made anew")
                remove(place)
            else:
                warn(f"the catalogue {place} can't be used ({error}); every experiment is read instead")
                tries = [None]
    raise AssertionError  # the last try is memory


def _decode(data: bytes, checksum: int) -> ExperimentSummary:
    """What stands in a row. Raises `sqlite3.DatabaseError` if it is not what was written."""
    if zlib.crc32(data) != checksum:
        msg = "a row is not what was written"
        raise sqlite3.DatabaseError(msg)
    return _OVERVIEW.decode(data)


def _require_answerable(repository: FileSystemRepository, query: Callable[[Catalogue], object]) -> None:
    """Refuse a query that fails without any results too: no file is to blame for it."""
    with contextlib.closing(Catalogue(repository, None)) as empty:
        try:
            query(empty)
        except sqlite3.Error as error:
            doing, found = "cannot answer the query", f"it is more than SQLite takes ({error})"
            raise ConfigurationError(doing, found, "ask for less at once") from error


def _place(repository: FileSystemRepository) -> Path | None:
    """Where the catalogue lies; memory for a store that is no directory, and for one in which nothing is yet."""
    base = repository.base_path
    is_directory = repository.store.path(RAW_DIR) == base / RAW_DIR
    has_results = any((base / name).is_dir() for name in (RAW_DIR, AGGREGATED_DIR))
    return catalogue_path(base) if is_directory and has_results else None


def _order_keys(sql: str, *, reverse: bool, is_tag: bool) -> list[str]:
    """What to order by, for an order by this: what is unknown last; of tags numbers by their size, before words."""
    down = " DESC" if reverse else ""
    numbers = [f"as_number({sql}) IS NULL", f"as_number({sql}){down}"] if is_tag else []
    return [f"{sql} IS NULL", *numbers, f"{sql}{down}"]


def _group(by: Sequence[str], kinds: Sequence[str], row: Sequence[Any]) -> Group:
    count = len(by)
    common = {name: _shown(kind, value) for name, kind, value in zip(by, kinds, row, strict=False)}
    number, energy, tokens, efficiency, unknown, bounds = row[count:]
    return Group(
        by=common,
        experiments=number,
        total_energy_j=energy,
        total_tokens=None if tokens is None else int(tokens),
        tokens_per_joule=efficiency,
        unknown_energy=unknown,
        lower_bounds=bounds,
    )


def _shown(kind: str, value: Any) -> Any:
    if value is not None and kind == "time":
        return datetime.fromtimestamp(value, UTC)
    return bool(value) if value is not None and kind == "boolean" else value
