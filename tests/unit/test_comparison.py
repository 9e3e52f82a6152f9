"""Comparison of observations: estimates, verdicts, blocks, marks, pairing of configurations and refusals."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.analysis.comparison import Row, compare
from llm_energy_measure.analysis.pairing import Selection, labels
from llm_energy_measure.analysis.verdicts import MOST_REPEATS, further_repeats, verdict_of
from llm_energy_measure.cli.comparison_output import encoded
from llm_energy_measure.domain.ratio_tests import RatioEstimate
from llm_energy_measure.exceptions import ConfigurationError, IncompatibleResultsError
from tests.support.observations import COMPARABLE, interleaved, observation, side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.analysis.observations import Observation

BASE = [62.0, 65.0, 60.5, 63.0, 62.5]
WORSE = [69.0, 70.0, 68.5, 69.5, 68.0]
values = st.lists(st.floats(1, 100), min_size=2, max_size=8)


def only_row(base: Selection, new: Selection, **options: Any) -> Row:
    [table] = compare(base, [new], **options).tables
    [row] = table.rows
    return row


def joined(name: str, *sides: Selection) -> Selection:
    return Selection(name, [one for one_side in sides for one in one_side.observations])


def by_number(one: Observation) -> str | None:
    return one.experiment_id.rpartition("_")[2]


def test_row_has_the_ratio_of_geometric_means_and_the_test_of_welch() -> None:
    row = only_row(*interleaved(BASE, WORSE))
    expected = scipy.stats.ttest_ind(np.log(WORSE), np.log(BASE), equal_var=False)
    assert row.ratio == pytest.approx(scipy.stats.gmean(WORSE) / scipy.stats.gmean(BASE), rel=1e-12)
    assert row.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert row.interval is not None
    assert np.log(row.interval) == pytest.approx(list(expected.confidence_interval()), rel=1e-9)
    assert (row.method, row.verdict, row.confounded, row.warnings) == ("welch", "worse", [], [])
    assert row.base.n == 5
    assert row.base.mean == pytest.approx(62.6)


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        (WORSE, "worse"),
        ([55.0, 56.0, 54.0, 55.5], "better"),
        ([62.6, 62.5, 62.4, 62.7, 62.8, 62.6, 62.5, 62.4], "equivalent"),
        ([62.0, 69.0, 66.0], "undecided"),
    ],
)
def test_verdict_depends_on_p_and_on_the_margin(new: list[float], verdict: str) -> None:
    base = [62.6, 62.5, 62.7, 62.4, 62.8, 62.6]
    assert only_row(*interleaved(base, new)).verdict == verdict


def test_significant_change_within_the_margin_is_not_worse() -> None:
    base, new = [100.0, 100.1, 99.9, 100.0], [101.0, 101.1, 100.9, 101.0]
    row = only_row(*interleaved(base, new))
    assert row.p is not None
    assert row.p < 0.001
    assert row.verdict == "equivalent"
    assert only_row(*interleaved(base, new), margin=0.005).verdict == "worse"


def test_higher_is_better_for_throughput() -> None:
    base, new = interleaved(BASE, WORSE)
    assert only_row(base, new, metrics=["tokens_per_s"]).verdict == "worse"
    assert only_row(new, base, metrics=["tokens_per_s"]).verdict == "better"


@given(values, values)
def test_swapped_sides_have_the_inverse_ratio_and_verdict(base: list[float], new: list[float]) -> None:
    row, swapped = (only_row(*sides) for sides in (interleaved(base, new), interleaved(new, base)))
    opposite = {"worse": "better", "better": "worse"}
    assert swapped.ratio == pytest.approx(1 / row.ratio, rel=1e-12)
    assert swapped.verdict == opposite.get(str(row.verdict), row.verdict)
    assert swapped.further_repeats == row.further_repeats


@pytest.mark.parametrize("spread", [0.02, 0.05, 0.1])
def test_further_repeats_are_the_fewest_that_decide(spread: float) -> None:
    """The same runs again have almost the same spread, so their number is near the computed one."""
    base, new = [100.0, 100 + 100 * spread, 100 - 100 * spread], [104.5, 104.5 + 100 * spread, 104.5 - 100 * spread]
    row = only_row(*interleaved(base, new))
    assert row.verdict == "undecided"
    assert row.further_repeats is not None
    times = math.ceil((3 + row.further_repeats) * 1.5 / 3)
    assert only_row(*interleaved(base * times, new * times)).verdict == "worse"


estimates = st.builds(
    RatioEstimate,
    log_ratio=st.floats(-0.1, 0.1),
    variances=st.tuples(st.floats(1e-6, 0.1), st.floats(1e-6, 0.1)),
    counts=st.tuples(st.integers(2, 12), st.integers(2, 12)),
)


@given(estimates, st.floats(1, 12))
def test_further_repeats_equal_a_search_from_one(estimate: RatioEstimate, factor: float) -> None:
    p_values = (estimate.p_different(), estimate.p_different() * factor)
    if verdict_of(estimate, p_values[1], estimate.p_equivalent(0.03), 0.03, is_lower_better=True) != "undecided":
        return
    is_beyond = abs(estimate.log_ratio) > math.log1p(0.03)
    later = ((repeats, estimate.with_more(repeats)) for repeats in range(1, MOST_REPEATS + 1))
    decided = (
        repeats
        for repeats, one in later
        if (one.p_different() * p_values[1] / p_values[0] if is_beyond else one.p_equivalent(0.03)) < 0.05
    )
    assert further_repeats(estimate, p_values, 0.03) == next(decided, None)


def test_ratio_on_the_margin_has_no_number_of_further_repeats() -> None:
    base = [99.0, 100.0, 101.0]
    row = only_row(*interleaved(base, [value * 1.03 for value in base]), margin=0.03)
    assert (row.verdict, row.further_repeats) == ("undecided", None)


def test_one_run_has_a_ratio_and_no_verdict() -> None:
    row = only_row(*interleaved([100.0], WORSE))
    assert row.ratio == pytest.approx(scipy.stats.gmean(WORSE) / 100)
    assert (row.verdict, row.p, row.interval, row.method, row.base.half_width) == (None,) * 5
    assert "one run on a side" in row.warnings[0]


@pytest.mark.parametrize("n", [1, 3])
def test_extreme_figures_have_a_ratio(n: int) -> None:
    old, new = interleaved([1e-300, 2e-300, 3e-300][:n], [1e300, 2e300, 3e300][:n])
    for sides in ((old, new), (new, old)):
        [table] = compare(sides[0], [sides[1]]).tables
        assert table.geometric_mean_ratio == table.rows[0].ratio
        assert encoded(compare(sides[0], [sides[1]]), "table", [], "attributed")


def test_two_runs_have_a_verdict_and_a_warning() -> None:
    row = only_row(*interleaved([100.0, 100.1], [150.0, 150.2, 150.1]))
    assert row.verdict == "worse"
    assert "two runs on a side" in row.warnings[0]


def test_equal_figures_use_the_resolution_of_the_sensor() -> None:
    sides = interleaved([100.0] * 3, [110.0] * 3, resolution={"j_per_token": 1.0})
    row = only_row(*sides)
    assert row.verdict == "worse"
    assert row.interval is not None
    error = math.sqrt((1 / 100) ** 2 / 12 / 3 + (1 / 110) ** 2 / 12 / 3)
    half_width = math.log(row.interval[1] / row.ratio)
    assert error * 2 < half_width < error * 4
    row = only_row(*interleaved([100.0] * 3, [110.0] * 3, resolution={"j_per_token": 200.0}))
    assert row.verdict == "undecided"


def test_equal_figures_of_unknown_resolution_have_no_test() -> None:
    row = only_row(*interleaved([100.0] * 3, [110.0] * 3))
    assert (row.verdict, row.p, row.interval) == ("undecided", None, None)
    assert "the resolution of the sensor is unknown" in row.warnings[0]
    rounded = [value * 1.1 for value in BASE]
    assert only_row(*interleaved(BASE, rounded), block_of=by_number).verdict == "undecided"


def test_holm_counts_all_rows_of_all_candidates_and_metrics() -> None:
    base, new = interleaved(BASE, WORSE)
    other = side("other", [value * 1.0001 for value in BASE], first=0.5)
    comparison = compare(base, [new, other], metrics=["j_per_token", "tokens_per_s"])
    alone = only_row(base, new)
    assert comparison.tests == 4
    assert [table.metric for table in comparison.tables] == ["j_per_token", "tokens_per_s"] * 2
    assert alone.p is not None
    assert comparison.rows()[0].p == pytest.approx(4 * alone.p, rel=1e-9)


def test_three_common_blocks_make_a_paired_test() -> None:
    drift = [1.0, 1.5, 2.0, 0.7, 3.0]
    base = [value * factor for value, factor in zip(BASE, drift, strict=True)]
    new = [value * factor for value, factor in zip(WORSE, drift, strict=True)]
    row = only_row(*interleaved(base, new), block_of=by_number)
    expected = scipy.stats.ttest_rel(np.log(WORSE), np.log(BASE))
    assert (row.method, row.blocks, row.verdict) == ("paired", 5, "worse")
    assert row.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert only_row(*interleaved(base, new)).verdict == "undecided"


def test_runs_outside_common_blocks_have_no_effect_on_a_paired_test() -> None:
    base, new = interleaved(BASE, WORSE)
    row = only_row(base, Selection("new", new.observations[:4]), block_of=by_number)
    assert (row.blocks, row.base.n, row.new.n) == (4, 4, 4)
    assert row.base.experiment_ids == ["old_0", "old_1", "old_2", "old_3"]


def test_two_common_blocks_make_no_paired_test() -> None:
    base, new = interleaved(BASE, WORSE[:2])
    row = only_row(base, new, block_of=by_number)
    assert row.method == "welch"
    assert any("2 common blocks" in warning for warning in row.warnings)


def test_runs_of_one_side_before_the_other_are_confounded() -> None:
    base, new = side("old", BASE), side("new", WORSE, first=60)
    for row in (only_row(base, new), only_row(new, base)):
        assert row.confounded == ["order"]
        assert row.verdict in ("worse", "better")
    assert only_row(*interleaved(BASE, WORSE)).confounded == []


def test_different_hosts_are_confounded() -> None:
    base, new = side("old", BASE), side("new", WORSE, first=1, hosts=["node-1"])
    assert only_row(base, new).confounded == ["host"]
    assert only_row(base, side("new", WORSE, first=1, hosts=["node-0", "node-1"])).confounded == []
    assert only_row(base, side("new", WORSE, first=1, hosts=[])).confounded == []


def test_unknown_start_is_a_warning() -> None:
    base, new = side("old", BASE), side("new", WORSE, start=None)
    row = only_row(base, new)
    assert row.confounded == []
    assert any("start of a run is unknown" in warning for warning in row.warnings)


def test_corrected_energies_are_marked() -> None:
    old, new = interleaved(BASE, WORSE, corrected=True)
    text = encoded(compare(old, [new]), "table", [], "attributed").decode()
    assert "  * 62.6 ± 2.0 J" in text
    assert "* corrected: the plain sum counts some energy more than once; --energy plain" in text
    assert only_row(old, new, metrics=["tokens_per_s"]).base.corrected == []


def test_same_content_counts_once() -> None:
    base, new = interleaved([*BASE, 1000.0, 1000.0], WORSE)
    copies = [observation(f"copy_{number}", 1000.0, content="x") for number in range(2)]
    base = Selection("old", [*base.observations[:5], *copies])
    [table] = compare(base, [new]).tables
    assert table.rows[0].base.n == 6
    [left] = table.left_out
    assert (left.side, left.experiment_id, left.reason) == ("base", "copy_1", "copy: the same measurement as copy_0")


def test_content_of_the_base_does_not_count_in_the_candidate() -> None:
    base, new = interleaved(BASE, WORSE)
    new = joined("new", new, Selection("", base.observations[:1]))
    [table] = compare(base, [new]).tables
    assert table.rows[0].new.n == 5
    assert "the same measurement as old_0 of the base" in table.left_out[0].reason
    with pytest.raises(
        ConfigurationError, match="cannot compare 'copy': each run is left out, .* the same measurement"
    ):
        compare(base, [Selection("copy", base.observations)])


def test_excluded_runs_and_runs_without_a_figure_are_named() -> None:
    base, new = interleaved([*BASE, None, 0.0], WORSE)
    base = joined("old", base, Selection("", [observation("partial", 50.0, excluded="lower bound: 3 of 4 processes")]))
    [table] = compare(base, [new]).tables
    assert {one.experiment_id: one.reason for one in table.left_out} == {
        "old_5": "j_per_token is unknown",
        "old_6": "j_per_token is 0, and a ratio needs a value above 0",
        "partial": "lower bound: 3 of 4 processes",
    }


def test_rows_are_the_configurations_of_both_sides() -> None:
    def runs(name: str, sizes: Sequence[int], precision: str, factor: float) -> Selection:
        return joined(
            name,
            *(
                side(
                    f"{name}{size}",
                    [value * size * factor for value in BASE],
                    first=size / 100,
                    configuration={"run.batch_size": size, "run.precision": precision},
                )
                for size in sizes
            ),
        )

    [table] = compare(runs("a", [1, 8, 16], "fp16", 1.0), [runs("b", [8, 16, 32, 64], "int8", 1.1)]).tables
    assert [row.configuration for row in table.rows] == ["batch_size=8", "batch_size=16"]
    assert (table.only_base, table.only_new) == (["batch_size=1"], ["batch_size=32", "batch_size=64"])
    assert table.differs == {"config.run.precision": (["fp16"], ["int8"])}
    assert table.geometric_mean_ratio == pytest.approx(1.1)


def test_rows_are_sorted_by_the_values_of_the_configuration() -> None:
    """The order of ids is another one: 32 is in front of 8."""

    def runs(name: str, first: float, sizes: Sequence[int]) -> Selection:
        sides = (side(f"{name}{size}", BASE, first=first, configuration={"batch_size": size}) for size in sizes)
        return joined(name, *sides)

    [table] = compare(runs("a", 0.0, (1, 32, 8, 128, 16)), [runs("b", 1.0, (32, 1, 8, 256, 64))]).tables
    assert [row.configuration for row in table.rows] == ["batch_size=1", "batch_size=8", "batch_size=32"]
    assert (table.only_base, table.only_new) == (
        ["batch_size=16", "batch_size=128"],
        ["batch_size=64", "batch_size=256"],
    )


def test_labels_leave_out_names_that_repeat_an_earlier_one() -> None:
    facts: list[dict[str, Any]] = [
        {"precision": "fp16", "config.a.dtype": "float16", "config.a.size": 1},
        {"precision": "int8", "config.a.dtype": "int8", "config.a.size": 1},
        {"precision": "int8", "config.a.dtype": "int8", "config.a.size": 2},
    ]
    assert labels(facts) == ["precision=fp16, size=1", "precision=int8, size=1", "precision=int8, size=2"]
    assert labels(facts[:1]) == ["all runs"]


def test_configurations_of_one_side_are_not_pooled() -> None:
    base, new = interleaved(BASE, WORSE)
    mixed = joined("mixed", new, side("other", WORSE, configuration={"batch_size": 2}))
    new = side("four", WORSE, configuration={"batch_size": 4})
    with pytest.raises(ConfigurationError, match="batch_size is 1 in new_0 and 2 in other_0, on the same side; narrow"):
        compare(mixed, [new])
    assert len(compare(base, [mixed]).rows()) == 1


def test_sides_without_a_common_configuration_are_refused() -> None:
    def runs(name: str, pairs: Sequence[tuple[int, int]]) -> Selection:
        return Selection(name, [observation(f"{name}{a}{b}", 1.0, configuration={"a": a, "b": b}) for a, b in pairs])

    with pytest.raises(ConfigurationError, match="no configuration in common; .* differ; pass --ignore KEY"):
        compare(runs("old", [(1, 1), (2, 2)]), [runs("new", [(1, 2), (2, 1)])])


@pytest.mark.parametrize("field", COMPARABLE)
def test_unlike_runs_are_refused_with_field_and_both_values(field: str) -> None:
    base = side("old", BASE)
    new = side("new", WORSE, first=1, comparability={**COMPARABLE, field: "other"})
    with pytest.raises(IncompatibleResultsError) as caught:
        compare(base, [new])
    assert (caught.value.field, caught.value.values) == (field, (COMPARABLE[field], "other"))
    assert caught.value.found == f"{field} is {COMPARABLE[field]!r} in old_0 and 'other' in new_0"
    assert caught.value.advice == f"select runs that agree, or pass --vary {field}"
    assert only_row(base, new, vary=[field]).verdict == "worse"


def test_unknown_fields_are_not_refused() -> None:
    new = side("new", WORSE, first=1, comparability=dict.fromkeys(COMPARABLE))
    assert only_row(side("old", BASE), new).verdict == "worse"


def test_scope_of_the_energy_does_not_matter_for_throughput() -> None:
    new = side("new", WORSE, first=1, comparability={**COMPARABLE, "energy_scope": "other"})
    assert only_row(side("old", BASE), new, metrics=["tokens_per_s"]).verdict == "worse"


@pytest.mark.parametrize(
    ("base", "new", "first", "conditions"),
    [
        (BASE, WORSE, 1, {"worse"}),
        (BASE, WORSE, 60, {"worse", "confounded"}),
        ([62.0, 80.0, 55.0], WORSE, 1, {"undecided"}),
        ([62.0], WORSE, 60, {"undecided"}),
        (WORSE, BASE, 1, set()),
    ],
)
def test_comparison_knows_which_conditions_are_met(
    base: list[float], new: list[float], first: float, conditions: set[str]
) -> None:
    comparison = compare(side("old", base), [side("new", new, first=first)])
    assert {word for word in ("worse", "undecided", "confounded") if comparison.has(word)} == conditions


@pytest.mark.parametrize("form", ["table", "markdown", "json", "junit"])
def test_names_cannot_change_the_format_of_the_output(form: str) -> None:
    hostile = 'a|b <i>&"\x1b[31m\n`\udcff\u202e'
    sides = [
        joined(name, *(side(f"{name}{number}", energies, configuration={"key": value}) for number, value in rows))
        for name, energies, rows in (
            ("old", BASE, [(0, hostile), (1, "plain")]),
            (hostile, WORSE, [(0, hostile), (1, "plain")]),
        )
    ]
    text = encoded(compare(sides[0], sides[1:]), form, ["worse"], "attributed").decode()
    assert "\x1b" not in text
    assert "\u202e" not in text or form == "json"
    if form == "json":
        assert len(json.loads(text)["tables"][0]["rows"]) == 2
    elif form == "junit":
        assert len(ET.fromstring(text)[0].findall("testcase")) == 2  # noqa: S314 - our own text
    elif form == "markdown":
        rows = [line for line in text.splitlines() if line.startswith("| key=")]
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [8, 8]
        assert "<i>" not in text
