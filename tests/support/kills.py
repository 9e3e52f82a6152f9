"""Kill a process that saves results, at a random instant or at an exact point, and look at what is left.

The process is forked from a warm parent. It works through a plan that the parent knows too, and acknowledges each
operation through a pipe: what the parent has read is what somebody was told to be safe.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store, sweep
from llm_energy_measure.results.batch.salvage import whole_sections
from llm_energy_measure.storage.atomic import target_name
from tests.support import model, syscalls

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

# Each of them is passed by some operation of a plan; `within` writes half of the bytes first.
POINTS = [
    *((when, f"_write_temporary.{call}") for call in ("open", "write", "fsync") for when in ("before", "after")),
    *((when, "_write_temporary.close") for when in ("before", "after")),
    ("within", "_write_temporary.write"),
    *((when, "_publish_new.link") for when in ("before", "after")),
    *((when, "create_file.unlink") for when in ("before", "after")),
    *((when, f"sync_folder.{call}") for call in ("open", "fsync", "close") for when in ("before", "after")),
    *((when, "make_folder.mkdir") for when in ("before", "after")),
    *((when, "_replace.replace") for when in ("before", "after")),
    *((when, "_sync_file_system") for when in ("before", "after")),
    *((when, "_renameat2") for when in ("before", "after")),
    *((when, "link_file.link") for when in ("before", "after")),
    *((when, "delete.unlink") for when in ("before", "after")),
    *((when, "delete_folder.rename") for when in ("before", "after")),
    *((when, f"delete_folder.{call}") for call in ("unlink", "rmdir") for when in ("before", "after")),
    *((when, "move_folder.rename") for when in ("before", "after")),
]
PLAN_LENGTH = 40
KILLS_PER_DIRECTORY = 10


class Aim(NamedTuple):
    """At which passing of a point a process kills itself; after all of its plan if it never gets there."""

    when: str
    call: str
    passing: int


class Plan(NamedTuple):
    """Operations, and what the directory goes through: `states[n]` is there before operation n."""

    operations: list[model.Operation]
    states: list[model.Directory]


class Torture:
    """Kill after kill on one directory, which is made anew from time to time.

    Args:
        folder: Where the directory lies.
        seed: Of all chance but the instants, which are the machine's.

    Attributes:
        kills: How many at each point, (`random instant`, or when and which call).
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder / "results"
        self.kills: Counter[str] = Counter()
        self.variant = 0
        self.start_anew()

    def start_anew(self) -> None:
        """Forget the directory."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.repository = FileSystemRepository(self.folder)
        self.now = model.observe(self.repository.store)

    def run(self, count: int) -> None:
        """Kill so many processes, half of them at random instants, and hold each time what is left to be right."""
        for number in range(count):
            if number % KILLS_PER_DIRECTORY == 0:
                self.start_anew()
            plan = self.plan()
            if number % 2:
                when, call = POINTS[number // 2 % len(POINTS)]
                seldom = call.startswith(("delete_", "move_", "make_"))
                aim = Aim(when, call, 1 if seldom else self.chance.randrange(1, 4))
                acknowledged, where = run_child(self.repository, plan.operations, aim)
            else:
                delay_sec = self.chance.uniform(0, 0.01)
                acknowledged, where = run_child(
                    self.repository, plan.operations, None, self.chance.randrange(4), delay_sec
                )
            self.kills[where] += 1
            self.now = hold(self.repository, plan, acknowledged, where)

    def plan(self) -> Plan:
        """Operations that make sense one after the other."""
        now = dict(self.now)
        operations, states = [], [dict(now)]
        for _ in range(PLAN_LENGTH):
            self.variant += 1
            experiment_id = self.chance.choice(model.IDS)
            operation = model.random_operation(self.chance, experiment_id, now[experiment_id], self.variant)
            now[experiment_id] = model.outcomes(now[experiment_id], operation)[-1]
            operations.append(operation)
            states.append(dict(now))
        return Plan(operations, states)


def run_child(
    repository: FileSystemRepository,
    operations: list[model.Operation],
    aim: Aim | None,
    wait_for: int = 0,
    delay_sec: float = 0.0,
) -> tuple[int, str]:
    """Let a process work through a plan until it is killed.

    Args:
        repository: The results directory.
        operations: The plan.
        aim: Where it kills itself; None if it is killed from outside.
        wait_for: After so many acknowledgements, and
        delay_sec: after so many seconds more.

    Returns:
        How many operations were acknowledged, and where it was killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _work(repository, operations, aim, writing)
    os.close(writing)
    said = b""
    if aim is None:
        while said.count(b".") < wait_for and (more := os.read(reading, 1)):
            said += more
        time.sleep(delay_sec)
        os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 4096):
        said += more
    os.close(reading)
    _, status = os.waitpid(child, 0)
    acknowledgements, _, where = said.decode().partition("!")
    assert os.WIFSIGNALED(status), f"it was not killed but failed: {where}"
    return len(acknowledgements), where or "random instant"


def _work(repository: FileSystemRepository, operations: list[model.Operation], aim: Aim | None, pipe: int) -> None:
    """Never returns."""

    def die(where: str) -> None:
        os.write(pipe, f"!{where}".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    passed = 0

    def look(frame: FrameType, event: str, subject: object) -> None:
        nonlocal passed
        found = syscalls.point(frame, event, subject)
        if found is None or aim is None or found != ("before" if aim.when == "within" else aim.when, aim.call):
            return
        passed += 1
        if passed < aim.passing:
            return
        if aim.when == "within":
            view = frame.f_locals["view"]
            os.write(frame.f_locals["descriptor"], view[: len(view) // 2])
        die(f"{aim.when} {aim.call}")

    try:
        if aim is not None:
            sys.setprofile(look)
        for operation in operations:
            model.perform(repository, operation)
            os.write(pipe, b".")
        sys.setprofile(None)
        die("after the whole plan")
    except BaseException as error:  # noqa: BLE001 - a forked child must never run on in its parent's place
        with contextlib.suppress(OSError):
            os.write(pipe, f"!{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def is_json(data: bytes) -> bool:
    """True if bytes are whole JSON."""
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def hold(repository: FileSystemRepository, plan: Plan, acknowledged: int, where: str) -> model.Directory:
    """Hold what a killed process left to be right, clean up as a user would, and return what is there then."""
    told = (
        f"killed {where}, {acknowledged} operations acknowledged, the last {plan.operations[: acknowledged + 1][-3:]}"
    )
    found = model.observe(repository.store)  # raises if anything is torn
    expected = dict(plan.states[acknowledged])
    for experiment_id, experiment in found.items():
        possible = [expected[experiment_id]]
        if acknowledged < len(plan.operations) and plan.operations[acknowledged].experiment_id == experiment_id:
            possible = model.outcomes(expected[experiment_id], plan.operations[acknowledged])
        fitting = [state for state in possible if state.is_held_by(experiment)]
        assert fitting, f"{told}: {experiment} is none of {possible}"
        expected[experiment_id] = fitting[-1]
        loaded = {result.process_index for result in repository.load_all_raw(experiment_id)}
        assert loaded == experiment.raw.keys(), told
        assert (repository.load_aggregated(experiment_id) is not None) is (experiment.aggregated is not None), told
    findings = list(check_store(repository))
    unpublished = [finding.key for finding in findings if finding.code == "raw.unpublished"]
    assert not {finding.code for finding in findings if finding.needs_person} - {"raw.unpublished", "raw.rejected"}, (
        told
    )
    assert not [finding.key for finding in findings if finding.code == "leftover.in_use"], told
    sweep(repository, findings)
    left_over = {path for path in repository.base_path.rglob("*") if target_name(path.name)}
    assert left_over == {repository.store.path(key) for key in unpublished}, told
    for number, path in enumerate(sorted(left_over)):
        if whole_sections(path.read_bytes()) and not is_json(path.read_bytes()):
            path.unlink()  # a part of what was never acknowledged; it could be salvaged
            continue
        # What the finding advises: somebody looks into it, and keeps it under a name of its own.
        process = (target_name(path.name) or "").removesuffix(".json").removeprefix("rejected-")
        kind = "rejected" if "rejected-" in path.name else "superseded"
        path.rename(path.with_name(f"{kind}-{process.partition('-')[0]}-{time.time_ns() + number}.json"))
    after = model.observe(repository.store)
    for experiment_id, experiment in after.items():
        assert expected[experiment_id].is_held_by(experiment), f"{told}: after the sweep there is {experiment}"
    return after
