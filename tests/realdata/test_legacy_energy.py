"""Real experiments in which each process measured the whole node: published totals count a joule up to four times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure import importers
from llm_energy_measure.results import aggregate_results
from llm_energy_measure.verification.attribution import RULE

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import AggregatedResult
    from llm_energy_measure.domain.findings import Finding

# Experiment, number of processes, and the power of their plain sum as a multiple of the 1,000 W limit of the node.
OVER_COUNTED = [
    *(("0110", 2, 1.279), ("0111", 3, 2.097), ("0112", 4, 3.156), ("0113", 4, 2.284), ("0118", 4, 3.472)),
    *(("0146", 4, 2.805), ("3b_0008", 2, 1.0996), ("3b_0088", 3, 2.244), ("3b_0211", 4, 3.745), ("0129", 4, 2.049)),
]


def aggregated(real_data: Path, name: str) -> AggregatedResult:
    return aggregate_results(name, list(importers.read(real_data / "legacy_v1" / name)))


def failures(result: AggregatedResult) -> dict[str, Finding]:
    assert result.findings is not None
    return {finding.code: finding for finding in result.findings if finding.outcome == "failed"}


@pytest.mark.parametrize(("name", "k", "times"), OVER_COUNTED)
def test_node_that_each_process_measured_counts_once(real_data: Path, name: str, k: int, times: float) -> None:
    result = aggregated(real_data, name)
    readings = [process.energy_metrics.total_energy_j or 0.0 for process in result.process_results]
    assert len(readings) == k
    finding = failures(result)["energy.over_counted"]
    assert finding.processes == list(range(k))
    assert finding.expected == 1000.0
    assert finding.found == pytest.approx(1000 * times, rel=5e-4)
    assert f"counts {k} times" in finding.message
    assert result.total_energy_j == math.fsum(readings), "the plain sum does not change"
    assert result.attributed_energy_j == pytest.approx(math.fsum(readings) / k, rel=1e-12)
    assert result.attributed_bounds_j == pytest.approx((min(readings), max(readings)), rel=1e-12)
    assert result.attribution_factor == pytest.approx(k, rel=1e-12)
    assert result.attribution_rule == RULE
    assert finding.effect_j == pytest.approx(math.fsum(readings) * (1 - 1 / k), rel=1e-12)
    assert result.aggregation.gpu_attribution_verified is False
    [warning] = result.aggregation.warnings
    assert f"factor {k}" in warning


def test_each_component_is_attributed(real_data: Path) -> None:
    result = aggregated(real_data, "0112")
    energies = [process.energy_metrics for process in result.process_results]
    for name in ("gpu", "cpu", "ram"):
        readings = [getattr(energy, f"{name}_energy_j") for energy in energies]
        assert getattr(result, f"attributed_{name}_energy_j") == pytest.approx(math.fsum(readings) / 4, rel=1e-12)


def test_single_process_that_measured_the_node_counts_nothing_twice(real_data: Path) -> None:
    result = aggregated(real_data, "0109")
    found = failures(result)
    assert "energy.over_counted" not in found
    finding = found["energy.exceeds_devices"]
    assert (finding.expected, finding.processes) == (250.0, [0])
    assert finding.found == pytest.approx(593.6, rel=1e-3)
    assert result.attributed_energy_j == result.total_energy_j
    assert result.attribution_factor == 1
    assert result.aggregation.gpu_attribution_verified is False


def test_energy_window_unequal_to_the_inference_is_reported(real_data: Path) -> None:
    finding = failures(aggregated(real_data, "0129"))["window.mismatch"]
    assert finding.processes == [0, 1, 2, 3]
    assert finding.expected == pytest.approx(23.4, abs=0.1)
    assert finding.found == pytest.approx(622, abs=1)
    assert "window.mismatch" not in failures(aggregated(real_data, "0109"))


@pytest.mark.parametrize(("name", "processes"), [("3b_0088", [0]), ("0129", [2])])
def test_power_far_from_the_mean_is_reported(real_data: Path, name: str, processes: list[int]) -> None:
    finding = failures(aggregated(real_data, name))["plausibility.power_contradicts_energy"]
    assert finding.processes == processes


def test_total_that_contains_modelled_energy_is_reported(real_data: Path) -> None:
    [finding] = [f for f in aggregated(real_data, "0112").findings or () if f.code == "provenance.modelled"]
    assert finding.message == (
        "the plain sum contains 13,820.0 J of modelled energy (CPU and RAM), 13% of it; "
        "the attributed energy contains 3,455.0 J, 13% of it"
    )
