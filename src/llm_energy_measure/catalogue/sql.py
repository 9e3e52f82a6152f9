"""SQL queries of the dataset with DuckDB (extra `analytics`). A query can read only the three tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure.catalogue.dataset import TABLES
from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_DOING = "cannot run the query"

# The last statement locks the settings before it.
_LOCKS = (
    "SET TimeZone = 'UTC'",  # the same days on all machines
    "SET temp_directory = ''",  # no temporary files; a query that exceeds the memory fails
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",
)


def query_dataset(folder: str | Path, query: str) -> pa.Table:
    """Return the result of a query of a dataset.

    The tables are `experiments`, `processes` and `findings`, each with a column `month`. They are empty if the dataset
    does not exist. Timestamps are in UTC. A query cannot write, and cannot read other files, the network or extensions.

    Args:
        folder: Folder of the dataset that `write_dataset` created.
        query: One SELECT statement, or an EXPLAIN of one, in the SQL of DuckDB.

    Raises:
        MissingExtraError: DuckDB or pyarrow is not installed.
        ConfigurationError: The query is not one SELECT statement, or DuckDB rejects it.
    """
    try:
        import duckdb
    except ImportError as error:
        advice = f"pip install {EXTRA_PACKAGES['analytics']}"
        raise MissingExtraError(_DOING, "duckdb is not installed", advice) from error
    with duckdb.connect(":memory:") as database:
        for table in TABLES:
            database.register(table, _table(Path(folder) / table, table))
        for lock in _LOCKS:
            database.execute(lock)
        try:
            statement = _one_query(database, query)
            return database.sql(statement).to_arrow_table()
        except duckdb.Error as error:
            found = str(error).strip().replace("\n", " ")
            raise ConfigurationError(_DOING, found, "'describe experiments' lists the columns") from error


def _one_query(database: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the query if it is one statement that only reads."""
    statements = database.extract_statements(query)
    if len(statements) != 1:
        raise ConfigurationError(_DOING, f"it has {len(statements)} statements", "give one SELECT statement")
    kind = statements[0].type.name
    if kind not in ("SELECT", "EXPLAIN"):
        raise ConfigurationError(_DOING, f"it is a statement of type {kind}", "give a SELECT statement")
    return query


def _table(folder: Path, table: str) -> object:
    """Return a table of the dataset without reading it. Without files, the table is empty."""
    from pyarrow import dataset, schema, string

    from llm_energy_measure.catalogue.dataset import schemas

    month = schema([("month", string())])
    own = schemas()[table].append(month.field(0))
    files = [str(path) for path in sorted(folder.glob("month=*/part-0.parquet"))]
    partitioning = dataset.partitioning(month, flavor="hive")
    return dataset.dataset(
        files, schema=own, format="parquet", partitioning=partitioning, partition_base_dir=str(folder)
    )
