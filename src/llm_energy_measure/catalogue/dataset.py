"""The dataset: experiments, processes and findings as Parquet files (extra `analytics`).

Each table is a folder with one file per month. `results.columns` defines the columns. All files of a table have the
same schema, with the unit of each column in its metadata and timestamps in UTC. The files of a month are written again
only if its experiments changed, or if another program changed or deleted one of the files. The file `SUMS` contains the
digest of each file, in the format of sha256sum(1).
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec
from msgspec import Struct

from llm_energy_measure.catalogue.index import Catalogue, query_catalogue
from llm_energy_measure.catalogue.sqlite_schema import to_utc
from llm_energy_measure.catalogue.summary import scan_experiment, up_to_date_aggregate
from llm_energy_measure.constants import AGGREGATED_DIR, EXTRA_PACKAGES, RAW_DIR
from llm_energy_measure.domain.configuration import PREFIX, flatten
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.exceptions import (
    ExportError,
    LLMEnergyMeasureError,
    MissingExtraError,
    ResultAlteredError,
    UnsafePathError,
)
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, RAW_COLUMNS, Column
from llm_energy_measure.results.exporters import plain
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.storage.atomic import make_folder
from llm_energy_measure.storage.contained import ContainedFolder
from llm_energy_measure.storage.folder import Folder
from llm_energy_measure.storage.temporary import target_name, writer_has_ended

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 4
"""Version of the files. Files of another version are written again."""

TABLES = ("experiments", "processes", "findings")
"""Names of the tables."""

SUMS = ".llm-energy-measure.sha256"
"""Name of the file with the SHA-256 of each file of the dataset."""

_FINGERPRINT = b"llm_energy_measure.made_from"
_PART = "part-0.parquet"
_MAGIC = b"PAR1"
_UNKNOWN_MONTH = "unknown"
_ROWS_PER_BATCH = 2_000
_DAY_SEC = 86_400
_MAX_INT64 = 2**63 - 1
_SUM = re.compile(rf"[0-9a-f]{{64}}  (?:{'|'.join(TABLES)})/month=[0-9a-z-]+/{re.escape(_PART)}")
_CHUNK_BYTES = 1 << 20
_MAX_SUMS_BYTES = 16_000_000


class Month(NamedTuple):
    """The experiments that started in one month (UTC), and a digest of their rows and of the mtimes of their files."""

    name: str
    folders: list[str]
    fingerprint: str


class DatasetReport(Struct, frozen=True, kw_only=True):
    """The changes of a dataset. Months are `yyyy-mm`, or `unknown` for experiments without a start time.

    Attributes:
        written: Months that were written.
        unchanged: Months that are up to date.
        removed: Months without experiments, whose files were deleted.
        problems: One sentence for each experiment that cannot be read or whose aggregate is altered. An unreadable
            experiment is not in the dataset. An experiment with an altered aggregate is in the dataset without figures.
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
        rehash: Read all files, because an edit of a file does not change the mtime of its folder.
        warn: Function that is called with a message if the catalogue cannot be used. The update is then slower.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ExportError: A file cannot be written.
        UnsafePathError: A link, a pipe, a device or a file of another program has the name of a file of the dataset.
    """
    return update_dataset(repository, Path(folder), full=True, rehash=rehash, warn=warn)


def update_dataset(
    repository: FileSystemRepository, folder: Path, *, full: bool, rehash: bool, warn: Callable[[str], None]
) -> DatasetReport:
    """Update a dataset, and return the changes; see `write_dataset`. For `full`, see `Catalogue.refresh`."""
    require_pyarrow()
    months, types = query_catalogue(repository, plan, full=full, rehash=rehash, warn=warn)
    sums = _read_sums(folder)
    stale = [month for month in months if rehash or not _is_current(folder, month, sums)]
    current = {_key(table, month.name) for month in months if month not in stale for table in TABLES}
    new_sums = {key: sums[key] for key in current}
    problems: list[str] = []
    try:
        if stale:
            make_folder(os.fspath(folder))
        for month in stale:
            of_month, digests = _write_month(repository, folder, month, types)
            problems += of_month
            new_sums |= digests
        removed = _remove_others(folder, {month.name for month in months})
        if new_sums != sums:
            _write_sums(folder, new_sums)
    except OSError as error:
        found = error.strerror or str(error)
        raise ExportError(f"cannot write the dataset {folder}", found, "choose another folder") from error
    return DatasetReport(
        written=[month.name for month in stale],
        unchanged=[month.name for month in months if month not in stale],
        removed=removed,
        problems=problems,
    )


def changed_files(folder: str | Path) -> list[str]:
    """Return the files of a dataset that another program changed or deleted, as paths in the dataset."""
    return [key for key, digest in sorted(_read_sums(folder).items()) if _digest_of_file(folder, key) != digest]


def schemas(config_types: Mapping[str, str] | None = None) -> dict[str, pa.Schema]:
    """Return the schema of each table. Raises `MissingExtraError` without pyarrow.

    Args:
        config_types: Type by configuration key. Each key has a column `config.<key>` in the table of experiments.
    """
    pa = require_pyarrow()
    texts = pa.list_(pa.string())
    experiments = [
        *(_field(column) for column in AGGREGATED_COLUMNS),
        *(pa.field(name, pa.string()) for name in ("status", "verdict", "config_name")),
        *(pa.field(name, texts) for name in ("precision", "hosts", "gpus")),
        pa.field("tags", pa.map_(pa.string(), pa.string())),
        pa.field("note", pa.string()),
        *(pa.field(PREFIX + key, _types()[kind]) for key, kind in (config_types or {}).items()),
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


def require_pyarrow() -> Any:
    """Return the module pyarrow. Raises `MissingExtraError` if it is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        advice = f"pip install {EXTRA_PACKAGES['parquet']}"
        raise MissingExtraError("cannot make a dataset", "pyarrow is not installed", advice) from error
    return pa


def _field(column: Column[AggregatedResult] | Column[RawProcessResult]) -> pa.Field:
    """Return the Arrow field of an exported column, with its unit."""
    metadata = {"unit": column.unit} if column.unit else None
    return require_pyarrow().field(column.name, _types()[column.type], metadata=metadata)


def _types() -> dict[str, pa.DataType]:
    """Return the Arrow type of each column type."""
    pa = require_pyarrow()
    return {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }


def plan(catalogue: Catalogue) -> tuple[list[Month], dict[str, str]]:
    """Return the experiments with an aggregate by month, and the type of each configuration key.

    All files of a table have the same columns, so a new configuration key makes all months outdated.
    """
    types = catalogue.config_types()
    months: dict[str, list[tuple[Any, ...]]] = {}
    for start, *source in catalogue.sources():
        name = _UNKNOWN_MONTH if start is None else _month_of_day(int(start // _DAY_SEC))
        months.setdefault(name, []).append(tuple(source))
    return [
        Month(name, [folder for folder, *_ in found], _digest(found, types)) for name, found in sorted(months.items())
    ], types


@lru_cache(maxsize=4096)
def _month_of_day(day: int) -> str:
    """Return the month of a day, which is counted from 1970-01-01 (UTC)."""
    return f"{datetime.fromtimestamp(day * _DAY_SEC, UTC):%Y-%m}"


def _digest(sources: Sequence[tuple[Any, ...]], types: Mapping[str, str]) -> str:
    columns = [*(column.name for column in AGGREGATED_COLUMNS), *(column.name for column in RAW_COLUMNS)]
    digest = hashlib.sha256(repr((VERSION, columns, _FINDING_TEXTS, types)).encode())
    digest.update(msgspec.json.encode(sources))
    return digest.hexdigest()


@contextmanager
def month_folder(folder: str | Path, table: str, month: str, *, create: bool = False) -> Iterator[ContainedFolder]:
    """Open the folder of one month of a table. `create` creates a missing one. No link below `folder` is followed."""
    with (
        ContainedFolder(folder) as root,
        root.subfolder(table, create=create) as months,
        months.subfolder(f"month={month}", create=create) as found,
    ):
        yield found


def open_parts(folder: str | Path, table: str, months: Collection[str] | None = None) -> Iterator[tuple[str, BinaryIO]]:
    """Yield month and open file of each file of a table. The caller closes the files.

    Args:
        folder: Folder of the dataset.
        table: Name of the table.
        months: Only files of these months. None yields all.

    Raises:
        UnsafePathError: A file or a folder of the table is a link, a pipe or a device.
    """
    try:
        with ContainedFolder(folder) as root, root.subfolder(table) as parent:
            for name in parent.names():
                month = name.removeprefix("month=")
                if month != name and (months is None or month in months):
                    with suppress(FileNotFoundError), parent.subfolder(name) as found:
                        yield month, found.open(_PART)
    except FileNotFoundError:
        return


def _fingerprint_in(file: BinaryIO) -> str | None:
    """Return the fingerprint in the metadata of a Parquet file, or None. Raises `ArrowInvalid` for other files."""
    from pyarrow import parquet

    found = (parquet.read_metadata(file).metadata or {}).get(_FINGERPRINT)
    return None if found is None else found.decode(errors="replace")


def _is_current(folder: Path, month: Month, sums: Mapping[str, str]) -> bool:
    """Return True if the three files of a month were made from its experiments, and have not changed since."""
    from pyarrow import ArrowInvalid

    for table in TABLES:
        try:
            with month_folder(folder, table, month.name) as found, found.open(_PART) as file:
                if sums.get(_key(table, month.name)) != _file_digest(file):
                    return False
                # `SUMS` is written after the three files. Equal digests mean that one update wrote all three, so the
                # fingerprint of one file is enough.
                if table == TABLES[-1] and _fingerprint_in(file) != month.fingerprint:
                    return False
        except (OSError, ArrowInvalid, UnsafePathError):
            return False
    return True


def _key(table: str, month: str) -> str:
    return f"{table}/month={month}/{_PART}"


def _file_digest(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def _digest_of_file(folder: str | Path, key: str) -> str | None:
    table, _, rest = key.partition("/month=")
    try:
        with month_folder(folder, table, rest.partition("/")[0]) as found, found.open(_PART) as file:
            return _file_digest(file)
    except (OSError, UnsafePathError):
        return None


def _read_sums(folder: str | Path) -> dict[str, str]:
    """Return the digest of each file, by path in the dataset. Empty if there is no readable `SUMS`."""
    try:
        with ContainedFolder(folder) as root, root.open(SUMS) as file:
            lines = file.read(_MAX_SUMS_BYTES).decode().splitlines()
    except (OSError, UnsafePathError, UnicodeDecodeError):
        return {}
    return {line[66:]: line[:64] for line in lines if _SUM.fullmatch(line)}


def _write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    with suppress(FileNotFoundError), ContainedFolder(folder) as root:
        temp, file = root.create_temporary(SUMS)
        try:
            with file:
                file.write("".join(f"{digest}  {key}\n" for key, digest in sorted(sums.items())).encode())
                file.flush()
                os.fsync(file.fileno())
            root.publish(temp, SUMS)
        finally:
            root.remove(temp)


def _require_replaceable(found: ContainedFolder) -> None:
    """Raise `UnsafePathError` if another program wrote the file of a month. A damaged Parquet file may be replaced."""
    from pyarrow import ArrowInvalid

    try:
        with found.open(_PART) as file:
            start = file.read(len(_MAGIC))
            try:
                is_ours = not start or _fingerprint_in(file) is not None
            except (OSError, ArrowInvalid):
                is_ours = start == _MAGIC
    except FileNotFoundError:
        return
    if not is_ours:
        doing = f"cannot replace {found.path}{os.sep}{_PART}"
        raise UnsafePathError(doing, "another program wrote it", "move it away, or choose another folder")


def _write_month(
    repository: FileSystemRepository, folder: Path, month: Month, types: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Write the three files of a month. Return the problems, and the digests of the files by key.

    If there is no problem, the metadata of the files contains the fingerprint of the month. Otherwise the fingerprint
    is empty, so that the next update writes the month again.
    """
    from pyarrow import parquet

    problems: list[str] = []
    digests: dict[str, str] = {}
    made = schemas(types)
    with ExitStack() as stack:
        folders, temps, files, writers = {}, {}, {}, {}
        for table in TABLES:
            folders[table] = stack.enter_context(month_folder(folder, table, month.name, create=True))
            _require_replaceable(folders[table])
            temps[table], file = folders[table].create_temporary(_PART)
            stack.callback(folders[table].remove, temps[table])
            files[table] = stack.enter_context(file)
            writers[table] = stack.enter_context(parquet.ParquetWriter(file, made[table], compression="zstd"))
        for rows in rows_of(repository, month.folders, types, problems.append):
            for table in TABLES:
                writers[table].write_batch(batch(rows[table], made[table]))
        for table in TABLES:
            writers[table].add_key_value_metadata({_FINGERPRINT: b"" if problems else month.fingerprint.encode()})
            writers[table].close()
            files[table].flush()
            os.fsync(files[table].fileno())
            digests[_key(table, month.name)] = _file_digest(files[table])
        for table in TABLES:
            folders[table].publish(temps[table], _PART)
            _remove_temporary_files(folders[table])
    return problems, digests


def _remove_temporary_files(folder: ContainedFolder) -> None:
    """Delete the temporary files of exports that were killed."""
    for name in folder.names():
        if target_name(name) == _PART and writer_has_ended(name, 0):
            folder.remove(name)


def _remove_others(folder: Path, months: set[str]) -> list[str]:
    """Delete the files of months without experiments. Files of other programs are kept."""
    removed = set()
    for table in TABLES:
        with suppress(FileNotFoundError), ContainedFolder(folder) as root, root.subfolder(table) as parent:
            for name in parent.names():
                month = name.removeprefix("month=")
                if month != name and month not in months and _remove_part(parent, name):
                    removed.add(month)
    return sorted(removed)


def _remove_part(parent: ContainedFolder, name: str) -> bool:
    """Delete the file of a month, and its folder if empty. Return False if the folder has no file of this tool."""
    from pyarrow import ArrowInvalid

    with suppress(FileNotFoundError, ArrowInvalid), parent.subfolder(name) as found:
        with found.open(_PART) as file:
            is_ours = _fingerprint_in(file) is not None
        if is_ours:
            found.remove(_PART)
            parent.remove_empty(name)
            return True
    return False


def rows_of(
    repository: FileSystemRepository,
    folders: Iterable[str],
    types: Mapping[str, str],
    on_unreadable: Callable[[str], None] | None = None,
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Yield batches of rows by table.

    `on_unreadable` gets the text of each error. If `on_unreadable` is None, the error is raised. An experiment with an
    altered aggregate has a row without figures.
    """
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    # Open both folders once for all experiments, because in a bucket, opening them again lists all objects again.
    with Folder(repository.store, RAW_DIR) as raw, Folder(repository.store, AGGREGATED_DIR) as aggregated:
        for folder in folders:
            result: AggregatedResult | None = None
            try:
                result = repository.load_aggregated(folder)
                is_altered = False
            except LLMEnergyMeasureError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(str(error))
                is_altered = isinstance(error, ResultAlteredError)
            if result is None and not is_altered:
                continue  # unreadable, or deleted after the catalogue was read
            row = scan_experiment(repository, folder, up_to_date=up_to_date_aggregate(raw, aggregated, folder)).summary
            figures = {"experiment_id": row.experiment_id} if result is None else _row(AGGREGATED_COLUMNS, result)
            rows["experiments"].append(figures | {
                "status": row.status, "verdict": row.verdict, "config_name": row.config_name,
                "precision": row.precision, "hosts": row.hosts, "gpus": row.gpus, "tags": list(row.tags.items()),
                "note": row.note,
            } | ({} if result is None else _config_row(result.effective_config, types)))  # fmt: skip
            if result is not None:
                rows["processes"] += [_row(RAW_COLUMNS, process) for process in result.process_results]
                rows["findings"] += _finding_rows(result)
            if len(rows["processes"]) >= _ROWS_PER_BATCH or len(rows["experiments"]) >= _ROWS_PER_BATCH:
                yield rows
                rows = {table: [] for table in TABLES}
    yield rows


def _config_row(config: dict[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a configuration by column name, in the types of the columns."""
    row: dict[str, Any] = {}
    for key, value in flatten(config).items():
        kind = types.get(key)
        if kind == "text" and not isinstance(value, str):
            row[PREFIX + key] = msgspec.json.encode(value).decode()
        else:
            row[PREFIX + key] = float(value) if kind == "number" else _cell(value)
    return row


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
    """Convert a value for Arrow: times to UTC, and integers of more than 63 bits to None."""
    if isinstance(value, datetime):
        return to_utc(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_INT64:
        return None
    return value


def batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return rows as an Arrow record batch with this schema."""
    return require_pyarrow().RecordBatch.from_pylist(rows, schema=schema)


def __getattr__(name: str) -> object:
    """Return a function of `frames`, which was here in earlier releases."""
    if name in ("to_arrow", "to_pandas", "to_polars"):
        return getattr(importlib.import_module("llm_energy_measure.catalogue.frames"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
