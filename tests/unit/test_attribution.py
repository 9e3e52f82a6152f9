"""Attribution by hand: which readings count, scope by scope and sensor by sensor."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from llm_energy_measure.domain.experiment import ClockEvidence, ImportOrigin, Launcher
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.verification.attribution import Assumptions, Attribution, attribute
from tests.support import factories
from tests.support.faults_of_records import HOST, NO_IDS, NO_SCOPE, NODE, record

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.metrics import Scope

START = factories.START


def reading(index: int, joules: float, start: float = 0.0, seconds: float = 40.0, **changes: Any) -> RawProcessResult:
    """A process whose whole energy is one reading of GPU energy, within a window."""
    window = factories.timestamps(START + timedelta(seconds=start), seconds)
    energy = {"gpu_energy_j": joules, "total_energy_j": joules, "window": window, "duration_sec": seconds}
    return record(index, of=None, energy=energy | changes.pop("energy", {}), timestamps=window, **changes)


def codes(attribution: Attribution) -> set[str]:
    return {finding.code for finding in attribution.findings if finding.outcome == "failed"}


def outcome(attribution: Attribution, code: str) -> str:
    [finding] = [finding for finding in attribution.findings if finding.code == code]
    return finding.outcome


def is_open(attribution: Attribution, low_j: float, high_j: float) -> bool:
    """Whether no energy is given, but these bounds are."""
    assert attribution.bounds_j == pytest.approx((low_j, high_j))
    return (attribution.status, attribution.energy_j, attribution.factor) == ("undetermined", None, None)


# Host scope


def test_readings_of_one_host_count_once_by_their_mean() -> None:
    found = attribute([reading(0, 5000.0, energy=HOST), reading(1, 5200.0, energy=HOST)])
    assert (found.plain_j, found.energy_j, found.bounds_j) == (10200.0, 5100.0, (5000.0, 5200.0))
    assert (found.factor, found.status, found.basis) == (2.0, "estimated", ["mean_of_readings"])
    assert codes(found) == {"attribution.host_counted"}


def test_hosts_are_summed() -> None:
    records = [reading(index, 5000.0, energy=HOST, host=host) for index, host in enumerate("aab")]
    assert attribute(records).energy_j == 10000.0


def test_readings_of_a_host_one_after_the_other_are_different_joules() -> None:
    found = attribute([reading(0, 5000.0, energy=HOST), reading(1, 5200.0, start=40.0, energy=HOST)])
    assert (found.energy_j, found.factor, found.status, codes(found)) == (10200.0, 1.0, "exact", set())


def test_windows_of_a_host_that_overlap_in_part_give_bounds() -> None:
    """The window between shares 10 s with each of the others, at up to three times the mean power."""
    records = [
        reading(0, 4000.0, start=0.0, energy=HOST),
        reading(1, 5000.0, start=30.0, energy=HOST),
        reading(2, 3000.0, start=60.0, energy=HOST),
    ]
    found = attribute(records)
    assert is_open(found, 7000.0, 12000.0)
    assert outcome(found, "attribution.window_unknown") == "not_checked"


def test_a_short_overlap_of_a_host_gives_an_estimate() -> None:
    found = attribute([reading(0, 4000.0, energy=HOST), reading(1, 4000.0, start=39.0, energy=HOST)])
    assert found.energy_j == pytest.approx(7900.0)
    assert found.bounds_j == pytest.approx((7700.0, 8000.0))
    assert found.basis == ["mean_power"]


def test_the_window_that_contains_the_others_has_the_energy() -> None:
    records = [reading(0, 4000.0, energy=HOST), reading(1, 2400.0, start=10.0, seconds=15.0, energy=HOST)]
    found = attribute(records)
    assert (found.energy_j, found.bounds_j, found.status) == (4000.0, (4000.0, 4000.0), "exact")


def blind(index: int, joules: float, seconds: float, **changes: Any) -> RawProcessResult:
    """A process that read its host over a window whose place within its run is unknown."""
    energy = {"window": None, "duration_sec": seconds} | HOST
    return reading(index, joules, seconds=50.0, energy=energy, **changes)


def test_the_largest_reading_counts_where_windows_are_unknown() -> None:
    found = attribute([blind(0, 4000.0, 40.0), blind(1, 3000.0, 30.0), blind(2, 3600.0, 35.0)])
    assert (found.energy_j, found.bounds_j) == (4000.0, (4000.0, 7300.0))
    assert (found.status, found.basis) == ("estimated", ["largest_reading", "unknown_window"])
    assert codes(found) == {"attribution.host_counted"}


def test_unknown_windows_with_different_starts_give_bounds() -> None:
    assert is_open(attribute([blind(0, 4000.0, 48.0), blind(1, 3000.0, 45.0, start=5.0)]), 4000.0, 5500.0)
    # Windows of 40 and 30 s within these runs can follow each other.
    assert is_open(attribute([blind(0, 4000.0, 40.0), blind(1, 3000.0, 30.0, start=20.0)]), 4000.0, 7000.0)
    assert is_open(attribute([blind(0, 4000.0, 40.0), blind(1, 3000.0, 30.0, start=45.0)]), 4000.0, 7000.0)


def test_a_whole_host_in_components_and_in_one_figure_is_one_host() -> None:
    whole = record(0, of=2, energy={"gpu_energy_j": None, "total_energy_j": 9000.0, "total_scope": "host"})
    parts = record(
        1,
        of=2,
        energy={"gpu_energy_j": 8000.0, "cpu_energy_j": 900.0, "total_energy_j": 8900.0, **HOST, "cpu_scope": "host"},
    )
    assert attribute([whole, parts]).energy_j == 9000.0


def test_what_a_host_reading_contains_counts_with_it() -> None:
    host = reading(0, 9000.0, energy=HOST)
    own = [reading(1, 4000.0), reading(2, 3000.0, energy=NO_SCOPE), reading(3, 500.0, host="node-2")]
    found = attribute([host, *own])
    assert (found.plain_j, found.energy_j, found.bounds_j) == (16500.0, 9500.0, (9500.0, 9500.0))
    assert codes(found) == {"attribution.host_counted"}
    [finding] = [finding for finding in found.findings if finding.code == "attribution.host_counted"]
    assert (finding.effect_j, finding.processes) == (7000.0, [0, 1, 2])


def test_a_device_reading_outside_the_window_of_the_host_counts() -> None:
    """The last reading is half outside: it adds between 0 J and all of its energy."""
    host, after = reading(0, 9000.0, energy=HOST), reading(1, 4000.0, start=40.0)
    assert attribute([host, after]).energy_j == 13000.0
    assert is_open(attribute([host, after, reading(2, 1000.0, start=20.0)]), 13000.0, 14000.0)


def test_parts_above_their_host_contradict_it() -> None:
    found = attribute([reading(0, 5000.0, energy=HOST), reading(1, 4000.0), reading(2, 3000.0)])
    assert is_open(found, 5000.0, 12000.0)
    assert codes(found) == {"attribution.contradictory"}


def test_readings_of_one_host_that_differ_too_much_contradict_each_other() -> None:
    found = attribute([reading(0, 5000.0, energy=HOST), reading(1, 2000.0, energy=HOST)])
    assert is_open(found, 5000.0, 7000.0)
    assert codes(found) == {"attribution.contradictory"}


def test_a_host_in_one_figure_contains_every_component() -> None:
    whole = record(0, of=2, energy={"gpu_energy_j": None, "total_energy_j": 12000.0, "total_scope": "host"})
    part = record(1, of=2, energy={"cpu_energy_j": 900.0, "total_energy_j": 8900.0, "gpu_energy_j": 8000.0})
    assert attribute([whole, part]).energy_j == 12000.0
    of_host = {"cpu_energy_j": 900.0, "cpu_scope": "host", "total_energy_j": 8900.0, "gpu_energy_j": 8000.0}
    assert attribute([whole, record(1, of=2, energy=of_host)]).energy_j == 12000.0


def whole(index: int, joules: float, start: float = 0.0) -> RawProcessResult:
    """A process that read its whole host in one figure."""
    return reading(index, joules, start, energy={"gpu_energy_j": None, "total_scope": "host"})


def test_a_process_that_read_its_host_and_lists_its_gpus_counts_whole() -> None:
    listed = {"devices": [DeviceEnergy(gpu_id=n, gpu_uuid=f"GPU-{n}", energy_j=20_000.0) for n in range(4)]}
    of_host = {"cpu_energy_j": 5000.0, "total_energy_j": 85_000.0, "cpu_scope": "host", **HOST}
    found = attribute([reading(0, 80_000.0, energy=listed | of_host, gpu_name="4 x NVIDIA H100 80GB HBM3")])
    assert (found.energy_j, found.factor, codes(found)) == (85_000.0, 1.0, set())


def test_a_component_of_a_host_does_not_contain_the_others() -> None:
    shares = {"gpu_energy_j": None, "cpu_energy_j": 3000.0, "ram_energy_j": 100.0, "total_energy_j": 3100.0}
    scopes = {"cpu_scope": "process", "ram_scope": "host", "total_scope": None}
    records = [whole(0, 40_000.0), reading(1, 0.0, start=200.0, energy=shares | scopes)]
    assert attribute(records).energy_j == 43_100.0
    memory = {"gpu_energy_j": None, "ram_energy_j": 100.0, "total_energy_j": 100.0, "ram_scope": "host"}
    assert attribute([*records, reading(2, 0.0, start=200.0, energy=memory)]).energy_j == 43_100.0


def test_parts_are_compared_with_the_host_at_their_own_time() -> None:
    at_once = [whole(1, 1000.0, start=200.0), reading(2, 7000.0, start=200.0)]
    assert codes(attribute(at_once)) == {"attribution.contradictory"}
    assert attribute([whole(0, 40_000.0), *at_once]).bounds_j == (47_000.0, 48_000.0)


# Hosts


@pytest.mark.parametrize("fact", ["boot", "node", "boot and name"])
def test_hosts_are_known_by_boot_or_node(fact: str) -> None:
    def facts(host: int) -> dict[str, Any]:
        if fact == "node":
            return {"host": None, "launcher": Launcher(name="slurm", node=f"n{host}")}
        name = "named" if fact != "boot" and not host else None
        return {"host": name, "clock": ClockEvidence(boot_id=f"b{host}")}

    records = [reading(n, 5000.0, gpu_uuid=None, gpu_id=n % 4, **facts(n // 4)) for n in range(8)]
    assert attribute(records).energy_j == 40_000.0
    records = [reading(n, 5000.0, gpu_uuid=None, gpu_id=n % 4, **facts(0)) for n in range(8)]
    assert attribute(records).energy_j == 20_000.0


def booted(index: int, boot: str | None, **changes: Any) -> RawProcessResult:
    clock = None if boot is None else ClockEvidence(boot_id=boot)
    return reading(index, 5000.0, **{"gpu_uuid": None, "gpu_id": 0, "host": "localhost", "clock": clock} | changes)


def test_boot_ids_separate_machines_of_one_name() -> None:
    records = [booted(0, "b0"), booted(1, "b1")]
    found = attribute(records)
    assert found.energy_j == 10_000.0
    assert not codes(found)
    assert attribute([booted(n, f"b{n}", energy=HOST) for n in range(2)]).energy_j == 10_000.0
    assert attribute([*records, booted(2, "b0")]).energy_j == 10_000.0, "one machine's GPU counts once"


def test_a_boot_id_joins_containers_of_different_names() -> None:
    records = [booted(n, "b0", host=f"container-{n}", energy=HOST) for n in range(2)]
    assert (attribute(records).energy_j, attribute(records).factor) == (5000.0, 2.0)


def test_a_machine_that_was_started_again_is_one_host() -> None:
    records = [
        reading(n, 5000.0, gpu_uuid="GPU-a", host="n", start=100.0 * n, clock=ClockEvidence(boot_id=f"b{n}"))
        for n in range(2)
    ]
    assert not codes(attribute(records))


def test_one_gpu_on_two_running_machines_is_a_contradiction() -> None:
    records = [booted(n, f"b{n}", gpu_uuid="GPU-a") for n in range(2)]
    assert "attribution.two_names_one_host" in codes(attribute(records))


def test_a_process_without_a_boot_may_be_on_each_machine_of_its_name() -> None:
    assert is_open(attribute([booted(0, "b0"), booted(1, "b1"), booted(2, None)]), 10_000.0, 15_000.0)


def ranked(index: int, local_rank: int, **changes: Any) -> RawProcessResult:
    launcher = Launcher(name="torchrun", local_rank=local_rank)
    return reading(index, 5000.0, host=None, launcher=launcher, energy=HOST, gpu_uuid=None, **changes)


@pytest.mark.parametrize(
    ("local_ranks", "hosts"),
    [([0, 1, 2, 3], 1), ([0, 1, 0, 1], 2), ([0, 0, 1, 1], 2), ([0, 0, 0, 0], 4), ([0, 1, 2, 0], 2)],
)
def test_local_ranks_give_the_hosts(local_ranks: list[int], hosts: int) -> None:
    found = attribute([ranked(index, local_rank) for index, local_rank in enumerate(local_ranks)])
    assert (found.energy_j, found.status) == (5000.0 * hosts, "exact")


def test_lost_ranks_leave_the_layout_of_local_ranks() -> None:
    assert attribute([ranked(0, 0, world_size=4), ranked(3, 1, world_size=4)]).energy_j == 10_000.0


def test_local_ranks_in_no_known_layout_leave_the_hosts_open() -> None:
    assert is_open(attribute([ranked(n, rank) for n, rank in enumerate([0, 1, 1, 0])]), 10_000.0, 20_000.0)


# Device scope


def test_gpus_are_summed_and_the_same_gpu_counts_once() -> None:
    records = [reading(0, 5000.0, gpu_uuid="GPU-a"), reading(1, 5200.0, gpu_uuid="GPU-a"), reading(2, 100.0)]
    found = attribute(records)
    assert (found.plain_j, found.energy_j, found.gpu_j) == (10300.0, 5200.0, 5200.0)
    assert found.bounds_j == (5100.0, 5300.0)
    assert codes(found) == {"attribution.repeated_gpu"}


def test_the_same_index_on_another_host_is_another_gpu() -> None:
    records = [reading(index, 5000.0, gpu_uuid=None, gpu_id=0, host=host) for index, host in enumerate("ab")]
    assert attribute(records).energy_j == 10000.0


def test_an_index_that_each_process_counts_from_0_is_no_identity() -> None:
    """The readings differ by more than readings of one GPU."""
    found = attribute(
        [reading(index, joules, gpu_uuid=None, gpu_id=0) for index, joules in enumerate((8000.0, 5000.0))]
    )
    assert is_open(found, 8000.0, 13000.0)
    assert codes(found) == set()


def test_devices_of_one_process_are_counted_one_by_one() -> None:
    both = [DeviceEnergy(gpu_id=0, energy_j=3000.0), DeviceEnergy(gpu_id=1, energy_j=2000.0)]
    records = [
        reading(0, 5000.0, energy={"devices": both}),
        reading(1, 2100.0, gpu_uuid=None, gpu_id=1),
    ]
    found = attribute(records)
    assert (found.energy_j, found.bounds_j) == (5050.0, (5000.0, 5100.0))
    [finding] = [finding for finding in found.findings if finding.code == "attribution.repeated_gpu"]
    assert (finding.effect_j, finding.processes) == (2050.0, [0, 1])


def test_listed_devices_with_energies_need_no_scope() -> None:
    listed = [DeviceEnergy(gpu_uuid=f"GPU-{n}", energy_j=3000.0) for n in range(2)]
    found = attribute([reading(n, 6000.0, energy={"devices": listed} | NO_SCOPE) for n in range(2)])
    assert (found.energy_j, found.status, found.basis) == (6000.0, "estimated", ["listed_devices"])


def test_a_set_of_devices_contains_each_of_them() -> None:
    pair = [DeviceEnergy(gpu_uuid="GPU-a"), DeviceEnergy(gpu_uuid="GPU-b")]
    records = [reading(0, 9000.0, energy={"devices": pair}), reading(1, 4000.0, gpu_uuid="GPU-b")]
    assert attribute(records).energy_j == 9000.0
    overlapping = [DeviceEnergy(gpu_uuid="GPU-b"), DeviceEnergy(gpu_uuid="GPU-c")]
    assert is_open(attribute([records[0], reading(1, 8000.0, energy={"devices": overlapping})]), 9000.0, 17000.0)


def test_a_process_that_names_index_and_uuid_connects_the_two() -> None:
    by_index = reading(1, 5000.0, gpu_uuid=None, gpu_id=0)
    assert attribute([reading(0, 5000.0, gpu_uuid="GPU-a", gpu_id=0), by_index]).energy_j == 5000.0
    assert is_open(attribute([reading(0, 5000.0, gpu_uuid="GPU-a", gpu_id=None), by_index]), 5000.0, 10000.0)


def test_slices_of_one_gpu_have_one_sensor() -> None:
    slices = [
        reading(index, 3000.0 + index, gpu_is_mig=True, gpu_id=0, gpu_uuid=f"MIG-GPU-a/{index}/0") for index in (1, 2)
    ]
    found = attribute(slices)
    assert (found.energy_j, found.status, codes(found)) == (3001.5, "exact", {"attribution.shared_sensor"})


def test_the_two_dies_of_an_mi250_have_one_sensor() -> None:
    dies = [reading(index, 9000.0, gpu_uuid=None, gpu_id=index, gpu_name="AMD Instinct MI250X") for index in range(4)]
    assert attribute(dies).energy_j == 18000.0


@pytest.mark.parametrize(
    "part",
    [
        {"gpu_is_mig": True, "gpu_name": "NVIDIA A100-SXM4-80GB", "gpu_id": None},
        {"gpu_is_mig": True, "gpu_name": "NVIDIA A100-SXM4-80GB"},
        {"gpu_name": "AMD Instinct MI250X", "gpu_id": None},
    ],
)
def test_parts_of_unidentified_boards_can_be_of_one_board(part: dict[str, Any]) -> None:
    """Each read 300 W: all of them together are one board's, or as many boards'."""
    named = [part | ({"gpu_id": n} if "gpu_id" not in part else {}) | {"gpu_uuid": f"MIG-7f3{n}"} for n in range(7)]
    found = attribute([reading(n, 12_000.0, **named[n]) for n in range(7)])
    [finding] = [finding for finding in found.findings if finding.code == "attribution.shared_sensor"]
    assert finding.outcome == "not_checked"
    assert finding.processes == list(range(7))
    assert is_open(found, 12_000.0, 84_000.0)
    assert outcome(attribute([reading(0, 12_000.0, **named[0])]), finding.code) == "passed"


GH200: dict[str, Any] = {"gpu_name": "NVIDIA GH200 480GB"}
CPU: dict[str, Any] = {"gpu_energy_j": None, "cpu_energy_j": 900.0, "total_energy_j": 900.0, "cpu_scope": "host"}


def of_module(attribution: Attribution) -> tuple[str, float | None, list[int]]:
    [finding] = [finding for finding in attribution.findings if finding.code == "attribution.module_sensor"]
    return finding.outcome, finding.effect_j, finding.processes


def test_a_module_is_known_by_the_names_of_its_devices() -> None:
    own = {"devices": [DeviceEnergy(gpu_id=0, gpu_name="NVIDIA GH200 480GB", energy_j=8000.0)]}
    found = attribute([reading(0, 8000.0, gpu_name=None, energy=own | CPU | {"gpu_energy_j": 8000.0})])
    assert of_module(found)[0] == "passed", "the total has no CPU energy besides the GPU's"
    both = own | CPU | {"gpu_energy_j": 8000.0, "total_energy_j": 8900.0}
    found = attribute([reading(0, 8000.0, gpu_name=None, energy=both)])
    assert is_open(found, 8000.0, 8900.0)
    assert of_module(found) == ("not_checked", 900.0, [0])


def test_bounds_contain_cpu_energy_that_a_module_sensor_may_include() -> None:
    found = attribute([reading(0, 8000.0, **GH200), reading(1, 0.0, energy=CPU, **NO_IDS), reading(2, 5.0, host="b")])
    assert is_open(found, 8005.0, 8905.0)
    assert of_module(found) == ("not_checked", 900.0, [0, 1])


def test_a_module_does_not_cover_what_was_read_at_another_time() -> None:
    found = attribute([reading(0, 8000.0, **GH200), reading(1, 0.0, start=40.0, energy=CPU, **NO_IDS)])
    assert (found.bounds_j, of_module(found)[0]) == ((8900.0, 8900.0), "passed")


def test_a_module_contains_no_more_than_its_sensor_read() -> None:
    """The CPU's reading is of two modules, the GPU's of one."""
    found = attribute([reading(0, 600.0, **GH200), reading(1, 0.0, energy=CPU, **NO_IDS)])
    assert is_open(found, 900.0, 1500.0)
    assert of_module(found) == ("not_checked", 600.0, [0, 1])


# Process scope


def test_shares_of_processes_are_summed() -> None:
    shares = {"gpu_scope": "process", "total_scope": "process"}
    found = attribute([reading(index, 2000.0, gpu_uuid="GPU-a", energy=shares) for index in range(3)])
    assert (found.energy_j, found.status, codes(found)) == (6000.0, "exact", set())


def test_shares_above_the_limit_of_the_board_are_an_error() -> None:
    shares = {"gpu_scope": "process", "total_scope": "process"}
    found = attribute([reading(index, 8000.0, gpu_uuid="GPU-a", energy=shares) for index in range(3)])
    assert (found.energy_j, codes(found)) == (24000.0, {"energy.exceeds_devices"})


def test_a_share_of_a_gpu_that_is_also_read_whole_is_open() -> None:
    share = {"gpu_scope": "process", "total_scope": "process"}
    records = [reading(0, 6000.0, gpu_uuid="GPU-a"), reading(1, 2000.0, gpu_uuid="GPU-a", energy=share)]
    assert is_open(attribute(records), 6000.0, 8000.0)


# Components of one process with scopes of their own


def test_each_component_is_counted_by_its_own_scope() -> None:
    records = [
        record(
            index,
            of=2,
            energy={
                "gpu_energy_j": 4000.0,
                "cpu_energy_j": 1000.0 + index,
                "ram_energy_j": 50.0,
                "total_energy_j": 5050.0 + index,
                "gpu_scope": "device",
                "cpu_scope": "host",
                "ram_scope": "process",
            },
        )
        for index in range(2)
    ]
    found = attribute(records)
    assert found.energy_j == 8000.0 + 1000.5 + 100.0
    assert (found.gpu_j, found.cpu_j, found.ram_j, found.status) == (8000.0, 1000.5, 100.0, "exact")


def test_a_cpu_counter_covers_the_host() -> None:
    cpu = {"cpu_energy_j": 900.0, "total_energy_j": 8900.0, "total_scope": None, "cpu_provenance": "measured"}
    assert attribute([reading(n, 8000.0, energy=cpu) for n in range(2)]).cpu_j == 900.0
    unknown = attribute([reading(n, 8000.0, energy=cpu | {"cpu_provenance": None}) for n in range(2)])
    assert is_open(unknown, 16_900.0, 17_800.0)


# Unknown scope

TWO_BOARDS: dict[str, Any] = {"gpu_name": "2 x NVIDIA A100-PCIE-40GB", **NO_IDS}


def open_pair(watts: float, **changes: Any) -> Attribution:
    """Two processes that each read that power on a host with two boards of 250 W."""
    return attribute([reading(n, 40 * watts, energy=NO_SCOPE, **(TWO_BOARDS | changes)) for n in range(2)])


@pytest.mark.parametrize(
    ("watts", "found"), [(262.0, "passed"), (263.0, "not_checked"), (307.0, "not_checked"), (309.0, "failed")]
)
def test_power_above_the_stated_boards_is_an_error_beyond_noise(watts: float, found: str) -> None:
    assert outcome(open_pair(watts), "energy.over_counted") == found


@pytest.mark.parametrize(("watts", "found"), [(299.0, "not_checked"), (301.0, "failed")])
def test_noise_explains_less_in_the_sum_of_many_readings(watts: float, found: str) -> None:
    records = [reading(n, 40 * watts, energy=NO_SCOPE, **NODE) for n in range(4)]
    assert outcome(attribute(records), "energy.over_counted") == found


def test_each_reading_needs_all_boards_so_every_process_read_the_host() -> None:
    found = open_pair(400.0)
    assert (found.energy_j, found.bounds_j, found.factor) == (16_000.0, (16_000.0, 16_000.0), 2.0)
    assert (found.status, found.basis) == ("estimated", ["power"])
    [finding] = [finding for finding in found.findings if finding.code == "energy.over_counted"]
    assert "every process read the whole host" in finding.message
    assert (finding.expected, finding.found, finding.effect_j) == (500.0, 800.0, 16_000.0)


def test_readings_within_the_boards_stay_open() -> None:
    found = open_pair(200.0)
    assert is_open(found, 8000.0, 16_000.0)
    [finding] = [finding for finding in found.findings if finding.code == "attribution.scope_unknown"]
    assert "--assume gpu-scope=device" in finding.message
    assert "each process read its own hardware" in finding.message


@pytest.mark.parametrize(
    ("board", "limit"), [("2 x NVIDIA GeForce RTX 4090", None), ("2 x Zephyr 9000", None), ("1 x NVIDIA L4", None)]
)
def test_boards_without_a_proven_limit_prove_nothing(board: str, limit: float | None) -> None:
    found = open_pair(5000.0, gpu_name=board, gpu_power_limit_w=limit)
    assert is_open(found, 200_000.0, 400_000.0)
    assert codes(found) == set()


def test_a_limit_of_the_record_is_enforced() -> None:
    assert codes(open_pair(700.0, gpu_name="2 x NVIDIA GeForce RTX 4090", gpu_power_limit_w=450.0))
    assert not codes(open_pair(400.0, gpu_power_limit_w=400.0))


def test_the_user_can_state_the_boards() -> None:
    records = [reading(n, 40 * 400.0, energy=NO_SCOPE, **NO_IDS) for n in range(2)]
    assert is_open(attribute(records), 16_000.0, 32_000.0)
    found = attribute(records, Assumptions(boards=2))
    assert (found.energy_j, codes(found)) == (16_000.0, {"energy.over_counted"})
    unnamed = [reading(n, 40 * 400.0, energy=NO_SCOPE, gpu_name=None, **NO_IDS) for n in range(2)]
    assert attribute(unnamed, Assumptions(boards=2)).energy_j is None
    assert attribute(unnamed, Assumptions(boards=2, board="NVIDIA A100-PCIE-40GB")).energy_j == 16_000.0


def test_the_user_can_state_the_scope() -> None:
    records = [reading(n, 8000.0, energy=NO_SCOPE, gpu_uuid=f"GPU-{n // 2}") for n in range(4)]
    expected: dict[Scope, float] = {"device": 16_000.0, "host": 8000.0, "process": 32_000.0}
    for scope, joules in expected.items():
        found = attribute(records, Assumptions(gpu_scope=scope))
        assert (found.energy_j, found.status, found.basis) == (joules, "estimated", ["assumed"])
        assert outcome(found, "attribution.assumed") == "not_checked"


def test_recorded_scopes_come_before_stated_ones() -> None:
    found = attribute([reading(n, 8000.0) for n in range(2)], Assumptions(gpu_scope="host"))
    assert (found.energy_j, found.status) == (16_000.0, "exact")


def test_one_reader_of_unknown_scope_counts_in_full() -> None:
    nothing = {"gpu_energy_j": None, "total_energy_j": None, **NO_SCOPE}
    found = attribute([reading(0, 9000.0, energy=NO_SCOPE), reading(1, 0.0, energy=nothing)])
    assert (found.energy_j, found.status, found.basis) == (9000.0, "estimated", ["one_reader"])


def test_processes_that_ran_one_after_the_other_are_summed() -> None:
    after = [reading(index, 30_000.0, start=40.0 * index, energy=NO_SCOPE, **TWO_BOARDS) for index in range(3)]
    found = attribute(after)
    assert (found.energy_j, found.factor, found.status) == (90_000.0, 1.0, "estimated")


def test_each_host_is_judged_by_itself() -> None:
    records = [
        reading(index, joules, energy=NO_SCOPE, host=host, **NODE)
        for index, (joules, host) in enumerate([(3.2e4, "a"), (3.3e4, "a"), (8e3, "b"), (8.2e3, "b")])
    ]
    found = attribute(records)
    assert found.bounds_j == pytest.approx((3.2e4 + 8.2e3, 3.3e4 + 1.62e4))
    assert codes(found) == {"energy.over_counted"}


def test_a_reading_of_a_cpu_proves_nothing_about_boards() -> None:
    """A process that reads the CPU next to processes that each read the node."""
    node = [reading(index, 3.3e4, energy=NO_SCOPE, **NODE) for index in range(4)]
    monitor = reading(4, 0.0, energy=CPU, gpu_name=None, **NO_IDS)
    assert attribute([*node, monitor]).energy_j == 33_900.0


def test_devices_of_a_tool_that_lists_the_host_state_its_boards() -> None:
    listed = {"devices": [DeviceEnergy(gpu_name="NVIDIA A100-PCIE-40GB")] * 4} | NO_SCOPE
    records = [reading(index, 3.3e4, energy=listed, **NO_IDS) for index in range(2)]
    assert is_open(attribute(records), 3.3e4, 6.6e4), "a process may list the boards that it sees"
    origin = ImportOrigin(tool="codecarbon")
    found = attribute([reading(index, 3.3e4, energy=listed, origin=origin, **NO_IDS) for index in range(2)])
    assert (found.energy_j, found.factor) == (3.3e4, 2.0)
    assert codes(found) == {"energy.over_counted"}


def test_devices_of_scope_device_are_those_that_the_process_measured() -> None:
    own = {"devices": [DeviceEnergy(gpu_name="NVIDIA A100-PCIE-40GB")] * 4}
    assert codes(attribute([reading(0, 3e4, energy=own, **NO_IDS)])) == set()


def test_one_process_on_several_gpus_may_draw_what_they_draw() -> None:
    wide: dict[str, Any] = {"effective_config": {"vllm": {"tensor_parallel_size": 4}}}
    assert codes(attribute([reading(0, 40 * 900.0, **wide)])) == set()
    assert codes(attribute([reading(0, 40 * 900.0)])) == {"energy.exceeds_devices"}


@pytest.mark.parametrize(
    ("watts", "found"), [(262.0, "passed"), (263.0, "not_checked"), (327.0, "not_checked"), (328.0, "failed")]
)
def test_power_of_one_gpu_above_its_limit_is_an_error_beyond_noise(watts: float, found: str) -> None:
    assert outcome(attribute([reading(0, 40 * watts)]), "energy.exceeds_devices") == found


def own_boards(*watts: float) -> Attribution:
    """Processes that each read their own board of 250 W."""
    return attribute([reading(n, 40 * power, gpu_id=n, gpu_uuid=f"GPU-{n}") for n, power in enumerate(watts)])


@pytest.mark.parametrize(
    ("watts", "found", "processes"),
    [
        ([200.0] * 7 + [340.0], "not_checked", [7]),
        ([200.0] * 7 + [343.0], "failed", [7]),
        ([200.0] * 4999 + [376.0], "failed", [4999]),
        ([299.0] * 8, "not_checked", [0, 1, 2, 3, 4, 5, 6, 7]),
        ([301.0] * 8, "failed", [0, 1, 2, 3, 4, 5, 6, 7]),
        ([270.0] + [330.0] * 7, "failed", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_noise_explains_one_of_many_readings_but_not_their_mean(
    watts: list[float], found: str, processes: list[int]
) -> None:
    [finding] = [one for one in own_boards(*watts).findings if one.code == "energy.exceeds_devices"]
    assert (finding.outcome, finding.processes) == (found, processes)


def test_a_reading_of_unknown_scope_may_cover_other_boards() -> None:
    found = attribute([reading(0, 40 * 900.0, energy=NO_SCOPE)])
    assert outcome(found, "energy.exceeds_devices") == "not_checked"


def test_the_boards_of_a_mixed_node_draw_what_all_of_them_draw() -> None:
    mixed = "2 x NVIDIA A100-PCIE-40GB2 x NVIDIA L4"
    assert is_open(open_pair(300.0, gpu_name=mixed), 12_000.0, 24_000.0)
    found = open_pair(610.0, gpu_name=mixed)
    [over] = [finding for finding in found.findings if finding.code == "energy.over_counted"]
    assert (over.outcome, over.expected, found.factor) == ("failed", 644.0, 2.0)


def test_without_an_energy_window_the_longest_time_gives_the_power() -> None:
    """The run of 40 s is the longest known time: the power is at least the energy over 40 s."""
    short = {"window": None, "duration_sec": None, **NO_SCOPE}
    records = [reading(index, 8e3, energy=short, **NODE) for index in range(4)]
    assert outcome(attribute(records), "energy.over_counted") == "not_checked"
    records = [reading(index, 3.3e4, energy=short, **NODE) for index in range(4)]
    assert outcome(attribute(records), "energy.over_counted") == "failed"


def test_a_tool_with_documented_scope_proves_the_over_count() -> None:
    """Records of the earliest files: one start for all, no end, and the length of each window."""
    times = factories.timestamps(START, end=None, duration_sec=None)
    records = [
        reading(
            index,
            joules,
            energy={"window": None, "duration_sec": joules / 500.0} | NO_SCOPE,
            host=None,
            launcher=Launcher(local_rank=index),
            origin=ImportOrigin(tool="llm-energy-measure 1.x"),
            **NODE,
        )
        for index, joules in enumerate((11_000.0, 17_000.0, 16_000.0, 15_000.0))
    ]
    found = attribute([structs.replace(record, timestamps=times) for record in records])
    assert (found.energy_j, found.bounds_j) == (17_000.0, (17_000.0, 38_000.0))
    assert found.basis == ["largest_reading", "one_host", "tool_scope", "unknown_window"]
    assert codes(found) == {"attribution.host_counted"}


def test_no_energy_is_undetermined() -> None:
    nothing = {"gpu_energy_j": None, "total_energy_j": None}
    found = attribute([reading(0, 0.0, energy=nothing)])
    assert (found.plain_j, found.energy_j, found.bounds_j, found.status) == (None, None, None, "undetermined")
