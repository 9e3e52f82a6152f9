"""Repeats in published data: our statistics equal those of the tool that ran them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_results, group_repeats, repeat_statistics

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.statistics import SampleStatistics

FOLDERS = ["baseline", "batch_1", "batch_32", "precision_fp32", "quant_8bit"]

# The other tool rounds Student's t to 12.706.
HALF_WIDTH = 2e-5


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, real_data: Path) -> Path:
    return real_data / "v2_results" / request.param


@pytest.fixture(params=["ours", "theirs"])
def repeats(request: pytest.FixtureRequest, folder: Path) -> list[Any]:
    """Return the repeats, once aggregated by us and once as the other tool aggregated them."""
    repository = FileSystemRepository(folder)
    if request.param == "theirs":
        return [repository.load_aggregated(name) for name in repository.list_aggregated()]
    return [aggregate_results(name, repository.load_all_raw(name)) for name in repository.list_experiments()]


def test_statistics_equal_those_of_the_tool_that_ran_the_repeats(folder: Path, repeats: list[Any]) -> None:
    [path] = (folder / "multi_cycle").glob("*.json")
    theirs = json.loads(path.read_bytes())["statistics"]
    [group] = group_repeats(repeats)
    ours = repeat_statistics(group)

    assert ours.name == path.stem
    assert ours.warnings == []
    figures = {
        "energy_mean_j": ours.energy_j.mean,
        "energy_std_j": ours.energy_j.std,
        "energy_cv": ours.energy_j.cv,
        "throughput_mean_tps": ours.tokens_per_second.mean,
        "throughput_std_tps": ours.tokens_per_second.std,
        "throughput_cv": ours.tokens_per_second.cv,
        "efficiency_mean_tpj": ours.tokens_per_joule.mean,
        "efficiency_std_tpj": ours.tokens_per_joule.std,
        "latency_mean_ms": ours.latency_per_token_ms.mean,
        "latency_std_ms": ours.latency_per_token_ms.std,
    }
    intervals = {f"{name}_ci_95_{end}" for name in ("energy", "throughput") for end in ("lower", "upper")}
    assert set(theirs) == {*figures, *intervals, "num_cycles"}
    assert theirs["num_cycles"] == ours.energy_j.n == 2
    for name, value in figures.items():
        assert value == pytest.approx(theirs[name], rel=1e-12, abs=0), name
    require_interval(ours.energy_j, theirs, "energy", "j")
    require_interval(ours.tokens_per_second, theirs, "throughput", "tps")


def require_interval(ours: SampleStatistics, theirs: dict[str, float], name: str, unit: str) -> None:
    mean = theirs[f"{name}_mean_{unit}"]
    assert ours.mean is not None
    assert ours.ci_95_lower is not None
    assert ours.ci_95_upper is not None
    for half_width, other in [
        (ours.ci_95_upper - ours.mean, theirs[f"{name}_ci_95_upper"] - mean),
        (ours.mean - ours.ci_95_lower, mean - theirs[f"{name}_ci_95_lower"]),
    ]:
        assert half_width == pytest.approx(other, rel=HALF_WIDTH), name
        assert half_width > other, "12.706 is less than t"
