"""One process of a recorded experiment under a real launcher: `worker.py RESULTS FAULT`.

The launcher gives the rank. All processes of the machine see one counter of `WATTS`. After the start of all processes,
the fault happens.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from llm_energy_measure import record
from tests.support.recorded import wait_for
from tests.support.replay import steady_watts

WATTS = 100.0
TOKENS = 40
EXPERIMENT = "exp_7"
SHORT_SEC = 0.5
LONG_SEC = 2.5


def work(results: str, fault: str, process_index: int | None = None, world_size: int | None = None) -> None:
    """Record one process. The rank is an argument where no launcher gives it."""
    gate = Path(results).parent / "gate"
    gate.mkdir(exist_ok=True)
    source = steady_watts(WATTS)
    with record(
        EXPERIMENT,
        model_name="m",
        results_dir=results,
        sources=[source],
        checkpoint_sec=0.2,
        interval_sec=0.05,
        process_index=process_index,
        world_size=world_size,
    ) as run:
        run.add_tokens(input=TOKENS // 2, output=TOKENS // 2)
        index = run.rank.process_index
        wait_for(gate, str(index), size=run.rank.world_size)
        time.sleep(SHORT_SEC)
        if fault == "uneven" and index:
            time.sleep(LONG_SEC)
        elif index == 1 and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif index == 1 and fault == "raise":
            raise MemoryError("out of device memory")
        elif fault in ("kill", "raise", "term"):
            (gate.parent / "ready").touch()
            for _ in range(600):
                time.sleep(0.1)  # the interrupt of Ray does not end a sleep


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2])
