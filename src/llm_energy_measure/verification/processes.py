"""Facts about each process that several checks need, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.experiment import CompletenessReport, Manifest, RawProcessResult, StoredBytes
from llm_energy_measure.domain.metrics import SENSOR_LOCKED, EnergyMetrics, InferenceMetrics, Scope
from llm_energy_measure.verification.gpus import Gpu, OwnBoards, gpus_of, model_of, own_boards

_TWO = 2

SAME_LENGTH = 0.001
"""Greatest relative difference between the lengths of energy window and run if the run counts as the window."""

Span = tuple[datetime, datetime]
"""Start and end of a time span."""


class Process(Struct, frozen=True, kw_only=True, gc=False):
    """One process, with facts that several checks need.

    Attributes:
        record: Result of the process.
        energy: Energy of the process.
        host: Host of the process; None if the records do not separate hosts. See `processes_of`.
        gpus: GPUs that the process measured; see `gpus_of`.
        boards: Boards that the process uses; see `own_boards`.
        gpu_scope: Scope of the GPU energy; see `gpus.gpu_scope`.
        run: Start and end of the run; None unless both are known and can be compared.
        window_sec: Length of the energy window, in seconds; None if it is not recorded.
        length_sec: Length of an energy window with start and end, in seconds. Else the longest known time of the
            process; None if no time is known.
        gpu_w: GPU energy divided by `length_sec`, in watts; None if one of the two is unknown or 0.
        span: Start and end of the energy window, or else of the run, which contains the window; None if unknown.
        knows_window: Whether `span` is the energy window.
    """

    record: RawProcessResult
    energy: EnergyMetrics
    host: str | None
    gpus: list[Gpu]
    boards: OwnBoards
    gpu_scope: Scope | None
    run: Span | None
    window_sec: float | None
    length_sec: float | None
    gpu_w: float | None
    span: Span | None
    knows_window: bool

    @property
    def index(self) -> int:
        """Index of the process, from 0."""
        return self.record.process_index


def processes_of(records: Sequence[RawProcessResult]) -> list[Process]:
    """Return the processes of one experiment, in the order of their results.

    A host without a name is identified by its boot id, else by the launcher's name of the node. If the records then
    give fewer than two hosts, all processes are on one host. If the records give several hosts, the processes without a
    host are on one more host. Machines that share a hostname are separated by boot id if their boots overlap in time.
    """
    names = [record.host for record in records]
    if None in names:
        for fact in (boot_of, _node):
            names = _named_by(names, [fact(record) for record in records])
        stated = set(names) - {None}
        if len(stated) < _TWO:
            names = [next(iter(stated), None)] * len(names)
    else:
        names = _apart_by_boot(names, records)
    return [_process(record, name) for record, name in zip(records, names, strict=True)]


def _process(record: RawProcessResult, host: str | None) -> Process:
    energy, run = record.energy_metrics, record.timestamps.span
    gpus, gpu_j = gpus_of(record), energy.gpu_energy_j
    window_sec, span, knows_window = _window(energy, run)
    # Some records state a shorter energy window than the time that the energy covers. The longest time can't give a
    # power that is too high.
    length_sec = window_sec if span is not run and knows_window else _longest_sec(record, window_sec)
    return Process(
        record=record,
        energy=energy,
        host=host,
        gpus=gpus,
        boards=own_boards(record, gpus),
        gpu_scope=energy.gpu_scope or energy.total_scope,
        run=run,
        window_sec=window_sec,
        length_sec=length_sec,
        gpu_w=gpu_j / length_sec if gpu_j and length_sec else None,
        span=span,
        knows_window=knows_window,
    )


def by_host(processes: Sequence[Process]) -> dict[str | None, list[Process]]:
    """Return the processes by host. The order of the processes is kept."""
    groups: dict[str | None, list[Process]] = {}
    for process in processes:
        groups.setdefault(process.host, []).append(process)
    return groups


def _named_by(names: Sequence[str | None], facts: Sequence[str | None]) -> list[str | None]:
    """Return the host names, completed with a fact such as the boot id.

    A process without a host name gets the name of the host with the same fact. If no host has this fact, although
    each named host has a fact, the fact of the process becomes the name of its host.
    """
    known: dict[str | None, str] = {
        fact: name for name, fact in zip(names, facts, strict=True) if name is not None and fact is not None
    }
    all_have_facts = all(fact is not None for name, fact in zip(names, facts, strict=True) if name is not None)
    return [
        name or known.get(fact) or (fact if all_have_facts else None) for name, fact in zip(names, facts, strict=True)
    ]


def _apart_by_boot(names: list[str | None], records: Sequence[RawProcessResult]) -> list[str | None]:
    """Return the host names, with the boot id added to a name such as `localhost` that several machines have.

    Two boots that ran at the same time are different machines. A name does not change if a process with this name has
    no boot id.
    """
    clocks = [record.clock for record in records]
    if clocks.count(None) == len(clocks):
        return names
    boots = [boot_of(record) for record in records]
    pairs = set(zip(names, boots, strict=True))
    if len(pairs) == len(set(names)):
        return names
    of_names: dict[str | None, list[tuple[RawProcessResult, str]]] = {}
    for name, boot, record in zip(names, boots, records, strict=True):
        if boot is not None and (name, None) not in pairs:
            of_names.setdefault(name, []).append((record, boot))
    several = {name for name, own in of_names.items() if _ran_at_one_time(own)}
    return [f"{name} (boot {boot})" if name in several else name for name, boot in zip(names, boots, strict=True)]


def _ran_at_one_time(booted: Sequence[tuple[RawProcessResult, str]]) -> bool:
    """Return True if processes of two boots ran at the same time."""
    runs = [(run, boot) for record, boot in booted if (run := record.timestamps.span) is not None]
    if not comparable([run for run, _ in runs]):
        return False
    latest: dict[str, datetime] = {}
    for (start, end), boot in sorted(runs):
        if any(until > start for other, until in latest.items() if other != boot):
            return True
        latest[boot] = max(end, latest.get(boot, end))
    return False


def boot_of(record: RawProcessResult) -> str | None:
    """Return the boot id of the machine on which a process ran; None if unknown."""
    return record.clock.boot_id or None if record.clock is not None else None


def _node(record: RawProcessResult) -> str | None:
    return record.launcher.node or None if record.launcher is not None else None


def read_elsewhere(record: RawProcessResult, peers: Sequence[RawProcessResult]) -> bool:
    """Return True if peers of a process read each sensor that the process left to another process."""
    unread = [sensor for sensor in record.energy_metrics.sensors or () if sensor.energy_j is None]
    if not unread or any(SENSOR_LOCKED not in sensor.problems for sensor in unread):
        return False
    read = {
        (sensor.source, sensor.instance)
        for peer in peers
        for sensor in peer.energy_metrics.sensors or ()
        if sensor.energy_j is not None
    }
    return all((sensor.source, sensor.instance) in read for sensor in unread)


def _window(energy: EnergyMetrics, run: Span | None) -> tuple[float | None, Span | None, bool]:
    """Return length (s) and span of the energy window, and whether the span is exact. A length of 0 means unknown.

    The run contains a window without start and end, so the span of this window is the run. The span is exact if run and
    window have the same length.
    """
    length_sec = energy.duration_sec or None
    when = run if run is not None and run[0] < run[1] else None
    window = energy.window
    if window is not None:
        if (span := window.span) is not None and span[0] < span[1]:
            own_sec = window.duration_sec or 0.0
            return own_sec if own_sec > 0 else (span[1] - span[0]).total_seconds(), span, True
        if window.duration_sec is not None and window.duration_sec > 0:
            length_sec = window.duration_sec
    if when is None or length_sec is None:
        return length_sec, when, False
    run_sec = (when[1] - when[0]).total_seconds()
    return length_sec, when, abs(run_sec - length_sec) <= SAME_LENGTH * run_sec


def _longest_sec(record: RawProcessResult, window_sec: float | None) -> float | None:
    """Return the longest time that is known of a process, in seconds: its run, its inference, or its energy window."""
    work = record.inference_metrics.inference_time_sec if record.inference_metrics is not None else None
    return max(record.timestamps.duration_sec or 0.0, work or 0.0, window_sec or 0.0) or None


def comparable(spans: Sequence[Span | None]) -> bool:
    """Return True if windows can be put in order: all are known, and all have a UTC offset or all have none."""
    return None not in spans and len({span[0].tzinfo is None for span in spans if span is not None}) == 1


def module_of(processes: Sequence[Process]) -> str | None:
    """Return the board of a host whose sensor may include the CPU of its module; None if no process names one."""
    names: list[str | None] = []
    for process in processes:
        names.append(process.record.gpu_name)
        if process.energy.devices:
            names += [device.gpu_name for device in process.energy.devices]
    for name in dict.fromkeys(names):
        if (model := model_of(name)) is not None and model.includes_cpu:
            return name
    return None


class Evidence(Struct, frozen=True, kw_only=True):
    """The facts of one experiment, from which all findings follow; see `evidence_of`.

    The lists have one value of each process, in the order of the records. A check first searches a list for a value
    that could fail the check. Most experiments have no value of this kind, so most checks end there.

    Attributes:
        experiment_id: The experiment's id.
        records: Readable results of the experiment, at least one, by process index.
        report: The expected and the found processes.
        manifest: The manifest; None if there is none.
        processes: The processes of the records; see `processes_of`.
        hosts: The processes by host; see `by_host`.
        energies: The energy of each process.
        inference_metrics: The inference metrics of each process; None if it has none.
        totals_j: The total energy of each process, in joules; None if unknown.
        starts: The known start times of the processes.
        ends: The known end times of the processes.
        started: The earliest and the latest start; None unless all known times can be compared.
        ended: The earliest and the latest end; None unless all known times can be compared.
        is_naive: True for times without UTC offset, False for times with an offset; both values if they are mixed.
        stored: The content of the file of each record; None if the record has no file.
        any_sensors: Whether any process recorded the readings of its sensors.
        assume: Facts that the user states.
    """

    experiment_id: str
    records: list[RawProcessResult]
    report: CompletenessReport
    manifest: Manifest | None
    processes: list[Process]
    hosts: dict[str | None, list[Process]]
    energies: list[EnergyMetrics]
    inference_metrics: list[InferenceMetrics | None]
    totals_j: list[float | None]
    starts: list[datetime]
    ends: list[datetime]
    started: Span | None
    ended: Span | None
    is_naive: set[bool]
    stored: list[StoredBytes | None]
    any_sensors: bool
    assume: Assumptions


def evidence_of(
    experiment_id: str,
    records: Sequence[RawProcessResult],
    report: CompletenessReport,
    manifest: Manifest | None,
    assume: Assumptions | None = None,
) -> Evidence:
    """Return the evidence of an experiment; see `Evidence` for the arguments."""
    processes = processes_of(records)
    energies = [record.energy_metrics for record in records]
    spans = [record.timestamps for record in records]
    starts = [span.start for span in spans if span.start is not None]
    ends = [span.end for span in spans if span.end is not None]
    is_naive = {stamp.tzinfo is None for stamp in starts + ends}
    in_order = len(is_naive) == 1
    return Evidence(
        experiment_id=experiment_id,
        records=list(records),
        report=report,
        manifest=manifest,
        processes=processes,
        hosts=by_host(processes),
        energies=energies,
        inference_metrics=[record.inference_metrics for record in records],
        totals_j=[energy.total_energy_j for energy in energies],
        starts=starts,
        ends=ends,
        started=(min(starts), max(starts)) if starts and in_order else None,
        ended=(min(ends), max(ends)) if ends and in_order else None,
        is_naive=is_naive,
        stored=[record.stored for record in records],
        any_sensors=any(energy.sensors for energy in energies),
        assume=assume or Assumptions(),
    )
