"""Test of a process that is killed at any instant: each acknowledged result is stored, and no torn file is visible.

The default is 200 kills; `make torture` makes 10,000. `TORTURE_KILLS` sets the number, `TORTURE_SEED` repeats a run.
`TORTURE_FILE_SYSTEMS` names the file systems, such as `default,tmpfs,bindfs`; `default` is that of temporary files.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import pytest

from tests.support import kills
from tests.support.mounts import mounted_or_skip

KILLS = int(os.environ.get("TORTURE_KILLS") or 200)
FILE_SYSTEMS = (os.environ.get("TORTURE_FILE_SYSTEMS") or "default").split(",")
SEED = int(os.environ.get("TORTURE_SEED") or secrets.randbits(32))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_killed_process_loses_no_acknowledged_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file_system: str
) -> None:
    is_default = file_system == "default"
    with contextlib.nullcontext(tmp_path) if is_default else mounted_or_skip(file_system, tmp_path) as folder:
        torture = _tortured(folder, capsys, file_system)
    assert torture.kills.total() == KILLS
    assert torture.kills["random instant"] > KILLS // 4  # half are tried, and a few processes end before the signal
    if KILLS >= 200 and is_default:  # other file systems need other calls
        missed = {f"{when} {call}" for when, call in kills.POINTS} - torture.kills.keys()
        assert not missed, f"no process was killed {missed} (TORTURE_SEED={SEED})"


def _tortured(folder: Path, capsys: pytest.CaptureFixture[str], file_system: str) -> kills.Torture:
    torture = kills.Torture(folder, SEED, passes_all_points=file_system == "default")
    try:
        torture.run(KILLS)
    finally:
        if KILLS > 200 or torture.kills.total() < KILLS:
            with capsys.disabled():
                print(f"\n{file_system}: {torture.kills.total()} kills, TORTURE_SEED={SEED}")  # noqa: T201 - the user of make torture reads this
                for where, count in sorted(torture.kills.items(), key=lambda item: -item[1]):
                    print(f"{count:7d}  {where}")  # noqa: T201 - the user of make torture reads this
    return torture
