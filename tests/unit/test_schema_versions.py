"""Files of other schema versions: 3.0.0 is read as 2.0.0, and `result.json` is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llm_energy_measure.exceptions import SchemaVersionError
from llm_energy_measure.results.store import codec
from tests.support import factories
from tests.support.factories import as_bytes

NAME = "exp_7/process_0.json"
DOCUMENT = factories.document(factories.full_raw())
AGGREGATE = factories.document(factories.aggregated(process_results=[factories.full_raw()]))


@pytest.mark.parametrize("environment", [{"gpu": "A100"}, "A100", ["A100"]], ids=str)
def test_schema_3_0_0_is_read_as_2_0_0_and_keeps_its_fields(environment: object) -> None:
    newer = {"energy_tracking_failed": False, "per_request_latencies_ms": [1.5], "environment": environment}
    energy = {**DOCUMENT["energy_metrics"], "duration_sec": 0.0}
    data = as_bytes({**DOCUMENT, "schema_version": "3.0.0", "energy_metrics": energy, **newer})
    record = codec.decode_raw(data, NAME)
    assert (record.schema_version, record.energy_metrics.duration_sec) == ("2.0.0", None)
    assert record.energy_metrics.total_energy_j == DOCUMENT["energy_metrics"]["total_energy_j"]
    assert record.unknown_fields == {f"/{name}": value for name, value in newer.items()}
    assert record.stored is not None
    assert record.stored.data == data
    again = codec.decode_raw(codec.encode_raw(record), NAME)
    assert (again.unknown_fields, again.energy_metrics) == (record.unknown_fields, record.energy_metrics)


def test_failed_energy_tracking_of_schema_3_0_0_is_unknown_energy() -> None:
    energy = {"total_energy_j": 0.0, "gpu_energy_j": 0.0, "gpu_power_w": 0.0, "duration_sec": 0.0}
    changes = {"schema_version": "3.0.0", "energy_metrics": energy, "energy_tracking_failed": True}
    found = codec.decode_raw(as_bytes({**DOCUMENT, **changes}), NAME).energy_metrics
    assert (found.total_energy_j, found.gpu_energy_j, found.gpu_power_w, found.duration_sec) == (None,) * 4


def test_aggregate_of_schema_3_0_0_is_read_with_its_records() -> None:
    processes = [{**one, "schema_version": "3.0.0"} for one in AGGREGATE["process_results"]]
    changes = {"schema_version": "3.0.0", "process_results": processes, "preset_chain": ["a"]}
    record = codec.decode_aggregated(as_bytes({**AGGREGATE, **changes}), "exp_7.json")
    assert (record.schema_version, record.unknown_fields) == ("2.0.0", {"/preset_chain": ["a"]})
    assert [one.schema_version for one in record.process_results] == ["2.0.0"]


@pytest.mark.parametrize("version", ["2.0", "3.0"])
@pytest.mark.parametrize("decode", [codec.decode_raw, codec.decode_aggregated, codec.decode_summary])
def test_result_json_is_refused_with_the_command_that_imports_it(decode: Any, version: str) -> None:
    document = {"schema_version": version, "experiment_id": "org/m_20260401_100000", "measurement_config_hash": "ab"}
    with pytest.raises(SchemaVersionError, match=r"result.json of llenergymeasure") as raised:
        decode(as_bytes({**document, "total_energy_j": 5.0, "process_results": []}), NAME)
    assert "llm-energy-measure import FILE" in raised.value.advice
