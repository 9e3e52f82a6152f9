"""Print a table launcher x fault x outcome: `python -m tests.launchers.table [FILE]`. `make test-launchers` runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.launchers import slurm
from tests.launchers.launchers import LAUNCHERS
from tests.launchers.outcome import FAULTS, Outcome, run

HEADER = """| launcher | fault | results | checkpoints | energy / true energy | verdict |
|---|---|---|---|---|---|"""
WORDS = {
    "none": "none",
    "uneven": "rank 0 ends first",
    "raise": "rank 1 raises",
    "kill": "SIGKILL of rank 1",
    "term": "SIGTERM to the launcher",
}

# Gaps of up to 1 % of the time are no finding, and the readings of a busy machine can be late.
_LEAST_SHARE = 0.98


def row(name: str, fault: str, outcome: Outcome) -> str:
    """Return one row of the table."""
    word = "`scancel`" if fault == "term" and "SLURM" in name else WORDS[fault]
    results = ", ".join(f"{index} {status}" for index, status in sorted(outcome.results.items())) or "none"
    checkpoints = ", ".join(map(str, outcome.checkpoints)) or "none"
    energy = "unknown" if outcome.energy is None else f"{outcome.energy:.1%}"
    bound = " (lower bound)" if outcome.is_lower_bound else ""
    return f"| {name} | {word} | {results} | {checkpoints} | {energy}{bound} | {outcome.verdict} |"


def is_wrong(fault: str, outcome: Outcome) -> bool:
    """Return True if a process left nothing, lost its result without SIGKILL, or energy is missing without a mark."""
    kept = {*outcome.results, *outcome.checkpoints} if fault == "kill" else {*outcome.results}
    is_silent = outcome.energy is not None and outcome.energy < _LEAST_SHARE and not outcome.is_lower_bound
    return kept != {0, 1} or is_silent


def main(file: str | None = None) -> int:
    """Run everything that is installed. The exit status is 1 if one of the outcomes is wrong."""
    # A shell ignores SIGINT in background jobs, and so would their children. Ray cancels its tasks by SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        if "SLURM_CONF" not in os.environ and slurm.reason_against() is None:
            stack.enter_context(slurm.cluster(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "slurm"))
        return run_all(file)


def run_all(file: str | None) -> int:
    """Run every launcher with every fault."""
    rows, skipped, wrong = [], [], 0
    for launcher in LAUNCHERS:
        reason = launcher.missing()
        if reason is not None:
            skipped.append(f"{launcher.name}: {reason}")
            print(f"skip {skipped[-1]}", flush=True)
            continue
        for fault in FAULTS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    outcome = run(launcher, fault, Path(folder))
                except AssertionError as error:
                    skipped.append(f"{launcher.name}: {error}")
                    print(f"skip {skipped[-1]}", flush=True)
                    break
            rows.append(row(launcher.name, fault, outcome))
            print(rows[-1], flush=True)
            wrong += is_wrong(fault, outcome)
    if file is not None:
        Path(file).write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    for reason in skipped:
        print(f"skipped {reason}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
