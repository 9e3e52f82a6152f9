"""One process of a recorded experiment, as a program of its own: `python -m tests.support.recorded RESULTS_DIR WHAT`.

Its launcher's variables stand in the environment. It measures `WATTS` of the host, which every process of the host
sees, and waits for the others at a gate, so that all are recorded at one time.
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
    """Say that this process is there, and wait until all are."""
    (gate / name).touch()
    deadline = time.monotonic() + PATIENCE_SEC
    while len(list(gate.iterdir())) < size and time.monotonic() < deadline:
        time.sleep(0.01)


def main(results: str, what: str) -> None:
    """Record, and end as `what` says: `complete`, `raise`, or `kill`, `term` and `interrupt` itself."""
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
        wait_for(gate, str(run.place.process_index), size=run.place.world_size)
        time.sleep(0.3)
        ends = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}
        if what in ends:
            os.kill(os.getpid(), ends[what])
            time.sleep(PATIENCE_SEC)
        if what == "raise":
            raise MemoryError("of the device")


if __name__ == "__main__":
    main(*sys.argv[1:])
