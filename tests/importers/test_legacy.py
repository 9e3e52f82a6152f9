"""Import of result folders from before the format had a version."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.domain.experiment import Launcher
from tests.support import peers
from tests.support.imports import codes, read_all
from tests.support.peers import KWH, energies, write_experiment

if TYPE_CHECKING:
    from pathlib import Path


def test_each_process_of_an_experiment_is_a_record(tmp_path: Path) -> None:
    records, entries = read_all(write_experiment(tmp_path / "3b_0042"))
    assert [(record.experiment_id, record.process_index) for record in records] == [("3b_0042", 0), ("3b_0042", 1)]
    assert [(entry.outcome, entry.code) for entry in entries] == [("kept", "whole")] * 2
    first, second = records
    assert first.energy_metrics.total_energy_j == energies(0)["total_energy_joules"]
    assert first.energy_metrics.gpu_energy_j == 0.005 * KWH
    assert first.energy_metrics.duration_sec == pytest.approx(0.001 * KWH / 112.5)
    assert (first.world_size, first.backend, first.model_name, first.config_name) == (
        2,
        *("pytorch", "org/model"),
        "batch_8",
    )
    assert first.timestamps.start is not None
    assert (first.timestamps.start.isoformat(), first.timestamps.end) == ("2025-04-11T13:24:25", None)
    assert (first.gpu_id, first.gpu_name, len(first.energy_metrics.devices or [])) == (None, "NVIDIA A100-PCIE-40GB", 4)
    assert (first.energy_metrics.total_scope, first.energy_metrics.cpu_provenance) == (None, "modelled")
    assert first.inference_metrics is not None
    assert (first.inference_metrics.total_tokens, first.inference_metrics.inference_time_sec) == (192, 23.5)
    assert first.compute_metrics is not None
    assert (first.compute_metrics.flops_total, first.compute_metrics.peak_memory_mb) == (1e12, 1024.0)
    assert (second.inference_metrics, second.compute_metrics) == (None, None)
    assert first.origin is not None
    assert (first.origin.tool, first.origin.file) == (
        "llm-energy-measure 1.x",
        "0042_6_local_energy_results_process_0.json",
    )


def test_local_process_index_is_the_local_rank(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "0042", processes=3)
    (folder / "0042_6_local_energy_results_process_1.json").unlink()
    records, _ = read_all(folder)
    launchers = [record.launcher for record in records]
    assert launchers == [Launcher(local_rank=0), Launcher(local_rank=2)]


def test_origin_names_the_tool_that_measured(tmp_path: Path) -> None:
    records, _ = read_all(write_experiment(tmp_path / "0042"))
    assert [(record.origin.tool, record.origin.version) for record in records if record.origin is not None] == [
        ("llm-energy-measure 1.x", None)
    ] * 2


def test_kind_of_a_file_depends_on_its_content_and_not_its_name(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "0042")
    expected, _ = read_all(folder)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"{9 - number}.txt")
    records, _ = read_all(folder)
    assert [record.energy_metrics for record in records] == [record.energy_metrics for record in expected]


def test_empty_process_file_is_refused_and_the_others_are_kept(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "0042", processes=3)
    torn = folder / "0042_6_local_energy_results_process_1.json"
    torn.write_bytes(b"")
    records, entries = read_all(folder)
    assert [record.process_index for record in records] == [0, 2]
    assert [(entry.code, entry.file) for entry in entries if entry.outcome == "refused"] == [("empty_file", str(torn))]
    assert {record.world_size for record in records} == {3}
    assert entries[1].code == "own_aggregate_differs"


def test_folder_of_empty_files_is_refused_for_each_process(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "3b_0213")
    for path in folder.iterdir():
        path.write_bytes(b"")
    records, entries = read_all(folder)
    assert records == []
    assert [(entry.outcome, entry.code) for entry in entries] == [("refused", "empty_file")] * 2
    assert all("3b_0213" in entry.file for entry in entries)


@pytest.mark.parametrize("kind", ["1_experiment_setup", "2_experiment_variables", "4_inference_metrics", "7_global"])
@pytest.mark.parametrize("content", [b"", b'{"experiment_id": "0'], ids=["empty", "torn"])
def test_unreadable_part_costs_only_its_own_values(tmp_path: Path, kind: str, content: bytes) -> None:
    folder = write_experiment(tmp_path / "0042")
    [path] = folder.glob(f"0042_{kind}*")
    path.write_bytes(content)
    records, entries = read_all(folder)
    assert [record.energy_metrics.total_energy_j for record in records] == [
        energies(index)["total_energy_joules"] for index in range(2)
    ]
    about = [entry for entry in entries if path.name in entry.file + entry.message]
    assert codes(about) == ["part_unreadable" if not content else "unknown_format"]


def test_energy_that_differs_between_kwh_and_j_is_refused(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "0042")
    path = folder / "0042_6_local_energy_results_process_0.json"
    document = json.loads(path.read_text())
    document["energy_results"]["total_energy_joules"] *= 1 + 1e-8
    path.write_text(json.dumps(document))
    records, entries = read_all(folder)
    assert [record.process_index for record in records] == [1]
    assert entries[0].code == "energy_disagrees"


def test_copy_of_a_process_file_counts_once(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "0042")
    path = folder / "0042_6_local_energy_results_process_0.json"
    shutil.copy(path, folder / f"{path.name}.bak")
    records, entries = read_all(folder)
    assert [record.process_index for record in records] == [0, 1]
    assert [entry.code for entry in entries if entry.outcome == "refused"] == ["duplicate"]


@pytest.mark.parametrize("kind", ["6_local_energy_results_process_0", "4_inference_metrics"])
def test_file_with_the_tools_own_name_has_precedence_over_a_copy(tmp_path: Path, kind: str) -> None:
    folder = write_experiment(tmp_path / "0042")
    before, _ = read_all(folder)
    document = json.loads((folder / f"0042_{kind}.json").read_text())
    for part in ("energy_results", "raw_inference_metrics"):
        document[part] = {name: 2 * value for name, value in document.get(part, {}).items()}
    peers.write_json(folder / f"0042_{kind} (1).json", document)
    records, entries = read_all(folder)
    assert records == before
    assert [entry.code for entry in entries if "(1)" in entry.file] == ["duplicate"]


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b"null",
        b'{"local_process_index": -1, "energy_results": {}}',
        b"\x00" * 9,
        b"{" * 5000,
        b'{"local_process_index": 0, "energy_results": {"total_energy_joules": NaN}}',
        b'{"local_process_index": 0, "energy_results": {"total_energy_joules": "12"}}',
    ],
)
def test_no_content_of_a_process_file_crashes_the_import(tmp_path: Path, content: bytes) -> None:
    folder = write_experiment(tmp_path / "0042")
    (folder / "0042_6_local_energy_results_process_0.json").write_bytes(content)
    records, entries = read_all(folder)
    assert [record.process_index for record in records] == [1]
    assert sum(entry.outcome == "refused" for entry in entries) == 1


def test_flat_folder_of_two_experiments_gives_two_experiments(tmp_path: Path) -> None:
    flat = tmp_path / "results"
    flat.mkdir()
    for name, processes in (("0109", 2), ("0110", 3)):
        for path in write_experiment(tmp_path / name, processes, name=name).iterdir():
            path.rename(flat / path.name)
    (flat / "0110_7_global_energy_results.json").write_bytes(b"")
    records, entries = read_all(flat)
    assert [(record.experiment_id, record.process_index, record.world_size) for record in records] == [
        *(("results-0109", index, 2) for index in range(2)),
        *(("results-0110", index, 3) for index in range(3)),
    ]
    assert codes(entries) == ["whole", "whole", "part_unreadable", "whole", "whole"]
    assert [record.effective_config["legacy"]["setup"]["experiment_id"] for record in records] == [
        *("0109", "0109", "0110", "0110", "0110")
    ]


def test_folders_with_non_ascii_names_are_different_experiments(tmp_path: Path) -> None:
    for name in ("\u03b1", "\u03b2", "a b", "a_b"):
        write_experiment(tmp_path / name)
    records, _ = read_all(tmp_path)
    assert len({record.experiment_id for record in records}) == 4


def test_one_file_of_a_legacy_folder_is_refused(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "0042")
    records, [entry] = read_all(folder / "0042_6_local_energy_results_process_0.json")
    assert records == []
    assert (entry.code, str(folder) in entry.message) == ("part_of_folder", True)


def test_folder_without_a_process_file_has_no_measurement(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "0042")
    for path in folder.glob("*_6_*"):
        path.unlink()
    records, [entry] = read_all(folder)
    assert (records, entry.code) == ([], "no_measurement")
