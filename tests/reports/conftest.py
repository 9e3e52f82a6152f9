"""Results directories for reports. Each is created once per session; tests only read them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "results"


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Aggregates of `examples/results`: four complete experiments, and one lower bound."""
    folder = tmp_path_factory.mktemp("examples") / "results"
    shutil.copytree(EXAMPLES, folder)
    assert {one.result for one in aggregate_all(FileSystemRepository(folder), strict=False)} == {"aggregated"}
    return folder


@pytest.fixture(scope="session")
def ranges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three repeats with known energy, an undetermined experiment, and one without aggregate."""
    folder = tmp_path_factory.mktemp("ranges") / "results"
    repository = FileSystemRepository(folder)
    for cycle in range(3):
        energy = factories.energy(0, total_energy_j=1971.5 + 10 * cycle)
        repository.save_raw(f"known_c{cycle}", factories.raw(f"known_c{cycle}", 0, energy_metrics=energy))
    for record in factories.raws(2, "wide", world_size=2):
        repository.save_raw("wide", record)
    assert {one.result for one in aggregate_all(repository)} == {"aggregated"}
    repository.save_raw("pending", factories.raw("pending", 0))
    return folder
