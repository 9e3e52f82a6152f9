"""Zeus, vLLM, optimum-benchmark, ML.ENERGY and perun: small files of their shapes, whole and broken."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import msgspec
import pytest

from llm_energy_measure import importers
from llm_energy_measure.domain.experiment import Launcher
from llm_energy_measure.exceptions import ImportFormatError
from tests.support import peers
from tests.support.peers import LATEST, line

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

KWH = 3.6e6


def read(path: Path, **options: Any) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    reading = importers.read(path, **options)
    records = list(reading)
    counts = reading.report.counts
    assert counts["kept"] + counts["repaired"] == len(records)
    return records, reading.report.entries


def codes(entries: list[importers.Entry]) -> list[str]:
    return [entry.code for entry in entries]


# Zeus


def write_zeus(tmp_path: Path, *windows: tuple[float, str, float, list[float]]) -> Path:
    path = tmp_path / "log"
    path.write_text(peers.zeus_lines(windows))
    return path


def test_a_zeus_window_is_an_experiment_with_a_device_a_gpu(tmp_path: Path) -> None:
    path = write_zeus(
        tmp_path, (1768592398.5, "train 1", 10.0, [100.5, 200.25]), (1768592410.5, "train 1", 5.0, [1.0, 2.0])
    )
    records, entries = read(path)
    assert [entry.row for entry in entries] == [2, 3]
    first, second = records
    assert first.energy_metrics.total_energy_j == first.energy_metrics.gpu_energy_j == 300.75
    assert [device.energy_j for device in first.energy_metrics.devices or []] == [100.5, 200.25]
    assert first.timestamps.start is not None
    assert first.timestamps.start.isoformat() == "2026-01-16T19:39:58.500000+00:00"
    assert first.timestamps.duration_sec == 10.0
    assert first.energy_metrics.total_scope == "device"
    assert first.experiment_id != second.experiment_id
    assert first.experiment_id.startswith("zeus-train_1-")


def test_a_monotonic_start_is_no_time_of_day(tmp_path: Path) -> None:
    [record], _ = read(write_zeus(tmp_path, (13586624.1, "w", 10.0, [100.0])))
    assert (record.timestamps.start, record.timestamps.end, record.timestamps.duration_sec) == (None, None, 10.0)
    assert record.effective_config["zeus"]["start_time"] == 13586624.1


def test_which_gpu_zeus_saw_is_unknown_unless_the_caller_says_so(tmp_path: Path) -> None:
    path = write_zeus(tmp_path, (1.5, "w", 10.0, [1.0, 2.0]))
    [record], _ = read(path)
    assert (record.host, record.gpu_id) == (None, None)
    assert {(device.gpu_id, device.gpu_uuid) for device in record.energy_metrics.devices or []} == {(None, None)}
    [record], _ = read(path, host="node-1", gpu_uuids=["GPU-a", "GPU-b", "GPU-c"])
    assert record.host == "node-1"
    assert [device.gpu_uuid for device in record.energy_metrics.devices or []] == ["GPU-a", "GPU-b"]
    [record], _ = read(write_zeus(tmp_path, (1.5, "w", 10.0, [1.0])), gpu_uuids=["GPU-a"])
    assert record.gpu_uuid == "GPU-a"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("1.0,w,10.0", "shifted"),
        ("1.0,w,10.0,5.0,6.0", "shifted"),
        ("1.0,w,ten,5.0", "torn"),
        ("1.0,w,10.0,nan", "torn"),
        ("1.0,w,10.0,", "torn"),
        ("1.0,w,10.0,-5.0", "impossible_value"),
        ("1768592398.5,w,1e200,5.0", "impossible_value"),
        ("9.7e9,w,1e12,5.0", "impossible_value"),
        ('1.0,"w,10.0,5.0', "shifted"),
    ],
)
def test_a_torn_line_of_zeus_costs_itself(tmp_path: Path, bad: str, code: str) -> None:
    path = write_zeus(tmp_path, (1.0, "first", 10.0, [5.0]))
    path.write_text(f"{path.read_text()}{bad}\n2.0,last,10.0,5.0\n")
    records, entries = read(path)
    assert codes(entries) == ["whole", code, "whole"]
    assert [record.config_name for record in records] == ["first", "last"]


def test_a_gpu_that_stands_twice_is_not_chosen_from(tmp_path: Path) -> None:
    path = write_zeus(tmp_path, (1.0, "first", 10.0, [5.0, 6.0]))
    path.write_text(path.read_text().replace("gpu1", "gpu0"))
    records, entries = read(path)
    assert (records, codes(entries)) == ([], ["ambiguous_column"])
    path.write_text(path.read_text().replace("gpu0", "gpu00", 1))
    with pytest.raises(ImportFormatError, match="gpu00_energy"):
        read(path)


# vLLM


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(json.dumps(peers.vllm_result(model_id="@")).encode().replace(b"@", b"\xee") + b"\n")
    [record], [entry] = read(path)
    assert (entry.outcome, entry.code, record.model_name) == ("repaired", "undecodable_text", "\ufffd")


def test_a_vllm_result_is_a_record_without_energy(tmp_path: Path) -> None:
    [record], [entry] = read(peers.write_json(tmp_path / "x", peers.vllm_result()))
    assert (entry.row, entry.outcome, entry.code) == (1, "kept", "no_energy")
    assert record.energy_metrics.total_energy_j is None
    assert record.inference_metrics is not None
    assert (record.inference_metrics.total_tokens, record.inference_metrics.tokens_per_second) == (384, 3.84)
    assert (record.timestamps.start, record.timestamps.end) == (
        datetime.fromisoformat("2026-08-16T16:07:13"),
        datetime.fromisoformat("2026-08-16T16:08:53"),
    )
    assert (record.model_name, record.backend, record.status, record.host) == ("facebook/opt-125m", "vllm", None, None)


def test_a_run_of_which_no_request_succeeded_is_failed_and_not_zero(tmp_path: Path) -> None:
    failed = peers.vllm_result(
        completed=0, failed=8, total_input_tokens=0, total_output_tokens=0, output_throughput=0.0
    )
    [record], [entry] = read(peers.write_json(tmp_path / "x", failed))
    assert (record.status, record.inference_metrics) == ("failed", None)
    assert entry.code == "run_failed"


def test_appended_results_are_as_many_and_a_torn_one_costs_itself(tmp_path: Path) -> None:
    results = [peers.vllm_result(date=f"20260816-16085{second}") for second in range(3)]
    path = tmp_path / "x"
    path.write_text("".join(json.dumps(result) for result in results) + '\n{"date": "2026')
    records, entries = read(path)
    assert [(entry.row, entry.outcome) for entry in entries] == [(1, "kept"), (2, "kept"), (3, "kept"), (4, "refused")]
    assert entries[-1].code == "torn"
    assert len({record.experiment_id for record in records}) == 3


def test_behind_a_torn_result_goes_on_the_next_line_that_begins_one(tmp_path: Path) -> None:
    whole = [json.dumps(peers.vllm_result(label=f"run {number}"), indent=number) for number in (0, 1)]
    path = tmp_path / "x"
    path.write_text("\n".join([whole[0], whole[1][:300], whole[1], "5", '{"date": "\\ud800"}', whole[0][:50]]))
    records, entries = read(path)
    assert [record.config_name for record in records] == ["run 0", "run 1"]
    assert codes(entries) == ["no_energy", "torn", "no_energy", "torn", "torn", "torn"]
    line = whole[0].count("\n") + 2
    assert entries[1].message == f"object 2: line {line} does not begin a complete JSON object"


@pytest.mark.parametrize("torn", ['\n{"a":', " 5"])
def test_torn_results_without_end_are_not_all_tried(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "x"
    path.write_text(json.dumps(peers.vllm_result()) + torn * 1000)
    _, entries = read(path)
    assert codes(entries) == ["no_energy"] + ["torn"] * 100
    assert entries[-1].message.endswith("; the rest of the file is not read")


@pytest.mark.parametrize("changes", [{"duration": 1e200}, {"date": "00010101-000000"}], ids=str)
def test_a_run_that_began_at_no_time_is_refused_and_the_others_are_kept(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    results = [peers.vllm_result(**changes), peers.vllm_result()]
    path = tmp_path / "x"
    path.write_text("".join(json.dumps(result) for result in results))
    records, entries = read(path)
    assert (codes(entries), len(records)) == (["impossible_value", "no_energy"], 1)


def test_older_shapes_have_no_counts_and_no_duration(tmp_path: Path) -> None:
    older = peers.vllm_result(best_of=1)
    for name in ("duration", "completed", "failed", "total_input_tokens", "total_output_tokens"):
        del older[name]
    [record], _ = read(peers.write_json(tmp_path / "x", older))
    assert (record.inference_metrics, record.timestamps.start, record.status) == (None, None, None)
    assert record.timestamps.end is not None


def test_samples_of_requests_are_kept_and_texts_are_not(tmp_path: Path) -> None:
    detailed = peers.vllm_result(
        ttfts=[0.25, 0.0], itls=[[0.01, 0.02, 0.03], []], generated_texts=["SECRET", ""], errors=["", "SECRET"]
    )
    [record], _ = read(peers.write_json(tmp_path / "x", detailed))
    assert record.inference_metrics is not None
    samples = record.inference_metrics.latency_measurements
    assert samples is not None
    assert samples.ttft_ms == [250.0]
    assert samples.itl_full_ms == pytest.approx([10.0, 20.0, 30.0])
    assert samples.itl_trimmed_ms == pytest.approx([20.0])
    assert b"SECRET" not in msgspec.json.encode(record)


def test_nan_is_no_reading(tmp_path: Path) -> None:
    [record], _ = read(peers.write_json(tmp_path / "x", peers.vllm_result(mean_ttft_ms=float("nan"))))
    assert record.inference_metrics is not None
    assert record.inference_metrics.time_to_first_token_ms is None


def energy_records(tmp_path: Path, *ends: str, duration: str = "100.0") -> list[RawProcessResult]:
    path = tmp_path / "emissions.csv"
    rows = [line(run_id=f"r{index}", timestamp=end, duration=duration) for index, end in enumerate(ends)]
    path.write_text("\n".join([",".join(LATEST), *rows]) + "\n")
    return list(importers.read(path, host="node-1"))


def test_energy_is_joined_from_the_one_record_of_the_same_time(tmp_path: Path) -> None:
    energy = energy_records(tmp_path, "2026-08-16T16:08:54", "2026-08-16T18:08:54")
    path = peers.write_json(tmp_path / "x", peers.vllm_result())
    [record], [entry] = read(path, join=energy)
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
    ids=["another time", "two of the time", "a longer window", "another zone"],
)
def test_energy_that_is_not_surely_the_run_s_is_not_joined(
    tmp_path: Path, ends: tuple[str, ...], duration: str
) -> None:
    energy = energy_records(tmp_path, *ends, duration=duration)
    [record], [entry] = read(peers.write_json(tmp_path / "x", peers.vllm_result()), join=energy)
    assert (entry.outcome, entry.code) == ("kept", "energy_unjoined")
    assert ("time zone" in entry.message) == ends[0].endswith("+00:00")
    assert record.energy_metrics.total_energy_j is None


def test_energy_that_the_server_counted_is_its_own(tmp_path: Path) -> None:
    own = peers.vllm_result(gpu_energy_j=1234.5, gpu_energy_duration_s=100.0)
    [record], [entry] = read(
        peers.write_json(tmp_path / "x", own), join=energy_records(tmp_path, "2026-08-16T16:08:53")
    )
    assert (record.energy_metrics.total_energy_j, entry.code) == (1234.5, "whole")


# optimum-benchmark


def write_optimum(folder: Path, tasks: dict[str, dict[str, Any]], *, with_report: bool = True) -> Path:
    peers.write_json(folder / "benchmark_config.json", peers.OPTIMUM_CONFIG)
    for task, document in tasks.items():
        peers.write_json(folder / f"{task}_codecarbon.json", document)
    if with_report:
        report = {"load_model": peers.optimum_energy(0.25), "prefill": peers.optimum_energy(1.0)}
        report["decode"] = peers.optimum_energy(3.0)
        report["decode"]["efficiency"] = {"unit": "tokens/kWh", "value": 1e6}
        peers.write_json(folder / "benchmark_report.json", report)
        peers.write_json(folder / "benchmark.json", {"config": peers.OPTIMUM_CONFIG, "report": report})
    return folder


def test_phases_are_separate_records_of_the_host_and_generate_is_none_of_them(tmp_path: Path) -> None:
    tasks = {
        "prefill": peers.codecarbon_task(),
        "generate": peers.codecarbon_task(duration=400.0, energy_consumed=4.0, cpu_energy=1.0, gpu_energy=2.0),
    }
    records, entries = read(write_optimum(tmp_path / "run", tasks))
    assert codes(entries) == ["duplicate", "whole", "whole", "whole"]
    found = {record.experiment_id.rpartition("-")[2]: record for record in records}
    assert {phase: record.energy_metrics.total_energy_j for phase, record in found.items()} == {
        "load_model": 0.25 * KWH,
        "prefill": KWH,
        "decode": 3 * KWH,
    }
    assert len({record.experiment_id for record in records}) == 3
    prefill, decode = found["prefill"], found["decode"]
    assert (prefill.energy_metrics.total_scope, prefill.world_size) == ("host", None)
    assert (prefill.energy_metrics.cpu_provenance, prefill.energy_metrics.ram_provenance) == ("modelled", "modelled")
    assert prefill.timestamps.end == datetime.fromisoformat("2025-05-30T15:22:36")
    assert (decode.timestamps.start, decode.energy_metrics.duration_sec) == (None, 300.0)
    assert decode.energy_metrics.energy_per_token_j == 3.6
    assert (prefill.model_name, prefill.backend_version, prefill.gpu_id) == ("meta-llama/Llama-3.1-8B", "2.7.0", 0)
    assert prefill.library_versions == {"transformers": "4.52.3", "pytorch": "2.7.0"}


def test_a_copy_of_a_report_is_told_and_what_the_tool_named_counts(tmp_path: Path) -> None:
    folder = write_optimum(tmp_path / "run", {"prefill": peers.codecarbon_task()})
    of_tool, _ = read(folder)
    peers.write_json(folder / "a report.json", {"prefill": peers.optimum_energy(99.0)})
    peers.write_json(folder / "a config.json", peers.OPTIMUM_CONFIG | {"name": "another"})
    peers.write_json(folder / "prefill.json", peers.codecarbon_task(timestamp="2020-05-30T15:22:36"))
    records, entries = read(folder)
    assert {record.experiment_id: record for record in records} == {record.experiment_id: record for record in of_tool}
    told = {Path(entry.file).name for entry in entries if entry.code == "duplicate"}
    assert {"a report.json", "a config.json", "benchmark.json"} <= told
    assert len(told) == 4


def test_an_interrupted_run_keeps_the_phases_it_measured(tmp_path: Path) -> None:
    records, entries = read(write_optimum(tmp_path / "run", {"load_model": peers.codecarbon_task()}, with_report=False))
    assert [(entry.outcome, entry.code) for entry in entries] == [("repaired", "incomplete_run")]
    assert [(record.status, record.energy_metrics.total_energy_j) for record in records] == [("interrupted", KWH)]


def test_without_a_report_decode_is_what_generate_has_more_than_prefill(tmp_path: Path) -> None:
    tasks = {
        "prefill": peers.codecarbon_task(),
        "generate": peers.codecarbon_task(duration=400.0, energy_consumed=4.0, cpu_energy=1.0, gpu_energy=2.0),
    }
    records, _ = read(write_optimum(tmp_path / "run", tasks, with_report=False))
    found = {record.experiment_id.rpartition("-")[2]: record.energy_metrics for record in records}
    assert {phase: energy.total_energy_j for phase, energy in found.items()} == {"prefill": KWH, "decode": 3 * KWH}
    assert (found["decode"].gpu_energy_j, found["decode"].duration_sec) == (1.5 * KWH, 300.0)


def test_generate_stands_where_prefill_is_unknown(tmp_path: Path) -> None:
    tasks = {"prefill": peers.codecarbon_task(energy_consumed=None), "generate": peers.codecarbon_task()}
    records, _ = read(write_optimum(tmp_path / "run", tasks, with_report=False))
    assert [record.experiment_id.rpartition("-")[2] for record in records] == ["generate"]
    assert records[0].energy_metrics.total_energy_j == KWH


def test_with_a_report_decode_is_what_generate_has_more_than_prefill(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    peers.write_json(folder / "benchmark_config.json", peers.OPTIMUM_CONFIG)
    report = {"prefill": peers.optimum_energy(1.0), "generate": peers.optimum_energy(4.0)}
    peers.write_json(folder / "benchmark_report.json", report)
    records, _ = read(folder)
    found = {record.experiment_id.rpartition("-")[2]: record for record in records}
    assert {phase: record.energy_metrics.total_energy_j for phase, record in found.items()} == {
        "prefill": KWH,
        "decode": 3 * KWH,
    }
    # The record stands for both ranks: a world size of 2 would say that one is missing.
    # The launcher says how many ranks the mean is over; as a world size that would be "1 of 2 processes".
    assert found["decode"].effective_config["optimum-benchmark"]["n_ranks"] == 2
    assert (found["decode"].world_size, found["decode"].launcher) == (None, Launcher(name="torchrun"))
    assert found["decode"].world_size is None


@pytest.mark.parametrize("change", [{"unit": "Wh"}, {"total": None}, {"total": -1.0}], ids=str)
def test_a_phase_without_energy_that_can_be_read_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    report = {"prefill": peers.optimum_energy(1.0), "load_model": peers.optimum_energy(4.0)}
    report["prefill"]["energy"] |= change
    peers.write_json(folder / "benchmark_report.json", report)
    [record], entries = read(folder)
    assert record.energy_metrics.total_energy_j == 4 * KWH
    assert [(entry.code, entry.message) for entry in entries if entry.outcome == "refused"] == [
        ("no_measurement", "prefill has no total energy in kWh")
    ]
    peers.write_json(folder / "benchmark_report.json", {"prefill": report["prefill"]})
    assert codes(read(folder)[1]) == ["no_measurement"]


def test_a_plan_without_a_measurement_is_told(tmp_path: Path) -> None:
    records, [entry] = read(write_optimum(tmp_path / "run", {}, with_report=False))
    assert (records, entry.code) == ([], "no_measurement")


def test_a_torn_report_is_refused_and_what_codecarbon_wrote_is_kept(tmp_path: Path) -> None:
    folder = write_optimum(tmp_path / "run", {"load_model": peers.codecarbon_task()})
    for name in ("benchmark_report.json", "benchmark.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    records, entries = read(folder)
    assert sorted(codes(entries)) == ["incomplete_run", "unknown_format", "unknown_format"]
    assert [record.energy_metrics.total_energy_j for record in records] == [KWH]


@pytest.mark.parametrize("gpu", ["NVIDIA H100", 5, None])
def test_boards_that_are_no_list_are_not_counted(tmp_path: Path, gpu: object) -> None:
    folder = write_optimum(tmp_path / "run", {})
    environment = {**peers.OPTIMUM_CONFIG["environment"], "gpu": gpu}
    peers.write_json(folder / "benchmark_config.json", {**peers.OPTIMUM_CONFIG, "environment": environment})
    for record in read(folder)[0]:
        expected = gpu if isinstance(gpu, str) else None
        assert (record.gpu_name, record.energy_metrics.devices) == (expected, None)


def test_a_phase_that_began_at_no_time_costs_itself(tmp_path: Path) -> None:
    records, entries = read(write_optimum(tmp_path / "run", {"prefill": peers.codecarbon_task(duration=1e200)}))
    assert sorted(codes(entries)) == ["duplicate", "impossible_value", "whole", "whole"]
    assert len(records) == 2


# ML.ENERGY


def test_steady_state_and_whole_run_are_two_experiments(tmp_path: Path) -> None:
    records, entries = read(peers.write_json(tmp_path / "x", peers.ml_energy_run()))
    assert [(entry.outcome, entry.code) for entry in entries] == [("kept", "whole")] * 2
    whole, steady = records
    assert (whole.experiment_id.rpartition("-")[2], steady.experiment_id.rpartition("-")[2]) == ("whole", "steady")
    assert (whole.energy_metrics.gpu_energy_j, whole.energy_metrics.cpu_energy_j) == (450.0, 50.0)
    # As Zeus counts: the total is that of the GPUs.
    assert (whole.energy_metrics.total_energy_j, steady.energy_metrics.total_energy_j) == (450.0, 300.0)
    assert (whole.energy_metrics.total_scope, whole.energy_metrics.cpu_scope) == ("device", "host")
    assert "without the energy of CPUs" in entries[0].message
    assert (steady.energy_metrics.duration_sec, steady.energy_metrics.energy_per_token_j) == (40.0, 75.0)
    assert [(device.gpu_id, device.energy_j) for device in steady.energy_metrics.devices or []] == [
        (None, 100.0),
        (None, 200.0),
    ]
    assert whole.timestamps.start is not None
    assert whole.timestamps.start.isoformat() == "2026-01-16T19:39:58.500000+00:00"
    assert whole.inference_metrics is not None
    assert (whole.inference_metrics.total_tokens, steady.inference_metrics) == (26, None)
    assert whole.inference_metrics.latency_measurements is not None
    assert whole.inference_metrics.latency_measurements.ttft_ms == [250.0]


def test_which_gpu_ml_energy_saw_is_unknown_unless_the_caller_says_so(tmp_path: Path) -> None:
    path = peers.write_json(tmp_path / "x", peers.ml_energy_run())
    for record in read(path, gpu_uuids=["GPU-a", "GPU-b", "GPU-c"])[0]:
        devices = record.energy_metrics.devices or []
        assert [(device.gpu_id, device.gpu_uuid) for device in devices] == [(None, "GPU-a"), (None, "GPU-b")]


def test_more_than_ten_gpus_of_ml_energy_stay_in_order(tmp_path: Path) -> None:
    measured = {"time": 5.0, "gpu_energy": {str(index): float(index) for index in range(12)}}
    [record] = read(
        peers.write_json(
            tmp_path / "x",
            peers.ml_energy_run(entire_benchmark_measurement=measured, steady_state_measurement=None),
        )
    )[0]
    devices = record.energy_metrics.devices or []
    assert [device.energy_j for device in devices] == [float(index) for index in range(12)]


def test_a_total_of_eight_gpus_is_of_no_single_one(tmp_path: Path) -> None:
    diffusion = {"model_id": "m", "num_gpus": 8, "gpu_model": "H100", "total_energy": 800.0, "duration": 60.0}
    [record], _ = read(peers.write_json(tmp_path / "x", {**diffusion, "iteration_energy_measurements": []}))
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.gpu_energy_j, energy.devices) == (800.0, 800.0, None)


@pytest.mark.parametrize("duration", [40.0, None])
def test_a_steady_state_never_takes_the_duration_of_the_whole_run(tmp_path: Path, duration: float | None) -> None:
    run = peers.ml_energy_run(
        steady_state_measurement={"gpu_energy": {"0": 100.0, "1": 200.0}}, steady_state_duration=duration
    )
    [_, steady], _ = read(peers.write_json(tmp_path / "x", run))
    assert (steady.energy_metrics.duration_sec, steady.timestamps.duration_sec) == (duration, duration)


def test_prompts_and_answers_are_dropped(tmp_path: Path) -> None:
    for record in read(peers.write_json(tmp_path / "x", peers.ml_energy_run()))[0]:
        assert b"SECRET" not in msgspec.json.encode(record)


def test_a_window_without_gpu_energy_is_refused(tmp_path: Path) -> None:
    torn = peers.ml_energy_run(steady_state_measurement={"time": 40.0, "gpu_energy": {"0": None, "1": 5.0}})
    records, entries = read(peers.write_json(tmp_path / "x", torn))
    assert [record.experiment_id.rpartition("-")[2] for record in records] == ["whole"]
    assert codes(entries) == ["whole", "no_measurement"]


def test_a_steady_state_whose_total_is_another_is_told(tmp_path: Path) -> None:
    _, entries = read(peers.write_json(tmp_path / "x", peers.ml_energy_run(steady_state_energy=301.0)))
    assert codes(entries) == ["whole", "own_aggregate_differs"]


def test_a_window_that_ends_before_it_starts_has_no_stamps(tmp_path: Path) -> None:
    timeline = {"benchmark_start_time": 1768592398.5, "benchmark_end_time": 60.0}
    [whole, _], entries = read(peers.write_json(tmp_path / "x", peers.ml_energy_run(timeline=timeline)))
    assert (whole.timestamps.start, whole.timestamps.end, entries[0].code) == (None, None, "part_unreadable")


def test_a_leaderboard_has_energy_per_token_and_no_total(tmp_path: Path) -> None:
    configuration = {
        "energy_per_token_joules": 0.43,
        "avg_power_watts": 646.3,
        "num_gpus": 2,
        "gpu_model": "B200",
        "max_num_seqs": 8,
        "output_length_distribution": {"bins": [1.0]},
    }
    board = {"model_id": "Qwen/Qwen3-8B", "task": "lm-arena-chat"}
    path = peers.write_json(
        tmp_path / "x", {**board, "configurations": [configuration, {"num_gpus": 1}, configuration]}
    )
    records, entries = read(path)
    assert [(entry.row, entry.code) for entry in entries] == [(1, "no_energy"), (2, "no_measurement"), (3, "no_energy")]
    energy = records[0].energy_metrics
    assert (energy.total_energy_j, energy.energy_per_token_j, energy.gpu_power_w) == (None, 0.43, 646.3)
    assert (len(energy.devices or []), records[0].timestamps.start) == (2, None)


# perun

SENSORS = [
    peers.perun_sensor("cpu_pkg_0", "cpu", "J", [100.0, 130.0, 160.0], mag=1.0, max=262143.0),
    peers.perun_sensor("dram_0", "ram", "J", [1e6, 2e6, 3e6], mag=1e-6, max=2e12),
    peers.perun_sensor("CUDA:0", "gpu", "W", [200.0, 100.0, 200.0]),
    peers.perun_sensor("CPU_USAGE", "cpu", "%", [1.0, 2.0, 3.0]),
]


@pytest.mark.parametrize("form", ["list", "mapping", "hdf5"])
def test_each_node_of_perun_is_a_record_of_its_host(tmp_path: Path, form: str) -> None:
    tree = peers.perun_tree({"node-1": SENSORS, "node-2": SENSORS[:1]}, wrapped=form != "mapping")
    path = tmp_path / "x"
    _ = peers.write_perun_hdf5(path, tree) if form == "hdf5" else peers.write_json(path, tree)
    records, entries = read(path)
    assert codes(entries) == ["whole", "whole"]
    first, second = records
    assert (first.host, second.host, first.world_size) == ("node-1", "node-2", 2)
    assert first.experiment_id == second.experiment_id
    assert (first.process_index, second.process_index) == (0, 1)
    energy = first.energy_metrics
    assert (energy.cpu_energy_j, energy.gpu_energy_j) == (60.0, 300.0)
    assert energy.ram_energy_j == pytest.approx(2.0)
    assert energy.total_energy_j == pytest.approx(362.0)
    assert (energy.total_scope, energy.cpu_provenance, energy.gpu_provenance) == ("host", "measured", "integrated")
    assert [device.energy_j for device in energy.devices or []] == [300.0]
    assert energy.duration_sec == 4.0
    assert first.timestamps.start == datetime.fromisoformat("2026-11-23T08:47:39.352521")
    assert {sensor.instance for sensor in energy.sensors or []} == {"cpu_pkg_0", "dram_0", "CUDA:0"}
    assert first.origin is not None
    assert first.origin.version == "1.0.0"


@pytest.mark.parametrize(("name", "kind"), [("psys", "psys"), ("psys_0", "other"), ("ipmi", "node")])
def test_a_sensor_of_the_whole_node_is_the_total_alone(tmp_path: Path, name: str, kind: str) -> None:
    whole = peers.perun_sensor(name, kind, "J", [0.0, 500.0])
    [record], [entry] = read(peers.write_json(tmp_path / "x", peers.perun_tree({"n": [*SENSORS, whole]})))
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.cpu_energy_j, energy.gpu_energy_j) == (500.0, 60.0, 300.0)
    assert (entry.outcome, entry.code, name in entry.message) == ("kept", "components_disagree", True)


@pytest.mark.parametrize("others", [["other"], ["net", "disk"], ["psys", "node"], [""]], ids=str)
def test_nothing_of_an_unknown_kind_is_added_to_a_total(tmp_path: Path, others: list[str]) -> None:
    sensors = [peers.perun_sensor(f"s{kind}", kind, "J", [0.0, 500.0]) for kind in others]
    [record], [entry] = read(peers.write_json(tmp_path / "x", peers.perun_tree({"n": [*SENSORS, *sensors]})))
    assert (record.energy_metrics.total_energy_j, record.energy_metrics.cpu_energy_j) == (None, 60.0)
    assert (entry.code, f"s{others[0]}" in entry.message) == ("no_energy", True)


def test_a_counter_that_wraps_is_counted_on(tmp_path: Path) -> None:
    wrapping = peers.perun_sensor("cpu", "cpu", "J", [900.0, -1.0, 990.0, 40.0, 100.0], max=1000.0)
    [record], [entry] = read(peers.write_json(tmp_path / "x", peers.perun_tree({"n": [wrapping]})))
    assert (record.energy_metrics.total_energy_j, entry.code) == (200.0, "whole")
    assert [(sensor.wraps, sensor.samples) for sensor in record.energy_metrics.sensors or []] == [(1, 4)]


def test_a_counter_that_falls_without_a_range_gives_no_energy(tmp_path: Path) -> None:
    reset = peers.perun_sensor("cpu", "cpu", "J", [900.0, 10.0])
    [record], [entry] = read(peers.write_json(tmp_path / "x", peers.perun_tree({"n": [reset, SENSORS[2]]})))
    assert (record.energy_metrics.total_energy_j, record.energy_metrics.gpu_energy_j) == (None, 300.0)
    assert entry.code == "no_energy"


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ({"values": [7.0]}, "sensor_lost"),
        ({"values": []}, "sensor_lost"),
        ({"timesteps": [0.0, 2.0, 1.0]}, "sampling_gap"),
        ({"timesteps": [0.0, 1.0]}, "sampling_gap"),
    ],
    ids=str,
)
@pytest.mark.parametrize("unit", ["J", "W"])
def test_a_sensor_whose_energy_cannot_be_told_leaves_the_total_unknown(
    tmp_path: Path, samples: dict[str, Any], problem: str, unit: str
) -> None:
    lost, whole = peers.perun_sensor("gpu", "gpu", unit, [1.0, 2.0, 4.0]), [1.0, 2.0, 4.0]
    lost["raw_data"] |= samples
    if "values" in samples:
        lost["raw_data"]["timesteps"] = [0.0] * len(samples["values"])
    nodes = {"n": [peers.perun_sensor("cpu", "cpu", "J", whole), lost]}
    [record], [entry] = read(peers.write_json(tmp_path / "x", peers.perun_tree(nodes)))
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.cpu_energy_j, energy.gpu_energy_j) == (None, 3.0, None)
    assert (entry.code, f"gpu ({problem})" in entry.message) == ("no_energy", True)
    nodes["n"] = [lost]
    if "values" in samples:
        assert codes(read(peers.write_json(tmp_path / "x", peers.perun_tree(nodes)))[1]) == ["no_sensor"]


def test_runs_are_experiments_and_regions_are_not(tmp_path: Path) -> None:
    tree = peers.perun_tree({"n": SENSORS[:1]}, runs=2)
    [of_app] = tree["nodes"]
    [of_run] = next(iter(of_app.values()))["nodes"]
    of_run["0"]["regions"] = {"work": {"metrics": {"energy": {"value": 1e9}}}}
    records, _ = read(peers.write_json(tmp_path / "x", tree))
    assert len({record.experiment_id for record in records}) == 2
    assert [record.energy_metrics.total_energy_j for record in records] == [60.0, 60.0]
    assert {record.timestamps.start for record in records} == {None}


def test_perun_s_own_energy_is_compared_without_its_pue(tmp_path: Path) -> None:
    tree = peers.perun_tree({"n": SENSORS[:1]})
    [of_app] = tree["nodes"]
    multi = next(iter(of_app.values()))
    multi["metadata"]["post-processing.pue"] = "1.5"
    [of_run] = multi["nodes"]
    [of_node] = of_run["0"]["nodes"]
    for own, code in ((90.0, "whole"), (60.0, "own_aggregate_differs")):
        of_node["n"]["metrics"]["energy"] = {"value": own, "metric_md": {"unit": "J", **peers.PERUN_UNITS}}
        [record], [entry] = read(peers.write_json(tmp_path / "x", tree))
        assert (record.energy_metrics.total_energy_j, entry.code) == (60.0, code)


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path: Path) -> None:
    other = peers.write_perun_hdf5(tmp_path / "other", peers.perun_tree({"secret": SENSORS}))
    path = peers.write_perun_hdf5(tmp_path / "x", peers.perun_tree({"n": SENSORS[3:]}))
    with h5py.File(path, "a") as file:
        stamp = next(iter(file["app/nodes"]))
        place = file[f"app/nodes/{stamp}/nodes/0/nodes"]
        place["linked"] = h5py.ExternalLink(str(other), f"app/nodes/{stamp}/nodes/0/nodes/secret")
        values = place["n/nodes/cpu/nodes/CPU_USAGE/raw_data"]
        del values["values"]
        values["values"] = h5py.ExternalLink(
            str(other), f"app/nodes/{stamp}/nodes/0/nodes/secret/nodes/cpu/nodes/cpu_pkg_0/raw_data/values"
        )
        place["soft"] = h5py.SoftLink(f"/app/nodes/{stamp}/nodes/0/nodes/n")
    records, entries = read(path)
    assert (records, codes(entries)) == ([], ["no_sensor"])


def test_a_chunk_of_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = peers.write_perun_hdf5(tmp_path / "x", peers.perun_tree({"n": SENSORS[:1]}))
    with h5py.File(path, "a") as file:
        place = file[f"app/nodes/{next(iter(file['app/nodes']))}/nodes/0/nodes/n/nodes/cpu/nodes/cpu_pkg_0/raw_data"]
        del place["values"]
        place.create_dataset(
            "values", shape=(3,), maxshape=(None,), chunks=(400_000_000,), dtype="float64", compression="gzip"
        )
    records, entries = read(path)
    assert (records, codes(entries)) == ([], ["too_large"])


@pytest.mark.parametrize("cut", [8, 100, 900, 2048])
def test_a_torn_hdf5_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = peers.write_perun_hdf5(tmp_path / "x", peers.perun_tree({"n": SENSORS}))
    path.write_bytes(path.read_bytes()[:cut])
    records, entries = read(path)
    assert (records, codes(entries)) == ([], ["unreadable"])
