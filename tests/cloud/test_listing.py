"""A listing in parts, on a real server: the parts together are the whole listing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.storage.objects import ObjectStore
from tests.support import buckets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.storage.base import Entries
    from tests.support.fault_proxy import FaultProxy

# Keys sort `P-1/x` before `P/x`, and names sort `P` before `P-1`. The prefix `raw-1` is another prefix than `raw`.
NAMES = sorted(
    [*(f"exp_{number:03}" for number in range(120)), "P", "P-1", "P.1", "P1", "exp", "exp_05", "exp_005-b", "\u00e9"]
)
OBJECTS = {f"raw/{name}/{file}": name.encode() for name in NAMES for file in ("manifest.json", "process_0.json")}
OTHERS = {"raw-1/exp_000/process_0.json": b"1", "raw/.exp_000~attempt-0/manifest.json": b"1"}


@pytest.fixture(scope="module")
def filled_prefix(seaweedfs_port: int) -> str:
    """Fill a prefix of the bucket, and return its name."""
    client = buckets.client_of(seaweedfs_port, "listing")
    ObjectStore(f"s3://{buckets.BUCKET}/listing", client=client).put_many(OBJECTS | OTHERS)
    return "listing"


def walk(proxy: FaultProxy, prefix: str, folders: Sequence[str], folders_per_part: int) -> tuple[Entries, int]:
    """Return the listing of `raw`, and the number of its requests."""
    store = ObjectStore(f"s3://{buckets.BUCKET}/{prefix}", folders_per_part=folders_per_part)
    before = len(proxy.requests)
    return store.walk("raw", folders), len(proxy.requests) - before


def test_parts_on_a_server_are_the_whole_listing(proxy: FaultProxy, filled_prefix: str) -> None:
    whole, _ = walk(proxy, filled_prefix, (), 1)
    assert [f"raw/{entry.name}" for entry in whole] == sorted({*OBJECTS, "raw/.exp_000~attempt-0/manifest.json"})
    for folders_per_part in (9, 40, 1_000):
        parts = -(-len(NAMES) // folders_per_part)
        assert walk(proxy, filled_prefix, NAMES, folders_per_part) == (whole, parts)


def test_each_name_can_be_the_end_of_a_part(proxy: FaultProxy, filled_prefix: str) -> None:
    """SeaweedFS lists `P/x` before `P-1/x`, so parts that end there do not meet: a third request lists the whole."""
    whole, _ = walk(proxy, filled_prefix, (), 1)
    for name in NAMES[:6]:
        found, requests = walk(proxy, filled_prefix, ["A", name], 1)
        assert found == whole, name
        assert requests == (3 if name in ("P-1", "P.1") else 2), name


def test_empty_first_or_last_part_loses_no_object(proxy: FaultProxy, filled_prefix: str) -> None:
    """The caller can know folders that another process has deleted."""
    whole, _ = walk(proxy, filled_prefix, (), 1)
    for folders in (["A", "B", "C"], ["A", "B", "exp_050"], ["exp_050", "z", "\u00e4"], ["A", "zz"]):
        assert walk(proxy, filled_prefix, folders, 1) == (whole, len(folders)), folders


def test_empty_bucket_has_only_empty_parts(proxy: FaultProxy, url: str) -> None:
    assert walk(proxy, url.rpartition("/")[2], NAMES, 20) == ([], -(-len(NAMES) // 20))
