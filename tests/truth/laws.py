"""The laws that the engine's judgements on a class of experiments have to obey."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from tests.truth.engine import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.truth.classes import SimulatedClass
    from tests.truth.engine import Judgement
    from tests.truth.experiment import Experiment

INSIDE_SHARE = 0.99
ACCUSED_SHARE = 0.01
FULL_SHARE = 0.97
NONE_SHARE = 0.95
EDGE_SLACK = 0.03
"""Fraction of the truth that a point may be off because windows have edges."""

_SMALL = 100
"""In fewer runs than these, one exception to a law is allowed: a share of 1 % is less than one run."""


@dataclass(frozen=True)
class Outcome:
    """One run, and the engine's judgement on it.

    Attributes:
        number: Number of the run.
        experiment: The experiment with its truth.
        judgement: What the engine says.
        noise: Standard deviation of a reading, relative.
    """

    number: int
    experiment: Experiment
    judgement: Judgement
    noise: float

    @property
    def slack_j(self) -> float:
        """Joules by which noise moves a right answer."""
        return max(0.01, 4 * self.noise) * self.experiment.truth_j

    @property
    def is_inside(self) -> bool:
        """Whether the truth is inside the bounds."""
        bounds = self.judgement.bounds_j
        return bounds is not None and bounds[0] - self.slack_j <= self.experiment.truth_j <= bounds[1] + self.slack_j

    @property
    def has_point(self) -> bool:
        return self.judgement.point_j is not None

    @property
    def is_right(self) -> bool:
        """Whether a point is given and is the truth."""
        point, truth = self.judgement.point_j, self.experiment.truth_j
        return point is not None and abs(point - truth) <= self.slack_j + EDGE_SLACK * truth

    @property
    def is_accused(self) -> bool:
        """Whether an honest experiment has an error."""
        return self.experiment.is_honest and bool(self.judgement.errors)

    @property
    def is_over_count_passed(self) -> bool:
        """Whether the plain sum is far too high, and the verification passes all the same."""
        margin = 1.1 + 4 * self.noise / math.sqrt(max(1, self.experiment.readers))
        return self.experiment.plain_j > margin * self.experiment.truth_j and self.judgement.is_passed

    @property
    def is_consistent(self) -> bool:
        """Whether point, bounds and status agree, and `exact` has recorded scopes and windows."""
        judgement = self.judgement
        if judgement.bounds_j is None or (judgement.point_j is None) != (judgement.status == "undetermined"):
            return False
        low, high = judgement.bounds_j
        point = high if judgement.point_j is None else judgement.point_j
        rounding = 1e-9 * high
        if not low - rounding <= point <= high + rounding:
            return False
        if judgement.status != "exact":
            return True
        evidence = self.experiment.meta["plan"].evidence
        has_scopes = evidence.scope or evidence.devices == "energies"
        # A run of the same length as the window is the window.
        has_windows = evidence.window in ("full", "run")
        return has_scopes and has_windows and high - low <= 0.01 * high + rounding

    @property
    def width(self) -> float:
        """Width of the bounds relative to the truth."""
        bounds = self.judgement.bounds_j
        return math.inf if bounds is None else (bounds[1] - bounds[0]) / self.experiment.truth_j


@dataclass(frozen=True)
class Violation:
    """A law that a class breaks.

    Attributes:
        law: What the law requires.
        found: What was found instead.
        examples: Some of the runs that break it.
    """

    law: str
    found: str
    examples: tuple[Outcome, ...]


def engine(experiment: Experiment) -> Judgement:
    """The judgement of the engine of attribution on an experiment."""
    return judge(experiment.records, experiment.meta["assume"])


def outcomes_of(
    simulated: SimulatedClass, seed: int, runs: int, judged_by: Callable[[Experiment], Judgement] = engine
) -> list[Outcome]:
    """Simulate a class, and let an engine judge each run."""
    outcomes = []
    for number in range(runs):
        experiment = simulated.run(seed, number)
        judgement = judged_by(experiment)
        outcomes.append(Outcome(number, experiment, judgement, experiment.meta["plan"].noise))
    return outcomes


def violations(simulated: SimulatedClass, outcomes: list[Outcome]) -> Iterator[Violation]:
    """The laws that the outcomes of a class break."""
    pointed = [outcome for outcome in outcomes if outcome.has_point]
    honest = [outcome for outcome in outcomes if outcome.experiment.is_honest]
    laws: list[tuple[str, list[Outcome], Callable[[Outcome], bool], float]] = [
        ("the truth is inside the bounds", outcomes, lambda outcome: outcome.is_inside, INSIDE_SHARE),
        ("honest experiments have no error", honest, lambda outcome: not outcome.is_accused, 1 - ACCUSED_SHARE),
        ("point, bounds, status and evidence agree", outcomes, lambda outcome: outcome.is_consistent, 1.0),
        ("no over-count passes", outcomes, lambda outcome: not outcome.is_over_count_passed, 1.0),
    ]
    if simulated.always:
        laws.append(("a point is always given", outcomes, lambda outcome: outcome.has_point, 1.0))
    if simulated.level == "full":
        laws.append(("points are right", pointed, lambda outcome: outcome.is_right, FULL_SHARE))
        if not simulated.exempt:
            laws.append(("a point is given", outcomes, lambda outcome: outcome.has_point, FULL_SHARE))
    elif simulated.level == "none" or simulated.exempt:
        laws.append(("points are right", pointed, lambda outcome: outcome.is_right, NONE_SHARE))
    else:
        laws.append(("a point is given and right", outcomes, lambda outcome: outcome.is_right, NONE_SHARE))
    for law, cases, holds, share in laws:
        broken = [outcome for outcome in cases if not holds(outcome)]
        allowed = math.floor((1 - share) * len(cases) + 1e-9)
        if len(outcomes) < _SMALL and share < 1:
            allowed = max(allowed, 1)
        if len(broken) > allowed:
            found = f"{len(broken)} of {len(cases)} break it, {allowed} may"
            yield Violation(law, found, tuple(broken[:3]))


def described(violation: Violation) -> str:
    """A paragraph about a broken law, with the facts of some runs."""
    return "\n    ".join([f"{violation.law}: {violation.found}", *map(_run_described, violation.examples)])


def _run_described(outcome: Outcome) -> str:
    experiment, judgement = outcome.experiment, outcome.judgement
    bounds = "none" if judgement.bounds_j is None else "[{:,.0f}, {:,.0f}]".format(*judgement.bounds_j)
    point = "none" if judgement.point_j is None else f"{judgement.point_j:,.0f}"
    errors = ", ".join(judgement.errors) or "none"
    return (
        f"run {outcome.number}: truth {experiment.truth_j:,.0f} J, plain {experiment.plain_j:,.0f}, point {point}, "
        f"bounds {bounds}, {judgement.status} {'+'.join(judgement.basis)}, errors {errors}; "
        f"readings {experiment.meta['readings_j']}, windows {experiment.meta['windows']}"
    )


@dataclass(frozen=True)
class Summary:
    """Shares of a class: one row of the table. A share is None where no run qualifies."""

    name: str
    inside: float | None
    exact: float | None
    estimated: float | None
    undetermined: float | None
    right: float | None
    accused: float | None
    width: float


def summary_of(name: str, outcomes: list[Outcome]) -> Summary:
    """Shares over the outcomes of a class."""

    def share(cases: list[Outcome], holds: Callable[[Outcome], bool]) -> float | None:
        return sum(map(holds, cases)) / len(cases) if cases else None

    def status(wanted: str) -> float | None:
        return share(outcomes, lambda outcome: outcome.judgement.status == wanted)

    return Summary(
        name=name,
        inside=share(outcomes, lambda outcome: outcome.is_inside),
        exact=status("exact"),
        estimated=status("estimated"),
        undetermined=status("undetermined"),
        right=share([outcome for outcome in outcomes if outcome.has_point], lambda outcome: outcome.is_right),
        accused=share(
            [outcome for outcome in outcomes if outcome.experiment.is_honest], lambda outcome: outcome.is_accused
        ),
        width=median(outcome.width for outcome in outcomes),
    )
