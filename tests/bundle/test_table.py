"""A printed number is right if the value of the bundle rounds to it at its printed digits."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.checking import snapshots
from llm_energy_measure.bundle.table import Comparison, agrees, read_table
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cell", "value", "expected"),
    [
        ("222.7", 222.7, True),
        ("222.7", 222.65, True),
        ("222.7", 222.75, True),
        ("222.7", 222.64, False),
        ("222.7", 222.76, False),
        ("222.70", 222.71, False),
        ("223", 222.7, True),
        ("2.2e2", 222.7, True),
        ("2.227e+02", 222.7, True),
        ("1,468", 1468, True),
        ("1,468.5", 1468.5, True),
        ("14,68", 1468, False),
        ("222,7", 222.7, False),
        ("\u22123.5", -3.5, True),
        ("-3.5", 3.5, False),
        ("1\u202f468", 1468, True),
        ("0", 0.4, True),
        ("0.15", 0.145, True),
        ("nan", 1.0, False),
        ("inf", 1.0, False),
        ("", 1.0, False),
        ("n/a", 1.0, False),
        ("222.7 J", 222.7, False),
        ("1e999999999", 1.0, False),
        ("1" * 500, 1.0, False),
        ("1.0", None, False),
        ("1.0", math.nan, False),
        ("1.0", math.inf, False),
        ("llama", "llama", True),
        ("llama", "mistral", False),
        ("True", True, True),
    ],
)
def test_cell_agrees_with_a_value(cell: str, value: object, expected: bool) -> None:
    assert agrees(cell, value) is expected


@given(value=st.floats(min_value=-1e9, max_value=1e9), digits=st.integers(min_value=0, max_value=6))
def test_rounded_value_agrees_and_its_neighbour_does_not(value: float, digits: int) -> None:
    cell = f"{value:.{digits}f}"
    assert agrees(cell, value)
    step = Decimal(1).scaleb(-digits)
    assert not agrees(f"{Decimal(cell) + 2 * step:f}", value)
    assert not agrees(f"{Decimal(cell) - 2 * step:f}", value)


def compared(whole: Path, tmp_path: Path, text: str, key: str = "experiment_id") -> tuple[list[str], Comparison]:
    path = tmp_path / "paper.csv"
    path.write_text(text, encoding="utf-8")
    comparison = Comparison(read_table(path, key))
    with opened(whole) as source:
        for snapshot in snapshots(source):
            comparison.compare(snapshot)
    return [str(problem) for problem in comparison.finish()], comparison


def test_each_number_that_differs_is_named(whole: Path, tmp_path: Path) -> None:
    text = "experiment_id,total_energy_j,total_tokens,remark\nllama_c0,4250.0,16484,a\nllama_c2,4.29e3,16483,b\n"
    problems, comparison = compared(whole, tmp_path, text)
    assert problems == ["llama_c2, line 3, total_tokens: the table has 16483, the bundle has 16484 (table.differs)"]
    assert comparison.compared == 4
    assert comparison.notes == ["the table has no row for: llama_c1", "columns that are not compared: remark"]


def test_unknown_experiment_is_named_and_empty_cells_are_skipped(whole: Path, tmp_path: Path) -> None:
    text = "name,total_energy_j\nllama_c0,\nllama_c9,1\n"
    problems, comparison = compared(whole, tmp_path, text, key="name")
    assert problems == ["llama_c9: line 3 of the table has an experiment that the bundle does not have (table.unknown)"]
    assert comparison.compared == 0


def test_configuration_columns_and_unknown_values_are_compared(whole: Path, tmp_path: Path) -> None:
    text = "experiment_id,config.batch_size,config.nope,attributed_energy_j\nllama_c0,9,1,4250\n"
    problems, _ = compared(whole, tmp_path, text)
    assert problems == [
        "llama_c0, line 2, config.batch_size: the table has 9, the bundle has 8 (table.differs)",
        "llama_c0, line 2, config.nope: the table has 1, the bundle has no value (table.differs)",
        "llama_c0, line 2, attributed_energy_j: the table has 4250, the bundle has no value (table.differs)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no column 'experiment_id'; use one of its columns: none"),
        ("id,total_energy_j\na,1\n", "it has no column 'experiment_id'; use one of its columns: id, total_energy_j"),
        ("experiment_id,energy (J)\na,1\n", "no column has the name of an exported column; use the names of"),
        ("experiment_id,total_energy_j\na\n", "line 2 does not have 2 cells"),
        ("experiment_id,total_energy_j\na,1,2\n", "line 2 does not have 2 cells"),
        ("experiment_id,experiment_id\na,1\n", "two columns have the same name"),
        ('experiment_id,total_energy_j\na,"1\n', "it is not CSV in UTF-8"),
    ],
)
def test_table_of_another_form_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "paper.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        read_table(path, "experiment_id")
    assert message in str(refused.value)


def test_table_in_another_encoding_or_absent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    path.write_bytes("experiment_id,total_energy_j\nmod\u00e8le,1\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="save it as CSV in UTF-8"):
        read_table(path, "experiment_id")
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        read_table(tmp_path / "no.csv", "experiment_id")
    path.write_bytes("\ufeffexperiment_id,total_energy_j\na,1\n".encode())
    assert read_table(path, "experiment_id").columns == ["total_energy_j"]


def test_given_columns_have_to_be_exported(tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    path.write_text("experiment_id,total_energy_j,energy\na,1,1\n", encoding="utf-8")
    assert read_table(path, "experiment_id", ["total_energy_j"]).other_columns == ["energy"]
    with pytest.raises(ConfigurationError, match="'energy' is not exported"):
        read_table(path, "experiment_id", ["total_energy_j", "energy"])
