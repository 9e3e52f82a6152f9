"""Clocks of hosts, compared by that of the store which all of them wrote to."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import factories
from tests.support.aggregation import aggregate_and_verify
from tests.support.faults_of_records import START, clock, record

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import ClockEvidence, RawProcessResult
    from llm_energy_measure.domain.findings import Finding


def hosts(*clocks: ClockEvidence | None, **changes: Any) -> list[RawProcessResult]:
    """A process on each host, all with the same stamps by their own clocks."""
    return [
        record(index, of=len(clocks), host=f"node-{index}", clock=own, **changes) for index, own in enumerate(clocks)
    ]


def found(code: str, records: list[RawProcessResult]) -> Finding:
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    return finding


def ahead(sec: float, boot: str = "c", **changes: Any) -> ClockEvidence:
    return clock(sec, boot=boot, **changes)


def test_clocks_that_are_apart_are_found_though_the_stamps_are_alike() -> None:
    finding = found("time.clock_offset", hosts(clock(0), ahead(5.0)))
    assert (finding.outcome, finding.expected, finding.found) == ("failed", 0.0, 5.0)
    assert finding.message == (
        "the clock of host node-1 is 5.0 s ahead of that of host node-0, within 0.02 s, by the clock of the store that "
        "both wrote to"
    )


def test_of_many_hosts_the_two_that_are_furthest_apart_are_told() -> None:
    finding = found("time.clock_offset", hosts(clock(0), ahead(-4.0, "c"), ahead(0.5, "d"), ahead(3.0, "e")))
    assert "host node-3 is 7.0 s ahead of that of host node-1" in finding.message


@pytest.mark.parametrize(
    ("apart_sec", "error_sec", "outcome"),
    [(1.01, 0.01, "passed"), (1.03, 0.01, "failed"), (2.9, 1.0, "passed"), (3.1, 1.0, "failed"), (-3.1, 1.0, "failed")],
)
def test_what_the_readings_can_be_wrong_by_is_allowed(apart_sec: float, error_sec: float, outcome: str) -> None:
    clocks = clock(0, store_error_sec=error_sec), ahead(apart_sec, store_error_sec=error_sec)
    assert found("time.clock_offset", hosts(*clocks)).outcome == outcome


def test_the_most_exact_reading_of_a_host_counts() -> None:
    rough = record(2, of=3, host="node-1", clock=ahead(4.0, store_error_sec=2.0))
    assert found("time.clock_offset", [*hosts(clock(0), ahead(0.1)), rough]).outcome == "passed"
    at_the_end = ahead(5.0, store_start_sec=None)
    assert found("time.clock_offset", hosts(clock(0), at_the_end)).outcome == "failed"


@pytest.mark.parametrize(
    "other",
    [
        None,
        ahead(5.0, store_start_sec=None, store_end_sec=None),
        ahead(5.0, store_id=None),
        ahead(5.0, store_error_sec=None),
        ahead(5.0, store_id="of another machine"),
        ahead(5.0, wall_start_sec=1e300, wall_end_sec=-1e300),
    ],
)
def test_clocks_that_nothing_compares_did_not_pass(other: ClockEvidence | None) -> None:
    finding = found("time.clock_offset", hosts(clock(0), other))
    assert finding.outcome == "not_checked"
    assert finding.reason is not None
    assert "was not compared with the others'" in finding.reason


def test_clocks_of_one_host_need_no_store() -> None:
    both = [record(index, of=2, clock=ahead(5.0 * index)) for index in range(2)]
    assert found("time.clock_offset", both).outcome == "passed"


def test_hosts_that_started_at_another_time_have_no_other_clocks() -> None:
    later = factories.timestamps(START + timedelta(seconds=30), 40.0)
    records = [record(0, of=2, clock=clock(0)), record(1, of=2, host="node-2", clock=ahead(0.0), timestamps=later)]
    assert found("time.clock_offset", records).outcome == "passed"


@pytest.mark.parametrize(("apart_sec", "outcome", "common"), [(10.0, "passed", 0.6), (50.0, "failed", 0.0)])
def test_processes_overlap_by_the_clock_of_the_store(apart_sec: float, outcome: str, common: float) -> None:
    """By their own clocks both ran for the same 40 s."""
    finding = found("time.no_overlap", hosts(clock(0), ahead(apart_sec)))
    assert finding.outcome == outcome
    assert finding.found == pytest.approx(common)
    assert ("by the clock of the store" in finding.message) is (outcome == "failed")


def test_clocks_that_agree_correct_nothing() -> None:
    assert found("time.no_overlap", hosts(clock(0), ahead(0.9))).found == 1.0


def test_a_store_whose_clock_was_set_compares_no_hosts() -> None:
    """One host came before it was set and saw it, the other one came after: their own clocks agree."""
    before = clock(0, store_end_sec=1e9 + 45)
    after = ahead(
        -5.0, wall_start_sec=1e9 + 10, store_start_sec=1e9 + 15, wall_end_sec=1e9 + 50, store_end_sec=1e9 + 55
    )
    finding = found("time.clock_offset", hosts(before, after))
    assert finding.outcome == "not_checked"


def test_two_runs_of_one_boot_tell_that_the_store_was_set_between_them() -> None:
    later: dict[str, Any] = {"monotonic_start_sec": 101.0, "monotonic_end_sec": 141.0}
    stamps: dict[str, Any] = {"wall_start_sec": 1e9 + 100, "wall_end_sec": 1e9 + 140}
    store: dict[str, Any] = {"store_start_sec": 1e9 + 105, "store_end_sec": 1e9 + 145}
    records = hosts(clock(0), ahead(0.0, **stamps, **store))
    again = record(2, of=3, host="node-0", clock=clock(0, **later, **stamps, **store))
    assert found("time.clock_offset", records).outcome == "failed"
    assert found("time.clock_offset", [*records, again]).outcome == "not_checked"


def test_what_a_reading_can_be_wrong_by_sets_no_clock() -> None:
    rough = clock(0, store_start_sec=1e9 + 1.9, store_end_sec=1e9 + 38.1, store_error_sec=2.0)
    assert found("time.clock_offset", hosts(rough, ahead(20.0))).outcome == "failed"


def test_unknown_clock_with_an_offset_elsewhere_leaves_overlap_open() -> None:
    """Host 1 is 50 s ahead: by its stamps it began after the others had ended, and by the store's clock with them."""
    late = factories.timestamps(START + timedelta(seconds=50), 40.0)
    records = hosts(clock(0), None, None)
    records[1] = record(1, of=3, host="node-1", clock=ahead(50.0), timestamps=late)
    assert found("time.clock_offset", records).outcome == "failed"
    finding = found("time.no_overlap", records)
    assert (finding.outcome, finding.reason) == (
        "not_checked",
        "the hosts' clocks are apart, and that of host node-2 is not known",
    )
