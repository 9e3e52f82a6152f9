"""Find the row that counts for each run of a CodeCarbon file, and the energies that its rows contradict.

The rows of a run are cumulative. So each component may only rise: if one falls while others rise, its counter wrapped
or was reset. If all fall and the tracker started again, each part counts.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from llm_energy_measure.importers.codecarbon_rows import COMPONENTS
from llm_energy_measure.importers.values import add_seconds, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm_energy_measure.importers.codecarbon_rows import EmissionsRow

# The timestamp has whole seconds, and its clock can drift against the timer that measures the duration.
_SAME_START_SEC = 2.0
_DRIFT = 1e-3
_ROUNDED = 1e-9
"""Greatest relative decrease of a component that rounding explains."""


class _Reading(msgspec.Struct, frozen=True):
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


class Part(msgspec.Struct):
    """The rows of a run after one start of its tracker.

    Attributes:
        number: Number of earlier starts.
        last: The row that counts: the last one in time.
        fallen: Components whose energy fell, with the line and the two energies in kWh.
        refused: Lines of later rows of the run that were refused.
        late: Lines of rows that come after a row that includes them.
        unusable: Lines of later rows in which all components fell.
    """

    number: int
    last: _Reading
    fallen: dict[str, tuple[int, float, float]] = {}
    refused: list[int] = []
    late: set[int] = set()
    unusable: set[int] = set()

    @property
    def line(self) -> int:
        """Line of the row that counts."""
        return self.last.line


class Runs:
    """Finds in one pass over a file which row of each run counts."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, str], list[Part]] = {}  # by run and task
        self.part_of: dict[int, Part] = {}  # by line
        self._runs: dict[str, list[tuple[str, str]]] = {}

    def add(self, row: EmissionsRow) -> None:
        """Add a row to its run. A row without a run id counts on its own."""
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
            part = Part(len(parts), reading)
            parts.append(part)
        else:
            _add_to_part(part, reading, has_tasks="task_name" in row.cells)
        self.part_of[row.line] = part

    def _add_refused(self, row: EmissionsRow) -> None:
        """Remember a refused row whose cells contain the id of a run."""
        for cell in set(row.refused_cells) & self._runs.keys():
            for key in self._runs[cell]:
                if not key[1] or key[1] in row.refused_cells:
                    self.parts[key][-1].refused.append(row.line)


def run_of(cells: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the run id and the task of a row; None if it has no run id."""
    run = cells["run_id"] if "run_id" in cells else cells.get("experiment_id", "")
    return (run, cells.get("task_name", "")) if run else None


def _reading(row: EmissionsRow) -> _Reading:
    def number(name: str) -> float | None:
        return float(cell) if (cell := row.cells.get(name)) else None

    end, duration = parse_time(row.cells["timestamp"]), number("duration")
    start = add_seconds(end, -duration) if end is not None and duration is not None else None
    return _Reading(row.line, start, end, duration, number("energy_consumed"), tuple(map(number, COMPONENTS)))


def _part_of(reading: _Reading, parts: list[Part], *, has_run_id: bool) -> Part | None:
    """Return the part of a run that a row belongs to; None if the row begins a part."""
    for part in parts:
        if _is_same_start(reading, part.last):
            return part
    # Versions without a run id use one name for several runs: there, only rows with one start are cumulative.
    if not parts or not has_run_id:
        return None
    last = parts[-1].last
    if last.energy_kwh is None or (reading.energy_kwh or 0.0) >= last.energy_kwh:
        return parts[-1]
    # A row that starts before the earlier one ended is no restart, even if its energy is lower.
    is_after = reading.start is None or last.end is None or not _is_before(reading.start, last.end)
    return None if is_after or not _rises_and_falls(last, reading) else parts[-1]


def _is_same_start(one: _Reading, other: _Reading) -> bool:
    if one.start is None or other.start is None or (one.start.tzinfo is None) != (other.start.tzinfo is None):
        return False
    tolerance_sec = _SAME_START_SEC + _DRIFT * (one.duration_sec or 0.0)
    return abs((one.start - other.start).total_seconds()) <= tolerance_sec


def _is_before(one: datetime, other: datetime) -> bool:
    return (one.tzinfo is None) == (other.tzinfo is None) and (other - one).total_seconds() > _SAME_START_SEC


def _add_to_part(part: Part, reading: _Reading, *, has_tasks: bool) -> None:
    """Compare a row with the last one of its part, in time, and note the components that fell."""
    last = part.last
    # CodeCarbon restarts the duration of a run at each task, so the duration gives no order there.
    growth_sec = 0.0
    if not has_tasks and last.duration_sec is not None and reading.duration_sec is not None:
        growth_sec = (reading.duration_sec - last.duration_sec) if _is_same_start(last, reading) else 0.0
    if _is_lower(last, reading):
        is_reset = growth_sec > 0 and any(reading.components)
        (part.unusable if is_reset else part.late).add(reading.line)
        return
    if growth_sec < 0 and _rises_and_falls(last, reading):
        part.late.add(reading.line)
        last, reading = reading, last
    for name, before, after in zip(COMPONENTS, last.components, reading.components, strict=True):
        if before is not None and after is not None and after < before * (1 - _ROUNDED):
            part.fallen.setdefault(name, (reading.line, before, after))
    part.last = reading


def _changes(earlier: _Reading, later: _Reading) -> Iterable[float]:
    """Yield the change of each component, or that of the total if no component is known."""
    pairs = list(zip(earlier.components, later.components, strict=True))
    if not any(None not in pair for pair in pairs):
        pairs = [(earlier.energy_kwh, later.energy_kwh)]
    for before, after in pairs:
        if before is not None and after is not None:
            yield 0.0 if abs(after - before) <= _ROUNDED * before else after - before


def _is_lower(earlier: _Reading, later: _Reading) -> bool:
    """True if no component rises and at least one falls, or if the later row has no energy."""
    if later.energy_kwh is None:
        return earlier.energy_kwh is not None
    changes = list(_changes(earlier, later))
    if earlier.total is not None and later.total is not None:
        changes.append(later.total - earlier.total)
    return bool(changes) and min(changes) < 0 and max(changes) <= 0


def _rises_and_falls(earlier: _Reading, later: _Reading) -> bool:
    changes = list(_changes(earlier, later))
    return bool(changes) and min(changes) < 0 < max(changes)
