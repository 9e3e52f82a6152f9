"""Import of records of schema 1.x, and of `result.json` of llenergymeasure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure import importers
from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store
from tests.support import factories, peers
from tests.support.command import run
from tests.support.imports import read_all

RESULT: dict[str, Any] = {
    "schema_version": "3.0",
    "experiment_id": "org/model-8b_20260401_100000",
    "measurement_config_hash": "0123abcd",
    "engine": "transformers",
    "total_tokens": 32_000,
    "total_energy_j": 60_000.0,
    "total_inference_time_sec": 50.0,
    "avg_tokens_per_second": 640.0,
    "avg_energy_per_token_j": 3.0,
    "mj_per_tok_total": 1875.0,
    "energy_adjusted_j": 50_000.0,
    "energy_per_device_j": [31_000.0, 29_000.0],
    "start_time": "2026-04-01T10:00:00",
    "end_time": "2026-04-01T10:00:50",
    "process_results": [],
}


def older(**changes: Any) -> dict[str, Any]:
    return {**factories.document(factories.raw("exp_7")), "schema_version": "1.0.0", **changes}


@pytest.mark.parametrize(("version", "backend"), [("3.0", "engine"), ("2.0", "backend")])
def test_result_json_is_one_record_of_the_gpus(tmp_path: Path, version: str, backend: str) -> None:
    changes = {"schema_version": version, "engine": None, backend: "transformers"}
    document = {name: value for name, value in (RESULT | changes).items() if value is not None}
    [record], [entry] = read_all(peers.write_json(tmp_path / "result.json", document))
    energy = record.energy_metrics
    assert (entry.code, energy.total_energy_j, energy.gpu_energy_j) == ("whole", 60_000.0, 60_000.0)
    assert (energy.gpu_scope, energy.gpu_provenance, energy.duration_sec) == ("device", None, 50.0)
    assert [(one.gpu_id, one.energy_j) for one in energy.devices or []] == [(None, 31_000.0), (None, 29_000.0)]
    assert record.inference_metrics is not None
    assert (record.inference_metrics.input_tokens, record.inference_metrics.output_tokens) == (12_000, 20_000)
    assert (record.model_name, record.backend, record.gpu_id) == ("org/model-8b", "transformers", None)


def test_result_json_with_an_energy_of_0_has_none(tmp_path: Path) -> None:
    changes = {"total_energy_j": 0.0, "avg_energy_per_token_j": 0.0, "energy_per_device_j": None}
    [record], [entry] = read_all(peers.write_json(tmp_path / "result.json", RESULT | changes))
    assert (record.energy_metrics.total_energy_j, record.inference_metrics) == (None, None)
    assert entry.code == "tokens_incomplete"


def test_result_json_in_a_results_directory_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "aggregated"
    folder.mkdir(parents=True)
    peers.write_json(folder / "exp_7.json", RESULT)
    repository = FileSystemRepository(tmp_path / "results")
    assert [finding.code for finding in check_store(repository)] == ["aggregate.unreadable"]
    done = run("-o", tmp_path / "results", "results", "list")
    assert done.status == 1
    assert "it is a result.json of llenergymeasure (schema '3.0'), which 'import' reads" in done.err


def test_record_of_schema_1_0_0_is_imported(tmp_path: Path) -> None:
    [record], [entry] = read_all(peers.write_json(tmp_path / "process_0.json", older(my_field={"a": 1})))
    assert (entry.outcome, entry.code) == ("repaired", "other_layout")
    assert (record.schema_version, record.experiment_id) == ("2.0.0", "exp_7")
    assert record.energy_metrics == factories.raw("exp_7").energy_metrics
    assert record.unknown_fields == {"/my_field": {"a": 1}}
    assert record.origin is not None
    assert (record.origin.tool, record.origin.version) == ("llm-energy-measure", "1.0.0")


def test_record_of_schema_1_0_0_with_other_fields_is_refused(tmp_path: Path) -> None:
    path = peers.write_json(tmp_path / "process_0.json", older(energy_metrics={"energy_kwh": 1.0}))
    records, [entry] = read_all(path)
    assert (records, entry.code) == ([], "missing_field")
    assert "it has schema 1.0.0, but not the fields of 2.0.0" in entry.message


def test_aggregate_of_schema_1_0_0_names_its_raw_results(tmp_path: Path) -> None:
    document = {**factories.document(factories.aggregated()), "schema_version": "1.0.0"}
    path = peers.write_json(tmp_path / "exp_7.json", document)
    with pytest.raises(ImportFormatError, match="an aggregate of a schema before 2.0.0; import the raw results"):
        importers.read(path)


def test_results_directory_of_schema_3_0_0_is_read_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "exp_7"
    folder.mkdir(parents=True)
    document = {**factories.document(factories.raw("exp_7")), "schema_version": "3.0.0", "warmup_result": {"runs": 3}}
    peers.write_json(folder / "process_0.json", document)
    peers.write_json(folder / "process_0_timeseries.json", {"samples": [{"t": 0.0, "power_w": 100.0}]})
    repository = FileSystemRepository(tmp_path)
    assert list(check_store(repository)) == []
    [record] = repository.load_all_raw("exp_7")
    assert record.unknown_fields == {"/warmup_result": {"runs": 3}}
    assert "1 of 1 processes" in run("-o", tmp_path, "aggregate", "exp_7").out
