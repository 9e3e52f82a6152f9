"""Find the row that counts for each run of a CodeCarbon file, and compute the experiment id of a row.

The rows of a run are cumulative, so no component may fall. If one component falls while others rise, its counter
wrapped or was reset. If the tracker started again with the same run id, the run has several parts, and each part
counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from llm_energy_measure.importers.codecarbon_rows import COMPONENTS, NUMBERS, EmissionsRow
from llm_energy_measure.importers.values import add_seconds, identifier, parse_number, parse_time

# Tolerances of the start, which is the timestamp minus the duration. The timestamp has whole seconds, and its clock can
# drift against the timer that measures the duration.
_SAME_START_SEC = 2.0
_DRIFT = 1e-3
_DERIVED = frozenset(("emissions_rate", "gpu_count", "codecarbon_version"))
"""Columns that the digest of a row leaves out: other columns determine them, or a tool can add or drop them."""
TOOL = "codecarbon"
_DEFAULTS = ("5b0fa12a-3dd7-45bb-9766-cc326314d9f1", TOOL)
"""Default experiment id and default project of CodeCarbon. Source: CodeCarbon 2.3 to 3.3.2."""
_MACHINE = ("os", "cpu_count", "cpu_model", "gpu_model", "ram_total_size")
"""Columns that are equal in all rows of a machine."""
_ROUNDED = 1e-9
"""Greatest relative decrease of a component that rounding explains."""


class EnergyReading(msgspec.Struct, frozen=True):
    """Times and energies of one row; the energies are in kWh. None means unknown."""

    line: int
    start: datetime | None
    end: datetime | None
    duration_sec: float | None
    total: float | None
    components: tuple[float | None, ...]

    @property
    def energy_kwh(self) -> float | None:
        """The total, or the sum of the known components if the total is unknown."""
        known = [value for value in self.components if value is not None]
        return self.total if self.total is not None else sum(known) if known else None


class Anomalies(msgspec.Struct):
    """Irregular rows of a part of a run.

    Attributes:
        fallen: Components whose energy fell, with the line and the two energies in kWh.
        refused: Lines of later rows of the run that were refused.
        late: Lines of rows that come after a row that includes their energy.
        unusable: Lines of later rows in which at least one energy fell and no energy rose.
    """

    fallen: dict[str, tuple[int, float, float]] = {}
    refused: list[int] = []
    late: set[int] = set()
    unusable: set[int] = set()

    def reset_before(self, line: int) -> int | None:
        """Return the first row before `line` in which the counters were reset; None if there is none."""
        return min((one for one in self.unusable if one < line), default=None)

    def lost_after(self, line: int) -> list[int]:
        """Return the lines of refused and unusable rows after `line`, sorted."""
        return sorted(one for one in {*self.refused, *self.unusable} if one > line)


_NO_ANOMALIES = Anomalies()


class Part(msgspec.Struct):
    """The rows of a run after one start of its tracker.

    Attributes:
        number: Number of earlier starts of the tracker.
        last: The row that counts: the last row in time.
        machine: Cells of the columns that describe the machine. A cell is empty if the file does not state it.
        experiment_id: Id of the experiment, if the run is in no group.
        name: Experiment id and project of the run; each is empty if it is a default of CodeCarbon.
        group: Cell in the column of `--group-by`; empty if the user states no column.
        first_line: Line of the first row.
        own_anomalies: Irregular rows; None if there are none. Empty containers in each part would take half of the
            memory.
    """

    number: int
    last: EnergyReading
    experiment_id: str = ""
    machine: tuple[str, ...] = ()
    name: tuple[str, str] = ("", "")
    group: str = ""
    first_line: int = 0
    own_anomalies: Anomalies | None = None

    @property
    def anomalies(self) -> Anomalies:
        """Irregular rows, read only. To add an irregular row, use `changeable_anomalies`."""
        return self.own_anomalies or _NO_ANOMALIES

    def changeable_anomalies(self) -> Anomalies:
        """Return the anomalies of this part, which the caller may change."""
        if self.own_anomalies is None:
            self.own_anomalies = Anomalies()
        return self.own_anomalies

    @property
    def line(self) -> int:
        """Line of the row that counts."""
        return self.last.line


class Runs:
    """Finds in one pass over a file which row of each run counts."""

    def __init__(self, group_by: str | None = None) -> None:
        self.group_by = group_by
        self.parts: dict[tuple[str, str], list[Part]] = {}  # by run and task
        self.part_of: dict[int, Part] = {}  # by line
        self._runs: dict[str, list[tuple[str, str]]] = {}
        self._machines: dict[tuple[str, ...], tuple[str, ...]] = {}

    def _machine(self, row: EmissionsRow) -> tuple[str, ...]:
        """Return the cells that describe the machine: one object for all equal rows, to save memory."""
        cells = tuple(row.cells.get(column, "") for column in _MACHINE)
        return self._machines.setdefault(cells, cells)

    def add(self, row: EmissionsRow) -> None:
        """Add a row to its run. A row without a run id is not added, because it counts on its own."""
        if row.is_refused:
            self._add_refused(row)
            return
        key = run_of(row.cells)
        if key is None:
            return
        reading = _reading(row)
        if key not in self.parts:
            self._runs.setdefault(key[0], []).append(key)
        parts = self.parts.setdefault(key, [])
        part = _part_of(reading, parts, has_run_id="run_id" in row.cells)
        if part is None:
            part = Part(
                len(parts),
                reading,
                experiment_id=experiment_id_of(row.cells, len(parts)),
                machine=self._machine(row),
                name=(_chosen(row.cells, "experiment_id"), _chosen(row.cells, "project_name")),
                group=row.cells.get(self.group_by, "") if self.group_by else "",
                first_line=row.line,
            )
            parts.append(part)
        else:
            _add_to_part(part, reading, has_tasks="task_name" in row.cells)
        self.part_of[row.line] = part

    def _add_refused(self, row: EmissionsRow) -> None:
        """Add a refused row to the anomalies of each run whose id is in the cells of the row."""
        for cell in set(row.refused_cells) & self._runs.keys():
            for key in self._runs[cell]:
                if not key[1] or key[1] in row.refused_cells:
                    self.parts[key][-1].changeable_anomalies().refused.append(row.line)


def _chosen(cells: Mapping[str, str], column: str) -> str:
    """Return the cell of a column, or an empty text if it is a default of CodeCarbon."""
    cell = cells.get(column, "")
    return "" if cell in _DEFAULTS else cell


def run_of(cells: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the run id and the task of a row; None if it has no run id."""
    run = cells["run_id"] if "run_id" in cells else cells.get("experiment_id", "")
    return (run, cells.get("task_name", "")) if run else None


def _reading(row: EmissionsRow) -> EnergyReading:
    def number(name: str) -> float | None:
        return float(cell) if (cell := row.cells.get(name)) else None

    end, duration = parse_time(row.cells["timestamp"]), number("duration")
    start = add_seconds(end, -duration) if end is not None and duration is not None else None
    return EnergyReading(row.line, start, end, duration, number("energy_consumed"), tuple(map(number, COMPONENTS)))


def _part_of(reading: EnergyReading, parts: list[Part], *, has_run_id: bool) -> Part | None:
    """Return the part of a run that a row belongs to; None if the row begins a new part."""
    for part in parts:
        if _is_same_start(reading, part.last):
            return part
    # Versions without a run id use one name for several runs, so only rows with the same start are cumulative.
    if not parts or not has_run_id:
        return None
    last = parts[-1].last
    if last.energy_kwh is None or (reading.energy_kwh or 0.0) >= last.energy_kwh:
        return parts[-1]
    # The energy is lower. This is no restart if the row starts before the earlier row ended and a component rose.
    is_after = reading.start is None or last.end is None or not is_before(reading.start, last.end)
    return None if is_after or not _rises_and_falls(last, reading) else parts[-1]


def _is_same_start(one: EnergyReading, other: EnergyReading) -> bool:
    if one.start is None or other.start is None or (one.start.tzinfo is None) != (other.start.tzinfo is None):
        return False
    tolerance_sec = _SAME_START_SEC + _DRIFT * (one.duration_sec or 0.0)
    return abs((one.start - other.start).total_seconds()) <= tolerance_sec


def is_before(one: datetime, other: datetime) -> bool:
    """Return True if `one` is more than `_SAME_START_SEC` before `other`. False if only one of them has a time zone."""
    return (one.tzinfo is None) == (other.tzinfo is None) and (other - one).total_seconds() > _SAME_START_SEC


def _add_to_part(part: Part, reading: EnergyReading, *, has_tasks: bool) -> None:
    """Add a row to its part. The row becomes the last row in time, or is one of the anomalies.

    A component that falls from one row to the next is an anomaly, too.
    """
    last = part.last
    # CodeCarbon restarts the duration of a run at each task, so the duration gives no order in a file with tasks.
    growth_sec = 0.0
    if not has_tasks and last.duration_sec is not None and reading.duration_sec is not None:
        growth_sec = (reading.duration_sec - last.duration_sec) if _is_same_start(last, reading) else 0.0
    if last.start is not None and reading.start is None and not any(change > 0 for change in _changes(last, reading)):
        part.changeable_anomalies().late.add(reading.line)  # no energy rose, and only the earlier row has a start
        return
    if _is_lower(last, reading):
        is_reset = growth_sec > 0 and any(reading.components)
        found = part.changeable_anomalies()
        (found.unusable if is_reset else found.late).add(reading.line)
        return
    if growth_sec < 0 and _rises_and_falls(last, reading):
        part.changeable_anomalies().late.add(reading.line)
        last, reading = reading, last
    for name, before, after in zip(COMPONENTS, last.components, reading.components, strict=True):
        if before is not None and after is not None and after < before * (1 - _ROUNDED):
            part.changeable_anomalies().fallen.setdefault(name, (reading.line, before, after))
    part.last = reading


def _changes(earlier: EnergyReading, later: EnergyReading) -> Iterable[float]:
    """Yield the change of each component in kWh, or the change of the total if no component is known in both rows."""
    pairs = list(zip(earlier.components, later.components, strict=True))
    if not any(None not in pair for pair in pairs):
        pairs = [(earlier.energy_kwh, later.energy_kwh)]
    for before, after in pairs:
        if before is not None and after is not None:
            yield 0.0 if abs(after - before) <= _ROUNDED * before else after - before


def _is_lower(earlier: EnergyReading, later: EnergyReading) -> bool:
    """True if at least one energy falls and no energy rises, or if only the earlier row has an energy."""
    if later.energy_kwh is None:
        return earlier.energy_kwh is not None
    changes = list(_changes(earlier, later))
    if earlier.total is not None and later.total is not None:
        changes.append(later.total - earlier.total)
    return bool(changes) and min(changes) < 0 and max(changes) <= 0


def _rises_and_falls(earlier: EnergyReading, later: EnergyReading) -> bool:
    changes = list(_changes(earlier, later))
    return bool(changes) and min(changes) < 0 < max(changes)


def experiment_id_of(cells: Mapping[str, str], part_number: int) -> str:
    """Return the experiment id of a row. Equal rows, and all rows of one part of a run, have the same id."""
    project = (cells.get("project_name") or "").removeprefix(TOOL)  # the default project is the name of the tool
    restart = [f"restart{part_number}"] if part_number else []
    run = run_of(cells)
    if run is not None:
        return identifier(TOOL, project, *run, *restart)
    # The digest uses numbers and not their text, so a row keeps its id if another tool rewrites the file.
    values = sorted((name, typed(name, cell)) for name, cell in cells.items() if cell and name not in _DERIVED)
    digest = hashlib.sha256(repr(values).encode()).hexdigest()
    return identifier(TOOL, project, cells["timestamp"].replace(":", ""), digest[:8])


def typed(name: str, cell: str) -> Any:
    """Return a cell as a number if its column contains numbers, otherwise as text."""
    return parse_number(cell) if name in NUMBERS else cell
