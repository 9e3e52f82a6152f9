"""Each finding code: an experiment that fails it, one that cannot be checked, and one that passes all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.domain.experiment import Manifest, config_digest
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.metrics import DeviceEnergy, SensorReading
from llm_energy_measure.verification.codes import CODES
from llm_energy_measure.verification.registry import CHECKS
from tests.support import factories
from tests.support.aggregation import aggregate_and_verify
from tests.support.faults_of_records import (
    FAILING,
    HOST,
    NO_SCOPE,
    NODE,
    NOT_CHECKED,
    Experiment,
    honest,
    record,
    sensor,
)

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

KNOWN = DeviceEnergy(gpu_id=0, gpu_name="NVIDIA H200")
KNOWN_TOO = DeviceEnergy(gpu_id=1, gpu_name="NVIDIA H200")

# Codes that need stored files or several experiments.
STORED_ONLY = {code for code in CODES if code.startswith(("sources.", "aggregate."))} | {
    "suspicion.grows_with_processes",
    "attribution.concurrent_experiments",
}
# Codes that need a fact that the user states.
STATED_ONLY = {"attribution.assumed"}


def findings(experiment: Experiment) -> dict[str, object]:
    records, options = experiment
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    return {finding.code: finding for finding in verification.findings}


def test_first_failure_is_the_cause_and_not_the_sigterm_after_it() -> None:
    raws = [
        record(0, of=3, status="interrupted", error_type="SIGTERM"),
        record(1, of=3, status="failed", error_type="MemoryError"),
        record(2, of=3),
    ]
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws)
    [message] = [one.message for one in verification.findings if one.code == "completeness.unfinished_process"]
    assert message.startswith(
        "process 1 failed (MemoryError), so its figures cover only a part of the run; 1 more process did not finish"
    )


def test_every_code_has_a_test_experiment() -> None:
    assert set(CODES) - STORED_ONLY - STATED_ONLY == FAILING.keys() | NOT_CHECKED.keys()


@pytest.mark.parametrize("code", FAILING)
def test_fault_fails_its_check(code: str) -> None:
    records, options = FAILING[code]()
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    assert finding.outcome == "failed"
    assert finding.problem == finding.severity == CHECKS[code].severity
    assert finding.reason is None
    assert len(finding.message) > 20
    assert set(finding.processes) <= {0, 1, 2, 3}


@pytest.mark.parametrize("code", NOT_CHECKED)
def test_unchecked_finding_states_its_reason(code: str) -> None:
    records, options = NOT_CHECKED[code]()
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    assert finding.outcome == "not_checked"
    assert finding.severity in ("warning", "info")
    assert finding.problem is None
    assert finding.reason


def test_honest_experiment_passes_every_check() -> None:
    _, verification = aggregate_and_verify(factories.EXPERIMENT, honest())
    assert {(finding.outcome, finding.severity) for finding in verification.findings} == {("passed", "info")}
    assert {finding.code for finding in verification.findings} == set(CODES) - STORED_ONLY


@pytest.mark.parametrize("code", [*FAILING, *NOT_CHECKED])
def test_every_finding_has_a_registered_code(code: str) -> None:
    for cases in (FAILING, NOT_CHECKED):
        if code in cases:
            assert findings(cases[code]()).keys() <= CODES.keys()


def test_findings_of_earlier_releases_without_severity_are_errors() -> None:
    assert Finding(code="window.mismatch", outcome="failed").problem == "error"
    assert Finding(code="window.mismatch", outcome="passed").problem is None


def outcome(code: str, raws: list[RawProcessResult]) -> str:
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws)
    return verification.outcomes[code]


def problem(code: str, raws: list[RawProcessResult]) -> str | None:
    """Return the severity of the finding with this code; None if the check did not fail."""
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    return finding.problem


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
def test_reported_power_is_compared_with_all_boards_of_a_process(changes: dict[str, Any], expected: str) -> None:
    assert outcome("plausibility.power_above_limit", [record(**changes)]) == expected


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        ({"energy": {"gpu_power_w": 327.0}}, "warning"),
        ({"energy": {"gpu_power_w": 328.0}}, "error"),
        ({"energy": {"gpu_power_w": 328.0, **NO_SCOPE}}, "warning"),
        ({"energy": {"gpu_power_w": 1300.0, **HOST}, **NODE}, "warning"),
        ({"energy": {"gpu_power_w": 1310.0, **HOST}, **NODE}, "error"),
    ],
)
def test_power_above_limit_is_an_error_beyond_noise(changes: dict[str, Any], severity: str) -> None:
    assert problem("plausibility.power_above_limit", [record(**changes)]) == severity


@pytest.mark.parametrize(("power_w", "severity"), [(299.0, "warning"), (301.0, "error")])
def test_reported_powers_that_agree_above_the_limit_are_an_error(power_w: float, severity: str) -> None:
    raws = [record(index, of=4, energy={"gpu_power_w": power_w}) for index in range(4)]
    assert problem("plausibility.power_above_limit", raws) == severity


def test_most_severe_power_above_the_limit_is_reported() -> None:
    raws = [record(index, of=2, energy={"gpu_power_w": power}) for index, power in enumerate((280.0, 400.0))]
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws)
    [finding] = [one for one in verification.findings if one.code == "plausibility.power_above_limit"]
    assert (finding.severity, finding.found, finding.processes) == ("error", 400.0, [0, 1])
    assert finding.message == "process 1 reports 400 W of GPU power, but its board can draw only 250 W (and 1 more)"


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        ({"cpu_power_w": 0.06, "cpu_energy_j": 2400.0}, "error"),
        ({"cpu_power_w": 300.0, "cpu_energy_j": 2400.0}, "warning"),
        ({"cpu_power_w": 60.0, "cpu_energy_j": 2400.0}, None),
        ({"cpu_power_w": 60.0, "cpu_energy_j": None}, None),
        ({"cpu_power_w": 0.0, "cpu_energy_j": 2400.0}, None),
        ({"gpu_power_w": 450.0}, "warning"),
        ({"gpu_power_w": 19.0}, "error"),
    ],
)
def test_reported_power_is_compared_with_energy(energy: dict[str, Any], expected: str | None) -> None:
    total = {"total_energy_j": 8000.0 + (energy.get("cpu_energy_j") or 0.0)}
    assert problem("plausibility.power_contradicts_energy", [record(energy=total | energy)]) == expected


PARTS: dict[str, Any] = {"gpu_energy_j": 8000.0, "cpu_energy_j": 1000.0, "ram_energy_j": 100.0}


@pytest.mark.parametrize(
    ("parts", "total_j", "message"),
    [
        (PARTS, 9_100.0, ""),
        (PARTS, 9_000.0, "more than its total of 9,000.0 J"),
        (PARTS, 90_000.0, ""),
        (PARTS, 92_000.0, "less than 1/10 of its total of 92,000.0 J"),
        (PARTS, 9_100_000.0, "the factor 1,000 suggests that a tool confused Wh and kWh"),
        (PARTS, 9_100.0 * 3600, "the factor 3,600 suggests that a tool confused J and Wh"),
        (PARTS, 9_100.0 / 3600, "the factor 3,600 suggests that a tool confused J and Wh"),
        (PARTS, 9_100.0 / 3.6e6, "the factor 3,600,000 suggests that a tool confused J and kWh"),
        ({"gpu_energy_j": 8000.0}, 800_000.0, ""),
        ({"gpu_energy_j": 8000.0}, 8_000_000.0, "the factor 1,000 suggests that a tool confused Wh and kWh"),
        ({"gpu_energy_j": 0.0}, 8_000.0, ""),
    ],
)
def test_total_is_compared_with_its_parts_in_both_directions(
    parts: dict[str, Any], total_j: float, message: str
) -> None:
    raw = record(energy={"cpu_energy_j": None, "ram_energy_j": None, "total_energy_j": total_j} | parts)
    _, verification = aggregate_and_verify(factories.EXPERIMENT, [raw])
    [finding] = [finding for finding in verification.findings if finding.code == "plausibility.components"]
    assert message in finding.message
    assert (finding.problem or "") == ("error" if message else "")


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        ({"gpu_energy_j": 5e9, "total_energy_j": 5e9, **NO_SCOPE}, "error"),
        ({"gpu_energy_j": 5e9, "total_energy_j": 5e9, "gpu_power_w": None}, "error"),
        ({"gpu_energy_j": 3100 * 40.0, "total_energy_j": 3100 * 40.0}, "error"),
        ({"gpu_energy_j": 3100 * 40.0, "total_energy_j": 3100 * 40.0, **NO_SCOPE}, "warning"),
        ({"gpu_energy_j": 3100 * 40.0, "total_energy_j": 3100 * 40.0, **HOST}, None),
        ({"gpu_energy_j": None, "total_energy_j": 51_000 * 40.0}, "error"),
        ({"gpu_energy_j": None, "total_energy_j": 51_000 * 40.0, "duration_sec": None, "window": None}, "error"),
        ({"gpu_power_w": 308_957.0, **NO_SCOPE}, "error"),
        ({"cpu_power_w": 60_000.0}, "error"),
        ({"devices": [KNOWN, DeviceEnergy(gpu_id=1, energy_j=130_000.0)], **HOST}, "error"),
    ],
)
@pytest.mark.parametrize("board", ["NVIDIA A100-PCIE-40GB", "Zephyr 9000", None])
def test_no_board_draws_3_kw_and_no_host_50_kw(energy: dict[str, Any], expected: str | None, board: str | None) -> None:
    assert problem("plausibility.impossible_power", [record(gpu_name=board, energy=energy)]) == expected


@pytest.mark.parametrize(
    ("energy", "words"),
    [
        ({"gpu_energy_j": 124_000.0, "total_energy_j": 124_000.0}, "a GPU energy that implies"),
        ({"gpu_energy_j": None, "total_energy_j": 2_040_000.0}, "a total energy that implies"),
        ({"devices": [KNOWN, DeviceEnergy(gpu_id=1, energy_j=130_000.0)], **HOST}, "a GPU whose energy implies"),
    ],
)
def test_impossible_mean_power_is_shown_with_its_time(energy: dict[str, Any], words: str) -> None:
    finding = findings(([record(energy=energy)], {}))["plausibility.impossible_power"]
    assert isinstance(finding, Finding)
    assert finding.message.startswith(f"process 0 has {words} a mean power (over 40.0 s) of ")


@pytest.mark.parametrize(("power_w", "expected"), [(11_900.0, None), (12_100.0, "error")])
def test_stated_boards_of_the_host_limit_a_reading(power_w: float, expected: str | None) -> None:
    energy = {"gpu_energy_j": power_w * 40, "total_energy_j": power_w * 40, **NO_SCOPE}
    raw = record(gpu_name="4 x Zephyr 9000", gpu_id=None, gpu_uuid=None, energy=energy)
    assert problem("plausibility.impossible_power", [raw]) == expected


def test_impossible_power_is_not_checked_without_power_and_time() -> None:
    unknown = {"gpu_power_w": None, "cpu_power_w": None, "duration_sec": None, "window": None}
    untimed = factories.timestamps(factories.START, end=None, duration_sec=None)
    raw = record(energy=unknown, timestamps=untimed, inference_metrics=None)
    assert outcome("plausibility.impossible_power", [raw]) == "not_checked"


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
def test_check_without_the_figures_it_needs_does_not_pass(code: str, changes: dict[str, Any]) -> None:
    assert outcome(code, [record(index, of=2, **changes) for index in range(2)]) == "not_checked"


@pytest.mark.parametrize(
    ("changes", "scope", "severity"),
    [
        ({"host": "node-1", "gpu_uuid": None}, "device", "error"),
        ({"host": None, "gpu_uuid": "GPU-a"}, "device", "error"),
        ({"host": "node-1", "gpu_uuid": "GPU-a"}, None, "warning"),  # equal shares of one reading
        ({"host": None, "gpu_uuid": None}, "device", "warning"),  # four pods, each with a GPU 0 of its own
        ({"host": "node-1", "gpu_uuid": None, "gpu_id": None}, "device", "warning"),
        ({"host": "node-1", "gpu_uuid": "GPU-a"}, "device", "error"),
        ({"host": "node-1", "gpu_uuid": "GPU-a"}, "process", None),
        ({"host": "node-1", "gpu_uuid": "GPU-a"}, "host", None),
    ],
)
def test_equal_results_are_copies_only_if_host_and_gpu_are_known(
    changes: dict[str, Any], scope: str | None, severity: str | None
) -> None:
    energy = {"total_energy_j": 8000.0, "gpu_energy_j": 8000.0, "total_scope": scope, "gpu_scope": scope}
    raws = [record(index, of=2, **{"gpu_id": 0, **changes}, energy=energy) for index in range(2)]
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws)
    [found] = [one.problem for one in verification.findings if one.code == "completeness.duplicate_process"]
    assert found == severity


@pytest.mark.parametrize(
    ("config", "expected"), [({"top_k": 1, "a": [2]}, "passed"), ({"top_k": 2, "a": [2]}, "not_checked")]
)
def test_configuration_is_compared_with_the_digest_of_the_manifest(config: dict[str, Any], expected: str) -> None:
    manifest = Manifest(experiment_id=factories.EXPERIMENT, config_digest=config_digest({"a": [2], "top_k": 1}))
    raws = [record(index, of=2, effective_config=config) for index in range(2)]
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws, manifest=manifest)
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
def test_component_energy_must_match_its_sensors(energy_j: float | None, problems: list[str], expected: str) -> None:
    counter = {"counter_start_j": 50.0, "counter_end_j": 4050.0} if energy_j is None and not problems else {}
    read = sensor(source="nvml", component="gpu", energy_j=energy_j, problems=problems, **counter)
    assert outcome("counter.mismatch", [record(energy=read)]) == expected


def test_component_energy_may_equal_one_of_two_sources() -> None:
    readings = [
        SensorReading(source=source, component="gpu", energy_j=joules)
        for source, joules in (("nvml", 8000.0), ("dcgm", 7000.0))
    ]
    assert outcome("counter.mismatch", [record(energy={"sensors": readings})]) == "passed"


def test_reason_names_the_board_without_a_power_limit() -> None:
    boards = [DeviceEnergy(gpu_id=0, gpu_name="NVIDIA A40"), DeviceEnergy(gpu_id=1, gpu_name="Strange X")]
    finding = findings(([record(gpu_name=None, energy={"devices": boards})], {}))["energy.exceeds_devices"]
    assert isinstance(finding, Finding)
    assert finding.reason == "the power limit of the board 'Strange X' is unknown"


@pytest.mark.parametrize(("wraps", "words"), [(None, "no wrap was counted"), (1, "too few wraps were counted (1)")])
def test_counter_that_went_back_has_too_few_wraps(wraps: int | None, words: str) -> None:
    read = sensor(counter_start_j=100.0, counter_end_j=5.0, counter_range_j=50.0, wraps=wraps)
    finding = findings(([record(energy=read)], {}))["counter.wrap"]
    assert isinstance(finding, Finding)
    assert words in finding.message
    assert finding.expected == 5.0


def test_process_that_reads_the_cpu_of_the_host_is_no_outlier() -> None:
    """The host's CPU draws more than each L4."""
    cpu = {"cpu_energy_j": 16_000.0, "total_energy_j": 18_400.0, "cpu_scope": "host", "total_scope": None}
    own = {"gpu_energy_j": 2400.0, "total_energy_j": 2400.0, "gpu_power_w": 60.0}
    raws = [record(n, of=4, gpu_name="NVIDIA L4", energy=own | (cpu if n == 0 else {})) for n in range(4)]
    assert outcome("plausibility.outlier", raws) == "passed"


def test_boards_with_other_power_limits_are_no_outliers() -> None:
    watts = [70.0, 70.0, 70.0, 700.0]
    joules = [{"gpu_energy_j": 40 * power, "total_energy_j": 40 * power, "gpu_power_w": power} for power in watts]
    raws = [record(n, of=4, gpu_name=None, gpu_power_limit_w=power, energy=joules[n]) for n, power in enumerate(watts)]
    assert outcome("plausibility.outlier", raws) == "passed"


def test_process_without_a_gpu_needs_no_gpu_energy() -> None:
    cpu = {"gpu_energy_j": None, "cpu_energy_j": 900.0, "total_energy_j": 900.0, "gpu_power_w": None}
    monitor = record(1, of=2, gpu_id=None, gpu_uuid=None, gpu_name=None, energy=cpu)
    assert outcome("plausibility.missing_gpu_energy", [record(0, of=2), monitor]) == "passed"


def test_process_whose_sensors_another_process_reads_needs_no_energy() -> None:
    """One process per host reads the GPUs. The energy of the other processes is null, but not missing."""
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
    ("provenances", "shares"),
    [
        (("modelled", "modelled"), ", 9% of it; the attributed energy contains 900.0 J, 9% of it"),
        (("modelled", "measured"), ", 5% of it; the attributed energy contains up to 900.0 J, 9% of it"),
    ],
)
def test_modelled_energy_is_stated_for_plain_sum_and_attributed_energy(
    provenances: tuple[str, str], shares: str
) -> None:
    """Two processes read the same host."""
    energy = {"gpu_energy_j": 9000.0, "cpu_energy_j": 900.0, "total_energy_j": 9900.0, "cpu_scope": "host", **HOST}
    raws = [
        record(n, of=2, energy=energy | {"cpu_provenance": provenance}, **NODE)
        for n, provenance in enumerate(provenances)
    ]
    _, verification = aggregate_and_verify(factories.EXPERIMENT, raws)
    [finding] = [finding for finding in verification.findings if finding.code == "provenance.modelled"]
    joules = 900.0 * provenances.count("modelled")
    assert finding.message == f"the plain sum contains {joules:,.1f} J of modelled energy (CPU){shares}"


@pytest.mark.parametrize("scope", [None, "device", "host", "process"])
def test_flag_needs_the_name_of_a_gpu_for_each_scope(scope: str | None) -> None:
    energy = factories.energy(gpu_scope=scope, total_scope=scope)
    result, _ = aggregate_and_verify(
        factories.EXPERIMENT, [factories.raw(), factories.raw(process_index=1, gpu_id=None, energy_metrics=energy)]
    )
    assert "process 1 does not name its GPU" in result.aggregation.warnings
    assert result.aggregation.gpu_attribution_verified is False


def test_process_that_read_no_gpu_has_none_to_name() -> None:
    cpu = factories.energy(
        total_energy_j=90.0, gpu_energy_j=None, gpu_power_w=None, cpu_energy_j=90.0, ram_energy_j=None
    )
    result, _ = aggregate_and_verify(
        factories.EXPERIMENT,
        [factories.raw(), factories.raw(process_index=1, gpu_id=None, gpu_name=None, energy_metrics=cpu)],
    )
    assert "process 1 does not name its GPU" not in result.aggregation.warnings
    assert result.aggregation.gpu_attribution_verified is True
