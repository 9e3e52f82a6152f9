"""SQL over the dataset, by DuckDB: it reads the three tables and nothing else. Needs the extra `analytics`."""

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

# In this order: the last one locks the others.
_LOCKS = (
    "SET TimeZone = 'UTC'",  # else a day is another one on each machine
    "SET temp_directory = ''",  # what is larger than memory is refused, not written beside the caller
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",
)


def query_dataset(folder: str | Path, query: str) -> pa.Table:
    """What one query says of a dataset.

    The tables are `experiments`, `processes` and `findings`, each with a column `month`; all are empty where no dataset
    is. Stamps are in UTC. A query can't write, and can't reach any other file, the network or an extension.

    Args:
        folder: The dataset, as `write_dataset` made it.
        query: One SELECT, or an EXPLAIN of one, in DuckDB's SQL.

    Raises:
        MissingExtraError: DuckDB or pyarrow is not installed.
        ConfigurationError: The query is none, or fails; the message has DuckDB's reason.
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
            raise ConfigurationError(_DOING, found, "correct it; 'describe experiments' names the columns") from error


def _one_query(database: duckdb.DuckDBPyConnection, query: str) -> str:
    """The query, once it is known to be one that only reads."""
    statements = database.extract_statements(query)
    if len(statements) != 1:
        raise ConfigurationError(_DOING, f"it has {len(statements)} statements", "give one SELECT")
    kind = statements[0].type.name
    if kind not in ("SELECT", "EXPLAIN"):
        raise ConfigurationError(
            _DOING, f"it is a statement of the kind {kind}", "give a SELECT: nothing else is allowed"
        )
    return query


def _table(folder: Path, table: str) -> object:
    """A table of the dataset, unread; without files it is empty."""
    from pyarrow import dataset, schema, string

    from llm_energy_measure.catalogue.dataset import schemas

    month = schema([("month", string())])
    own = schemas()[table].append(month.field(0))
    files = [str(path) for path in sorted(folder.glob("month=*/part-0.parquet"))]
    partitioning = dataset.partitioning(month, flavor="hive")
    return dataset.dataset(
        files, schema=own, format="parquet", partitioning=partitioning, partition_base_dir=str(folder)
    )
