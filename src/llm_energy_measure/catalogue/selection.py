"""Selections of experiments, as SQL, and the totals of groups of experiments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llm_energy_measure.catalogue.query import Clause, column_of, contains_clause, where_clause
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence


class Query(Struct, frozen=True, kw_only=True):
    """Selection of experiments.

    Attributes:
        where: Condition in the grammar of `catalogue.query`. None selects all experiments.
        model: Text that the model name contains, case-insensitive. None selects all models.
        with_pending: Include experiments without an aggregate.
    """

    where: str | None = None
    model: str | None = None
    with_pending: bool = False

    def scope(self) -> str:
        """Return the SQL condition for the experiments with or without an aggregate."""
        # With "= 1", SQLite can use the index and its order.
        return "listed = 1" if self.with_pending else "listed = 1 AND has_aggregate = 1"

    def condition(self) -> Clause:
        """Return the SQL condition of `where` and `model`."""
        clauses = [where_clause(self.where, COLUMNS)] if self.where is not None else []
        if self.model is not None:
            clauses.append(contains_clause(Clause("model_name", ()), self.model))
        sql = " AND ".join(clause.sql for clause in clauses) or "1"
        return Clause(sql, tuple(value for clause in clauses for value in clause.values))

    def clause(self) -> Clause:
        """Return the complete SQL condition."""
        condition = self.condition()
        return Clause(f"{self.scope()} AND {condition.sql}", condition.values)


class Group(Struct, frozen=True, kw_only=True):
    """Totals of a group of experiments. None means unknown.

    Attributes:
        by: The common values of the group, by column.
        experiments: Number of experiments.
        total_energy_j: Sum of the known energies, in joules.
        total_tokens: Sum of the known numbers of tokens.
        tokens_per_joule: Tokens divided by energy, over the experiments with both values.
        unknown_energy: Number of experiments with unknown energy.
        lower_bounds: Number of experiments whose sums are lower bounds.
    """

    by: dict[str, Any]
    experiments: int
    total_energy_j: float | None
    total_tokens: int | None
    tokens_per_joule: float | None
    unknown_energy: int
    lower_bounds: int


GROUP_FIGURES = ("experiments", "total_energy_j", "total_tokens", "tokens_per_joule", "unknown_energy", "lower_bounds")
"""Numbers of a group, by which groups can be sorted."""


def group_clause(query: Query, by: Sequence[str], *, sort: str | None, reverse: bool) -> tuple[Clause, list[str]]:
    """Return the SQL for `Catalogue.groups`, and the types of the columns in `by`."""
    clause = query.clause()
    columns = [column_of(name, COLUMNS, "cannot group") for name in by]
    names = [f"c{number}" for number in range(len(columns))]
    selected = "".join(f"{column.sql} AS {name}, " for column, name in zip(columns, names, strict=True))
    both = "total_tokens IS NOT NULL AND total_energy_j IS NOT NULL"
    sql = (
        f"SELECT {selected}count(*) AS f0, sum(total_energy_j) AS f1, "
        # total() instead of sum(), which raises an error on integer overflow.
        "CASE WHEN count(total_tokens) THEN total(total_tokens) END AS f2, "
        f"total(iif({both}, total_tokens, NULL)) / nullif(total(iif({both}, total_energy_j, NULL)), 0) AS f3, "
        "count(*) - count(total_energy_j) AS f4, count(CASE WHEN is_lower_bound THEN 1 END) AS f5 "
        f"FROM experiments WHERE {clause.sql}"
    )
    if names:
        figures = {name: f"f{number}" for number, name in enumerate(GROUP_FIGURES)}
        shown = figures | dict(zip(by, names, strict=True))
        order = [*([shown[sort]] if sort is not None else []), *names]
        tags = {name for column, name in zip(columns, names, strict=True) if column.values}
        keys = [key for name in order for key in order_keys(name, reverse=reverse, is_tag=name in tags)]
        sql += f" GROUP BY {', '.join(names)} ORDER BY {', '.join(keys)}"
    values = (*(value for column in columns for value in column.values), *clause.values)
    return Clause(sql, values), [COLUMNS.get(column.sql, "text") for column in columns]


def order_keys(sql: str, *, reverse: bool, is_tag: bool) -> list[str]:
    """Return the SQL sort keys of a column: unknown values last; in tags, numbers by value before words."""
    down = " DESC" if reverse else ""
    numbers = [f"as_number({sql}) IS NULL", f"as_number({sql}){down}"] if is_tag else []
    return [f"{sql} IS NULL", *numbers, f"{sql}{down}"]


def group_of(by: Sequence[str], kinds: Sequence[str], row: Sequence[Any]) -> Group:
    """Return the group in a result row of `group_clause`."""
    common = {name: _decoded(kind, value) for name, kind, value in zip(by, kinds, row, strict=False)}
    figures = dict(zip(GROUP_FIGURES, row[len(by) :], strict=True))
    if figures["total_tokens"] is not None:
        figures["total_tokens"] = int(figures["total_tokens"])
    return Group(by=common, **figures)


def _decoded(kind: str, value: Any) -> Any:
    """Return the Python value of a SQLite value."""
    if value is not None and kind == "time":
        return datetime.fromtimestamp(value, UTC)
    return bool(value) if value is not None and kind == "boolean" else value
