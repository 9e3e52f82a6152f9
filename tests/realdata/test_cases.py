"""Inputs that once gave a wrong answer; each test has the name of its folder in `cases`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure import importers
from llm_energy_measure.results import aggregate_results

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult


@pytest.fixture
def cases(real_data: Path) -> Path:
    return real_data / "cases"


def aggregated(*records: RawProcessResult) -> AggregatedResult:
    return aggregate_results(records[0].experiment_id, records)


def error(result: AggregatedResult, code: str) -> str:
    """Return the message of the only finding with this code, which must be an error."""
    [finding] = [finding for finding in result.findings or () if finding.code == code]
    assert finding.problem == "error"
    return finding.message


def test_cc_total_in_wh(cases: Path) -> None:
    message = error(aggregated(*importers.read(cases / "cc_total_in_wh")), "plausibility.components")
    assert "259,200.0 J of GPU, CPU and memory energy" in message
    assert "the factor 1,000 suggests that a tool confused Wh and kWh" in message


def test_cc_cpu_power_kw_energy_right(cases: Path) -> None:
    result = aggregated(*importers.read(cases / "cc_cpu_power_kw_energy_right"))
    message = error(result, "plausibility.power_contradicts_energy")
    assert message.startswith("process 0 reports 0.06 W of CPU power, but its CPU energy implies a mean of 60 W")


def test_zeus_impossible_gpu(cases: Path) -> None:
    prefill, decode = importers.read(cases / "zeus_impossible_gpu")
    assert "500,000,000 W" in error(aggregated(prefill), "plausibility.impossible_power")
    assert aggregated(decode).codes_of("error") == []
