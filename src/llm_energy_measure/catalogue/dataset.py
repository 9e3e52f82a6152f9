"""The dataset: experiments, processes and findings as Parquet files, one folder a table and one file a month.

Every table is cut from `results.columns`: one schema, the unit of each column in its metadata, mtimes in UTC. A month
is written again only if something of it came, went or changed, or can't be read. Needs the extra `analytics`.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from llm_energy_measure.catalogue.index import Catalogue, Mtimes, query_catalogue
from llm_energy_measure.catalogue.sqlite_schema import to_utc
from llm_energy_measure.catalogue.summary import scan_experiment, up_to_date_aggregate
from llm_energy_measure.constants import AGGREGATED_DIR, EXTRA_PACKAGES, RAW_DIR
from llm_energy_measure.exceptions import ConfigurationError, ExportError, LLMEnergyMeasureError, MissingExtraError
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, RAW_COLUMNS, Column
from llm_energy_measure.results.exporters import plain
from llm_energy_measure.storage.atomic import make_folder, sync_folder, target_name, temporary_path, writer_has_ended
from llm_energy_measure.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
    from llm_energy_measure.results.repository import FileSystemRepository

VERSION = 3
"""Counts the forms that the files have had; those of another version are written again."""

TABLES = ("experiments", "processes", "findings")
"""Names of the tables."""

_FINGERPRINT = b"llm_energy_measure.made_from"
_UNKNOWN_MONTH = "unknown"
_ROWS_A_BATCH = 2_000
_LARGEST = 2**63 - 1


class Month(NamedTuple):
    """The folders of one month, and a digest of the mtimes of all that they are made from."""

    name: str
    folders: list[str]
    fingerprint: str


class DatasetReport(Struct, frozen=True, kw_only=True):
    """What was written.

    Attributes:
        written: Months that were written.
        unchanged: Months that were left alone.
        removed: Months that have no experiment any more.
        problems: Why an experiment was left out, a sentence each.
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
    """Bring a dataset up to date with a results directory: `<folder>/<table>/month=<yyyy-mm>/part-0.parquet`.

    All experiments that have an aggregate are in it, by the month in which they began (UTC). A reader finds each file
    as it was or as it is.

    Args:
        repository: The results directory.
        folder: The dataset, which is made if need be.
        rehash: Read every file again, since edits in place leave no mtime on a folder.
        warn: Told why it takes longer than it might.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ExportError: A file can't be written.
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
    """A table of all experiments that have an aggregate, units in the metadata of its fields.

    Args:
        repository: The results directory.
        table: `experiments`, `processes` or `findings`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ConfigurationError: No such table.
        ResultCorruptError: An aggregate can't be read.
    """
    pa = _pyarrow()
    if table not in TABLES:
        raise ConfigurationError(
            "cannot make a table", f"there is no table {table!r}", f"choose one of {', '.join(TABLES)}"
        )
    months = query_catalogue(repository, _months)
    rows = _rows(repository, [name for month in months for name in month.folders], None)
    schema = schemas()[table]
    return pa.Table.from_batches((_batch(found[table], schema) for found in rows), schema)


def to_polars(repository: FileSystemRepository, table: str = "experiments") -> pl.DataFrame:
    """The table that `to_arrow` makes, as a polars frame. Raises also `MissingExtraError` without polars."""
    try:
        import polars as pl
    except ImportError as error:
        raise MissingExtraError(
            "cannot make a polars frame", "polars is not installed", "pip install polars"
        ) from error
    frame = pl.from_arrow(to_arrow(repository, table))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - of a table it makes no series
    return frame


def to_pandas(repository: FileSystemRepository, table: str = "experiments") -> pd.DataFrame:
    """The table that `to_arrow` makes, as a pandas frame. Raises also `MissingExtraError` without pandas."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError(
            "cannot make a pandas frame", "pandas is not installed", "pip install pandas"
        ) from error
    # Nullable types: what is unknown stays unknown, and a count stays a whole number.
    return to_arrow(repository, table).to_pandas(types_mapper=pd.ArrowDtype)


def schemas() -> dict[str, pa.Schema]:
    """The schema of each table. Raises `MissingExtraError` without pyarrow."""
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
    """The field of an exported column, with its unit."""
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
    """Which experiments there are, by month."""
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
    """What a file says it was made from; None if there is none that can be read."""
    from pyarrow import ArrowInvalid, parquet

    try:
        metadata = parquet.read_metadata(path).metadata or {}
    except (OSError, ArrowInvalid):
        return None
    found = metadata.get(_FINGERPRINT)
    return None if found is None else found.decode(errors="replace")


def _write_month(repository: FileSystemRepository, folder: Path, month: Month) -> list[str]:
    """Write the three files of a month; they say what they were made from, unless something could not be read."""
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
            for rows in _rows(repository, month.folders, problems):
                for table in TABLES:
                    writers[table].write_batch(_batch(rows[table], made[table]))
            for writer in writers.values():
                writer.add_key_value_metadata({_FINGERPRINT: b"" if problems else month.fingerprint.encode()})
        for table in TABLES:
            path = os.fspath(_part(folder, table, month.name))
            with open(temps[table], "rb") as file:  # noqa: PTH123 - a name of ours as text, as in `storage.atomic`
                os.fsync(file.fileno())
            os.replace(temps.pop(table), path)  # noqa: PTH105 - as above
            sync_folder(os.path.dirname(path))  # noqa: PTH120 - as above
            _sweep(Path(path).parent)
    finally:
        for temp in temps.values():
            with suppress(FileNotFoundError):
                os.unlink(temp)  # noqa: PTH108 - as above
    return problems


def _sweep(folder: Path) -> None:
    """Remove what exports that were killed have left in a folder."""
    for path in folder.iterdir():
        if target_name(path.name) is not None and writer_has_ended(path.name, 0):
            path.unlink(missing_ok=True)


def _remove_others(folder: Path, months: set[str]) -> list[str]:
    """Remove our files of months that have no experiment any more."""
    removed = set()
    for table in TABLES:
        for path in (folder / table).glob("month=*/part-0.parquet"):
            name = path.parent.name.removeprefix("month=")
            if name not in months and _fingerprint_of(path) is not None:
                path.unlink(missing_ok=True)  # another export may have been faster
                with suppress(OSError):  # somebody else's file is in it
                    path.parent.rmdir()
                removed.add(name)
    return sorted(removed)


def _rows(
    repository: FileSystemRepository, folders: Iterable[str], problems: list[str] | None
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Rows by table, some thousand at a time; what can't be read is told, or raised where nobody listens."""
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for folder in folders:
        try:
            result = repository.load_aggregated(folder)
        except LLMEnergyMeasureError as error:
            if problems is None:
                raise
            problems.append(str(error))
            continue
        if result is None:
            continue  # deleted since
        with Folder(repository.store, RAW_DIR) as raw, Folder(repository.store, AGGREGATED_DIR) as aggregated:
            row = scan_experiment(repository, folder, up_to_date=up_to_date_aggregate(raw, aggregated, folder)).summary
        rows["experiments"].append(_row(AGGREGATED_COLUMNS, result) | {
            "status": row.status, "verdict": row.verdict, "config_name": row.config_name,
            "precision": row.precision, "hosts": row.hosts, "gpus": row.gpus, "tags": list(row.tags.items()),
            "note": row.note,
        })  # fmt: skip
        rows["processes"] += [_row(RAW_COLUMNS, process) for process in result.process_results]
        rows["findings"] += _finding_rows(result)
        if len(rows["processes"]) >= _ROWS_A_BATCH or len(rows["experiments"]) >= _ROWS_A_BATCH:
            yield rows
            rows = {table: [] for table in TABLES}
    yield rows


def _finding_rows(result: AggregatedResult) -> list[dict[str, Any]]:
    """What verification found when the aggregate was made; numbers that may also be words are text."""
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
    """What Arrow holds in its place: mtimes in UTC; a count beyond 64 bits is unknown."""
    if isinstance(value, datetime):
        return to_utc(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST:
        return None
    return value


def _batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    return _pyarrow().RecordBatch.from_pylist(rows, schema=schema)
