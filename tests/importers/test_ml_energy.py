"""Import of runs and leaderboards of the ML.ENERGY benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.support import peers
from tests.support.imports import codes, read_all

if TYPE_CHECKING:
    from pathlib import Path


def test_steady_state_and_whole_run_are_two_experiments(tmp_path: Path) -> None:
    records, entries = read_all(peers.write_json(tmp_path / "x", peers.ml_energy_run()))
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


def test_gpu_is_unknown_unless_the_caller_states_its_uuid(tmp_path: Path) -> None:
    path = peers.write_json(tmp_path / "x", peers.ml_energy_run())
    for record in read_all(path, gpu_uuids=["GPU-a", "GPU-b", "GPU-c"])[0]:
        devices = record.energy_metrics.devices or []
        assert [(device.gpu_id, device.gpu_uuid) for device in devices] == [(None, "GPU-a"), (None, "GPU-b")]


def test_more_than_ten_gpus_are_in_numerical_order(tmp_path: Path) -> None:
    measured = {"time": 5.0, "gpu_energy": {str(index): float(index) for index in range(12)}}
    [record] = read_all(
        peers.write_json(
            tmp_path / "x",
            peers.ml_energy_run(entire_benchmark_measurement=measured, steady_state_measurement=None),
        )
    )[0]
    devices = record.energy_metrics.devices or []
    assert [device.energy_j for device in devices] == [float(index) for index in range(12)]


def test_one_total_of_eight_gpus_gives_no_devices(tmp_path: Path) -> None:
    diffusion = {"model_id": "m", "num_gpus": 8, "gpu_model": "H100", "total_energy": 800.0, "duration": 60.0}
    [record], _ = read_all(peers.write_json(tmp_path / "x", {**diffusion, "iteration_energy_measurements": []}))
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.gpu_energy_j, energy.devices) == (800.0, 800.0, None)


@pytest.mark.parametrize("duration", [40.0, None])
def test_steady_state_does_not_use_the_duration_of_the_whole_run(tmp_path: Path, duration: float | None) -> None:
    run = peers.ml_energy_run(
        steady_state_measurement={"gpu_energy": {"0": 100.0, "1": 200.0}}, steady_state_duration=duration
    )
    [_, steady], _ = read_all(peers.write_json(tmp_path / "x", run))
    assert (steady.energy_metrics.duration_sec, steady.timestamps.duration_sec) == (duration, duration)


def test_prompts_and_answers_are_dropped(tmp_path: Path) -> None:
    for record in read_all(peers.write_json(tmp_path / "x", peers.ml_energy_run()))[0]:
        assert b"SECRET" not in msgspec.json.encode(record)


def test_window_without_gpu_energy_is_refused(tmp_path: Path) -> None:
    torn = peers.ml_energy_run(steady_state_measurement={"time": 40.0, "gpu_energy": {"0": None, "1": 5.0}})
    records, entries = read_all(peers.write_json(tmp_path / "x", torn))
    assert [record.experiment_id.rpartition("-")[2] for record in records] == ["whole"]
    assert codes(entries) == ["whole", "no_measurement"]


def test_steady_state_with_another_total_is_reported(tmp_path: Path) -> None:
    _, entries = read_all(peers.write_json(tmp_path / "x", peers.ml_energy_run(steady_state_energy=301.0)))
    assert codes(entries) == ["whole", "own_aggregate_differs"]


def test_window_that_ends_before_it_starts_has_no_timestamps(tmp_path: Path) -> None:
    timeline = {"benchmark_start_time": 1768592398.5, "benchmark_end_time": 60.0}
    [whole, _], entries = read_all(peers.write_json(tmp_path / "x", peers.ml_energy_run(timeline=timeline)))
    assert (whole.timestamps.start, whole.timestamps.end, entries[0].code) == (None, None, "part_unreadable")


def test_leaderboard_has_energy_per_token_and_no_total(tmp_path: Path) -> None:
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
    records, entries = read_all(path)
    assert [(entry.row, entry.code) for entry in entries] == [(1, "no_energy"), (2, "no_measurement"), (3, "no_energy")]
    energy = records[0].energy_metrics
    assert (energy.total_energy_j, energy.energy_per_token_j, energy.gpu_power_w) == (None, 0.43, 646.3)
    assert (len(energy.devices or []), records[0].timestamps.start) == (2, None)
