"""Selections of experiments, as SQL, and the totals of groups of experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from llm_energy_measure.catalogue.query import (
    ALIASES,
    PLAIN_ALIASES,
    Clause,
    Keys,
    column_of,
    contains_clause,
    is_config,
    where_clause,
)
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS, HIGH, LOW, PLAIN
from llm_energy_measure.exceptions import ConfigurationError


class Query(Struct, frozen=True, kw_only=True):
    """Selection of experiments.

    Attributes:
        where: Condition in the grammar of `catalogue.query`. None selects all experiments.
        model: Text that the model name contains, case-insensitive. None selects all models.
        with_pending: Include experiments without an aggregate.
        energy: Whether names such as `energy` and `tokens/J` refer to the attributed energy or to the plain sum.
    """

    where: str | None = None
    model: str | None = None
    with_pending: bool = False
    energy: Literal["attributed", "plain"] = "attributed"

    def column(self, name: str, doing: str, keys: Keys | None = None) -> Clause:
        """Return the SQL of a column; see `query.column_of`."""
        return column_of(name, COLUMNS, doing, keys, self._aliases())

    def _aliases(self) -> Mapping[str, str]:
        return PLAIN_ALIASES if self.energy == "plain" else ALIASES

    def scope(self) -> str:
        """Return the SQL condition for the experiments with an aggregate; for all listed ones if `with_pending`."""
        # With "= 1", SQLite can use the index and its order.
        return "listed = 1" if self.with_pending else "listed = 1 AND has_aggregate = 1"

    def condition(self, keys: Keys | None = None) -> Clause:
        """Return the SQL condition of `where` and `model`. For `keys`, see `where_clause`."""
        clauses = [where_clause(self.where, COLUMNS, keys, self._aliases())] if self.where is not None else []
        if self.model is not None:
            clauses.append(contains_clause(Clause("model_name", ()), self.model))
        sql = " AND ".join(clause.sql for clause in clauses) or "1"
        return Clause(sql, tuple(value for clause in clauses for value in clause.values))

    def ids(self) -> frozenset[str] | None:
        """Return the only ids that can match, if `where` names them. None means any id.

        A name of a configuration key can be ambiguous. So a condition on a key needs the keys of all experiments.
        """
        try:
            return None if self.where is None else where_clause(self.where, COLUMNS, tuple, self._aliases()).ids
        except ConfigurationError:  # a key, or a wrong condition: the query reports it
            return None

    def clause(self, keys: Keys | None = None) -> Clause:
        """Return the complete SQL condition. For `keys`, see `where_clause`."""
        condition = self.condition(keys)
        return Clause(f"{self.scope()} AND {condition.sql}", condition.values)


class Group(Struct, frozen=True, kw_only=True):
    """Totals of a group of experiments. None means unknown.

    Attributes:
        by: The common values of the group, by column.
        experiments: Number of experiments.
        total_energy_j: Sum of the plain sums, in joules; an experiment without a total counts with its partial total.
        total_tokens: Sum of the known numbers of tokens.
        tokens_per_joule: Tokens divided by the plain sums, over the experiments with both values and no partial total.
        unknown_energy: Number of experiments with unknown energy.
        lower_bounds: Number of experiments whose sums are lower bounds. All partial totals are lower bounds.
        attributed_energy_j: Sum of the attributed energies, in joules. An experiment without attribution counts with
            its plain sum. None if the energy of an experiment is undetermined.
        attributed_low_j: Like `attributed_energy_j`, but an undetermined experiment counts with its lower bound.
        attributed_high_j: Like `attributed_energy_j`, but an undetermined experiment counts with its upper bound.
        attributed_tokens_per_joule: Tokens divided by the energies in `attributed_high_j`, over the experiments with
            both values and no partial total. This is the least value that agrees with the records.
        corrected: Number of experiments whose plain sum counts some energy more than once.
        undetermined: Number of experiments whose energy is undetermined.
    """

    by: dict[str, Any]
    experiments: int
    total_energy_j: float | None
    total_tokens: int | None
    tokens_per_joule: float | None
    unknown_energy: int
    lower_bounds: int
    attributed_energy_j: float | None
    attributed_low_j: float | None
    attributed_high_j: float | None
    attributed_tokens_per_joule: float | None
    corrected: int
    undetermined: int


GROUP_FIGURES = tuple(name for name in Group.__struct_fields__ if name != "by")
"""Numbers of a group, by which groups can be sorted."""

# Without experiments that have only a partial total: their tokens per joule can be too high.
_HIGH_WITH_TOTAL = f"iif(partial_energy_j IS NULL, {HIGH}, NULL)"
_UNDETERMINED = "attributed_energy_j IS NULL AND attributed_high_j IS NOT NULL"


def group_clause(
    query: Query, by: Sequence[str], *, sort: str | None, reverse: bool, keys: Keys | None = None
) -> tuple[Clause, list[str]]:
    """Return the SQL for `Catalogue.groups`, and the types of the columns in `by`. For `keys`, see `where_clause`."""
    clause = query.clause(keys)
    columns = [query.column(name, "cannot group", keys) for name in by]
    names = [f"c{number}" for number in range(len(columns))]
    selected = "".join(f"{column.sql} AS {name}, " for column, name in zip(columns, names, strict=True))
    sql = (
        f"SELECT {selected}count(*) AS f0, sum({PLAIN}) AS f1, "
        # total() instead of sum(), which raises an error on integer overflow.
        "CASE WHEN count(total_tokens) THEN total(total_tokens) END AS f2, "
        f"{_tokens_per_joule('total_energy_j')} AS f3, "
        f"count(*) - count({PLAIN}) AS f4, count(CASE WHEN is_lower_bound THEN 1 END) AS f5, "
        f"CASE WHEN count(CASE WHEN {_UNDETERMINED} THEN 1 END) = 0 THEN sum({HIGH}) END AS f6, "
        f"sum({LOW}) AS f7, sum({HIGH}) AS f8, {_tokens_per_joule(_HIGH_WITH_TOTAL)} AS f9, "
        "count(CASE WHEN attribution_factor > 1 THEN 1 END) AS f10, "
        f"count(CASE WHEN {_UNDETERMINED} THEN 1 END) AS f11 "
        f"FROM experiments WHERE {clause.sql}"
    )
    if names:
        figures = {name: f"f{number}" for number, name in enumerate(GROUP_FIGURES)}
        shown = figures | dict(zip(by, names, strict=True))
        order = [*([shown[sort]] if sort is not None else []), *names]
        tags = {name for column, name in zip(columns, names, strict=True) if column.values}
        terms = [term for name in order for term in order_keys(name, reverse=reverse, is_tag=name in tags)]
        sql += f" GROUP BY {', '.join(names)} ORDER BY {', '.join(terms)}"
    values = (*(value for column in columns for value in column.values), *clause.values)
    return Clause(sql, values), [type_of(name, column) for name, column in zip(by, columns, strict=True)]


def type_of(name: str, column: Clause) -> str:
    """Return the type of a column: a type in `COLUMNS`, `config` for a configuration key, or `text` for a tag."""
    return "config" if column.values and is_config(name) else COLUMNS.get(column.sql, "text")


def _tokens_per_joule(energy: str) -> str:
    """Return the SQL of the tokens per joule of a group, over the experiments that have both tokens and `energy`."""
    both = f"total_tokens IS NOT NULL AND {energy} IS NOT NULL"
    return f"total(iif({both}, total_tokens, NULL)) / nullif(total(iif({both}, {energy}, NULL)), 0)"


def order_keys(sql: str, *, reverse: bool, is_tag: bool) -> list[str]:
    """Return the SQL sort keys of a column: unknown values last; in tags, numbers by value before words."""
    down = " DESC" if reverse else ""
    numbers = [f"as_number({sql}) IS NULL", f"as_number({sql}){down}"] if is_tag else []
    return [f"{sql} IS NULL", *numbers, f"{sql}{down}"]


def group_of(by: Sequence[str], kinds: Sequence[str], row: Sequence[Any]) -> Group:
    """Return the group in a result row of `group_clause`."""
    common = {name: decoded(kind, value) for name, kind, value in zip(by, kinds, row, strict=False)}
    figures = dict(zip(GROUP_FIGURES, row[len(by) :], strict=True))
    if figures["total_tokens"] is not None:
        figures["total_tokens"] = int(figures["total_tokens"])
    return Group(by=common, **figures)


def decoded(kind: str, value: Any) -> Any:
    """Return the Python value of a SQLite value, by the type of its column."""
    if kind == "config":
        return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    if value is not None and kind == "time":
        return datetime.fromtimestamp(value, UTC)
    return bool(value) if value is not None and kind == "boolean" else value
