"""The grammar of `--where`, `--sort` and `--by`, and its conversion to SQL with parameters.

    where       model ~ llama and energy > 1000 and not (verdict = failed or date < 2026-03)
    condition   column operator value | column in (value, ...) | column is [not] unknown
    operator    = != < <= > >=, and for text ~ (contains, case-insensitive) !~
    value       a word, a number with or without unit, or text in quotes; a date can be a year, a month, a day or a time
    column      any column of the catalogue, tag.<key>, or config.<key> (a configuration key or its end after a dot)

An unknown value matches neither a comparison nor its negation. In a column with several values, such as `hosts`, `=`
matches if one of them is equal. Dates are in UTC. A tag or a configuration value is compared as a number if both sides
are numbers. The SQL never contains text of the user: column names come from a table, and values are parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, get_args

from llm_energy_measure.domain.configuration import PREFIX, keys_named, shortest_name
from llm_energy_measure.domain.units import convert
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results.batch.state import Status
from llm_energy_measure.results.columns import SUMMARY_COLUMNS
from llm_energy_measure.verification.verdicts import VERDICTS

Keys = Callable[[], Collection[str]]
"""Function that returns all configuration keys."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<sign><=|>=|!=|!~|=|<|>|~|\(|\)|,)"""
    r"""|(?P<word>[^\s()=!<>~,'"]+))"""
)
_DATE = re.compile(r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2}))?)?")
_TAG = re.compile(r"tag\.([A-Za-z_][A-Za-z0-9_.-]{0,63})")
_KEY = re.compile(r"(?!tag\.)[A-Za-z_][A-Za-z0-9_.-]*")
_COMPARISONS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
# A number that is directly followed by a unit, such as 1.5kJ.
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)([a-zA-Zµ][a-zA-Z/]*)")
_UNITS = {
    **{column.name: column.unit for column in SUMMARY_COLUMNS},
    **dict.fromkeys(("partial_energy_j", "shown_energy_j", "shown_plain_energy_j"), "J"),
    **dict.fromkeys(("shown_plain_joules_per_token", "shown_plain_joules_per_output_token"), "J/token"),
    **dict.fromkeys(("shown_tokens_per_joule", "shown_plain_tokens_per_joule"), "token/J"),
    **dict.fromkeys(("shown_joules_per_request", "shown_plain_joules_per_request"), "J/request"),
    **dict.fromkeys(("shown_power_w", "shown_plain_power_w"), "W"),
    "energy_window_sec": "s",
    "requests": "",
    "found_processes": "",
    "expected_processes": "",
}
_NEGATED = {"!=": "=", "!~": "~"}
_BOOLEANS = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0}
_WORDS = ("and", "or", "not")
_EXAMPLES = ("mJ", "J", "kJ", "MJ", "Wh", "kWh", "ms", "s", "min", "h", "W", "kW", "mJ/token", "J/token", "token/J")

# The parser stack of SQLite has 100 entries, and one level of this grammar can need several entries. So SQLite can
# refuse a condition with fewer levels.
_MAX_DEPTH = 20

# LIKE accepts patterns of up to 50,000 bytes, and ignores case only in ASCII.
_MAX_LIKE = 1_000

# Greatest number of similar columns in an error message.
_MAX_NEAR = 5

ALIASES = {
    "id": "experiment_id",
    "model": "model_name",
    "processes": "found_processes",
    "tokens/s/process": "avg_tokens_per_second",
    "tokens/s": "avg_tokens_per_second",
    "tokens/j": "shown_tokens_per_joule",
    "energy": "shown_energy_j",
    "energy_j": "total_energy_j",
    "tokens": "total_tokens",
    "throughput": "avg_tokens_per_second",
    "efficiency": "shown_tokens_per_joule",
    "warnings": "warning_count",
    "j_per_token": "attributed_joules_per_token",
    "j_per_output_token": "attributed_joules_per_output_token",
    "j_per_request": "shown_joules_per_request",
    "power": "shown_power_w",
    "tokens_per_s": "avg_tokens_per_second",
    "ttft_p50": "ttft_median_ms",
    "itl_p50": "itl_median_ms",
    "date": "start_time",
    "host": "hosts",
    "gpu": "gpus",
    "config": "config_name",
}
"""Column by short name. The column titles of `results list` and `results repeats` are short names too."""

PLAIN_ALIASES = ALIASES | {
    **dict.fromkeys(("tokens/j", "efficiency"), "shown_plain_tokens_per_joule"),
    "energy": "shown_plain_energy_j",
    "j_per_token": "shown_plain_joules_per_token",
    "j_per_output_token": "shown_plain_joules_per_output_token",
    "j_per_request": "shown_plain_joules_per_request",
    "power": "shown_plain_power_w",
}
"""Column by short name, for tables that show plain sums."""

_KNOWN_VALUES: dict[str, tuple[str, ...]] = {"status": get_args(Status), "verdict": tuple(VERDICTS)}
"""All values of the columns whose values are a fixed set of words."""

_RENAMED_WORDS = {"foreign": "external"}
"""New word by old word, in the columns status and verdict. The old words are accepted for one release."""


SEPARATOR = ", "
"""Separator of the values in a column with several values."""


class Clause(NamedTuple):
    """An SQL expression.

    Attributes:
        sql: The expression. It can call `FUNCTIONS`.
        values: The values of its parameters, in order.
        ids: The only experiment ids that a condition can match. None means any id.
    """

    sql: str
    values: tuple[object, ...]
    ids: frozenset[str] | None = None


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def where_clause(
    text: str, columns: Mapping[str, str], keys: Keys | None = None, aliases: Mapping[str, str] = ALIASES
) -> Clause:
    """Convert a condition to SQL.

    Args:
        text: The condition, in the grammar of this module.
        columns: Type of each column by name: `text`, `texts`, `integer`, `number`, `boolean` or `time`.
        keys: Function that returns all configuration keys. None accepts any key, to check a condition early.
        aliases: Short names of columns: `ALIASES`, or `PLAIN_ALIASES`.

    Raises:
        ConfigurationError: The condition is invalid. The message contains the position of the error.

    Example:
        >>> where_clause("energy_j > 1e3 or verdict = failed", {"total_energy_j": "number", "verdict": "text"})
        Clause(sql='(total_energy_j > ? OR verdict = ?)', values=(1000.0, 'failed'), ids=None)
    """
    return _Parser(text, columns, keys, aliases).parse()


def no_match_hint(where: str | None, columns: Mapping[str, str]) -> str:
    """Return the advice for a condition without matches: search for a part of the text with `~`.

    Empty if the condition compares no text with `=`.

    Example:
        >>> no_match_hint("model = SmolLM2", {"model_name": "text"})
        '= compares the whole text; for a part of it, write "model ~ SmolLM2"'
    """
    try:
        parser = _Parser(where or "", columns, None, ALIASES)
        parser.parse()
    except ConfigurationError:  # no condition, or the name of a directory
        return ""
    if not parser.exact:
        return ""
    quote = "'" if '"' in parser.exact else '"'
    return f"= compares the whole text; for a part of it, write {quote}{parser.exact}{quote}"


def column_of(
    name: str,
    columns: Mapping[str, str],
    doing: str,
    keys: Keys | None = None,
    aliases: Mapping[str, str] = ALIASES,
) -> Clause:
    """Return the SQL of a column.

    Args:
        name: Name or short name of a column, `tag.<key>` or `config.<key>`.
        columns: Type of each column by name.
        doing: First part of the error message.
        keys: See `where_clause`.
        aliases: See `where_clause`.

    Raises:
        ConfigurationError: The column does not exist. The message contains similar names.
    """
    lower = name.lower()
    found = aliases.get(lower, lower)
    if found in columns:
        return Clause(found, ())
    if tag := _TAG.fullmatch(name):
        return Clause("(SELECT value FROM tags WHERE tags.folder = experiments.folder AND key = ?)", (tag[1],))
    if is_config(name):
        if keys is None:
            return value_clause(name.removeprefix(PREFIX))
        return value_clause(full_key(name, keys(), doing, {*columns, *aliases}))
    from difflib import get_close_matches

    others = [name for name in columns if not name.startswith("shown_")]  # their short names are enough
    known = [*aliases, *others, "tag.<key>", "config.<key>"]
    near = get_close_matches(lower, known, n=_MAX_NEAR, cutoff=0.5)
    advice = "use a title of 'results list', a column of 'results export', tag.<key> or config.<key>"
    key = [f"{PREFIX}{name}"] if _KEY.fullmatch(name) else []
    if near:
        advice = f"did you mean {' or '.join([*near, *key])}?"
    elif key:
        advice = f"for a configuration key, write {key[0]}; or {advice}"
    raise ConfigurationError(doing, f"there is no column {name!r}", advice)


def is_config(name: str) -> bool:
    """Return True if a column name is a configuration key."""
    return name.startswith(PREFIX) and len(name) > len(PREFIX)


def value_clause(key: str) -> Clause:
    """Return the SQL of the value of a configuration key; see `config_index`. Booleans are text."""
    _require_text(key)
    sql = (
        "(SELECT value FROM config WHERE config.part IN (experiments.config, experiments.other_config) "
        "AND config.key = (SELECT id FROM config_keys WHERE config_keys.key = ?))"
    )
    return Clause(sql, (key,))


def key_advice(name: str, keys: Collection[str]) -> str:
    """Return the advice to write a configuration key with its prefix. Empty if no key has this name."""
    return f"did you mean {PREFIX}{name}?" if keys_named(name, keys) else ""


def full_key(name: str, keys: Collection[str], doing: str, others: Collection[str] = ()) -> str:
    """Return the only configuration key that has the name, or that ends with the name after a dot.

    Args:
        name: A key, or the end of a key after a dot. `.key` is only the key itself, not other keys that end with `key`.
            The prefix `config.` is optional.
        keys: The known keys.
        doing: First part of the error message.
        others: Names of columns, which need no prefix. If a column but no key has the name, the message suggests the
            column.

    Raises:
        ConfigurationError: No key or several keys have this name. The message lists the keys.
    """
    name = name.removeprefix(PREFIX)
    found = keys_named(name, keys)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(PREFIX + shortest_name(key, keys) for key in found)
        raise ConfigurationError(doing, f"{PREFIX}{name} is ambiguous: {listed} match", "use one of these names")
    from difflib import get_close_matches

    endings = {key.rpartition(".")[2]: key for key in sorted(keys)} | {key: key for key in keys}
    similar = dict.fromkeys(endings[match] for match in get_close_matches(name, endings, n=_MAX_NEAR, cutoff=0.5))
    near = [*([name] if name in others else []), *(PREFIX + key for key in similar)]
    advice = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "run 'llm-energy-measure results configs --all-keys' to list the keys"
    )
    raise ConfigurationError(doing, f"no configuration has the key {name!r}", advice)


def contains_clause(column: Clause, text: str) -> Clause:
    """Return the condition that a column contains a text, case-insensitive.

    Raises:
        ConfigurationError: `text` is not valid Unicode.
    """
    _require_text(text)
    if text.isascii() and len(text) <= _MAX_LIKE:
        pattern = re.sub(r"([%_\\])", r"\\\1", text)
        return Clause(f"{column.sql} LIKE ? ESCAPE '\\'", (*column.values, f"%{pattern}%"))
    return Clause(f"contains_text({column.sql}, ?)", (*column.values, text.casefold()))


def _contains_text(value: object, folded: str) -> bool | None:
    return None if value is None else folded in str(value).casefold()


def _as_number(value: object) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    return _number(value) if isinstance(value, str) else None


FUNCTIONS: dict[str, tuple[int, Callable[..., float | None]]] = {
    "contains_text": (2, _contains_text),
    "as_number": (1, _as_number),
}
"""SQL functions that clauses can call: number of arguments and Python function, by name."""


class _Parser:
    """Recursive descent parser of one condition."""

    def __init__(self, text: str, columns: Mapping[str, str], keys: Keys | None, aliases: Mapping[str, str]) -> None:
        self.text = text
        self.columns = columns
        self.keys = keys
        self.aliases = aliases
        _require_text(text)
        self.tokens = list(self._split())
        self.next = 0
        self.name = ""
        self.exact = ""  # the first condition on a text with `=`, written with `~`
        self.depth = 0

    def parse(self) -> Clause:
        clause = self._disjunction()
        if self.next < len(self.tokens):
            raise self._error("'and' or 'or'")
        return clause

    def _split(self) -> list[_Token]:
        tokens = []
        position = 0
        end = len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None or match.lastgroup is None:
                rest = self.text[position:].strip()
                raise ConfigurationError(self._doing(), f"{rest[:20]!r} has no closing quote", "close the quotes")
            tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
            position = match.end()
        return tokens

    def _doing(self) -> str:
        return f"cannot filter by {self.text[:200]!r}"

    def _peek(self) -> str:
        """Return the next word in lower case or the next sign. Empty for text in quotes and at the end."""
        if self.next >= len(self.tokens) or self.tokens[self.next].kind == "quoted":
            return ""
        return self.tokens[self.next].text.lower()

    def _take(self, *expected: str) -> bool:
        if self._peek() in expected:
            self.next += 1
            return True
        return False

    def _error(self, expected: str) -> ConfigurationError:
        if self.next < len(self.tokens):
            token = self.tokens[self.next]
            found = f"{token.text[:40]!r} at character {token.position + 1} is not {expected}"
        else:
            found = f"{expected} is missing at the end"
        return ConfigurationError(self._doing(), found, 'write a condition like "model ~ llama and energy > 1000"')

    def _disjunction(self) -> Clause:
        return self._joined("or", self._conjunction)

    def _conjunction(self) -> Clause:
        return self._joined("and", self._negation)

    def _joined(self, word: str, part: Callable[[], Clause]) -> Clause:
        clauses = [part()]
        while self._take(word):
            clauses.append(part())
        return _balanced(word.upper(), clauses)

    def _negation(self) -> Clause:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ConfigurationError(
                self._doing(), f"it is nested more than {_MAX_DEPTH} levels deep", "use fewer parentheses"
            )
        if self._take("not"):
            inner = self._negation()
            clause = Clause(f"NOT {inner.sql}", inner.values)
        elif self._take("("):
            clause = self._disjunction()
            if not self._take(")"):
                raise self._error("')'")
        else:
            clause = self._condition()
        self.depth -= 1
        return clause

    def _condition(self) -> Clause:
        if self._peek() in ("", *_WORDS) or self.tokens[self.next].kind != "word":
            raise self._error("a column")
        self.name = self.tokens[self.next].text
        self.next += 1
        column = column_of(self.name, self.columns, self._doing(), self.keys, self.aliases)
        kind = self.columns.get(column.sql, "text")
        if self._take("is"):
            wanted = "NOT NULL" if self._take("not") else "NULL"
            if not self._take("unknown", "null"):
                raise self._error("'unknown'")
            return Clause(f"{column.sql} IS {wanted}", column.values)
        if self._take("in"):
            return self._among(column, kind)
        sign = self._peek()
        if sign not in {*_COMPARISONS, "~", "!~"}:
            raise self._error("an operator (= != < <= > >= ~ !~ in is)")
        if sign in ("~", "!~") and kind not in ("text", "texts"):
            # `~` would search for digits in the text of the time, but the user means a date or a range.
            raise self._error("an operator for numbers and dates (= != < <= > >= in is)")
        self.next += 1
        if sign == "=" and self._peek() == "=":
            raise ConfigurationError(self._doing(), "'==' is not an operator", "use one =")
        clause = self._compared(column, kind, sign)
        self._note_exact(column, kind, sign)
        return clause

    def _note_exact(self, column: Clause, kind: str, sign: str) -> None:
        """Store the comparison that was just parsed, written with `~`, if it is the first of a text with `=`."""
        value = self.tokens[self.next - 1].text
        is_text = kind in ("text", "texts") and column.sql not in _KNOWN_VALUES and _number(value) is None
        if sign == "=" and is_text and not self.exact:
            part = re.sub(r"""^(["']?)\**|\**(["']?)$""", r"\1\2", value)  # the user can mean `*` as in a glob
            self.exact = f"{self.name} ~ {part}"

    def _among(self, column: Clause, kind: str) -> Clause:
        if not self._take("("):
            raise self._error("'('")
        clauses = [self._compared(column, kind, "=")]
        while self._take(","):
            clauses.append(self._compared(column, kind, "="))
        if not self._take(")"):
            raise self._error("',' or ')'")
        return _balanced("OR", clauses)

    def _compared(self, column: Clause, kind: str, sign: str) -> Clause:
        """Parse the next value, and return the comparison of the column with this value."""
        if self.next >= len(self.tokens) or self.tokens[self.next].kind == "sign":
            raise self._error("a value")
        token = self.tokens[self.next]
        text = re.sub(r"\\(.)", r"\1", token.text[1:-1]) if token.kind == "quoted" else token.text
        if column.sql in _KNOWN_VALUES:
            text = _RENAMED_WORDS.get(text, text)
            if sign in ("=", "!=") and text not in _KNOWN_VALUES[column.sql]:
                raise self._error(f"a {column.sql} ({', '.join(_KNOWN_VALUES[column.sql])})")
        if sign in _NEGATED:
            equal = self._compared(column, kind, _NEGATED[sign])
            return Clause(f"NOT {equal.sql}", equal.values)
        self.next += 1
        if sign == "~":
            return contains_clause(column, text)
        if kind == "time":
            return self._of_time(column, sign, text)
        if kind == "texts" and sign == "=":
            around = f"'{SEPARATOR}'"
            return Clause(f"(instr({around} || {column.sql} || {around}, {around} || ? || {around}) > 0)", (text,))
        if column.values and (number := _number(text)) is not None:
            return _of_tag(column, sign, text, number)
        value = self._value(column.sql, kind, text)
        ids = frozenset([text]) if column.sql == "experiment_id" and sign == "=" else None
        return Clause(f"{column.sql} {_COMPARISONS[sign]} ?", (*column.values, value), ids)

    def _value(self, column: str, kind: str, text: str) -> object:
        if kind in ("text", "texts"):
            return text
        if kind in ("integer", "number") and (quantity := self._quantity(text)) is not None:
            return self._in_base_unit(column, *quantity)
        value: object = _BOOLEANS.get(text.lower()) if kind == "boolean" else _number(text)
        if value is None:
            self.next -= 1
            raise self._error("true or false" if kind == "boolean" else "a number in base units")
        return value

    def _quantity(self, text: str) -> tuple[float, str] | None:
        """Return number and unit of a quantity, which can be two words. None for a number without unit."""
        if match := _QUANTITY.fullmatch(text):
            return float(match[1]), match[2]
        number = _number(text)
        unit = self._peek()
        if number is None or not unit[:1].isalpha() or unit in _WORDS:
            return None
        self.next += 1
        return number, self.tokens[self.next - 1].text

    def _in_base_unit(self, column: str, number: float, unit: str) -> float:
        """Return a quantity in the unit of its column. Raises `ConfigurationError` if its unit does not fit."""
        own = _UNITS.get(column, "")
        value = convert(number, unit, own) if own else None
        if value is None:
            found = f"the unit {unit!r} does not fit {self.name}, which has {f'the unit {own}' if own else 'no unit'}"
            units = ", ".join(one for one in _EXAMPLES if convert(1.0, one, own) is not None) if own else ""
            raise ConfigurationError(self._doing(), found, f"use one of {units}" if units else "omit the unit")
        return value

    def _of_time(self, column: Clause, sign: str, text: str) -> Clause:
        """Return a comparison with a year, a month, a day or one point in time."""
        span = _span(text)
        if span is None:
            self.next -= 1
            raise self._error("a date like 2026-01-16")
        first, end = span
        if sign == "=":
            if first == end:
                return Clause(f"{column.sql} = ?", (first,))
            return Clause(f"({column.sql} >= ? AND {column.sql} < ?)", (first, end))
        if first == end:
            return Clause(f"{column.sql} {sign} ?", (first,))
        return Clause(
            f"{column.sql} {sign[0] if sign in ('<', '<=') else '>='} ?", (end if sign in ("<=", ">") else first,)
        )


def _balanced(word: str, clauses: Sequence[Clause]) -> Clause:
    """Join clauses as a balanced tree, because SQLite limits the depth of an expression to 1,000."""
    if len(clauses) == 1:
        return clauses[0]
    half = (len(clauses) + 1) // 2
    left, right = _balanced(word, clauses[:half]), _balanced(word, clauses[half:])
    if left.ids is None or right.ids is None:
        ids = (left.ids if right.ids is None else right.ids) if word == "AND" else None
    else:
        ids = left.ids & right.ids if word == "AND" else left.ids | right.ids
    return Clause(f"({left.sql} {word} {right.sql})", (*left.values, *right.values), ids)


def _of_tag(column: Clause, sign: str, text: str, number: float) -> Clause:
    """Return a comparison of a tag or configuration value with a number.

    A value that is not a number is neither less nor greater.
    """
    compared = f"as_number({column.sql}) {sign} ?"
    if sign != "=":
        return Clause(compared, (*column.values, number))
    values = (*column.values, text, *column.values, number)
    return Clause(f"({column.sql} = ? OR ifnull({compared}, 0))", values)


def _require_text(text: str) -> None:
    """Raise `ConfigurationError` for lone surrogates, which SQLite cannot store. They come from invalid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        doing, found = f"cannot filter by {text[:200]!r}", "it is not valid UTF-8"
        raise ConfigurationError(doing, found, "write it in UTF-8") from error


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value - value == 0 else None


def _span(text: str) -> tuple[float, float] | None:
    """Return start and end of a span, in seconds since 1970-01-01 UTC. For a point in time, both are equal.

    The end is excluded. None if the text is not a date.
    """
    try:
        if match := _DATE.fullmatch(text):
            year, month, day = (int(match[name]) if match[name] else None for name in ("year", "month", "day"))
            first = datetime(year or 1, month or 1, day or 1, tzinfo=UTC)
            if day:
                end = first + timedelta(days=1)
            elif month:
                end = (first + timedelta(days=31)).replace(day=1)
            else:
                end = first.replace(year=first.year + 1)
            return first.timestamp(), end.timestamp()
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return moment.timestamp(), moment.timestamp()
