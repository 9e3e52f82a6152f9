"""Tables of a results directory as Arrow tables and data frames.

The tables are those of the dataset. A data frame has scalar columns only, so that its rows can be grouped, merged and
compared: several values are one text (`node-1, node-2`), and each tag has a column `tag.<key>`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_energy_measure.catalogue.dataset import (
    TABLES,
    batch,
    open_parts,
    plan,
    require_pyarrow,
    rows_of,
    schemas,
    update_dataset,
)
from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.catalogue.paths import dataset_path
from llm_energy_measure.catalogue.query import SEPARATOR
from llm_energy_measure.exceptions import ConfigurationError, ExportError, MissingExtraError, UnsafePathError
from llm_energy_measure.results.repository import FileSystemRepository

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_TAGS = "tags"
_TAG_PREFIX = "tag."


def to_arrow(results: str | Path | FileSystemRepository, table: str = "experiments") -> pa.Table:
    """Return a table of all experiments with an aggregate. The metadata of each field contains its unit.

    Args:
        results: The results directory or its repository.
        table: `experiments`, `processes` or `findings`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ConfigurationError: The table does not exist.
        ResultCorruptError: An aggregate cannot be read.
    """
    pa = require_pyarrow()
    if table not in TABLES:
        raise ConfigurationError(
            "cannot make a table", f"there is no table {table!r}", f"use one of {', '.join(TABLES)}"
        )
    repository = results if isinstance(results, FileSystemRepository) else FileSystemRepository(results)
    if (stored := _stored(repository, table)) is not None:
        return stored
    months, types = query_catalogue(repository, plan)
    rows = rows_of(repository, [name for month in months for name in month.folders], types)
    schema = schemas(types)[table]
    return pa.Table.from_batches((batch(found[table], schema) for found in rows), schema)


def _stored(repository: FileSystemRepository, table: str) -> pa.Table | None:
    """Return a table of the dataset of a results directory, after an update.

    None if the results are not in a directory, if the dataset is empty or cannot be written, or if an experiment cannot
    be read. With 20,000 experiments, reading an up-to-date dataset takes a hundredth of the time of reading the
    aggregates.
    """
    from pyarrow import concat_tables, parquet

    if not repository.store.supports_paths or not repository.base_path.is_dir():
        return None
    folder = dataset_path(repository.base_path)
    try:
        report = update_dataset(repository, folder, full=False, rehash=False, warn=lambda _: None)
        if report.problems:
            return None
        tables = []
        for _, file in open_parts(folder, table):
            with file:
                # `read_table` takes twice the time, because it can also read several files and filter rows.
                tables.append(parquet.ParquetFile(file).read())
    except (ExportError, UnsafePathError):
        return None
    # The metadata of each Parquet file contains a fingerprint, which does not belong to the joined table.
    return concat_tables(tables).replace_schema_metadata(None) if tables else None


def to_polars(
    results: str | Path | FileSystemRepository, table: str = "experiments", *, ids: Collection[str] | None = None
) -> pl.DataFrame:
    """Return a table as a polars DataFrame with scalar columns; see `to_pandas`."""
    try:
        import polars as pl
    except ImportError as error:
        raise MissingExtraError(
            "cannot make a polars frame", "polars is not installed", "pip install polars pyarrow"
        ) from error
    frame = pl.from_arrow(scalar_table(to_arrow(results, table), ids))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - from_arrow returns a DataFrame for a table
    return frame


def to_pandas(
    results: str | Path | FileSystemRepository, table: str = "experiments", *, ids: Collection[str] | None = None
) -> pd.DataFrame:
    """Return a table of all experiments with an aggregate as a pandas DataFrame with scalar columns.

    Args:
        results: The results directory or its repository.
        table: `experiments`, `processes` or `findings`.
        ids: Only the rows of these experiments. None returns all rows.

    Raises:
        MissingExtraError: pandas or pyarrow is not installed.
        ConfigurationError: The table does not exist.
        ResultCorruptError: An aggregate cannot be read.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError(
            "cannot make a pandas frame", "pandas is not installed", "pip install pandas pyarrow"
        ) from error
    # ArrowDtype keeps null values, and keeps counts as integers.
    return scalar_table(to_arrow(results, table), ids).to_pandas(types_mapper=pd.ArrowDtype)


def scalar_table(table: pa.Table, ids: Collection[str] | None = None) -> pa.Table:
    """Return a table of the dataset with scalar columns: lists as text, and one column `tag.<key>` per tag.

    Args:
        table: A table of `to_arrow`.
        ids: Only the rows of these experiments. None returns all rows.
    """
    pa = require_pyarrow()
    from pyarrow import compute

    if ids is not None:
        table = table.filter(compute.is_in(table["experiment_id"], pa.array(sorted(ids), pa.string())))
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            table = table.set_column(index, field.name, _joined(table[field.name]))
    if _TAGS in table.column_names:
        tags = table[_TAGS]
        index = table.column_names.index(_TAGS)
        table = table.remove_column(index)
        for key in sorted({key for one in tags.to_pylist() for key, _ in one or ()}):
            values = compute.map_lookup(tags, query_key=pa.scalar(key), occurrence="first")
            table = table.add_column(index, _TAG_PREFIX + key, values)
            index += 1
    return table


def _joined(column: Any) -> Any:
    """Return the items of each list as one text; null for null and for an empty list."""
    pa = require_pyarrow()
    from pyarrow import compute

    texts = compute.binary_join(column.cast(pa.list_(pa.string())), SEPARATOR)
    return compute.if_else(compute.equal(compute.list_value_length(column), 0), pa.scalar(None, pa.string()), texts)
