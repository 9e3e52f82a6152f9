"""Real experiments in which each process measured the whole node: published totals count a joule up to four times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from llm_energy_measure import importers
from llm_energy_measure.domain.experiment import Launcher
from llm_energy_measure.results import aggregate_results
from llm_energy_measure.verification.attribution import RULE, Assumptions, attribute

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
    from llm_energy_measure.domain.findings import Finding

# Experiment, number of processes.
OVER_COUNTED = [
    *(("0110", 2), ("0111", 3), ("0112", 4), ("0113", 4), ("0118", 4), ("0146", 4), ("0129", 4)),
    *(("3b_0008", 2), ("3b_0088", 3), ("3b_0211", 4)),
]


def imported(real_data: Path, name: str, *, local_ranks: bool = True) -> list[RawProcessResult]:
    """Records of an experiment, with local ranks as the original files have them, or without."""
    records = importers.read(real_data / "legacy_v1" / name)
    return [
        structs.replace(record, launcher=Launcher(local_rank=record.process_index) if local_ranks else None)
        for record in records
    ]


def aggregated(real_data: Path, name: str) -> AggregatedResult:
    return aggregate_results(name, imported(real_data, name))


def failures(result: AggregatedResult) -> dict[str, Finding]:
    assert result.findings is not None
    return {finding.code: finding for finding in result.findings if finding.outcome == "failed"}


@pytest.mark.parametrize(("name", "k"), OVER_COUNTED)
def test_node_that_each_process_measured_counts_once(real_data: Path, name: str, k: int) -> None:
    """The tool is known to read the whole node. Windows are unknown: the largest reading is the least energy."""
    result = aggregated(real_data, name)
    readings = [process.energy_metrics.total_energy_j or 0.0 for process in result.process_results]
    assert len(readings) == k
    finding = failures(result)["attribution.host_counted"]
    assert finding.processes == list(range(k))
    assert result.total_energy_j == math.fsum(readings), "the plain sum does not change"
    # Each process adds its own share of the memory.
    assert result.attributed_energy_j == pytest.approx(max(readings), rel=6e-3)
    assert result.attributed_bounds_j is not None
    low, high = result.attributed_bounds_j
    assert low == result.attributed_energy_j
    assert high <= (k + 1) / (2 * k) * result.total_energy_j * 1.15
    assert (result.attribution_status, result.attribution_rule) == ("estimated", RULE)
    assert result.attribution_basis == ["largest_reading", "one_host", "tool_scope", "unknown_window"]
    assert result.aggregation.gpu_attribution_verified is False
    assert f"factor {result.attribution_factor:.3g}" in result.aggregation.warnings[0]


@pytest.mark.parametrize(("name", "k"), OVER_COUNTED)
def test_without_local_ranks_the_number_of_nodes_is_open(real_data: Path, name: str, k: int) -> None:
    records = imported(real_data, name, local_ranks=False)
    result = aggregate_results(name, records)
    assert (result.attributed_energy_j, result.attribution_status) == (None, "undetermined")
    assert result.attributed_bounds_j is not None
    assert result.attributed_bounds_j[1] == result.total_energy_j
    assert not failures(result).keys() & {"energy.over_counted", "attribution.host_counted"}
    assert attribute(records, Assumptions(hosts=1)).energy_j == aggregated(real_data, name).attributed_energy_j, k


def test_each_component_is_attributed(real_data: Path) -> None:
    result = aggregated(real_data, "0112")
    energies = [process.energy_metrics for process in result.process_results]
    for name, expected in (("gpu", max), ("cpu", max), ("ram", math.fsum)):
        readings = [getattr(energy, f"{name}_energy_j") for energy in energies]
        assert getattr(result, f"attributed_{name}_energy_j") == pytest.approx(expected(readings), rel=1e-12)


def test_single_process_that_measured_the_node_has_no_error(real_data: Path) -> None:
    result = aggregated(real_data, "0109")
    assert not failures(result).keys() & {"energy.over_counted", "energy.exceeds_devices"}
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
        "the attributed energy contains 4,088.3 J, 13% of it"
    )
