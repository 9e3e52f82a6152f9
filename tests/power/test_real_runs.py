"""A/A: halves of one configuration, drawn from real repeated runs, rarely differ."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from llm_energy_measure.analysis.comparison import compare
from llm_energy_measure.analysis.pairing import Selection
from tests.power.simulation import standard_error
from tests.support.observations import observation

RUNS = Path(__file__).resolve().parents[1] / "data" / "repeated_runs.json"
TRIALS = 2000


def halves(n: int, margin: float) -> Counter[str]:
    """Return the number of trials by verdict. Trials with the mark `confounded` are counted as this mark only."""
    recorded = json.loads(RUNS.read_bytes())
    runs = [
        observation(f"run_{number}", joules, minute=start / 60)
        for number, (start, joules) in enumerate(zip(recorded["start_sec"], recorded["j_per_token"], strict=True))
    ]
    generator = np.random.default_rng([1, n])
    found: Counter[str] = Counter()
    for _ in range(TRIALS):
        drawn = generator.permutation(len(runs))[: 2 * n]
        old, new = (
            Selection(name, [runs[index] for index in half]) for name, half in (("old", drawn[:n]), ("new", drawn[n:]))
        )
        [row] = compare(old, [new], margin=margin).rows()
        found["confounded" if row.confounded else str(row.verdict)] += 1
    return found


@pytest.mark.parametrize("n", [3, 5, 10])
def test_halves_of_real_repeated_runs_give_few_false_alarms(n: int) -> None:
    found = halves(n, margin=1e-9)
    unmarked = TRIALS - found["confounded"]
    assert (found["worse"] + found["better"]) / unmarked <= 0.05 + 2 * standard_error(0.05, unmarked)
    assert unmarked / TRIALS > 0.85
