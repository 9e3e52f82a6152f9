"""Aggregation of several unequal processes, with expected values computed by hand."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from llm_energy_measure.cli.energies import energy_of
from llm_energy_measure.cli.formatting import aggregate_line
from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import Manifest, RawProcessResult, UnreadableFile
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import (
    AggregationError,
    ConfigurationError,
    IncompatibleResultsError,
    IncompleteExperimentError,
)
from llm_energy_measure.results import aggregate_results, calculate_efficiency_metrics
from llm_energy_measure.results.store import codec
from llm_energy_measure.verification.verdicts import verdict_of
from tests.support import factories
from tests.support.factories import EXPERIMENT as EXP

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import AggregatedResult

START = factories.START


def aggregate(*results: RawProcessResult, **options: Any) -> AggregatedResult:
    return aggregate_results(EXP, results, **options)


def at(start: float, end: float | None, index: int, **changes: Any) -> RawProcessResult:
    """Return the record of a process that ran from `start` to `end`, in seconds after `START`."""
    span = factories.timestamps(
        START + timedelta(seconds=start), end=None if end is None else START + timedelta(seconds=end)
    )
    return factories.raw(process_index=index, timestamps=span, **changes)


# The default strategy


def test_three_unequal_processes_by_hand() -> None:
    result = aggregate(
        factories.raw(
            process_index=0,
            inference_metrics=factories.inference(total_tokens=100, inference_time_sec=2.0, tokens_per_second=50.0),
            energy_metrics=factories.energy(total_energy_j=1000.0),
            compute_metrics=factories.compute(flops_total=1e12),
        ),
        factories.raw(
            process_index=1,
            inference_metrics=factories.inference(total_tokens=250, inference_time_sec=4.0, tokens_per_second=62.5),
            energy_metrics=factories.energy(total_energy_j=1500.0),
            compute_metrics=factories.compute(flops_total=3e12),
        ),
        factories.raw(
            process_index=2,
            inference_metrics=factories.inference(total_tokens=150, inference_time_sec=1.5, tokens_per_second=100.0),
            energy_metrics=factories.energy(total_energy_j=500.0),
            compute_metrics=factories.compute(flops_total=5e12),
        ),
    )
    assert result.aggregation.method == "sum_energy_avg_throughput"
    assert result.aggregation.num_processes == 3
    assert result.total_tokens == 500
    assert result.total_energy_j == 3000.0
    assert result.total_inference_time_sec == 7.5
    assert result.avg_tokens_per_second == pytest.approx(212.5 / 3, rel=1e-15)
    assert result.avg_energy_per_token_j == 6.0
    assert result.total_flops == 9e12
    assert result.tokens_per_joule == pytest.approx(1 / 6, rel=1e-15)
    assert result.is_lower_bound is False
    assert result.aggregation.warnings == []


def test_start_is_the_earliest_and_end_the_latest() -> None:
    result = aggregate(at(5, 20, 0), at(2, 11, 1), at(3, 40, 2))
    assert result.start_time == START + timedelta(seconds=2)
    assert result.end_time == START + timedelta(seconds=40)
    assert result.duration_sec == 38.0


def test_unknown_end_is_left_out() -> None:
    result = aggregate(at(5, None, 0), at(2, 11, 1))
    assert result.end_time == START + timedelta(seconds=11)
    assert aggregate(at(5, None, 0)).end_time is None
    assert aggregate(at(5, None, 0)).duration_sec is None


def test_description_of_the_experiment_is_from_the_first_process() -> None:
    result = aggregate(
        factories.raw(process_index=2, effective_config={"a": 2}, config_warnings=["late", "both"]),
        factories.raw(
            process_index=0, effective_config={"a": 0}, cli_overrides={"b": 0}, config_warnings=["early", "both"]
        ),
    )
    assert (result.effective_config, result.cli_overrides) == ({"a": 0}, {"b": 0})
    assert result.config_warnings == ["early", "both", "late"]
    assert (result.experiment_id, result.backend, result.backend_version, result.model_name) == (
        *(EXP, "pytorch", "transformers=4.57.6", "meta-llama/Llama-3.2-1B"),
    )
    assert [process.process_index for process in result.process_results] == [0, 2]


def test_process_without_tokens_is_left_out_of_sums_and_means() -> None:
    result = aggregate(factories.raw(), factories.raw(process_index=1, inference_metrics=None, compute_metrics=None))
    alone = aggregate(factories.raw())
    for name in ("total_tokens", "total_inference_time_sec", "avg_tokens_per_second", "total_flops", "latency_stats"):
        assert getattr(result, name) == getattr(alone, name), name
    assert result.total_energy_j == 1971.5 + 2221.5
    assert result.is_lower_bound is False


def test_mean_is_over_processes_that_report_a_throughput() -> None:
    silent = factories.raw(process_index=1, inference_metrics=factories.inference(1, tokens_per_second=None))
    result = aggregate(factories.raw(), silent, factories.raw(process_index=2))
    assert result.avg_tokens_per_second == (862.5 + 882.5) / 2
    assert calculate_efficiency_metrics(result)["effective_batch_throughput"] == 862.5 + 882.5


def test_value_that_no_process_reports_is_unknown() -> None:
    nothing: dict[str, Any] = {
        "inference_metrics": None,
        "compute_metrics": factories.compute(flops_total=None),
        "energy_metrics": factories.energy(total_energy_j=None),
    }
    result = aggregate(*factories.raws(2, **nothing))
    for name in (
        *("total_tokens", "total_energy_j", "total_inference_time_sec", "avg_tokens_per_second"),
        *("avg_energy_per_token_j", "total_flops", "latency_stats", "tokens_per_joule"),
    ):
        assert getattr(result, name) is None, name


def test_process_without_energy_makes_the_total_a_lower_bound() -> None:
    nothing = factories.energy(total_energy_j=None, gpu_energy_j=None, cpu_energy_j=None, ram_energy_j=None)
    dark = factories.raw(process_index=1, energy_metrics=nothing)
    result = aggregate(factories.raw(), dark)
    assert result.total_energy_j == 1971.5
    assert result.is_lower_bound is True
    assert result.aggregation.warnings == [
        "process 1 has no energy; the total and the energy per token are lower bounds"
    ]


def test_sum_outside_the_range_of_a_float_is_refused() -> None:
    huge = factories.raws(2, energy_metrics=factories.energy(total_energy_j=1.7e308))
    with pytest.raises(AggregationError, match="^cannot aggregate 'exp_7': "):
        aggregate(*huge)


def test_percentiles_are_of_the_pooled_samples() -> None:
    first = factories.latency([10.0, 20.0, 30.0], [1.0], [1.0, 5.0])
    second = factories.latency([1000.0], [3.0, 8.0], [3.0, 8.0])
    stats = aggregate(
        factories.raw(inference_metrics=factories.inference(latency_measurements=first)),
        factories.raw(process_index=1, inference_metrics=factories.inference(latency_measurements=second)),
        factories.raw(process_index=2),
    ).latency_stats
    assert stats is not None
    assert (stats.ttft_mean_ms, stats.ttft_median_ms, stats.ttft_min_ms, stats.ttft_max_ms) == (
        265.0,
        25.0,
        10.0,
        1000.0,
    )
    assert stats.ttft_p95_ms == pytest.approx(30 + 0.85 * 970)
    assert stats.ttft_p99_ms == pytest.approx(30 + 0.97 * 970)
    assert (stats.itl_mean_ms, stats.itl_median_ms, stats.itl_p95_ms) == (4.0, 3.0, 7.5)
    assert stats.itl_full_mean_ms == 4.25
    assert stats.itl_full_p99_ms == pytest.approx(7.91)
    assert (stats.ttft_samples, stats.itl_samples) == (4, 3)


# Efficiency


def test_efficiency_by_hand() -> None:
    result = aggregate(
        factories.raw(
            inference_metrics=factories.inference(total_tokens=100, tokens_per_second=50.0),
            energy_metrics=factories.energy(total_energy_j=1000.0),
            compute_metrics=factories.compute(flops_total=1e12),
        ),
        factories.raw(
            process_index=1,
            inference_metrics=factories.inference(total_tokens=300, tokens_per_second=150.0),
            energy_metrics=factories.energy(total_energy_j=600.0),
            compute_metrics=factories.compute(flops_total=3e12),
        ),
    )
    assert calculate_efficiency_metrics(result) == {
        "tokens_per_joule": 0.25,
        "joules_per_token": 4.0,
        "flops_per_joule": 2.5e9,
        "tokens_per_second": 100.0,
        "effective_batch_throughput": 200.0,
    }


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({"total_energy_j": 0.0}, {"tokens_per_joule", "flops_per_joule"}),
        ({"total_energy_j": None}, {"tokens_per_joule", "flops_per_joule", "joules_per_token"}),
        ({"total_tokens": 0}, {"joules_per_token"}),
        ({"total_tokens": None}, {"joules_per_token", "tokens_per_joule"}),
        ({"total_flops": None}, {"flops_per_joule"}),
        ({"avg_tokens_per_second": None}, {"tokens_per_second", "effective_batch_throughput"}),
    ],
)
def test_unknown_efficiency_is_nan_and_not_zero(changes: dict[str, Any], unknown: set[str]) -> None:
    metrics = calculate_efficiency_metrics(factories.aggregated(**changes))
    assert {name for name, value in metrics.items() if math.isnan(value)} == unknown


def test_components_without_a_total_give_a_partial_total() -> None:
    parts = factories.energy(total_energy_j=None, gpu_energy_j=600.0, cpu_energy_j=100.0, ram_energy_j=None)
    result = aggregate(factories.raw(energy_metrics=parts))
    assert (result.total_energy_j, result.partial_energy_j, result.is_lower_bound) == (None, 700.0, True)
    assert result.aggregation.warnings[0] == (
        "process 0 has no total energy; its known components are GPU 600.0 J, CPU 100.0 J; the total and the energy "
        "per token are lower bounds"
    )
    assert aggregate_line(result).startswith("exp_7: 1 of 1 processes, at least 700 J, ")
    assert energy_of(result, "attributed").cell() == "≥ 700 J"
    both = aggregate(factories.raw(), factories.raw(process_index=1, energy_metrics=parts))
    assert (both.total_energy_j, both.partial_energy_j) == (1971.5, 2671.5)


def test_partial_total_is_unknown_if_totals_or_all_components_are_known() -> None:
    nothing = factories.energy(total_energy_j=None, gpu_energy_j=None, cpu_energy_j=None, ram_energy_j=None)
    assert aggregate(factories.raw()).partial_energy_j is None
    assert aggregate(factories.raw(energy_metrics=nothing)).partial_energy_j is None


def test_efficiency_uses_the_attributed_energy_on_request() -> None:
    known = factories.aggregated(attributed_energy_j=2096.5, attributed_bounds_j=(2096.5, 2096.5))
    plain, attributed = calculate_efficiency_metrics(known), calculate_efficiency_metrics(known, energy="attributed")
    for name in ("tokens_per_joule", "flops_per_joule"):
        assert attributed[name] == pytest.approx(2 * plain[name])
    assert attributed["joules_per_token"] == pytest.approx(plain["joules_per_token"] / 2)
    assert attributed["tokens_per_second"] == plain["tokens_per_second"]
    undetermined = factories.aggregated(attributed_bounds_j=(2096.5, 4193.0))
    metrics = calculate_efficiency_metrics(undetermined, energy="attributed")
    unknown = {name for name, value in metrics.items() if math.isnan(value)}
    assert unknown == {"tokens_per_joule", "joules_per_token", "flops_per_joule"}


def test_ratio_with_a_zero_denominator_is_none_in_a_record() -> None:
    nothing = factories.inference(total_tokens=0, input_tokens=0, output_tokens=0)
    assert aggregate(factories.raw(inference_metrics=nothing)).avg_energy_per_token_j is None
    cold = factories.energy(total_energy_j=0.0)
    assert aggregate(factories.raw(energy_metrics=cold)).tokens_per_joule is None


def test_effective_throughput_without_process_results_counts_all() -> None:
    figures = msgspec.structs.replace(factories.aggregated(), process_results=[])
    assert calculate_efficiency_metrics(figures)["effective_batch_throughput"] == 867.5 * 2


# GPUs

UUIDS = ("GPU-aaaa", "GPU-bbbb")


@pytest.mark.parametrize(
    ("first", "second", "warning", "verified"),
    [
        ({"gpu_id": 0}, {"gpu_id": 0}, "GPU 0 appears in multiple processes", False),
        ({"gpu_id": 0}, {"gpu_id": 1}, None, True),
        ({"gpu_id": 0, "host": "a"}, {"gpu_id": 0, "host": "a"}, "GPU 0 appears in multiple processes", False),
        ({"gpu_id": 0, "host": "a"}, {"gpu_id": 0, "host": None}, "GPU 0 appears in multiple processes", False),
        ({"gpu_id": 0, "host": "a"}, {"gpu_id": 0, "host": "b"}, None, True),
        ({"gpu_id": None}, {"gpu_id": None}, "processes 0, 1 do not name their GPUs", False),
        ({"gpu_id": 0}, {"gpu_id": None}, "process 1 does not name its GPU", False),
        ({"gpu_id": 0, "gpu_uuid": UUIDS[0]}, {"gpu_id": 0, "gpu_uuid": UUIDS[1]}, None, True),
        (
            {"gpu_id": 0, "gpu_uuid": UUIDS[0]},
            {"gpu_id": 1, "gpu_uuid": UUIDS[0]},
            "GPU GPU-aaaa appears in multiple processes",
            False,
        ),
        ({"gpu_id": 0, "gpu_uuid": UUIDS[0]}, {"gpu_id": 1, "gpu_uuid": None}, None, True),
        (
            {"gpu_id": 0, "gpu_uuid": UUIDS[0]},
            {"gpu_id": 0, "gpu_uuid": None},
            "GPU 0 appears in multiple processes",
            False,
        ),
        (
            {"gpu_id": None, "gpu_uuid": UUIDS[0]},
            {"gpu_id": 1, "gpu_uuid": None},
            "processes 0, 1 name their GPUs in different ways: by UUID, and by index only",
            False,
        ),
    ],
)
def test_gpu_that_two_processes_measured_gives_a_warning(
    first: dict[str, Any], second: dict[str, Any], warning: str | None, *, verified: bool
) -> None:
    result = aggregate(factories.raw(**first), factories.raw(process_index=1, **second))
    assert result.aggregation.warnings == ([warning] if warning else [])
    assert result.aggregation.gpu_attribution_verified is verified


def test_each_repeated_gpu_has_one_warning() -> None:
    result = aggregate(*(factories.raw(process_index=index, gpu_id=index // 2) for index in range(4)))
    assert result.aggregation.warnings == [f"GPU {index} appears in multiple processes" for index in range(2)]
    assert result.aggregation.gpu_attribution_verified is False


def test_repeated_gpu_is_reported_without_energy_components() -> None:
    total = factories.energy(gpu_energy_j=None, cpu_energy_j=None, ram_energy_j=None)
    result = aggregate(*factories.raws(2, gpu_id=0, energy_metrics=total))
    assert result.aggregation.warnings == ["GPU 0 appears in multiple processes"]


def test_each_gpu_that_all_processes_list_has_one_warning() -> None:
    devices = factories.energy(devices=[DeviceEnergy(gpu_id=index) for index in range(2)])
    result = aggregate(*factories.raws(2, energy_metrics=devices))
    repeated = [text for text in result.aggregation.warnings if "multiple processes" in text]
    assert repeated == [f"GPU {index} appears in multiple processes" for index in range(2)]


def test_records_without_a_host_count_as_one_host() -> None:
    apart = aggregate(*(factories.raw(process_index=i, gpu_id=0, host=host) for i, host in enumerate(["a", "b"])))
    unknown = aggregate(*(factories.raw(process_index=i, gpu_id=0) for i in range(2)))
    assert (apart.aggregation.gpu_attribution_verified, unknown.aggregation.gpu_attribution_verified) == (True, False)


@pytest.mark.parametrize("uuids", [("MIG-1", "MIG-2"), (None, None)])
def test_mig_slices_give_a_warning(uuids: tuple[str | None, str | None]) -> None:
    slices = [
        factories.raw(process_index=index, gpu_id=index, gpu_uuid=uuid, gpu_is_mig=True)
        for index, uuid in enumerate(uuids)
    ]
    result = aggregate(*slices)
    assert "processes 0, 1 ran on MIG slices; the sensor covers the whole GPU, not one slice" in (
        result.aggregation.warnings
    )
    assert result.aggregation.gpu_attribution_verified is False
    assert "process 0 ran on a MIG slice; the sensor covers the whole GPU, not one slice" in (
        aggregate(slices[0]).aggregation.warnings
    )


def test_processes_one_after_the_other_may_use_one_gpu() -> None:
    later = factories.timestamps(factories.START + timedelta(hours=1))
    result = aggregate(factories.raw(gpu_id=0), factories.raw(process_index=1, gpu_id=0, timestamps=later))
    assert result.aggregation.gpu_attribution_verified is True


# Time


@pytest.mark.parametrize(
    ("spans", "overlap"),
    [
        ([(0, 10), (5, 15)], True),
        ([(0, 10), (5.1, 15)], False),
        ([(5, 15), (0, 10)], True),
        ([(0, 100), (5, 15)], True),
        ([(0, 10), (5, 15), (9, 20)], True),
        ([(0, 10), (5, 15), (10, 20)], True),
        ([(0, 10), (5, 15), (11, 20)], False),
        ([(0, 600), (599, 1200)], False),
        ([(0, 10), (10, 20)], False),
        ([(0, 10), (20, 30)], False),
        ([(0, 10), (5, None)], False),
        ([(0, 10)], False),
    ],
)
def test_temporal_overlap_of_processes(spans: list[tuple[float, float | None]], *, overlap: bool) -> None:
    result = aggregate(*(at(start, end, index) for index, (start, end) in enumerate(spans)))
    assert result.aggregation.temporal_overlap_verified is overlap
    is_explained = any("concurrently" in text for text in result.aggregation.warnings)
    assert is_explained is (not overlap and len(spans) > 1)


def test_warning_says_why_the_processes_are_not_concurrent() -> None:
    assert aggregate(at(0, 600, 0), at(599, 1200, 1)).aggregation.warnings == [
        "processes 0 and 1 overlap by 1.0 s, less than half of the shorter run; the processes did not run concurrently"
    ]
    [warning] = aggregate(at(0, 10, 0), at(20, 30, 1)).aggregation.warnings
    assert warning.startswith("process 0 ended 10.0 s before process 1 started; the processes did not all run")
    assert aggregate(at(0, 10, 0), at(5, None, 1)).aggregation.warnings == [
        "it is unknown whether the processes ran concurrently: at least one process has no end"
    ]


def test_naive_and_aware_timestamps_have_no_common_span() -> None:
    naive = factories.timestamps(START.replace(tzinfo=None))
    result = aggregate(factories.raw(), factories.raw(process_index=1, timestamps=naive))
    assert (result.start_time, result.end_time, result.duration_sec) == (None, None, None)
    assert result.aggregation.temporal_overlap_verified is False
    assert result.aggregation.warnings == [
        "it is unknown whether the processes ran concurrently: some timestamps have a UTC offset and some have none",
        "some timestamps have a UTC offset and some have none, so start and end of the experiment are unknown",
    ]
    assert result.total_energy_j == 1971.5 + 2221.5


def test_naive_timestamps_have_a_common_span() -> None:
    naive = datetime(2026, 1, 16, 12)
    result = aggregate(*factories.raws(2, timestamps=factories.timestamps(naive, 10.0)))
    assert (result.start_time, result.duration_sec) == (naive, 10.0)
    assert result.aggregation.temporal_overlap_verified is True


def test_invalid_times_give_a_warning_and_the_energy_counts() -> None:
    reversed_span = factories.timestamps(seconds=-1.0, duration_sec=None)
    result = aggregate(factories.raw(timestamps=reversed_span))
    assert result.total_energy_j == 1971.5
    assert len(result.aggregation.warnings) == 1
    assert result.aggregation.warnings[0].startswith("process 0: timestamps: end 2026-01-16T19:39:57")


# Completeness


def test_partial_result_states_lower_bound_and_coverage() -> None:
    torn = UnreadableFile(name="process_3.json", reason="the file is empty (0 bytes)")
    result = aggregate(*factories.raws(3), expected_processes=5, unreadable=[torn])
    assert result.is_lower_bound is True
    assert result.completeness is not None
    assert result.completeness.missing == [3, 4]
    assert result.completeness.coverage == 0.6
    assert result.completeness.unreadable == [torn]
    assert result.aggregation.num_processes == 3
    [warning] = result.aggregation.warnings
    assert warning == (
        "partial: 3 of 5 processes have results, missing processes 3, 4 (expected number from argument); "
        "unreadable: process_3.json (the file is empty (0 bytes)); the sums are lower bounds"
    )


def test_process_that_is_only_a_part_of_a_run_gives_a_lower_bound() -> None:
    result = aggregate(factories.raw(), factories.raw(process_index=1, gpu_id=1, status="partial"))
    assert result.is_lower_bound is True
    assert verdict_of(result) == "partial"


def test_strict_refuses_an_incomplete_experiment_with_a_report() -> None:
    with pytest.raises(IncompleteExperimentError) as caught:
        aggregate(*factories.raws(2), expected_processes=4, strict=True)
    assert str(caught.value) == (
        "cannot aggregate 'exp_7' strictly: 2 of 4 processes have results, "
        "missing processes 2, 3 (expected number from argument); "
        "run the missing processes, or accept a lower bound (--no-strict, strict=False)"
    )
    assert caught.value.report is not None
    assert caught.value.report.missing == [2, 3]


def test_strict_accepts_a_complete_experiment_with_findings() -> None:
    dark = factories.raw(process_index=1, energy_metrics=factories.energy(total_energy_j=None))
    same = factories.raw(process_index=2, gpu_id=0)
    result = aggregate(factories.raw(), dark, same, expected_processes=3, strict=True)
    assert len(result.aggregation.warnings) == 2


def test_unexpected_process_counts_and_gives_a_warning() -> None:
    result = aggregate(*factories.raws(3), expected_processes=2)
    assert result.aggregation.num_processes == 3
    assert result.is_lower_bound is False
    assert result.aggregation.warnings == ["unexpected process 2: the expected number is 2 (from argument)"]


def test_warning_lists_only_the_first_missing_processes() -> None:
    [warning] = aggregate(factories.raw(), expected_processes=1000).aggregation.warnings
    assert "missing processes 1, 2, 3, 4, 5, 6, 7, 8 and 991 more (expected number from argument)" in warning


def test_manifest_gives_the_expected_number_of_processes() -> None:
    manifest = Manifest(experiment_id=EXP, expected_processes=3)
    with pytest.raises(IncompleteExperimentError, match="expected number from manifest"):
        aggregate(factories.raw(), manifest=manifest, strict=True)


@pytest.mark.parametrize("expected", [0, -1, MAX_PROCESSES + 1])
def test_invalid_number_of_processes_is_refused(expected: int) -> None:
    with pytest.raises(
        ConfigurationError, match=f"expected_processes is {expected}; pass an integer from 1 to 1000000"
    ):
        aggregate(factories.raw(), expected_processes=expected)


# Refusals


def test_aggregation_without_results_is_refused() -> None:
    with pytest.raises(AggregationError, match="cannot aggregate 'exp_7': it has no results"):
        aggregate()
    torn = UnreadableFile(name="process_0.json", reason="it is empty")
    with pytest.raises(AggregationError, match="process_0.json: it is empty"):
        aggregate(unreadable=[torn])


@pytest.mark.parametrize("field", ["experiment_id", "model_name", "backend"])
def test_incompatible_results_are_refused_with_field_and_values(field: str) -> None:
    first, second = factories.raw(), factories.raw(process_index=1, **{field: "another"})
    with pytest.raises(IncompatibleResultsError) as caught:
        aggregate(second, first)
    assert caught.value.field == field
    assert caught.value.values == (getattr(first, field), "another")
    assert str(caught.value) == (
        f"cannot aggregate 'exp_7': {field} is {getattr(first, field)!r}, and in process 1 it is 'another'; "
        "aggregate the results separately, or in Python pass allow_mixed=True"
    )


def test_unknown_backend_differs_from_a_known_one() -> None:
    with pytest.raises(IncompatibleResultsError, match="backend is 'pytorch', and in process 1 it is None"):
        aggregate(factories.raw(), factories.raw(process_index=1, backend=None))


def test_results_of_another_experiment_are_refused() -> None:
    with pytest.raises(IncompatibleResultsError, match="experiment_id is 'exp_8', and in process 0 it is 'exp_7'"):
        aggregate_results("exp_8", [factories.raw()])


def test_experiment_can_be_named_by_its_folder() -> None:
    assert aggregate_results("a_b", [factories.raw("a/b")]).experiment_id == "a/b"


def test_allow_mixed_aggregates_incompatible_results() -> None:
    mixed = [factories.raw("x", model_name="m"), factories.raw("y", 1, backend="vllm")]
    result = aggregate_results("both", mixed, allow_mixed=True)
    assert result.experiment_id == "both"
    assert result.total_energy_j == 1971.5 + 2221.5


@pytest.mark.parametrize("allow_mixed", [True, False])
def test_two_results_of_one_process_are_refused(allow_mixed: bool) -> None:
    with pytest.raises(
        IncompatibleResultsError, match="there are two results of process 1; pass one per process"
    ) as caught:
        aggregate(*factories.raws(2), factories.raw(process_index=1), allow_mixed=allow_mixed)
    assert (caught.value.field, caught.value.values) == ("process_index", (1, 1))


# Sources


def test_aggregate_lists_its_sources_by_process_index() -> None:
    files = {f"process_{index}.json": codec.encode_raw(factories.raw(process_index=index)) for index in (2, 0, 1)}
    result = aggregate(*(codec.decode_raw(data, f"exp_7/{name}") for name, data in files.items()))
    assert result.sources == [codec.source_file(name, files[name]) for name in sorted(files)]


def test_aggregate_of_unstored_results_has_no_sources() -> None:
    stored = codec.decode_raw(codec.encode_raw(factories.raw()), "process_0.json")
    assert aggregate(stored).sources is not None
    assert aggregate(stored, factories.raw(process_index=1)).sources is None


# Records built in Python, which are not validated yet


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"energy_metrics": factories.energy(1, gpu_energy_j=math.nan)},
            "energy_metrics.gpu_energy_j is nan, which JSON can't hold",
        ),
        (
            {"energy_metrics": factories.energy(1, total_energy_j=-math.inf)},
            "energy_metrics.total_energy_j is -inf, which JSON can't hold",
        ),
        (
            {"timestamps": factories.timestamps(duration_sec=math.inf)},
            "timestamps.duration_sec is inf, which JSON can't hold",
        ),
        (
            {"energy_metrics": factories.energy(1, total_energy_j=-1.0)},
            "energy_metrics.total_energy_j: Expected float >= 0.0, found -1.0",
        ),
        (
            {"energy_metrics": factories.energy(1, total_energy_j="12")},
            "energy_metrics.total_energy_j: Expected float | null, got str, found '12'",
        ),
        (
            {"timestamps": msgspec.structs.replace(factories.timestamps(), start="now")},
            "timestamps.start: Invalid RFC3339 encoded datetime, found 'now'",
        ),
        ({"world_size": 10**12}, "world_size: Expected int <= 1000000, found 1000000000000"),
        ({"process_index": None}, "process_index: Expected int, got null, found None"),
    ],
)
def test_value_that_cannot_be_stored_is_refused(changes: dict[str, Any], found: str) -> None:
    odd = factories.raw(**{"process_index": 1, **changes})
    with pytest.raises(AggregationError) as refused:
        aggregate(factories.raw(), odd)
    assert refused.value.found == f"process {odd.process_index!r}: {found}"
    assert refused.value.advice == "correct this value, or set it to None if it is unknown"


def test_value_of_a_checkpoint_that_cannot_be_stored_is_refused() -> None:
    odd = factories.raw(process_index=1, energy_metrics=factories.energy(1, total_energy_j=math.nan))
    with pytest.raises(AggregationError, match="process 1: energy_metrics.total_energy_j is nan"):
        aggregate_results("exp_7", [factories.raw()], partials=[odd], expected_processes=2)


def test_numpy_numbers_are_aggregated() -> None:
    joules = factories.energy(1, total_energy_j=np.float64(2000.5), gpu_energy_j=np.float32(2.5))
    result = aggregate(factories.raw(), factories.raw(process_index=1, energy_metrics=joules))
    assert result.total_energy_j == 1971.5 + 2000.5
    assert codec.decode_aggregated(codec.encode_aggregated(result), "x.json").total_energy_j == 3972.0


def test_aggregate_keeps_valid_records_and_normalises_arrays_and_texts() -> None:
    [same] = aggregate(record := factories.raw()).process_results
    assert same is record
    odd = factories.raw(
        effective_config={"sizes": np.array([1, 2])},
        timestamps=msgspec.structs.replace(factories.timestamps(), start=START.isoformat()),
    )
    result = aggregate(odd)
    assert (result.effective_config, result.start_time) == ({"sizes": [1, 2]}, START)


def test_results_can_come_from_an_iterator() -> None:
    assert aggregate_results("exp_7", iter(factories.raws(3))) == aggregate(*factories.raws(3))  # type: ignore[arg-type]  # annotated as Sequence


def test_object_that_is_not_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        AggregationError, match="cannot aggregate 'exp_7': it is a .*Path, not a RawProcessResult; load"
    ):
        aggregate_results("exp_7", [tmp_path / "process_0.json"])  # type: ignore[list-item]  # the wrong use
