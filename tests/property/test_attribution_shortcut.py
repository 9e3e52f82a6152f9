"""Attribution leaves out most of its work where no two readings can be of the same joules: never for another result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.verification import attribution
from llm_energy_measure.verification.power import power_of_host
from llm_energy_measure.verification.processes import by_host, processes_of
from llm_energy_measure.verification.readings import energies_apart, energies_of, readings_of
from tests.support import factories

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

parts = st.sampled_from([0.1, 700.0, 1e5, None, 0.0])


@st.composite
def neighbours(draw: st.DrawFn) -> list[RawProcessResult]:
    """Processes of one host that mostly, and not always, read sensors of their own."""
    records = []
    for index in range(draw(st.integers(1, 5))):
        gpu_j, cpu_j, ram_j = draw(parts), draw(parts), draw(parts)
        known = math.fsum(part or 0.0 for part in (gpu_j, cpu_j, ram_j))
        devices = [
            DeviceEnergy(gpu_uuid=f"GPU-{index}-{n}", energy_j=None if gpu_j is None else gpu_j / 3 * (n + 1))
            for n in range(2)
        ]
        energy = factories.energy(
            total_energy_j=draw(st.sampled_from([known] * 6 + [known + 50.0, known / 2, None])),
            gpu_energy_j=gpu_j,
            cpu_energy_j=cpu_j,
            ram_energy_j=ram_j,
            total_scope=draw(st.sampled_from(["process"] * 4 + ["host", None])),
            gpu_scope=draw(st.sampled_from(["device", "process"] * 4 + ["host", None])),
            cpu_scope=draw(st.sampled_from([None, "process", "host"])),
            devices=draw(st.sampled_from([None, devices])),
        )
        uuid = draw(st.sampled_from([f"GPU-{index}"] * 6 + ["GPU-0", "MIG-GPU-0/1/0", "MIG-x"]))
        records.append(factories.raw(process_index=index, host="a", gpu_uuid=uuid, energy_metrics=energy))
    return records


@given(neighbours())
def test_what_is_apart_has_nothing_that_is_counted_twice_or_in_doubt(records: list[RawProcessResult]) -> None:
    [(host, processes)] = by_host(processes_of(records)).items()
    apart, power = energies_apart(processes), power_of_host(host, processes)
    if apart is None or power.over_counted:
        return
    readings = [reading for process in processes for reading in readings_of(process)]
    assert attribution._share(host, readings, power) == attribution.Share()
    assert apart == {name: own for name, own in energies_of(readings).items() if name != "rest"}


def test_one_gpu_each_beside_a_host_s_cpu_that_one_process_reads_is_apart() -> None:
    scopes = {"gpu_scope": "device", "cpu_scope": "host", "ram_scope": "host"}
    first = factories.energy(0, total_energy_j=1062.5 + 901.25 + 7.75, **scopes)
    second = factories.energy(1, total_energy_j=1312.5, cpu_energy_j=None, ram_energy_j=None, **scopes)
    records = [factories.raw(process_index=index, energy_metrics=one) for index, one in enumerate((first, second))]
    assert energies_apart(processes_of(records)) == {"gpu": [1062.5, 1312.5], "cpu": [901.25], "ram": [7.75]}


@pytest.mark.parametrize(
    ("changes", "energy"),
    [
        ({"gpu_uuid": "GPU-a"}, {}),
        ({"gpu_uuid": None, "gpu_id": None}, {}),
        ({"gpu_uuid": "MIG-{}", "gpu_id": None}, {}),
        ({}, {"gpu_scope": "host"}),
        ({}, {"gpu_scope": None, "cpu_scope": "process"}),
        ({}, {"cpu_scope": "host"}),
        ({}, {"cpu_scope": None}),
        ({}, {"cpu_energy_j": None}),
    ],
)
def test_what_two_processes_can_both_have_seen_is_not_apart(changes: dict[str, Any], energy: dict[str, Any]) -> None:
    own: dict[str, Any] = {"gpu_scope": "device", "cpu_scope": "process", "total_energy_j": 1062.5 + 901.25}
    records = []
    for index in range(2):
        ids: dict[str, Any] = {name: None if value is None else value.format(index) for name, value in changes.items()}
        metrics = factories.energy(ram_energy_j=None, **(own | energy))
        records.append(factories.raw(process_index=index, energy_metrics=metrics, **ids))
    assert energies_apart(processes_of(records)) is None


def test_two_processes_on_gpus_of_their_own_are_apart() -> None:
    energy = factories.energy(
        gpu_scope="device", cpu_scope="process", total_energy_j=1062.5 + 901.25, ram_energy_j=None
    )
    records = [factories.raw(process_index=index, energy_metrics=energy) for index in range(2)]
    assert energies_apart(processes_of(records)) == {"gpu": [1062.5] * 2, "cpu": [901.25] * 2}


def test_what_physics_takes_is_told_also_where_no_total_is_known() -> None:
    unscoped = factories.energy(gpu_energy_j=1e6, total_energy_j=None)
    found = attribution.attribute([factories.raw(process_index=index, energy_metrics=unscoped) for index in range(2)])
    [finding] = [finding for finding in found.findings if finding.code == "energy.over_counted"]
    assert (finding.outcome, finding.effect_j) == ("failed", 0.0)
