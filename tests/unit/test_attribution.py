"""Attribution by hand: whose reading counts, scope by scope and sensor by sensor."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.domain.experiment import ClockEvidence, Launcher
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.verification.attribution import Attribution, attribute
from llm_energy_measure.verification.boards import BOARD_MODELS, boards_named, model_named
from tests.support import factories
from tests.support.faults_of_records import HOST, NO_IDS, NO_SCOPE, NODE, record

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

START = factories.START


def reading(index: int, joules: float, start: float = 0.0, seconds: float = 40.0, **changes: Any) -> RawProcessResult:
    """A process whose whole energy is one reading of GPU energy, within a window."""
    window = factories.timestamps(START + timedelta(seconds=start), seconds)
    energy = {"gpu_energy_j": joules, "total_energy_j": joules, "window": window, "duration_sec": seconds}
    return record(index, of=None, energy=energy | changes.pop("energy", {}), timestamps=window, **changes)


def codes(attribution: Attribution) -> set[str]:
    return {finding.code for finding in attribution.findings if finding.outcome == "failed"}


# Host scope


def test_a_host_that_several_processes_measured_counts_once() -> None:
    found = attribute([reading(0, 5000.0, energy=HOST), reading(1, 5200.0, energy=HOST)])
    assert (found.plain_j, found.energy_j, found.bounds_j) == (10200.0, 5200.0, (5200.0, 5200.0))
    assert found.factor == pytest.approx(10200 / 5200)
    assert codes(found) == {"attribution.host_counted"}


def test_hosts_are_summed() -> None:
    records = [reading(index, 5000.0, energy=HOST, host=host) for index, host in enumerate("aab")]
    assert attribute(records).energy_j == 10000.0


def test_readings_of_a_host_one_after_the_other_are_different_joules() -> None:
    found = attribute([reading(0, 5000.0, energy=HOST), reading(1, 5200.0, start=40.0, energy=HOST)])
    assert (found.energy_j, found.factor, codes(found)) == (10200.0, 1.0, set())


def test_largest_set_of_readings_without_overlap_counts() -> None:
    first, between, last = (
        reading(0, 4000.0, start=0.0, energy=HOST),
        reading(1, 5000.0, start=30.0, energy=HOST),
        reading(2, 3000.0, start=60.0, energy=HOST),
    )
    found = attribute([first, between, last])
    assert found.energy_j == 7000.0
    assert found.bounds_j == (7000.0, 12000.0), "of the reading between, a part may be joules of its own"


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


def test_what_was_read_at_another_time_is_not_in_a_host_reading() -> None:
    found = attribute([reading(0, 9000.0, energy=HOST), reading(1, 4000.0, start=40.0), reading(2, 1000.0, start=20.0)])
    assert (found.energy_j, found.bounds_j) == (13000.0, (13000.0, 14000.0))


def test_parts_that_are_more_than_their_host_count_themselves() -> None:
    found = attribute([reading(0, 5000.0, energy=HOST), reading(1, 4000.0), reading(2, 3000.0)])
    assert found.energy_j == 7000.0


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


@pytest.mark.parametrize("first", [0, 1])
def test_longest_of_equal_host_readings_counts(first: int) -> None:
    long, short = reading(first, 10.0, 20.0, 40.0, energy=HOST), reading(1 - first, 10.0, 30.0, 30.0, energy=HOST)
    part = reading(2, 10.0, 0.0, 30.0, gpu_uuid=None, energy=NO_SCOPE)
    assert attribute(sorted([long, short, part], key=lambda one: one.process_index)).energy_j == 10.0


def test_a_component_of_a_host_does_not_contain_the_others() -> None:
    shares = {"gpu_energy_j": None, "cpu_energy_j": 3000.0, "ram_energy_j": 100.0, "total_energy_j": 3100.0}
    scopes = {"cpu_scope": "process", "ram_scope": "host", "total_scope": None}
    records = [whole(0, 40_000.0), reading(1, 0.0, start=200.0, energy=shares | scopes)]
    memory = {"gpu_energy_j": None, "ram_energy_j": 100.0, "total_energy_j": 100.0, "ram_scope": "host"}
    assert attribute(records).energy_j == 43_100.0
    assert attribute([*records, reading(2, 0.0, start=200.0, energy=memory)]).energy_j == 43_100.0


def test_parts_are_compared_with_the_host_at_their_own_time() -> None:
    at_once = [whole(1, 1000.0, start=200.0), reading(2, 7000.0, start=200.0)]
    assert attribute(at_once).energy_j == 7000.0
    assert attribute([whole(0, 40_000.0), *at_once]).energy_j == 47_000.0


@pytest.mark.parametrize("index", [1, 3])
def test_the_number_of_a_process_is_not_taken_for_that_of_a_gpu(index: int) -> None:
    unknown = reading(1, 9000.0, gpu_id=None, gpu_uuid=None, energy=NO_SCOPE)
    records = [whole(0, 15_000.0), unknown, reading(2, 9000.0, gpu_id=index, gpu_uuid=None)]
    assert attribute(records).energy_j == 18_000.0


@pytest.mark.parametrize("fact", ["boot", "node", "boot beside a host"])
def test_hosts_without_names_are_told_apart_by_boot_or_node(fact: str) -> None:
    def told(host: int) -> dict[str, Any]:
        if fact == "node":
            return {"host": None, "launcher": Launcher(name="slurm", node=f"n{host}")}
        name = "named" if fact != "boot" and not host else None
        return {"host": name, "clock": ClockEvidence(boot_id=f"b{host}")}

    records = [reading(n, 5000.0, gpu_uuid=None, gpu_id=n % 4, **told(n // 4)) for n in range(8)]
    assert attribute(records).energy_j == 40_000.0
    records = [reading(n, 5000.0, gpu_uuid=None, gpu_id=n % 4, **told(0)) for n in range(8)]
    assert attribute(records).energy_j == 20_000.0


def booted(index: int, boot: str | None, **changes: Any) -> RawProcessResult:
    clock = None if boot is None else ClockEvidence(boot_id=boot)
    return reading(index, 5000.0, gpu_uuid=None, gpu_id=0, host="localhost", clock=clock, **changes)


def test_concurrent_boots_of_one_hostname_are_two_machines() -> None:
    records = [booted(0, "b0"), booted(1, "b1")]
    found = attribute(records)
    assert found.energy_j == 10_000.0
    assert not codes(found)
    assert attribute([booted(n, f"b{n}", energy=HOST) for n in range(2)]).energy_j == 10_000.0
    assert attribute([*records, booted(2, "b0")]).energy_j == 10_000.0, "one machine's GPU counts once"


def test_a_machine_that_was_started_again_is_one_host() -> None:
    """It has its GPUs under one name, and no two boots of it at one time."""
    records = [
        reading(n, 5000.0, gpu_uuid="GPU-a", host="n", start=100.0 * n, clock=ClockEvidence(boot_id=f"b{n}"))
        for n in range(2)
    ]
    assert not codes(attribute(records))


def test_a_boot_that_is_unknown_tells_no_machine_from_another() -> None:
    assert attribute([booted(0, "b0"), booted(1, "b1"), booted(2, None)]).energy_j == 5000.0


# Device scope


def test_gpus_are_summed_and_the_same_gpu_counts_once() -> None:
    records = [reading(0, 5000.0, gpu_uuid="GPU-a"), reading(1, 5200.0, gpu_uuid="GPU-a"), reading(2, 100.0)]
    found = attribute(records)
    assert (found.plain_j, found.energy_j, found.gpu_j) == (10300.0, 5300.0, 5300.0)
    assert codes(found) == {"attribution.repeated_gpu"}


def test_the_same_index_on_another_host_is_another_gpu() -> None:
    records = [reading(index, 5000.0, gpu_uuid=None, gpu_id=0, host=host) for index, host in enumerate("ab")]
    assert attribute(records).energy_j == 10000.0


def test_devices_of_one_process_are_counted_one_by_one() -> None:
    both = [DeviceEnergy(gpu_id=0, energy_j=3000.0), DeviceEnergy(gpu_id=1, energy_j=2000.0)]
    records = [
        reading(0, 5000.0, energy={"devices": both}),
        reading(1, 2100.0, gpu_uuid=None, gpu_id=1),
    ]
    found = attribute(records)
    assert found.energy_j == 5100.0
    [finding] = [finding for finding in found.findings if finding.code == "attribution.repeated_gpu"]
    assert (finding.effect_j, finding.processes) == (2000.0, [0, 1])


def test_slices_of_one_gpu_have_one_sensor() -> None:
    slices = [
        reading(index, 3000.0 + index, gpu_is_mig=True, gpu_id=0, gpu_uuid=f"MIG-GPU-a/{index}/0") for index in (1, 2)
    ]
    found = attribute(slices)
    assert (found.energy_j, codes(found)) == (3002.0, {"attribution.shared_sensor"})
    [finding] = [finding for finding in found.findings if finding.code == "attribution.shared_sensor"]
    assert "GPU-a" in finding.message


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
def test_parts_of_boards_that_nothing_names_can_be_of_one_board(part: dict[str, Any]) -> None:
    """All bounds say: each read 300 W, and all of them together are one board's, or as many boards'."""
    named = [part | ({"gpu_id": n} if "gpu_id" not in part else {}) | {"gpu_uuid": f"MIG-7f3{n}"} for n in range(7)]
    found = attribute([reading(n, 12_000.0, **named[n]) for n in range(7)])
    [finding] = [finding for finding in found.findings if finding.code == "attribution.shared_sensor"]
    assert finding.outcome == "not_checked"
    assert finding.processes == list(range(7))
    assert (found.energy_j, found.bounds_j) == (84_000.0, (12_000.0, 84_000.0))
    [alone] = [f for f in attribute([reading(0, 12_000.0, **named[0])]).findings if f.code == finding.code]
    assert alone.outcome == "passed", "one slice shares with nobody"


GH200: dict[str, Any] = {"gpu_name": "NVIDIA GH200 480GB"}
CPU: dict[str, Any] = {"gpu_energy_j": None, "cpu_energy_j": 900.0, "total_energy_j": 900.0, "cpu_scope": "host"}


def of_module(attribution: Attribution) -> tuple[str, float | None, list[int]]:
    [finding] = [finding for finding in attribution.findings if finding.code == "attribution.module_sensor"]
    return finding.outcome, finding.effect_j, finding.processes


def test_a_module_is_known_by_the_names_of_its_devices() -> None:
    own = {"devices": [DeviceEnergy(gpu_id=0, gpu_name="NVIDIA GH200 480GB", energy_j=8000.0)]}
    found = attribute([reading(0, 8000.0, gpu_name=None, energy=own | CPU | {"gpu_energy_j": 8000.0})])
    assert of_module(found)[0] == "passed", "the total has no CPU energy beside the GPU's"
    both = own | CPU | {"gpu_energy_j": 8000.0, "total_energy_j": 8900.0}
    found = attribute([reading(0, 8000.0, gpu_name=None, energy=both)])
    assert (found.energy_j, found.bounds_j) == (8900.0, (8000.0, 8900.0))
    assert of_module(found) == ("not_checked", 900.0, [0])


def test_bounds_contain_cpu_energy_that_a_module_sensor_may_include() -> None:
    found = attribute([reading(0, 8000.0, **GH200), reading(1, 0.0, energy=CPU, **NO_IDS), reading(2, 5.0, host="b")])
    assert (found.energy_j, found.bounds_j) == (8905.0, (8005.0, 8905.0))
    assert of_module(found) == ("not_checked", 900.0, [0, 1])


def test_what_was_read_at_another_time_than_the_module_is_not_in_it() -> None:
    found = attribute([reading(0, 8000.0, **GH200), reading(1, 0.0, start=40.0, energy=CPU, **NO_IDS)])
    assert (found.bounds_j, of_module(found)[0]) == ((8900.0, 8900.0), "passed")


def test_a_module_contains_no_more_than_its_sensor_read() -> None:
    """The CPU's reading is of two modules, the GPU's of one."""
    found = attribute([reading(0, 600.0, **GH200), reading(1, 0.0, energy=CPU, **NO_IDS)])
    assert (found.energy_j, found.bounds_j) == (1500.0, (900.0, 1500.0))
    assert of_module(found) == ("not_checked", 600.0, [0, 1])


def test_bounds_of_module_sensors_that_each_process_read_are_combined() -> None:
    """One board can draw 40 kJ in that time; one process read 30 kJ, one 34 kJ, and 3 and 1 kJ of CPU beside it."""
    one_board: dict[str, Any] = {"gpu_name": "1 x NVIDIA GH200 480GB", **NO_IDS}
    cpus = [(30_000.0, 3000.0), (34_000.0, 1000.0)]
    records = [
        reading(
            n,
            gpu,
            energy=NO_SCOPE | {"cpu_energy_j": cpu, "total_energy_j": gpu + cpu},
            **one_board,
        )
        for n, (gpu, cpu) in enumerate(cpus)
    ]
    found = attribute(records)
    assert (found.factor, found.energy_j, found.bounds_j) == (2.0, 34_000.0, (30_000.0, 35_000.0))
    assert of_module(found) == ("not_checked", 2000.0, [0, 1])


# Process scope


def test_shares_of_processes_are_summed_whatever_they_ran_on() -> None:
    shares = {"gpu_scope": "process", "total_scope": "process"}
    found = attribute([reading(index, 2000.0, gpu_uuid="GPU-a", energy=shares) for index in range(3)])
    assert (found.energy_j, codes(found)) == (6000.0, set())


def test_shares_that_are_more_than_the_board_are_told_and_summed() -> None:
    shares = {"gpu_scope": "process", "total_scope": "process"}
    found = attribute([reading(index, 8000.0, gpu_uuid="GPU-a", energy=shares) for index in range(3)])
    assert (found.energy_j, codes(found)) == (24000.0, {"energy.exceeds_devices"})


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
    assert found.energy_j == 8000.0 + 1001.0 + 100.0
    assert (found.gpu_j, found.cpu_j, found.ram_j) == (8000.0, 1001.0, 100.0)


# Unknown scope


@pytest.mark.parametrize(("watts", "over"), [(262.4, False), (262.6, True)])
def test_physics_decides_at_five_percent_over_the_limit(watts: float, *, over: bool) -> None:
    """Two boards of 250 W each: 525 W together is what they are given."""
    records = [reading(index, 40 * watts, energy=NO_SCOPE, **NO_IDS) for index in range(2)]
    found = attribute(records)
    assert ("energy.over_counted" in codes(found)) is over
    assert found.energy_j == pytest.approx(40 * watts * (1 if over else 2))


def test_a_process_without_a_gpu_has_no_board() -> None:
    """It reads the CPU beside processes that each measured the node."""
    node = [reading(index, 3e4, energy=NO_SCOPE, gpu_name="NVIDIA A100-PCIE-40GB", **NO_IDS) for index in range(4)]
    cpu = {"gpu_energy_j": None, "cpu_energy_j": 900.0, "total_energy_j": 900.0, "cpu_scope": "host"}
    monitor = reading(4, 0.0, energy=cpu, gpu_name=None, **NO_IDS)
    assert attribute([*node, monitor]).energy_j == 30_900.0


@pytest.mark.parametrize(("names", "boards"), [({}, 2), ({"gpu_uuid": "GPU-2"}, 3)])
def test_what_reads_a_host_s_cpu_proves_a_board_only_by_its_name(names: dict[str, Any], boards: int) -> None:
    """Two processes imply 700 W: more than two boards of 250 W can draw, and less than three."""
    node = [reading(index, 40 * 350.0, energy=NO_SCOPE, **NO_IDS) for index in range(2)]
    cpu = {"gpu_energy_j": None, "cpu_energy_j": 900.0, "total_energy_j": 900.0, "cpu_scope": "host"}
    monitor = reading(2, 0.0, energy=cpu | NO_SCOPE, **(NO_IDS | names))
    assert attribute([*node, monitor]).energy_j == (14_000.0 if boards == 2 else 28_000.0) + 900.0


def test_a_process_that_measured_nothing_has_a_board_of_its_own() -> None:
    node = [reading(index, 40 * 350.0, energy=NO_SCOPE, **NO_IDS) for index in range(2)]
    nothing = {"gpu_energy_j": None, "total_energy_j": None, **NO_SCOPE}
    assert attribute([*node, reading(2, 0.0, energy=nothing, **NO_IDS)]).energy_j == 28_000.0


def test_a_limit_of_the_record_comes_before_the_table() -> None:
    records = [reading(index, 40 * 400, energy=NO_SCOPE, gpu_power_limit_w=400.0, **NO_IDS) for index in range(2)]
    assert attribute(records).factor == 1.0


def test_processes_that_ran_one_after_the_other_imply_nothing_together() -> None:
    one_board: dict[str, Any] = {"gpu_name": "1 x NVIDIA A100-PCIE-40GB", **NO_IDS}
    after = [reading(index, 8000.0, start=40.0 * index, energy=NO_SCOPE, **one_board) for index in range(3)]
    assert attribute(after).factor == 1.0
    at_once = [reading(index, 8000.0, energy=NO_SCOPE, **one_board) for index in range(3)]
    assert attribute(at_once).factor == pytest.approx(3)


def test_each_host_is_judged_by_itself() -> None:
    records = [
        reading(index, joules, energy=NO_SCOPE, host=host, **NODE)
        for index, (joules, host) in enumerate([(3e4, "a"), (3.2e4, "a"), (8e3, "b"), (8.2e3, "b")])
    ]
    found = attribute(records)
    assert found.energy_j == pytest.approx(3.1e4 + 1.62e4)
    assert found.bounds_j == pytest.approx((3e4 + 8e3, 3.2e4 + 1.62e4))


def test_without_a_known_board_nothing_is_passed() -> None:
    records = [reading(index, 3e4, energy=NO_SCOPE, gpu_name="Zephyr 9000", **NO_IDS) for index in range(2)]
    found = attribute(records)
    [finding] = [finding for finding in found.findings if finding.code == "energy.over_counted"]
    assert (finding.outcome, finding.reason) == ("not_checked", "no power limit is known of the board 'Zephyr 9000'")
    assert (found.energy_j, found.bounds_j) == (6e4, (3e4, 6e4))


def test_devices_that_nothing_identifies_are_the_boards_of_the_host() -> None:
    unknown = {"devices": [DeviceEnergy(gpu_name="NVIDIA A100-PCIE-40GB")] * 4}
    records = [reading(index, 3e4, energy=unknown | NO_SCOPE, **NO_IDS) for index in range(2)]
    found = attribute(records)
    assert (found.energy_j, found.factor) == (3e4, 2.0)
    assert codes(found) == {"energy.over_counted", "energy.exceeds_devices"}
    [over] = [finding for finding in found.findings if finding.code == "energy.over_counted"]
    assert over.expected == 1000.0


def test_devices_of_a_host_reading_are_the_boards_of_the_host() -> None:
    """Three boards of 250 W, of which two processes of unknown scope imply 600 W together."""
    listed = {"devices": [DeviceEnergy(gpu_name="NVIDIA A100-PCIE-40GB", energy_j=8000.0)] * 3}
    unknown = [reading(index, 40 * 300.0, energy=NO_SCOPE, **NO_IDS) for index in (1, 2)]
    host = reading(0, 24_000.0, energy=listed | HOST, **NO_IDS)
    assert "energy.over_counted" not in codes(attribute([host, *unknown]))
    assert "energy.over_counted" in codes(attribute(unknown))


def test_devices_of_scope_device_are_those_that_the_process_measured() -> None:
    own = {"devices": [DeviceEnergy(gpu_name="NVIDIA A100-PCIE-40GB")] * 4}
    assert codes(attribute([reading(0, 3e4, energy=own, **NO_IDS)])) == set()


def test_one_process_on_several_gpus_may_draw_what_they_draw() -> None:
    wide: dict[str, Any] = {"effective_config": {"vllm": {"tensor_parallel_size": 4}}}
    assert codes(attribute([reading(0, 40 * 900.0, **wide)])) == set()
    assert codes(attribute([reading(0, 40 * 900.0)])) == {"energy.exceeds_devices"}


def test_processes_with_several_gpus_each_prove_no_double_counting() -> None:
    """Data-parallel times tensor-parallel, or ranks of one model: the configuration says the same of both."""
    pair: dict[str, Any] = {"effective_config": {"vllm": {"tensor_parallel_size": 2}}, "world_size": 4, **NO_IDS}
    records = [reading(index, 40 * 400.0, energy=NO_SCOPE, **pair) for index in range(4)]
    found = attribute(records)
    outcomes = {finding.code: finding.outcome for finding in found.findings}
    assert (outcomes["energy.over_counted"], outcomes["energy.exceeds_devices"]) == ("not_checked", "not_checked")
    assert found.energy_j == 64_000.0
    assert "energy.exceeds_devices" in codes(attribute([reading(0, 40 * 600.0, energy=NO_SCOPE, **pair)]))


def test_the_listed_gpus_of_all_processes_are_shared_out_among_them() -> None:
    four: dict[str, Any] = {"effective_config": {"gpu_list": [0, 1, 2, 3]}, "world_size": 4, **NO_IDS}
    assert attribute([reading(index, 40 * 900.0, energy=NO_SCOPE, **four) for index in range(4)]).factor == 4.0


def test_the_boards_of_a_mixed_node_draw_what_all_of_them_draw() -> None:
    mixed: dict[str, Any] = {"gpu_name": "2 x NVIDIA A100-PCIE-40GB2 x NVIDIA L4", **NO_IDS}
    assert attribute([reading(index, 40 * 300.0, energy=NO_SCOPE, **mixed) for index in range(2)]).factor == 1.0
    found = attribute([reading(index, 40 * 600.0, energy=NO_SCOPE, **mixed) for index in range(2)])
    [over] = [finding for finding in found.findings if finding.code == "energy.over_counted"]
    assert (over.outcome, over.expected, found.factor) == ("failed", 644.0, 2.0)


def test_power_without_an_energy_window_can_prove_double_counting() -> None:
    blind = {"window": None, "duration_sec": 0.0, **NO_SCOPE}
    records = [reading(index, 3e4, energy=blind, **NODE) for index in range(4)]
    assert "energy.over_counted" in codes(attribute(records))
    records = [reading(index, 8e3, energy=blind, **NODE) for index in range(4)]
    [finding] = [f for f in attribute(records).findings if f.code == "energy.over_counted"]
    assert finding.outcome == "not_checked"


# Boards


@pytest.mark.parametrize(
    ("name", "count", "limit_w"),
    [
        ("4 x NVIDIA A100-PCIE-40GB", 4, 250),
        ("NVIDIA A100 80GB PCIe", 1, 300),
        ("NVIDIA A100-SXM4-80GB", 1, 400),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 1, 400),
        ("8 x NVIDIA A100-SXM4", 8, 400),
        ("A100 SXM 80GB", 1, 400),
        ("NVIDIA A100-SXM-64GB", 1, None),
        ("H100 SXM", 1, 700),
        ("A100 PCIe", 1, None),
        ("NVIDIA H100 PCIe", 1, 350),
        ("NVIDIA H100 80GB HBM3", 1, 700),
        ("NVIDIA H100 NVL", 1, 400),
        ("NVIDIA H200", 1, 700),
        ("NVIDIA H200 NVL", 1, 600),
        ("8 x NVIDIA B200", 8, 1000),
        ("Tesla V100-SXM2-16GB", 1, 300),
        ("8 x NVIDIA A40", 8, 300),
        ("NVIDIA A10", 1, 150),
        ("NVIDIA A10G", 1, 300),
        ("NVIDIA L4", 1, 72),
        ("NVIDIA L40S", 1, 350),
        ("Tesla T4", 1, 70),
        ("NVIDIA GeForce RTX 3090", 1, 350),
        ("NVIDIA GeForce RTX 4090", 1, 450),
        ("NVIDIA RTX A6000", 1, 300),
        ("AMD Instinct MI250X", 1, 560),
        ("AMD Instinct MI300X", 1, 750),
        ("NVIDIA GH200 480GB", 1, 1000),
        ("NVIDIA A100", 1, None),
        ("NVIDIA H100", 1, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 1, None),
        ("GRID A100-10C", 1, None),
        ("Zephyr 9000", 1, None),
        ("0 x NVIDIA A40", 1, 300),
        ("2 x NVIDIA L4, 1 x NVIDIA A40", 3, None),
        ("", 1, None),
        ("9" * 10_000, 1, None),
    ],
)
def test_names_of_boards_are_read(name: str, count: int, limit_w: float | None) -> None:
    boards = boards_named(name)
    assert (boards.count, boards.model and boards.model.limit_w) == (count, limit_w)


@pytest.mark.parametrize(
    ("name", "limit_w"),
    [
        ("2 x NVIDIA A100-PCIE-40GB2 x NVIDIA L4", 644),
        ("2 x NVIDIA A100-PCIE-40GB, 2 x NVIDIA L4", 644),
        ("2 x NVIDIA L4 + 12 x NVIDIA L4", 1008),
        ("4 x NVIDIA L42 x NVIDIA A40", None),
        ("2 x Zephyr 9000, 2 x NVIDIA L4", None),
    ],
)
def test_names_of_mixed_nodes_are_added_up_or_are_unknown(name: str, limit_w: float | None) -> None:
    boards = boards_named(name)
    assert (boards.is_mixed, boards.model, boards.limit_w) == (True, None, limit_w)


def test_every_row_of_the_table_has_a_source_and_is_found_by_its_own_name() -> None:
    for row in BOARD_MODELS:
        assert row.source
        assert model_named(" ".join(row.words)) == row
