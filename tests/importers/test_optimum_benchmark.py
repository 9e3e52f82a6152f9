"""Import of runs of optimum-benchmark."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.domain.experiment import Launcher
from tests.support import peers
from tests.support.imports import codes, read_all

KWH = 3.6e6


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


def test_each_phase_except_generate_is_a_record_of_the_host(tmp_path: Path) -> None:
    tasks = {
        "prefill": peers.codecarbon_task(),
        "generate": peers.codecarbon_task(duration=400.0, energy_consumed=4.0, cpu_energy=1.0, gpu_energy=2.0),
    }
    records, entries = read_all(write_optimum(tmp_path / "run", tasks))
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


def test_file_with_the_tools_own_name_has_precedence_over_a_copy(tmp_path: Path) -> None:
    folder = write_optimum(tmp_path / "run", {"prefill": peers.codecarbon_task()})
    of_tool, _ = read_all(folder)
    peers.write_json(folder / "a report.json", {"prefill": peers.optimum_energy(99.0)})
    peers.write_json(folder / "a config.json", peers.OPTIMUM_CONFIG | {"name": "another"})
    peers.write_json(folder / "prefill.json", peers.codecarbon_task(timestamp="2020-05-30T15:22:36"))
    records, entries = read_all(folder)
    assert {record.experiment_id: record for record in records} == {record.experiment_id: record for record in of_tool}
    duplicates = {Path(entry.file).name for entry in entries if entry.code == "duplicate"}
    assert {"a report.json", "a config.json", "benchmark.json"} <= duplicates
    assert len(duplicates) == 4


def test_interrupted_run_keeps_its_measured_phases(tmp_path: Path) -> None:
    folder = write_optimum(tmp_path / "run", {"load_model": peers.codecarbon_task()}, with_report=False)
    records, entries = read_all(folder)
    assert [(entry.outcome, entry.code) for entry in entries] == [("repaired", "incomplete_run")]
    assert [(record.status, record.energy_metrics.total_energy_j) for record in records] == [("interrupted", KWH)]


def test_decode_is_generate_minus_prefill_without_a_report(tmp_path: Path) -> None:
    tasks = {
        "prefill": peers.codecarbon_task(),
        "generate": peers.codecarbon_task(duration=400.0, energy_consumed=4.0, cpu_energy=1.0, gpu_energy=2.0),
    }
    records, _ = read_all(write_optimum(tmp_path / "run", tasks, with_report=False))
    found = {record.experiment_id.rpartition("-")[2]: record.energy_metrics for record in records}
    assert {phase: energy.total_energy_j for phase, energy in found.items()} == {"prefill": KWH, "decode": 3 * KWH}
    assert (found["decode"].gpu_energy_j, found["decode"].duration_sec) == (1.5 * KWH, 300.0)


def test_generate_is_kept_if_prefill_is_unknown(tmp_path: Path) -> None:
    tasks = {"prefill": peers.codecarbon_task(energy_consumed=None), "generate": peers.codecarbon_task()}
    records, _ = read_all(write_optimum(tmp_path / "run", tasks, with_report=False))
    assert [record.experiment_id.rpartition("-")[2] for record in records] == ["generate"]
    assert records[0].energy_metrics.total_energy_j == KWH


def test_decode_is_generate_minus_prefill_with_a_report(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    peers.write_json(folder / "benchmark_config.json", peers.OPTIMUM_CONFIG)
    report = {"prefill": peers.optimum_energy(1.0), "generate": peers.optimum_energy(4.0)}
    peers.write_json(folder / "benchmark_report.json", report)
    records, _ = read_all(folder)
    found = {record.experiment_id.rpartition("-")[2]: record for record in records}
    assert {phase: record.energy_metrics.total_energy_j for phase, record in found.items()} == {
        "prefill": KWH,
        "decode": 3 * KWH,
    }
    # One record represents both ranks. With a world size of 2, the other rank would count as missing.
    assert found["decode"].effective_config["optimum-benchmark"]["n_ranks"] == 2
    assert (found["decode"].world_size, found["decode"].launcher) == (None, Launcher(name="torchrun"))


@pytest.mark.parametrize("change", [{"unit": "Wh"}, {"total": None}, {"total": -1.0}], ids=str)
def test_phase_without_energy_in_kwh_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    report = {"prefill": peers.optimum_energy(1.0), "load_model": peers.optimum_energy(4.0)}
    report["prefill"]["energy"] |= change
    peers.write_json(folder / "benchmark_report.json", report)
    [record], entries = read_all(folder)
    assert record.energy_metrics.total_energy_j == 4 * KWH
    assert [(entry.code, entry.message) for entry in entries if entry.outcome == "refused"] == [
        ("no_measurement", "prefill has no total energy in kWh")
    ]
    peers.write_json(folder / "benchmark_report.json", {"prefill": report["prefill"]})
    assert codes(read_all(folder)[1]) == ["no_measurement"]


def test_configuration_alone_has_no_measurement(tmp_path: Path) -> None:
    records, [entry] = read_all(write_optimum(tmp_path / "run", {}, with_report=False))
    assert (records, entry.code) == ([], "no_measurement")


def test_energy_of_codecarbon_is_kept_if_the_report_is_damaged(tmp_path: Path) -> None:
    folder = write_optimum(tmp_path / "run", {"load_model": peers.codecarbon_task()})
    for name in ("benchmark_report.json", "benchmark.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    records, entries = read_all(folder)
    assert sorted(codes(entries)) == ["incomplete_run", "unknown_format", "unknown_format"]
    assert [record.energy_metrics.total_energy_j for record in records] == [KWH]


@pytest.mark.parametrize("gpu", ["NVIDIA H100", 5, None])
def test_gpu_that_is_not_a_list_gives_no_devices(tmp_path: Path, gpu: object) -> None:
    folder = write_optimum(tmp_path / "run", {})
    environment = {**peers.OPTIMUM_CONFIG["environment"], "gpu": gpu}
    peers.write_json(folder / "benchmark_config.json", {**peers.OPTIMUM_CONFIG, "environment": environment})
    for record in read_all(folder)[0]:
        expected = gpu if isinstance(gpu, str) else None
        assert (record.gpu_name, record.energy_metrics.devices) == (expected, None)


def test_phase_that_starts_outside_the_calendar_is_refused(tmp_path: Path) -> None:
    records, entries = read_all(write_optimum(tmp_path / "run", {"prefill": peers.codecarbon_task(duration=1e200)}))
    assert sorted(codes(entries)) == ["duplicate", "impossible_value", "whole", "whole"]
    assert len(records) == 2
