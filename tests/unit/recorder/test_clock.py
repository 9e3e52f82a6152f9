"""The clock of a store: whose it is, and how exactly it can be read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.recorder.clock import StoreClock, StoreTime, stamped_by_clients
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
def test_file_systems_whose_clients_stamp_tell_no_common_time(major: int, minor: int, *, by_clients: bool) -> None:
    assert stamped_by_clients(os.makedev(major, minor), MOUNTS) is by_clients


def test_without_a_list_of_mounts_nothing_is_held_against_a_store() -> None:
    assert not stamped_by_clients(os.makedev(0, 53), "")


def test_a_reading_holds_at_other_instants_of_the_monotonic_clock() -> None:
    assert StoreTime(store=1000.0, monotonic=5.0, error_sec=0.1).at(7.5) == 1002.5


def test_two_processes_of_one_store_know_it_by_the_same_name(tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path / name) for name in ("a", "a", "b")]
    for store in (stores[0], stores[2]):
        store.create("raw/x/manifest.json", b"{}")
    names = [StoreClock(store, "raw/x/manifest.json").store_id for store in stores]
    assert names[0] == names[1] != names[2]


def test_a_reading_leaves_nothing_behind_and_says_how_long_it_took(tmp_path: Path) -> None:
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


def test_without_its_mark_a_store_has_no_clock(tmp_path: Path) -> None:
    found = StoreClock(LocalStore(tmp_path), "raw/x/manifest.json")
    assert (found.store_id, found.read(ManualClock())) == (None, None)


@pytest.mark.parametrize(("stamp_sec", "tick_sec"), [(1001, 1.0), (1002, 2.0)])
def test_a_clock_of_whole_seconds_is_read_no_more_exactly(stamp_sec: int, tick_sec: float) -> None:
    found = StoreTime.of_stamp(stamp_sec * 1_000_000_000, 3.0, 3.5)
    assert found == StoreTime(stamp_sec + tick_sec / 2, 3.25, tick_sec / 2 + 0.25)
