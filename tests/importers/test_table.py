"""Import of any table, and the grammar of its mapping."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure import importers
from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.importers.limits import MAX_ROWS
from llm_energy_measure.importers.mapping import parse_mappings
from llm_energy_measure.results import FileSystemRepository
from tests.support import factories, peers
from tests.support.imports import codes, read_all

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

ENERGY = "energy_j=energy_kwh*3.6e6"


def import_text(
    tmp_path: Path, text: str | bytes, *mapping: str
) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    path = tmp_path / "table"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_all(path, mapping=mapping)


# The grammar


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a", 6.0),
        ("a*3.6e6", 6 * 3.6e6),
        ("a-b-1", 3.0),
        ("a/b/2", 1.5),
        ("a-(b-1)", 5.0),
        ("2*a+b", 14.0),
        ("2*(a+b)", 16.0),
        ("-a+b", -4.0),
        ("--a", 6.0),
        ("[GPU energy (kWh)]*2", 1.0),
        (" a * b ", 12.0),
        ("a/zero", None),
        ("a*blank", None),
        ("nowhere", None),
        (".5", 0.5),
        ("1e308*1e308", None),
    ],
)
def test_value_of_an_expression(expression: str, value: float | None) -> None:
    row: dict[str, str | float | None] = {
        "a": "6",
        "b": 2.0,
        "zero": 0.0,
        "blank": None,
        "word": "x",
        "GPU energy (kWh)": "0.5",
    }
    [parsed] = parse_mappings([f"energy_j={expression}"]).values()
    found = parsed.value(row)
    assert (float(found) if isinstance(found, str) else found) == value


@pytest.mark.parametrize(
    "mapping",
    [
        "energy_j",
        "energy_j=",
        "joules=a",
        "energy_j=a+",
        "energy_j=(a",
        "energy_j=a b",
        "energy_j=a**2",
        "energy_j=[]",
        "energy_j=__import__('os')",
        "energy_j=a.b",
        "energy_j=a;b",
        "energy_j=f(x)",
        "energy_j=a)",
        "energy_j=*a",
        "energy_j='",
        "energy_j=a" + "+a" * 60,
        "energy_j=" + "(" * 5000,
        "=a",
        "energy_j=1_0",
        "energy_j=1e999",
        "energy_j=a*1e999",
        "energy_j='5'*2",
        "energy_j=a+('x')",
    ],
)
def test_invalid_mapping_is_refused(mapping: str) -> None:
    with pytest.raises(ImportFormatError, match="cannot map"):
        parse_mappings([mapping])


def test_unit_of_the_column_name_may_follow_the_number(tmp_path: Path) -> None:
    text = "power.draw [W],energy [J],s\n300.00 W,5 J,2\n"
    [record], _ = import_text(tmp_path, text, "gpu_power_w=[power.draw [W]]", "energy_j=[energy [J]] * 2")
    assert (record.energy_metrics.gpu_power_w, record.energy_metrics.total_energy_j) == (300.0, 10.0)
    records, [entry] = import_text(tmp_path, text.replace("00 W", "00 kW"), "gpu_power_w=[power.draw [W]]")
    assert (records, entry.outcome) == ([], "refused")


def test_column_with_brackets_in_its_name_can_be_mapped(tmp_path: Path) -> None:
    text = "power.draw [W],e\n300.0,5\n"
    [record], _ = import_text(tmp_path, text, "gpu_power_w=[power.draw [W]]", "energy_j=e")
    assert record.energy_metrics.gpu_power_w == 300.0


def test_path_names_a_value_inside_json(tmp_path: Path) -> None:
    text = json.dumps({"total": {"avg": 5.0, "unit": "J"}, "gpus": [{"e": 1.0}, {"e": 4.0}], "a.b": {"c": 7}})
    mapping = "energy_j={total.avg}", "gpu_energy_j={gpus.0.e}+{gpus.1.e}", "cpu_energy_j={a.b.c}"
    [record], _ = import_text(tmp_path, text, *mapping)
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.gpu_energy_j, energy.cpu_energy_j) == (5.0, 5.0, 7.0)
    records, [entry] = import_text(tmp_path, text, "energy_j=total")
    assert (records, entry.code) == ([], "nested_value")
    assert "{total.KEY}" in entry.message
    records, [entry] = import_text(tmp_path, text, "energy_j={total.max}")
    assert (records, entry.code) == ([], "missing_field")


def test_rows_are_read_from_a_path_of_a_document(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text(json.dumps({"results": {"runs": [{"e": 1.0}, {"e": 2.0}]}}))
    records, _ = read_all(path, mapping=["energy_j=e"], rows_path="results.runs")
    assert [record.energy_metrics.total_energy_j for record in records] == [1.0, 2.0]
    records, [entry] = read_all(path, mapping=["energy_j=e"], rows_path="results.x")
    assert (records, entry.code) == ([], "missing_field")


def test_negative_component_costs_this_component_only(tmp_path: Path) -> None:
    mapping = "gpu_energy_j=g", "cpu_energy_j=c", "energy_j=t"
    [record], [entry] = import_text(tmp_path, "g,c,t\n-1,2,5\n", *mapping)
    energy = record.energy_metrics
    assert (energy.gpu_energy_j, energy.cpu_energy_j, energy.total_energy_j) == (None, 2.0, 5.0)
    assert (entry.outcome, entry.code) == ("repaired", "damaged_cells")
    assert "negative" in (record.energy_measurement_warning or "")


def test_gpu_and_cpu_energy_without_a_total_give_a_partial_total(tmp_path: Path) -> None:
    [record], [entry] = import_text(tmp_path, "g,c\n1,2\n", "gpu_energy_j=g", "cpu_energy_j=c")
    assert (record.energy_metrics.total_energy_j, entry.code) == (3.0, "partial_total")
    assert "only gpu + cpu, because ram is unknown" in (record.energy_measurement_warning or "")


def test_text_cannot_be_used_as_a_number() -> None:
    [parsed] = parse_mappings(["energy_j=a*2"]).values()
    with pytest.raises(ValueError, match="a is 'x', which is not a number"):
        parsed.value({"a": "x"})


def test_field_mapped_twice_is_refused() -> None:
    with pytest.raises(ImportFormatError, match="twice"):
        parse_mappings([ENERGY, ENERGY])


@given(st.text(max_size=30))
def test_any_text_as_expression_is_parsed_or_refused(text: str) -> None:
    try:
        [parsed] = parse_mappings([f"energy_j={text}"]).values()
    except ImportFormatError:
        return
    assert parsed.value({}) is None or isinstance(parsed.value({}), float | str)


@given(a=st.floats(-1e6, 1e6), b=st.floats(-1e6, 1e6), c=st.floats(0.001, 1e6))
def test_expression_has_the_value_that_python_computes(a: float, b: float, c: float) -> None:
    [parsed] = parse_mappings(["energy_j=a-b*2/(c+1)-a"]).values()
    assert parsed.value({"a": a, "b": b, "c": c}) == a - b * 2 / (c + 1) - a


# CSV

CSV = """name,energy_kwh,in,out,began,uuid
llama,0.5,100,28,2026-01-16T19:39:58,GPU-1
opt,,100,,1768592398.5,GPU-2
"""
MAPPING = (
    ENERGY,
    "model_name=name",
    "input_tokens=in",
    "output_tokens=out",
    "start=began",
    "gpu_uuid=uuid",
    "gpu_id=0",
)


def test_mapped_columns_become_fields(tmp_path: Path) -> None:
    [first, second], entries = import_text(tmp_path, CSV, *MAPPING, "host='node 1'")
    assert [(entry.row, entry.code) for entry in entries] == [(2, "whole"), (3, "no_energy")]
    assert (first.energy_metrics.total_energy_j, first.model_name, first.host) == (1.8e6, "llama", "node 1")
    assert first.inference_metrics is not None
    assert first.inference_metrics.total_tokens == 128
    assert (first.gpu_uuid, first.gpu_id, first.energy_metrics.gpu_energy_j) == ("GPU-1", 0, None)
    assert first.timestamps.start is not None
    assert first.timestamps.start.isoformat() == "2026-01-16T19:39:58"
    assert second.timestamps.start is not None
    assert second.timestamps.start.isoformat() == "2026-01-16T19:39:58.500000+00:00"
    assert (second.energy_metrics.total_energy_j, second.inference_metrics) == (None, None)
    assert first.experiment_id != second.experiment_id


def test_column_without_a_mapping_is_not_used(tmp_path: Path) -> None:
    [record], _ = import_text(tmp_path, "energy_j,model_name,host\n5,llama,node-1\n", "cpu_energy_j=energy_j")
    assert (record.energy_metrics.total_energy_j, record.model_name, record.host) == (None, None, None)
    assert record.energy_metrics.cpu_energy_j == 5.0


def test_table_without_a_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="pass --map FIELD=EXPRESSION") as raised:
        import_text(tmp_path, CSV)
    assert "name, energy_kwh, in, out" in raised.value.found
    assert "--map" in raised.value.found
    records, entries = read_all(tmp_path / "table", format="table")
    assert (records, codes(entries)) == ([], ["missing_field"])


def test_mapping_has_precedence_over_a_recognised_format(tmp_path: Path) -> None:
    text = f"{','.join(peers.LATEST)}\n{peers.line()}\n"
    [record], _ = import_text(tmp_path, text, ENERGY.replace("energy_kwh", "gpu_energy"), "model_name=project_name")
    assert (record.energy_metrics.total_energy_j, record.model_name) == (1.8e6, "llama")
    [record] = importers.read(tmp_path / "table", format="codecarbon", mapping=["model_name=project_name"])
    assert record.model_name is None
    (tmp_path / "rest").write_text("j,k\n1,2\n")
    records = list(importers.read(tmp_path, mapping=["energy_j=j"]))
    assert [record.energy_metrics.total_energy_j for record in records] == [1.0, 3.6e6]


def test_missing_column_refuses_the_file_and_names_the_columns(tmp_path: Path) -> None:
    records, [entry] = import_text(tmp_path, CSV, "energy_j=joules")
    assert (records, entry.code) == ([], "missing_field")
    assert "joules" in entry.message
    assert "energy_kwh" in entry.message


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("llama,x,1,1,2026-01-16,u", "torn"),
        ("llama,-1,1,1,2026-01-16,u", "impossible_value"),
        ("llama,1,1.5,1,2026-01-16,u", "torn"),
        ("llama,1,1,1,yesterday,u", "torn"),
        ("llama,1,1,1", "torn"),
        ("llama,1,1,1,2026-01-16,u,v", "torn"),
        (f"{'x' * 200_000},1,1,1,2026-01-16,u", "torn"),
    ],
    ids=range(7),
)
def test_invalid_row_costs_only_itself(tmp_path: Path, line: str, code: str) -> None:
    records, entries = import_text(tmp_path, f"{CSV}{line}\nlast,1,1,1,2026-01-16,u\n", *MAPPING)
    assert codes(entries) == ["whole", "no_energy", code, "whole"]
    assert records[-1].model_name == "last"


def test_open_quote_costs_one_row(tmp_path: Path) -> None:
    records, entries = import_text(tmp_path, 'm,j\na,1\nx,"1\nb,2\nc,3\n', "model_name=m", "energy_j=j")
    assert [(entry.row, entry.code) for entry in entries] == [(2, "whole"), (3, "torn"), (4, "whole"), (5, "whole")]
    assert entries[1].message == "a quote in the row is not closed"
    assert [record.model_name for record in records] == ["a", "b", "c"]


def test_entry_has_the_first_line_of_its_row(tmp_path: Path) -> None:
    text = f'm,j\n"a\nb",1\n\n"c\n\nd",2\nx,"1\n{"y" * 200_000},5\n"e\nf",3,4\ng,6\n'
    records, entries = import_text(tmp_path, text, "model_name=m", "energy_j=j")
    assert [(entry.row, entry.outcome) for entry in entries] == [
        *((2, "kept"), (5, "kept"), (8, "refused"), (9, "refused"), (10, "refused"), (12, "kept")),
    ]
    assert [record.model_name for record in records] == ["a\nb", "c\n\nd", "g"]
    assert "more than 131072 characters" in entries[3].message


def test_second_row_of_a_process_is_refused(tmp_path: Path) -> None:
    text = "id,rank,j\ne1,0,1\ne1,1,2\ne1,1,3\n"
    mapping = ("experiment_id=id", "process_index=rank", "energy_j=j", "world_size=2")
    records, entries = import_text(tmp_path, text, *mapping)
    assert [(record.experiment_id, record.process_index) for record in records] == [("e1", 0), ("e1", 1)]
    assert codes(entries) == ["whole", "whole", "duplicate"]
    assert entries[2].message == (
        "an earlier row is process 1 of e1 and is imported; map process_index or experiment_id to a column that differs"
    )


def test_rows_with_equal_mapped_values_count_once(tmp_path: Path) -> None:
    text = "model,j,run\nllama,5,a\nllama,5,b\nllama,6,c\n"
    records, entries = import_text(tmp_path, text, "model_name=model", "energy_j=j")
    assert [record.energy_metrics.total_energy_j for record in records] == [5.0, 6.0]
    assert codes(entries) == ["whole", "duplicate", "whole"]
    assert entries[1].message == (
        "an earlier row has the same values in all mapped columns and is imported; if this row is another measurement, "
        "map start or experiment_id to a column that differs"
    )
    records, entries = import_text(tmp_path, text, "model_name=model", "energy_j=j", "experiment_id=run")
    assert ([record.experiment_id for record in records], len(entries)) == (["a", "b", "c"], 3)


def test_blank_process_index_is_not_process_0(tmp_path: Path) -> None:
    records, entries = import_text(tmp_path, "id,rank,j\ne,,1\ne,1,2\n", "experiment_id=id", "process_index=rank")
    assert (codes(entries), len(records)) == (["missing_field", "no_energy"], 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("input_tokens", "1e30"), ("gpu_id", "1e300"), ("gpu_id", "1e200"), ("total_tokens", "9007199254740992")],
)
def test_too_large_number_is_refused(tmp_path: Path, field: str, value: str) -> None:
    for text in (f"j,v\n1,{value}\n", f'{{"j": 1, "v": {value}}}'):
        records, [entry] = import_text(tmp_path, text, "energy_j=j", f"{field}=v")
        assert (records, entry.outcome) == ([], "refused")
    records, [entry] = import_text(tmp_path, "j,k\n1e240,1\n", "energy_j=j*1e20")
    assert (records, entry.code) == ([], "impossible_value")


def test_duplicate_column_refuses_the_file(tmp_path: Path) -> None:
    records, [entry] = import_text(tmp_path, "j,j,k\n1,2,3\n", "energy_j=j")
    assert (records, entry.code, "j" in entry.message) == ([], "ambiguous_column", True)
    [record], _ = import_text(tmp_path, "j,j,k\n1,2,3\n", "energy_j=k")
    assert record.energy_metrics.total_energy_j == 3.0


def test_interleaved_rows_are_grouped_by_experiment(tmp_path: Path) -> None:
    text = "id,rank,j\na,0,1\nb,0,2\na,1,x\na,1,3\nb,1,4\n"
    mapping = ("experiment_id=id", "process_index=rank", "energy_j=j", "world_size=2")
    records, entries = import_text(tmp_path, text, *mapping)
    assert [(record.experiment_id, record.process_index) for record in records] == [
        *(("a", 0), ("a", 1), ("b", 0), ("b", 1)),
    ]
    assert [(entry.row, entry.experiment_id) for entry in entries] == [
        *((2, "a"), (3, "b"), (4, None), (5, "a"), (6, "b")),
    ]


def test_bytes_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    records, entries = import_text(tmp_path, b"m,j\nx\xee,1\ny,2\n", "model_name=m", "energy_j=j")
    assert codes(entries) == ["undecodable_text", "whole"]
    assert records[0].model_name == "x\ufffd"


@pytest.mark.parametrize(
    "cells", ["..,0,4,,", "e,1000000,4,,", "e,0,0,,", "e,0,4,9,8", "e,0,4,5,9"], ids=lambda cells: cells
)
def test_impossible_values_are_refused(tmp_path: Path, cells: str) -> None:
    mapping = ("experiment_id=id", "process_index=rank", "world_size=size", "input_tokens=a", "total_tokens=b")
    records, [entry] = import_text(tmp_path, f"id,rank,size,a,b\n{cells}\n", *mapping)
    if cells.endswith("5,9"):
        assert records[0].inference_metrics is not None
        assert records[0].inference_metrics.output_tokens == 4
    else:
        assert (records, entry.code) == ([], "impossible_value")


# JSON lines and Parquet

ROWS: list[dict[str, Any]] = [
    {"name": "llama", "energy_kwh": 0.5, "in": 100, "out": 28, "began": "2026-01-16T19:39:58", "uuid": "GPU-1"},
    {"name": "opt", "energy_kwh": None, "in": 100, "out": None, "began": "2026-01-16T19:40:58", "uuid": "GPU-2"},
]


def test_json_lines_and_parquet_give_the_same_records(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    from_lines, entries = import_text(tmp_path, lines + "\n", *MAPPING)
    assert [(entry.row, entry.code) for entry in entries] == [(1, "whole"), (2, "no_energy")]
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.bin")
    from_parquet, entries = import_text(tmp_path, (tmp_path / "rows.bin").read_bytes(), *MAPPING)
    assert [(entry.row, entry.code) for entry in entries] == [(1, "whole"), (2, "no_energy")]
    for one, other in zip(from_lines, from_parquet, strict=True):
        assert one.energy_metrics == other.energy_metrics
        assert (one.experiment_id, one.timestamps, one.inference_metrics) == (
            *(other.experiment_id, other.timestamps),
            other.inference_metrics,
        )


@pytest.mark.parametrize("indent", [None, 1])
def test_list_of_objects_is_a_table(tmp_path: Path, indent: int | None) -> None:
    rows: list[dict[str, Any]] = [{"j": 5, "id": "a"}, {"j": 6, "id": "b"}, {"j": "x", "id": "b"}]
    mapping = ("energy_j=j", "experiment_id=id")
    records, entries = import_text(tmp_path, json.dumps(rows, indent=indent), *mapping)
    assert [(record.experiment_id, record.energy_metrics.total_energy_j) for record in records] == [("a", 5), ("b", 6)]
    assert [(entry.row, entry.code) for entry in entries] == [(1, "whole"), (2, "whole"), (3, "torn")]
    [record], [entry] = import_text(tmp_path, json.dumps(rows[0], indent=indent), *mapping)
    assert (record.energy_metrics.total_energy_j, entry.row) == (5, 1)
    text = json.dumps(rows[:2], indent=indent).replace('"j": 6', '"j": 6, "j": 7')
    assert codes(import_text(tmp_path, text, *mapping)[1]) == ["whole", "ambiguous_key"]


@pytest.mark.parametrize("text", ["[]", "[1, 2]", '[{"j": 5}, 6]', '[{"j": 5}'])
def test_other_lists_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ImportFormatError, match="JSON that is not an object, or is incomplete"):
        import_text(tmp_path, text, "energy_j=j")


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_message_names_the_wrong_separator(tmp_path: Path, sign: str, name: str) -> None:
    with pytest.raises(ImportFormatError, match=f"a line with {name}; a table needs commas between the cells"):
        import_text(tmp_path, f"model{sign}j\nllama{sign}5{sign}6\n", "energy_j=j")


def test_table_of_one_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="neither JSON nor a table; a table needs commas"):
        import_text(tmp_path, "j\n5\n6\n", "energy_j=j")


@pytest.mark.parametrize("form", ['{"j": 5}\n{"j": 6, "k": 1}\n', '[{"j": 5}, {"j": 6, "k": 1}]'])
def test_key_is_missing_only_if_no_object_has_it(tmp_path: Path, form: str) -> None:
    records, [entry] = import_text(tmp_path, form, "energy_j=joules")
    assert (records, entry.code) == ([], "missing_field")
    assert entry.message == "no object has joules; the first object has j; change --map"
    records, _ = import_text(tmp_path, form, "energy_j=j", "gpu_id=k")
    assert [record.gpu_id for record in records] == [None, 1]


@pytest.mark.parametrize("form", ["j,k\n5,6\n", '{"j": 5}\n{"j": 6}\n'])
def test_missing_column_of_a_text_field_can_be_a_fixed_text(tmp_path: Path, form: str) -> None:
    _, [entry] = import_text(tmp_path, form, "energy_j=j", "experiment_id=twice")
    assert entry.message.endswith("; change --map; for a fixed text, write --map \"experiment_id='twice'\"")
    _, [entry] = import_text(tmp_path, form, "energy_j=joules", "experiment_id='twice'")
    assert entry.message.endswith("; change --map")


def test_long_number_as_id_keeps_all_digits(tmp_path: Path) -> None:
    text = '{"id": 1234567890123456, "j": 5}\n{"id": 1234567890123457, "j": 6}\n{"id": 0.12345678901234566, "j": 7}\n'
    records, _ = import_text(tmp_path, text, "experiment_id=id", "energy_j=j")
    assert [record.experiment_id for record in records] == [
        *("1234567890123456", "1234567890123457", "0.12345678901234566"),
    ]


@pytest.mark.parametrize("stamp", ["1712121312000", "1712121312000.5", "1712121312"])
def test_milliseconds_since_1970_are_not_a_timestamp(tmp_path: Path, stamp: str) -> None:
    records, [entry] = import_text(tmp_path, f"t,j\n{stamp},5\n", "start=t", "energy_j=j")
    assert entry.code == ("whole" if len(stamp) == 10 else "torn")
    assert [record.timestamps.start.year for record in records if record.timestamps.start] == (
        [2024] if len(stamp) == 10 else []
    )


def test_results_of_this_tool_are_not_read_as_a_table(tmp_path: Path) -> None:
    FileSystemRepository(tmp_path).save_raw("exp_7", factories.raw("exp_7"))
    (tmp_path / "table.csv").write_text("id,j\na,5\n")
    records, entries = read_all(tmp_path, mapping=["energy_j=j"])
    assert len(records) == 1
    refused = [entry for entry in entries if entry.outcome == "refused"]
    assert {entry.code for entry in refused} == {"unknown_format"}
    assert all("a result of this tool" in entry.message for entry in refused)
    assert not any("it has none of the formats" in entry.message for entry in refused)


def test_line_that_is_not_an_object_costs_only_itself(tmp_path: Path) -> None:
    text = '{"j": 1}\n{"j": 2\n[3]\n{"j": NaN}\n{"j": 4}\n'
    records, entries = import_text(tmp_path, text, "energy_j=j")
    assert [record.energy_metrics.total_energy_j for record in records] == [1.0, None, 4.0]
    assert [(entry.row, entry.code) for entry in entries if entry.outcome == "refused"] == [(2, "torn"), (3, "torn")]


@pytest.mark.parametrize("form", ["csv", "json", "parquet", "codecarbon"])
def test_file_with_too_many_rows_is_refused_at_once(tmp_path: Path, form: str) -> None:
    assert MAX_ROWS == 2_000_000
    path = tmp_path / "table"
    if form == "parquet":
        pq.write_table(pa.table({"j": pa.nulls(MAX_ROWS + 1, pa.int8())}), path)
    else:
        header = {"csv": "j,m\n", "json": '{"j": 5}\n{"j": 6}', "codecarbon": ",".join(peers.LATEST) + "\n"}[form]
        path.write_bytes(header.encode() + b"\n" * MAX_ROWS)
    records, [entry] = read_all(path, mapping=[] if form == "codecarbon" else ["energy_j=j"])
    assert records == []
    assert entry.code == "too_many"
    assert "2000001 rows, and at most 2000000 are read; split the file" in entry.message


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + b"\xff" * 4000 + b"PAR1"])
def test_damaged_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    records, [entry] = import_text(tmp_path, content, "energy_j=j")
    assert (records, entry.code) == ([], "unreadable")


IMPORT_SCRIPT = """
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet

from llm_energy_measure import importers


def peak_kib():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


before = peak_kib()
records = importers.read(sys.argv[1], mapping=sys.argv[2:])
print(len(list(records)), dict(Counter(entry.code for entry in records.report.entries)))
print((peak_kib() - before) // 1024)
"""


def import_in_child(*arguments: object) -> tuple[str, int]:
    """Import a file in a child process; return the codes of its rows, and by how many MiB its peak memory grew.

    The peak is VmHWM, because `ru_maxrss` of a child is never below the memory of the process that started it.
    """
    if sys.platform != "linux":
        pytest.skip("needs /proc/self/status")
    command = [sys.executable, "-c", IMPORT_SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row_codes, growth_mib = done.stdout.splitlines()
    return row_codes, int(growth_mib)


def test_parquet_of_repeated_long_texts_needs_little_memory(tmp_path: Path) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), pa.array(["x" * 3_000_000]))
    rows = pa.table({"m": long, "j": [1.0] * 4096})
    pq.write_table(rows, tmp_path / "rows", compression="zstd")
    assert (tmp_path / "rows").stat().st_size < 10**6
    row_codes, growth_mib = import_in_child(tmp_path / "rows", "model_name=m", "energy_j=j")
    assert row_codes == "0 {'torn': 4096}"
    assert growth_mib < 400  # measured: 25; the texts have 12 GB


def test_long_json_line_is_not_parsed(tmp_path: Path) -> None:
    with (tmp_path / "rows").open("w") as file:
        file.write('{"j": 1}\n{"j": ')
        for _ in range(40):
            file.write("[[]," * 2**18)
        file.write('\n{"j": 2}\n')
    row_codes, growth_mib = import_in_child(tmp_path / "rows", "energy_j=j")
    assert row_codes == "2 {'whole': 2, 'torn': 1}"
    assert growth_mib < 400  # measured: 119; the parsed line has 700


def test_too_long_cell_costs_its_row(tmp_path: Path) -> None:
    text = "".join(json.dumps({"j": 1, "m": "x" * length}) + "\n" for length in (1, 200_000, 2))
    records, entries = import_text(tmp_path, text, "energy_j=j", "model_name=m")
    assert (codes(entries), len(records)) == (["whole", "torn", "whole"], 2)


def test_parquet_column_of_lists_counts_as_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"j": [[1.0], [2.0]]}), tmp_path / "rows.bin")
    records, [entry] = import_text(tmp_path, (tmp_path / "rows.bin").read_bytes(), "energy_j=j")
    assert (records, entry.code) == ([], "missing_field")


def test_missing_parquet_column_refuses_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.bin")
    _, [entry] = import_text(tmp_path, (tmp_path / "rows.bin").read_bytes(), "energy_j=joules")
    assert entry.code == "missing_field"
