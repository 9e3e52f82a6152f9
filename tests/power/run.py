"""Simulate comparisons and print how often their verdicts are right (`make power`).

python -m tests.power.run [--trials 2000] [--seed 1]

The exit status is 1 if the false alarms of interleaved runs are more than 5 % plus two standard errors, or if a planted
change of 5 % at CV 2 % and margin 3 % is not found as often as the documentation says.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.power.simulation import CLASSES, Conditions, standard_error, verdicts

REPEATS = (3, 5, 10)
FOUND = {3: 0.50, 5: 0.90, 10: 0.98}
TOLERANCE = 0.05
_NO_MARGIN = 1e-9


def _alarms(task: tuple[Conditions, int, float], trials: int, seed: int) -> tuple[float, float]:
    """The share of trials with a false verdict, and the share with the mark `confounded`."""
    conditions, n, margin = task
    found = verdicts(n, conditions, margin=margin, trials=trials, seed=seed)
    return (found["worse"] + found["better"]) / trials, found["confounded"] / trials


def _power(task: tuple[int, int, int], trials: int, seed: int) -> float:
    """The share of trials in which a change of 5 % is found: repeats, rows, and rows that change."""
    n, rows, changed = task
    changes = [0.05] * changed + [0.0] * (rows - changed)
    return verdicts(n, Conditions("planted"), changes=changes, trials=trials, seed=seed)["worse"] / trials


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate comparisons, and count right and wrong verdicts.")
    parser.add_argument("--trials", type=int, default=2000, help="trials of each class [default: 2000]")
    parser.add_argument("--seed", type=int, default=1, help="seed of all trials [default: 1]")
    options = parser.parse_args()
    limit = 0.05 + 2 * standard_error(0.05, options.trials)
    broken = []
    settings = {"trials": options.trials, "seed": options.seed}
    with ProcessPoolExecutor() as pool:
        print(f"false alarms in percent: no change, {options.trials} trials, margin 3 % (without a margin)")
        print(f"{'':52}" + "".join(f"{f'n = {n}':>14}" for n in REPEATS))
        tasks = [(one, n, margin) for one in CLASSES for n in REPEATS for margin in (0.03, _NO_MARGIN)]
        shares = iter(pool.map(partial(_alarms, **settings), tasks))
        for one in CLASSES:
            cells = ""
            for n in REPEATS:
                (alarms, marked), (without_margin, _) = next(shares), next(shares)
                cells += f"{100 * alarms:7.1f} ({100 * without_margin:4.1f})"
                if marked != float(not one.interleaved) or (one.interleaved and alarms > limit):
                    broken.append(f"{one.name}, n = {n}: {alarms:.1%} false alarms, {marked:.0%} marked")
            print(f"{one.name:52}{cells}", flush=True)
        print("\na change of 5 % is found, in percent of the trials: CV 2 %, margin 3 %")
        print(f"{'':52}" + "".join(f"{f'n = {n}':>14}" for n in REPEATS))
        for rows, changed in ((1, 1), (12, 12), (12, 1)):
            found = list(pool.map(partial(_power, **settings), [(n, rows, changed) for n in REPEATS]))
            name = f"{rows} row{'s' if rows > 1 else ''}, {changed} changed"
            print(f"{name:52}" + "".join(f"{100 * share:14.1f}" for share in found), flush=True)
            if rows == 1:
                broken += [
                    f"n = {n}: found in {share:.1%}"
                    for n, share in zip(REPEATS, found, strict=True)
                    if abs(share - FOUND[n]) > TOLERANCE
                ]
    print("\n".join(["", f"{len(broken)} promises are broken", *broken]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
