"""Repeats: which experiments belong to one group, and the statistics over a group."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure import results as public
from llm_energy_measure.results import group_repeats, repeat_statistics
from llm_energy_measure.results.repeats import configuration_digest
from tests.support import factories


def repeat(name: str, joules: float | None = 100.0, **changes: Any) -> Any:
    fields = {"total_energy_j": joules, "effective_config": {"batch_size": 8}, "process_results": [factories.raw(name)]}
    return factories.aggregated(name, **{**fields, **changes})


def names(results: list[Any]) -> list[list[str]]:
    return [[result.experiment_id for result in group] for group in group_repeats(results)]


# Groups


def test_ids_that_differ_in_their_final_number_form_a_sorted_group() -> None:
    results = [repeat(f"exp_c{n}") for n in (10, 2, 1)] + [repeat("other_c1"), repeat("other_c2")]
    assert names(results) == [["exp_c1", "exp_c2", "exp_c10"], ["other_c1", "other_c2"]]


def test_different_settings_of_one_id_form_no_group() -> None:
    results = [repeat(f"exp_c{n}", effective_config={"batch_size": 8 + n, "seed": n}) for n in range(2)]
    assert names(results) == []
    results = [repeat(f"exp_c{n}", effective_config={"batch_size": 8, "seed": n}) for n in range(2)]
    assert names(results) == [["exp_c0", "exp_c1"]]


@pytest.mark.parametrize("name", ["exp_c", "exp_cx", "exp-c1", "exp_c1_", "_c1", "exp_C1"])
def test_id_with_another_ending_is_not_a_repeat(name: str) -> None:
    odd = [repeat(name, effective_config={}), repeat("exp_c2", effective_config={})]
    assert names(odd) == []


def test_configurations_that_differ_only_in_cycle_id_form_a_group() -> None:
    results = [
        repeat("monday", effective_config={"batch_size": 8, "decoder": {"a": 1, "b": 2}, "cycle_id": 0}),
        repeat("tuesday", effective_config={"cycle_id": 1, "decoder": {"b": 2, "a": 1}, "batch_size": 8}),
        repeat("friday", effective_config={"decoder": {"b": 2, "a": 1}, "batch_size": 8}),
        repeat("sunday", effective_config={"batch_size": 16, "decoder": {"a": 1, "b": 2}, "cycle_id": 2}),
    ]
    assert names(results) == [["friday", "monday", "tuesday"]]


def test_nested_cycle_id_is_part_of_the_configuration() -> None:
    results = [repeat(name, effective_config={"x": {"cycle_id": n}}) for n, name in enumerate(["a", "b"])]
    assert names(results) == []


def test_empty_configurations_form_no_group() -> None:
    assert configuration_digest({}) is configuration_digest({"cycle_id": 3}) is None
    assert names([repeat("a", effective_config={}), repeat("b", effective_config={"cycle_id": 1})]) == []


@pytest.mark.parametrize("field", ["model_name", "backend"])
@pytest.mark.parametrize("ids", [("exp_c0", "exp_c1"), ("monday", "tuesday")])
def test_different_models_or_backends_form_no_group(field: str, ids: tuple[str, str]) -> None:
    one, other = (repeat(name, 1.0, **{field: value}) for name, value in zip(ids, ("a", "b"), strict=True))
    assert names([one, other]) == []
    assert names([one, repeat(ids[1], 1.0, **{field: "a"})]) == [sorted(ids)]


def test_model_in_the_processes_is_compared() -> None:
    theirs = [repeat(f"x_c{n}", process_results=[factories.raw(f"x_c{n}", model_name=f"model {n}")]) for n in range(2)]
    assert names(theirs) == []


def test_single_experiment_is_not_a_group() -> None:
    assert names([repeat("exp_c0"), repeat("b", effective_config={"other": 1})]) == []
    assert names([]) == []


# Statistics


def test_statistics_of_unequal_repeats_by_hand() -> None:
    joules, tokens = [90.0, 100.0, 125.0], [1000, 1100, 900]
    group = [
        repeat(f"exp_c{n}", energy, total_tokens=count, avg_tokens_per_second=50.0 + n)
        for n, (energy, count) in enumerate(zip(joules, tokens, strict=True))
    ]
    found = repeat_statistics(group)
    assert (found.name, found.experiment_ids) == ("exp", ["exp_c0", "exp_c1", "exp_c2"])
    assert (found.model_name, found.backend, found.warnings) == ("meta-llama/Llama-3.2-1B", "pytorch", [])
    assert found.energy_j.n == 3
    assert found.energy_j.mean == 105.0
    # Deviations -15, -5 and 20: (225 + 25 + 400) / 2 = 325.
    assert found.energy_j.std == pytest.approx(math.sqrt(325), rel=1e-12)
    assert found.energy_j.cv == pytest.approx(math.sqrt(325) / 105, rel=1e-12)
    # Student's t at 0.975 with 2 degrees of freedom is 4.302653.
    assert found.energy_j.ci_95_upper == pytest.approx(105 + 4.302652729911275 * math.sqrt(325 / 3), rel=1e-9)
    assert found.energy_j.ci_95_lower == pytest.approx(105 - 4.302652729911275 * math.sqrt(325 / 3), rel=1e-9)
    assert (found.tokens_per_second.mean, found.tokens_per_second.std) == (51.0, 1.0)
    assert found.tokens_per_joule.mean == pytest.approx((1000 / 90 + 1100 / 100 + 900 / 125) / 3, rel=1e-12)


@given(st.lists(st.floats(1e-3, 1e9), min_size=2, max_size=12))
def test_statistics_of_unequal_repeats_equal_those_of_scipy(joules: list[float]) -> None:
    found = repeat_statistics([repeat(f"exp_c{n}", energy) for n, energy in enumerate(joules)]).energy_j
    assert found.mean == pytest.approx(np.mean(joules), rel=1e-12)
    # The reference is exact. NumPy and our code round the mean to the precision of the samples.
    std = statistics.stdev(joules)
    rounding = 1e-12 * max(joules)
    assert found.std == pytest.approx(std, rel=1e-9, abs=rounding)
    half_width = scipy.stats.t.ppf(0.975, len(joules) - 1) * std / math.sqrt(len(joules))
    assert found.ci_95_upper is not None
    assert found.ci_95_lower is not None
    assert found.ci_95_upper - found.ci_95_lower == pytest.approx(2 * half_width, rel=1e-6, abs=20 * rounding)


def test_greatest_and_least_energies_have_a_standard_deviation() -> None:
    found = repeat_statistics([repeat("exp_c0", 0.0), repeat("exp_c1", 1.7e308), repeat("exp_c2", 1.7e308)]).energy_j
    assert found.mean == pytest.approx(1.7e308 / 3 * 2, rel=1e-9)
    assert found.std == pytest.approx(1.7e308 / math.sqrt(3), rel=1e-9)
    tiny = repeat_statistics([repeat("exp_c0", 1e-300), repeat("exp_c1", 3e-300)]).energy_j
    assert tiny.std == pytest.approx(math.sqrt(2) * 1e-300, rel=1e-9)


def test_mean_of_zero_has_no_coefficient_of_variation() -> None:
    found = repeat_statistics([repeat("exp_c0", 0.0), repeat("exp_c1", 0.0)])
    assert (found.energy_j.mean, found.energy_j.std, found.energy_j.cv) == (0.0, 0.0, None)
    assert (found.tokens_per_joule.n, found.tokens_per_joule.mean) == (0, None), "unknown if the energy is 0"


def test_unknown_figure_is_left_out_of_its_own_statistics_only() -> None:
    found = repeat_statistics([repeat("exp_c0", None), repeat("exp_c1", 100.0), repeat("exp_c2", 102.0)])
    assert (found.energy_j.n, found.energy_j.mean) == (2, 101.0)
    assert (found.tokens_per_second.n, found.tokens_per_joule.n) == (3, 2)


def attributed(name: str, point_j: float | None, bounds_j: tuple[float, float]) -> Any:
    """Return an experiment with the plain sum 400 J."""
    return repeat(
        name,
        400.0,
        total_tokens=800,
        plain_energy_j=400.0,
        attributed_energy_j=point_j,
        attributed_bounds_j=bounds_j,
        attribution_factor=None if point_j is None else 400.0 / point_j,
        attribution_status="undetermined" if point_j is None else "exact",
    )


def test_statistics_use_the_attributed_energy_and_name_corrected_repeats() -> None:
    group = [attributed("exp_c0", 100.0, (100.0, 100.0)), attributed("exp_c1", 400.0, (400.0, 400.0))]
    found = repeat_statistics(group)
    assert (found.energy_j.mean, found.tokens_per_joule.mean) == (250.0, 5.0)
    assert (found.corrected, found.warnings) == (["exp_c0"], [])
    plain = repeat_statistics(group, energy="plain")
    assert (plain.energy_j.mean, plain.tokens_per_joule.mean, plain.corrected) == (400.0, 2.0, [])


def test_undetermined_repeat_is_left_out_of_the_energy_and_named() -> None:
    group = [attributed("exp_c0", None, (100.0, 400.0)), attributed("exp_c1", 400.0, (400.0, 400.0)), repeat("exp_c2")]
    found = repeat_statistics(group)
    assert (found.energy_j.n, found.energy_j.mean) == (2, 250.0), "an aggregate without attribution has a total"
    assert (found.tokens_per_joule.n, found.tokens_per_second.n) == (2, 3)
    [warning] = found.warnings
    assert warning.startswith("the energy of exp_c0 (100.0 J to 400.0 J) is undetermined and left out; run ")
    plain = repeat_statistics(group, energy="plain")
    assert (plain.energy_j.n, plain.warnings) == (3, [])


def test_latency_per_token_is_the_mean_over_processes_that_report_it() -> None:
    def of(name: str, *latencies_ms: float | None) -> Any:
        works = [None if ms is None else factories.inference(latency_per_token_ms=ms) for ms in latencies_ms]
        processes = [factories.raw(name, n, inference_metrics=work) for n, work in enumerate(works)]
        return repeat(name, process_results=processes)

    found = repeat_statistics([of("exp_c0", 1.0, 2.0, None), of("exp_c1", 4.0), of("exp_c2", None)])
    assert (found.latency_per_token_ms.n, found.latency_per_token_ms.mean) == (2, 2.75)


def test_lower_bounds_and_different_configurations_give_warnings() -> None:
    group = [
        repeat("exp_c0", effective_config={"batch_size": 8, "cycle_id": 0}),
        repeat("exp_c1", effective_config={"batch_size": 8, "cycle_id": 1}, is_lower_bound=True),
    ]
    assert repeat_statistics(group).warnings == ["exp_c1 is a lower bound and is left out"]
    group[0] = repeat("exp_c0", effective_config={"batch_size": 16})
    assert repeat_statistics(group).warnings == [
        "exp_c1 is a lower bound and is left out",
        "the configurations of these repeats differ",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CycleStatistics", "RepeatStatistics"),
        ("cycle_statistics", "repeat_statistics"),
        ("group_cycles", "group_repeats"),
    ],
)
def test_old_name_works_with_a_warning(old: str, new: str) -> None:
    with pytest.deprecated_call(match=f"results.{old} is now {new}; use the new name"):
        assert getattr(public, old) is getattr(public, new)
