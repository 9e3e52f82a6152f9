"""Import of results of `vllm bench serve`, and the join of energy records."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llm_energy_measure import importers
from tests.support import peers
from tests.support.imports import codes, read_all
from tests.support.peers import LATEST, line

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult


def test_bytes_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(json.dumps(peers.vllm_result(model_id="@")).encode().replace(b"@", b"\xee") + b"\n")
    [record], [entry] = read_all(path)
    assert (entry.outcome, entry.code, record.model_name) == ("repaired", "undecodable_text", "\ufffd")


def test_result_is_a_record_without_energy(tmp_path: Path) -> None:
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", peers.vllm_result()))
    assert (entry.row, entry.outcome, entry.code) == (1, "kept", "no_energy")
    assert record.energy_metrics.total_energy_j is None
    assert record.inference_metrics is not None
    assert (record.inference_metrics.total_tokens, record.inference_metrics.tokens_per_second) == (384, 3.84)
    assert (record.timestamps.start, record.timestamps.end) == (
        datetime.fromisoformat("2026-08-16T16:07:13"),
        datetime.fromisoformat("2026-08-16T16:08:53"),
    )
    assert (record.model_name, record.backend, record.status, record.host) == ("facebook/opt-125m", "vllm", None, None)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"energy": {"gpu_joules": 5.0}}, "energy.gpu_joules"),
        ({"mean_power_w": 300.0}, "mean_power_w"),
        ({"gpu": {"consumed_kwh": 0.5}}, "gpu.consumed_kwh"),
    ],
)
def test_energy_field_that_is_not_understood_is_named(tmp_path: Path, fields: dict[str, Any], name: str) -> None:
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", peers.vllm_result(**fields)))
    assert (entry.code, record.energy_metrics.total_energy_j) == ("energy_not_understood", None)
    assert name in entry.message
    [_], [entry] = read_all(peers.write_json(tmp_path / "x", peers.vllm_result(energy={"total_energy_j": None})))
    assert entry.code == "no_energy"


def test_run_without_a_successful_request_has_failed(tmp_path: Path) -> None:
    failed = peers.vllm_result(
        completed=0, failed=8, total_input_tokens=0, total_output_tokens=0, output_throughput=0.0
    )
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", failed))
    assert (record.status, record.inference_metrics) == ("failed", None)
    assert entry.code == "run_failed"


def test_each_appended_result_is_a_record(tmp_path: Path) -> None:
    results = [peers.vllm_result(date=f"20260816-16085{second}") for second in range(3)]
    path = tmp_path / "x"
    path.write_text("".join(json.dumps(result) for result in results) + '\n{"date": "2026')
    records, entries = read_all(path)
    assert [(entry.row, entry.outcome) for entry in entries] == [(1, "kept"), (2, "kept"), (3, "kept"), (4, "refused")]
    assert entries[-1].code == "torn"
    assert len({record.experiment_id for record in records}) == 3


def test_reading_continues_after_a_damaged_result(tmp_path: Path) -> None:
    whole = [json.dumps(peers.vllm_result(label=f"run {number}"), indent=number) for number in (0, 1)]
    path = tmp_path / "x"
    path.write_text("\n".join([whole[0], whole[1][:300], whole[1], "5", '{"date": "\\ud800"}', whole[0][:50]]))
    records, entries = read_all(path)
    assert [record.config_name for record in records] == ["run 0", "run 1"]
    assert codes(entries) == ["no_energy", "torn", "no_energy", "torn", "torn", "torn"]
    line = whole[0].count("\n") + 2
    assert entries[1].message == f"object 2: line {line} does not begin a complete JSON object"


@pytest.mark.parametrize("torn", ['\n{"a":', " 5"])
def test_file_is_given_up_after_100_damaged_results(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "x"
    path.write_text(json.dumps(peers.vllm_result()) + torn * 1000)
    _, entries = read_all(path)
    assert codes(entries) == ["no_energy"] + ["torn"] * 100
    assert entries[-1].message.endswith("; the rest of the file is not read")


@pytest.mark.parametrize("changes", [{"duration": 1e200}, {"date": "00010101-000000"}], ids=str)
def test_row_that_starts_outside_the_calendar_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    results = [peers.vllm_result(**changes), peers.vllm_result()]
    path = tmp_path / "x"
    path.write_text("".join(json.dumps(result) for result in results))
    records, entries = read_all(path)
    assert (codes(entries), len(records)) == (["impossible_value", "no_energy"], 1)


def test_older_results_have_no_counts_and_no_duration(tmp_path: Path) -> None:
    older = peers.vllm_result(best_of=1)
    for name in ("duration", "completed", "failed", "total_input_tokens", "total_output_tokens"):
        del older[name]
    [record], _ = read_all(peers.write_json(tmp_path / "x", older))
    assert (record.inference_metrics, record.timestamps.start, record.status) == (None, None, None)
    assert record.timestamps.end is not None


def test_latency_samples_are_kept_and_texts_are_dropped(tmp_path: Path) -> None:
    detailed = peers.vllm_result(
        ttfts=[0.25, 0.0], itls=[[0.01, 0.02, 0.03], []], generated_texts=["SECRET", ""], errors=["", "SECRET"]
    )
    [record], _ = read_all(peers.write_json(tmp_path / "x", detailed))
    assert record.inference_metrics is not None
    samples = record.inference_metrics.latency_measurements
    assert samples is not None
    assert samples.ttft_ms == [250.0]
    assert samples.itl_full_ms == pytest.approx([10.0, 20.0, 30.0])
    assert samples.itl_trimmed_ms == pytest.approx([20.0])
    assert b"SECRET" not in msgspec.json.encode(record)


def test_nan_is_unknown(tmp_path: Path) -> None:
    [record], _ = read_all(peers.write_json(tmp_path / "x", peers.vllm_result(mean_ttft_ms=float("nan"))))
    assert record.inference_metrics is not None
    assert record.inference_metrics.time_to_first_token_ms is None


def energy_records(tmp_path: Path, *ends: str, duration: str = "100.0") -> list[RawProcessResult]:
    path = tmp_path / "emissions.csv"
    rows = [line(run_id=f"r{index}", timestamp=end, duration=duration) for index, end in enumerate(ends)]
    path.write_text("\n".join([",".join(LATEST), *rows]) + "\n")
    return list(importers.read(path, host="node-1"))


def test_energy_of_the_only_record_of_the_same_time_is_joined(tmp_path: Path) -> None:
    energy = energy_records(tmp_path, "2026-08-16T16:08:54", "2026-08-16T18:08:54")
    path = peers.write_json(tmp_path / "x", peers.vllm_result())
    [record], [entry] = read_all(path, join=energy)
    assert (entry.outcome, entry.code) == ("repaired", "energy_joined")
    assert (record.energy_metrics, record.host) == (energy[0].energy_metrics, "node-1")
    assert record.inference_metrics is not None
    assert record.effective_config["joined"]["row"] == 2


@pytest.mark.parametrize(
    ("ends", "duration"),
    [
        (("2026-08-16T16:18:53",), "100.0"),
        (("2026-08-16T16:08:53", "2026-08-16T16:08:54"), "100.0"),
        (("2026-08-16T16:08:53",), "1000.0"),
        (("2026-08-16T16:08:53+00:00",), "100.0"),
    ],
    ids=["other time", "two matches", "longer window", "other zone"],
)
def test_ambiguous_energy_is_not_joined(tmp_path: Path, ends: tuple[str, ...], duration: str) -> None:
    energy = energy_records(tmp_path, *ends, duration=duration)
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", peers.vllm_result()), join=energy)
    assert (entry.outcome, entry.code) == ("kept", "energy_unjoined")
    assert ("time zone" in entry.message) == ends[0].endswith("+00:00")
    assert record.energy_metrics.total_energy_j is None


def test_energy_of_the_server_has_precedence_over_joined_energy(tmp_path: Path) -> None:
    own = peers.vllm_result(gpu_energy_j=1234.5, gpu_energy_duration_s=100.0)
    [record], [entry] = read_all(
        peers.write_json(tmp_path / "x", own), join=energy_records(tmp_path, "2026-08-16T16:08:53")
    )
    assert (record.energy_metrics.total_energy_j, entry.code) == (1234.5, "whole")
