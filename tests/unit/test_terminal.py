"""Text that is safe for a terminal, and numbers that people can read."""

from __future__ import annotations

import contextlib
import io
import json
import re
import unicodedata
from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from llm_energy_measure.cli import formatting, tables, terminal


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


words = (
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)
    .map(terminal.escape)
    .filter(lambda text: not re.search(r"[\s']", text))
)
texts = st.lists(words, max_size=6).map(" ".join)


@given(st.lists(st.tuples(texts, words, texts), max_size=6), st.integers(1, 60))
@example([("模型 " * 9, "± 1", "x"), ("a", "", "long")], 30)
def test_a_table_is_as_wide_as_the_terminal_and_keeps_its_words(rows: list[tuple[str, str, str]], width: int) -> None:
    headers = [("first", "left"), ("second", "right"), ("third", "left")]
    layout = tables.Layout(headers, rows, width, optional=[2])
    lines = list(layout.lines())
    if layout.fits:
        assert max(map(cell_len, lines)) <= layout.line_width <= width
    kept = 2 if layout.left_out else 3
    expected = [word for row in [("first", "second", "third"), *rows] for cell in row[:kept] for word in cell.split()]
    assert sorted(" ".join(lines).split()) == sorted(expected)
    without_limit = list(tables.Layout(headers, rows, None).lines())
    assert len(without_limit) == len(rows) + 1


def test_a_narrow_table_leaves_out_columns_and_uses_the_width() -> None:
    headers = [("id", "left"), ("model", "left"), ("energy", "right"), ("date", "left"), ("n", "right")]
    rows = [["exp_1", "organisation/a-model", "1 J", "2026-01-01 00:00", "7"]]
    wide = tables.Layout(headers, rows, 80, optional=[3, 1, 4])
    assert (wide.left_out, list(wide.lines())[1]) == ([], "exp_1  organisation/a-model     1 J  2026-01-01 00:00  7")
    assert tables.Layout(headers, rows, 40, optional=[3, 1, 4]).left_out == ["date"]
    short = tables.Layout(headers, rows, 47, optional=[3, 1, 4], short={1: ["a-model"]})
    assert (short.left_out, list(short.lines())[1]) == ([], "exp_1  a-model     1 J  2026-01-01 00:00  7")
    # The date and the model do not fit, but n does.
    assert tables.Layout(headers, rows, 17, optional=[4, 3, 1]).left_out == ["date", "model"]
    assert not tables.Layout(headers, rows, 10, optional=[4, 3, 1]).fits


def test_text_wraps_between_words_and_numbers_do_not() -> None:
    headers = [("id", "left"), ("note", "left"), ("energy", "right")]
    rows = [["exp_1", "the fan was loud and the door was open", "1.5 kJ"]]
    assert list(tables.Layout(headers, rows, 36).lines()) == [
        "id     note                   energy",
        "exp_1  the fan was loud and   1.5 kJ",
        "       the door was open",
    ]


def test_equal_titles_are_different_columns() -> None:
    headers = [("configuration", "left"), ("CV", "right"), ("CV", "right")]
    layout = tables.Layout(headers, [["a", "1 %", "2 %"]], 19, optional=[1, 2])
    assert list(layout.lines())[1] == "a              2 %"
    assert layout.left_out == ["CV"]


def test_fields_and_messages_wrap_and_keep_their_indent() -> None:
    fields = [("model", "m"), ("a warning", "partial: 3 of 4 processes have results")]
    assert list(tables.field_lines(fields, 30)) == [
        "model      m",
        "a warning  partial: 3 of 4",
        "           processes have",
        "           results",
    ]
    assert list(tables.field_lines(fields, None))[1] == "a warning  partial: 3 of 4 processes have results"
    assert tables.wrap_indented("  error: run 'results verify x' now", 24) == [
        "  error: run",
        "    'results verify x'",
        "    now",
    ]
    assert tables.wrap("a_word_that_is_too_long is kept", 10) == ["a_word_that_is_too_long", "is kept"]
    assert tables.wrap("'a quote that is too long' is not", 10) == ["'a quote", "that is", "too long'", "is not"]
