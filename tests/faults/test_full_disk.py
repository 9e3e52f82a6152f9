"""Test with a full disk: a small tmpfs in a separate user namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_full_disk_loses_no_result_and_free_space_ends_the_errors(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or not shutil.which("mount"):
        pytest.skip("needs the commands unshare and mount")
    probe = subprocess.run(
        [unshare, "-Urm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip(f"needs permission to mount a tmpfs: {probe.stderr.strip()}")
    done = subprocess.run(
        [unshare, "-Urm", sys.executable, "-m", "tests.support.full_disk", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    saved = outcome["saved"]
    assert saved > 5
    results = tmp_path / "results"
    refused = "No space left on device; check the file system, then try again"
    assert outcome["sentence"] == f"cannot write {results}/raw/exp_7/process_{saved}.json: {refused}"
    assert outcome["loaded"] == list(range(saved))
    assert outcome["overwrite"].endswith(refused)
    assert outcome["aggregate"].endswith(refused)
    assert outcome["first_file_is_unchanged"] is True
    assert outcome["unfinished"] == outcome["aggregated"] == []
    assert outcome["loaded_after"] == saved + 1
    assert outcome["aggregated_after"] == ["exp_7"]
