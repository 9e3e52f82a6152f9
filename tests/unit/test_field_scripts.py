"""Scripts for the tool that the format comes from run unchanged: their arguments, keywords, exceptions and files."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import AggregationError, ConfigurationError, LLMEnergyMeasureError
from llm_energy_measure.results import FileSystemRepository, aggregate_results, export_to_csv
from llm_energy_measure.security import sanitize_experiment_id, validate_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRIPT = """
from datetime import datetime, timedelta
from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.domain.experiment import RawProcessResult, Timestamps
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics
from llm_energy_measure.results import (
    FileSystemRepository, ResultsExporter, aggregate_results, calculate_efficiency_metrics,
    export_aggregated_to_csv, export_raw_to_csv, flatten_model,
)
from llm_energy_measure.security import is_safe_path, sanitize_experiment_id, validate_path

start = datetime(2026, 1, 16, 19, 39, 58)
repo = FileSystemRepository(results_dir=folder / "results")
for index in range(2):
    raw = RawProcessResult(
        schema_version=SCHEMA_VERSION, experiment_id="exp/7", backend="pytorch", backend_version="2.5.1",
        process_index=index, gpu_id=index, gpu_name="NVIDIA A100", gpu_is_mig=False, gpu_mig_profile=None,
        energy_measurement_warning=None, config_name="baseline", model_name="meta-llama/Llama-3.2-1B",
        timestamps=Timestamps.from_times(start=start, end=start + timedelta(seconds=10)),
        inference_metrics=InferenceMetrics(
            total_tokens=100, input_tokens=40, output_tokens=60, inference_time_sec=10.0, tokens_per_second=10.0,
            latency_per_token_ms=100.0, time_to_first_token_ms=None,
        ),
        energy_metrics=EnergyMetrics(
            total_energy_j=50.0, gpu_energy_j=40.0, cpu_energy_j=8.0, ram_energy_j=2.0, gpu_power_w=4.0,
            cpu_power_w=0.8, duration_sec=10.0, emissions_kg_co2=1e-6, energy_per_token_j=0.5,
        ),
        compute_metrics=ComputeMetrics(
            flops_total=1e12, flops_per_token=1e10, flops_per_second=1e11, peak_memory_mb=2900.0,
            model_memory_mb=2358.0, flops_method="parameter_estimate", flops_confidence="low",
            compute_precision="fp16",
        ),
        effective_config={"batch_size": 8}, cli_overrides={}, config_warnings=[],
    )
    repo.save_raw("exp/7", raw)
raws = repo.load_all_raw("exp/7")
aggregated = aggregate_results(
    experiment_id="exp/7", raw_results=raws, verify_temporal_overlap=True, verify_gpu_attribution=True,
    allow_mixed_backends=False,
)
repo.save_aggregated(aggregated)
metrics = calculate_efficiency_metrics(aggregated)
exporter = ResultsExporter(output_dir=folder / "exports")
written = [
    exporter.export_aggregated([aggregated], "aggregated.csv", True),
    exporter.export_aggregated([aggregated], filename="other.csv", include_process_breakdown=True),
    exporter.export_raw(raws, filename="raw.csv"),
    exporter.export_json([aggregated], filename="all.json"),
    export_aggregated_to_csv([aggregated], folder / "a.csv", include_process_breakdown=True),
    export_raw_to_csv(raws, output_path=folder / "r.csv"),
]
flat = flatten_model(raws[0])
safe = sanitize_experiment_id("exp/7"), is_safe_path(folder, folder / "a.csv"), validate_path(folder / "a.csv", folder)
"""


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_script_with_constructor_arguments_runs_unchanged(tmp_path: Path) -> None:
    names: dict[str, Any] = {"folder": tmp_path}
    exec(SCRIPT, names)  # noqa: S102 - the script is the test
    aggregated = names["aggregated"]
    assert (aggregated.total_energy_j, aggregated.total_tokens, aggregated.avg_tokens_per_second) == (100.0, 200, 10.0)
    assert (aggregated.aggregation.temporal_overlap_verified, aggregated.aggregation.num_processes) == (True, 2)
    assert names["metrics"]["joules_per_token"] == 0.5
    assert names["flat"]["energy_metrics_gpu_energy_j"] == 40.0
    assert names["safe"] == ("exp_7", True, tmp_path / "a.csv")
    with_processes, other, raw, nested, *_ = names["written"]
    assert with_processes.read_bytes() == other.read_bytes()
    [row] = rows_of(with_processes)
    assert (row["experiment_id"], row["process_1_total_energy_j"]) == ("exp/7", "50.0")
    assert len(rows_of(raw)) == 2
    [document] = json.loads(nested.read_text(encoding="utf-8"))
    assert document["process_results"][1]["energy_metrics"]["gpu_energy_j"] == 40.0
    assert document["process_results"][1]["timestamps"]["start"] == "2026-01-16T19:39:58"
    assert document["aggregation"]["method"] == "sum_energy_avg_throughput"


@pytest.mark.parametrize(
    ("call", "caught"),
    [
        (lambda _: aggregate_results("e", []), AggregationError),
        (lambda _: aggregate_results("e", []), LLMEnergyMeasureError),
        (lambda folder: FileSystemRepository(folder).load_raw(folder / "absent.json"), FileNotFoundError),
        (lambda folder: FileSystemRepository(folder).load_raw(folder / "absent.json"), ConfigurationError),
        (lambda folder: FileSystemRepository(folder).load_raw(folder / "broken.json"), ValueError),
        (lambda _: sanitize_experiment_id(""), ValueError),
        (lambda _: sanitize_experiment_id(".."), ConfigurationError),
        (lambda folder: validate_path("../x", folder), ValueError),
        (lambda folder: validate_path(folder / "absent", must_exist=True), FileNotFoundError),
        (lambda folder: export_to_csv([], folder / "broken.json" / "x.csv"), OSError),
    ],
)
def test_exceptions_that_scripts_catch_are_raised(
    tmp_path: Path, call: Callable[[Path], object], caught: type[Exception]
) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(caught):
        call(tmp_path)
