"""Records in Python: build one from few values, change it, convert it; calls of scripts for the format's first tool."""

from __future__ import annotations

import csv
import json
from array import array
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_energy_measure import domain
from llm_energy_measure.domain import AggregationMetadata, EnergyMetrics, RawProcessResult, Timestamps
from llm_energy_measure.exceptions import ConfigurationError, IncompatibleResultsError
from llm_energy_measure.results import (
    FileSystemRepository,
    ResultsExporter,
    aggregate_results,
    export_aggregated_to_csv,
    export_raw_to_csv,
    export_to_csv,
    export_to_json,
)
from llm_energy_measure.results.strategies import get_strategy
from tests.support import factories

START = datetime(2026, 1, 16, 12, tzinfo=UTC)
END = START + timedelta(seconds=10)


def of(**changes: Any) -> RawProcessResult:
    values: dict[str, Any] = {"start": START, "end": END, "energy_j": 50.0, "input_tokens": 40, "output_tokens": 60}
    return RawProcessResult.of("exp_7", **(values | changes))


def test_record_of_few_values_can_be_saved_aggregated_and_exported(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    for index in range(2):
        repository.save_raw("exp_7", of(process_index=index, world_size=2, config={"batch_size": 8}, model_name="m"))
    raw = repository.load_all_raw("exp_7")
    result = aggregate_results("exp_7", raw)
    assert (result.total_energy_j, result.total_tokens, result.is_lower_bound) == (100.0, 200, False)
    with export_to_csv(result, tmp_path / "one.csv").open(encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["total_energy_j"], row["output_tokens"], row["config.batch_size"]) == ("100.0", "120", "8")


def test_derived_values_are_computed() -> None:
    record = of()
    assert record.timestamps == Timestamps(start=START, end=END, duration_sec=10.0)
    assert record.inference_metrics is not None
    assert (record.inference_metrics.total_tokens, record.inference_metrics.tokens_per_second) == (100, 10.0)
    assert record.energy_metrics.duration_sec == 10.0
    assert of(inference_time_sec=5.0).inference_metrics.tokens_per_second == 20.0  # type: ignore[union-attr]  # has tokens
    assert of(duration_sec=9.5).timestamps.duration_sec == 9.5
    without = RawProcessResult.of("exp_7", duration_sec=2.0, gpu_energy_j=3.0, host="n")
    assert (without.inference_metrics, without.energy_metrics.total_energy_j, without.host) == (None, None, "n")
    assert without.energy_metrics.gpu_energy_j == 3.0


def test_one_error_names_all_missing_values() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RawProcessResult.of("exp_7", output_tokens=1)
    for name in ("start and end, or duration_sec", "energy_j, or the energy of a component", "input_tokens"):
        assert name in caught.value.found
    with pytest.raises(ConfigurationError, match="no field colour, modle_name; the fields are schema_version"):
        of(colour="red", modle_name="m")


def test_constructor_names_all_missing_and_all_unknown_fields() -> None:
    with pytest.raises(TypeError) as caught:
        RawProcessResult(experiment_id="e", process_index=0, colour=1, size=2)  # type: ignore[call-arg]  # on purpose
    assert str(caught.value) == (
        "cannot create RawProcessResult: missing: gpu_id, config_name, model_name, timestamps, inference_metrics, "
        "energy_metrics, compute_metrics; no field colour, size; use RawProcessResult.of(...), which computes some "
        "fields"
    )
    with pytest.raises(TypeError, match="cannot create EnergyMetrics: missing: total_energy_j, duration_sec$"):
        EnergyMetrics()  # type: ignore[call-arg]  # on purpose
    with pytest.raises(TypeError, match="positional"):
        Timestamps(START, END, 10.0)  # type: ignore[call-arg]  # on purpose


@pytest.mark.parametrize("name", domain.__all__)
def test_each_record_class_names_all_wrong_fields(name: str) -> None:
    record_class = getattr(domain, name)
    missing = [field.name for field in msgspec.structs.fields(record_class) if field.required]
    found = f"missing: {', '.join(missing)}; " if missing else ""
    with pytest.raises(TypeError, match=f"cannot create {name}: {found}no field colour, size"):
        record_class(colour=1, size=2)


def test_time_span_from_times_has_its_duration() -> None:
    wanted = Timestamps(start=START, end=END, duration_sec=10.0)
    for start, end in ((START, END), (START.timestamp(), END.timestamp()), (START.isoformat(), END.isoformat())):
        assert Timestamps.from_times(start, end) == wanted


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (END, START, "is before the start"),
        (START, END.replace(tzinfo=None), "only one of start and end has a UTC offset"),
        ("noon", END, "'noon' is no time"),
        (START, 1e300, "is no time"),
        (START, None, "None is no time"),
    ],
)
def test_wrong_times_are_one_sentence(start: Any, end: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Timestamps.from_times(start, end)


def test_replace_and_to_dict_of_records() -> None:
    record = factories.full_raw()
    assert record.replace(host="other").host == "other"
    assert record.host != "other"
    document = record.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert datetime.fromisoformat(document["timestamps"]["start"]) == record.timestamps.start
    assert record.energy_metrics.replace(gpu_energy_j=1.0) == EnergyMetrics(
        **{name: getattr(record.energy_metrics, name) for name in EnergyMetrics.__struct_fields__}
        | {"gpu_energy_j": 1.0}
    )
    with pytest.raises(TypeError):
        record.replace(colour="red")
    aggregated = factories.aggregated("e")
    assert aggregated.to_dict()["process_results"][0]["experiment_id"] == "e"


def test_to_dict_of_a_large_record_has_lists() -> None:
    """`load_raw` returns arrays for large files."""
    latency = factories.latency([1.0], [1.0], [1.0]).replace(itl_full_ms=array("d", [1.5, 2.5]))
    record = factories.raw(inference_metrics=factories.inference(latency_measurements=latency))
    assert record.to_dict()["inference_metrics"]["latency_measurements"]["itl_full_ms"] == [1.5, 2.5]


def test_repr_is_short() -> None:
    assert repr(of()) == "RawProcessResult('exp_7', process_index=0, total_energy_j=50.0, total_tokens=100)"
    text = repr(aggregate_results("exp_7", [of()]))
    assert text == "AggregatedResult('exp_7', processes=1, total_energy_j=50.0, total_tokens=100)"
    latency = factories.latency([1.0] * 3, [1.0] * 10_000, [1.0] * 10_000)
    assert repr(latency) == "LatencyMeasurements(request_count=3, total_output_tokens=10003)"
    assert len(repr(factories.inference(latency_measurements=latency))) < 1_000


def test_method_of_an_aggregation_has_a_default() -> None:
    assert get_strategy(AggregationMetadata(num_processes=1).method).name == "sum_energy_avg_throughput"


def test_domain_exports_the_record_classes() -> None:
    for name in domain.__all__:
        assert getattr(domain, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        domain.nonsense  # noqa: B018 - the test is of the attribute access


def test_keyword_names_of_existing_scripts_are_accepted(tmp_path: Path) -> None:
    repository = FileSystemRepository(results_dir=tmp_path)
    assert repository.base_path == tmp_path
    raw = [of(backend="vllm"), of(process_index=1, backend="pytorch")]
    with pytest.raises(IncompatibleResultsError):
        aggregate_results("exp_7", raw, verify_temporal_overlap=True, verify_gpu_attribution=True)
    result = aggregate_results("exp_7", raw, allow_mixed_backends=True)
    for write in (export_to_csv, export_to_json, export_aggregated_to_csv):
        assert write([result], output_path=tmp_path / "a") == tmp_path / "a"
        assert write(result, tmp_path / "b") == tmp_path / "b"
        with pytest.raises(ConfigurationError, match="no path is given"):
            write(result)
    assert export_raw_to_csv(raw[0], output_path=tmp_path / "c") == tmp_path / "c"


def test_export_json_nests_as_the_stored_aggregates(tmp_path: Path) -> None:
    result = aggregate_results("exp_7", [of()])
    path = ResultsExporter(tmp_path).export_json([result])
    [document] = json.loads(path.read_text(encoding="utf-8"))
    assert document["aggregation"]["num_processes"] == 1
    assert document["process_results"][0]["energy_metrics"]["total_energy_j"] == 50.0
    stored = json.loads(FileSystemRepository(tmp_path).save_aggregated(result).read_text(encoding="utf-8"))
    assert document == {name: value for name, value in stored.items() if not name.endswith("_sha256")}
    one = ResultsExporter(tmp_path).export_json(of(effective_config={"x": float("nan")}), "raw.json")
    assert json.loads(one.read_text(encoding="utf-8"))[0]["effective_config"] == {"x": None}
