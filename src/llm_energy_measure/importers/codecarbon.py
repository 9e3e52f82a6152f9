"""Import CodeCarbon's `emissions.csv`, which had 11 to 38 columns in eight years.

A tracker writes the energy so far, so that the rows of one run are cumulative and only the last one counts. Energy is
in kWh, and the timestamp is the local end, without a zone. In the mode `machine` the sensors cover the host. In the
mode `process` the CPU and GPU sensors still cover the host. RAM energy is modelled, and so is CPU energy if the CPU
power is a constant.

Source: CodeCarbon's file output, in the layouts of `codecarbon_rows.LAYOUTS`, versions 1.0 to 3.3.0.
"""

from __future__ import annotations

import hashlib
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.domain.metrics import EnergyMetrics, Provenance, Scope
from llm_energy_measure.importers.codecarbon_rows import NUMBERS, EmissionsRow, is_header, read_rows
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.record_parts import component, imported_record, timestamps_before, unmeasured_devices
from llm_energy_measure.importers.report import ImportReport, Notes
from llm_energy_measure.importers.values import add_seconds, as_joules, identifier, parse_boards, parse_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.importers.source_file import ImportSource

TOOL = "codecarbon"

_TOLERANCE = 1e-9
_NO_ENERGY = -1.0  # less than any energy, so that a row of the same run with energy includes this row
# The timestamp has whole seconds, and its clock can drift against the timer that measures the duration.
_SAME_START_SEC = 2.0
_DRIFT = 1e-3
_IN_RECORD = frozenset(
    (
        *("timestamp", "project_name", "duration", "emissions", "cpu_power", "gpu_power", "cpu_energy", "gpu_energy"),
        *("ram_energy", "energy_consumed", "gpu_model", "codecarbon_version"),
    )
)
"""Columns that have a field in a record. The configuration keeps the other columns."""
_DERIVED = frozenset(("emissions_rate", "gpu_count", "codecarbon_version"))
"""Columns that do not distinguish two rows: they follow from other columns, or a tool may add or drop them."""


class _Part(msgspec.Struct):
    """The rows of a run after one start of its tracker; `line` and `energy_kwh` are of the row with most energy."""

    number: int
    start: datetime
    line: int
    energy_kwh: float


class _Runs:
    """Finds in one pass over a file which row of each run counts."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, str], list[_Part]] = {}  # by run and task
        self.part_of: dict[int, _Part] = {}  # by line
        self.late: set[int] = set()  # lines of rows that follow a row of their part with more energy

    def add(self, row: EmissionsRow) -> None:
        """Add a row to its run. A row without a run id counts on its own."""
        key = _run_of(row.cells)
        if key is None:
            return
        duration, energy = float(row.cells["duration"]), _energy_kwh(row)
        start = add_seconds(datetime.fromisoformat(row.cells["timestamp"]), -duration)
        if start is None:  # cannot happen: such a row was refused
            return
        parts = self.parts.setdefault(key, [])
        part = next((part for part in parts if _is_same_start(start, part.start, duration)), None)
        # Versions without a run id use one name for several runs: there, only rows with one start are cumulative.
        if part is None and parts and "run_id" in row.cells and energy >= parts[-1].energy_kwh:
            part = parts[-1]
        if part is None:
            part = _Part(len(parts), start, row.line, energy)
            parts.append(part)
        elif energy >= part.energy_kwh:
            part.line, part.energy_kwh = row.line, energy
        else:
            self.late.add(row.line)
        self.part_of[row.line] = part


def _energy_kwh(row: EmissionsRow) -> float:
    return float(row.cells["energy_consumed"] or _NO_ENERGY)


def _is_same_start(one: datetime, other: datetime, duration: float) -> bool:
    if (one.tzinfo is None) != (other.tzinfo is None):
        return False
    return abs((one - other).total_seconds()) <= _SAME_START_SEC + _DRIFT * duration


def _run_of(cells: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the run id and the task of a row; None if it has no run id."""
    run = cells["run_id"] if "run_id" in cells else cells.get("experiment_id", "")
    return (run, cells.get("task_name", "")) if run else None


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each run, and for each row without a run id."""
    del options
    [source] = sources
    runs = _Runs()
    for row in read_rows(source):
        if not row.is_refused:
            runs.add(row)
    for row in read_rows(source):
        if row.is_refused:
            report.refuse(source.path, row.code or "torn", row.message, row=row.line)
            continue
        part = runs.part_of.get(row.line)
        if part is not None and part.line != row.line:
            code, message = _describe_included(row, part, is_late=row.line in runs.late)
            experiment_id = _experiment_id(row.cells, part.number)
            report.refuse(source.path, code, message, row=row.line, experiment_id=experiment_id)
            continue
        notes = Notes()
        if row.code is not None:
            notes.repair(row.code, row.message)
        if part is not None and part.number:
            notes.repair(
                "restart", f"the energy of the run decreased, to {row.cells['energy_consumed']} kWh at its end"
            )
        yield report.record(source.path, _record(source, row, part, notes), notes, row=row.line)


def _describe_included(row: EmissionsRow, part: _Part, *, is_late: bool) -> tuple[str, str]:
    """Return reason code and message for a row whose energy is included in another row of its run."""
    energy = f"{_energy_kwh(row)} kWh" if row.cells["energy_consumed"] else "no energy"
    other = f"line {part.line} of the same run has {part.energy_kwh} kWh"
    if is_late:
        return (
            "out_of_order",
            f"the energy decreases to {energy}, but {other} and the same start, so it includes this row",
        )
    return "cumulative", f"{other}, which includes the {energy} of this row"


def _experiment_id(cells: Mapping[str, str], part_number: int) -> str:
    """Return the id of a row: equal for equal rows, and for all rows of one part of a run."""
    project = (cells.get("project_name") or "").removeprefix(TOOL)  # the default of the tool is its own name
    restart = [f"restart{part_number}"] if part_number else []
    run = _run_of(cells)
    if run is not None:
        return identifier(TOOL, project, *run, *restart)
    # The digest uses values, not digits: a row that another tool has written again has the same id.
    values = sorted((name, _typed(name, cell)) for name, cell in cells.items() if cell and name not in _DERIVED)
    digest = hashlib.sha256(repr(values).encode()).hexdigest()
    return identifier(TOOL, project, cells["timestamp"].replace(":", ""), digest[:8])


def _record(source: ImportSource, row: EmissionsRow, part: _Part | None, notes: Notes) -> RawProcessResult:
    """Return the record of one row, whose cells have the types of their columns."""
    cells = row.cells
    numbers = {name: parse_number(cell) for name, cell in cells.items() if name in NUMBERS and cell}
    gpu_model = cells.get("gpu_model") or None
    boards, board = parse_boards(gpu_model)
    gpu_count = numbers.get("gpu_count")
    if boards is not None and gpu_count is not None and gpu_count != boards:
        notes.add("gpu_count_differs", f"gpu_count is {gpu_count:g}, but gpu_model is {gpu_model!r}, which is used")
    config = {name: _typed(name, cell) for name, cell in cells.items() if cell and name not in _IN_RECORD}
    return imported_record(
        _experiment_id(cells, part.number if part else 0),
        gpu_name=board,
        config_name=cells.get("project_name") or None,
        timestamps=timestamps_before(datetime.fromisoformat(cells["timestamp"]), numbers["duration"]),
        energy_metrics=_energy(numbers, cells.get("tracking_mode"), boards, board, notes),
        effective_config={TOOL: config},
        origin=source.origin(TOOL, cells.get("codecarbon_version") or None, row.line),
    )


def _typed(name: str, cell: str) -> Any:
    return parse_number(cell) if name in NUMBERS else cell


def _energy(
    numbers: Mapping[str, float | None], tracking_mode: str | None, boards: int | None, board: str | None, notes: Notes
) -> EnergyMetrics:
    """Return the energy of a row in joules, with the scope of its sensors.

    A component whose power and energy are both 0 was not measured.
    """
    kwh: dict[str, float | None] = {}
    for name in ("cpu", "gpu", "ram"):
        found = numbers.get(f"{name}_energy")
        kwh[name] = None if found == 0 and not numbers.get(f"{name}_power") else found
    total_kwh = _total_kwh(
        numbers.get("energy_consumed"), [value for value in kwh.values() if value is not None], notes
    )
    host: Scope | None = "host" if tracking_mode in ("machine", "process") else None
    total_scope: Scope | None = "host" if tracking_mode == "machine" else None
    ram_scope: Scope | None = "process" if tracking_mode == "process" else total_scope
    cpu_w, gpu_w = numbers.get("cpu_power"), numbers.get("gpu_power")
    return EnergyMetrics(
        **component("total", as_joules(total_kwh), total_scope),
        **component("gpu", as_joules(kwh["gpu"]), host, _gpu_provenance(board)),
        **component("cpu", as_joules(kwh["cpu"]), host, "modelled" if is_constant(cpu_w) else None),
        **component("ram", as_joules(kwh["ram"]), ram_scope, "modelled"),
        duration_sec=numbers["duration"],
        gpu_power_w=gpu_w if kwh["gpu"] is not None else gpu_w or None,
        cpu_power_w=cpu_w if kwh["cpu"] is not None else cpu_w or None,
        emissions_kg_co2=numbers.get("emissions"),
        devices=unmeasured_devices(board, boards),
    )


def _total_kwh(total_kwh: float | None, components_kwh: list[float], notes: Notes) -> float | None:
    """Return the total energy of a row; None if it was not measured."""
    if total_kwh is None:
        notes.add("no_energy", "energy_consumed is blank")
    elif total_kwh == 0 and not components_kwh:
        notes.add("no_energy", "all powers and energies are 0, so nothing was measured")
        return None
    elif components_kwh and not math.isclose(sum(components_kwh), total_kwh, rel_tol=_TOLERANCE, abs_tol=1e-15):
        found = f"energy_consumed is {total_kwh!r} kWh, but its components sum to {sum(components_kwh)!r} kWh"
        notes.add("components_disagree", found)
    return total_kwh


def is_constant(cpu_power_w: float | None) -> bool:
    """True if a CPU power, in watts, is the constant that CodeCarbon uses if it cannot read one.

    The constant is half of a rated power. A measured power has all digits of a float, and is not a multiple of 0.5 W.

    Example:
        >>> is_constant(112.5), is_constant(45.47573), is_constant(None)
        (True, False, False)
    """
    return bool(cpu_power_w) and (2.0 * (cpu_power_w or 0.0)).is_integer()


def _gpu_provenance(board: str | None) -> Provenance | None:
    """Return `measured` for boards of NVIDIA, which have an energy counter; how others are read is unknown."""
    return "measured" if board is not None and "NVIDIA" in board else None


FORMAT = Format(
    name=TOOL,
    looks_for="a CSV header with timestamp, duration, emissions and energy_consumed",
    recognises=lambda source: is_header(source.header),
    read=_read,
)
