"""CodeCarbon's `emissions.csv`, of 11 to 38 columns over eight years.

A tracker writes its energy so far, so that rows of one run are cumulative: the last one counts. Energy is in kWh, the
time stamp is the local end, without a zone. Tracking a machine sees all of the host; tracking a process still sees all
of the host's CPUs and GPUs. RAM is modelled, as is the CPU where its power is a constant.

Source: CodeCarbon's file output; the rows of FORMATS seen from versions 1.0 to 3.3.0.
"""

from __future__ import annotations

import hashlib
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics, Provenance, Scope, Timestamps
from llm_energy_measure.domain.units import kwh_to_j
from llm_energy_measure.importers.cells import boards, identifier, number_in, shifted
from llm_energy_measure.importers.codecarbon_rows import NUMBERS, Row, is_header, rows
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.loss import LossReport, Remarks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm_energy_measure.importers.bounded import Original

TOOL = "codecarbon"

_TOLERANCE = 1e-9
_NO_ENERGY = -1.0  # less than any: a row of the same run that has some includes it
# Time stamps are whole seconds, and a clock drifts against the tracker's own.
_SAME_START_SEC = 2.0
_DRIFT = 1e-3
# Columns that have a place of their own in a record; the others go to its configuration.
_PLACED = frozenset(
    (
        *("timestamp", "project_name", "duration", "emissions", "cpu_power", "gpu_power", "cpu_energy", "gpu_energy"),
        *("ram_energy", "energy_consumed", "gpu_model", "codecarbon_version"),
    )
)


_DERIVED = frozenset(("emissions_rate", "gpu_count", "codecarbon_version"))
"""Columns that say nothing of a row that its others don't, and that a tool may add or drop."""


class _Part(msgspec.Struct):
    """The rows of a run that one start of its tracker wrote: the greatest of them counts."""

    number: int
    start: datetime
    line: int
    energy_kwh: float


class _Runs:
    """Which row of each run counts, found in one pass over a file."""

    def __init__(self) -> None:
        """No run yet."""
        self.parts: dict[tuple[str, str], list[_Part]] = {}
        self.included: dict[int, tuple[str, _Part, float]] = {}
        self.counted: dict[int, _Part] = {}

    def add(self, row: Row) -> None:
        """Take a row of a run into account; rows of no run stand for themselves."""
        key = run_of(row.cells)
        if key is None:
            return
        duration, energy = float(row.cells["duration"]), float(row.cells["energy_consumed"] or _NO_ENERGY)
        start = shifted(datetime.fromisoformat(row.cells["timestamp"]), -duration)
        if start is None:  # no such row gets here
            return
        parts = self.parts.setdefault(key, [])
        part = next((part for part in parts if _is_same(start, part.start, duration)), None)
        # Versions without a run id name each run of its own: only rows of one start can be cumulative there.
        if part is None and parts and "run_id" in row.cells and energy >= parts[-1].energy_kwh:
            part = parts[-1]
        if part is None:
            part = _Part(len(parts), start, row.line, energy)
            parts.append(part)
        elif energy >= part.energy_kwh:
            self.included[part.line] = ("cumulative", part, part.energy_kwh)
            self.counted.pop(part.line, None)
            part.line, part.energy_kwh = row.line, energy
        else:
            self.included[row.line] = ("out_of_order", part, energy)
            return
        self.counted[row.line] = part


def _is_same(one: datetime, other: datetime, duration: float) -> bool:
    if (one.tzinfo is None) != (other.tzinfo is None):
        return False
    return abs((one - other).total_seconds()) <= _SAME_START_SEC + _DRIFT * duration


def run_of(cells: Mapping[str, str]) -> tuple[str, str] | None:
    """The run, and the task in it, that a row belongs to; None if it names no run."""
    run = cells["run_id"] if "run_id" in cells else cells.get("experiment_id", "")
    return (run, cells.get("task_name", "")) if run else None


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """One record for each run, and for each row that names no run."""
    del options
    [original] = originals
    runs = _Runs()
    for row in rows(original):
        if not row.is_refused:
            runs.add(row)
    for row in rows(original):
        if row.is_refused:
            report.refuse(original.shown, row.code or "torn", row.sentence, row=row.line)
            continue
        part = runs.counted.get(row.line)
        if row.line in runs.included:
            _refuse_included(original.shown, row, runs.included[row.line], report)
            continue
        remarks = Remarks()
        if row.code is not None:
            remarks.repair(row.code, row.sentence)
        if part is not None and part.number:
            remarks.repair("restart", f"the energy of the run fell, to {row.cells['energy_consumed']} kWh at its end")
        record = record_of(row.cells, experiment_id=_experiment(row.cells, part.number if part else 0), remarks=remarks)
        origin = original.origin(TOOL, row.cells.get("codecarbon_version") or None, row.line)
        yield report.record(original.shown, msgspec.structs.replace(record, origin=origin), remarks, row=row.line)


def _refuse_included(file: str, row: Row, included: tuple[str, _Part, float], report: LossReport) -> None:
    code, part, energy = included
    if code == "cumulative":
        sentence = (
            f"line {part.line} of the same run has {part.energy_kwh} kWh, the {_said(energy)} of this row included"
        )
    else:
        sentence = (
            f"the energy falls to {_said(energy)} as after a restart, but the row began when line {part.line} did, "
            f"which has {part.energy_kwh} kWh, these included"
        )
    report.refuse(file, code, sentence, row=row.line, experiment_id=_experiment(row.cells, part.number))


def _said(energy_kwh: float) -> str:
    return "no energy" if energy_kwh == _NO_ENERGY else f"{energy_kwh} kWh"


def _experiment(cells: Mapping[str, str], part_number: int) -> str:
    """The same row always gets the same id; rows of one run share it."""
    project = (cells.get("project_name") or "").removeprefix(TOOL)  # its default is its own name
    restart = [f"restart{part_number}"] if part_number else []
    run = run_of(cells)
    if run is not None:
        return identifier(TOOL, project, *run, *restart)
    # Of values and not of their digits: a row that another tool wrote again is the same.
    values = sorted((name, _typed(name, cell)) for name, cell in cells.items() if cell and name not in _DERIVED)
    digest = hashlib.sha256(repr(values).encode()).hexdigest()
    return identifier(TOOL, project, cells["timestamp"].replace(":", ""), digest[:8])


def record_of(cells: Mapping[str, str], *, experiment_id: str, remarks: Remarks) -> RawProcessResult:
    """The record of one row.

    Args:
        cells: Text of each column, known to be of its type.
        experiment_id: The record's experiment.
        remarks: Takes what there is to say.
    """
    numbers = {name: number_in(cell) for name, cell in cells.items() if name in NUMBERS and cell}
    end, duration = datetime.fromisoformat(cells["timestamp"]), numbers["duration"] or 0.0
    gpu_model = cells.get("gpu_model") or None
    listed, board = boards(gpu_model)
    counted = numbers.get("gpu_count")
    if listed is not None and counted is not None and counted != listed:
        remarks.note("gpu_count_differs", f"gpu_count is {counted:g} beside {gpu_model!r}")
    energy = _energy(numbers, cells.get("tracking_mode") or None, listed, board, remarks)
    rest = {name: _typed(name, cell) for name, cell in cells.items() if cell and name not in _PLACED}
    return RawProcessResult(
        experiment_id=experiment_id,
        process_index=0,
        gpu_id=None,
        gpu_name=board,
        config_name=cells.get("project_name") or None,
        model_name=None,
        timestamps=Timestamps(start=shifted(end, -duration), end=end, duration_sec=duration),
        inference_metrics=None,
        energy_metrics=energy,
        compute_metrics=None,
        effective_config={TOOL: rest},
    )


def _typed(name: str, cell: str) -> Any:
    return number_in(cell) if name in NUMBERS else cell


def _energy(
    numbers: Mapping[str, float | None],
    tracking_mode: str | None,
    listed: int | None,
    board: str | None,
    remarks: Remarks,
) -> EnergyMetrics:
    """Energy of a row in joules, with what its sensors saw; a component of no power and no energy was not measured."""
    kwh: dict[str, float | None] = {}
    for name in ("cpu", "gpu", "ram"):
        found = numbers.get(f"{name}_energy")
        kwh[name] = None if found == 0 and not numbers.get(f"{name}_power") else found
    total_kwh = numbers.get("energy_consumed")
    known = [value for value in kwh.values() if value is not None]
    if total_kwh is None:
        remarks.note("no_energy", "energy_consumed is blank")
    elif total_kwh == 0 and not known:
        remarks.note("no_energy", "nothing was measured: all powers and energies are 0")
        total_kwh = None
    elif known and not math.isclose(sum(known), total_kwh, rel_tol=_TOLERANCE, abs_tol=1e-15):
        remarks.note("components_disagree", f"energy_consumed is {total_kwh!r} kWh, its components {sum(known)!r}")
    host: Scope | None = "host" if tracking_mode in ("machine", "process") else None
    whole: Scope | None = "host" if tracking_mode == "machine" else None
    cpu_power = numbers.get("cpu_power")
    return EnergyMetrics(
        total_energy_j=None if total_kwh is None else kwh_to_j(total_kwh),
        duration_sec=numbers["duration"],
        gpu_energy_j=_joules(kwh["gpu"]),
        cpu_energy_j=_joules(kwh["cpu"]),
        ram_energy_j=_joules(kwh["ram"]),
        gpu_power_w=numbers.get("gpu_power") if kwh["gpu"] is not None else numbers.get("gpu_power") or None,
        cpu_power_w=cpu_power if kwh["cpu"] is not None else cpu_power or None,
        emissions_kg_co2=numbers.get("emissions"),
        total_scope=whole if total_kwh is not None else None,
        gpu_scope=host if kwh["gpu"] is not None else None,
        gpu_provenance=_gpu_provenance(board) if kwh["gpu"] is not None else None,
        cpu_scope=host if kwh["cpu"] is not None else None,
        cpu_provenance="modelled" if kwh["cpu"] is not None and is_constant(cpu_power) else None,
        ram_scope=(whole or ("process" if host else None)) if kwh["ram"] is not None else None,
        ram_provenance="modelled" if kwh["ram"] is not None else None,
        devices=[DeviceEnergy(gpu_name=board)] * listed if listed else None,
    )


def is_constant(cpu_power_w: float | None) -> bool:
    """True if the power of a CPU is the constant that the tool takes where it can't read one: half a rated power.

    A reading with all the digits of a float is never a multiple of half a watt.

    Example:
        >>> is_constant(112.5), is_constant(45.47573), is_constant(None)
        (True, False, False)
    """
    return bool(cpu_power_w) and (2.0 * (cpu_power_w or 0.0)).is_integer()


def _gpu_provenance(board: str | None) -> Provenance | None:
    """NVIDIA's boards have an energy counter; how others are read is not said."""
    return "measured" if board is not None and "NVIDIA" in board else None


def _joules(kwh: float | None) -> float | None:
    return None if kwh is None else kwh_to_j(kwh)


FORMAT = Format(
    name=TOOL,
    looks_for="a CSV header with timestamp, duration, emissions and energy_consumed",
    recognises=lambda original: is_header(original.header),
    read=_read,
)
