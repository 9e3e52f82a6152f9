"""Import of the JSON results of benchmarks, one small file of each shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure import importers
from llm_energy_measure.domain.experiment import RawProcessResult
from tests.support import peers
from tests.support.imports import codes, outcomes, read_all

DATA = Path(__file__).parents[1] / "data"


def read(name: str, **options: Any) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    return read_all(DATA / "benchmarks" / name, **options)


def changed(tmp_path: Path, name: str, **changes: Any) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    document = json.loads((DATA / "benchmarks" / name).read_text()) | changes
    return read_all(peers.write_json(tmp_path / "file.json", document))


def tokens(record: RawProcessResult) -> tuple[int, int] | None:
    metrics = record.inference_metrics
    return None if metrics is None else (metrics.input_tokens, metrics.output_tokens)


def test_sglang_jsonl() -> None:
    records, entries = read_all(DATA / "cases" / "sglang_jsonl" / "online.jsonl")
    assert codes(entries) == ["no_energy", "no_energy"]
    assert [tokens(record) for record in records] == [(150_000, 140_000)] * 2
    assert [record.timestamps.duration_sec for record in records] == [100.0, 100.0]
    assert {record.origin.tool for record in records if record.origin} == {"sglang"}
    assert "--join" in entries[0].message


def test_sglang_drops_texts_and_server_info(tmp_path: Path) -> None:
    line = json.loads((DATA / "cases" / "sglang_jsonl" / "online.jsonl").read_text().splitlines()[0])
    line |= {"request_rate": float("inf"), "generated_texts": ["secret"], "server_info": {"api_key": "secret"}}
    (tmp_path / "x.jsonl").write_text(json.dumps(line) + "\n")
    [record], _ = read_all(tmp_path / "x.jsonl")
    assert "secret" not in str(record)
    assert record.effective_config["sglang"]["request_rate"] is None


def test_vllm_throughput_has_the_energy_of_the_counters() -> None:
    [record], [entry] = read("vllm_throughput.json")
    energy = record.energy_metrics
    assert (entry.code, energy.total_energy_j, energy.duration_sec) == ("whole", 30000.0, 40.5)
    assert (energy.gpu_scope, energy.gpu_provenance, energy.gpu_power_w) == ("device", "measured", 740.74)
    assert tokens(record) == (12_000, 20_000)
    assert record.timestamps.duration_sec == 40.0


def test_throughput_without_output_tokens_says_so() -> None:
    [record], [entry] = read("vllm_throughput_no_energy.json")
    assert (record.inference_metrics, entry.code) == (None, "tokens_incomplete")
    assert record.effective_config["vllm-throughput"]["total_num_tokens"] == 32_000


def test_vllm_latency_has_neither_tokens_nor_energy() -> None:
    [record], [entry] = read("vllm_latency.json")
    assert (record.inference_metrics, record.energy_metrics.total_energy_j, entry.code) == (None, None, "no_energy")
    assert record.effective_config["vllm-latency"]["avg_latency"] == 1.5


def test_warm_up_of_a_sweep_is_no_run(tmp_path: Path) -> None:
    path = peers.write_json(tmp_path / "warmup.json", peers.vllm_result(run_number=-1))
    assert outcomes(read_all(path)[1]) == [(1, "refused", "no_measurement")]


def test_aiperf_counts_a_gpu_behind_two_endpoints_once() -> None:
    [record], [entry] = read("aiperf.json")
    energy = record.energy_metrics
    assert (entry.code, energy.total_energy_j, energy.duration_sec) == ("whole", 62000.0, 50.0)
    assert (energy.gpu_scope, energy.gpu_provenance, record.host) == ("device", "measured", "node-1")
    assert [(one.gpu_id, one.gpu_uuid, one.energy_j) for one in energy.devices or []] == [
        (0, "GPU-a", 30000.0),
        (1, "GPU-b", 32000.0),
    ]
    assert (tokens(record), record.model_name) == ((12_000, 20_000), "org/model-8b")
    assert record.timestamps.start is not None
    assert (record.timestamps.start.isoformat(), record.timestamps.duration_sec) == ("2026-04-01T10:00:00", 50.0)
    assert record.origin is not None
    assert (record.origin.tool, record.origin.version) == ("aiperf", "0.13.0")


def test_old_aiperf_has_the_range_of_the_counter() -> None:
    [record], [entry] = read("aiperf_0.5.json")
    assert (entry.code, record.gpu_uuid) == ("whole", "GPU-a")
    assert record.energy_metrics.total_energy_j == pytest.approx(16_600.0)


def test_aiperf_without_telemetry_has_the_energy_of_the_run() -> None:
    [record], _ = read("aiperf_no_telemetry.json")
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.total_provenance, energy.devices) == (62000.0, None, None)
    assert energy.duration_sec == pytest.approx(50.666)


def test_aiperf_that_contradicts_its_own_total_says_so(tmp_path: Path) -> None:
    _, [entry] = changed(tmp_path, "aiperf.json", nvidia_total_gpu_energy={"unit": "J", "avg": 124_000.0})
    assert entry.code == "own_aggregate_differs"


def test_cancelled_aiperf_run_is_interrupted(tmp_path: Path) -> None:
    [record], [entry] = changed(tmp_path, "aiperf.json", was_cancelled=True)
    assert (record.status, entry.code) == ("interrupted", "incomplete_run")


def test_inferencex_has_window_and_tokens_from_its_ratios() -> None:
    [record], [entry] = read("inferencex.json")
    energy = record.energy_metrics
    assert (entry.code, energy.total_energy_j, energy.total_provenance) == ("whole", 118491.651, "integrated")
    assert energy.duration_sec == pytest.approx(64.68, abs=0.005)
    assert tokens(record) == (236_983, 59_246)
    assert record.inference_metrics is not None
    assert record.inference_metrics.time_to_first_token_ms == pytest.approx(80.0)
    assert (record.backend, record.gpu_name) == ("vllm", "h100")


def test_inferencex_with_invalid_power_has_no_energy() -> None:
    records, entries = read("inferencex_list.json")
    assert codes(entries) == ["whole", "invalid_power"]
    assert [record.energy_metrics.total_energy_j for record in records] == [118491.651, None]
    assert "power_valid is 0" in (records[1].energy_measurement_warning or "")


def test_inferencex_without_version_has_no_tokens(tmp_path: Path) -> None:
    [record], [entry] = changed(tmp_path, "inferencex.json", power_metric_schema_version=None)
    assert (record.inference_metrics, entry.code) == (None, "invalid_power")


def test_token_power_bench_covers_the_host() -> None:
    [record, short], entries = read("tokenpowerbench.json")
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.gpu_energy_j, energy.cpu_energy_j, energy.ram_energy_j) == (
        36000.0,  # the file states gpu + cpu
        30000.0,
        5000.0,
        1000.0,
    )
    assert (energy.gpu_scope, energy.total_scope, energy.gpu_provenance) == ("host", "host", "integrated")
    assert [(one.gpu_id, one.energy_j) for one in energy.devices or []] == [(0, 20000.0), (1, 10000.0)]
    assert "responses" not in record.effective_config["tokenpowerbench"]
    assert codes(entries) == ["total_from_components", "idle_included"]
    # An energy of 0 is not measured. The total is the sum of the known parts.
    assert (short.energy_metrics.total_energy_j, short.energy_metrics.cpu_energy_j) == (1800.0, None)


def test_newer_token_power_bench_has_one_result_per_batch() -> None:
    [record], [entry] = read("tokenpowerbench_new.json")
    assert (entry.code, record.energy_metrics.total_energy_j) == ("whole", 40000.0)
    assert record.energy_metrics.gpu_power_w == 600.0
    assert [one.energy_j for one in record.energy_metrics.devices or []] == [20000.0, 10000.0]
