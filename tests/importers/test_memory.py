"""What an import holds in memory: one file, and an entry of the report for each thing seen, and nothing else."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from llm_energy_measure import importers
from tests.support import peers

if TYPE_CHECKING:
    from pathlib import Path


def peak_bytes(path: Path, expected: int, **options: Any) -> int:
    """The most that importing allocates, once each record is let go of."""
    gc.collect()
    tracemalloc.start()
    try:
        assert sum(1 for _ in importers.read(path, **options)) == expected
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def folder_of(folder: Path, files: int) -> Path:
    """A folder in which every tenth file is of a tool, and the others are unknown."""
    folder.mkdir()
    for number in range(files):
        path = folder / f"{number:06}.json"
        if number % 10:
            path.write_text('{"a": 1}')
        else:
            peers.write_json(path, peers.vllm_result(label=f"run {number}", more="x" * 10_000))
    return folder


def test_memory_does_not_grow_with_the_files_of_a_folder(tmp_path: Path) -> None:
    few, many = 300, 3000
    folders = [folder_of(tmp_path / str(files), files) for files in (few, many)]
    peak_bytes(folders[0], few // 10)  # what is allocated once, by whoever is first
    grown = peak_bytes(folders[1], many // 10) - peak_bytes(folders[0], few // 10)
    # Its name, and an entry. The files that were read have 1,000 bytes each, were they kept.
    assert grown / (many - few) < 500


def table_of(path: Path, rows: int) -> Path:
    """Four processes of as many experiments as need be, those of rank 0 first: no two rows of one stand together."""
    names = [f"run-{number:06}" for number in range(rows // 4)]
    lines = [
        f"{name},{rank},{number}.25,meta-llama/Llama-3.2-1B" for rank in range(4) for number, name in enumerate(names)
    ]
    path.write_text("\n".join(["id,rank,j,model", *lines]) + "\n")
    return path


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_is_grouped_without_holding_its_records(tmp_path: Path, form: str) -> None:
    few, many = 1000, 5000
    mapping = ["experiment_id=id", "process_index=rank", "energy_j=j", "model_name=model"]
    paths = [table_of(tmp_path / str(rows), rows) for rows in (few, many)]
    if form == "parquet":
        for path in paths:
            pa.parquet.write_table(pa.csv.read_csv(path), path)
    names = [record.experiment_id for record in importers.read(paths[0], mapping=mapping)]
    assert names == sorted(names)
    peak_bytes(paths[0], few, mapping=mapping)  # what is allocated once, by whoever is first
    grown = peak_bytes(paths[1], many, mapping=mapping) - peak_bytes(paths[0], few, mapping=mapping)
    # A record alone has 1,500 bytes and more.
    assert grown / (many - few) < 400
