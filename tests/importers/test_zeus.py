"""Import of window logs of Zeus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import ImportFormatError
from tests.support import peers
from tests.support.imports import codes, read_all

if TYPE_CHECKING:
    from pathlib import Path


def write_zeus(tmp_path: Path, *windows: tuple[float, str, float, list[float]]) -> Path:
    path = tmp_path / "log"
    path.write_text(peers.zeus_lines(windows))
    return path


def test_each_window_is_an_experiment_with_one_device_per_gpu(tmp_path: Path) -> None:
    path = write_zeus(
        tmp_path, (1768592398.5, "train 1", 10.0, [100.5, 200.25]), (1768592410.5, "train 1", 5.0, [1.0, 2.0])
    )
    records, entries = read_all(path)
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


def test_monotonic_start_is_not_a_time_of_day(tmp_path: Path) -> None:
    [record], _ = read_all(write_zeus(tmp_path, (13586624.1, "w", 10.0, [100.0])))
    assert (record.timestamps.start, record.timestamps.end, record.timestamps.duration_sec) == (None, None, 10.0)
    assert record.effective_config["zeus"]["start_time"] == 13586624.1


def test_gpu_is_unknown_unless_the_caller_states_its_uuid(tmp_path: Path) -> None:
    path = write_zeus(tmp_path, (1.5, "w", 10.0, [1.0, 2.0]))
    [record], _ = read_all(path)
    assert (record.host, record.gpu_id) == (None, None)
    assert {(device.gpu_id, device.gpu_uuid) for device in record.energy_metrics.devices or []} == {(None, None)}
    [record], _ = read_all(path, host="node-1", gpu_uuids=["GPU-a", "GPU-b", "GPU-c"])
    assert record.host == "node-1"
    assert [device.gpu_uuid for device in record.energy_metrics.devices or []] == ["GPU-a", "GPU-b"]
    [record], _ = read_all(write_zeus(tmp_path, (1.5, "w", 10.0, [1.0])), gpu_uuids=["GPU-a"])
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
def test_damaged_line_costs_one_window(tmp_path: Path, bad: str, code: str) -> None:
    path = write_zeus(tmp_path, (1.0, "first", 10.0, [5.0]))
    path.write_text(f"{path.read_text()}{bad}\n2.0,last,10.0,5.0\n")
    records, entries = read_all(path)
    assert codes(entries) == ["whole", code, "whole"]
    assert [record.config_name for record in records] == ["first", "last"]


def test_negative_energy_of_one_gpu_costs_this_gpu(tmp_path: Path) -> None:
    [record], [entry] = read_all(write_zeus(tmp_path, (1.0, "w", 10.0, [5.0, -6.0])))
    assert (entry.code, record.energy_metrics.total_energy_j) == ("damaged_cells", 5.0)
    assert [device.energy_j for device in record.energy_metrics.devices or []] == [5.0, None]
    assert "gpu1_energy is -6.0" in (record.energy_measurement_warning or "")


def test_duplicate_gpu_column_refuses_the_file(tmp_path: Path) -> None:
    path = write_zeus(tmp_path, (1.0, "first", 10.0, [5.0, 6.0]))
    path.write_text(path.read_text().replace("gpu1", "gpu0"))
    records, entries = read_all(path)
    assert (records, codes(entries)) == ([], ["ambiguous_column"])
    path.write_text(path.read_text().replace("gpu0", "gpu00", 1))
    with pytest.raises(ImportFormatError, match="gpu00_energy"):
        read_all(path)
