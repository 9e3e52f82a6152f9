"""Text that is safe for a terminal, and numbers that people can read."""

from __future__ import annotations

import contextlib
import io
import json
import unicodedata
from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from llm_energy_measure.cli import formatting, terminal


@given(st.text(st.characters()))
@example("\x1b[31m\u202e\x9b\r\n\t\x00\x7f\ud800\ufeff")
def test_escaped_text_has_no_control_characters(text: str) -> None:
    shown = terminal.escape(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in shown)
    assert not any(
        unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        for char in shown
    )
    assert terminal.escape(shown) == shown


def test_escape_keeps_printable_text() -> None:
    for text in ("meta-llama/Llama-3.2-1B", "[bold]x[/bold]", "模型 äöü 🦙", "a\\b", ""):
        assert terminal.escape(text) == text
    assert terminal.escape("a\x1bb\u202ec") == r"a\x1bb\u202ec"


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@example({"\x9b\u202e\ufeff": ["\x7f", "\u2028"]})
def test_print_json_text_keeps_the_values(value: object) -> None:
    for ensure_ascii in (True, False):
        data = json.dumps(value, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")
        if not ensure_ascii and any("\ud800" <= char <= "\udfff" for char in data.decode("utf-8", "replace")):
            continue
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            terminal.print_json_text(data)
        text = stdout.getvalue().removesuffix("\n")
        assert terminal.escape(text) == text
        if b"\xed" not in data:
            assert json.loads(text) == value


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "J", "-"),
        (0.0, "J", "0 J"),
        (1971.7, "J", "1.972 kJ"),
        (0.24, "J/token", "240 mJ/token"),
        (2.4e-7, "J", "2.4e-07 J"),
        (3.6e6, "J", "3.6 MJ"),
        (2e13, "FLOP", "20 TFLOP"),
        (-1500.0, "J", "-1.5 kJ"),
        (862.5, "", "862.5"),
        (12345.6, "", "12,346"),
        (0.0001234, "", "0.0001234"),
    ],
)
def test_quantities_have_four_digits_and_a_prefix(value: float | None, unit: str, shown: str) -> None:
    assert formatting.quantity(value, unit) == shown


@given(st.floats(1e-3, 1e20))
def test_a_quantity_is_exact_to_four_digits(value: float) -> None:
    prefixes = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    number, unit = formatting.quantity(value, "J").split()
    assert float(number) * prefixes[unit.removesuffix("J")] == pytest.approx(value, rel=6e-4)


def test_counts_dates_and_plurals() -> None:
    assert formatting.count(1234567) == "1,234,567"
    assert formatting.count(None) == formatting.date_time(None) == "-"
    assert formatting.date_time(datetime.fromisoformat("2026-01-16T19:39:58+09:00")) == "2026-01-16 19:39"
    assert [formatting.plural(n, "process") for n in (0, 1, 2)] == ["0 processes", "1 process", "2 processes"]


table_cells = st.text(st.characters(codec="utf-8"), max_size=9).map(lambda text: terminal.escape(text).strip())


@given(st.lists(st.tuples(table_cells, table_cells, table_cells), max_size=6))
@example([("模型", "± 1", "x"), ("a", "", "long")])
def test_table_lines_equal_those_of_rich(cells: list[tuple[str, str, str]]) -> None:
    headers = [("first", "left"), ("second", "right"), ("third", "left")]
    columns = zip(*([title for title, _ in headers], *cells), strict=True)
    widths = {column[0]: max(map(cell_len, column)) + 2 for column in columns}
    for titles in (["first", "second", "third"], ["second", "third"]):
        kept = {title: widths[title] for title in titles}
        printed = io.StringIO()
        Console(file=printed, width=200, color_system=None, highlight=False, markup=False, emoji=False).print(
            terminal._table(headers, cells, titles)
        )
        expected = [line.rstrip() for line in printed.getvalue().rstrip("\n").split("\n")]
        assert list(terminal._table_lines(headers, cells, kept)) == expected
