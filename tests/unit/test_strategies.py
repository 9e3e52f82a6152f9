"""The built-in strategies, and strategies of other packages."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.constants import DEFAULT_STRATEGY
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import aggregate_results, calculate_efficiency_metrics
from llm_energy_measure.results.strategies import (
    SumEnergyAvgThroughput,
    get_strategy,
    strategy_names,
)
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

BUILT_IN = ["sum_energy_avg_throughput", "attributed_energy", "model_parallel", "wall_clock_throughput"]

MODULE = """
from llm_energy_measure.results.strategies import Totals

class Greatest:
    name = "greatest"

    def combine(self, results):
        energy = max(result.energy_metrics.total_energy_j for result in results)
        return Totals(total_tokens=1, total_energy_j=energy, total_inference_time_sec=None,
                      avg_tokens_per_second=None, total_flops=None)

GREATEST = Greatest()
NOT_A_STRATEGY = object()
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that adds strategies; one of them is broken."""
    (tmp_path / "greatest_rule.py").write_text(MODULE, encoding="utf-8")
    info = tmp_path / "greatest_rule-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greatest-rule\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[llm_energy_measure.strategies]\n"
        "greatest = greatest_rule:GREATEST\n"
        "broken = greatest_rule:NOT_A_STRATEGY\n"
        "absent = no_such_module:RULE\n"
        f"{DEFAULT_STRATEGY} = greatest_rule:GREATEST\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_default_strategy_is_the_first() -> None:
    assert strategy_names()[0] == DEFAULT_STRATEGY == "sum_energy_avg_throughput"
    assert isinstance(get_strategy(DEFAULT_STRATEGY), SumEnergyAvgThroughput)


def test_attributed_energy_strategy_keeps_the_plain_sum_too() -> None:
    scopes = {"gpu_scope": "device", "cpu_scope": "host", "ram_scope": "host"}
    same_gpu = [
        factories.raw(process_index=n, gpu_id=0, host="a", energy_metrics=factories.energy(n, **scopes))
        for n in range(2)
    ]
    plain = aggregate_results(factories.EXPERIMENT, same_gpu)
    result = aggregate_results(factories.EXPERIMENT, same_gpu, strategy="attributed_energy")
    assert plain.attributed_energy_j is not None
    assert plain.total_energy_j == plain.plain_energy_j == 1971.5 + 2221.5
    assert plain.attributed_energy_j < 1971.5 + 2221.5
    assert (result.total_energy_j, result.plain_energy_j) == (plain.attributed_energy_j, plain.plain_energy_j)
    assert result.attribution_factor == plain.attribution_factor
    assert result.avg_energy_per_token_j == plain.attributed_energy_j / (plain.total_tokens or 0)
    assert (result.total_tokens, result.avg_tokens_per_second) == (plain.total_tokens, plain.avg_tokens_per_second)


def test_attributed_energy_is_null_if_it_is_undetermined() -> None:
    result = aggregate_results(factories.EXPERIMENT, factories.raws(2), strategy="attributed_energy")
    assert (result.total_energy_j, result.avg_energy_per_token_j) == (None, None)
    assert result.plain_energy_j == 1971.5 + 2221.5


def test_model_parallel_counts_tokens_once_and_sums_energy() -> None:
    work = factories.inference(total_tokens=8192, tokens_per_second=860.0)
    ranks = factories.raws(4, inference_metrics=work)
    result = aggregate_results(factories.EXPERIMENT, ranks, strategy="model_parallel")
    plain = aggregate_results(factories.EXPERIMENT, ranks)
    assert (result.total_tokens, result.avg_tokens_per_second) == (8192, 860.0)
    assert result.total_energy_j == plain.total_energy_j
    assert result.total_flops == 2e13 + 3e12, "an estimate from the parameters is of the whole model"
    assert calculate_efficiency_metrics(result)["effective_batch_throughput"] == 860.0
    assert calculate_efficiency_metrics(plain)["effective_batch_throughput"] == 4 * 860.0


def test_counted_flops_of_ranks_are_summed() -> None:
    counted = [
        factories.raw(process_index=index, compute_metrics=factories.compute(flops_total=1e12, flops_method="profiler"))
        for index in range(3)
    ]
    assert aggregate_results(factories.EXPERIMENT, counted, strategy="model_parallel").total_flops == 3e12


def test_model_parallel_ignores_ranks_without_tokens() -> None:
    ranks = [factories.raw(), factories.raw(process_index=1, inference_metrics=None, compute_metrics=None)]
    result = aggregate_results(factories.EXPERIMENT, ranks, strategy="model_parallel")
    assert (result.total_tokens, result.avg_tokens_per_second) == (8192, 862.5)
    silent = factories.raws(2, inference_metrics=None, compute_metrics=None)
    assert aggregate_results(factories.EXPERIMENT, silent, strategy="model_parallel").total_tokens is None


def test_wall_clock_throughput_is_tokens_per_span_of_all_processes() -> None:
    records = [
        factories.raw(process_index=0, timestamps=factories.timestamps(factories.START, 40.0)),
        factories.raw(process_index=1, timestamps=factories.timestamps(factories.START + timedelta(seconds=10), 40.0)),
    ]
    result = aggregate_results(factories.EXPERIMENT, records, strategy="wall_clock_throughput")
    assert result.avg_tokens_per_second == (8192 + 8292) / 50
    assert calculate_efficiency_metrics(result)["effective_batch_throughput"] == (8192 + 8292) / 50
    for unknown in (factories.timestamps(end=None), factories.timestamps(factories.START.replace(tzinfo=None))):
        other = factories.raw(process_index=1, timestamps=unknown)
        result = aggregate_results(factories.EXPERIMENT, [records[0], other], strategy="wall_clock_throughput")
        assert result.avg_tokens_per_second is None


@pytest.mark.usefixtures("plugin")
def test_strategy_of_another_package_is_listed_and_used() -> None:
    assert strategy_names() == [*BUILT_IN, "absent", "broken", "greatest"]
    result = aggregate_results(factories.EXPERIMENT, factories.raws(3), strategy="greatest")
    assert result.aggregation.method == "greatest"
    assert (result.total_energy_j, result.total_tokens, result.avg_tokens_per_second) == (2471.5, 1, None)


@pytest.mark.usefixtures("plugin")
def test_no_package_can_replace_the_default_strategy() -> None:
    result = aggregate_results(factories.EXPERIMENT, factories.raws(3))
    assert result.total_energy_j == 1971.5 + 2221.5 + 2471.5


@pytest.mark.usefixtures("plugin")
def test_error_of_an_unknown_strategy_lists_the_choices() -> None:
    with pytest.raises(ConfigurationError) as caught:
        aggregate_results(factories.EXPERIMENT, factories.raws(1), strategy="median")
    assert str(caught.value) == (
        "cannot aggregate by the strategy 'median': the strategy is unknown; "
        f"choose one of {', '.join(BUILT_IN)}, absent, broken, greatest"
    )


@pytest.mark.usefixtures("plugin")
def test_object_without_combine_is_not_a_strategy() -> None:
    with pytest.raises(ConfigurationError, match="NOT_A_STRATEGY has no attribute 'name' or no method 'combine'"):
        get_strategy("broken")


@pytest.mark.usefixtures("plugin")
def test_strategy_that_cannot_be_imported_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="^cannot aggregate by the strategy 'absent': no_such_module:RULE"):
        get_strategy("absent")
