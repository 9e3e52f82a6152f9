"""Sixteen situations of the field whose true energy is known: attribution gives it, a range around it, or no figure.

Each run has a window of 100 s and times without a UTC offset. No record names a host unless the case says so.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.domain.experiment import ClockEvidence, Launcher
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.verification.attribution import Assumptions, Attribution, attribute
from tests.support import factories

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

START = datetime(2026, 1, 16, 12)
A100 = "NVIDIA A100-PCIE-40GB"
H100 = "NVIDIA H100 80GB HBM3"
KJ = 1000.0


def process(
    index: int, gpu_w: float, start: float = 0.0, seconds: float = 100.0, cpu_w: float | None = None, **changes: Any
) -> RawProcessResult:
    """A process that read that mean power of GPUs, and of a CPU, over its window."""
    window = factories.timestamps(START + timedelta(seconds=start), seconds)
    gpu_j, cpu_j = gpu_w * seconds, None if cpu_w is None else cpu_w * seconds
    energy = {
        "total_energy_j": gpu_j + (cpu_j or 0.0),
        "gpu_energy_j": gpu_j,
        "cpu_energy_j": cpu_j,
        "ram_energy_j": None,
        "cpu_power_w": cpu_w,
        "gpu_power_w": None,
        "duration_sec": seconds,
        "window": window,
    } | changes.pop("energy", {})
    fields: dict[str, Any] = {"gpu_id": None, "gpu_name": A100, "timestamps": window, "host": None}
    return factories.raw(
        process_index=index,
        energy_metrics=factories.energy(**energy),
        inference_metrics=factories.inference(inference_time_sec=seconds),
        **(fields | changes),
    )


def ranks(watts: list[float], **changes: Any) -> list[RawProcessResult]:
    """One process for each reading, on the same GPU name and with the same facts."""
    return [process(index, power, **changes) for index, power in enumerate(watts)]


def failures(found: Attribution) -> list[str]:
    return [finding.code for finding in found.findings if finding.outcome == "failed"]


def assert_bounds(found: Attribution, low_kj: float, high_kj: float) -> None:
    assert found.bounds_j == pytest.approx((low_kj * KJ, high_kj * KJ), rel=1e-6)


def assert_honest_and_open(found: Attribution, truth_kj: float) -> None:
    """No accusation, no point, and the truth inside the bounds."""
    assert found.bounds_j is not None
    low, high = found.bounds_j
    assert low * (1 - 1e-9) <= truth_kj * KJ <= high * (1 + 1e-9)
    assert (found.status, found.energy_j, failures(found)) == ("undetermined", None, [])


def test_case_1_two_nodes_with_gpu_0_each() -> None:
    found = attribute(ranks([100.0, 60.0], gpu_id=0))
    assert_honest_and_open(found, 16)
    assert_bounds(found, 10, 16)


def test_case_2_ranks_that_each_see_their_gpu_as_index_0() -> None:
    assert_honest_and_open(attribute(ranks([200.0, 150.0, 180.0, 230.0], gpu_id=0)), 76)


def test_case_3_two_pairs_of_ranks_that_each_read_two_gpus() -> None:
    records = ranks([450.0] * 4)
    assert_honest_and_open(attribute(records), 90)
    assert_bounds(attribute(records), 45, 180)
    found = attribute(records, Assumptions(boards=4))
    assert_bounds(found, 45, 100)
    assert (found.status, failures(found)) == ("undetermined", ["energy.over_counted"])


LOCAL_RANKS = "local ranks"


@pytest.mark.parametrize("evidence", [None, LOCAL_RANKS, Assumptions(hosts=1)])
def test_case_4_two_processes_share_each_of_four_gpus(evidence: Assumptions | str | None) -> None:
    told: list[dict[str, Any]] = [
        {"launcher": Launcher(name="torchrun", local_rank=index)} if evidence == LOCAL_RANKS else {}
        for index in range(8)
    ]
    records = [process(index, 225.0, gpu_name=f"4 x {A100}", **told[index]) for index in range(8)]
    found = attribute(records, evidence if isinstance(evidence, Assumptions) else None)
    if evidence is None:
        assert_honest_and_open(found, 90)
        assert_bounds(found, 22.5, 180)
    else:
        assert_bounds(found, 22.5, 100)
        assert (found.status, failures(found)) == ("undetermined", ["energy.over_counted"])


def test_case_5_four_pods_with_one_gpu_each() -> None:
    assert_honest_and_open(attribute(ranks([200.0] * 4, gpu_name=f"1 x {A100}")), 80)


@pytest.mark.parametrize("host", [None, "node-1"])
def test_case_6_one_rank_reads_the_node_and_three_their_own_gpu(host: str | None) -> None:
    found = attribute(ranks([900.0, 225.0, 225.0, 225.0], gpu_name=f"4 x {A100}", host=host))
    assert found.bounds_j is not None
    assert found.bounds_j[0] <= 90 * KJ <= found.bounds_j[1]
    for finding in found.findings:
        assert "each measured the whole host" not in finding.message
        assert "every process read the whole host" not in finding.message


@pytest.mark.parametrize(
    ("watts", "board", "truth_kj", "plain_kj"),
    [([700.0] * 2, H100, 70, 140), ([700.0] * 4, H100, 70, 280), ([2800.0] * 8, "Zephyr 9000", 280, 2240)],
)
def test_cases_7_to_9_all_ranks_read_all_gpus(watts: list[float], board: str, truth_kj: float, plain_kj: float) -> None:
    found = attribute(ranks(watts, gpu_name=board))
    assert_honest_and_open(found, truth_kj)
    assert_bounds(found, truth_kj, plain_kj)


def boot_of_container(index: int) -> dict[str, Any]:
    return {"host": f"container-{index}", "clock": ClockEvidence(boot_id="boot-1")}


def listed(gpus: list[int]) -> dict[str, Any]:
    devices = [DeviceEnergy(gpu_uuid=f"GPU-{gpu}", energy_j=70.0 * KJ) for gpu in gpus]
    return {"devices": devices, "gpu_scope": "device"}


def test_case_10_two_containers_list_the_same_two_gpus() -> None:
    records = [process(n, 1400.0, gpu_name=H100, energy=listed([0, 1]), **boot_of_container(n)) for n in range(2)]
    found = attribute(records)
    assert (found.energy_j, found.status, found.factor) == (140 * KJ, "exact", 2.0)
    assert failures(found) == ["attribution.repeated_gpu"]


def test_case_11_two_containers_list_their_own_gpu() -> None:
    records = [process(n, 700.0, gpu_name=H100, energy=listed([n]), **boot_of_container(n)) for n in range(2)]
    found = attribute(records)
    assert (found.energy_j, found.status, failures(found)) == (140 * KJ, "exact", [])


def test_case_12_two_consumer_boards_above_the_default_limit() -> None:
    records = ranks([520.0] * 2, gpu_name="NVIDIA GeForce RTX 4090")
    assert_honest_and_open(attribute(records), 104)
    for index, record in enumerate(ranks([520.0] * 2, gpu_name="2 x NVIDIA GeForce RTX 4090", host="a")):
        assert not failures(attribute([record])), index


def test_case_13_one_host_sensor_in_two_windows_that_overlap_for_a_second() -> None:
    scopes = {"gpu_scope": "host", "total_scope": "host"}
    found = attribute([process(n, 1000.0, start=99.0 * n, energy=scopes, host="node-1") for n in range(2)])
    assert found.energy_j == pytest.approx(199 * KJ)
    assert found.bounds_j is not None
    # In the second that both windows contain, the host draws at most three times its mean power.
    assert found.bounds_j == pytest.approx((197 * KJ, 200 * KJ))
    assert (found.status, found.basis) == ("estimated", ["mean_power"])
    assert not failures(found)


def test_case_14_each_rank_adds_the_same_model_of_the_cpu() -> None:
    found = attribute(ranks([200.0] * 4, cpu_w=112.5))
    assert_honest_and_open(found, 91.25)
    found = attribute(ranks([200.0] * 4, cpu_w=112.5, host="node-1"), Assumptions(gpu_scope="process"))
    assert found.bounds_j is not None
    assert found.bounds_j[0] <= 91.25 * KJ <= found.bounds_j[1]
    assert found.status != "exact"


@pytest.mark.parametrize("facts", [{}, {"gpu_uuid": "GPU-1", "host": "node-1"}])
def test_case_15_two_processes_that_each_count_their_share_of_a_gpu(facts: dict[str, Any]) -> None:
    found = attribute(ranks([100.0] * 2, gpu_id=0, **facts))
    assert_honest_and_open(found, 20)
    assert attribute(ranks([100.0] * 2, gpu_id=0, **facts), Assumptions(gpu_scope="process")).energy_j == 20 * KJ


def test_case_16_two_nodes_that_every_rank_of_a_node_reads() -> None:
    records = ranks([500.0] * 4, gpu_name=f"2 x {A100}")
    found = attribute(records)
    assert_honest_and_open(found, 100)
    assert_bounds(found, 50, 200)
    two = attribute(records, Assumptions(hosts=2, gpu_scope="host"))
    assert (two.energy_j, two.status) == (100 * KJ, "estimated")
    assert two.basis == ["assumed"]


def test_unnamed_devices_of_one_process_are_different_gpus() -> None:
    """Zeus lists the energy of each GPU, without index or UUID."""
    devices = [DeviceEnergy(energy_j=890.0), DeviceEnergy(energy_j=880.0)]
    energy = factories.energy(
        total_energy_j=1770.0,
        gpu_energy_j=1770.0,
        cpu_energy_j=None,
        ram_energy_j=None,
        gpu_scope="device",
        devices=devices,
    )
    found = attribute([factories.raw(gpu_id=None, gpu_name=None, host=None, energy_metrics=energy)])
    assert (found.energy_j, found.bounds_j) == (1770.0, (1770.0, 1770.0))
