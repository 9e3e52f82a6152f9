"""Tests with files of another tool: its raw results and aggregates, against ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.domain.experiment import AggregatedResult
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.state import source_changes
from llm_energy_measure.results.store import codec

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = ["baseline", "batch_1", "batch_32", "precision_fp32", "quant_8bit"]
EXPERIMENTS = ["0001_c0", "0001_c1"]


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, real_data: Path) -> Path:
    return real_data / "v2_results" / request.param


def same(ours: object, theirs: object, where: str = "") -> None:
    """Require that our result contains every value of the other tool, floats to 1e-12."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), where
        for key, value in theirs.items():
            assert key in ours, f"{where}.{key}"
            same(ours[key], value, f"{where}.{key}")
    elif isinstance(theirs, list):
        assert isinstance(ours, list), where
        assert len(ours) == len(theirs), where
        for index, value in enumerate(theirs):
            same(ours[index], value, f"{where}[{index}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=0), where
    else:
        assert (type(ours), ours) == (type(theirs), theirs), where


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def test_every_folder_of_real_results_is_tested(real_data: Path) -> None:
    assert sorted(path.name for path in (real_data / "v2_results").iterdir() if path.is_dir()) == FOLDERS


def test_unrelated_files_in_the_folders_change_nothing(folder: Path) -> None:
    repository = FileSystemRepository(folder)
    assert repository.list_experiments() == EXPERIMENTS
    assert repository.list_aggregated() == EXPERIMENTS
    assert [len(repository.recover_raw(name).unreadable) for name in EXPERIMENTS] == [0, 0]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_aggregate_equals_that_of_the_original_tool(folder: Path, name: str) -> None:
    ours = aggregate_results(name, FileSystemRepository(folder).load_all_raw(name))
    same(json.loads(codec.encode_aggregated(ours)), read(folder / "aggregated" / f"{name}.json"))
    assert ours.is_lower_bound is False


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_properties_equal_the_figures(folder: Path, name: str) -> None:
    result = FileSystemRepository(folder).load_aggregated(name)
    assert isinstance(result, AggregatedResult)
    assert result.tokens_per_joule == pytest.approx(1 / (result.avg_energy_per_token_j or 0), rel=1e-12)
    assert result.duration_sec == pytest.approx(result.process_results[0].timestamps.duration_sec)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_raw_file_survives_decoding_and_encoding(folder: Path, name: str) -> None:
    [path] = FileSystemRepository(folder).list_raw(name)
    written = json.loads(codec.encode_raw(FileSystemRepository(folder).load_raw(path)))
    original = read(path)
    same(written, original)
    assert list(written)[: len(original)] == list(original)
    assert set(written) - set(original) == {
        *("world_size", "host", "gpu_uuid", "gpu_power_limit_w", "clock", "launcher", "origin"),
        *("status", "error_type", "library_versions", "phases"),
    }


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_aggregate_of_another_tool_survives_decoding_and_encoding(folder: Path, name: str) -> None:
    result = FileSystemRepository(folder).load_aggregated(name)
    assert result is not None
    assert result.sources is None
    same(json.loads(codec.encode_aggregated(result)), read(folder / "aggregated" / f"{name}.json"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_aggregate_contains_the_bytes_of_the_raw_file(folder: Path, name: str) -> None:
    repository = FileSystemRepository(folder)
    [path] = repository.list_raw(name)
    ours = aggregate_results(name, repository.load_all_raw(name))
    assert path.read_bytes() in codec.encode_aggregated(ours)
    assert ours.sources == [codec.source_file("process_0.json", path.read_bytes())]
    assert not source_changes(repository, ours)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_energy_is_counted_twice_and_real_faults_are_found(folder: Path, name: str) -> None:
    result = aggregate_results(name, FileSystemRepository(folder).load_all_raw(name))
    assert (result.attribution_factor, result.attributed_energy_j) == (1.0, result.total_energy_j)
    failed = set(result.failed_codes)
    assert failed >= {"zero.duration", "zero.energy_per_token", "zero.peak_memory", "window.unknown"}
    assert not {code for code in failed if code.startswith(("energy.", "attribution."))}
    odd = {"plausibility.power_above_limit", "plausibility.power_contradicts_energy"}
    expected = {("batch_32", "0001_c0"): odd, ("batch_1", "0001_c0"): {"plausibility.power_contradicts_energy"}}
    assert {code for code in failed if code.startswith("plausibility.")} == expected.get((folder.name, name), set())
    is_contradiction = (folder.name, name) == ("batch_1", "0001_c0")  # 0 W with 4.5 kJ
    assert result.codes_of("error") == ["plausibility.power_contradicts_energy"] * is_contradiction
