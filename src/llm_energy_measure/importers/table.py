"""Any table: CSV, JSON lines, a list of JSON or Parquet, with a mapping that says what each field is made of.

A row is a record. What the mapping does not name is unknown; nothing is taken from a column because of its name. A
column that is needed and missing refuses the file, a value that is none refuses the row, a blank is unknown.

Rows that name their experiments are brought together without holding a record of them: the file is in memory as it is,
and a first pass over it finds the order in which a second one goes to its rows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
from abc import ABC, abstractmethod
from array import array
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.exceptions import ExperimentIdError
from llm_energy_measure.importers.bounded import (
    MAX_BYTES,
    MAX_CELL,
    RefusedFileError,
    parsed,
    require_once,
    require_rows,
)
from llm_energy_measure.importers.cells import GREATEST, GREATEST_WHOLE, identifier, number_in, time_in
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.loss import LossReport, Remarks
from llm_energy_measure.importers.mapping import FIELDS
from llm_energy_measure.importers.work import work
from llm_energy_measure.security import sanitize_experiment_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_energy_measure.importers.bounded import Original
    from llm_energy_measure.importers.mapping import Cell

TOOL = "table"

_PARQUET = b"PAR1"
_EPOCH_SEC = 1e9


def _recognises(original: Original) -> bool:
    if original.is_our_own:
        return False
    is_json = bool(original.first_fields or original.items)
    return is_json or original.data.startswith(_PARQUET) or len(original.header) > 1


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """One record for each row."""
    [original] = originals
    if not options.mapping:
        sentence = "a table needs a mapping, such as --map energy_j=energy_kwh*3.6e6"
        raise RefusedFileError("missing_field", f"{original.found()}; {sentence}")
    needed = {column for expression in options.mapping.values() for column in expression.columns()}
    before = len(report.entries)
    seen: set[tuple[str, int]] = set()
    for row, cells in _by_experiment(_table(original, needed), options):
        try:
            record = _record(_values(cells, options), original, row)
        except RefusedFileError as refused:
            report.refuse(original.shown, refused.code, refused.sentence, row=row)
            continue
        key = record.experiment_id, record.process_index
        if key in seen:
            found = f"a row of process {key[1]} of {key[0]} came before; map process_index or experiment_id"
            report.refuse(original.shown, "duplicate", found, row=row)
            continue
        seen.add(key)
        yield _reported(original, record, row, report)
    report.entries[before:] = sorted(report.entries[before:], key=lambda entry: entry.row or 0)


def _by_experiment(table: _Table, options: Options) -> Iterator[tuple[int, _Row]]:
    """Line and content of each row; those of one experiment one behind the other, as the first of each came."""
    name = options.mapping.get("experiment_id")
    if name is None:  # each row is an experiment
        yield from ((line, row) for line, _, row in table.rows())
        return
    numbers: dict[Cell, int] = {}
    of_row, lines, places = array("q"), array("q"), array("q")
    for line, place, row in table.rows():
        try:
            found = None if isinstance(row, RefusedFileError) else name.value(row)
        except ValueError:
            found = None  # for which the row is refused later on
        of_row.append(numbers.setdefault(found, len(numbers)))
        lines.append(line)
        places.append(place)
    del numbers
    if all(before <= after for before, after in itertools.pairwise(of_row)):
        yield from ((line, row) for line, _, row in table.rows())
        return
    for number in array("q", sorted(range(len(of_row)), key=of_row.__getitem__)):
        if (again := table.at(places[number])) is not None:
            yield lines[number], again


def _reported(original: Original, record: RawProcessResult, row: int, report: LossReport) -> RawProcessResult:
    remarks = Remarks()
    if original.is_replaced_in(record):
        remarks.repair("undecodable_text", "bytes in it that are no UTF-8 were replaced")
    if record.energy_metrics.total_energy_j is None:
        remarks.note("no_energy", "energy_j is blank, or not mapped")
    return report.record(original.shown, record, remarks, row=row)


_Row = dict[str, "Cell"] | RefusedFileError
"""The cells of a row by column, or what is wrong with it."""


class _Table(ABC):
    """A table in memory, in the form that it came in."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[int, int, _Row]]:
        """Line or number of each row, where it stands, and its content."""

    @abstractmethod
    def at(self, place: int) -> _Row | None:
        """The row that stands there; None if the line is blank."""


def _table(original: Original, needed: set[str]) -> _Table:
    """The file as a table, once it is known to have the columns that are needed."""
    if original.data.startswith(_PARQUET):
        return _Parquet(original, needed)
    if original.items:
        return _JsonItems(original)
    return _JsonLines(original) if original.first_fields else _Csv(original, needed)


def _require_columns(needed: set[str], columns: list[str]) -> None:
    require_once(columns, needed)
    if missing := sorted(needed - set(columns)):
        found = f"there is no column {', '.join(missing)}; the columns are {', '.join(columns[:20])}"
        raise RefusedFileError("missing_field", found)


class _Lines(_Table):
    """A table of lines; a place is a position in the bytes."""

    first = 1
    start = 0

    def __init__(self, original: Original) -> None:
        """Stand before the first line."""
        self.data = original.data
        self.file = io.BytesIO(original.data)  # shares the bytes
        original.require_lines()

    def rows(self) -> Iterator[tuple[int, int, _Row]]:
        """As `_Table` says; the line is that at which a row begins, since a quoted cell can have several."""
        line, place = self.first, self.start
        while place < len(self.data):
            row, end = self.at(place), self.file.tell()
            if row is not None:
                yield line, place, row
            line += self.data.count(b"\n", place, end)
            place = end

    def __iter__(self) -> Iterator[str]:
        """The lines from here on, as text; for the csv module, which goes on where it is set to."""
        return self

    def __next__(self) -> str:
        """The next line."""
        if not (line := self.file.readline()):
            raise StopIteration
        return line.decode(errors="replace")


class _Csv(_Lines):
    """A CSV with a header."""

    first = 2

    def __init__(self, original: Original, needed: set[str]) -> None:
        """Require the columns that are needed."""
        super().__init__(original)
        self.header = original.header
        _require_columns(needed, self.header)
        self.file.readline()
        self.start = self.file.tell()
        self.reader = csv.reader(self, strict=True)

    def at(self, place: int) -> _Row | None:
        """As `_Table` says."""
        self.file.seek(place)
        try:
            cells = next(self.reader)
        except csv.Error as error:
            # What a quote that never closes took with it is read again, from the next line on.
            self.file.seek(place)
            return RefusedFileError("torn", _no_row(error, len(next(self))))
        if not cells:
            return None
        if len(cells) != len(self.header):
            return RefusedFileError("torn", f"it has {len(cells)} cells under {len(self.header)} columns")
        return {name: cell.strip() or None for name, cell in zip(self.header, cells, strict=True)}


def _no_row(error: csv.Error, length: int) -> str:
    """What is wrong with a line that the csv module refuses."""
    if length > MAX_CELL:
        return f"one of its cells has more than {MAX_CELL} characters"
    if "end of data" in str(error) or "field larger" in str(error):
        return "a quote in it never closes"
    return f"it is no row ({error})"


class _JsonLines(_Lines):
    """An object of JSON a line."""

    def at(self, place: int) -> _Row | None:
        """As `_Table` says."""
        self.file.seek(place)
        data = self.file.readline()
        return _object(data, "the line") if data.strip() else None


class _JsonItems(_Table):
    """One list of JSON objects, or one object over several lines; a place is the number of an object, from 0."""

    def __init__(self, original: Original) -> None:
        """Require that there are not too many."""
        self.items = original.items
        require_rows(len(self.items))

    def rows(self) -> Iterator[tuple[int, int, _Row]]:
        """As `_Table` says."""
        return ((place + 1, place, self.at(place)) for place in range(len(self.items)))

    def at(self, place: int) -> _Row:
        """As `_Table` says."""
        return _object(bytes(self.items[place]), f"object {place + 1}")


def _object(data: bytes, what: str) -> _Row:
    """The cells of a JSON object."""
    try:
        document = parsed(data, what)
    except RefusedFileError as refused:
        return refused if refused.code == "ambiguous_key" else RefusedFileError("torn", refused.sentence)
    return _cells(document.items()) if isinstance(document, dict) else RefusedFileError("torn", "it is no JSON object")


class _Parquet(_Table):
    """A file of Parquet; a place is the number of a row, from 0."""

    def __init__(self, original: Original, needed: set[str]) -> None:
        """Load the columns that are needed, once they are known to be small."""
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra, and heavy
            import pyarrow.parquet as pq  # noqa: PLC0415 - as above
        except ImportError as error:
            found = "reading Parquet needs pyarrow: pip install 'llm-energy-measure[parquet]'"
            raise RefusedFileError("missing_extra", found) from error
        try:
            meta = pq.read_metadata(pa.BufferReader(original.data))
            size = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
            # A column of lists or objects is no leaf of that name.
            leaves = [meta.schema.column(index) for index in range(meta.num_columns)]
            _require_columns(needed, [leaf.path for leaf in leaves])
            # A number that stands a million times in a row takes no bytes in the file, and eight each in memory.
            size = max(size, 8 * meta.num_rows * len(needed))
            if size > MAX_BYTES or any(leaf.path in needed and leaf.length > MAX_CELL for leaf in leaves):
                found = f"it has {size} bytes when unpacked, and at most {MAX_BYTES // 2**20} MiB are read, of cells"
                raise RefusedFileError("too_large", f"{found} of at most {MAX_CELL} characters; split it")
            # Texts that stand once in the file and in a million rows of it stay one text in memory.
            texts = [leaf.path for leaf in leaves if leaf.path in needed and leaf.physical_type == "BYTE_ARRAY"]
            file = pq.ParquetFile(pa.BufferReader(original.data), read_dictionary=texts)
            self.table = file.read(columns=sorted(needed))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RefusedFileError("unreadable", f"it is no Parquet that can be read ({error})") from error
        require_rows(self.table.num_rows)
        self.columns = [(name, self.table.column(name)) for name in self.table.column_names]

    def rows(self) -> Iterator[tuple[int, int, _Row]]:
        """As `_Table` says."""
        return ((place + 1, place, self.at(place)) for place in range(self.table.num_rows))

    def at(self, place: int) -> _Row:
        """As `_Table` says."""
        try:
            return _cells((name, _plain(column[place])) for name, column in self.columns)
        except (OverflowError, ValueError) as error:
            return RefusedFileError("torn", f"a value in it can't be read ({error})")


def _plain(scalar: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    """A value of Parquet; of a text that is too long no more than shows that it is."""
    scalar = scalar.value if hasattr(scalar, "dictionary") else scalar
    if hasattr(scalar, "as_buffer") and scalar.is_valid and scalar.as_buffer().size > 4 * MAX_CELL:
        return "?" * (MAX_CELL + 1)
    return scalar.as_py()


def _cells(found: Iterable[tuple[str, Any]]) -> _Row:
    """The cells of a row, or that one of them is too long."""
    cells = {name: _cell(value) for name, value in found}
    long = next((name for name, cell in cells.items() if isinstance(cell, str) and len(cell) > MAX_CELL), None)
    if long is None:
        return cells
    return RefusedFileError("torn", f"{long[:40]} has more than {MAX_CELL} characters")


def _cell(value: Any) -> Cell:  # noqa: ANN401 - a value of somebody else's table
    """A value as text, as a number, or as unknown."""
    if isinstance(value, bool) or value is None:
        return None if value is None else str(value).lower()
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return float(value) if isinstance(value, float) or abs(value) < GREATEST_WHOLE else str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value.strip() or None if isinstance(value, str) else json.dumps(value, default=str)


def _values(cells: _Row, options: Options) -> dict[str, Any]:
    """The value of each mapped field, of the kind that it holds; None where it is unknown."""
    if isinstance(cells, RefusedFileError):
        raise cells
    try:
        found = {field: expression.value(cells) for field, expression in options.mapping.items()}
    except ValueError as error:
        raise RefusedFileError("torn", str(error)) from error
    return {field: _value(field, cell, options.mapping[field].source) for field, cell in found.items()}


def _value(field: str, found: Cell, source: str) -> Any:  # noqa: ANN401 - as the field's kind says
    kind = FIELDS[field]
    if found is None or found == "":
        return None
    if kind == "text":
        return f"{found:.15g}" if isinstance(found, float) else found
    if kind == "scope":
        if found in ("device", "process", "host"):
            return found
        raise RefusedFileError("torn", f"{field} ({source}) is {found!r}, neither device, process nor host")
    number = number_in(found) if isinstance(found, str) else found
    if kind == "time":
        return _time(f"{field} ({source})", found, number)
    if number is None:
        raise RefusedFileError("torn", f"{field} ({source}) is {str(found)[:40]!r}")
    if number < 0:
        raise RefusedFileError("impossible_value", f"{field} ({source}) is negative, {number!r}")
    if number >= (GREATEST_WHOLE if kind == "whole" else GREATEST):
        raise RefusedFileError("impossible_value", f"{field} ({source}) is {number!r}, beyond anything measured")
    if kind == "whole" and not number.is_integer():
        raise RefusedFileError("torn", f"{field} ({source}) is {number!r}, no whole number")
    return int(number) if kind == "whole" else number


def _time(what: str, found: Cell, number: float | None) -> datetime:
    """A stamp in ISO 8601, or seconds since 1970."""
    stamp = time_in(found) if isinstance(found, str) else None
    if stamp is None and number is not None and _EPOCH_SEC < number < 10 * _EPOCH_SEC:
        stamp = datetime.fromtimestamp(number, UTC)
    if stamp is None:
        raise RefusedFileError("torn", f"{what} is {str(found)[:40]!r}, neither ISO 8601 nor seconds since 1970")
    return stamp


def _record(values: dict[str, Any], original: Original, row: int) -> RawProcessResult:
    """The record of one row."""
    digest = hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()[:12]
    experiment_id = values.get("experiment_id") or identifier(TOOL, values.get("model_name") or "", digest)
    try:
        sanitize_experiment_id(experiment_id)
    except ExperimentIdError as error:
        raise RefusedFileError("impossible_value", error.found) from error
    if "process_index" in values and values["process_index"] is None:
        raise RefusedFileError("missing_field", "process_index is mapped, and blank in this row")
    for field, limit in (("process_index", MAX_PROCESSES - 1), ("world_size", MAX_PROCESSES)):
        if (values.get(field) or 0) > limit or (field == "world_size" and values.get(field) == 0):
            raise RefusedFileError("impossible_value", f"{field} is {values[field]}")
    duration = values.get("duration_sec")
    get = values.get
    return RawProcessResult(
        experiment_id=experiment_id,
        backend=get("backend"),
        backend_version=get("backend_version"),
        process_index=get("process_index") or 0,
        gpu_id=get("gpu_id"),
        gpu_name=get("gpu_name"),
        config_name=get("config_name"),
        model_name=get("model_name"),
        timestamps=_stamps(get("start"), get("end"), duration),
        inference_metrics=_inference(values),
        energy_metrics=EnergyMetrics(
            total_energy_j=get("energy_j"),
            duration_sec=duration,
            **{name: get(name) for name in ("gpu_energy_j", "cpu_energy_j", "ram_energy_j")},
            **{name: get(name) for name in ("gpu_power_w", "cpu_power_w", "emissions_kg_co2", "energy_per_token_j")},
            **{name: get(name) for name in ("total_scope", "gpu_scope", "cpu_scope", "ram_scope")},
        ),
        compute_metrics=_compute(values),
        world_size=get("world_size"),
        host=get("host"),
        gpu_uuid=get("gpu_uuid"),
        origin=original.origin(TOOL, row=row),
    )


def _stamps(start: datetime | None, end: datetime | None, duration: float | None) -> Timestamps:
    if start is not None and end is not None and (start.tzinfo is None) != (end.tzinfo is None):
        raise RefusedFileError("impossible_value", "one of start and end has a UTC offset and the other has none")
    if start is not None and end is not None and end < start:
        raise RefusedFileError("impossible_value", f"the end {end.isoformat()} is before the start {start.isoformat()}")
    return Timestamps(start=start, end=end, duration_sec=duration)


def _inference(values: dict[str, Any]) -> InferenceMetrics | None:
    """The work; of input, output and total tokens, two give the third, and one alone is not enough."""
    given: int | None = values.get("input_tokens")
    generated: int | None = values.get("output_tokens")
    total: int | None = values.get("total_tokens")
    if total is not None:
        if given is None and generated is not None:
            given = total - generated
        elif generated is None and given is not None:
            generated = total - given
    if given is None or generated is None:
        return None
    if given < 0 or generated < 0 or total not in (None, given + generated):
        raise RefusedFileError("impossible_value", f"{given} input and {generated} output tokens are no {total} in all")
    names = ("inference_time_sec", "tokens_per_second", "time_to_first_token_ms")
    return work(given, generated, **{name: values.get(name) for name in names})


def _compute(values: dict[str, Any]) -> ComputeMetrics | None:
    found = {name: values.get(name) for name in ("flops_total", "peak_memory_mb", "compute_precision")}
    return ComputeMetrics(**found) if any(value is not None for value in found.values()) else None


FORMAT = Format(
    name=TOOL,
    looks_for="with --map, any CSV, JSON lines, list of JSON objects, or Parquet",
    recognises=_recognises,
    read=_read,
    needs_mapping=True,
)
