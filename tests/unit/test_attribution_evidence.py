"""Attribution with records of which some facts are missing or ambiguous: hosts, indices, and parts of a total."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from llm_energy_measure.domain.experiment import ClockEvidence, RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.verification.attribution import Assumptions, attribute
from tests.support import factories
from tests.support.faults_of_records import HOST, NO_IDS, NO_SCOPE, START, record

UNTIMED_ENERGY: dict[str, Any] = {"duration_sec": 0.0, "window": None}
UNTIMED: dict[str, Any] = UNTIMED_ENERGY | NO_SCOPE
NOWHERE: dict[str, Any] = {"host": None, **NO_IDS}


def reading(index: int, gpu_j: float | None, total_j: float | None = None, **changes: Any) -> RawProcessResult:
    """Return a process with this GPU energy and total over a window of 40 s."""
    energy = {"gpu_energy_j": gpu_j, "total_energy_j": gpu_j if total_j is None else total_j, "gpu_power_w": None}
    return record(index, energy=energy | changes.pop("energy", {}), **changes)


def test_unequal_numbers_of_processes_per_host_are_considered() -> None:
    """Two processes read one host, and the third reads another host: 30 kJ, and not the sum of all readings."""
    joules = (10_000.0, 10_010.0, 20_000.0)
    found = attribute([reading(index, gpu_j, energy=HOST, **NOWHERE) for index, gpu_j in enumerate(joules)])
    assert (found.energy_j, found.status, found.plain_j) == (None, "undetermined", 40_010.0)
    assert found.bounds_j is not None
    assert found.bounds_j[0] <= 30_005.0 <= found.bounds_j[1]
    [finding] = [one for one in found.findings if one.code == "attribution.hosts_unknown"]
    assert finding.message.startswith("the readings fit 2 to 3 hosts.")
    assert finding.message.endswith("--assume hosts=2")


def test_readings_that_no_two_processes_share_are_of_as_many_hosts() -> None:
    joules = (10_000.0, 20_000.0, 40_000.0)
    found = attribute([reading(index, gpu_j, energy=HOST, **NOWHERE) for index, gpu_j in enumerate(joules)])
    assert (found.energy_j, found.plain_j) == (70_000.0, 70_000.0)


def test_processes_without_a_host_can_be_on_different_known_hosts() -> None:
    """Both hosts have two readers, and one reader of each host does not name it."""
    hosts = ("node-1", "node-2", None, None)
    joules = (10_000.0, 20_000.0, 10_010.0, 20_010.0)
    records = [reading(n, joules[n], host=host, energy=HOST, **NO_IDS) for n, host in enumerate(hosts)]
    found = attribute(records)
    assert found.bounds_j is not None
    assert found.bounds_j[0] <= 30_010.0 <= found.bounds_j[1]
    assert found.energy_j is None


def test_assumed_hosts_have_equal_numbers_of_ranks_if_a_record_is_lost() -> None:
    """Ranks 0 and 1 ran on one host, 2 and 3 on another; the record of rank 0 is lost."""
    joules = {1: 10_000.0, 2: 20_000.0, 3: 20_010.0}
    records = [reading(n, gpu_j, energy=NO_SCOPE, **NOWHERE) for n, gpu_j in joules.items()]
    found = attribute(records, Assumptions(gpu_scope="host", hosts=2))
    assert found.energy_j == pytest.approx(30_005.0)


def test_a_hostname_and_a_boot_id_can_belong_to_one_host() -> None:
    records = [
        reading(0, 10_000.0, host="node-1", energy=HOST, **NO_IDS),
        reading(1, 10_010.0, host=None, clock=ClockEvidence(boot_id="boot-1"), energy=HOST, **NO_IDS),
    ]
    found = attribute(records)
    assert found.bounds_j == pytest.approx((10_000.0, 20_010.0), rel=0.01)
    assert found.energy_j is None


def test_a_total_with_listed_devices_is_split_into_gpus_and_rest() -> None:
    records = [
        reading(n, None, 10_000.0, gpu_id=n, energy={"devices": [DeviceEnergy(gpu_id=n, energy_j=8000.0)], **NO_SCOPE})
        for n in range(2)
    ]
    found = attribute(records)
    assert (found.energy_j, found.gpu_j) == (None, 16_000.0)
    assert found.bounds_j == pytest.approx((18_000.0, 20_000.0))


@pytest.mark.parametrize(("names", "severity"), [({"gpu_uuid": "GPU-a"}, "error"), ({"gpu_uuid": None}, "warning")])
def test_shares_of_one_index_above_the_limit_are_a_warning(names: dict[str, Any], severity: str) -> None:
    """With CUDA_VISIBLE_DEVICES, each process can have a GPU 0 of its own."""
    shares = {"gpu_scope": "process", "total_scope": "process"}
    found = attribute([reading(index, 8000.0, gpu_id=0, energy=shares, **names) for index in range(3)])
    [finding] = [one for one in found.findings if one.code == "energy.exceeds_devices"]
    assert (finding.problem, found.energy_j) == (severity, 24_000.0)
    assert ("CUDA_VISIBLE_DEVICES" in finding.message) is (severity == "warning")


@pytest.mark.parametrize(
    ("run_sec", "later_sec", "bounds_j", "point_j"),
    [
        (60.0, 0.0, (2000.0, 3000.0), 2000.0),
        (80.0, 0.0, (2000.0, 4000.0), None),  # two windows of 40 s fit into the run
        (60.0, 40.0, (3000.0, 4000.0), None),  # the runs share 20 s
    ],
)
def test_a_point_far_below_the_plain_sum_needs_a_proof(
    run_sec: float, later_sec: float, bounds_j: tuple[float, float], point_j: float | None
) -> None:
    """Two processes add a model of 50 W, 2000 J each, over windows whose place within the run is unknown."""
    cpu = {"gpu_energy_j": None, "cpu_energy_j": 2000.0, "total_energy_j": 2000.0, "cpu_power_w": 50.0}
    starts = (START, START + timedelta(seconds=later_sec))
    records = [
        reading(n, None, 2000.0, timestamps=factories.timestamps(start, run_sec), energy=cpu | UNTIMED, **NO_IDS)
        for n, start in enumerate(starts)
    ]
    found = attribute(records)
    assert found.bounds_j == pytest.approx(bounds_j)
    assert found.energy_j == point_j


def test_windows_that_can_follow_each_other_are_not_proven_to_overlap() -> None:
    """Runs of 70 s start 40 s apart; the inference took 40 s, so that the energy windows can be separate."""
    records = [
        reading(
            n,
            8000.0,
            timestamps=factories.timestamps(START + timedelta(seconds=30 * n), 70.0),
            energy=HOST | UNTIMED_ENERGY,
        )
        for n in range(2)
    ]
    found = attribute(records)
    assert (found.bounds_j, found.energy_j) == ((8000.0, 16_000.0), None)
    assert [one.code for one in found.findings if one.problem == "error"] == []


def test_an_exact_window_does_not_start_together_with_a_run() -> None:
    """Process 0 began 20 s before process 1; its energy window begins with the run of process 1."""
    early = factories.timestamps(START - timedelta(seconds=20), 60.0)
    window = factories.timestamps(START, 40.0)
    records = [
        reading(0, 8000.0, timestamps=early, energy=HOST | {"window": window}),
        reading(1, 8000.0, timestamps=factories.timestamps(START, 100.0), energy=HOST | UNTIMED_ENERGY),
    ]
    found = attribute(records)
    assert (found.bounds_j, found.energy_j) == ((8000.0, 16_000.0), None)
    assert [one.code for one in found.findings if one.problem == "error"] == []


def test_a_host_whose_window_is_unknown_may_not_contain_an_exact_window() -> None:
    """The host was read for 40 s of a run of 100 s, and the device in the first 40 s of it."""
    host = reading(0, 8000.0, timestamps=factories.timestamps(START, 100.0), energy=HOST | UNTIMED_ENERGY)
    found = attribute([host, reading(1, 2000.0)])
    assert (found.bounds_j, found.energy_j) == ((8000.0, 10_000.0), None)
