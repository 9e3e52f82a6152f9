"""Every reason code: an experiment that has the fault, one that leaves it open, and one that has none of them."""

from __future__ import annotations

import pytest

from llm_energy_measure.results.aggregation import aggregate_and_verify
from llm_energy_measure.results.verification.codes import CODES
from tests.support import factories
from tests.support.faults_of_records import FAILING, OPEN, Experiment, honest, record, sensor

# What only stored experiments, or several of them, can have.
OF_STORED = {code for code in CODES if code.startswith(("sources.", "aggregate."))} | {"suspicion.grows_with_processes"}


def findings(experiment: Experiment) -> dict[str, object]:
    records, options = experiment
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    return {finding.code: finding for finding in verification.findings}


def test_every_code_has_an_experiment_here() -> None:
    assert set(CODES) - OF_STORED == FAILING.keys() | OPEN.keys()


@pytest.mark.parametrize("code", FAILING)
def test_a_fault_is_found_and_explained_with_its_numbers(code: str) -> None:
    records, options = FAILING[code]()
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    assert finding.outcome == "failed"
    assert finding.reason is None
    assert len(finding.message) > 20
    assert set(finding.processes) <= {0, 1, 2, 3}


@pytest.mark.parametrize("code", OPEN)
def test_what_cannot_be_checked_says_why(code: str) -> None:
    records, options = OPEN[code]()
    _, verification = aggregate_and_verify(factories.EXPERIMENT, records, **options)
    [finding] = [finding for finding in verification.findings if finding.code == code]
    assert finding.outcome == "not_checked"
    assert finding.reason


def test_an_honest_experiment_passes_every_check() -> None:
    _, verification = aggregate_and_verify(factories.EXPERIMENT, honest())
    assert [finding for finding in verification.findings if finding.outcome != "passed"] == []
    assert {finding.code for finding in verification.findings} == set(CODES) - OF_STORED


@pytest.mark.parametrize("code", [*FAILING, *OPEN])
def test_every_finding_is_of_a_code_that_is_registered(code: str) -> None:
    for cases in (FAILING, OPEN):
        if code in cases:
            assert findings(cases[code]()).keys() <= CODES.keys()


def test_a_process_whose_sensors_another_one_reads_lacks_nothing() -> None:
    """One process a host reads the GPUs, the others leave them to it: their energy is null, and none is missing."""
    reader = record(0, of=2, energy=sensor(source="nvml", instance="GPU-0", component="gpu", scope="device"))
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
