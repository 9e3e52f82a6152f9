"""The clocks of hosts are compared through the clock of the store that all hosts write to."""

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
    """Return one process per host; all have the same timestamps on their own clocks."""
    return [
        record(index, of=len(clocks), host=f"node-{index}", clock=own, **changes) for index, own in enumerate(clocks)
    ]


def found(code: str, records: list[RawProcessResult]) -> Finding:
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    return finding


def ahead(sec: float, boot: str = "c", **changes: Any) -> ClockEvidence:
    """Return the clocks of another boot whose wall clock is `sec` seconds ahead of the store."""
    return clock(sec, boot=boot, **changes)


def test_clock_difference_is_found_although_timestamps_are_equal() -> None:
    finding = found("time.clock_offset", hosts(clock(0), ahead(5.0)))
    assert (finding.outcome, finding.expected, finding.found) == ("failed", 0.0, 5.0)
    assert finding.message == (
        "the clock of host node-1 is 5.0 s (+- 0.02 s) ahead of the clock of host node-0; both are compared with the "
        "clock of the shared store"
    )


def test_clock_offset_names_the_two_hosts_that_differ_most() -> None:
    finding = found("time.clock_offset", hosts(clock(0), ahead(-4.0, "c"), ahead(0.5, "d"), ahead(3.0, "e")))
    assert "host node-3 is 7.0 s (+- 0.02 s) ahead of the clock of host node-1" in finding.message


@pytest.mark.parametrize(
    ("difference_sec", "error_sec", "outcome"),
    [(1.01, 0.01, "passed"), (1.03, 0.01, "failed"), (2.9, 1.0, "passed"), (3.1, 1.0, "failed"), (-3.1, 1.0, "failed")],
)
def test_clock_difference_within_reading_error_passes(difference_sec: float, error_sec: float, outcome: str) -> None:
    clocks = clock(0, store_error_sec=error_sec), ahead(difference_sec, store_error_sec=error_sec)
    assert found("time.clock_offset", hosts(*clocks)).outcome == outcome


def test_most_exact_clock_reading_of_a_host_is_used() -> None:
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
def test_clocks_without_a_comparison_are_not_checked(other: ClockEvidence | None) -> None:
    finding = found("time.clock_offset", hosts(clock(0), other))
    assert finding.outcome == "not_checked"
    assert finding.reason is not None
    assert "no usable reading of the store's clock exists" in finding.reason


def test_clocks_of_one_host_are_not_compared() -> None:
    both = [record(index, of=2, clock=ahead(5.0 * index)) for index in range(2)]
    assert found("time.clock_offset", both).outcome == "passed"


def test_late_start_is_not_a_clock_difference() -> None:
    later = factories.timestamps(START + timedelta(seconds=30), 40.0)
    records = [record(0, of=2, clock=clock(0)), record(1, of=2, host="node-2", clock=ahead(0.0), timestamps=later)]
    assert found("time.clock_offset", records).outcome == "passed"


@pytest.mark.parametrize(("difference_sec", "outcome", "common"), [(10.0, "passed", 0.6), (50.0, "failed", 0.0)])
def test_overlap_uses_store_clock_if_clocks_differ(difference_sec: float, outcome: str, common: float) -> None:
    """Both processes ran for the same 40 s on their own clocks."""
    finding = found("time.no_overlap", hosts(clock(0), ahead(difference_sec)))
    assert finding.outcome == outcome
    assert finding.found == pytest.approx(common)
    assert ("by the clock of the store" in finding.message) is (outcome == "failed")


def test_overlap_uses_wall_clocks_if_they_agree() -> None:
    assert found("time.no_overlap", hosts(clock(0), ahead(0.9))).found == 1.0


def test_no_comparison_if_the_store_clock_was_set() -> None:
    """One host ran while the store's clock was set, the other host ran later. The clocks of the hosts agree."""
    before = clock(0, store_end_sec=1e9 + 45)
    after = ahead(
        -5.0, wall_start_sec=1e9 + 10, store_start_sec=1e9 + 15, wall_end_sec=1e9 + 50, store_end_sec=1e9 + 55
    )
    finding = found("time.clock_offset", hosts(before, after))
    assert finding.outcome == "not_checked"


def test_two_runs_of_one_boot_show_that_the_store_clock_was_set() -> None:
    later: dict[str, Any] = {"monotonic_start_sec": 101.0, "monotonic_end_sec": 141.0}
    wall: dict[str, Any] = {"wall_start_sec": 1e9 + 100, "wall_end_sec": 1e9 + 140}
    store: dict[str, Any] = {"store_start_sec": 1e9 + 105, "store_end_sec": 1e9 + 145}
    records = hosts(clock(0), ahead(0.0, **wall, **store))
    later_run = record(2, of=3, host="node-0", clock=clock(0, **later, **wall, **store))
    assert found("time.clock_offset", records).outcome == "failed"
    assert found("time.clock_offset", [*records, later_run]).outcome == "not_checked"


def test_reading_error_does_not_look_like_a_store_clock_that_was_set() -> None:
    rough = clock(0, store_start_sec=1e9 + 1.9, store_end_sec=1e9 + 38.1, store_error_sec=2.0)
    assert found("time.clock_offset", hosts(rough, ahead(20.0))).outcome == "failed"


def test_overlap_is_not_checked_if_clocks_differ_and_one_is_unknown() -> None:
    """Host 1 is 50 s ahead: its timestamps are after the others' ends, but on the store's clock all start together."""
    late = factories.timestamps(START + timedelta(seconds=50), 40.0)
    records = hosts(clock(0), None, None)
    records[1] = record(1, of=3, host="node-1", clock=ahead(50.0), timestamps=late)
    assert found("time.clock_offset", records).outcome == "failed"
    finding = found("time.no_overlap", records)
    assert (finding.outcome, finding.reason) == (
        "not_checked",
        "the clocks of the hosts disagree, and the clock of host node-2 is unknown",
    )
