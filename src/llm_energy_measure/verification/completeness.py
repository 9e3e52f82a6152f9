"""Checks of completeness: each expected process has one finished, readable result with energy."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import (
    CompletenessReport,
    Manifest,
    RawProcessResult,
    UnreadableFile,
    process_index_of,
)
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.formatting import plural
from llm_energy_measure.domain.metrics import EnergyMetrics
from llm_energy_measure.verification.codes import failed, joules, listed, not_checked, passed
from llm_energy_measure.verification.processes import Evidence


def check_completeness(
    results: Sequence[RawProcessResult],
    *,
    expected_processes: int | None = None,
    manifest: Manifest | None = None,
    unreadable: Sequence[UnreadableFile] = (),
) -> CompletenessReport:
    """Return the found, missing and unexpected processes of an experiment.

    The expected number of processes is the first known value of: `expected_processes`, the manifest, the greatest
    `world_size`, the greatest `effective_config.num_processes`, the highest index plus one. The highest index can't
    show that the last process is missing.

    Args:
        results: Readable results.
        expected_processes: Number of processes, at least 1; None if the caller does not know it.
        manifest: The manifest of the experiment; None without a manifest.
        unreadable: Files that have the name of a result and can't be read.
    """
    found = {result.process_index for result in results}
    damaged = {index for file in unreadable if (index := process_index_of(file.name)) is not None}
    expected, source = _expected(results, expected_processes, manifest, highest=max(found | damaged, default=-1))
    unexpected = sorted([index for index in found if index >= expected])
    return CompletenessReport(
        expected_processes=expected,
        expected_from=source,
        found_processes=len(found) - len(unexpected),
        missing=[index for index in range(expected) if index not in found],
        unexpected=unexpected,
        unreadable=list(unreadable),
    )


def describe_missing(report: CompletenessReport) -> str:
    """Describe the missing processes and the source of the expected number, in one sentence."""
    label = "process" if len(report.missing) == 1 else "processes"
    found = (
        f"{describe_found(report)} have results, missing {label} {listed(report.missing)} "
        f"(expected number from {report.expected_from})"
    )
    return f"{found}; {describe_unreadable(report)}" if report.unreadable else found


def describe_unreadable(report: CompletenessReport) -> str:
    """Describe the unreadable files, each with its reason, in one sentence."""
    return "unreadable: " + ", ".join(f"{file.name} ({file.reason})" for file in report.unreadable)


def describe_found(report: CompletenessReport | None) -> str:
    """Describe the number of found processes: `3 of 4 processes`."""
    if report is None:
        return "an unknown number of processes"
    return f"{report.found_processes} of {report.expected_processes} processes"


def _expected(
    results: Sequence[RawProcessResult], argument: int | None, manifest: Manifest | None, highest: int
) -> tuple[int, str]:
    if argument is not None:
        return argument, "argument"
    if manifest is not None and manifest.expected_processes is not None:
        return manifest.expected_processes, "manifest"
    if sizes := [result.world_size for result in results if result.world_size]:
        return max(sizes), "world_size"
    if configured := [number for result in results if (number := _configured(result))]:
        return max(configured), "effective_config.num_processes"
    return highest + 1, "highest index"


def _configured(result: RawProcessResult) -> int | None:
    number = result.effective_config.get("num_processes")
    # Configurations from YAML files and command lines also contain 4.0 and "4".
    if isinstance(number, str):
        number = int(number) if re.fullmatch(r"[0-9]{1,7}", number) else None
    elif isinstance(number, float):
        number = int(number) if number.is_integer() else None
    return number if type(number) is int and 0 < number <= MAX_PROCESSES else None


def check_completeness_of(evidence: Evidence) -> Iterator[Finding]:
    """Check that each expected process has one finished result with energy, and that there are no other results."""
    report = evidence.report
    code = "completeness.missing_process"
    if report.missing:
        message = f"partial: {describe_missing(report)}; the sums are lower bounds"
        expected, found = float(report.expected_processes), float(report.found_processes)
        yield failed(code, message, expected=expected, found=found, processes=report.missing[:100])
    elif report.expected_from == "highest index":
        yield not_checked(code, "the expected number of processes is not recorded")
    else:
        yield passed(code)
    code = "completeness.unreadable_file"
    yield failed(code, describe_unreadable(report)) if report.unreadable else passed(code)
    code = "completeness.unexpected_process"
    if report.unexpected:
        label = "process" if len(report.unexpected) == 1 else "processes"
        message = (
            f"unexpected {label} {listed(report.unexpected)}: the expected number is {report.expected_processes} "
            f"(from {report.expected_from})"
        )
        yield failed(code, message, expected=float(report.expected_processes), processes=report.unexpected)
    else:
        yield passed(code)
    yield _world_size(evidence)
    yield _no_energy(evidence)
    yield _unfinished(evidence)
    yield _duplicates(evidence)


def _world_size(evidence: Evidence) -> Finding:
    code = "completeness.world_size"
    sizes = {record.world_size for record in evidence.records} - {None}
    if len(sizes) > 1:
        ordered = sorted(size for size in sizes if size is not None)
        least, greatest = ordered[0], ordered[-1]
        message = f"world_size is {least} in some processes and {greatest} in others; two runs may be mixed"
        return failed(code, message, expected=float(least), found=float(greatest))
    return passed(code)


def _no_energy(evidence: Evidence) -> Finding:
    code = "completeness.no_energy"
    if None not in evidence.totals_j:
        return passed(code)
    missing = [record for record in evidence.records if record.energy_metrics.is_missing]
    if not missing:
        return passed(code)
    without = [record.process_index for record in missing if record.energy_metrics.known_energy_j is None]
    partial = [record for record in missing if record.energy_metrics.known_energy_j is not None]
    sentences = [f"process {listed(without)} has no energy"] if without else []
    if partial:
        first = partial[0]
        others = f"; {plural(len(partial) - 1, 'more process')} with components only" if len(partial) > 1 else ""
        sentences.append(
            f"process {first.process_index} has no total energy; its known components are "
            f"{_components(first.energy_metrics)}{others}"
        )
    message = f"{'; '.join(sentences)}; the total and the energy per token are lower bounds"
    return failed(code, message, processes=[record.process_index for record in missing])


def _components(energy: EnergyMetrics) -> str:
    parts = (("GPU", energy.gpu_energy_j), ("CPU", energy.cpu_energy_j), ("memory", energy.ram_energy_j))
    return ", ".join(f"{name} {joules(part_j)}" for name, part_j in parts if part_j is not None)


def _unfinished(evidence: Evidence) -> Finding:
    code = "completeness.unfinished_process"
    ended = [record for record in evidence.records if record.status is not None and record.status != "completed"]
    if not ended:
        return passed(code)
    if all(record.status == "partial" for record in ended):
        processes = [record.process_index for record in ended]
        message = f"process {listed(processes)} did not finish; the last checkpoint counts as a lower bound"
        return failed(code, message, expected="completed", found="partial", processes=processes, severity="warning")
    # If one process fails, the launcher ends the others by SIGTERM, so the first failure is the cause.
    cause = min(ended, key=_rank_of_cause)
    status = "failed" if cause.status == "failed" else f"was {cause.status}"
    how = f"{status}{f' ({cause.error_type})' if cause.error_type else ''}"
    others = f"; {plural(len(ended) - 1, 'more process')} did not finish" if len(ended) > 1 else ""
    partial = [record.process_index for record in ended if record.status == "partial"]
    bound = f"; the last checkpoint of process {listed(partial)} counts as a lower bound" if partial else ""
    message = f"process {cause.process_index} {how}, so its figures cover only a part of the run{others}{bound}"
    processes = [record.process_index for record in ended]
    return failed(code, message, expected="completed", found=cause.status, processes=processes)


def _rank_of_cause(record: RawProcessResult) -> tuple[int, float]:
    """Return the sort key of a process that did not finish: failures come before signals, and earlier ends first."""
    order = ("failed", "interrupted", "partial")
    end = record.timestamps.end
    ended = math.inf if end is None else end.replace(tzinfo=end.tzinfo or UTC).timestamp()
    return order.index(record.status) if record.status in order else len(order), ended


def _duplicates(evidence: Evidence) -> Finding:
    """Check that no two results have equal host, GPU, start, duration and energy to the last digit.

    A copy is an error if the scope is `device` and the GPU is identified by its UUID, or by its host and index. Else a
    copy is a warning, because an index identifies a GPU only within a known host.
    """
    code = "completeness.duplicate_process"
    if len(set(evidence.totals_j)) == len(evidence.records):
        return passed(code)  # all energies differ
    seen: dict[object, int] = {}
    copies: list[tuple[int, RawProcessResult]] = []
    is_certain = True
    for host, record in [(process.host, process.record) for own in evidence.hosts.values() for process in own]:
        times, energy = record.timestamps, record.energy_metrics
        # Correct records have equal figures if each process has the reading of the host, or an equal share of it.
        if not energy.total_energy_j or times.start is None:
            continue
        scopes = {energy.total_scope, energy.gpu_scope}
        if scopes & {"host", "process"}:
            continue
        key = (host, record.gpu_id, record.gpu_uuid, times.start, times.duration_sec)
        first = seen.setdefault((key, energy.total_energy_j, energy.gpu_energy_j), record.process_index)
        if first != record.process_index:
            copies.append((first, record))
            is_known = record.gpu_uuid is not None or (host is not None and record.gpu_id is not None)
            is_certain = is_certain and is_known and "device" in scopes
    if not copies:
        return passed(code)
    first, record = copies[0]
    others = f", like {plural(len(copies) - 1, 'more result')}" if len(copies) > 1 else ""
    verb, reason = ("is", "") if is_certain else ("may be", "; a record lacks the host, the GPU or the scope")
    message = (
        f"process {record.process_index} has the same start and the same energy "
        f"({joules(record.energy_metrics.total_energy_j)}) as process {first}; it {verb} the same result under another "
        f"index{others}{reason}"
    )
    return failed(
        code,
        message,
        severity=None if is_certain else "warning",
        effect_j=sum(copy.energy_metrics.total_energy_j or 0.0 for _, copy in copies),
        processes=(copy.process_index for _, copy in copies),
    )
