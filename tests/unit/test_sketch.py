"""Latency histograms: their error, their merge, and how statistics use them."""

from __future__ import annotations

import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.latency import LatencyMeasurements, LatencySketches, pool_latency
from llm_energy_measure.domain.sketch import LatencySketch, SketchBuilder
from llm_energy_measure.domain.statistics import percentile
from llm_energy_measure.results.store import codec
from tests.support import factories

milliseconds = st.one_of(st.just(0.0), st.floats(1e-6, 1e9), st.floats(0, 1.7e308))


def sketch_of(samples: list[float]) -> LatencySketch:
    sketch = SketchBuilder().add(samples).sketch()
    assert sketch is not None
    return sketch


@given(st.lists(milliseconds, min_size=1), st.floats(0, 100))
def test_percentiles_are_within_one_percent(samples: list[float], percent: float) -> None:
    exact = percentile(sorted(samples), percent)
    assert exact is not None
    assert sketch_of(samples).percentile(percent) == pytest.approx(exact, rel=0.01 + 1e-9, abs=2e-6)


@given(st.lists(st.lists(st.floats(0, 1e9), min_size=1), min_size=1))
def test_merged_sketches_equal_the_sketch_of_all_samples(parts: list[list[float]]) -> None:
    merged = SketchBuilder()
    for part in parts:
        merged.merge(sketch_of(part))
    whole = sketch_of([sample for part in parts for sample in part])
    found = merged.sketch()
    assert found is not None
    assert msgspec.structs.replace(found, sum_ms=0.0) == msgspec.structs.replace(whole, sum_ms=0.0)
    assert found.sum_ms == pytest.approx(whole.sum_ms)


def test_builder_without_samples_has_no_sketch() -> None:
    assert SketchBuilder().add([]).sketch() is None


def test_minimum_maximum_and_mean_are_exact() -> None:
    sketch = sketch_of([0.0, 1.0, 2.0, 33.0])
    assert (sketch.percentile(0), sketch.percentile(100), sketch.mean_ms) == (0.0, 33.0, 9.0)


def test_exact_samples_and_sketches_pool() -> None:
    random.seed(7)
    samples = [random.lognormvariate(3, 1) for _ in range(30_000)]
    sampled = LatencyMeasurements(ttft_ms=samples[:10], sketches=LatencySketches(ttft_ms=sketch_of(samples[:20_000])))
    pooled = pool_latency([sampled, LatencyMeasurements(ttft_ms=samples[20_000:])])
    exact = pool_latency([LatencyMeasurements(ttft_ms=samples)])
    assert pooled is not None
    assert exact is not None
    assert (pooled.ttft_samples, pooled.ttft_min_ms, pooled.ttft_max_ms) == (30_000, min(samples), max(samples))
    assert pooled.ttft_mean_ms == pytest.approx(exact.ttft_mean_ms, rel=1e-9)
    for name in ("ttft_median_ms", "ttft_p95_ms", "ttft_p99_ms"):
        assert getattr(pooled, name) == pytest.approx(getattr(exact, name), rel=0.01)


def test_record_with_sketches_survives_its_file() -> None:
    latencies = LatencyMeasurements(ttft_ms=[1.0], sketches=LatencySketches(ttft_ms=sketch_of([0.0, 1.0, 5.0])))
    record = factories.raw(inference_metrics=factories.inference(latency_measurements=latencies))
    assert codec.decode_raw(codec.encode_raw(record), "x") == record


def test_record_without_sketches_has_no_such_key() -> None:
    latencies = factories.inference(latency_measurements=factories.latency([1.0], [], []))
    document = json.loads(codec.encode_raw(factories.raw(inference_metrics=latencies)))
    assert "sketches" not in document["inference_metrics"]["latency_measurements"]


def test_sketch_with_extreme_buckets_loads_and_answers() -> None:
    text = '{"count":9,"sum_ms":9,"min_ms":0,"max_ms":5,"first_bucket":49999,"bucket_counts":[4,4]}'
    assert msgspec.json.decode(text, type=LatencySketch).percentile(50) == 5.0
    with pytest.raises(msgspec.ValidationError, match="first_bucket"):
        msgspec.json.decode(text.replace("49999", "1000000000"), type=LatencySketch)
