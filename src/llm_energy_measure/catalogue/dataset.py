"""The dataset: experiments, processes and findings as Parquet files (extra `analytics`).

Each table is a folder with one file per month. `results.columns` defines the columns. All files of a table have the
same schema, with the unit of each column in its metadata and timestamps in UTC. A month is written again only if its
experiments changed or its file cannot be read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from llm_energy_measure.catalogue.index import Catalogue, Mtimes, query_catalogue
from llm_energy_measure.catalogue.sqlite_schema import to_utc
from llm_energy_measure.catalogue.summary import scan_experiment, up_to_date_aggregate
from llm_energy_measure.constants import AGGREGATED_DIR, EXTRA_PACKAGES, RAW_DIR
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.exceptions import ConfigurationError, ExportError, LLMEnergyMeasureError, MissingExtraError
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, RAW_COLUMNS, Column
from llm_energy_measure.results.exporters import plain
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.storage.atomic import make_folder, sync_folder, target_name, temporary_path, writer_has_ended
from llm_energy_measure.storage.folder import Folder

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

VERSION = 3
"""Version of the files. Files of another version are written again."""

TABLES = ("experiments", "processes", "findings")
"""Names of the tables."""

_FINGERPRINT = b"llm_energy_measure.made_from"
_UNKNOWN_MONTH = "unknown"
_ROWS_PER_BATCH = 2_000
_MAX_INT64 = 2**63 - 1


class Month(NamedTuple):
    """The experiments that started in one month (UTC), and a digest of the mtimes of their files."""

    name: str
    folders: list[str]
    fingerprint: str


class DatasetReport(Struct, frozen=True, kw_only=True):
    """The changes of a dataset. Months are `yyyy-mm`, or `unknown` for experiments without a start time.

    Attributes:
        written: Months that were written.
        unchanged: Months that are up to date.
        removed: Months without experiments, whose files were deleted.
        problems: One sentence for each experiment that cannot be read and is not in the dataset.
    """

    written: list[str]
    unchanged: list[str]
    removed: list[str]
    problems: list[str]


def write_dataset(
    repository: FileSystemRepository,
    folder: str | Path,
    *,
    rehash: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> DatasetReport:
    """Update a dataset with the experiments of a results directory.

    The files are `<folder>/<table>/month=<yyyy-mm>/part-0.parquet`. They contain all experiments with an aggregate. A
    reader sees the old or the new version of each file.

    Args:
        repository: The results directory.
        folder: Folder of the dataset. It is created if it does not exist.
        rehash: Read all files. An edit of a file does not change the mtime of its folder.
        warn: Function that is called with a message if the catalogue cannot be used, which makes the update slower.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ExportError: A file cannot be written.
    """
    _pyarrow()
    folder = Path(folder)
    months = query_catalogue(repository, _months, full=True, rehash=rehash, warn=warn)
    stale = [
        month
        for month in months
        if rehash or {_fingerprint_of(_part(folder, table, month.name)) for table in TABLES} != {month.fingerprint}
    ]
    problems: list[str] = []
    try:
        for month in stale:
            problems += _write_month(repository, folder, month)
        removed = _remove_others(folder, {month.name for month in months})
    except OSError as error:
        found = error.strerror or str(error)
        raise ExportError(f"cannot write the dataset {folder}", found, "choose another folder") from error
    return DatasetReport(
        written=[month.name for month in stale],
        unchanged=[month.name for month in months if month not in stale],
        removed=removed,
        problems=problems,
    )


def to_arrow(repository: FileSystemRepository, table: str = "experiments") -> pa.Table:
    """Return a table of all experiments with an aggregate. The metadata of each field contains its unit.

    Args:
        repository: The results directory.
        table: `experiments`, `processes` or `findings`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ConfigurationError: The table does not exist.
        ResultCorruptError: An aggregate cannot be read.
    """
    pa = _pyarrow()
    if table not in TABLES:
        raise ConfigurationError(
            "cannot make a table", f"there is no table {table!r}", f"use one of {', '.join(TABLES)}"
        )
    months = query_catalogue(repository, _months)
    rows = _rows(repository, [name for month in months for name in month.folders])
    schema = schemas()[table]
    return pa.Table.from_batches((_batch(found[table], schema) for found in rows), schema)


def to_polars(repository: FileSystemRepository, table: str = "experiments") -> pl.DataFrame:
    """Return the table of `to_arrow` as a polars DataFrame. Raises `MissingExtraError` without polars."""
    try:
        import polars as pl
    except ImportError as error:
        raise MissingExtraError(
            "cannot make a polars frame", "polars is not installed", "pip install polars"
        ) from error
    frame = pl.from_arrow(to_arrow(repository, table))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - from_arrow returns a DataFrame for a table
    return frame


def to_pandas(repository: FileSystemRepository, table: str = "experiments") -> pd.DataFrame:
    """Return the table of `to_arrow` as a pandas DataFrame. Raises `MissingExtraError` without pandas."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError(
            "cannot make a pandas frame", "pandas is not installed", "pip install pandas"
        ) from error
    # Nullable types keep null and keep counts as integers.
    return to_arrow(repository, table).to_pandas(types_mapper=pd.ArrowDtype)


def schemas() -> dict[str, pa.Schema]:
    """Return the schema of each table. Raises `MissingExtraError` without pyarrow."""
    pa = _pyarrow()
    texts = pa.list_(pa.string())
    experiments = [
        *(_field(column) for column in AGGREGATED_COLUMNS),
        *(pa.field(name, pa.string()) for name in ("status", "verdict", "config_name")),
        *(pa.field(name, texts) for name in ("precision", "hosts", "gpus")),
        pa.field("tags", pa.map_(pa.string(), pa.string())),
        pa.field("note", pa.string()),
    ]
    findings = [
        *(pa.field(name, pa.string()) for name in _FINDING_TEXTS),
        pa.field("effect_j", pa.float64(), metadata={"unit": "J"}),
        pa.field("processes", pa.list_(pa.int64())),
    ]
    return {
        "experiments": pa.schema(experiments),
        "processes": pa.schema([_field(column) for column in RAW_COLUMNS]),
        "findings": pa.schema(findings),
    }


_FINDING_TEXTS = ("experiment_id", "code", "outcome", "reason", "message", "expected", "found")


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        advice = f"pip install {EXTRA_PACKAGES['analytics']}"
        raise MissingExtraError("cannot make a dataset", "pyarrow is not installed", advice) from error
    return pa


def _field(column: Column[AggregatedResult] | Column[RawProcessResult]) -> pa.Field:
    """Return the Arrow field of an exported column, with its unit."""
    pa = _pyarrow()
    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    return pa.field(column.name, types[column.type], metadata={"unit": column.unit} if column.unit else None)


def _months(catalogue: Catalogue) -> list[Month]:
    """Return the experiments with an aggregate, by month."""
    months: dict[str, list[tuple[str, Mtimes]]] = {}
    for folder, start, mtimes in catalogue.sources():
        name = _UNKNOWN_MONTH if start is None else f"{datetime.fromtimestamp(start, UTC):%Y-%m}"
        months.setdefault(name, []).append((folder, mtimes))
    return [
        Month(
            name,
            [folder for folder, _ in found],
            _digest(f"{folder} {mtimes}\n" for folder, mtimes in found),
        )
        for name, found in sorted(months.items())
    ]


def _digest(lines: Iterable[str]) -> str:
    columns = [*(column.name for column in AGGREGATED_COLUMNS), *(column.name for column in RAW_COLUMNS)]
    digest = hashlib.sha256(repr((VERSION, columns, _FINDING_TEXTS)).encode())
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()


def _part(folder: Path, table: str, month: str) -> Path:
    return folder / table / f"month={month}" / "part-0.parquet"


def _fingerprint_of(path: Path) -> str | None:
    """Return the fingerprint in the metadata of a file. None if the file is absent or unreadable."""
    from pyarrow import ArrowInvalid, parquet

    try:
        metadata = parquet.read_metadata(path).metadata or {}
    except (OSError, ArrowInvalid):
        return None
    found = metadata.get(_FINGERPRINT)
    return None if found is None else found.decode(errors="replace")


def _write_month(repository: FileSystemRepository, folder: Path, month: Month) -> list[str]:
    """Write the three files of a month. Without problems, their metadata contains the fingerprint of the month."""
    from pyarrow import parquet

    problems: list[str] = []
    temps: dict[str, str] = {}
    made = schemas()
    try:
        with ExitStack() as stack:
            writers = {}
            for table in TABLES:
                make_folder(os.fspath(_part(folder, table, month.name).parent))
                temps[table] = temporary_path(os.fspath(_part(folder, table, month.name)))
                writers[table] = stack.enter_context(
                    parquet.ParquetWriter(temps[table], made[table], compression="zstd")
                )
            for rows in _rows(repository, month.folders, problems.append):
                for table in TABLES:
                    writers[table].write_batch(_batch(rows[table], made[table]))
            for writer in writers.values():
                writer.add_key_value_metadata({_FINGERPRINT: b"" if problems else month.fingerprint.encode()})
        for table in TABLES:
            path = os.fspath(_part(folder, table, month.name))
            with open(temps[table], "rb") as file:  # noqa: PTH123 - paths are strings, as in `storage.atomic`
                os.fsync(file.fileno())
            os.replace(temps.pop(table), path)  # noqa: PTH105 - as above
            sync_folder(os.path.dirname(path))  # noqa: PTH120 - as above
            _remove_temporary_files(Path(path).parent)
    finally:
        for temp in temps.values():
            with suppress(FileNotFoundError):
                os.unlink(temp)  # noqa: PTH108 - as above
    return problems


def _remove_temporary_files(folder: Path) -> None:
    """Delete the temporary files of exports that were killed."""
    for path in folder.iterdir():
        if target_name(path.name) is not None and writer_has_ended(path.name, 0):
            path.unlink(missing_ok=True)


def _remove_others(folder: Path, months: set[str]) -> list[str]:
    """Delete the files of months without experiments. Files of other programs are kept."""
    removed = set()
    for table in TABLES:
        for path in (folder / table).glob("month=*/part-0.parquet"):
            name = path.parent.name.removeprefix("month=")
            if name not in months and _fingerprint_of(path) is not None:
                path.unlink(missing_ok=True)  # another export can delete it first
                with suppress(OSError):  # the folder contains another file
                    path.parent.rmdir()
                removed.add(name)
    return sorted(removed)


def _rows(
    repository: FileSystemRepository, folders: Iterable[str], on_unreadable: Callable[[str], None] | None = None
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Yield batches of rows by table. Call `on_unreadable` for each unreadable experiment, or raise if it is None."""
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for folder in folders:
        try:
            result = repository.load_aggregated(folder)
        except LLMEnergyMeasureError as error:
            if on_unreadable is None:
                raise
            on_unreadable(str(error))
            continue
        if result is None:
            continue  # deleted in between
        with Folder(repository.store, RAW_DIR) as raw, Folder(repository.store, AGGREGATED_DIR) as aggregated:
            row = scan_experiment(repository, folder, up_to_date=up_to_date_aggregate(raw, aggregated, folder)).summary
        rows["experiments"].append(_row(AGGREGATED_COLUMNS, result) | {
            "status": row.status, "verdict": row.verdict, "config_name": row.config_name,
            "precision": row.precision, "hosts": row.hosts, "gpus": row.gpus, "tags": list(row.tags.items()),
            "note": row.note,
        })  # fmt: skip
        rows["processes"] += [_row(RAW_COLUMNS, process) for process in result.process_results]
        rows["findings"] += _finding_rows(result)
        if len(rows["processes"]) >= _ROWS_PER_BATCH or len(rows["experiments"]) >= _ROWS_PER_BATCH:
            yield rows
            rows = {table: [] for table in TABLES}
    yield rows


def _finding_rows(result: AggregatedResult) -> list[dict[str, Any]]:
    """Return one row per finding of an aggregate. Values that can be numbers or words are text."""
    return [
        {
            "experiment_id": result.experiment_id,
            "code": finding.code,
            "outcome": finding.outcome,
            "reason": finding.reason,
            "message": finding.message,
            "expected": None if finding.expected is None else str(finding.expected),
            "found": None if finding.found is None else str(finding.found),
            "effect_j": finding.effect_j,
            "processes": finding.processes,
        }
        for finding in result.findings or ()
    ]


def _row(columns: Iterable[Column[Any]], record: object) -> dict[str, Any]:
    return {column.name: _cell(plain(column.getter(record))) for column in columns}


def _cell(value: Any) -> Any:
    """Convert a value for Arrow: times to UTC, and integers of more than 64 bits to None."""
    if isinstance(value, datetime):
        return to_utc(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_INT64:
        return None
    return value


def _batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    return _pyarrow().RecordBatch.from_pylist(rows, schema=schema)
