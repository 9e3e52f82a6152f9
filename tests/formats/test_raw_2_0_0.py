"""Files of schema 2.0.0, written out. A change of the format needs a new version and must not change these files."""

from __future__ import annotations

import json

import pytest

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.results import aggregate_results
from llm_energy_measure.results.store import codec
from tests.support import factories

MINIMAL = """\
{
  "experiment_id": "exp_7",
  "process_index": 0,
  "gpu_id": null,
  "config_name": "baseline",
  "model_name": "m",
  "timestamps": {"start": "2026-01-16T19:39:58.225937", "end": null, "duration_sec": null},
  "inference_metrics": null,
  "energy_metrics": {"total_energy_j": null, "duration_sec": null},
  "compute_metrics": null
}
"""

WRITTEN = """\
{
  "schema_version": "2.0.0",
  "experiment_id": "exp_7",
  "backend": null,
  "backend_version": null,
  "process_index": 0,
  "gpu_id": null,
  "gpu_name": null,
  "gpu_is_mig": null,
  "gpu_mig_profile": null,
  "energy_measurement_warning": null,
  "config_name": "baseline",
  "model_name": "m",
  "timestamps": {
    "start": "2026-01-16T19:39:58.225937",
    "end": null,
    "duration_sec": null
  },
  "inference_metrics": null,
  "energy_metrics": {
    "total_energy_j": null,
    "duration_sec": null,
    "gpu_energy_j": null,
    "cpu_energy_j": null,
    "ram_energy_j": null,
    "gpu_power_w": null,
    "cpu_power_w": null,
    "emissions_kg_co2": null,
    "energy_per_token_j": null,
    "window": null,
    "total_scope": null,
    "total_provenance": null,
    "gpu_scope": null,
    "gpu_provenance": null,
    "cpu_scope": null,
    "cpu_provenance": null,
    "ram_scope": null,
    "ram_provenance": null,
    "devices": null,
    "idle_power_w": null,
    "sensors": null
  },
  "compute_metrics": null,
  "effective_config": {},
  "cli_overrides": {},
  "config_warnings": [],
  "world_size": null,
  "host": null,
  "gpu_uuid": null,
  "gpu_power_limit_w": null,
  "clock": null,
  "launcher": null,
  "origin": null,
  "status": null,
  "error_type": null,
  "library_versions": null,
  "phases": null
}"""


def test_minimal_raw_file_is_read_and_written() -> None:
    record = codec.decode_raw(MINIMAL.encode(), "process_0.json")
    assert record.schema_version == "2.0.0"
    assert codec.encode_raw(record).decode() == WRITTEN


@pytest.mark.parametrize("line", MINIMAL.splitlines()[1:-1])
def test_each_field_of_the_minimal_file_is_required(line: str) -> None:
    body = json.loads(MINIMAL)
    del body[line.split('"')[1]]
    with pytest.raises(ValueError, match="missing required field"):
        codec.decode_raw(json.dumps(body).encode(), "process_0.json")


def test_new_files_have_the_current_version() -> None:
    assert SCHEMA_VERSION == "2.0.0"
    assert factories.raw().schema_version == factories.aggregated().schema_version == SCHEMA_VERSION


def test_records_have_every_field_of_the_format() -> None:
    """A new field is allowed. Removing or renaming a field is not."""
    assert set(RawProcessResult.__struct_fields__) >= {*json.loads(WRITTEN), "unknown_fields"}
    assert set(AggregatedResult.__struct_fields__) >= {
        *("schema_version", "experiment_id", "backend", "backend_version", "aggregation", "total_tokens"),
        *("total_energy_j", "total_inference_time_sec", "avg_tokens_per_second", "avg_energy_per_token_j"),
        *("total_flops", "process_results", "start_time", "end_time", "effective_config", "cli_overrides"),
        *("config_warnings", "latency_stats"),
    }


def test_model_configuration_and_start_may_be_null() -> None:
    body = json.loads(MINIMAL)
    body.update(config_name=None, model_name=None, timestamps={"start": None, "end": None, "duration_sec": 9.5})
    record = codec.decode_raw(json.dumps(body).encode(), "process_0.json")
    assert (record.config_name, record.model_name, record.timestamps.start) == (None, None, None)
    result = aggregate_results("exp_7", [record])
    assert (result.start_time, result.duration_sec, result.model_name) == (None, None, None)
