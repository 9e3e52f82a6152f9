"""Recordings under each real launcher that is installed here. `make test-launchers` installs and runs all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.launchers.launchers import LAUNCHERS, Launcher
from tests.launchers.outcome import run
from tests.launchers.table import row

if TYPE_CHECKING:
    from pathlib import Path


def require(launcher: Launcher) -> None:
    reason = launcher.missing()
    if reason is not None:
        pytest.skip(f"{launcher.name}: {reason}")


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda launcher: launcher.name)
def test_uneven_ranks_keep_all_results_and_all_energy(tmp_path: Path, launcher: Launcher) -> None:
    require(launcher)
    outcome = run(launcher, "uneven", tmp_path)
    assert (outcome.status, outcome.results) == (0, {0: "completed", 1: "completed"})
    assert outcome.launchers <= launcher.names
    assert outcome.energy is not None
    assert 0.5 < outcome.energy <= 1.01  # without a handover, it would be less than 0.3


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda launcher: launcher.name)
def test_killed_rank_costs_one_result(tmp_path: Path, launcher: Launcher) -> None:
    require(launcher)
    outcome = run(launcher, "kill", tmp_path)
    assert 1 not in outcome.results
    assert outcome.checkpoints[-1:] == [1]
    assert outcome.is_lower_bound is not False
    assert row(launcher.name, "kill", outcome).startswith(f"| {launcher.name} | SIGKILL of rank 1 |")
