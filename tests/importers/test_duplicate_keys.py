"""A key that occurs twice in a JSON object is ambiguous, so the object is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import peers
from tests.support.imports import codes, read_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def duplicate_key(path: Path, key: str) -> None:
    """Add a second value of a key to a JSON file."""
    text = path.read_text()
    assert f'"{key}": ' in text
    path.write_text(text.replace(f'"{key}": ', f'"{key}": -1, "{key}": ', 1))


SINGLE: dict[str, tuple[Callable[[], dict[str, Any]], list[str]]] = {
    "ml-energy": (peers.ml_energy_run, ["model_id", "gpu_energy", "ttft", "device_instant"]),
    "perun": (
        lambda: peers.perun_tree({"n": [peers.perun_sensor("cpu", "cpu", "J", [1.0, 2.0, 4.0])]}),
        ["id", "values", "runtime"],
    ),
}


@pytest.mark.parametrize(("tool", "key"), [(tool, key) for tool, (_, keys) in SINGLE.items() for key in keys])
def test_duplicate_key_refuses_a_file_of_one_object(tmp_path: Path, tool: str, key: str) -> None:
    path = peers.write_json(tmp_path / "file", SINGLE[tool][0]())
    assert read_all(path)[0]
    duplicate_key(path, key)
    records, [entry] = read_all(path)
    assert (records, entry.outcome, entry.code) == ([], "refused", "ambiguous_key")
    assert f"the key '{key}' occurs twice" in entry.message


def test_duplicate_key_refuses_only_its_appended_object(tmp_path: Path) -> None:
    documents = [json.dumps(peers.vllm_result(label=f"run {number}")) for number in range(3)]
    documents[1] = documents[1].replace('"duration": ', '"duration": 5, "duration": ', 1)
    (tmp_path / "file").write_text("\n".join(documents))
    records, entries = read_all(tmp_path / "file")
    assert [record.config_name for record in records] == ["run 0", "run 2"]
    assert [(entry.row, entry.code) for entry in entries] == [(1, "no_energy"), (2, "ambiguous_key"), (3, "no_energy")]
    # The format is recognised from the first object, even if a key occurs twice in it.
    (tmp_path / "file").write_text("\n".join([documents[1], documents[0]]))
    assert codes(read_all(tmp_path / "file")[1]) == ["ambiguous_key", "no_energy"]


def test_duplicate_key_refuses_only_its_json_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"j": 1}\n{"j": 2, "j": 3}\n{"j": 4, "more": {"a": 1, "a": 1}}\n{"j": 5}\n')
    records, entries = read_all(tmp_path / "file", mapping=["energy_j=j"])
    assert [record.energy_metrics.total_energy_j for record in records] == [1.0, 5.0]
    assert [(entry.row, entry.code) for entry in entries if entry.outcome == "refused"] == [
        *((2, "ambiguous_key"), (3, "ambiguous_key")),
    ]


def test_duplicate_key_in_a_legacy_folder_refuses_one_process(tmp_path: Path) -> None:
    folder = peers.write_experiment(tmp_path / "0042")
    duplicate_key(folder / "0042_6_local_energy_results_process_0.json", "total_energy_joules")
    duplicate_key(folder / "0042_2_experiment_variables.json", "config_name")
    records, entries = read_all(folder)
    assert [(record.process_index, record.config_name) for record in records] == [(1, None)]
    assert [entry.code for entry in entries if entry.outcome == "refused"] == ["ambiguous_key"]
    assert "0042_2_experiment_variables.json: the key 'config_name' occurs twice" in entries[-1].message


@pytest.mark.parametrize("name", ["benchmark_report.json", "benchmark_config.json", "prefill_codecarbon.json"])
def test_duplicate_key_refuses_one_file_of_optimum_benchmark(tmp_path: Path, name: str) -> None:
    peers.write_json(tmp_path / "benchmark_config.json", peers.OPTIMUM_CONFIG)
    peers.write_json(tmp_path / "prefill_codecarbon.json", peers.codecarbon_task())
    peers.write_json(tmp_path / "benchmark_report.json", {"prefill": peers.optimum_energy(1.0)})
    key = {"benchmark_report.json": "total", "benchmark_config.json": "name"}.get(name, "duration")
    duplicate_key(tmp_path / name, key)
    [record], entries = read_all(tmp_path)
    assert record.energy_metrics.total_energy_j == 3.6e6
    assert [entry.code for entry in entries if entry.outcome == "refused"] == ["ambiguous_key"]
    # A report that cannot be read exists, so the run was not interrupted.
    assert record.status is None
    assert ("part_unreadable" in codes(entries)) is (name == "benchmark_report.json")
    assert (record.model_name is None) is (name == "benchmark_config.json")
    assert (record.timestamps.duration_sec is None) is (name == "prefill_codecarbon.json")
