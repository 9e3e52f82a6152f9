"""The grammar of conditions: meaning, errors, and no text of the user in the SQL."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.catalogue.query import FUNCTIONS, no_match_hint, where_clause
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = {
    "model_name": "text",
    "total_energy_j": "number",
    "total_tokens": "integer",
    "is_lower_bound": "boolean",
    "start_time": "time",
    "verdict": "text",
    "hosts": "texts",
}
QUERIED = {**COLUMNS, "shown_energy_j": "number"}


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


ROWS: dict[str, dict[str, Any]] = {
    "a": {"model_name": "Llama-1B", "total_energy_j": 500.0, "total_tokens": 10, "is_lower_bound": 0,
          "start_time": seconds("2026-01-16T10:00"), "verdict": "complete", "hosts": "node-1, node-12"},
    "b": {"model_name": "llama 100%", "total_energy_j": 1500.5, "total_tokens": 20, "is_lower_bound": 1,
          "start_time": seconds("2026-01-31T23:59:59"), "verdict": "partial", "hosts": "node-12"},
    "c": {"model_name": "Mistral", "total_energy_j": 2000.0, "total_tokens": None, "is_lower_bound": None,
          "start_time": seconds("2026-02-01T00:00"), "verdict": "over-counted", "hosts": "Küche, node-2"},
    "d": {"model_name": None, "total_energy_j": None, "total_tokens": 5, "is_lower_bound": 0,
          "start_time": None, "verdict": "pending", "hosts": None},
}  # fmt: skip
TAGS = {"a": {"paper": "fig3", "run": "9"}, "b": {"run": "10"}, "c": {"note": "it's"}, "d": {"run": "low"}}


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(":memory:")
    for name, (arguments, function) in FUNCTIONS.items():
        database.create_function(name, arguments, function, deterministic=True)
    database.execute(
        f"CREATE TABLE experiments (folder TEXT, {', '.join(COLUMNS)}, shown_energy_j AS (total_energy_j))"
    )
    database.execute("CREATE TABLE tags (folder TEXT, key TEXT, value TEXT)")
    for folder, row in ROWS.items():
        database.execute("INSERT INTO experiments VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (folder, *row.values()))
    database.executemany(
        "INSERT INTO tags VALUES (?, ?, ?)", [(f, k, v) for f, t in TAGS.items() for k, v in t.items()]
    )
    yield database
    database.close()


def found(database: sqlite3.Connection, text: str) -> str:
    clause = where_clause(text, QUERIED)
    rows = database.execute(f"SELECT folder FROM experiments WHERE {clause.sql} ORDER BY folder", clause.values)  # noqa: S608 - the SQL under test
    return "".join(row[0] for row in rows)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("model ~ llama", "ab"),
        ("model ~ LLAMA and energy_j > 1000", "b"),
        ("model = Llama-1B", "a"),
        ("model != Llama-1B", "bc"),
        ("model !~ llama", "c"),
        ("model ~ %", "b"),
        ("model ~ _", ""),
        ("energy > 1.5e3", "bc"),
        ("total_energy_j<=500", "a"),
        ("energy >= 500 and energy < 2000", "ab"),
        ("tokens is unknown", "c"),
        ("tokens is not null", "abd"),
        ("tokens in (10, 5)", "ad"),
        ("verdict in (partial, 'over-counted')", "bc"),
        ("verdict = over-counted", "c"),
        ("verdict = foreign", ""),
        ("verdict ~ count", "c"),
        ('tag.note = "it\'s"', "c"),
        ("tag.note = 'it\\'s'", "c"),
        ("is_lower_bound = true", "b"),
        ("is_lower_bound = no", "ad"),
        ("is_lower_bound != yes", "ad"),
        ("date = 2026-01", "ab"),
        ("date = 2026-01-31", "b"),
        ("date = 2026", "abc"),
        ("date > 2026-01", "c"),
        ("date >= 2026-01-31", "bc"),
        ("date < 2026-01-31", "a"),
        ("date <= 2026-01-31", "ab"),
        ("date != 2026-01", "c"),
        ("date = 2026-01-16T10:00:00Z", "a"),
        ("date > '2026-01-31 23:59:58'", "bc"),
        ("not verdict = pending", "abc"),
        ("not (verdict = pending or energy > 1000)", "a"),
        ("energy > 0 or verdict = pending and tokens = 1", "abc"),
        ("(energy > 0 or verdict = pending) and tokens = 5", "d"),
        ("not model ~ llama", "c"),
        ("tag.paper = fig3", "a"),
        ("tag.run > 9", "b"),
        ("tag.run >= 9", "ab"),
        ("tag.run ~ 1", "b"),
        ("tag.run < 100", "ab"),
        ("tag.run = 9.0", "a"),
        ("tag.run != 9", "bd"),
        ("not tag.run > 9", "a"),
        ("tag.run in (low, 10)", "bd"),
        ("hosts = node-1", "a"),
        ("hosts = node-12", "ab"),
        ("hosts != node-12", "c"),
        ("hosts = 'node-1, node-12'", "a"),
        ("host in (node-2, node-1)", "ac"),
        ("hosts ~ KÜCHE", "c"),
        ("hosts !~ küche", "ab"),
        (f"hosts ~ {'node-1' * 9_000}", ""),
        (" or ".join(["model ~ llama"] * 5_000), "ab"),
        (f"verdict in ({', '.join(['partial'] * 5_000)})", "b"),
        ("energy > 0 and (tokens > 0 or not (" * 6 + "hosts = node-12" + "))" * 6, "ab"),
        ("not " * 19 + "model ~ llama", "c"),
        ("tag.paper is unknown", "bcd"),
        ("MODEL ~ llama AND NOT Energy > 1000", "a"),
    ],
)
def test_condition_selects_the_right_rows(database: sqlite3.Connection, text: str, wanted: str) -> None:
    assert found(database, text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a column is missing at the end"),
        ("modle ~ x", "there is no column 'modle'; did you mean model"),
        ("seed = 1", "there is no column 'seed'; "),
        ("batch_size = 1", "no column 'batch_size'; for a configuration key, write config.batch_size; or use a title"),
        ("verdict == complete", "'==' is not an operator; use one ="),
        ("model", "an operator (= != < <= > >= ~ !~ in is) is missing at the end"),
        ("model ~", "a value is missing at the end"),
        ("model ~ x y", "'y' at character 11 is not 'and' or 'or'"),
        ("model ~ x and", "a column is missing at the end"),
        ("(model ~ x", "')' is missing at the end"),
        ("energy > lots", "'lots' at character 10 is not a number in base units"),
        ("energy > nan", "'nan' at character 10 is not a number"),
        ("is_lower_bound = maybe", "is not true or false"),
        ("date > yesterday", "is not a date like 2026-01-16"),
        ("date = 2026-13", "is not a date like"),
        ("model = 'open", "has no closing quote; close the quotes"),
        ("model is x", "is not 'unknown'"),
        ("model in x", "is not '('"),
        ("tokens in (1 2)", "is not ',' or ')'"),
        ("1; DROP TABLE experiments", "there is no column '1;'"),
        (
            "date ~ 2026-01",
            "'~' at character 6 is not an operator for numbers and dates (= != < <= > >= in is)",
        ),
        ("verdict = warned", "'warned' at character 11 is not a verdict (complete, partial, over-counted, "),
        ("verdict != passed", "'passed' at character 12 is not a verdict (complete, "),
        ("verdict in (partial, done)", "'done' at character 22 is not a verdict (complete, "),
        ("energy !~ 1000", "'!~' at character 8 is not an operator for numbers and dates"),
        ("is_lower_bound ~ true", "is not an operator for numbers and dates"),
        ("tag. = x", "there is no column 'tag.'"),
        ("not " * 21 + "model ~ x", "nested more than 20 levels deep"),
        ("model ~ \udcff", "not valid UTF-8"),
    ],
)
def test_invalid_condition_is_rejected_with_position(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        where_clause(text, QUERIED)
    assert message in str(caught.value)
    assert str(caught.value).startswith("cannot filter by ")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("model = SmolLM2", '"model ~ SmolLM2"'),
        ("id = smollm2_*", '"id ~ smollm2_"'),
        ("tokens > 1 and (id in (x, '*y*'))", None),
        ('energy > 1 or not hosts = "*node 1*"', """'hosts ~ "node 1"'"""),
        ("tag.paper = fig", '"tag.paper ~ fig"'),
        ("config.batch_size = 4", None),
        ("verdict = failed", None),
        ("date = 2026-01", None),
        ("model != x", None),
        ("model ~ x", None),
        ("results/", None),
        (None, None),
    ],
)
def test_hint_for_no_match_writes_an_exact_text_as_a_part(text: str | None, written: str | None) -> None:
    hint = f"= compares the whole text; for a part of it, write {written}" if written else ""
    assert no_match_hint(text, {**QUERIED, "experiment_id": "text"}) == hint


def test_condition_refuses_a_word_that_is_no_status() -> None:
    with pytest.raises(ConfigurationError) as caught:
        where_clause("status = complete", {"status": "text"})
    assert "is not a status (pending, current, stale, external, " in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(["=", "~", "!=", "!~"]))
def test_quoted_text_is_a_parameter_and_never_sql(text: str, sign: str) -> None:
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    clause = where_clause(f"model {sign} {quoted}", QUERIED)
    assert clause.sql.removeprefix("NOT ") in (
        *("model_name = ?", "model_name LIKE ? ESCAPE '\\'", "contains_text(model_name, ?)"),
    )
    [value] = clause.values
    assert isinstance(value, str)
    if sign in ("=", "!="):
        assert value == text


@given(st.text(alphabet=" ()=!<>~,'\"\\abmodel_and or not in is ;-%?", max_size=40))
def test_random_text_is_valid_sql_or_rejected(text: str) -> None:
    try:
        clause = where_clause(text, QUERIED)
    except ConfigurationError:
        return
    condition = clause.sql.replace("FROM tags", "FROM (SELECT 1)")
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute(
            f"SELECT 1 FROM (SELECT 1 AS folder, {', '.join(f'1 AS {name}' for name in COLUMNS)}) AS experiments "  # noqa: S608 - the SQL under test
            f"JOIN (SELECT 1 AS key, 1 AS value, 1 AS f) AS x WHERE {condition}"
            if "tags" not in clause.sql
            else "SELECT ?, ?",
            clause.values if "tags" not in clause.sql else (1, 2),
        ).fetchall()


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("id = a", {"a"}),
        ("experiment_id = 'a b'", {"a b"}),
        ("id in (a, b) and energy > 1", {"a", "b"}),
        ("(id = a or id = b) and id != a", {"a", "b"}),
        ("id = a and id = b", set()),
        ("id in (a, b) and id in (b, c)", {"b"}),
        ("id = a and tag.id = b", {"a"}),
        ("id = a or energy > 1", None),
        ("not id = a", None),
        ("id != a", None),
        ("id ~ a", None),
        ("id > a", None),
        ("id = a and config.batch_size = 1", None),
        ("id = a and", None),
        ("energy > 1", None),
        (None, None),
    ],
)
def test_ids_are_all_that_a_condition_can_match(where: str | None, ids: set[str] | None) -> None:
    assert Query(where=where).ids() == ids
