"""Laws of aggregation that hold for any processes."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.latency import LatencyMeasurements, pool_latency
from llm_energy_measure.domain.schema import timestamp_problems
from llm_energy_measure.exceptions import AggregationError, InvalidResultError
from llm_energy_measure.results import FileSystemRepository, aggregate_results, calculate_efficiency_metrics
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.strategies import strategy_names
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import factories, strategies

if TYPE_CHECKING:
    import random

    from llm_energy_measure.domain.experiment import RawProcessResult

whole = st.lists(strategies.raw_records(), min_size=1, max_size=3, unique_by=lambda record: record.process_index)
measured_processes = st.builds(
    factories.raw,
    process_index=st.integers(0, 9),
    world_size=st.one_of(st.none(), st.integers(1, 9)),
    inference_metrics=st.one_of(
        st.none(),
        st.builds(
            factories.inference,
            total_tokens=strategies.counts,
            tokens_per_second=st.one_of(st.none(), strategies.amounts),
        ),
    ),
    energy_metrics=st.builds(factories.energy, total_energy_j=st.one_of(st.none(), strategies.amounts)),
    compute_metrics=st.one_of(
        st.none(), st.builds(factories.compute, flops_total=st.one_of(st.none(), strategies.amounts))
    ),
)
experiments = st.lists(measured_processes, min_size=1, max_size=6, unique_by=lambda record: record.process_index)
readings = st.floats(0, 1e9, allow_subnormal=False)


@given(whole, st.randoms(use_true_random=False))
def test_order_of_processes_changes_nothing(records: list[RawProcessResult], order: random.Random) -> None:
    shuffled = order.sample(records, len(records))
    one, other = (aggregate_results("x", results, allow_mixed=True) for results in (records, shuffled))
    assert codec.encode_aggregated(one) == codec.encode_aggregated(other)


@given(experiments)
def test_sums_of_known_values_are_correctly_rounded(records: list[RawProcessResult]) -> None:
    result = aggregate_results("x", records, allow_mixed=True)
    energies = [e for record in records if (e := record.energy_metrics.total_energy_j) is not None]
    tokens = [record.inference_metrics.total_tokens for record in records if record.inference_metrics]
    flops = [
        record.compute_metrics.flops_total
        for record in records
        if record.compute_metrics and record.compute_metrics.flops_total is not None
    ]
    assert result.total_energy_j == (math.fsum(energies) if energies else None)
    assert result.total_tokens == (sum(tokens) if tokens else None)
    assert result.total_flops == (math.fsum(flops) if flops else None)
    assert result.is_lower_bound == (
        len(energies) < len(records) or bool(result.completeness and result.completeness.missing)
    )


@given(experiments)
def test_throughput_is_within_the_range_of_the_processes(records: list[RawProcessResult]) -> None:
    reported = [
        record.inference_metrics.tokens_per_second
        for record in records
        if record.inference_metrics and record.inference_metrics.tokens_per_second is not None
    ]
    result = aggregate_results("x", records, allow_mixed=True)
    if not reported:
        assert result.avg_tokens_per_second is None
    else:
        assert result.avg_tokens_per_second is not None
        assert min(reported) <= result.avg_tokens_per_second <= max(reported)


@given(experiments)
def test_found_missing_and_unexpected_cover_every_process(records: list[RawProcessResult]) -> None:
    report = aggregate_results("x", records, allow_mixed=True).completeness
    assert report is not None
    assert report.found_processes + len(report.missing) == report.expected_processes
    assert report.found_processes + len(report.unexpected) == len(records)


@given(experiments)
def test_unknown_ratio_is_never_zero(records: list[RawProcessResult]) -> None:
    result = aggregate_results("x", records, allow_mixed=True)
    metrics = calculate_efficiency_metrics(result)
    tokens, joules = result.total_tokens, result.total_energy_j
    is_unknown = not joules or tokens is None or math.isinf(tokens / joules)
    assert math.isnan(metrics["tokens_per_joule"]) == is_unknown
    assert math.isnan(metrics["joules_per_token"]) == (not result.total_tokens or result.total_energy_j is None)
    assert math.isnan(metrics["tokens_per_second"]) == (result.avg_tokens_per_second is None)


@given(
    st.lists(st.builds(LatencyMeasurements, ttft_ms=st.lists(readings), itl_trimmed_ms=st.lists(readings, max_size=5)))
)
def test_pooled_percentiles_are_those_of_all_samples(measured: list[LatencyMeasurements]) -> None:
    stats = pool_latency(measured)
    ttft = [sample for process in measured for sample in process.ttft_ms]
    itl = [sample for process in measured for sample in process.itl_trimmed_ms]
    assert (stats is None) == (not ttft and not itl)
    if stats is not None:
        assert (stats.ttft_samples, stats.itl_samples) == (len(ttft), len(itl))
        found = [stats.ttft_median_ms, stats.ttft_p95_ms, stats.ttft_p99_ms, stats.itl_median_ms, stats.itl_p95_ms]
        expected = [*_percentiles(ttft, [50, 95, 99]), *_percentiles(itl, [50, 95])]
        assert found == [None if value is None else pytest.approx(value, rel=1e-12, abs=1e-300) for value in expected]


def _percentiles(samples: list[float], percents: list[int]) -> list[float | None]:
    return [float(np.percentile(samples, percent)) if samples else None for percent in percents]


# Numbers that Python can represent and a file cannot


@given(st.data(), st.integers(1, 4), st.sampled_from(strategy_names()))
def test_numbers_that_json_cannot_represent_are_refused(data: st.DataObject, count: int, strategy: str) -> None:
    records = [factories.full_raw(process_index=index) for index in range(count)]
    odd = data.draw(st.integers(0, count - 1))
    records[odd] = data.draw(strategies.records_with_odd_numbers(records[odd]))
    try:
        result = aggregate_results(factories.EXPERIMENT, records, strategy=strategy)
    except AggregationError:  # an error message, and no calculated number
        pass
    else:
        assert codec.decode_aggregated(codec.encode_aggregated(result), "x.json").findings == result.findings
        assert not any(map(math.isinf, calculate_efficiency_metrics(result).values()))
        assert all(record == codec.require_valid_raw(record) for record in records if not timestamp_problems(record))


@given(st.data())
def test_record_with_such_a_number_is_kept_and_others_are_stored(data: st.DataObject) -> None:
    record = data.draw(strategies.records_with_odd_numbers(factories.full_raw()))
    repository = FileSystemRepository(store=MemoryStore())
    with contextlib.suppress(InvalidResultError):
        repository.save_raw(factories.EXPERIMENT, record)
    [name] = {entry.name for entry in repository.store.list(f"raw/{factories.EXPERIMENT}")} - {"manifest.json"}
    stored = json.loads(repository.store.get(f"raw/{factories.EXPERIMENT}/{name}"))
    if name.startswith("rejected-process_"):
        assert stored["rejected"]
        assert list(stored["record"]) == [*record.__struct_fields__[:-1]]
    else:
        assert repository.load_all_raw(factories.EXPERIMENT) == [codec.require_valid_raw(record)]
