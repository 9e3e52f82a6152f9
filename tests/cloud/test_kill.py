"""A process that is killed at any instant while it saves to a bucket loses no acknowledged result."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from llm_energy_measure.results import FileSystemRepository
from tests.support import buckets, factories

if TYPE_CHECKING:
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
