"""The closed grammar of `--map FIELD=EXPRESSION`: columns, numbers, `+ - * /` and parentheses, and nothing else.

    mapping    = field "=" expression
    expression = term   { ("+" | "-") term }
    term       = factor { ("*" | "/") factor }
    factor     = number | column | "[" any column "]" | "'" text "'" | "-" factor | "(" expression ")"

A column whose name is no plain word stands in brackets. A quoted text is that text in every row. An expression of an
unknown value, or one divided by 0, is unknown.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal

import msgspec

from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.importers.cells import number_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Mapping as Row

Kind = Literal["number", "signed", "whole", "text", "time", "scope"]

FIELDS: dict[str, Kind] = {
    **dict.fromkeys(("experiment_id", "model_name", "config_name", "backend", "backend_version"), "text"),
    **dict.fromkeys(("host", "gpu_uuid", "gpu_name", "compute_precision"), "text"),
    **dict.fromkeys(("process_index", "world_size", "gpu_id"), "whole"),
    **dict.fromkeys(("start", "end"), "time"),
    **dict.fromkeys(("total_scope", "gpu_scope", "cpu_scope", "ram_scope"), "scope"),
    **dict.fromkeys(
        ("energy_j", "gpu_energy_j", "cpu_energy_j", "ram_energy_j", "gpu_power_w", "cpu_power_w"), "number"
    ),
    **dict.fromkeys(("duration_sec", "emissions_kg_co2", "energy_per_token_j"), "number"),
    **dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), "whole"),
    **dict.fromkeys(("inference_time_sec", "tokens_per_second", "time_to_first_token_ms"), "number"),
    **dict.fromkeys(("flops_total", "peak_memory_mb"), "number"),
}
"""Fields of a record that a table can fill, and what each holds."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[^\W\d]\w*)"
    r"|\[(?P<column>[^\[\]]+)\]|'(?P<text>[^']*)'|(?P<sign>[-+*/()]))"
)
_MAX_TOKENS = 100
Cell = str | float | None


class _Node(msgspec.Struct, frozen=True):
    """A step of an expression: `number` and `text` have a value, `column` a name, the others operands."""

    kind: str
    value: str | float = ""
    operands: tuple[_Node, ...] = ()


class Expression(msgspec.Struct, frozen=True):
    """What a field is made of.

    Attributes:
        source: The expression as it was given.
        root: Its last step.
    """

    source: str
    root: _Node

    def columns(self) -> set[str]:
        """The columns that it needs."""
        return set(_columns(self.root))

    def value(self, row: Row[str, Cell]) -> Cell:
        """Its value in a row: text only where it is one column or a quoted text; None if it is unknown.

        Args:
            row: Text or number of each column; a blank is None.

        Raises:
            ValueError: Text stands where a number is calculated with.
        """
        if self.root.kind == "text":
            return self.root.value
        if self.root.kind == "column":
            return row.get(str(self.root.value))
        return _calculated(self.root, row)


def parse_mappings(given: Sequence[str]) -> dict[str, Expression]:
    """Field to expression, for each `FIELD=EXPRESSION`.

    Raises:
        ImportFormatError: One is none, names no field, or names one twice.

    Example:
        >>> mapping = parse_mappings(["energy_j=energy_kwh*3.6e6", "model_name=[the model]"])
        >>> mapping["energy_j"].value({"energy_kwh": "0.5"}), mapping["model_name"].columns()
        (1800000.0, {'the model'})
    """
    mappings: dict[str, Expression] = {}
    for text in given:
        field, sign, source = text.partition("=")
        field = field.strip()
        doing = f"cannot map {text!r}"
        if not sign or not source.strip():
            raise ImportFormatError(doing, "it is no FIELD=EXPRESSION", "such as energy_j=energy_kwh*3.6e6")
        if field not in FIELDS:
            raise ImportFormatError(doing, f"there is no field {field!r}", f"choose one of {', '.join(FIELDS)}")
        if field in mappings:
            raise ImportFormatError(doing, f"{field} is mapped twice", "map each field once")
        mappings[field] = Expression(source.strip(), _Parser(source, doing).parse())
    return mappings


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, source: str, doing: str) -> None:
        """Split the source into tokens."""
        self.doing = doing
        self.text: str | None = None
        self.tokens: list[tuple[str, str]] = []
        position = 0
        source = source.rstrip()
        while position < len(source):
            match = _TOKEN.match(source, position)
            if match is None or match.lastgroup is None:
                raise self._wrong(f"{source[position:][:20]!r} is nothing that an expression can hold")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        if len(self.tokens) > _MAX_TOKENS:
            raise self._wrong(f"it has {len(self.tokens)} parts, at most {_MAX_TOKENS} are taken")
        self.tokens.reverse()  # the next one is popped from the end

    def parse(self) -> _Node:
        """The whole expression."""
        node = self._sum()
        if self.tokens:
            raise self._wrong(f"{self.tokens[-1][1]!r} stands behind its end")
        if self.text is not None and node.kind != "text":
            raise self._wrong(f"the text {self.text!r} is no number to calculate with")
        return node

    def _sum(self) -> _Node:
        node = self._product()
        while self._next() in ("+", "-"):
            node = _Node(self.tokens.pop()[1], operands=(node, self._product()))
        return node

    def _product(self) -> _Node:
        node = self._factor()
        while self._next() in ("*", "/"):
            node = _Node(self.tokens.pop()[1], operands=(node, self._factor()))
        return node

    def _factor(self) -> _Node:
        if not self.tokens:
            raise self._wrong("it ends where a column or a number belongs")
        kind, text = self.tokens.pop()
        if kind == "number":
            if not math.isfinite(float(text)):
                raise self._wrong(f"{text} is beyond all numbers")
            return _Node("number", float(text))
        if kind in ("name", "column"):
            return _Node("column", text)
        if kind == "text":
            self.text = text
            return _Node("text", text)
        if text == "-":
            return _Node("-", operands=(_Node("number", 0.0), self._factor()))
        if text == "(":
            node = self._sum()
            if self._next() != ")":
                raise self._wrong("a parenthesis does not close")
            self.tokens.pop()
            return node
        raise self._wrong(f"{text!r} stands where a column or a number belongs")

    def _next(self) -> str | None:
        """The sign that comes next, if one does."""
        return self.tokens[-1][1] if self.tokens and self.tokens[-1][0] == "sign" else None

    def _wrong(self, found: str) -> ImportFormatError:
        return ImportFormatError(self.doing, found, "columns, numbers, + - * / and parentheses make an expression")


def _columns(node: _Node) -> Iterator[str]:
    if node.kind == "column":
        yield str(node.value)
    for operand in node.operands:
        yield from _columns(operand)


def _calculated(node: _Node, row: Row[str, Cell]) -> float | None:
    """The number that a step comes to; None if one of its operands is none."""
    if node.kind == "number":
        return float(node.value)
    if node.kind == "column":
        cell = row.get(str(node.value))
        if isinstance(cell, str) and number_in(cell) is None:
            msg = f"{node.value} is {cell[:40]!r}, no number"
            raise ValueError(msg)
        return number_in(cell) if isinstance(cell, str) else cell
    left, right = (_calculated(operand, row) for operand in node.operands)
    if left is None or right is None:
        return None
    try:
        result = {"+": left + right, "-": left - right, "*": left * right}.get(node.kind)
        result = left / right if result is None else result
    except (ZeroDivisionError, OverflowError):
        return None
    return result if math.isfinite(result) else None
