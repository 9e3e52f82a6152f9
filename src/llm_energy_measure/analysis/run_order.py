"""Plan the order of runs: randomised blocks, in which each configuration runs once per block.

A slow change of the machine (temperature, other load, a new driver) then affects all configurations equally, and a
comparison can pair the runs of each block.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct


class PlannedRun(Struct, frozen=True, kw_only=True):
    """One run of a plan.

    Attributes:
        configuration: Name of the configuration.
        block: Number of the block, from 1. 0 is a warm-up run.
        experiment_id: Id for the run. Repeats have the ending `_c<n>` from 0. A warm-up has the ending `_warmup`.
    """

    configuration: str
    block: int
    experiment_id: str


def run_order(names: Sequence[str], repeats: int, seed: int, *, warm_up: bool = True) -> list[PlannedRun]:
    """Return the runs in their order: a warm-up of each configuration, then one random order per block.

    Args:
        names: Names of the configurations, each once.
        repeats: Number of blocks, which is the number of repeats of each configuration.
        seed: The same seed gives the same order.
        warm_up: Whether the plan begins with one warm-up run of each configuration. A warm-up run is no repeat.

    Example:
        >>> [run.experiment_id for run in run_order(["a", "b"], 2, seed=1, warm_up=False)]
        ['a_c0', 'b_c0', 'b_c1', 'a_c1']
    """
    generator = random.Random(seed)  # noqa: S311 - a plan must be reproducible, and is no secret
    runs = []
    for block in range(0 if warm_up else 1, repeats + 1):
        for name in generator.sample(names, len(names)):
            ending = f"c{block - 1}" if block else "warmup"
            runs.append(PlannedRun(configuration=name, block=block, experiment_id=f"{name}_{ending}"))
    return runs
