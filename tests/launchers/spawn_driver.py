"""Start N processes with `multiprocessing`: `spawn_driver.py N RESULTS FAULT`. SIGTERM is passed on."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from typing import Any

from tests.launchers.worker import work


def start(index: int, size: int, results: str, fault: str) -> None:
    """Record one process."""
    work(results, fault, process_index=index, world_size=size)


def main(count: str, results: str, fault: str) -> int:
    """Start the processes and wait for them; after a failure, end the others as launchers do."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=start, args=(index, int(count), results, fault)) for index in range(int(count))]
    for process in processes:
        process.start()

    def terminate(*_: Any) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, terminate)
    while any(process.is_alive() for process in processes):
        for process in processes:
            process.join(0.05)
        if any(process.exitcode not in (None, 0) for process in processes):
            terminate()
    return int(any(process.exitcode for process in processes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
