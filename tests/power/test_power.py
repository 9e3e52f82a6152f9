"""Verdicts on simulated runs: few false alarms, and a planted change is found (`make power` has more conditions)."""

from __future__ import annotations

import pytest

from tests.power.simulation import CLASSES, Conditions, standard_error, verdicts

TRIALS = 2000
NO_MARGIN = 1e-9
BASE_FIRST = next(one for one in CLASSES if one.drift and not one.interleaved)


@pytest.mark.parametrize("conditions", [CLASSES[0], CLASSES[3]], ids=lambda conditions: conditions.name)
def test_equal_sides_give_few_false_alarms(conditions: Conditions) -> None:
    found = verdicts(5, conditions, margin=NO_MARGIN, trials=TRIALS)
    assert (found["worse"] + found["better"]) / TRIALS <= 0.05 + 2 * standard_error(0.05, TRIALS)
    assert found["confounded"] == 0


def test_drift_gives_false_alarms_only_in_marked_rows() -> None:
    found = verdicts(5, BASE_FIRST, margin=NO_MARGIN, trials=200)
    assert found["confounded"] == 200
    assert (found["worse"] + found["better"]) / 200 > 0.15
    interleaved = verdicts(5, BASE_FIRST._replace(interleaved=True), margin=NO_MARGIN, trials=200)
    assert (interleaved["worse"] + interleaved["better"]) / 200 <= 0.05


@pytest.mark.parametrize(("n", "share"), [(3, 0.50), (5, 0.90), (10, 0.98)])
def test_planted_change_is_found_as_often_as_documented(n: int, share: float) -> None:
    """A change of 5 % at CV 2 % and margin 3 %."""
    found = verdicts(n, Conditions("planted"), changes=[0.05], trials=1000)
    assert found["worse"] / 1000 == pytest.approx(share, abs=0.05)
