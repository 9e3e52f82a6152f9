"""Tests of the memory that an import needs: one file, and one entry of the report per file or row."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from llm_energy_measure import importers
from tests.support import peers

if TYPE_CHECKING:
    from pathlib import Path

MARGIN = 3
TRIES = 2


def peak_bytes(path: Path, expected: int, *, keep_records: bool = False, **options: Any) -> int:
    """Return the least peak of several imports, in bytes.

    One peak alone can be too high: the interpreter's table of interned names doubles in size in some import.
    """
    peaks = []
    for _ in range(TRIES):
        gc.collect()
        tracemalloc.start()
        try:
            records = importers.read(path, **options)
            assert len(list(records)) == expected if keep_records else sum(1 for _ in records) == expected
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


def write_folder(folder: Path, files: int) -> Path:
    """Write a folder in which every tenth file is a result of vLLM; the other files have no known format."""
    folder.mkdir()
    for number in range(files):
        path = folder / f"{number:06}.json"
        if number % 10:
            path.write_text('{"a": 1}')
        else:
            peers.write_json(path, peers.vllm_result(label=f"run {number}", more="x" * 30_000))
    return folder


def test_import_of_a_folder_keeps_no_file_in_memory(tmp_path: Path) -> None:
    few, many = (write_folder(tmp_path / str(files), files) for files in (50, 400))
    growth = peak_bytes(many, 40) - peak_bytes(few, 5)
    few_bytes, many_bytes = (sum(path.stat().st_size for path in folder.iterdir()) for folder in (few, many))
    assert growth < (many_bytes - few_bytes) / MARGIN


def write_table(path: Path, rows: int) -> Path:
    """Write a CSV of experiments with four processes each; the four rows of one experiment are far from each other."""
    names = [f"run-{number:06}" for number in range(rows // 4)]
    lines = [
        f"{name},{rank},{number}.25,meta-llama/Llama-3.2-1B" for rank in range(4) for number, name in enumerate(names)
    ]
    path.write_text("\n".join(["id,rank,j,model", *lines]) + "\n")
    return path


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_grouping_a_table_keeps_no_record_in_memory(tmp_path: Path, form: str) -> None:
    few, many = 400, 1200
    mapping = ["experiment_id=id", "process_index=rank", "energy_j=j", "model_name=model"]
    paths = [write_table(tmp_path / str(rows), rows) for rows in (few, many)]
    if form == "parquet":
        for path in paths:
            pa.parquet.write_table(pa.csv.read_csv(path), path)
    names = [record.experiment_id for record in importers.read(paths[0], mapping=mapping)]
    assert names == sorted(names)
    dropped, kept = (
        peak_bytes(paths[1], many, keep_records=keep, mapping=mapping)
        - peak_bytes(paths[0], few, keep_records=keep, mapping=mapping)
        for keep in (False, True)
    )
    assert dropped < kept / MARGIN, (dropped, kept)


def write_run_table(path: Path, rows: int) -> None:
    lines = [f"run_{row // 4}_repetition_{row % 4},DONE,llama,{row}.5,some text" for row in range(rows)]
    path.write_text("\n".join(["__run_id,__done,model,energy_J,note", *lines]))


def write_sglang(path: Path, rows: int) -> None:
    tokens = '"completed": 3, "total_input_tokens": 9, "total_output_tokens": 5, "total_output_tokens_retokenized": 5'
    path.write_text("\n".join(f'{{"backend": "sglang", "duration": {row}.5, {tokens}}}' for row in range(rows)))


def write_bridge(path: Path, rows: int) -> None:
    lines = [f"100,{1_770_000_000_000 + 100 * row},{row}.5,300000" for row in range(rows)]
    path.write_text("\n".join(["Delta,Time,CPU_ENERGY (J),GPU0_POWER (mWatts)", *lines]))


@pytest.mark.parametrize("write", [write_run_table, write_sglang, write_bridge])
def test_rows_of_a_log_take_linear_time(tmp_path: Path, write: Callable[[Path, int], None]) -> None:
    times = []
    for rows in (300, 2400):
        write(tmp_path / "log", rows)
        tries = []
        for _ in range(3):
            began = time.process_time()
            assert sum(1 for _ in importers.read(tmp_path / "log")) in (1, rows)
            tries.append(time.process_time() - began)
        times.append(min(tries))
    assert times[1] < MARGIN * 8 * times[0]


@pytest.mark.parametrize("write", [write_run_table, write_sglang, write_bridge])
def test_reading_a_log_keeps_no_record_in_memory(tmp_path: Path, write: Callable[[Path, int], None]) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    write(few, 100)
    write(many, 400)
    one = 1 if write is write_bridge else None
    growth = peak_bytes(many, one or 400) - peak_bytes(few, one or 100)
    # A record of Python objects takes more than 3,000 bytes.
    assert growth / 300 < 3000 / MARGIN
