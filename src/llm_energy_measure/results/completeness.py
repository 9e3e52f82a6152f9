"""How much of an experiment is there: what was expected, and by whom, beside what was found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llm_energy_measure.constants import MANIFEST_NAME, MAX_PROCESSES
from llm_energy_measure.domain.experiment import CompletenessReport
from llm_energy_measure.exceptions import IncompleteExperimentError
from llm_energy_measure.results.layout import process_index_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.domain.experiment import Manifest, RawProcessResult, UnreadableFile


def check_completeness(
    results: Sequence[RawProcessResult],
    *,
    expected_processes: int | None = None,
    manifest: Manifest | None = None,
    unreadable: Sequence[UnreadableFile] = (),
) -> CompletenessReport:
    """What is there of an experiment, and what is missing.

    The number of processes to expect is the first that is known of: the argument, the manifest, the greatest
    `world_size`, the greatest `effective_config.num_processes`, the highest index plus one. The last can't notice that
    the last process is missing.

    Args:
        results: Readable results.
        expected_processes: Number of processes, at least 1, if the caller knows it.
        manifest: The experiment's manifest, if it has one.
        unreadable: Files that stand where a result should.
    """
    found = {result.process_index for result in results}
    torn = {index for file in unreadable if (index := process_index_of(file.name)) is not None}
    expected, source = _expected(results, expected_processes, manifest, highest=max(found | torn, default=-1))
    unexpected = sorted([index for index in found if index >= expected])
    return CompletenessReport(
        expected_processes=expected,
        expected_from=source,
        found_processes=len(found) - len(unexpected),
        missing=[index for index in range(expected) if index not in found],
        unexpected=unexpected,
        unreadable=list(unreadable),
    )


def require_complete(experiment_id: str, report: CompletenessReport) -> None:
    """Refuse an experiment that is incomplete, or of which nobody can say whether it is.

    Raises:
        IncompleteExperimentError: A process is missing, or the manifest that says how many there are is unreadable.
    """
    blind = report.expected_from != "argument" and any(file.name == MANIFEST_NAME for file in report.unreadable)
    if report.is_complete and not blind:
        return
    doing = f"cannot aggregate {experiment_id!r} strictly"
    if report.is_complete:
        advice = "say how many there should be (--expected-processes), or remove the manifest"
        refused = IncompleteExperimentError(doing, describe_unreadable(report), advice)
    else:
        advice = "run the missing ones, or take a lower bound without strict (--no-strict)"
        refused = IncompleteExperimentError(doing, describe_missing(report), advice)
    refused.report = report
    raise refused


def describe_missing(report: CompletenessReport) -> str:
    """What is missing of an experiment, and who says so, for a person."""
    found = f"{describe_found(report)} are there"
    which = "process" if len(report.missing) == 1 else "processes"
    found += f", missing {which} {listed(report.missing)} (expected from {report.expected_from})"
    return f"{found}; {describe_unreadable(report)}" if report.unreadable else found


def describe_unreadable(report: CompletenessReport) -> str:
    """The files that can't be read, each with its reason, for a person."""
    return "unreadable: " + ", ".join(f"{file.name} ({file.reason})" for file in report.unreadable)


def listed(indices: Sequence[int]) -> str:
    """Indices for a sentence, the first eight of many.

    Example:
        >>> listed([0, 3])
        '0, 3'
    """
    shown = ", ".join(str(index) for index in indices[:8])
    return shown if len(indices) <= 8 else f"{shown} and {len(indices) - 8} more"


def describe_found(report: CompletenessReport | None) -> str:
    """How many processes are there, for a person: `3 of 4 processes`."""
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
    # Configurations come from YAML and command lines: 4.0 and "4" mean 4.
    if isinstance(number, str):
        number = int(number) if re.fullmatch(r"[0-9]{1,7}", number) else None
    elif isinstance(number, float):
        number = int(number) if number.is_integer() else None
    return number if type(number) is int and 0 < number <= MAX_PROCESSES else None
