"""Exported tables: exact numbers, no formulas, no half-written file."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_energy_measure.exceptions import ConfigurationError, ExportError
from llm_energy_measure.results import (
    ResultsExporter,
    aggregate_results,
    export_aggregated_to_csv,
    export_raw_to_csv,
    export_to_csv,
    export_to_json,
    flatten_model,
)
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, RAW_COLUMNS
from llm_energy_measure.results.exporters import Table, table_of, to_json_lines
from llm_energy_measure.results.exporters import to_csv as encode_csv
from llm_energy_measure.results.exporters import to_json as encode_json
from tests.support import factories
from tests.support.strategies import aggregated_records, raw_records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult

BOM = b"\xef\xbb\xbf"
any_finite = st.floats(allow_nan=False, allow_infinity=False)


def read(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def to_csv(results: Sequence[Any], **options: Any) -> bytes:
    return encode_csv(table_of(results, **options))


def to_json(results: Sequence[Any], **options: Any) -> bytes:
    return encode_json(table_of(results, **options))


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def named(text: str) -> RawProcessResult:
    return factories.raw(model_name=text)


# Numbers


@given(st.lists(any_finite, min_size=1, max_size=20))
@example([0.1, 1 / 3, 5e-324, -0.0, 0.0, 2.2250738585072014e-308, math.nextafter(1, 2), 1.7976931348623157e308])
@example([1e16, 1e22, 123456789012345680.0, -1e-7, 9007199254740993.0])
def test_numbers_in_csv_are_exact(numbers: list[float]) -> None:
    data = to_csv([factories.raw(energy_metrics=factories.energy(total_energy_j=number)) for number in numbers])
    by_csv = [float(row["total_energy_j"]) for row in read(data)]
    by_pandas = pd.read_csv(io.BytesIO(data))["total_energy_j"].tolist()
    by_polars = pl.read_csv(io.BytesIO(data))["total_energy_j"].to_list()
    for found in (by_csv, by_pandas, by_polars):
        assert [bits(number) for number in found] == [bits(number) for number in numbers]


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5))
def test_counts_in_csv_are_exact(counts: list[int]) -> None:
    data = to_csv([factories.raw(inference_metrics=factories.inference(total_tokens=count)) for count in counts])
    assert [int(row["total_tokens"]) for row in read(data)] == counts
    assert pd.read_csv(io.BytesIO(data))["total_tokens"].tolist() == counts
    assert pl.read_csv(io.BytesIO(data))["total_tokens"].to_list() == counts


def test_negative_numbers_are_not_escaped() -> None:
    data = to_csv([factories.raw(gpu_id=-1, energy_metrics=factories.energy(total_energy_j=-1.5))])
    [row] = read(data)
    assert (row["gpu_id"], row["total_energy_j"]) == ("-1", "-1.5")
    assert pd.read_csv(io.BytesIO(data))["total_energy_j"].tolist() == [-1.5]


def test_unknown_value_is_an_empty_cell_or_null() -> None:
    unknown = factories.raw(gpu_id=None, inference_metrics=None, compute_metrics=None)
    [row] = read(to_csv([unknown]))
    assert (row["gpu_id"], row["total_tokens"], row["flops_total"], row["host"]) == ("", "", "", "")
    [fields] = json.loads(to_json([unknown]))
    assert (fields["gpu_id"], fields["total_tokens"], fields["flops_total"], fields["host"]) == (None,) * 4
    assert pd.read_csv(io.BytesIO(to_csv([unknown])))["total_tokens"].isna().tolist() == [True]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_unknown(number: float) -> None:
    record = factories.raw(energy_metrics=factories.energy(total_energy_j=number))
    assert read(to_csv([record]))[0]["total_energy_j"] == ""
    assert json.loads(to_json([record]))[0]["total_energy_j"] is None


def test_numpy_scalars_are_written_as_numbers() -> None:
    three: Any = np.int64(3)
    record = factories.raw(
        process_index=three,
        energy_metrics=factories.energy(total_energy_j=np.float64(0.1), gpu_energy_j=np.float32(0.5)),
        inference_metrics=factories.inference(total_tokens=np.int32(7)),
    )
    [row] = read(to_csv([record]))
    assert [row[name] for name in ("process_index", "total_energy_j", "gpu_energy_j", "total_tokens")] == [
        *("3", "0.1", "0.5", "7")
    ]
    [fields] = json.loads(to_json([record]))
    assert (fields["total_energy_j"], fields["total_tokens"]) == (0.1, 7)
    aggregated = aggregate_results("exp_7", [factories.raw(energy_metrics=record.energy_metrics)])
    assert read(to_csv([aggregated], include_process_breakdown=True))[0]["process_0_total_energy_j"] == "0.1"


def test_pandas_and_polars_read_booleans_and_times() -> None:
    data = to_csv([factories.full_aggregated()])
    frame = pd.read_csv(io.BytesIO(data), parse_dates=["start_time"])
    assert frame["is_lower_bound"].tolist() == [True]
    assert frame["start_time"][0] == factories.START
    assert pl.read_csv(io.BytesIO(data))["is_lower_bound"].to_list() == [True]


# Text

FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1",
    "\uff20SUM(A1)",
    "  =1",
    "\u3000=1",
    "\n=1",
    "\xa0=1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_starts_like_a_formula_is_quoted(text: str) -> None:
    assert read(to_csv([named(text)]))[0]["model_name"] == f"'{text}"


@pytest.mark.parametrize("text", ["\t=1", "\r=1", "\x00=1", "\x1b[31m=1", "\t1"])
def test_control_character_is_escaped(text: str) -> None:
    assert read(to_csv([named(text)]))[0]["model_name"] == f"\\x{ord(text[0]):02x}{text[1:]}"


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200f", "\u061c", "\u2028", "\ufeff"])
def test_bidirectional_character_is_escaped(char: str) -> None:
    assert read(to_csv([named(f"a{char}b")]))[0]["model_name"] == f"a\\u{ord(char):04x}b"


def test_harmless_text_is_unchanged() -> None:
    for text in ["meta-llama/Llama-3.2-1B", "a=b", "1-2", "e@f", "µ", "'quoted'"]:
        assert read(to_csv([named(text)]))[0]["model_name"] == text


@given(st.text(max_size=20))
@example('a "quoted" name, with a comma\nand a line')
@example("\ud800 half a surrogate pair")
@example("\ufeff")
def test_no_cell_is_a_formula_or_has_a_control_character(text: str) -> None:
    [row] = read(to_csv([named(text)]))
    cell = row["model_name"]
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert not any((ord(char) < 32 and char != "\n") or 127 <= ord(char) < 160 for char in cell)
    assert row["schema_version"] == "2.0.0", "the following cells are not shifted"


@pytest.mark.parametrize("text", ['a "b" c', "a,b", "line\nline", 'all, of "it"\nhere', "two  spaces ", "ü"])
def test_pandas_and_polars_read_the_written_text(text: str) -> None:
    data = to_csv([named(text), named("x")])
    assert pd.read_csv(io.BytesIO(data))["model_name"].tolist() == [text, "x"]
    assert pl.read_csv(io.BytesIO(data))["model_name"].to_list() == [text, "x"]


@pytest.mark.parametrize(("text", "has_bom"), [("Llama", False), ("Llämä", True), ("模型", True), ("🦙", True)])
def test_only_non_ascii_csv_starts_with_a_byte_order_mark(text: str, has_bom: bool) -> None:
    data = to_csv([named(text)])
    assert data.startswith(BOM) is has_bom
    assert pd.read_csv(io.BytesIO(data)).columns[0] == "experiment_id"
    assert pl.read_csv(io.BytesIO(data)).columns[0] == "experiment_id"
    assert pd.read_csv(io.BytesIO(data))["model_name"].tolist() == [text]
    assert pl.read_csv(io.BytesIO(data))["model_name"].to_list() == [text]


# Shape


@pytest.mark.parametrize(
    ("kind", "columns"), [(factories.raw, RAW_COLUMNS), (factories.aggregated, AGGREGATED_COLUMNS)]
)
def test_header_has_all_columns_for_any_number_of_rows(kind: Any, columns: tuple[Any, ...]) -> None:
    names = [column.name for column in columns]
    for data in (to_csv([], kind=type(kind())), to_csv([kind()]), to_csv([kind(), kind("exp_8")])):
        assert next(csv.reader(data.decode().splitlines())) == names
    assert [list(row) for row in json.loads(to_json([kind(), kind()]))] == [names, names]


def test_empty_table_has_the_header_of_its_kind(tmp_path: Path) -> None:
    assert export_to_csv([], tmp_path / "a.csv").read_text().startswith("experiment_id,model_name,")
    assert export_raw_to_csv([], tmp_path / "r.csv").read_text().startswith("experiment_id,process_index,")
    assert json.loads(export_to_json([], tmp_path / "a.json").read_text()) == []


def test_results_of_two_kinds_are_refused(tmp_path: Path) -> None:
    for write, name in ((export_to_csv, "t.csv"), (export_to_json, "t.json")):
        with pytest.raises(
            ConfigurationError, match="AggregatedResult and RawProcessResult; export results of one kind"
        ):
            write([factories.raw(), factories.aggregated()], tmp_path / name)
        assert list(tmp_path.iterdir()) == []


def test_breakdown_has_columns_for_each_process_of_any_row() -> None:
    two = factories.aggregated("two")
    odd = factories.aggregated("odd", process_results=[factories.raw("odd", 5)])
    rows = read(to_csv([two, odd], include_process_breakdown=True))
    extra = [name for name in rows[0] if name.startswith("process_")]
    assert extra[0] == "process_0_host"
    assert {name.split("_")[1] for name in extra} == {"0", "1", "5"}
    assert len(extra) % 3 == 0
    assert rows[0]["process_1_total_energy_j"] == "2221.5"
    assert rows[0]["process_5_total_energy_j"] == ""
    assert rows[1]["process_5_total_tokens"] == str(odd.process_results[0].inference_metrics.total_tokens)  # type: ignore[union-attr]  # not None here
    assert rows[1]["process_0_total_energy_j"] == ""
    assert not any(name.startswith("process_") for name in read(to_csv([two]))[0])


@given(st.one_of(st.lists(raw_records(), max_size=3), st.lists(aggregated_records(), max_size=2)), st.booleans())
def test_csv_json_and_json_lines_have_the_same_rows(records: list[Any], breakdown: bool) -> None:
    table = table_of(records)
    assert [json.loads(line) for line in to_json_lines(table).splitlines()] == json.loads(encode_json(table))
    from_csv = read(to_csv(records, include_process_breakdown=breakdown))
    from_json = json.loads(to_json(records, include_process_breakdown=breakdown))
    assert len(from_csv) == len(from_json) == len(records)
    for row, fields in zip(from_csv, from_json, strict=True):
        # A configuration key can contain characters that CSV escapes.
        names = [name for name in fields if name.isprintable()]
        assert [name for name in row if name in set(names)] == names
        for name in names:
            assert _same(row[name], fields[name]), (name, row[name], fields[name])


def _same(cell: str, value: object) -> bool:
    if value is None:
        return cell == ""
    if isinstance(value, bool):
        return cell == str(value).lower()
    if isinstance(value, float):
        return bits(float(cell)) == bits(value)
    if isinstance(value, int):
        return int(cell) == value
    if cell == value or cell.removeprefix("'") == value or "\\x" in cell:
        return True
    return datetime.fromisoformat(cell) == datetime.fromisoformat(str(value))


def test_table_of_any_values_can_be_encoded() -> None:
    table = Table(names=["x", "y"], rows=[(1, None), (math.nan, "=1")])
    assert encode_csv(table) == b"x,y\n1,\n,'=1\n"
    assert json.loads(encode_json(table)) == [{"x": 1, "y": None}, {"x": None, "y": "=1"}]


def test_json_is_indented_and_ends_with_a_newline() -> None:
    assert to_json([factories.raw()]).endswith(b"  }\n]\n")


# Functions that existing scripts use


def test_flatten_model_returns_every_field_of_a_record() -> None:
    flat = flatten_model(factories.full_raw())
    assert flat["experiment_id"] == "exp_7"
    assert flat["energy_metrics_total_energy_j"] == 1971.5
    assert flat["energy_metrics_window_duration_sec"] == 9.5
    assert flat["inference_metrics_latency_measurements_ttft_ms"] == [35.5, 36.5]
    assert flat["effective_config_decoder_temperature"] == 1.0
    assert flat["effective_config_tags"] == ["a", "b"]
    assert flat["launcher_job_id"] == "123"
    assert "unknown_fields" not in flat
    assert flatten_model(factories.raw(inference_metrics=None))["inference_metrics"] is None


def test_flatten_model_takes_a_prefix_and_a_separator() -> None:
    flat = flatten_model(factories.compute(), "compute", ".")
    assert flat["compute.flops_total"] == 2e13
    assert list(flat) == [f"compute.{name}" for name in msgspec.structs.asdict(factories.compute())]


def test_results_exporter_writes_to_its_folder(tmp_path: Path) -> None:
    exporter = ResultsExporter(str(tmp_path / "new" / "folder"))
    assert not (tmp_path / "new").exists()
    results = [factories.aggregated()]
    folder = tmp_path / "new" / "folder"
    assert exporter.export_aggregated(results) == folder / "aggregated_results.csv"
    assert exporter.export_aggregated(results, "wide.csv", include_process_breakdown=True).read_bytes() == to_csv(
        results, include_process_breakdown=True
    )
    assert exporter.export_raw(factories.raws(2)).read_bytes() == to_csv(factories.raws(2))
    nested = json.loads(exporter.export_json(results).read_text(encoding="utf-8"))
    assert [one["experiment_id"] for one in nested] == [one.experiment_id for one in results]


def test_older_function_names_write_the_same_tables(tmp_path: Path) -> None:
    results: list[AggregatedResult] = [factories.aggregated()]
    path = export_aggregated_to_csv(results, str(tmp_path / "a.csv"), True)  # noqa: FBT003 - as in existing scripts
    assert path.read_bytes() == to_csv(results, include_process_breakdown=True)
    assert export_raw_to_csv(factories.raws(2), tmp_path / "r.csv").read_bytes() == to_csv(factories.raws(2))


# Targets that can't be written


def test_folder_as_target_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(ExportError, match=r"^cannot write .*table\.csv: .*; choose another file$"):
        export_to_csv([factories.aggregated()], tmp_path / "table.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_target_below_a_file_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ExportError):
        export_to_json([factories.aggregated()], tmp_path / "file" / "table.json")
    assert (tmp_path / "file").read_text() == "kept"


def test_path_with_a_nul_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="embedded null"):
        export_to_csv([], tmp_path / "nul\0.csv")


def test_failed_export_keeps_the_old_table(tmp_path: Path) -> None:
    path = export_to_csv([factories.aggregated()], tmp_path / "table.csv")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError):
        export_to_csv([factories.raw(), factories.aggregated()], path)
    assert path.read_bytes() == before
    export_to_csv([], path)
    assert path.read_bytes() != before


def test_lone_surrogate_is_escaped() -> None:
    record = factories.raw(host="node\udc80")
    assert b"node\\udc80" in to_csv([record])
    assert json.loads(to_json([record]))[0]["host"] == "node\\udc80"
