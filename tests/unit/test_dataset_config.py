"""Configuration keys as typed columns of the dataset, of data frames and of SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llm_energy_measure.catalogue.dataset import write_dataset
from llm_energy_measure.catalogue.frames import to_arrow, to_pandas
from llm_energy_measure.catalogue.paths import dataset_path
from llm_energy_measure.catalogue.sql import query_dataset
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from tests.support import factories


def add(repository: FileSystemRepository, name: str, month: int, config: dict[str, Any]) -> None:
    start = factories.timestamps(factories.START.replace(month=month))
    repository.save_raw(name, factories.raw(name, effective_config=config, timestamps=start, world_size=1))
    repository.save_aggregated(aggregate_results(name, repository.load_all_raw(name)))


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    """Return two months, whose configurations have different keys and different types."""
    repository = FileSystemRepository(tmp_path / "results")
    add(repository, "a", 1, {"batching": {"batch_size": 1}, "top_p": 1, "streaming": True, "mixed": 1, "stop": ["x"]})
    add(repository, "b", 2, {"batching": {"batch_size": 8}, "top_p": 0.5, "mixed": False, "new": "text"})
    return repository


def test_keys_have_one_type_over_all_months(repository: FileSystemRepository) -> None:
    table = to_arrow(repository)
    types = {field.name: str(field.type) for field in table.schema if field.name.startswith("config.")}
    assert types == {
        "config.batching.batch_size": "int64",
        "config.mixed": "string",
        "config.new": "string",
        "config.stop": "string",
        "config.streaming": "bool",
        "config.top_p": "double",
    }
    rows = table.select(["experiment_id", *types]).to_pylist()
    assert [list(row.values()) for row in rows] == [
        ["a", 1, "1", None, '["x"]', True, 1.0],
        ["b", 8, "false", "text", None, None, 0.5],
    ]


def test_pandas_frame_has_the_columns_and_equals_the_parquet_files(repository: FileSystemRepository) -> None:
    frame = to_pandas(repository)
    assert frame.groupby("config.batching.batch_size")["total_energy_j"].sum().to_dict() == {1: 1971.5, 8: 1971.5}
    files = sorted((dataset_path(repository.base_path) / "experiments").glob("*/*.parquet"))
    stored = pd.concat([pd.read_parquet(path, dtype_backend="pyarrow") for path in files])
    assert stored["config.top_p"].tolist() == frame["config.top_p"].tolist()


def test_frame_is_current_after_a_change(repository: FileSystemRepository) -> None:
    assert len(to_arrow(repository)) == 2
    add(repository, "c", 2, {"batching": {"batch_size": 16}, "later": 1})
    table = to_arrow(repository)
    assert table["experiment_id"].to_pylist() == ["a", "b", "c"]
    assert table["config.later"].to_pylist() == [None, None, 1]
    assert table.schema.metadata is None
    assert table.schema.field("total_energy_j").metadata == {b"unit": b"J"}


def test_sql_reads_configuration_columns(repository: FileSystemRepository, tmp_path: Path) -> None:
    write_dataset(repository, tmp_path / "dataset")
    query = 'select month, "config.new" as new from experiments where "config.batching.batch_size" >= 2'
    assert query_dataset(tmp_path / "dataset", query).to_pylist() == [{"month": "2026-02", "new": "text"}]
    described = query_dataset(tmp_path / "dataset", "describe experiments").to_pylist()
    assert {"config.streaming", "config.top_p"} <= {row["column_name"] for row in described}


def test_new_key_rewrites_all_months_and_equal_keys_none(repository: FileSystemRepository, tmp_path: Path) -> None:
    write_dataset(repository, tmp_path / "dataset")
    add(repository, "c", 2, {"batching": {"batch_size": 2}})
    assert write_dataset(repository, tmp_path / "dataset").written == ["2026-02"]
    add(repository, "d", 2, {"later": 1})
    assert write_dataset(repository, tmp_path / "dataset").written == ["2026-01", "2026-02"]
