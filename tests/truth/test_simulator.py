"""The simulator itself: energy is conserved, sensors cover what they say, and the laws detect wrong engines."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llm_energy_measure.domain.experiment import RawProcessResult
from tests.truth.classes import CLASSES
from tests.truth.engine import Judgement
from tests.truth.experiment import simulate
from tests.truth.laws import outcomes_of, violations
from tests.truth.plan import CPU_MODEL_W, FULL, Evidence, Plan
from tests.truth.world import Coverage, Power, Source, constant_power, covered_energy_j, merged, varying_power

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.truth.classes import SimulatedClass
    from tests.truth.experiment import Experiment

BY_NAME = {simulated.name: simulated for simulated in CLASSES}
EACH_CLASS = pytest.mark.parametrize("simulated", CLASSES, ids=lambda simulated: simulated.name)


def run(seed: int = 7, **plan: Any) -> Experiment:
    return simulate(Plan(**plan), Random(seed))


def test_energy_is_additive_over_time() -> None:
    rng = Random(1)
    power = varying_power(rng, (0, 100), [(10, 40), (30, 90)], level_w=200, ripple=0.5, ceiling_w=250)
    parts = [power.energy_j((start, start + 7)) for start in range(0, 98, 7)]
    assert sum(parts) == pytest.approx(power.energy_j((0, 98)), rel=1e-12)
    assert power.energy_j((90, 100)) == 0
    assert power.greatest_w <= 250


def test_steps_of_power_integrate_to_their_areas() -> None:
    power = Power([0, 10, 30], [100, 50])
    assert power.energy_j((5, 20)) == 5 * 100 + 10 * 50
    assert power.energy_j((-5, 99)) == 10 * 100 + 20 * 50


def test_merged_spans_are_disjoint() -> None:
    assert merged([(5, 9), (0, 3), (2, 4), (6, 7)]) == [(0, 4), (5, 9)]


def test_energy_that_two_sensors_cover_counts_once() -> None:
    one, other = (Source(name, constant_power((0, 100), 10)) for name in ("one", "other"))
    covers = [Coverage((one, other), (0, 60)), Coverage((one,), (40, 100))]
    assert covered_energy_j(covers) == 100 * 10 + 60 * 10


def test_classes_are_many_and_have_names_of_their_own() -> None:
    assert len(CLASSES) >= 60
    assert len(BY_NAME) == len(CLASSES)
    assert sum(name.startswith("case_") for name in BY_NAME) == 16


@EACH_CLASS
def test_runs_are_valid_records_and_repeatable(simulated: SimulatedClass) -> None:
    experiment = simulated.run(3, 1)
    for record in experiment.records:
        assert msgspec.json.decode(msgspec.json.encode(record), type=RawProcessResult) == record
    assert simulated.run(3, 1).records == experiment.records
    assert simulated.run(4, 1).records != experiment.records


@EACH_CLASS
def test_each_joule_of_the_truth_is_in_a_reading(simulated: SimulatedClass) -> None:
    for number in range(3):
        experiment = simulated.run(5, number)
        assert 0 < experiment.truth_j <= experiment.noiseless_plain_j * (1 + 1e-9)
        recorded = [record.energy_metrics.total_energy_j or 0.0 for record in experiment.records]
        assert sum(recorded) == pytest.approx(experiment.plain_j, rel=1e-12)
        assert experiment.meta["plan"].noise or experiment.plain_j == pytest.approx(experiment.noiseless_plain_j)


@pytest.mark.parametrize(
    ("plan", "times"),
    [
        ({}, 1),
        ({"hosts": 3, "boards": 2}, 1),
        ({"windows": "staggered"}, 1),
        ({"gpu": "share", "ranks": 8}, 1),
        ({"gpu": "rank0", "cpu": "rank0"}, 1),
        ({"gpu": "host", "windows": "serial"}, 1),
        ({"cpu": "share"}, 1),
        ({"gpu": "driven", "driven": 2, "boards": 8}, 1),
        ({"windows": "waves"}, 1),
        ({"gpu": "host", "windows": "waves"}, 2),
        ({"gpu": "host", "overhead": 0.17, "rest": "each"}, 4),
        ({"gpu": "host"}, 4),
        ({"gpu": "host", "hosts": 3, "boards": 2}, 2),
        ({"gpu": "visible", "group": 2}, 2),
        ({"boards": 2, "ranks": 6}, 3),
        ({"gpu": "none", "cpu": "constant"}, 4),
    ],
)
def test_plain_sum_counts_the_truth_a_known_number_of_times(plan: dict[str, Any], times: int) -> None:
    experiment = run(**plan)
    assert experiment.plain_j / experiment.truth_j == pytest.approx(times, rel=5e-3)
    assert experiment.is_honest is (times == 1)


def test_truth_of_nested_windows_is_the_largest_reading() -> None:
    experiment = run(gpu="host", windows="nested")
    assert experiment.truth_j == pytest.approx(max(r.energy_metrics.total_energy_j or 0 for r in experiment.records))


def test_truth_of_exact_powers_is_their_product_with_time() -> None:
    experiment = run(boards=2, board_w=(100.0, 60.0), seconds=(100, 100))
    assert experiment.truth_j == pytest.approx(16_000, rel=5e-3)


def test_cpu_model_is_one_constant_of_each_host() -> None:
    experiment = run(gpu="none", cpu="constant", hosts=2, boards=2, seconds=(100, 100))
    assert experiment.truth_j == pytest.approx(2 * CPU_MODEL_W * 100, rel=5e-3)
    powers = [record.energy_metrics.cpu_power_w for record in experiment.records]
    assert powers == pytest.approx([CPU_MODEL_W] * 4)


def test_noise_changes_readings_and_no_truth() -> None:
    quiet, noisy = run(gpu="host"), [run(seed, gpu="host", noise=0.1) for seed in range(300)]
    assert quiet.plain_j == pytest.approx(quiet.noiseless_plain_j, rel=1e-12)
    ratios = [experiment.plain_j / experiment.noiseless_plain_j for experiment in noisy]
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.01)
    assert max(abs(ratio - 1) for ratio in ratios) > 0.02


def test_boards_without_noise_stay_below_their_limit() -> None:
    for seed in range(40):
        for record in run(seed, load=(0.9, 1.0), ripple=0.8).records:
            energy, length = record.energy_metrics.gpu_energy_j, record.energy_metrics.duration_sec
            assert energy is not None
            assert length is not None
            assert energy / length <= 250 * (1 + 1e-9)


def test_evidence_is_recorded_only_where_it_is_wanted() -> None:
    full, none = run(evidence=FULL).records[1], run(evidence=Evidence(index="null", boards="none")).records[1]
    assert full.host
    assert full.gpu_uuid
    assert full.clock is not None
    assert full.launcher is not None
    assert full.launcher.local_rank == 1
    assert full.energy_metrics.gpu_scope == "device"
    assert full.energy_metrics.window is not None
    assert (none.host, none.gpu_uuid, none.clock, none.launcher, none.gpu_id, none.gpu_name) == (None,) * 6
    assert (none.energy_metrics.gpu_scope, none.energy_metrics.window) == (None, None)


def test_hosts_of_one_boot_can_have_names_of_containers() -> None:
    records = run(evidence=Evidence(host=True, boot=True, containers=True)).records
    assert len({record.host for record in records}) == 4
    assert len({record.clock and record.clock.boot_id for record in records}) == 1


def test_short_duration_is_shorter_than_the_run() -> None:
    for record in run(evidence=Evidence(window="short")).records:
        assert record.energy_metrics.duration_sec == pytest.approx(0.4 * (record.timestamps.duration_sec or 0))


def test_lost_records_leave_gaps_in_the_ranks() -> None:
    experiment = run(missing=2)
    assert len(experiment.records) == 2
    assert experiment.is_honest


def oracle(experiment: Experiment) -> Judgement:
    truth, plain = experiment.truth_j, experiment.plain_j
    errors = () if experiment.is_honest else ("energy.over_counted",)
    verdict = "complete" if experiment.is_honest else "over-counted"
    return Judgement(plain, truth, (truth, truth), "estimated", errors, (), verdict)


def adder(experiment: Experiment) -> Judgement:
    plain = experiment.plain_j
    return Judgement(plain, plain, (plain, plain), "exact", (), ())


def contradicter(experiment: Experiment) -> Judgement:
    truth = experiment.truth_j
    return Judgement(experiment.plain_j, truth, (0.97 * truth, truth), "exact", (), ())


def accuser(experiment: Experiment) -> Judgement:
    return Judgement(experiment.plain_j, None, (0.0, 1e12), "undetermined", ("time.impossible_span",), (), "failed")


def silent(experiment: Experiment) -> Judgement:
    return Judgement(experiment.plain_j, None, (0.0, 1e12), "undetermined", (), ())


def laws_broken(name: str, judged_by: Callable[[Experiment], Judgement]) -> set[str]:
    outcomes = outcomes_of(BY_NAME[name], 11, 8, judged_by)
    return {violation.law for violation in violations(BY_NAME[name], outcomes)}


@EACH_CLASS
def test_an_engine_that_knows_the_truth_breaks_no_law(simulated: SimulatedClass) -> None:
    assert laws_broken(simulated.name, oracle) == set()


def test_laws_detect_an_engine_that_only_adds() -> None:
    wrong = {"the truth is inside the bounds", "no over-count passes", "points are right"}
    assert laws_broken("full_host", adder) == wrong
    assert laws_broken("none_host", adder) == {*wrong, "point, bounds, status and evidence agree"}
    assert laws_broken("full_own", adder) == set()


def test_laws_detect_an_engine_that_contradicts_itself() -> None:
    assert laws_broken("full_own", contradicter) == {"point, bounds, status and evidence agree"}


def test_laws_detect_an_engine_that_reports_false_errors() -> None:
    assert laws_broken("none_own", accuser) == {"honest experiments have no error"}
    assert laws_broken("none_host", accuser) == set()


def test_laws_detect_an_engine_that_gives_no_point() -> None:
    assert laws_broken("full_own", silent) == {"a point is given"}
    assert "a point is always given" in laws_broken("none_rank0", silent)
    assert laws_broken("none_own", silent) == set()
    assert laws_broken("full_host_staggered", silent) == set()
