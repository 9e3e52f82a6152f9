"""Compare candidates with a base: ratio, interval, p-value and verdict of each configuration.

The unit of observation is the repeat, never the process or the request: the processes of a run have the same
conditions. `docs/explanation/comparison.md` describes the rules, and how often the verdicts are right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct, field

from llm_energy_measure.analysis.observations import METRICS, Observation
from llm_energy_measure.analysis.pairing import (
    Facts,
    LeftOut,
    Pair,
    Selection,
    labels,
    pair_selections,
    require_comparable,
)
from llm_energy_measure.analysis.verdicts import DEFAULT_MARGIN, Verdict, further_repeats, verdict_of
from llm_energy_measure.domain.configuration import Value
from llm_energy_measure.domain.ratio_tests import (
    RatioEstimate,
    geometric_mean,
    holm,
    paired_ratio,
    ratio_of_means,
    welch_ratio,
)
from llm_energy_measure.domain.statistics import sample_statistics
from llm_energy_measure.exceptions import ConfigurationError, IncompatibleResultsError, LLMEnergyMeasureError

_FEWEST_BLOCKS = 3
# Rounding can make equal figures differ by this relative error.
_ROUNDING = 1e-12


class SideFigures(Struct, frozen=True, kw_only=True):
    """The runs of one side in one row, and their mean in the unit of the metric.

    Attributes:
        n: Number of runs.
        mean: Arithmetic mean.
        half_width: Half of the 95 % t interval of the mean. None for one run.
        experiment_ids: Ids of the runs.
        corrected: Ids of the runs whose plain sum counts some energy more than once. Their figures use the attributed
            energy.
    """

    n: int
    mean: float
    half_width: float | None
    experiment_ids: list[str]
    corrected: list[str] = field(default_factory=list)


class Row(Struct, frozen=True, kw_only=True):
    """The comparison of one configuration.

    Attributes:
        configuration: Short name of the configuration.
        facts: The values of the configuration that both sides share.
        base: Runs of the base.
        new: Runs of the candidate.
        ratio: Geometric mean of the candidate divided by that of the base.
        interval: 95 % interval of the ratio; not adjusted for the number of rows. None if no test is possible.
        p: p-value of the hypothesis that the ratio is 1; adjusted by Holm's method. None if no test is possible.
        p_equivalent: Greater p-value of the two one-sided tests of equivalence. None if no test is possible.
        method: `welch` or `paired`. None if no test is possible.
        blocks: Number of common blocks. None if the runs are not paired.
        verdict: None if a side has only one run. `undecided` if no test is possible for another reason.
        further_repeats: Number of further repeats of each side (or of further blocks) that would decide an `undecided`
            verdict if ratio and spread stay the same. None for other verdicts, if no test is possible, and if more
            than `MOST_REPEATS` are necessary.
        confounded: `order` if all runs of one side started before all runs of the other, `host` if the sides ran on
            different hosts.
        warnings: Reasons for caution.
    """

    configuration: str
    facts: Facts
    base: SideFigures
    new: SideFigures
    ratio: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_equivalent: float | None = None
    method: Literal["welch", "paired"] | None = None
    blocks: int | None = None
    verdict: Verdict | None = None
    further_repeats: int | None = None
    confounded: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class CandidateTable(Struct, frozen=True, kw_only=True):
    """The comparison of one candidate with the base in one metric.

    Attributes:
        candidate: Name of the candidate.
        metric: Name of the metric.
        unit: Unit of the metric.
        better: `lower` or `higher`: the values that are better.
        rows: One row for each configuration that both sides have.
        geometric_mean_ratio: Geometric mean of the ratios of the rows.
        only_base: Names of the configurations that only the base has.
        only_new: Names of the configurations that only the candidate has.
        differs: The values of the base and of the candidate, by the name of each fact in which the sides differ.
        left_out: Runs that take part in no comparison: excluded runs, runs without a figure, and copies of other runs.
    """

    candidate: str
    metric: str
    unit: str
    better: Literal["lower", "higher"]
    rows: list[Row]
    geometric_mean_ratio: float
    only_base: list[str]
    only_new: list[str]
    differs: dict[str, tuple[list[Value | None], list[Value | None]]]
    left_out: list[LeftOut]


class NotCompared(Struct, frozen=True, kw_only=True):
    """A candidate without a table.

    Attributes:
        candidate: Name of the candidate.
        metric: Name of the metric.
        reason: Why the comparison was not done, and what to do.
        field: The field in which the runs differ; None for another reason.
        values: Two values of this field.
    """

    candidate: str
    metric: str
    reason: str
    field: str | None = None
    values: list[str] = []


class Comparison(Struct, frozen=True, kw_only=True):
    """Candidates compared with one base.

    Attributes:
        base: Name of the base.
        margin: Relative difference that matters.
        tests: Number of rows with a p-value. Holm's adjustment counts all of them.
        tables: One table for each candidate and metric.
        not_compared: Candidates and metrics that were not compared.
    """

    base: str
    margin: float
    tests: int
    tables: list[CandidateTable]
    not_compared: list[NotCompared] = field(default_factory=list)

    def rows(self) -> list[Row]:
        """Return the rows of all tables."""
        return [row for table in self.tables for row in table.rows]

    def has(self, condition: str) -> bool:
        """Return True if a row meets a condition: a verdict, or `confounded`. No verdict counts as `undecided`."""
        if condition == "confounded":
            return any(row.confounded for row in self.rows())
        return any((row.verdict or "undecided") == condition for row in self.rows())


def compare(
    base: Selection,
    candidates: Sequence[Selection],
    *,
    metrics: Sequence[str] = ("j_per_token",),
    margin: float = DEFAULT_MARGIN,
    vary: Collection[str] = (),
    ignore: Collection[str] = (),
    block_of: Callable[[Observation], str | None] | None = None,
    keep_going: bool = False,
) -> Comparison:
    """Compare candidates with a base.

    Args:
        base: The base.
        candidates: At least one candidate.
        metrics: Names from `METRICS`.
        margin: Relative difference that matters, greater than 0.
        vary: Fields of `COMPARABLE_FIELDS` that may differ between the sides, and facts that do not separate the pairs
            of configurations.
        ignore: Facts that separate no configurations: runs that differ only in these facts are repeats.
        block_of: Function that returns the block of a run; None for a run without a block. With at least three blocks
            that contain runs of both sides, the test is paired and uses only runs in these blocks. Without the
            function, no test is paired.
        keep_going: List a candidate that cannot be compared in `not_compared`, and compare the other candidates.

    Raises:
        ConfigurationError: The selections cannot be paired. With `keep_going`, only if no candidate can be compared.
        IncompatibleResultsError: The runs of a pair must not be compared. With `keep_going`, only if no candidate can
            be compared.
    """
    rules = _Rules(vary=vary, ignore=ignore, block_of=block_of)
    tables, not_compared = _tables(base, candidates, metrics, rules, keep_going=keep_going)
    p_values = [one.p_different() for _, estimates in tables for one in estimates if one is not None]
    adjusted = iter(zip(p_values, holm(p_values), strict=True))
    decided = []
    for table, estimates in tables:
        lower = table.better == "lower"
        rows = [
            row if estimate is None else _decided(row, estimate, next(adjusted), margin, lower=lower)
            for row, estimate in zip(table.rows, estimates, strict=True)
        ]
        decided.append(msgspec.structs.replace(table, rows=rows))
    return Comparison(base=base.name, margin=margin, tests=len(p_values), tables=decided, not_compared=not_compared)


def _tables(
    base: Selection, candidates: Sequence[Selection], metrics: Sequence[str], rules: _Rules, *, keep_going: bool
) -> tuple[list[tuple[CandidateTable, list[RatioEstimate | None]]], list[NotCompared]]:
    """Return the tables without verdicts, and the candidates without a table.

    If all candidates fail, the function raises the first error.
    """
    tables, not_compared = [], []
    first: LLMEnergyMeasureError | None = None
    for candidate in candidates:
        for metric in metrics:
            try:
                tables.append(_candidate_table(base, candidate, metric, rules))
            except (ConfigurationError, IncompatibleResultsError) as error:
                if not keep_going:
                    raise
                first = first or error
                unlike = error if isinstance(error, IncompatibleResultsError) else None
                not_compared.append(
                    NotCompared(
                        candidate=candidate.name,
                        metric=metric,
                        reason=str(error),
                        field=None if unlike is None else unlike.field,
                        values=[str(value) for value in (unlike and unlike.values) or ()],
                    )
                )
    if first is not None and not tables:
        raise first
    return tables, not_compared


class _Rules(NamedTuple):
    """The arguments of `compare` with the same names."""

    vary: Collection[str]
    ignore: Collection[str]
    block_of: Callable[[Observation], str | None] | None


def _candidate_table(
    base: Selection, candidate: Selection, metric: str, rules: _Rules
) -> tuple[CandidateTable, list[RatioEstimate | None]]:
    """Return a table without verdicts, and the estimate of each row (None for rows without a test)."""
    sides = (_with_figure(base, metric), _with_figure(candidate, metric))
    pairing = pair_selections(*sides, vary=rules.vary, ignore=rules.ignore)
    names = labels([*(pair.facts for pair in pairing.pairs), *pairing.only_base, *pairing.only_new])
    rows, estimates = [], []
    for pair, name in zip(pairing.pairs, names, strict=False):
        require_comparable(pair, rules.vary, uses_energy=METRICS[metric].uses_energy)
        row, estimate = _row(pair, name, metric, rules.block_of)
        rows.append(row)
        estimates.append(estimate)
    first_new = len(rows) + len(pairing.only_base)
    table = CandidateTable(
        candidate=candidate.name,
        metric=metric,
        unit=METRICS[metric].unit,
        better=METRICS[metric].direction,
        rows=rows,
        geometric_mean_ratio=geometric_mean([row.ratio for row in rows]),
        only_base=names[len(rows) : first_new],
        only_new=names[first_new:],
        differs=pairing.differs,
        left_out=pairing.left_out,
    )
    return table, estimates


def _with_figure(selection: Selection, metric: str) -> Selection:
    """Return the selection with each run excluded whose value is unknown, infinite, or not greater than 0."""
    runs = []
    for one in selection.observations:
        value = one.values.get(metric)
        if one.excluded is None and not (value is not None and 0 < value < math.inf):
            reason = (
                f"{metric} is unknown" if value is None else f"{metric} is {value:g}, and a ratio needs a value above 0"
            )
            one = msgspec.structs.replace(one, excluded=reason)  # noqa: PLW2901 - the changed run replaces the run
        runs.append(one)
    return Selection(selection.name, runs)


def _row(
    pair: Pair, name: str, metric: str, block_of: Callable[[Observation], str | None] | None
) -> tuple[Row, RatioEstimate | None]:
    """Return the row of a pair before its test, and its estimated ratio (None if no test is possible)."""
    blocks = _common_blocks(pair, block_of) if block_of is not None else {}
    is_paired = len(blocks) >= _FEWEST_BLOCKS
    warnings = _warnings(pair, len(blocks) if block_of is not None else None)
    if is_paired:
        old_runs, new_runs = ([one for block in blocks.values() for one in block[side]] for side in (0, 1))
        pair = Pair(pair.facts, old_runs, new_runs)
    old, new = _values(pair.base, metric), _values(pair.new, metric)
    errors = (_smallest_error(pair.base, metric), _smallest_error(pair.new, metric))
    estimate: RatioEstimate | None = None
    if is_paired:
        old_means, new_means = (
            [geometric_mean(_values(block[side], metric)) for block in blocks.values()] for side in (0, 1)
        )
        estimate = paired_ratio(old_means, new_means, math.hypot(*errors))
    elif min(len(old), len(new)) > 1:
        estimate = welch_ratio(old, new, errors)
    has_no_spread = estimate is not None and min(estimate.variances) < _ROUNDING**2
    if has_no_spread:
        equal = "the ratios of all blocks" if is_paired else "all figures of a side"
        warnings.append(f"{equal} are equal, and the resolution of the sensor is unknown: no test is possible")
    row = Row(
        configuration=name,
        facts=pair.facts,
        base=_figures(pair.base, old, metric),
        new=_figures(pair.new, new, metric),
        ratio=ratio_of_means(old, new) if estimate is None else estimate.ratio,
        method=None if estimate is None or has_no_spread else "paired" if is_paired else "welch",
        blocks=len(blocks) if is_paired else None,
        verdict="undecided" if has_no_spread else None,
        confounded=[] if estimate is None else _confounded(pair),
        warnings=warnings,
    )
    return row, None if has_no_spread else estimate


def _decided(row: Row, estimate: RatioEstimate, p_values: tuple[float, float], margin: float, *, lower: bool) -> Row:
    """Return the row with its test and verdict.

    Args:
        row: The row.
        estimate: Estimate of the ratio.
        p_values: p-value before and after the adjustment.
        margin: Relative difference that matters.
        lower: Whether lower values are better.
    """
    p_equivalent = estimate.p_equivalent(margin)
    verdict = verdict_of(estimate, p_values[1], p_equivalent, margin, is_lower_better=lower)
    return msgspec.structs.replace(
        row,
        interval=estimate.interval(),
        p=p_values[1],
        p_equivalent=p_equivalent,
        verdict=verdict,
        further_repeats=further_repeats(estimate, p_values, margin) if verdict == "undecided" else None,
    )


def _values(runs: Sequence[Observation], metric: str) -> list[float]:
    """Return the values of a metric. `_with_figure` excluded the runs without a value."""
    return [value for one in runs if (value := one.values[metric]) is not None]


def _smallest_error(side: Sequence[Observation], metric: str) -> float:
    """Return the relative standard deviation of the rounding error; 0 if the resolution of the sensor is unknown.

    The function returns the greatest value of all runs. A rounding error has a uniform distribution, so its standard
    deviation is the resolution divided by the square root of 12.
    """
    resolutions = [one.resolution.get(metric) or 0.0 for one in side]
    relative = [resolution / value for resolution, value in zip(resolutions, _values(side, metric), strict=True)]
    return max(relative) / math.sqrt(12)


def _figures(side: Sequence[Observation], values: Sequence[float], metric: str) -> SideFigures:
    statistics = sample_statistics(values)
    assert statistics.mean is not None  # noqa: S101 - each side of a pair has a run
    half_width = None if statistics.ci_95_upper is None else statistics.ci_95_upper - statistics.mean
    return SideFigures(
        n=len(values),
        mean=statistics.mean,
        half_width=half_width,
        experiment_ids=[one.experiment_id for one in side],
        corrected=[one.experiment_id for one in side if one.corrected and METRICS[metric].uses_energy],
    )


def _common_blocks(
    pair: Pair, block_of: Callable[[Observation], str | None]
) -> dict[str, tuple[list[Observation], list[Observation]]]:
    """Return the runs of both sides by block, for the blocks that have runs of both sides."""
    blocks: dict[str, tuple[list[Observation], list[Observation]]] = {}
    for index, side in enumerate((pair.base, pair.new)):
        for one in side:
            if (name := block_of(one)) is not None:
                blocks.setdefault(name, ([], []))[index].append(one)
    return {name: sides for name, sides in sorted(blocks.items()) if all(sides)}


def _confounded(pair: Pair) -> list[str]:
    """Return `order` and `host` if the sides differ in them; see `Row.confounded`."""
    found = []
    starts = [[_moment(one.start) for one in side] for side in (pair.base, pair.new)]
    old, new = ([moment for moment in side if moment is not None] for side in starts)
    if old and new and (max(old) < min(new) or max(new) < min(old)):
        found.append("order")
    hosts = [{host for one in side for host in one.hosts} for side in (pair.base, pair.new)]
    if all(hosts) and not hosts[0] & hosts[1]:
        found.append("host")
    return found


def _moment(time: datetime | None) -> float | None:
    """Return a time in seconds since 1970-01-01 UTC. A time without UTC offset is UTC."""
    if time is None:
        return None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def _warnings(pair: Pair, blocks: int | None) -> list[str]:
    """Return the reasons for caution. `blocks` is the number of common blocks; None without `block_of`."""
    found = []
    least = min(len(pair.base), len(pair.new))
    if least == 1:
        found.append("one run on a side: the ratio has no interval and no verdict; record more repeats")
    elif least == 2:
        found.append("two runs on a side: one unusual run can decide the verdict; record at least three")
    if blocks is not None and blocks < _FEWEST_BLOCKS:
        found.append(f"{blocks} common blocks: the test is not paired; a paired test needs at least {_FEWEST_BLOCKS}")
    if any(one.start is None for one in (*pair.base, *pair.new)):
        found.append("the start of a run is unknown, so the order of the runs was not checked")
    return found
