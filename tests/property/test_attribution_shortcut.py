"""Attribution skips most of its work where no two readings can share a joule: the result is the same."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.verification.explanations import energies_alone, energy_of_host
from llm_energy_measure.verification.host_energy import HostEnergy
from llm_energy_measure.verification.power import boards_of_host
from llm_energy_measure.verification.processes import processes_of
from llm_energy_measure.verification.ranges import ZERO
from llm_energy_measure.verification.readings import readings_of, separate_energies
from tests.support import factories

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

parts = st.sampled_from([0.1, 700.0, 1e5, None, 0.0])


@st.composite
def neighbours(draw: st.DrawFn) -> list[RawProcessResult]:
    """Draw processes of one host. Most of them read their own sensors, and some do not."""
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
            gpu_scope=draw(st.sampled_from(["device"] * 8 + ["process", "host", None])),
            cpu_scope=draw(st.sampled_from([None, "process", "host"])),
            devices=draw(st.sampled_from([None, devices])),
        )
        uuid = draw(st.sampled_from([f"GPU-{index}"] * 6 + ["GPU-0", "MIG-GPU-0/1/0", "MIG-x"]))
        records.append(factories.raw(process_index=index, host="a", gpu_uuid=uuid, energy_metrics=energy))
    return records


@given(neighbours())
def test_energies_that_share_no_joule_are_explained_in_the_same_way(records: list[RawProcessResult]) -> None:
    processes = processes_of(records)
    apart = separate_energies(processes)
    if apart is None:
        return
    readings = [reading for process in processes for reading in readings_of(process)]
    explained = energy_of_host(readings, lambda: boards_of_host(processes), has_module=False)
    total = math.fsum(joules for energies in apart.values() for joules in energies)
    assert explained.total.low_j == explained.total.high_j == pytest.approx(total)
    assert explained.total.basis == frozenset()
    assert {name: part.point_j for name, part in explained.components.items()} == pytest.approx(
        {name: math.fsum(energies) for name, energies in apart.items()}
    )
    assert not explained.double_counts
    assert not explained.contradictions
    assert not explained.open_scopes


@given(neighbours())
def test_a_process_alone_on_its_host_is_explained_in_the_same_way(records: list[RawProcessResult]) -> None:
    for process in processes_of(records):
        readings = readings_of(process)
        alone = energies_alone([readings])
        explained = energy_of_host(readings, partial(boards_of_host, [process]), has_module=False)
        if alone is not None:
            assert alone == (explained.components, explained.total)
            assert structs.replace(explained, total=ZERO, components={}) == HostEnergy()


def test_readings_of_one_component_of_a_process_are_compared() -> None:
    devices = [DeviceEnergy(gpu_uuid=f"GPU-{n}", energy_j=531.25) for n in range(2)]
    energy = factories.energy(gpu_scope="device", devices=devices)
    [process] = processes_of([factories.raw(energy_metrics=energy)])
    assert energies_alone([readings_of(process)]) is None
    [process] = processes_of([factories.raw(energy_metrics=factories.energy(gpu_scope="device"))])
    assert energies_alone([readings_of(process)]) is not None


def test_own_gpus_and_one_reader_of_the_cpu_share_no_joule() -> None:
    scopes = {"gpu_scope": "device", "cpu_scope": "host", "ram_scope": "host"}
    first = factories.energy(0, total_energy_j=1062.5 + 901.25 + 7.75, **scopes)
    second = factories.energy(1, total_energy_j=1312.5, cpu_energy_j=None, ram_energy_j=None, **scopes)
    records = [factories.raw(process_index=index, energy_metrics=one) for index, one in enumerate((first, second))]
    assert separate_energies(processes_of(records)) == {"gpu": [1062.5, 1312.5], "cpu": [901.25], "ram": [7.75]}


@pytest.mark.parametrize(
    ("changes", "energy"),
    [
        ({"gpu_uuid": "GPU-a"}, {}),
        ({"gpu_uuid": None, "gpu_id": None}, {}),
        ({"gpu_uuid": "MIG-{}", "gpu_id": None}, {}),
        ({}, {"gpu_scope": "host"}),
        ({}, {"gpu_scope": "process"}),
        ({}, {"gpu_scope": None, "cpu_scope": "process"}),
        ({}, {"cpu_scope": "host"}),
        ({}, {"cpu_scope": None}),
        ({}, {"cpu_energy_j": None}),
    ],
)
def test_readings_that_may_share_joules_are_compared(changes: dict[str, Any], energy: dict[str, Any]) -> None:
    own: dict[str, Any] = {"gpu_scope": "device", "cpu_scope": "process", "total_energy_j": 1062.5 + 901.25}
    records = []
    for index in range(2):
        ids: dict[str, Any] = {name: None if value is None else value.format(index) for name, value in changes.items()}
        metrics = factories.energy(ram_energy_j=None, **(own | energy))
        records.append(factories.raw(process_index=index, energy_metrics=metrics, **ids))
    assert separate_energies(processes_of(records)) is None


def test_two_processes_on_gpus_of_their_own_share_no_joule() -> None:
    energy = factories.energy(
        gpu_scope="device", cpu_scope="process", total_energy_j=1062.5 + 901.25, ram_energy_j=None
    )
    records = [factories.raw(process_index=index, energy_metrics=energy) for index in range(2)]
    assert separate_energies(processes_of(records)) == {"gpu": [1062.5] * 2, "cpu": [901.25] * 2}
