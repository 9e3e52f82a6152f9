"""Simulate many experiments of each class, print a table, and exit with 1 if a law is broken (`make truth`).

python -m tests.truth.run [--runs 500] [--seed 1] [--class SUBSTRING]
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from tests.truth.classes import CLASSES
from tests.truth.laws import described, outcomes_of, summary_of, violations

if TYPE_CHECKING:
    from tests.truth.laws import Summary

_BY_NAME = {simulated.name: simulated for simulated in CLASSES}


def judged(name: str, seed: int, runs: int) -> tuple[Summary, list[str]]:
    """The row of a class, and a paragraph for each law that it breaks."""
    simulated = _BY_NAME[name]
    outcomes = outcomes_of(simulated, seed, runs)
    broken = [f"{name}: {described(violation)}" for violation in violations(simulated, outcomes)]
    return summary_of(name, outcomes), broken


def _row(summary: Summary) -> str:
    shares = (summary.inside, summary.exact, summary.estimated, summary.undetermined, summary.right, summary.accused)
    cells = "".join("       -" if share is None else f"{100 * share:8.1f}" for share in shares)
    return f"{summary.name:40}{cells}{100 * summary.width:10.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate experiments with known true energy, and judge them.")
    parser.add_argument("--runs", type=int, default=500, help="runs of each class [default: 500]")
    parser.add_argument("--seed", type=int, default=1, help="seed of all runs [default: 1]")
    parser.add_argument("--class", dest="wanted", default="", help="simulate only classes whose name contains this")
    options = parser.parse_args()
    names = [name for name in _BY_NAME if options.wanted in name]
    print(f"{len(names)} classes, {options.runs} runs each, seed {options.seed}; shares and widths in percent")
    print(f"{'class':40}  inside   exact  estim. undeter   right accused     width")
    broken: list[str] = []
    with ProcessPoolExecutor() as pool:
        for summary, found in pool.map(partial(judged, seed=options.seed, runs=options.runs), names):
            print(_row(summary), flush=True)
            broken += found
    print(f"\n{len(broken)} laws are broken" + "".join(f"\n\n{paragraph}" for paragraph in broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
