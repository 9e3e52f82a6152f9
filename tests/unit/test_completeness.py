"""The expected number of processes, and the found, missing and unexpected ones."""

from __future__ import annotations

import pytest

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import Manifest, RawProcessResult, UnreadableFile
from llm_energy_measure.verification.completeness import check_completeness
from tests.support import factories
from tests.support.factories import EXPERIMENT as EXP

MANIFEST = Manifest(experiment_id=EXP, expected_processes=4)


def processes(*indices: int, world_size: int | None = None, configured: object = None) -> list[RawProcessResult]:
    config = {} if configured is None else {"num_processes": configured}
    return [factories.raw(EXP, index, world_size=world_size, effective_config=config) for index in indices]


def unreadable_file(name: str) -> UnreadableFile:
    return UnreadableFile(name=name, reason="it is empty")


def test_argument_takes_precedence_over_manifest() -> None:
    report = check_completeness(processes(0, world_size=6, configured=7), expected_processes=5, manifest=MANIFEST)
    assert (report.expected_processes, report.expected_from) == (5, "argument")


def test_manifest_takes_precedence_over_world_size() -> None:
    report = check_completeness(processes(0, world_size=6, configured=7), manifest=MANIFEST)
    assert (report.expected_processes, report.expected_from) == (4, "manifest")


def test_manifest_without_a_number_is_ignored() -> None:
    report = check_completeness(processes(0, world_size=6), manifest=Manifest(experiment_id=EXP))
    assert (report.expected_processes, report.expected_from) == (6, "world_size")


def test_greatest_world_size_takes_precedence_over_configuration() -> None:
    report = check_completeness([*processes(0), *processes(1, world_size=2), *processes(2, world_size=6, configured=7)])
    assert (report.expected_processes, report.expected_from) == (6, "world_size")


def test_greatest_configured_number_takes_precedence_over_index() -> None:
    report = check_completeness([*processes(0, configured=2), *processes(1, configured=3)])
    assert (report.expected_processes, report.expected_from) == (3, "effective_config.num_processes")


@pytest.mark.parametrize(
    "configured", ["four", "4.0", "-4", 4.5, float("nan"), True, 0, -1, None, [4], MAX_PROCESSES + 1, 10**30]
)
def test_invalid_configured_number_is_ignored(configured: object) -> None:
    report = check_completeness(processes(0, configured=configured))
    assert (report.expected_processes, report.expected_from) == (1, "highest index")


@pytest.mark.parametrize("configured", ["4", 4.0])
def test_configured_number_may_be_text_or_float(configured: object) -> None:
    assert check_completeness(processes(0, configured=configured)).expected_processes == 4


def test_highest_index_includes_unreadable_files() -> None:
    report = check_completeness(processes(0, 2), unreadable=[unreadable_file("process_4.json")])
    assert (report.expected_processes, report.expected_from) == (5, "highest index")
    assert report.missing == [1, 3, 4]


def test_unreadable_file_without_an_index_is_ignored() -> None:
    report = check_completeness(processes(0), unreadable=[unreadable_file("notes.txt")])
    assert (report.expected_processes, report.missing) == (1, [])


def test_report_lists_found_missing_and_unexpected_processes() -> None:
    report = check_completeness(processes(5, 0, 2, 4), expected_processes=4)
    assert (report.found_processes, report.missing, report.unexpected) == (2, [1, 3], [4, 5])
    assert report.coverage == 0.5
    assert not report.is_complete


def test_complete_experiment_has_full_coverage() -> None:
    report = check_completeness(processes(1, 0), expected_processes=2)
    assert (report.found_processes, report.missing, report.unexpected, report.coverage) == (2, [], [], 1.0)
    assert report.is_complete


def test_no_results_expect_no_processes() -> None:
    report = check_completeness([])
    assert (report.expected_processes, report.expected_from, report.coverage) == (0, "highest index", None)
