"""Comparison of the catalogue with a loop over the files: the same rows, order and groups."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.catalogue.summary import ExperimentSummary, summarize
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.tags import change_tags
from tests.support import factories

if TYPE_CHECKING:
    from collections.abc import Callable

    Truth = bool | None

SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
NUMBERS = ("found_processes", "expected_processes", "total_energy_j", "total_tokens", "tokens_per_joule")
TEXTS = ("id", "verdict", "status", "model", "tag.paper")
# A condition with an unknown verdict or status is refused.
WORDS = {"verdict": ("complete", "partial", "undetermined"), "status": ("current", "pending", "stale", "external")}
LISTS = ("hosts", "gpus", "precision")
VALUES = (
    "a",
    "b",
    "complete",
    "partial",
    "pending",
    "Llama",
    "müller",
    "node-1",
    "node-12",
    "A100",
    "float16",
    "fig3",
    "%",
)


class Condition(NamedTuple):
    """A condition as text, and its value for a row: True, False, or None if unknown."""

    text: str
    holds: Callable[[ExperimentSummary], Truth]


def value_of(row: ExperimentSummary, column: str) -> Any:
    if column.startswith("tag."):
        return row.tags.get(column.removeprefix("tag."))
    value = getattr(row, {"id": "experiment_id", "model": "model_name"}.get(column, column))
    return None if value == [] else value


def compared(column: str, sign: str, value: Any) -> Condition:
    def holds(row: ExperimentSummary) -> Truth:
        found = value_of(row, column)
        if found is None:
            return None
        if sign in ("~", "!~"):
            found = ", ".join(found) if isinstance(found, list) else found
            return (str(value).casefold() in found.casefold()) is (sign == "~")
        if isinstance(found, list):
            return (value in found) is (sign == "=")
        return SIGNS[sign](found, value)

    return Condition(f"{column} {sign} '{value}'", holds)


def unknown(column: str, word: str) -> Condition:
    return Condition(f"{column} {word}", lambda row: (value_of(row, column) is None) is (word == "is unknown"))


def both(left: Condition, right: Condition) -> Condition:
    def holds(row: ExperimentSummary) -> Truth:
        values = left.holds(row), right.holds(row)
        return False if False in values else None if None in values else True

    return Condition(f"({left.text} and {right.text})", holds)


def either(left: Condition, right: Condition) -> Condition:
    def holds(row: ExperimentSummary) -> Truth:
        values = left.holds(row), right.holds(row)
        return True if True in values else None if None in values else False

    return Condition(f"({left.text} or {right.text})", holds)


def negated(condition: Condition) -> Condition:
    def holds(row: ExperimentSummary) -> Truth:
        value = condition.holds(row)
        return None if value is None else not value

    return Condition(f"not {condition.text}", holds)


SIMPLE = st.one_of(
    st.builds(
        compared, st.sampled_from(NUMBERS), st.sampled_from(list(SIGNS)), st.sampled_from([0, 1, 2, 2500.5, 8242])
    ),
    st.sampled_from(TEXTS).flatmap(
        lambda column: st.builds(
            compared,
            st.just(column),
            st.sampled_from([*SIGNS, "~", "!~"]),
            st.sampled_from(WORDS.get(column, VALUES)),
        )
    ),
    st.builds(compared, st.sampled_from(LISTS), st.sampled_from(["=", "!=", "~", "!~"]), st.sampled_from(VALUES)),
    st.builds(unknown, st.sampled_from([*NUMBERS, *TEXTS, *LISTS]), st.sampled_from(["is unknown", "is not unknown"])),
)
CONDITIONS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(st.builds(both, inner, inner), st.builds(either, inner, inner), st.builds(negated, inner)),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> FileSystemRepository:
    """One experiment of each kind: complete, partial, stale, pending, external, damaged, and without energy."""
    repository = FileSystemRepository(tmp_path_factory.mktemp("answers") / "results")
    for name, model, hosts in (("a", "Llama", 1), ("b", "MÜLLER-7B", 2), ("stale", "llama 100%", 1)):
        for process in range(2):
            host = f"node-1{'2' if hosts == 2 and process else ''}"
            repository.save_raw(name, factories.raw(name, process, model_name=model, host=host))
    repository.save_raw("half", factories.raw("half", 0, world_size=2, host=None, gpu_name=None))
    lost = factories.energy(0, total_energy_j=None)
    repository.save_raw("dark", factories.raw("dark", 0, energy_metrics=lost, inference_metrics=None))
    list(aggregate_all(repository, strict=False))
    repository.save_raw("stale", factories.raw("stale", 2, model_name="llama 100%"))
    repository.save_raw("pending", factories.raw("pending"))
    repository.save_aggregated(factories.aggregated("external", total_energy_j=None))
    (repository.base_path / "aggregated" / "torn.json").write_bytes(b"{")
    change_tags(repository.store, "a", {"paper": "fig3"})
    change_tags(repository.store, "half", {"paper": "a"})
    return repository


@pytest.fixture(scope="module")
def rows(repository: FileSystemRepository) -> list[ExperimentSummary]:
    names = sorted({*repository.list_experiments(), *repository.list_aggregated()})
    return [summarize(repository, name) for name in names]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONDITIONS, st.booleans())
def test_condition_selects_the_same_rows_as_a_loop_over_files(
    repository: FileSystemRepository,
    rows: list[ExperimentSummary],
    condition: Condition,
    with_pending: bool,
) -> None:
    query = Query(where=condition.text, with_pending=with_pending)
    wanted = [row for row in rows if condition.holds(row) and (with_pending or row.status != "pending")]
    assert query_catalogue(repository, lambda catalogue: catalogue.summaries(query)) == wanted
    assert query_catalogue(repository, lambda catalogue: catalogue.count(query)) == len(wanted)


@given(st.sampled_from([*NUMBERS, *TEXTS]), st.booleans(), st.integers(0, 9))
def test_sort_order_equals_that_of_a_loop_over_files(
    repository: FileSystemRepository,
    rows: list[ExperimentSummary],
    column: str,
    reverse: bool,
    limit: int,
) -> None:
    known = [row for row in rows if value_of(row, column) is not None]
    wanted = sorted(known, key=lambda row: (value_of(row, column), row.experiment_id), reverse=reverse)
    wanted += [row for row in rows if row not in known][:: -1 if reverse else 1]

    query = Query(with_pending=True)
    found = query_catalogue(
        repository, lambda catalogue: catalogue.summaries(query, sort=column, reverse=reverse, limit=limit)
    )
    assert [row.experiment_id for row in found] == [row.experiment_id for row in wanted][:limit]


@given(st.lists(st.sampled_from(["model", "verdict", "status", "tag.paper"]), unique=True, max_size=3), CONDITIONS)
def test_groups_equal_those_of_a_loop_over_files(
    repository: FileSystemRepository, rows: list[ExperimentSummary], by: list[str], condition: Condition
) -> None:
    groups: dict[tuple[Any, ...], list[ExperimentSummary]] = {} if by else {(): []}
    for row in rows:
        if condition.holds(row):
            groups.setdefault(tuple(value_of(row, column) for column in by), []).append(row)
    query = Query(where=condition.text, with_pending=True)
    found = query_catalogue(repository, lambda catalogue: catalogue.groups(query, by))
    assert {tuple(group.by.values()): group.experiments for group in found} == {
        values: len(members) for values, members in groups.items()
    }
    for group in found:
        members = groups[tuple(group.by.values())]
        plain = [row.partial_energy_j if row.total_energy_j is None else row.total_energy_j for row in members]
        joules = [one for one in plain if one is not None]
        assert group.total_energy_j == (pytest.approx(sum(joules)) if joules else None)
        assert group.unknown_energy == len(members) - len(joules)
        assert group.lower_bounds == sum(row.is_lower_bound is True for row in members)
        ranges = [row.attributed_bounds_j for row in members if row.attributed_energy_j is None]
        assert group.undetermined == sum(bounds_j is not None for bounds_j in ranges)
        highs = [_greatest_j(row) for row in members]
        known = [joules for joules in highs if joules is not None]
        assert group.attributed_high_j == (pytest.approx(sum(known)) if known else None)
        assert group.attributed_energy_j == (None if group.undetermined else group.attributed_high_j)


def _greatest_j(row: ExperimentSummary) -> float | None:
    if row.attributed_energy_j is not None:
        return row.attributed_energy_j
    if row.attributed_bounds_j is not None:
        return row.attributed_bounds_j[1]
    return row.partial_energy_j if row.total_energy_j is None else row.total_energy_j
