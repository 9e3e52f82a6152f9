"""Import CodeCarbon's `emissions.csv`, whose versions have 11 to 38 columns.

A row has the energy since the start of its tracker. The rows of one run are therefore cumulative, and only the last
row counts. Energies are in kWh. The timestamp is the end in local time, without a time zone. The CPU sensors cover the
host, even in the tracking mode `process`. `reads_all_boards` returns whether the GPU sensors cover all GPUs. RAM energy
is modelled, for the host or for the process. CPU energy is modelled if the CPU power is a constant.

Source: CodeCarbon's file output, in the layouts of `codecarbon_rows.LAYOUTS`, versions 1.0 to 3.3.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import (
    COUNTER_RESET,
    Component,
    EnergyMetrics,
    Phase,
    Provenance,
    Scope,
    SensorReading,
)
from llm_energy_measure.importers.codecarbon_groups import FileRuns, RunRow, find_runs
from llm_energy_measure.importers.codecarbon_rows import NUMBERS, ROUNDING, EmissionsRow, is_header, read_rows
from llm_energy_measure.importers.codecarbon_runs import TOOL, Part, experiment_id_of, is_before, run_of, typed
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.record_parts import (
    component,
    imported_record,
    timestamps_before,
    total_of_components,
    unmeasured_devices,
)
from llm_energy_measure.importers.report import ImportReport, Notes
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import as_joules, parse_boards, parse_number, parse_time

_Waiting = dict[str, list[tuple[ImportSource, RawProcessResult, Notes, int]]]
"""By experiment id: the records that wait until all processes of the experiment are read, with file, notes and line."""
_Phases = dict[tuple[str, int], list[Phase]]
"""The tasks of a run, by run id and number of earlier starts of the tracker."""
_TOLERANCE = 1e-9
_POWER_FACTOR = 100.0
"""Greatest ratio of a power sample to the mean power. A greater ratio shows that one of the two has a wrong unit."""
_VERSION = re.compile(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+))?")
_COMPONENT_OF: dict[str, Component] = {"cpu_energy": "cpu", "gpu_energy": "gpu", "ram_energy": "ram"}
_IN_RECORD = frozenset(
    (
        *("timestamp", "project_name", "duration", "emissions", "cpu_power", "gpu_power", "cpu_energy", "gpu_energy"),
        *("ram_energy", "energy_consumed", "gpu_model", "codecarbon_version"),
    )
)
"""Columns that have a field in a record. All other columns are stored in the configuration of the record."""


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each run, and for each row without a run id. Tasks become phases of their run."""
    before = len(report.entries)
    files, run_rows = find_runs(sources, options.group_by)
    phases: _Phases = {}
    for source in sources:
        for row in read_rows(source) if "task_name" in source.header else ():
            run, task = run_of(row.cells) or ("", "") if not row.is_refused else ("", "")
            if task and run in run_rows:
                notes = Notes()
                record = _record(source, row, None, notes)
                of_run = _row_of_task(run_rows[run], parse_time(row.cells["timestamp"]))
                phases.setdefault((run, of_run.part), []).append(_phase(task, record.energy_metrics))
                found = f"the task {task!r} is a part of the run in {of_run.file}, line {of_run.line}"
                found = "; ".join([f"{found}; the record of the run contains it as a phase", *notes.messages])
                experiment_id = of_run.experiment_id
                report.refuse(source.path, "task_of_run", found, row=row.line, experiment_id=experiment_id)
    waiting: _Waiting = {}
    for source, file in zip(sources, files, strict=True):
        yield from _read_file(source, file, run_rows, phases, report, waiting=waiting)
    for group in waiting.values():  # these groups are incomplete, because a row was refused
        yield from _enter_group(group, report)
    report.entries[before:] = sorted(report.entries[before:], key=lambda entry: (entry.file, entry.row or 0))


def _read_file(
    source: ImportSource,
    file: FileRuns,
    run_rows: Mapping[str, list[RunRow]],
    phases: _Phases,
    report: ImportReport,
    *,
    waiting: _Waiting,
) -> Iterator[RawProcessResult]:
    """Yield the records of the runs of one file; records of one experiment follow each other.

    Args:
        source: The file.
        file: The runs of the file.
        run_rows: The rows with the energy of each run of all files, by run id.
        phases: The tasks of each run.
        report: Gets an entry for each row.
        waiting: Gets the records of experiments that have processes in later files.
    """
    for row in read_rows(source):
        if row.is_refused:
            report.refuse(source.path, row.code or "torn", row.message, row=row.line)
            continue
        run, task = run_of(row.cells) or ("", "")
        if task and run in run_rows:
            continue
        part, process = file.runs.part_of.get(row.line), file.processes.get(row.line)
        if part is not None and part.line != row.line:
            code, message = _describe_included(row, part)
            process = file.processes.get(part.line)
            experiment_id = process.experiment_id if process else part.experiment_id
            report.refuse(source.path, code, message, row=row.line, experiment_id=experiment_id)
            continue
        notes = Notes()
        if task:
            found = f"the task {task!r} is a part of run {run}; if emissions.csv has a row of the run, that row"
            notes.warn("task_without_run", f"{found} includes the energy of the task, so do not add the two")
        record = _record(source, row, part, notes, phases.get((run, part.number if part else 0)))
        if other := file.overlapping.get(row.line):
            found = f"the run in {other} measured this machine at the same time, so both may contain the same energy"
            advice = "if they are processes of one experiment, group by a column in which only they have equal cells"
            notes.add("overlaps_run", f"{found}; {advice}, such as --group-by project_name --host NAME")
        if process is None:
            yield report.record(source.path, record, notes, row=row.line)
            continue
        experiment_id, index, number = process
        found = f"{number} runs measured the same machine at the same time, or have equal cells in the column"
        notes.add("grouped", f"{found} of --group-by; this is process {index} of experiment {experiment_id}")
        record = msgspec.structs.replace(record, experiment_id=experiment_id, process_index=index)
        group = waiting.setdefault(experiment_id, [])
        group.append((source, record, notes, row.line))
        if len({member.process_index for _, member, _, _ in group}) == number:
            yield from _enter_group(waiting.pop(experiment_id), report)


def _enter_group(
    group: list[tuple[ImportSource, RawProcessResult, Notes, int]], report: ImportReport
) -> Iterator[RawProcessResult]:
    """Yield the records of an experiment in order of the process index, and add them to the report."""
    for source, record, notes, line in sorted(group, key=lambda member: member[1].process_index):
        yield report.record(source.path, record, notes, row=line)


def _row_of_task(rows: list[RunRow], end: datetime | None) -> RunRow:
    """Return the row of a run that contains a task: the first row that is not before the end of the task."""
    return next((row for row in rows if end and row.end and not is_before(row.end, end)), rows[-1])


def _phase(task: str, energy: EnergyMetrics) -> Phase:
    """Return a task as a phase of its run."""
    names = ("total_energy_j", "gpu_energy_j", "cpu_energy_j", "ram_energy_j", "duration_sec")
    return Phase(name=task, occurrences=1, **{name: getattr(energy, name) for name in names})


def ungrouped_experiment_id(record: RawProcessResult) -> str | None:
    """Return the experiment id that an import without grouping gives to the run.

    None for records of other tools, and for rows without a run id.
    """
    if record.origin is None or record.origin.tool != TOOL:
        return None
    cells = {name: str(cell) for name, cell in record.effective_config.get(TOOL, {}).items()}
    return experiment_id_of({**cells, "project_name": record.config_name or ""}, 0) if run_of(cells) else None


def _describe_included(row: EmissionsRow, part: Part) -> tuple[str, str]:
    """Return reason code and message for a row that is not imported, because another row of its run is imported."""
    cell = row.cells["energy_consumed"]
    energy = f"{float(cell)} kWh" if cell else "no total energy"
    total = part.last.energy_kwh
    other = f"line {part.line} of the same run has {'no energy' if total is None else f'{total} kWh'}"
    if row.line in part.anomalies.unusable:
        found = "an energy fell and none rose after an earlier row with the same start and a shorter duration"
        return "counter_fell", f"{found}; the counters were reset, so line {part.line} is imported instead of this row"
    if row.line in part.anomalies.late:
        found = f"the row has {energy}, but {other}, which includes the energy of this row"
        return "out_of_order", found
    if part.anomalies.fallen:
        return "cumulative", f"line {part.line} is a later row of the same run and is imported instead of this row"
    return "cumulative", f"{other}, which includes the {energy} of this row"


def _note_run(row: EmissionsRow, part: Part, notes: Notes) -> None:
    """Add notes about the other rows of the run: restarts, components whose energy decreased, and refused rows."""
    if part.number:
        found = f"the tracker started again with the same run id; part {part.number + 1} of the run"
        notes.repair("restart", f"{found} has {row.cells['energy_consumed']} kWh")
    if (reset := part.anomalies.reset_before(row.line)) is not None:
        found = f"the counters were reset in line {reset} and rose above the earlier energies later"
        notes.warn("counter_fell", f"{found}, so the energy before line {reset} is missing")
    for name, (line, before, after) in part.anomalies.fallen.items():
        found = f"{name} fell from {before:g} to {after:g} kWh in line {line}, while other values of the run rose"
        notes.warn("counter_fell", f"{found}: its counter wrapped or was reset, so this energy is null", is_repair=True)
    later = part.anomalies.lost_after(row.line)
    if later:
        lines = f"line {', '.join(map(str, later))}" if len(later) <= 5 else f"{len(later)} lines from {later[0]}"
        found = f"later rows of the run were refused ({lines}), so the energy covers only the beginning of the run"
        notes.warn("rows_refused", found)


def _record(
    source: ImportSource, row: EmissionsRow, part: Part | None, notes: Notes, phases: list[Phase] | None = None
) -> RawProcessResult:
    """Return the record of one row."""
    cells = row.cells
    if row.code is not None:
        notes.repair(row.code, row.message)
    if part is not None:
        _note_run(row, part, notes)
    numbers = {name: parse_number(cell) for name, cell in cells.items() if name in NUMBERS and cell}
    boards, board = parse_boards(cells.get("gpu_model") or None)
    gpu_count, pue = numbers.get("gpu_count"), numbers.get("pue")
    if boards is not None and gpu_count is not None and gpu_count != boards:
        found = f"gpu_count is {gpu_count:g}, but gpu_model is {cells['gpu_model']!r}"
        notes.add("gpu_count_differs", f"{found}; it is unknown which of these GPUs the energy covers")
    if pue is not None and pue not in (0, 1):
        notes.warn(
            "pue_included",
            f"all energies and powers include the PUE of {pue:g}; divide by the PUE to get the values of the machine",
        )
    if sum(phase.duration_sec or 0.0 for phase in phases or ()) > (numbers.get("duration") or math.inf) + 1.0:
        found = f"duration is {numbers.pop('duration'):g} s, less than the sum of the durations of the tasks"
        notes.warn("no_time", f"{found}; CodeCarbon restarts the duration at each task, so start and duration are null")
    end = parse_time(cells["timestamp"])
    config = {name: typed(name, cell) for name, cell in cells.items() if cell and name not in _IN_RECORD}
    if end is None:
        found = f"the timestamp {cells['timestamp']!r} has several meanings" if cells["timestamp"] else "no timestamp"
        notes.add("no_time", f"{found}, so start and end are null; write times as YYYY-MM-DD HH:MM:SS")
        config |= {"timestamp": cells["timestamp"]} if cells["timestamp"] else {}
    energy = _energy(row, numbers, part, notes)
    _note_powers(energy, notes)
    is_partial = part is not None and (
        bool(part.anomalies.lost_after(row.line)) or part.anomalies.reset_before(row.line) is not None
    )
    return imported_record(
        experiment_id_of(cells, part.number if part else 0),
        gpu_name=board,
        energy_measurement_warning=notes.warning,
        config_name=cells.get("project_name") or None,
        timestamps=timestamps_before(end, numbers.get("duration")),
        energy_metrics=energy,
        effective_config={TOOL: config},
        origin=source.origin(TOOL, cells.get("codecarbon_version") or None, row.line),
        status="partial" if is_partial else None,
        phases=phases,
    )


def _energy(row: EmissionsRow, numbers: Mapping[str, float | None], part: Part | None, notes: Notes) -> EnergyMetrics:
    """Return the energy of a row in joules, with the scope of its sensors.

    A component that was not measured is None: a GPU energy of 0, or a CPU or RAM energy of 0 without power.
    """
    tracking_mode = row.cells.get("tracking_mode")
    boards, board = parse_boards(row.cells.get("gpu_model"))
    fallen = [_COMPONENT_OF[name] for name in part.anomalies.fallen] if part is not None else []
    kwh: dict[str, float | None] = {}
    for name in ("cpu", "gpu", "ram"):
        found = numbers.get(f"{name}_energy")
        # CodeCarbon finds no GPU if CUDA_VISIBLE_DEVICES contains a UUID, and writes an energy of 0.
        is_unmeasured = found == 0 and (name == "gpu" or not numbers.get(f"{name}_power"))
        kwh[name] = None if name in fallen or is_unmeasured else found
    total_kwh = _total_kwh(numbers.get("energy_consumed"), kwh, fallen, notes)
    host: Scope | None = "host" if tracking_mode in ("machine", "process") else None
    gpu_scope = host if reads_all_boards(row.cells) else None
    ram_scope: Scope | None = "process" if tracking_mode == "process" else host
    is_host = tracking_mode == "machine" and (kwh["gpu"] is None or gpu_scope == "host")
    cpu_w, gpu_w = numbers.get("cpu_power"), numbers.get("gpu_power")
    return EnergyMetrics(
        **component("total", as_joules(total_kwh), "host" if is_host else None),
        **component("gpu", as_joules(kwh["gpu"]), gpu_scope, _gpu_provenance(board)),
        **component("cpu", as_joules(kwh["cpu"]), host, _cpu_provenance(row.cells, cpu_w)),
        **component("ram", as_joules(kwh["ram"]), ram_scope, "modelled"),
        duration_sec=numbers.get("duration"),
        gpu_power_w=gpu_w if kwh["gpu"] is not None else gpu_w or None,
        cpu_power_w=cpu_w if kwh["cpu"] is not None else cpu_w or None,
        emissions_kg_co2=None if fallen else numbers.get("emissions"),
        devices=unmeasured_devices(board, boards),
        sensors=[SensorReading(source=TOOL, component=name, problems=[COUNTER_RESET]) for name in fallen] or None,
    )


def _note_powers(energy: EnergyMetrics, notes: Notes) -> None:
    """Add a note if a power and the mean power of its component differ by a factor above `_POWER_FACTOR`."""
    for name, power_w, energy_j in (
        ("cpu", energy.cpu_power_w, energy.cpu_energy_j),
        ("gpu", energy.gpu_power_w, energy.gpu_energy_j),
    ):
        mean_w = energy_j / energy.duration_sec if energy_j and energy.duration_sec else None
        if power_w and mean_w and not 1 / _POWER_FACTOR <= power_w / mean_w <= _POWER_FACTOR:
            found = f"{name}_power is {power_w:g} W, but {name}_energy implies a mean of {mean_w:g} W"
            notes.add("power_contradicts_energy", f"{found}; check the units")


def _total_kwh(
    total_kwh: float | None, kwh: Mapping[str, float | None], fallen: Sequence[str], notes: Notes
) -> float | None:
    """Return the total energy of a row in kWh; None if it is unknown.

    Args:
        total_kwh: `energy_consumed`; None if it is blank or damaged.
        kwh: Energy of each component; None if it is unknown.
        fallen: Components whose energy fell within the run. If there are any, `total_kwh` is not used, because it
            includes them.
        notes: Gets a note if the total is not `total_kwh`, or is not the sum of the components.
    """
    known = [value for value in kwh.values() if value is not None]
    if total_kwh == 0 and not known:
        notes.add("no_energy", "all powers and energies are 0, so nothing was measured")
        return None
    if total_kwh is None or fallen:
        return total_of_components(kwh, "energy_consumed", notes)
    if known and not math.isclose(sum(known), total_kwh, rel_tol=_TOLERANCE, abs_tol=1e-15):
        found = f"energy_consumed is {total_kwh:g} kWh, but its components sum to {sum(known):g} kWh"
        if math.isclose(sum(known), total_kwh, rel_tol=ROUNDING):
            notes.add("components_rounded", found)
        else:
            notes.warn("components_disagree", f"{found}; compare both with the powers, and correct the file")
    return total_kwh


def reads_all_boards(cells: Mapping[str, str]) -> bool:
    """True if the version and the columns of a row show that its GPU energy covers all GPUs of the machine.

    Since version 2.8, CodeCarbon reads only the GPUs in CUDA_VISIBLE_DEVICES. In versions 2.8.4 to 3.2.3, `gpu_count`
    is the number of GPUs that CodeCarbon read. In other versions, it is the number of GPUs of the machine.
    """
    boards, _ = parse_boards(cells.get("gpu_model"))
    count = parse_number(cells.get("gpu_count", ""))
    if boards is not None and boards <= 1:
        return True
    match = _VERSION.match(cells.get("codecarbon_version", ""))
    if match is None:
        return False
    version = tuple(int(number or 0) for number in match.groups())
    return version < (2, 8, 0) or (version <= (3, 2, 3) and version >= (2, 8, 4) and count == boards is not None)


def _cpu_provenance(cells: Mapping[str, str], cpu_power_w: float | None) -> Provenance | None:
    """Return `modelled` if the CPU power is a constant, or if CodeCarbon did not recognise the CPU; otherwise None."""
    is_unknown = cells.get("cpu_model", "").casefold() == "unknown"
    return "modelled" if is_unknown or is_constant(cpu_power_w) else None


def is_constant(cpu_power_w: float | None) -> bool:
    """True if a CPU power, in watts, is a constant that CodeCarbon uses if it cannot measure the power.

    The constant is half of a rated power, so it is a multiple of 0.5 W. A measured power has more decimals.

    Example:
        >>> is_constant(112.5), is_constant(45.47573), is_constant(None)
        (True, False, False)
    """
    return bool(cpu_power_w) and (2.0 * (cpu_power_w or 0.0)).is_integer()


def _gpu_provenance(board: str | None) -> Provenance | None:
    """Return `measured` for NVIDIA boards, which have an energy counter; None for other boards."""
    return "measured" if board is not None and "NVIDIA" in board else None


FORMAT = Format(
    name=TOOL,
    looks_for="a CSV header with timestamp, duration, emissions and energy_consumed",
    recognises=lambda source: is_header(source.header),
    read=_read,
    reads_together=True,
    covers=(
        "CPU: host; memory: host, or process in the tracking mode `process`; GPUs: often unknown; without the column "
        "`tracking_mode`, all are unknown"
    ),
    unknown="model, tokens, host name, which GPUs",
)
