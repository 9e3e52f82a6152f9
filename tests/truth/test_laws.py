"""The laws of attribution on a few runs of each simulated class; `make truth` checks them on many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.truth.classes import CLASSES
from tests.truth.laws import described, outcomes_of, violations

if TYPE_CHECKING:
    from tests.truth.classes import SimulatedClass

RUNS = 12
SEED = 20260116


@pytest.mark.parametrize("simulated", CLASSES, ids=lambda simulated: simulated.name)
def test_attribution_obeys_the_laws_of_each_class(simulated: SimulatedClass) -> None:
    outcomes = outcomes_of(simulated, SEED, RUNS)
    assert [described(violation) for violation in violations(simulated, outcomes)] == []
