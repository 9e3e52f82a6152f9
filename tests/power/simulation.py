"""Simulate comparisons whose truth is known, and count the verdicts."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llm_energy_measure.analysis.comparison import compare
from llm_energy_measure.analysis.pairing import Selection
from llm_energy_measure.analysis.run_order import run_order
from tests.support.observations import observation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.analysis.comparison import Row
    from llm_energy_measure.analysis.observations import Observation


class Conditions(NamedTuple):
    """The noise of simulated runs, and their order.

    Attributes:
        name: What is unusual.
        cv: Coefficient of variation of the base.
        cv_new: Coefficient of variation of the candidate. None for that of the base.
        drift: Change of the level from the first run to the last one, in standard deviations of the base.
        autocorrelation: Correlation of neighbouring errors in time.
        interleaved: Whether the runs have the order of `results order`, or all runs of the base are first.
        blocks: Whether the runs are paired by block.
    """

    name: str
    cv: float = 0.02
    cv_new: float | None = None
    drift: float = 0.0
    autocorrelation: float = 0.0
    interleaved: bool = True
    blocks: bool = False


CLASSES = (
    Conditions("independent runs"),
    Conditions("independent runs, CV 26 %", cv=0.26),
    Conditions("paired by block", blocks=True),
    Conditions("candidate with four times the spread", cv=0.01, cv_new=0.04),
    Conditions("autocorrelation 0.5", autocorrelation=0.5),
    Conditions("autocorrelation 0.5, paired by block", autocorrelation=0.5, blocks=True),
    Conditions("drift of two standard deviations", drift=2.0),
    Conditions("drift of two standard deviations, paired by block", drift=2.0, blocks=True),
    Conditions("drift of two standard deviations, base first", drift=2.0, interleaved=False),
    Conditions("autocorrelation 0.5, base first", autocorrelation=0.5, interleaved=False),
)
"""Conditions under which the false alarms are counted."""


def errors(generator: np.random.Generator, count: int, autocorrelation: float) -> np.ndarray:
    """Return errors with standard deviation 1 in the order of time, by an autoregressive process."""
    white = generator.standard_normal(count)
    found = white.copy()
    for index in range(1, count):
        found[index] = autocorrelation * found[index - 1] + math.sqrt(1 - autocorrelation**2) * white[index]
    return found


def sides(
    generator: np.random.Generator, n: int, conditions: Conditions, *, change: float = 0.0, configuration: int = 0
) -> tuple[Selection, Selection]:
    """Return two sides with `n` runs each. The true ratio is 1 + change."""
    if conditions.interleaved:
        plan = run_order(["old", "new"], n, int(generator.integers(2**32)), warm_up=False)
        order = [(run.configuration, run.block) for run in plan]
    else:
        order = [(name, block) for name in ("old", "new") for block in range(1, n + 1)]
    noise = errors(generator, len(order), conditions.autocorrelation)
    drift = conditions.drift * np.linspace(-0.5, 0.5, len(order))
    runs: dict[str, list[Observation]] = {"old": [], "new": []}
    for minute, (name, block) in enumerate(order):
        cv = conditions.cv_new if name == "new" and conditions.cv_new is not None else conditions.cv
        level = (1 + change if name == "new" else 1.0) * math.exp(conditions.cv * drift[minute])
        runs[name].append(
            observation(
                f"{name}_{block}_{configuration}",
                level * math.exp(cv * noise[minute]),
                minute=minute,
                configuration={"number": configuration},
                tags={"block": str(block)},
            )
        )
    return Selection("old", runs["old"]), Selection("new", runs["new"])


def rows(
    generator: np.random.Generator, n: int, conditions: Conditions, changes: Sequence[float], margin: float
) -> list[Row]:
    """Return the rows of one simulated comparison. Each change is the truth of one configuration."""
    pairs = [
        sides(generator, n, conditions, change=change, configuration=number) for number, change in enumerate(changes)
    ]
    old, new = (
        Selection(name, [one for pair in pairs for one in pair[index].observations])
        for index, name in enumerate(("old", "new"))
    )
    block_of = (lambda one: one.tags["block"]) if conditions.blocks else None
    return compare(old, [new], margin=margin, block_of=block_of).rows()


def verdicts(
    n: int,
    conditions: Conditions,
    *,
    changes: Sequence[float] = (0.0,),
    margin: float = 0.03,
    trials: int = 2000,
    seed: int = 1,
) -> Counter[str]:
    """Return the number of trials by the verdict of the first configuration, and by its mark `confounded`."""
    generator = np.random.default_rng([seed, n, len(changes)])
    found: Counter[str] = Counter()
    for _ in range(trials):
        first = rows(generator, n, conditions, changes, margin)[0]
        found[str(first.verdict)] += 1
        found["confounded"] += bool(first.confounded)
    return found


def standard_error(share: float, trials: int) -> float:
    """Return the standard error of a share."""
    return math.sqrt(share * (1 - share) / trials)
