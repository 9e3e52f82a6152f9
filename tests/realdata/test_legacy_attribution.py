"""Real experiments whose processes all read the node: attribution proves the over-count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure import importers
from tests.truth.engine import judge

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

SEVERAL_PROCESSES = (
    *("0110", "0111", "0112", "0113", "0118", "0129", "0146"),
    *("3b_0008", "3b_0088", "3b_0211"),
)


def imported(real_data: Path, name: str) -> list[RawProcessResult]:
    return list(importers.read(real_data / "legacy_v1" / name))


@pytest.mark.parametrize("name", SEVERAL_PROCESSES)
def test_over_count_of_processes_that_read_the_node_is_proven(real_data: Path, name: str) -> None:
    records = imported(real_data, name)
    readings = [record.energy_metrics.total_energy_j or 0.0 for record in records]
    assert [record.launcher and record.launcher.local_rank for record in records] == list(range(len(records)))
    judgement = judge(records)
    assert judgement.errors
    assert judgement.point_j == pytest.approx(max(readings), rel=0.01)
    assert judgement.point_j is not None
    assert judgement.bounds_j is not None
    low, high = judgement.bounds_j
    assert low <= judgement.point_j <= high < 0.98 * judgement.plain_j
    assert low < high, "windows are unknown, so their union can be longer than each"


def test_single_process_has_no_failed_check(real_data: Path) -> None:
    judgement = judge(imported(real_data, "0109"))
    assert judgement.errors == ()
    assert judgement.point_j == judgement.plain_j
