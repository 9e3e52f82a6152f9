"""Find the CodeCarbon runs that are processes of one experiment, and the tasks that are parts of a run.

If each process of a machine has a tracker, each tracker writes a row, and each row can contain the energy of the whole
machine. The row of a run includes the energies in the task files of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from llm_energy_measure.importers.codecarbon_rows import read_rows
from llm_energy_measure.importers.codecarbon_runs import EnergyReading, Part, Runs
from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource


class Process(NamedTuple):
    """Experiment and process index of a run in a group; `number` is the number of processes of the experiment."""

    experiment_id: str
    process_index: int
    number: int


class RunRow(NamedTuple):
    """The row with the energy of a run, after one start of its tracker.

    Attributes:
        experiment_id: Experiment id of the record of this row.
        file: Name of the file.
        line: Line of the row.
        part: Number of earlier starts of the tracker.
        end: Time of the row. None if the time is unknown.
    """

    experiment_id: str
    file: str
    line: int
    part: int
    end: datetime | None


class FileRuns(NamedTuple):
    """The runs of one file.

    Attributes:
        runs: The runs.
        processes: The runs that are processes of an experiment, by line.
        overlapping: For the line of a run in no group: file and line of another run that overlaps it.
    """

    runs: Runs
    processes: dict[int, Process]
    overlapping: dict[int, str]


class _Run(NamedTuple):
    """A run: the index of its file, its run id, and its rows."""

    file: int
    run: str
    part: Part

    @property
    def order(self) -> tuple[int, int]:
        """Sort key: the index of the file and the line of the first row."""
        return self.file, self.part.first_line


def find_runs(sources: list[ImportSource], group_by: str | None) -> tuple[list[FileRuns], dict[str, list[RunRow]]]:
    """Return the runs of each file, and for each run id the rows with the energy, one for each start of the tracker.

    Without task files, the second value is empty.

    Args:
        sources: The files. Runs of several files can be processes of one experiment.
        group_by: Column that the user chose: runs with equal cells are processes of one experiment. None to use the
            rule of `_find_groups`.

    Raises:
        RefusedInputError: A file does not have the column `group_by`.
    """
    of_files = []
    for source in sources:
        if group_by and group_by not in source.header:
            raise RefusedInputError("missing_field", f"{source.path} has no column {group_by!r}; correct --group-by")
        runs = Runs(group_by)
        for row in read_rows(source):
            runs.add(row)
        of_files.append(runs)
    groups, overlapping = _find_groups(of_files, group_by)
    processes = {
        run.run: Process(group[0].part.experiment_id, index, len(group))
        for group in groups
        for index, run in enumerate(group)
    }
    files, run_rows = [], dict[str, list[RunRow]]()
    has_tasks = any("task_name" in source.header for source in sources)
    for number, (source, runs) in enumerate(zip(sources, of_files, strict=True)):
        file = FileRuns(runs, {}, {})
        for (run, task), [part, *later] in runs.parts.items():
            if task:
                continue
            process = processes.get(run)
            if process is not None:
                file.processes[part.line] = process
            if (other := overlapping.get((number, run))) is not None:
                name = "" if other.file == number else f"{sources[other.file].path.name}, "
                file.overlapping[part.line] = f"{name}line {other.part.line}"
            if has_tasks:
                ids = [process.experiment_id if process else part.experiment_id]
                ids += [one.experiment_id for one in later]
                run_rows[run] = [
                    RunRow(experiment_id, source.path.name, one.line, one.number, one.last.end)
                    for experiment_id, one in zip(ids, [part, *later], strict=True)
                ]
        files.append(file)
    return files, run_rows


def _find_groups(
    of_files: Sequence[Runs], group_by: str | None
) -> tuple[list[list[_Run]], dict[tuple[int, str], _Run]]:
    """Return the runs that are processes of one experiment, and the other runs that overlap on one machine.

    Runs are processes of one experiment if they measured the same machine at the same time, and have the same
    experiment id and project. The user must have chosen at least one of these two names. With `group_by`, equal cells
    in this column are enough. A run that several files contain, such as copies of one file, counts once.

    Returns:
        The groups of two or more runs, each sorted by the first rows. Then the overlaps: for the file and run id of a
        run in no group, the run that overlaps it.
    """
    runs: dict[str, _Run] = {}
    for number, file in enumerate(of_files):
        for (run, task), parts in file.parts.items():
            if len(parts) == 1 and not task:
                runs.setdefault(run, _Run(number, run, parts[0]))
    if group_by:
        by_cell: dict[str, list[_Run]] = {}
        for found in runs.values():
            if found.part.group:
                by_cell.setdefault(found.part.group, []).append(found)
        return [group for group in by_cell.values() if len(group) > 1], {}
    timed = [run for run in runs.values() if run.part.last.start and run.part.last.end and any(run.part.machine)]
    timed.sort(key=lambda run: (run.part.last.start.replace(tzinfo=None), run.order))  # type: ignore[union-attr]  # filtered
    open_groups: dict[tuple[Any, ...], list[_Run]] = {}
    groups = []
    for found in timed:
        part = found.part
        if not any(part.name):
            continue
        group = open_groups.get((part.machine, part.name))
        if group is None or not _overlap(group[0].part.last, part.last):
            group = open_groups[part.machine, part.name] = []
            groups.append(group)
        group.append(found)
    groups = [sorted(group, key=lambda run: run.order) for group in groups if len(group) > 1]
    return groups, _overlapping(timed, {run.run for group in groups for run in group})


def _overlapping(timed: list[_Run], grouped: set[str]) -> dict[tuple[int, str], _Run]:
    """Return, for each run in no group, an earlier run that overlaps it on the same machine."""
    longest: dict[tuple[str, ...], _Run] = {}
    found = {}
    for run in timed:
        other = longest.get(run.part.machine)
        if other is not None and _overlap(other.part.last, run.part.last) and run.run not in grouped:
            found[run.file, run.run] = other
        if other is None or _end_of(run.part) >= _end_of(other.part):
            longest[run.part.machine] = run
    return found


def _end_of(part: Part) -> datetime:
    end = part.last.end
    return datetime.min if end is None else end.replace(tzinfo=None)  # noqa: DTZ901 - compared without zones


def _overlap(one: EnergyReading, other: EnergyReading) -> bool:
    """True if two runs overlap by at least half of the longer run."""
    if one.start is None or other.start is None or one.end is None or other.end is None:
        return False
    if (one.start.tzinfo is None) != (other.start.tzinfo is None):
        return False
    common_sec = (min(one.end, other.end) - max(one.start, other.start)).total_seconds()
    longer_sec = max(one.duration_sec or 0.0, other.duration_sec or 0.0)
    return common_sec > 0 and common_sec >= longer_sec / 2
