"""Killed at any instant, between any two system calls: what was acknowledged is there, and nothing torn is visible.

`make torture` kills 10,000 times instead of 300; `TORTURE_KILLS` and `TORTURE_SEED` say how often, and repeat a run.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.support import kills

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("TORTURE_KILLS") or 300)
SEED = int(os.environ.get("TORTURE_SEED") or secrets.randbits(32))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_a_process_killed_at_any_instant_loses_nothing_that_was_acknowledged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torture = kills.Torture(tmp_path, SEED)
    try:
        torture.run(KILLS)
    finally:
        if KILLS > 300 or torture.kills.total() < KILLS:
            with capsys.disabled():
                print(f"\n{torture.kills.total()} kills, TORTURE_SEED={SEED}")  # noqa: T201 - what was asked for
                for where, count in sorted(torture.kills.items(), key=lambda item: -item[1]):
                    print(f"{count:7d}  {where}")  # noqa: T201 - what was asked for
    assert torture.kills.total() == KILLS
    assert torture.kills["random instant"] == KILLS // 2
    if KILLS >= 300:
        missed = {f"{when} {call}" for when, call in kills.POINTS} - torture.kills.keys()
        assert not missed, f"no process was killed {missed} (TORTURE_SEED={SEED})"
