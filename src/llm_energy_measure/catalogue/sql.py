"""SQL queries of the dataset with DuckDB (extra `analytics`). A query can read only the three tables."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llm_energy_measure.catalogue.dataset import TABLES, open_parts, schemas
from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ResultT = TypeVar("ResultT")

_DOING = "cannot run the query"

# The last statement locks the settings before it.
_LOCKS = (
    "SET TimeZone = 'UTC'",  # the same days on all machines
    "SET temp_directory = ''",  # no temporary files; a query that exceeds the memory fails
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",
)

# Types of DuckDB that Arrow does not have. Without a cast to text, DuckDB returns wrong numbers or bytes.
_TEXT_TYPES = frozenset({"BIGNUM", "BIT", "GEOMETRY", "TIME WITH TIME ZONE", "TIME_NS", "UHUGEINT", "VARINT"})

_MAX_DEFAULT_MEMORY_BYTES = 4_000_000_000


def default_memory_bytes() -> int:
    """Return the default memory of a query: a quarter of the machine's memory, at most 4 GB."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _MAX_DEFAULT_MEMORY_BYTES
    return min(total // 4, _MAX_DEFAULT_MEMORY_BYTES)


def query_dataset(
    folder: str | Path, query: str, *, months: Collection[str] | None = None, memory_bytes: int | None = None
) -> pa.Table:
    """Return the result of a query of a dataset. Ctrl-C interrupts the query.

    The tables are `experiments`, `processes` and `findings`, each with a column `month`. The tables are empty if the
    dataset does not exist. Timestamps are in UTC. A query cannot write, and cannot read other files, the network or
    extensions. Columns of types that Arrow does not have are text.

    Args:
        folder: Folder of the dataset that `write_dataset` created.
        query: One SELECT statement, or an EXPLAIN of one, in the SQL of DuckDB.
        months: Months to read, as `DatasetReport` names them. None reads all.
        memory_bytes: Memory limit of DuckDB in bytes. The result can have at most a quarter of this size. None uses
            `default_memory_bytes()`.

    Raises:
        MissingExtraError: DuckDB or pyarrow is not installed.
        ConfigurationError: The query is not one SELECT statement, DuckDB rejects it, or it needs too much memory.
        UnsafePathError: A file or a folder of the dataset is a link, a pipe or a device.
    """
    limit = default_memory_bytes() if memory_bytes is None else memory_bytes

    def answer(database: duckdb.DuckDBPyConnection) -> pa.Table:
        import duckdb
        import pyarrow as pa

        with ExitStack() as stack:
            tables = {table: _table(folder, table, months, stack) for table in TABLES}
            try:
                for table, content in tables.items():
                    database.register(table, content)
                database.execute(f"SET memory_limit = '{limit}B'")
                for lock in _LOCKS:
                    database.execute(lock)
                return _fetch(database.sql(_one_query(database, query)), limit // 4)
            except duckdb.OutOfMemoryException as error:
                found = f"it needs more memory than {limit / 1e9:.3g} GB"
                raise ConfigurationError(_DOING, found, "select fewer rows, or raise --memory-limit") from error
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                found = str(error).strip().replace("\n", " ")
                advice = "list the columns with the query 'describe experiments'"
                raise ConfigurationError(_DOING, found, advice) from error

    return _interruptible(answer)


def column_as_text(column: pa.ChunkedArray) -> list[str | None]:
    """Return the values of a column as DuckDB prints them. Python cannot represent a date after the year 9999."""
    import pyarrow as pa

    def answer(database: duckdb.DuckDBPyConnection) -> list[str | None]:
        database.execute("SET TimeZone = 'UTC'")
        rows = database.from_arrow(pa.table({"value": column})).project("CAST(#1 AS VARCHAR)").fetchall()
        return [text for (text,) in rows]

    return _interruptible(answer)


def _connect() -> duckdb.DuckDBPyConnection:
    """Return an empty database. Raises `MissingExtraError` if DuckDB or pyarrow is not installed."""
    try:
        import duckdb
        import pyarrow as pa  # noqa: F401 - the queries need it
    except ImportError as error:
        advice = f"pip install {EXTRA_PACKAGES['analytics']}"
        raise MissingExtraError(_DOING, f"{error.name} is not installed", advice) from error
    return duckdb.connect(":memory:")


def _interruptible(work: Callable[[duckdb.DuckDBPyConnection], ResultT]) -> ResultT:
    """Return the result of work with an empty database. Ctrl-C interrupts the work.

    Another thread imports DuckDB and makes its calls. In the main thread, Ctrl-C could become an error of a call, or be
    lost during an import, or wait until the query ends.
    """
    with ThreadPoolExecutor(1) as thread:
        database = thread.submit(_connect).result()
        try:
            return thread.submit(work, database).result()
        except KeyboardInterrupt:
            # The thread runs one call after the other, so `after` is done when the work has ended. An interrupt has no
            # effect before a query starts, so it is repeated.
            after = thread.submit(bool)
            while not after.done():
                database.interrupt()
                time.sleep(0.02)
            raise
        finally:
            database.close()


def _fetch(relation: duckdb.DuckDBPyRelation, max_bytes: int) -> pa.Table:
    """Return all rows. The memory limit of DuckDB does not count these rows.

    Raises:
        ConfigurationError: The rows have more than `max_bytes` bytes.
    """
    import pyarrow as pa

    if any(str(kind) in _TEXT_TYPES for kind in relation.types):
        relation = relation.project(", ".join(map(_projection, count(1), relation.columns, map(str, relation.types))))
    # duckdb 2 renamed fetch_record_batch.
    reader = relation.to_arrow_reader() if hasattr(relation, "to_arrow_reader") else relation.fetch_record_batch()
    batches: list[pa.RecordBatch] = []
    size_bytes = 0
    for batch in reader:
        batches.append(batch)
        size_bytes += batch.nbytes
        if size_bytes > max_bytes:
            found = f"the result has more than {max_bytes / 1e9:.3g} GB"
            raise ConfigurationError(_DOING, found, "add LIMIT or a condition, or raise --memory-limit")
    return pa.Table.from_batches(batches, schema=reader.schema)


def _projection(position: int, name: str, kind: str) -> str:
    """Return the SQL of one column of a result, as text if Arrow does not have its type."""
    value = f"CAST(#{position} AS VARCHAR)" if kind in _TEXT_TYPES else f"#{position}"
    return f'{value} AS "{name.replace(chr(34), chr(34) * 2)}"'


def _one_query(database: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the query if it is one statement that only reads."""
    statements = database.extract_statements(query)
    if len(statements) != 1:
        raise ConfigurationError(_DOING, f"it has {len(statements)} statements", "give one SELECT statement")
    kind = statements[0].type.name
    if kind not in ("SELECT", "EXPLAIN"):
        raise ConfigurationError(_DOING, f"it is a statement of type {kind}", "give a SELECT statement")
    return query


def _table(folder: str | Path, table: str, months: Collection[str] | None, stack: ExitStack) -> object:
    """Return a table of the dataset without reading it. Without files, the table is empty."""
    from pyarrow import dataset, fs, schema, string

    month = schema([("month", string())])
    kind = dataset.ParquetFileFormat()
    parts = [
        kind.make_fragment(stack.enter_context(file), partition_expression=dataset.field("month") == name)
        for name, file in open_parts(folder, table, months)
    ]
    own = schemas()[table]
    for part in parts[:1]:  # all files of a table have the same configuration keys
        for field in part.physical_schema:
            own = own.append(field) if own.get_field_index(field.name) < 0 else own
    return dataset.FileSystemDataset(parts, own.append(month.field(0)), kind, fs.LocalFileSystem())
