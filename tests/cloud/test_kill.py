"""Processes that are killed while they save to a bucket, or save one index at once, lose no acknowledged result."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.store import codec
from tests.support import buckets, factories

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fault_proxy import Fault, FaultProxy

KILLS = 60 if buckets.IS_LONG else 6
CHILD = """
import sys
from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
repository, start = FileSystemRepository(sys.argv[1]), int(sys.argv[2])
for number in range(start, start + 1000):
    repository.save_raw("exp", factories.raw("exp", number))
    print(number, flush=True)
    repository.save_raw("exp", factories.raw("exp", number, gpu_name="newer"), overwrite=True)
"""


TWO_SAVES = """
import sys
from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
repository = FileSystemRepository(sys.argv[1])
repository.save_raw("exp", factories.raw("exp"))
print("saved", flush=True)
repository.save_raw("exp", factories.raw("exp", gpu_name="newer"), overwrite=True)
print("replaced", flush=True)
"""
FIRST, NEWER = factories.raw("exp"), factories.raw("exp", gpu_name="newer")


def two_saves(proxy: FaultProxy, url: str, at: int, fault: Fault) -> tuple[list[str], list[str]]:
    """Save twice in a process that is killed at one request. Return its output, and the methods of its requests."""
    before = len(proxy.requests)
    process = subprocess.Popen([sys.executable, "-c", TWO_SAVES, url], stdout=subprocess.PIPE, text=True)

    def kill(_method: str, _path: str, number: int) -> Fault | None:
        if number - before != at:
            return None
        process.kill()
        process.wait()
        return fault

    proxy.fault_of = kill
    out, _ = process.communicate(timeout=60)
    proxy.fault_of = lambda *_: None
    return out.split(), [method for method, _ in proxy.requests[before:]]


@buckets.LONG_ONLY
@pytest.mark.parametrize("fault", ["lost", "part"])
def test_process_killed_at_each_request_loses_no_result(proxy: FaultProxy, url: str, fault: Fault) -> None:
    """`lost`: the server has done the request. `part`: the server has half of its body."""
    done, methods = two_saves(proxy, f"{url}/all", -1, fault)
    assert done == ["saved", "replaced"]
    for at, method in enumerate(methods):
        if fault == "part" and method != "PUT":
            continue
        repository = FileSystemRepository(f"{url}/{at}")
        done, _ = two_saves(proxy, f"{url}/{at}", at, fault)
        recovery = repository.recover_raw("exp")
        assert recovery.unreadable == [], at
        if "saved" in done:
            assert recovery.results in ([FIRST], [NEWER]), at
        if "replaced" in done or recovery.results == [NEWER]:
            kept = [repository.store.get(f"raw/exp/{entry.name}") for entry in repository.store.list("raw/exp")]
            assert codec.encode_raw(FIRST) in kept, at
        repository.save_raw("exp", NEWER, overwrite=True)
        assert repository.load_all_raw("exp") == [NEWER], at


WRITERS = 64
WRITER = """
import sys, time
from pathlib import Path
from llm_energy_measure.exceptions import ResultExistsError, StorageError
from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
name, folder = sys.argv[2], Path(sys.argv[3])
repository = FileSystemRepository(sys.argv[1])
(folder / name).touch()
while not (folder / "go").exists():
    time.sleep(0.01)
def save(when, overwrite):
    try:
        repository.save_raw("exp", factories.raw("exp", gpu_name=f"{when} {name}"), overwrite=overwrite)
    except ResultExistsError as error:
        print(f"refused {when} {name}" if error.kept else "lost")
    except StorageError:
        print("not acknowledged")
    else:
        print(f"saved {when} {name}")
save("first", False)
save("newer", True)
"""


@buckets.LONG_ONLY
def test_64_processes_of_one_index_lose_nothing_through_faults(proxy: FaultProxy, url: str, tmp_path: Path) -> None:
    """At most one of 64 saves succeeds, and each overwrite keeps the result that it replaces.

    No save succeeds if the answer to the first writer is lost and an overwrite replaces its result before it reads the
    key. Its result is then in the copy that the overwrite keeps.
    """
    faults: tuple[Fault, ...] = ("lost", "409", "503 after", "reset", "part")
    command = [sys.executable, "-c", WRITER, url]
    writers = [
        subprocess.Popen(
            [*command, str(number), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for number in range(WRITERS)
    ]
    while len(list(tmp_path.iterdir())) < WRITERS and all(writer.poll() is None for writer in writers):
        time.sleep(0.1)
    proxy.fault_of = lambda _method, _path, number: None if number % 5 else faults[number // 5 % len(faults)]
    (tmp_path / "go").touch()
    outputs = [writer.communicate(timeout=600) for writer in writers]
    proxy.fault_of = lambda *_: None
    assert [writer.returncode for writer in writers] == [0] * WRITERS, outputs
    lines = [line for out, _ in outputs for line in out.splitlines()]
    saved = [line for line in lines if line.startswith("saved first")]
    assert len(saved) <= 1, saved
    acknowledged = {line.partition(" ")[2] for line in lines if line != "not acknowledged"}
    assert len(acknowledged) > WRITERS, lines
    assert "lost" not in lines
    repository = FileSystemRepository(url)
    assert repository.recover_raw("exp").unreadable == []
    names = [entry.name for entry in repository.store.list("raw/exp") if entry.name != "manifest.json"]
    texts = [repository.store.get(f"raw/exp/{name}") for name in names]
    found = {msgspec.json.decode(text).get("record", msgspec.json.decode(text))["gpu_name"] for text in texts}
    bare = {msgspec.json.decode(text)["gpu_name"] for text in texts if b'"record"' not in text}
    assert len([name for name in bare if name.startswith("first")]) >= 1, "one of the 64 was stored first"
    assert acknowledged <= found <= {f"{when} {number}" for when in ("first", "newer") for number in range(WRITERS)}


def test_killed_process_loses_no_acknowledged_result(proxy: FaultProxy, url: str) -> None:
    cycle: tuple[Fault | None, ...] = (None, None, None, "lost", None, None, "503 after", None)
    proxy.fault_of = lambda _method, _path, number: cycle[number % len(cycle)]
    acknowledged: set[int] = set()
    for kill in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, url, str(1000 * kill)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged.add(int(process.stdout.readline()))
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        acknowledged |= {int(line) for line in process.stdout if line.endswith("\n")}
        process.wait()
        process.stdout.close()
    proxy.fault_of = lambda *_: None
    recovery = FileSystemRepository(url).recover_raw("exp")
    assert recovery.unreadable == []
    assert acknowledged <= {record.process_index for record in recovery.results}
    for record in recovery.results:
        expected = factories.raw("exp", record.process_index)
        assert record in (expected, factories.raw("exp", record.process_index, gpu_name="newer"))
