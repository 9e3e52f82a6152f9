"""Comparison of published results: five configurations of one model, two repeats each, one after the other."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folders(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shutil.copytree(real_data / "v2_results", tmp_path / "v2_results"))
    return tmp_path


@pytest.mark.usefixtures("folders")
def test_published_configurations_differ_from_the_baseline() -> None:
    candidates = ("batch_1", "batch_32", "precision_fp32", "quant_8bit")
    document = run("results", "compare", "baseline", *candidates, "--format", "json").json()
    rows = {table["candidate"]: table["rows"] for table in document["tables"]}
    assert {name: row["ratio"] for name, [row] in rows.items()} == pytest.approx(
        {"batch_1": 5.127, "batch_32": 0.344, "precision_fp32": 1.387, "quant_8bit": 1.754}, rel=1e-3
    )
    assert [row["confounded"] for [row] in rows.values()] == [["order"]] * 4
    assert all("two runs on a side" in row["warnings"][0] for [row] in rows.values())
    differs = {table["candidate"]: table["differs"] for table in document["tables"]}
    assert differs["batch_1"] == {"config.batching_options.batch_size": [[8], [1]]}
    assert differs["quant_8bit"]["config.quantization_config.load_in_8bit"] == [[False], [True]]


@pytest.mark.usefixtures("folders")
def test_copied_baseline_is_not_a_candidate() -> None:
    shutil.copytree("baseline", "copy")
    done = run("results", "compare", "baseline", "copy", "--fail-on", "worse")
    assert done.status == 1
    assert "each run is left out, for example 0001_c0: copy: the same measurement as 0001_c0 of the base" in done.err
