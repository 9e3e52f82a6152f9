"""Exported values in the catalogue: equal to those of the loaded aggregates."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.catalogue.export_rows import decode_row, encode_row
from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.results import FileSystemRepository, aggregate_all, exporters
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, process_values
from tests.support import factories
from tests.support.command import run


def test_exported_row_equals_the_values_of_the_getters() -> None:
    full = factories.full_aggregated()
    row = decode_row(encode_row(full, process_values(full, full.process_results) | {"model_name": "a model"}))
    wanted = {column.name: exporters.plain(column.getter(full)) for column in AGGREGATED_COLUMNS}
    assert row == tuple((wanted | {"model_name": "a model"}).values())


def test_integers_above_64_bits_are_not_stored() -> None:
    assert decode_row(encode_row(factories.aggregated(total_tokens=2**63), {})) is None
    assert decode_row(encode_row(None, {})) is None


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.datetimes(), st.lists(st.integers(), max_size=2)
)


# Chunks of equal and nearly equal numbers; most texts need quotes.
REPEATED = st.sampled_from(
    [(0, 1, 2**70, None), (0.0, -0.0, 1.0, math.nan, math.inf, None), (True, False, None)]
).flatmap(lambda values: st.lists(st.sampled_from(values), min_size=20, max_size=20))
QUOTED = st.lists(st.text(alphabet="a,\"\r\n ';=\u00e9"), min_size=20, max_size=20)


def transposed(columns: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the rows of a table from its columns."""
    return [list(row) for row in zip(*columns, strict=True)]


@given(
    st.lists(st.lists(VALUES, min_size=3, max_size=3), max_size=5)
    | st.lists(st.lists(VALUES, min_size=1, max_size=1), max_size=5)
    | st.tuples(REPEATED, QUOTED, REPEATED).map(transposed)
    | st.tuples(st.lists(st.integers(), min_size=3, max_size=3)).map(transposed)
    | st.tuples(st.just([10**400, 2, 3])).map(transposed)
)
def test_csv_of_a_table_equals_that_of_the_csv_module(rows: list[list[Any]]) -> None:
    names = ["a", "b", "c"][: len(rows[0]) if rows else 1]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names, *([exporters._cell(exporters.plain(value)) for value in row] for row in rows)])
    found = exporters.to_csv(exporters.Table(names=names, rows=rows))
    assert found.decode("utf-8-sig") == text.getvalue()


def test_with_configuration_adds_sorted_keys() -> None:
    table = exporters.Table(names=["id"], rows=[["x"], ["y"]])
    found = exporters.with_configuration(table, [({"b": 1}, {"a.c": True}), ({"b": 2}, {"b": None})])
    assert (found.names, found.rows) == (["id", "config.a.c", "config.b"], [["x", True, 1], ["y", None, None]])


# Command line


@pytest.fixture
def results(tmp_path: Path) -> Path:
    repository = FileSystemRepository(tmp_path / "results")
    for number, size in enumerate((1, 8)):
        config = {"batching": {"batch_size": size}, "streaming": bool(number), "stop": ["a"], "text": "=1+1"}
        name = f"x{number}"
        start = factories.timestamps(start=factories.START.replace(tzinfo=None)) if number else factories.timestamps()
        repository.save_raw(name, factories.raw(name, effective_config=config, timestamps=start, world_size=1))
    list(aggregate_all(repository))
    repository.save_aggregated(factories.aggregated("external", effective_config={}))
    return repository.base_path


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_export_of_the_catalogue_equals_that_of_the_files(results: Path, form: str) -> None:
    ids = FileSystemRepository(results).list_aggregated()
    arguments = ("-o", results, "results", "export", "--to", "-", "--format", form)
    catalogued, loaded = run(*arguments), run(*arguments, *ids)
    assert catalogued.out == loaded.out
    assert (catalogued.status, loaded.status) == (0, 0)


def test_export_has_typed_configuration_columns(results: Path) -> None:
    rows = run("-o", results, "results", "export", "--to", "-", "--format", "json").json()
    keys = ("config.batching.batch_size", "config.stop", "config.streaming", "config.text")
    assert [[row[key] for key in keys] for row in rows] == [
        [None] * 4,
        [1, '["a"]', False, "=1+1"],
        [8, '["a"]', True, "=1+1"],
    ]
    assert list(rows[0])[: len(AGGREGATED_COLUMNS)] == [column.name for column in AGGREGATED_COLUMNS]
    text = run("-o", results, "results", "export", "--to", "-").out
    assert "'=1+1" in text


def test_export_selects_columns_by_the_end_of_a_key(results: Path) -> None:
    arguments = ("-o", results, "results", "export", "--to", "-", "--columns")
    done = run(*arguments, "id,config.batch_size,energy")
    assert done.out.splitlines() == [
        "experiment_id,config.batching.batch_size,attributed_energy_j",
        "external,,",
        "x0,1,1971.5",
        "x1,8,1971.5",
    ]
    for columns, message in (("colour", "no column 'colour'"), ("config.colour", "has the key 'colour'")):
        failed = run(*arguments, columns)
        assert (failed.status, message in failed.err) == (2, True)


def test_export_falls_back_to_the_files_for_large_integers(results: Path) -> None:
    FileSystemRepository(results).save_aggregated(factories.aggregated("big", total_tokens=2**70))
    rows = run("-o", results, "results", "export", "--to", "-", "--format", "json").json()
    assert {row["experiment_id"]: row["total_tokens"] for row in rows}["big"] == 2**70


def test_catalogued_values_have_the_bits_of_the_files(results: Path) -> None:
    repository = FileSystemRepository(results)
    exported = query_catalogue(repository, lambda catalogue: list(catalogue.exported()))
    for one in exported:
        loaded = repository.load_aggregated(one.folder)
        assert one.values is not None
        assert loaded is not None
        for column, value in zip(AGGREGATED_COLUMNS, one.values, strict=True):
            wanted = exporters.plain(column.getter(loaded))
            assert (type(value), value) == (type(wanted), wanted) or (math.isnan(value) and math.isnan(wanted))
