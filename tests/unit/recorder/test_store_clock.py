"""The clock of a store: which hosts share it, and the error of a reading."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.recorder.store_clock import StoreClock, StoreTime, has_client_timestamps
from llm_energy_measure.storage.local import LocalStore
from tests.support.replay import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
95 22 0:52 / /home rw,relatime shared:50 - nfs4 storage:/home rw,vers=4.2
96 22 0:53 / /scratch rw shared:51 - lustre 10.0.0.1@tcp:/scratch rw
97 22 0:54 / /projects rw shared:52 master:3 - fuse.glusterfs node:/projects rw
98 22 0:55 / /data\\040of\\040all rw - ceph 10.0.0.2:/ rw
"""


@pytest.mark.parametrize(
    ("major", "minor", "by_clients"),
    [
        (259, 2, False),
        (0, 52, False),
        (0, 53, True),
        (0, 54, True),
        (0, 55, True),
        (0, 99, False),
    ],
)
def test_file_systems_with_timestamps_of_each_client(major: int, minor: int, *, by_clients: bool) -> None:
    assert has_client_timestamps(os.makedev(major, minor), MOUNTS) is by_clients


def test_unknown_mounts_count_as_server_timestamps() -> None:
    assert not has_client_timestamps(os.makedev(0, 53), "")


def test_store_time_at_another_monotonic_instant() -> None:
    assert StoreTime(store=1000.0, monotonic=5.0, error_sec=0.1).at(7.5) == 1002.5


def test_store_id_is_equal_for_one_store_and_differs_in_another(tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path / name) for name in ("a", "a", "b")]
    for store in (stores[0], stores[2]):
        store.create("raw/x/manifest.json", b"{}")
    names = [StoreClock(store, "raw/x/manifest.json").store_id for store in stores]
    assert names[0] == names[1] != names[2]


def test_reading_leaves_no_file_and_has_an_error_bound(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("raw/x/manifest.json", b"{}")
    clock = ManualClock()
    time = StoreClock(store, "raw/x/manifest.json").read(clock)
    assert time is not None
    assert time.monotonic == 0.0
    assert time.error_sec == pytest.approx(0.005)
    assert [path.name for path in (tmp_path / "raw" / "x").iterdir()] == ["manifest.json"]
    written = (tmp_path / "raw" / "x" / "manifest.json").stat().st_mtime
    assert written - 0.02 <= time.store


def test_store_without_the_key_has_no_clock(tmp_path: Path) -> None:
    found = StoreClock(LocalStore(tmp_path), "raw/x/manifest.json")
    assert (found.store_id, found.read(ManualClock())) == (None, None)


@pytest.mark.parametrize(("mtime_sec", "tick_sec"), [(1001, 1.0), (1002, 2.0)])
def test_timestamps_of_whole_seconds_have_a_larger_error(mtime_sec: int, tick_sec: float) -> None:
    found = StoreTime.from_mtime(mtime_sec * 1_000_000_000, 3.0, 3.5)
    assert found == StoreTime(mtime_sec + tick_sec / 2, 3.25, tick_sec / 2 + 0.25)
