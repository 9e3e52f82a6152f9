"""Test of a process that is killed at any instant: each acknowledged result is stored, and no torn file is visible.

The default is 300 kills; `make torture` makes 10,000. `TORTURE_KILLS` sets the number, `TORTURE_SEED` repeats a run.
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


def test_killed_process_loses_no_acknowledged_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torture = kills.Torture(tmp_path, SEED)
    try:
        torture.run(KILLS)
    finally:
        if KILLS > 300 or torture.kills.total() < KILLS:
            with capsys.disabled():
                print(f"\n{torture.kills.total()} kills, TORTURE_SEED={SEED}")  # noqa: T201 - the user of make torture reads this
                for where, count in sorted(torture.kills.items(), key=lambda item: -item[1]):
                    print(f"{count:7d}  {where}")  # noqa: T201 - the user of make torture reads this
    assert torture.kills.total() == KILLS
    assert torture.kills["random instant"] == KILLS // 2
    if KILLS >= 300:
        missed = {f"{when} {call}" for when, call in kills.POINTS} - torture.kills.keys()
        assert not missed, f"no process was killed {missed} (TORTURE_SEED={SEED})"
