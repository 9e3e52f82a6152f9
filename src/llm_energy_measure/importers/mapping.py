"""Parse `--map FIELD=EXPRESSION`. An expression has columns, numbers, texts, `+ - * /` and parentheses.

    mapping    = field "=" expression
    expression = term   { ("+" | "-") term }
    term       = factor { ("*" | "/") factor }
    factor     = number | column | "[" any column "]" | "{" path "}" | "'" text "'" | "-" factor | "(" expression ")"

A column name that is not a plain word needs brackets, and may contain pairs of brackets: `[power.draw [W]]`. A path
identifies a value inside objects and lists of JSON: `{gpus.0.energy}`. A quoted text is a constant. An expression is
None if one of its columns is blank, or if it divides by 0. No expression is evaluated as Python code.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.importers.values import parse_number

Kind = Literal["number", "whole", "text", "time", "scope"]
Cell = str | float | None
"""Text or number of a cell; None if it is blank."""

_FIELDS_OF_KIND: dict[Kind, str] = {
    "text": "experiment_id model_name config_name backend backend_version host gpu_uuid gpu_name compute_precision",
    "whole": "process_index world_size gpu_id input_tokens output_tokens total_tokens",
    "time": "start end",
    "scope": "total_scope gpu_scope cpu_scope ram_scope",
    "number": "energy_j gpu_energy_j cpu_energy_j ram_energy_j gpu_power_w cpu_power_w duration_sec emissions_kg_co2 "
    "energy_per_token_j inference_time_sec tokens_per_second time_to_first_token_ms flops_total peak_memory_mb",
}
FIELDS: dict[str, Kind] = {name: kind for kind, names in _FIELDS_OF_KIND.items() for name in names.split()}
"""Fields of a record that a table can fill, with the kind of their values."""

# The unit in brackets at the end of a column name, as nvidia-smi writes it: `power.draw [W]`.
_UNIT = re.compile(r"\[([^\[\]]+)\]\]?$")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[^\W\d]\w*)"
    r"|\[(?P<column>(?:[^\[\]]|\[[^\[\]]*\])+)\]|(?P<path>\{[^{}]+\})|'(?P<text>[^']*)'|(?P<sign>[-+*/()]))"
)
_MAX_TOKENS = 100
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
Row = Mapping[str, Cell]


class NestedValueError(ValueError):
    """An expression needs a number, but the cell contains an object or a list of JSON."""


class _Part(NamedTuple):
    """A part of an expression, as two functions of a row: one returns the value as a cell, the other as a number.

    `number` is None for a quoted text, because a text cannot be used in a calculation.
    """

    cell: Callable[[Row], Cell]
    number: Callable[[Row], float | None] | None


class Expression(msgspec.Struct, frozen=True):
    """The expression of one field.

    Attributes:
        source: The expression as it was given.
        columns: Names of the columns that the expression needs, and paths with their braces.
        value: Returns the value of the expression for a row, which has its cells by column; None if the value is
            unknown. Only an expression of one column or one quoted text returns a text. Raises ValueError if an
            operand is no number.
    """

    source: str
    columns: frozenset[str]
    value: Callable[[Row], Cell]


def parse_mappings(given: Sequence[str]) -> dict[str, Expression]:
    """Return the expression of each field, from a list of `FIELD=EXPRESSION`.

    Raises:
        ImportFormatError: A mapping is invalid, its field is unknown, or a field is mapped twice.

    Example:
        >>> mapping = parse_mappings(["energy_j=energy_kwh*3.6e6", "model_name=[the model]"])
        >>> mapping["energy_j"].value({"energy_kwh": "0.5"}), mapping["model_name"].columns
        (1800000.0, frozenset({'the model'}))
    """
    mappings: dict[str, Expression] = {}
    for text in given:
        field, sign, source = text.partition("=")
        field = field.strip()
        doing = f"cannot map {text!r}"
        if not sign or not source.strip():
            raise ImportFormatError(doing, "it is not FIELD=EXPRESSION", "write for example energy_j=energy_kwh*3.6e6")
        if field not in FIELDS:
            raise ImportFormatError(doing, f"unknown field {field!r}", f"use one of {', '.join(FIELDS)}")
        if field in mappings:
            raise ImportFormatError(doing, f"{field} is mapped twice", "map each field once")
        mappings[field] = _Parser(source, doing).parse()
    return mappings


class _Parser:
    """Recursive-descent parser of one expression."""

    def __init__(self, source: str, doing: str) -> None:
        self.source = source.strip()
        self.doing = doing
        self.columns: set[str] = set()
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(self.source):
            match = _TOKEN.match(self.source, position)
            if match is None or match.lastgroup is None:
                raise self._error(f"{self.source[position:][:20]!r} is not a column, number, text or operator")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        if len(self.tokens) > _MAX_TOKENS:
            raise self._error(f"it has {len(self.tokens)} parts, and at most {_MAX_TOKENS} are allowed")
        self.tokens.reverse()  # the next token is popped from the end

    def parse(self) -> Expression:
        """Return the complete expression."""
        part = self._sum()
        if self.tokens:
            raise self._error(f"{self.tokens[-1][1]!r} follows a complete expression")
        return Expression(self.source, frozenset(self.columns), part.cell)

    def _sum(self) -> _Part:
        return self._chain(("+", "-"), self._product)

    def _product(self) -> _Part:
        return self._chain(("*", "/"), self._factor)

    def _chain(self, signs: tuple[str, str], operand: Callable[[], _Part]) -> _Part:
        """Return a chain of operands with these operators between them, combined from left to right."""
        part = operand()
        while self._next_sign() in signs:
            part = self._operation(self.tokens.pop()[1], part, operand())
        return part

    def _factor(self) -> _Part:
        if not self.tokens:
            raise self._error("it ends before a column or a number")
        kind, text = self.tokens.pop()
        if kind == "number":
            return self._number(text)
        if kind in ("name", "column", "path"):
            self.columns.add(text)
            return _Part(lambda row: row.get(text), lambda row: _number_in(text, row))
        if kind == "text":
            return _Part(lambda _row: text, None)
        if text == "-":
            return self._operation("-", self._number("0"), self._factor())
        if text == "(":
            part = self._sum()
            if self._next_sign() != ")":
                raise self._error("a parenthesis is not closed")
            self.tokens.pop()
            return part
        raise self._error(f"expected a column, a number or '(', found {text!r}")

    def _number(self, text: str) -> _Part:
        number = float(text)
        if not math.isfinite(number):
            raise self._error(f"{text} is too large for a number")
        return _Part(lambda _row: number, lambda _row: number)

    def _operation(self, sign: str, left: _Part, right: _Part) -> _Part:
        """Return a part that combines two numbers. Its value is None if an operand is unknown.

        It is also None after a division by 0, or if the result is not finite.
        """
        combine, left_number, right_number = _OPERATORS[sign], left.number, right.number
        if left_number is None or right_number is None:
            raise self._error("a text cannot be used in a calculation")

        def value(row: Row) -> float | None:
            one, other = left_number(row), right_number(row)
            if one is None or other is None:
                return None
            try:
                result: float = combine(one, other)
            except (ZeroDivisionError, OverflowError):
                return None
            return result if math.isfinite(result) else None

        return _Part(value, value)

    def _next_sign(self) -> str | None:
        """Return the next token if it is an operator or a parenthesis."""
        return self.tokens[-1][1] if self.tokens and self.tokens[-1][0] == "sign" else None

    def _error(self, found: str) -> ImportFormatError:
        return ImportFormatError(self.doing, found, "use columns, numbers, + - * / and parentheses")


def _number_in(column: str, row: Row) -> float | None:
    """Return the number in a column; None if the cell is blank. Raise ValueError for any other text."""
    cell = row.get(column)
    if not isinstance(cell, str):
        return cell
    number = parse_cell(cell, column)
    if number is None and cell.startswith(("{", "[")):
        raise NestedValueError(describe_nested(column))
    if number is None:
        raise ValueError(f"{column} is {cell[:40]!r}, which is not a number")
    return number


def parse_cell(cell: str, column: str) -> float | None:
    """Return the number in a cell; None if the cell is not a number.

    A unit may follow the number if the column name ends with the same unit in brackets.

    Example:
        >>> parse_cell("300.00 W", "power.draw [W]"), parse_cell("300.00 kW", "power.draw [W]")
        (300.0, None)
    """
    unit = _UNIT.search(column)
    return parse_number(cell.removesuffix(f" {unit[1]}") if unit else cell)


def describe_nested(column: str) -> str:
    """Return the message for a value that is an object or a list, and not a number."""
    return f"{column} is an object or a list; name a value in it, such as {{{column.strip('{}')}.KEY}}"
