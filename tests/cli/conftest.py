"""Results directories for the commands: each test gets a copy of one that is created once per session."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.catalogue.index import SCAN_LIMIT
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store import codec
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def model_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three aggregated repeats, a pending experiment of two processes, and a pending one that lacks processes."""
    folder = tmp_path_factory.mktemp("model") / "results"
    repository = FileSystemRepository(folder)
    factories.save_repeats(repository)
    assert [outcome.result for outcome in aggregate_all(repository)] == ["aggregated"] * 3
    for record in factories.raws(2, "mistral", model_name="mistralai/Mistral-7B", world_size=2):
        repository.save_raw("mistral", record)
    repository.save_raw("torn", factories.raw("torn", 1, world_size=3))
    return folder


@pytest.fixture
def results(model_results: Path, tmp_path: Path) -> Path:
    """Return a copy of `model_results`, which the test may change."""
    return shutil.copytree(model_results, tmp_path / "results")


@pytest.fixture
def many_results(results: Path) -> Path:
    """Return `results` with so many more pending experiments that the catalogue does not scan all of them each time."""
    data = codec.encode_raw(factories.raw("NAME"))
    for number in range(SCAN_LIMIT):
        folder = results / "raw" / f"pending_{number:04}"
        folder.mkdir()
        (folder / "process_0.json").write_bytes(data.replace(b"NAME", folder.name.encode()))
    return results


@pytest.fixture
def baseline(real_data: Path, tmp_path: Path) -> Path:
    """Return a copy of real results with the aggregates of their own tool, and empty one process file."""
    folder = tmp_path / "baseline"
    for path in sorted((real_data / "v2_results" / "baseline").rglob("*.json")):
        copy = folder / path.relative_to(real_data / "v2_results" / "baseline")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (folder / "raw" / "0001_c0" / "process_0.json").write_bytes(b"")
    return folder
