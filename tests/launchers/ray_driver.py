"""Start N tasks of Ray: `ray_driver.py N RESULTS FAULT`. Tasks of Ray have no rank, so each gets its own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray

ROOT = Path(__file__).resolve().parents[2]


def main(count: str, results: str, fault: str) -> int:
    """Start the tasks and wait for them."""
    size = int(count)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environ = {"env_vars": {"PYTHONPATH": paths}}
    ray.init(num_cpus=size, include_dashboard=False, log_to_driver=False, runtime_env=environ)

    @ray.remote(max_retries=0)  # type: ignore[untyped-decorator]  # ray is not installed for mypy
    def task(index: int) -> None:
        from tests.launchers.worker import work

        work(results, fault, process_index=index, world_size=size)

    tasks = [task.remote(index) for index in range(size)]

    def end(*_: Any) -> None:
        for one in tasks:
            ray.cancel(one, force=False)

    signal.signal(signal.SIGTERM, end)
    failed = 0
    waiting = list(tasks)
    while waiting:
        [done], waiting = ray.wait(waiting, num_returns=1)
        try:
            ray.get(done)
        except Exception:  # noqa: BLE001 - any failure of a task ends the others, as other launchers do
            failed = 1
            end()
    ray.shutdown()
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
