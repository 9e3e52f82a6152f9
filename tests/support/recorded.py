"""One process of a recorded experiment: `python -m tests.support.recorded RESULTS_DIR END`.

The environment has the variables of its launcher. The process measures `WATTS` of the host, which all processes of the
host see. It waits until all processes are in their blocks, so that they run at the same time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from llm_energy_measure import record
from tests.support.replay import OtherMachineClock, steady_watts

WATTS = 50.0
TOKENS = 40
EXPERIMENT = "exp_7"
PATIENCE_SEC = 60.0


def wait_for(gate: Path, name: str, *, size: int) -> None:
    """Create a file for this process, and wait until all processes have one."""
    (gate / name).touch()
    deadline = time.monotonic() + PATIENCE_SEC
    while len(list(gate.iterdir())) < size and time.monotonic() < deadline:
        time.sleep(0.01)


def main(results: str, end: str) -> None:
    """Record, then end by `complete`, `raise`, or the signals of `kill`, `term` and `interrupt`."""
    gate = Path(results).parent / "gate"
    machine = os.environ.get("SLURMD_NODENAME")
    with record(
        EXPERIMENT,
        model_name="m",
        results_dir=results,
        sources=[steady_watts(WATTS)],
        checkpoint_sec=0.05,
        interval_sec=0.02,
        host=machine,
        clock=OtherMachineClock(machine) if machine is not None else None,
    ) as run:
        run.add_tokens(input=TOKENS // 2, output=TOKENS // 2)
        wait_for(gate, str(run.rank.process_index), size=run.rank.world_size)
        time.sleep(0.3)
        signals = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}
        if end in signals:
            os.kill(os.getpid(), signals[end])
            time.sleep(PATIENCE_SEC)
        if end == "raise":
            raise MemoryError("out of device memory")


if __name__ == "__main__":
    main(*sys.argv[1:])
