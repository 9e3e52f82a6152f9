"""Every reason code: an experiment that has the fault, one that leaves it open, and one that has none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.domain.experiment import Manifest, config_digest
from llm_energy_measure.domain.metrics import DeviceEnergy, SensorReading
from llm_energy_measure.verification.codes import CODES
from tests.support import factories
from tests.support.aggregation import aggregate_and_verify
from tests.support.faults_of_records import FAILING, HOST, NODE, NOT_CHECKED, Experiment, honest, record, sensor

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

KNOWN = DeviceEnergy(gpu_id=0, gpu_name="NVIDIA H200")
KNOWN_TOO = DeviceEnergy(gpu_id=1, gpu_name="NVIDIA H200")

# What only stored experiments, or several of them, can have.
OF_STORED = {code for code in CODES if code.startswith(("sources.", "aggregate."))} | {"suspicion.grows_with_processes"}


def findings(experiment: Experiment) -> dict[str, object]:
    records, options = experiment
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    return {finding.code: finding for finding in verification.findings}


def test_every_code_has_an_experiment_here() -> None:
    assert set(CODES) - OF_STORED == FAILING.keys() | NOT_CHECKED.keys()


@pytest.mark.parametrize("code", FAILING)
def test_a_fault_is_found_and_explained_with_its_numbers(code: str) -> None:
    records, options = FAILING[code]()
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    assert finding.outcome == "failed"
    assert finding.reason is None
    assert len(finding.message) > 20
    assert set(finding.processes) <= {0, 1, 2, 3}


@pytest.mark.parametrize("code", NOT_CHECKED)
def test_what_cannot_be_checked_says_why(code: str) -> None:
    records, options = NOT_CHECKED[code]()
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    assert finding.outcome == "not_checked"
    assert finding.reason


def test_an_honest_experiment_passes_every_check() -> None:
    _, verification = aggregate_and_verify(factories.EXPERIMENT, honest())
    assert [finding for finding in verification.findings if finding.outcome != "passed"] == []
    assert {finding.code for finding in verification.findings} == set(CODES) - OF_STORED


@pytest.mark.parametrize("code", [*FAILING, *NOT_CHECKED])
def test_every_finding_is_of_a_code_that_is_registered(code: str) -> None:
    for cases in (FAILING, NOT_CHECKED):
        if code in cases:
            assert findings(cases[code]()).keys() <= CODES.keys()


def outcome(code: str, raws: list[RawProcessResult]) -> str:
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws)
    return verification.outcomes[code]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gpu_name": "NVIDIA FooBar", "energy": {"gpu_power_w": 5000.0}}, "not_checked"),
        ({"energy": {"gpu_power_w": None}}, "not_checked"),
        ({"effective_config": {"tensor_parallel_size": 4}, "energy": {"gpu_power_w": 900.0}}, "passed"),
        ({"effective_config": {"tensor_parallel_size": 4}, "energy": {"gpu_power_w": 1100.0}}, "failed"),
        (
            {"energy": {"gpu_power_w": 1000.0, "devices": [KNOWN, DeviceEnergy(gpu_id=1, gpu_name="Foo")]}},
            "not_checked",
        ),
        ({"energy": {"gpu_power_w": 1500.0, "devices": [KNOWN, KNOWN_TOO]}}, "failed"),
        ({"energy": {"gpu_power_w": 900.0, **HOST}, **NODE}, "passed"),
        ({"energy": {"gpu_power_w": 1100.0, **HOST}, **NODE}, "failed"),
        ({"energy": {"gpu_power_w": 900.0, **HOST}}, "not_checked"),
    ],
)
def test_a_reported_power_is_held_against_all_boards_of_a_process(changes: dict[str, Any], expected: str) -> None:
    assert outcome("plausibility.power_above_limit", [record(**changes)]) == expected


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("plausibility.below_idle", {"energy": {"idle_power_w": None}}),
        ("plausibility.power_contradicts_energy", {"energy": {"gpu_power_w": None}}),
        ("plausibility.components", {"energy": {"gpu_energy_j": None}}),
        ("plausibility.throughput", {"inference_metrics": None}),
        ("plausibility.tokens", {"inference_metrics": None}),
        ("likeness.backend", {"backend": None}),
        ("likeness.precision", {"compute_metrics": None}),
        ("likeness.library_versions", {"library_versions": None}),
        ("likeness.batch_size", {"effective_config": {}}),
        ("likeness.configuration", {"effective_config": {}}),
    ],
)
def test_what_no_process_says_did_not_pass(code: str, changes: dict[str, Any]) -> None:
    assert outcome(code, [record(index, of=2, **changes) for index in range(2)]) == "not_checked"


@pytest.mark.parametrize(
    ("config", "expected"), [({"top_k": 1, "a": [2]}, "passed"), ({"top_k": 2, "a": [2]}, "not_checked")]
)
def test_configurations_are_compared_with_the_digest_of_the_plan(config: dict[str, Any], expected: str) -> None:
    plan = Manifest(experiment_id=factories.EXPERIMENT, config_digest=config_digest({"a": [2], "top_k": 1}))
    raws = [record(index, of=2, effective_config=config) for index in range(2)]
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws, manifest=plan)
    [finding] = [finding for finding in verification.findings if finding.code == "likeness.configuration"]
    assert finding.outcome == expected
    assert finding.found == (None if expected == "passed" else config_digest(config))


@pytest.mark.parametrize(
    ("energy_j", "problems", "expected"),
    [
        (8000.0, [], "passed"),
        (4000.0, [], "failed"),
        (None, [], "failed"),
        (None, ["claimed"], "passed"),
        (None, ["sensor_lost"], "passed"),
    ],
)
def test_a_component_is_what_its_sensors_read(energy_j: float | None, problems: list[str], expected: str) -> None:
    counter = {"counter_start_j": 50.0, "counter_end_j": 4050.0} if energy_j is None and not problems else {}
    read = sensor(source="nvml", component="gpu", energy_j=energy_j, problems=problems, **counter)
    assert outcome("counter.mismatch", [record(energy=read)]) == expected


def test_of_two_sources_of_one_component_either_may_count() -> None:
    readings = [
        SensorReading(source=source, component="gpu", energy_j=joules)
        for source, joules in (("nvml", 8000.0), ("dcgm", 7000.0))
    ]
    assert outcome("counter.mismatch", [record(energy={"sensors": readings})]) == "passed"


def test_one_process_that_reads_the_cpu_for_all_is_no_outlier() -> None:
    """The host's CPU draws more than each L4."""
    cpu = {"cpu_energy_j": 16_000.0, "total_energy_j": 18_400.0, "cpu_scope": "host", "total_scope": None}
    own = {"gpu_energy_j": 2400.0, "total_energy_j": 2400.0, "gpu_power_w": 60.0}
    raws = [record(n, of=4, gpu_name="NVIDIA L4", energy=own | (cpu if n == 0 else {})) for n in range(4)]
    assert outcome("plausibility.outlier", raws) == "passed"


def test_boards_that_draw_differently_are_no_outliers() -> None:
    watts = [70.0, 70.0, 70.0, 700.0]
    joules = [{"gpu_energy_j": 40 * power, "total_energy_j": 40 * power, "gpu_power_w": power} for power in watts]
    raws = [record(n, of=4, gpu_name=None, gpu_power_limit_w=power, energy=joules[n]) for n, power in enumerate(watts)]
    assert outcome("plausibility.outlier", raws) == "passed"


def test_a_process_that_names_no_gpu_lacks_no_gpu_energy() -> None:
    cpu = {"gpu_energy_j": None, "cpu_energy_j": 900.0, "total_energy_j": 900.0, "gpu_power_w": None}
    monitor = record(1, of=2, gpu_id=None, gpu_uuid=None, gpu_name=None, energy=cpu)
    assert outcome("plausibility.missing_gpu_energy", [record(0, of=2), monitor]) == "passed"


def test_a_process_whose_sensors_another_one_reads_lacks_nothing() -> None:
    """One process a host reads the GPUs, the others leave them to it: their energy is null, and none is missing."""
    reader = record(0, of=2, energy=sensor(source="nvml", instance="GPU-0", component="gpu", energy_j=8000.0))
    nothing = {
        "total_energy_j": None,
        "gpu_energy_j": None,
        "gpu_power_w": None,
        "gpu_scope": None,
        "total_scope": None,
    }
    claimed = sensor(
        source="nvml", instance="GPU-0", component="gpu", scope="device", energy_j=None, problems=["claimed"]
    )
    other = record(1, of=2, gpu_id=None, gpu_uuid=None, energy=nothing | claimed)
    result, verification = aggregate_and_verify(factories.EXPERIMENT, [reader, other])
    assert [finding for finding in verification.findings if finding.outcome == "failed"] == []
    assert (result.is_lower_bound, result.aggregation.warnings) == (False, [])
    assert result.attributed_energy_j == result.total_energy_j == 8000.0


@pytest.mark.parametrize(
    ("provenances", "told"),
    [
        (("modelled", "modelled"), ", 9% of it, and the attributed total 900.0 J, 9% of it"),
        (("modelled", "measured"), ", 5% of it, and the attributed total up to 900.0 J, 9% of it"),
    ],
)
def test_the_modelled_part_of_both_totals_is_told(provenances: tuple[str, str], told: str) -> None:
    """Two processes that read one host."""
    energy = {"gpu_energy_j": 9000.0, "cpu_energy_j": 900.0, "total_energy_j": 9900.0, "cpu_scope": "host", **HOST}
    raws = [
        record(n, of=2, energy=energy | {"cpu_provenance": provenance}, **NODE)
        for n, provenance in enumerate(provenances)
    ]
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws)
    [finding] = [finding for finding in verification.findings if finding.code == "provenance.modelled"]
    joules = 900.0 * provenances.count("modelled")
    assert finding.message == f"the plain sum contains {joules:,.1f} J of modelled energy (CPU){told}"
