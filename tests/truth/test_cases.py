"""The 16 situations that attribution once got wrong: the truth is known, and each test states the right answer.

All windows have 100 s and times without UTC offset, and no host is recorded, unless a test says otherwise.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.domain.experiment import ClockEvidence, Launcher, RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics, Timestamps
from llm_energy_measure.verification.attribution import attribute
from tests.support import factories
from tests.truth.engine import judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.truth.engine import Judgement

A100 = "NVIDIA A100-PCIE-40GB"
H100 = "NVIDIA H100 80GB HBM3"
START = datetime(2026, 1, 16, 19, 40)


def span(start_sec: float = 0.0, *, is_aware: bool = False) -> Timestamps:
    start = (START.replace(tzinfo=UTC) if is_aware else START) + timedelta(seconds=start_sec)
    return Timestamps(start=start, end=start + timedelta(seconds=100), duration_sec=100.0)


@pytest.fixture(params=[False, True], ids=["window-unknown", "window-recorded"])
def window(request: pytest.FixtureRequest) -> Timestamps | None:
    """The energy window of each process, which changes no answer: it is equal to the run."""
    return span() if request.param else None


def process(
    rank: int,
    gpu_w: float,
    window: Timestamps | None,
    *,
    times: Timestamps | None = None,
    cpu_w: float | None = None,
    energy: dict[str, Any] | None = None,
    **changes: Any,
) -> RawProcessResult:
    """A process whose GPU reading has that power over 100 s."""
    fields: dict[str, Any] = {
        "total_energy_j": 100 * (gpu_w + (cpu_w or 0.0)),
        "duration_sec": 100.0,
        "gpu_energy_j": 100 * gpu_w,
        "gpu_power_w": gpu_w,
        "window": window,
    }
    if cpu_w is not None:
        fields |= {"cpu_energy_j": 100 * cpu_w, "cpu_power_w": cpu_w}
    metrics = EnergyMetrics(**{**fields, **(energy or {})})
    work = factories.inference(
        total_tokens=8000, input_tokens=4000, output_tokens=4000, inference_time_sec=100.0, tokens_per_second=80.0
    )
    changes = {"gpu_name": A100, "gpu_id": rank, "inference_metrics": work, **changes}
    return factories.raw(process_index=rank, timestamps=times or span(), energy_metrics=metrics, **changes)


def kj(bounds_j: tuple[float, float] | None) -> tuple[float, float]:
    assert bounds_j is not None
    return bounds_j[0] / 1000, bounds_j[1] / 1000


def assert_truth_inside(judgement: Judgement, truth_kj: float) -> None:
    low, high = kj(judgement.bounds_j)
    assert low * 0.99 <= truth_kj <= high * 1.01


def assert_undetermined(judgement: Judgement, low_kj: float, high_kj: float) -> None:
    assert kj(judgement.bounds_j) == pytest.approx((low_kj, high_kj), rel=0.01)
    assert (judgement.point_j, judgement.status) == (None, "undetermined")


def messages(records: Sequence[RawProcessResult]) -> str:
    return " ".join(f"{finding.message} {finding.reason or ''}" for finding in attribute(records).findings)


def test_case_01_two_nodes_with_one_index(window: Timestamps | None) -> None:
    judgement = judge([process(0, 100, window), process(1, 60, window, gpu_id=0)])
    assert_undetermined(judgement, 10, 16)
    assert judgement.errors == ()


def test_case_02_masked_boards_with_one_index(window: Timestamps | None) -> None:
    judgement = judge([process(rank, gpu_w, window, gpu_id=0) for rank, gpu_w in enumerate((200, 150, 180, 230))])
    assert_truth_inside(judgement, 76)
    assert judgement.errors == ()


def test_case_03_pairs_that_read_two_boards_each(window: Timestamps | None) -> None:
    records = [process(rank, 450, window) for rank in range(4)]
    assert_undetermined(judge(records), 45, 180)
    proven = judge(records, {"boards": 4})
    assert kj(proven.bounds_j) == pytest.approx((45, 100), rel=0.01)
    assert proven.errors


@pytest.mark.parametrize("known", ["nothing", "local_ranks", "hosts"])
def test_case_04_two_processes_on_each_of_four_boards(known: str, window: Timestamps | None) -> None:
    records = [
        process(
            rank,
            225,
            window,
            gpu_id=None,
            gpu_name=f"4 x {A100}",
            launcher=Launcher(local_rank=rank) if known == "local_ranks" else None,
        )
        for rank in range(8)
    ]
    judgement = judge(records, {"hosts": 1} if known == "hosts" else None)
    if known == "nothing":
        assert_undetermined(judgement, 22.5, 180)
    else:
        assert kj(judgement.bounds_j) == pytest.approx((22.5, 100), rel=0.01)
        assert judgement.errors


def test_case_05_pods_with_one_board_each(window: Timestamps | None) -> None:
    judgement = judge([process(rank, 200, window, gpu_id=0, gpu_name=f"1 x {A100}") for rank in range(4)])
    assert_truth_inside(judgement, 80)
    assert judgement.errors == ()


def test_case_06_rank_0_reads_the_node_and_others_their_own(window: Timestamps | None) -> None:
    powers = (900, 225, 225, 225)
    records = [process(rank, gpu_w, window, gpu_name=f"4 x {A100}") for rank, gpu_w in enumerate(powers)]
    assert_truth_inside(judge(records), 90)
    assert not re.search(
        r"(each|every|all)\b[^.;]*\b(read|measured|covers?) the (whole )?(host|node)", messages(records)
    )


@pytest.mark.parametrize(("count", "high_kj"), [(2, 140), (4, 280)], ids=["case-07", "case-08"])
def test_cases_07_08_all_read_all_below_one_limit(count: int, high_kj: float, window: Timestamps | None) -> None:
    judgement = judge([process(rank, 700, window, gpu_name=H100) for rank in range(count)])
    assert_undetermined(judgement, 70, high_kj)


def test_case_09_eight_boards_of_unknown_name(window: Timestamps | None) -> None:
    judgement = judge([process(rank, 8 * 350, window, gpu_name="Example Accelerator 9") for rank in range(8)])
    assert_truth_inside(judgement, 280)
    assert (judgement.point_j, judgement.status) == (None, "undetermined")


def container(rank: int, uuids: Sequence[str]) -> RawProcessResult:
    """A process of full evidence in a container of its own that lists boards of 700 W each."""
    times = span(is_aware=True)
    devices = [DeviceEnergy(gpu_uuid=uuid, gpu_name=H100, gpu_power_limit_w=700.0, energy_j=70_000.0) for uuid in uuids]
    scopes = {"gpu_scope": "device", "gpu_provenance": "measured", "total_scope": "device", "devices": devices}
    return process(
        rank,
        700 * len(uuids),
        times,
        times=times,
        energy=scopes,
        gpu_name=H100,
        gpu_id=None,
        host=f"pod-{rank}",
        clock=ClockEvidence(boot_id="boot-1"),
        launcher=Launcher(local_rank=rank),
    )


def test_case_10_containers_that_list_both_boards_by_uuid() -> None:
    judgement = judge([container(rank, ("GPU-a", "GPU-b")) for rank in range(2)])
    assert judgement.point_j == pytest.approx(140_000)
    assert kj(judgement.bounds_j) == pytest.approx((140, 140), rel=0.01)
    assert judgement.status == "exact"


def test_case_11_containers_that_read_their_own_boards() -> None:
    judgement = judge([container(rank, (uuid,)) for rank, uuid in enumerate(("GPU-a", "GPU-b"))])
    assert judgement.point_j == pytest.approx(140_000)
    assert kj(judgement.bounds_j) == pytest.approx((140, 140), rel=0.01)
    assert judgement.status == "exact"
    assert (judgement.verdict, judgement.errors) == ("complete", ())


def test_case_12_consumer_boards_above_the_default_limit(window: Timestamps | None) -> None:
    judgement = judge([process(rank, 520, window, gpu_name="NVIDIA GeForce RTX 4090") for rank in range(2)])
    assert_truth_inside(judgement, 104)
    assert judgement.errors == ()


def test_case_13_host_windows_that_overlap_by_one_second() -> None:
    scopes = {"gpu_scope": "host", "gpu_provenance": "measured", "total_scope": "host"}
    records = [
        process(
            rank,
            1000,
            span(99 * rank, is_aware=True),
            times=span(99 * rank, is_aware=True),
            energy=scopes,
            gpu_name=H100,
            gpu_power_limit_w=700.0,
            host="node-1",
            clock=ClockEvidence(boot_id="boot-1"),
            launcher=Launcher(local_rank=rank),
        )
        for rank in range(2)
    ]
    judgement = judge(records)
    assert_truth_inside(judgement, 199)
    assert judgement.point_j == pytest.approx(199_000, rel=0.02)
    assert judgement.errors == ()


def test_case_14_one_cpu_model_in_each_process(window: Timestamps | None) -> None:
    judgement = judge([process(rank, 200, window, cpu_w=112.5) for rank in range(4)])
    assert_truth_inside(judgement, 80 + 11.25)
    assert judgement.status != "exact"


def test_case_15_two_processes_that_counted_their_shares(window: Timestamps | None) -> None:
    judgement = judge([process(rank, 100, window, gpu_id=0) for rank in range(2)])
    assert_truth_inside(judgement, 20)
    assert judgement.errors == ()


def test_case_16_two_nodes_that_all_their_ranks_read(window: Timestamps | None) -> None:
    judgement = judge([process(rank, 500, window, gpu_id=None, gpu_name=f"2 x {A100}") for rank in range(4)])
    assert_truth_inside(judgement, 100)
