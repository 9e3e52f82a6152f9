"""Kill a process that saves results, at a random instant or at an exact point, and check the remaining files.

The process is forked from a parent that has imported everything. It executes a plan that the parent knows too, and
acknowledges each operation through a pipe. Each acknowledged operation must survive.
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
from llm_energy_measure.results.batch.checking import check_store, remove_leftovers
from llm_energy_measure.results.batch.salvage import complete_sections
from llm_energy_measure.storage.temporary import is_lock, target_name
from tests.support import model, syscalls

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

# Points in the code at which a process kills itself. Some operation of a plan passes each point. `within` first writes
# half of the bytes.
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
    *((when, "_has_linked.link") for when in ("before", "after")),
    *((when, "delete.unlink") for when in ("before", "after")),
    *((when, "delete_folder.rename") for when in ("before", "after")),
    *((when, "_emptied.unlink") for when in ("before", "after")),
    *((when, "remove_tree.rmdir") for when in ("before", "after")),
    *((when, "move_folder.rename") for when in ("before", "after")),
]
PLAN_LENGTH = 40
KILLS_PER_DIRECTORY = 10


class Aim(NamedTuple):
    """The point and the passage at which a process kills itself. If it never gets there, it does so after its plan."""

    when: str
    call: str
    passing: int


class Plan(NamedTuple):
    """Operations, and the states of the directory: `states[n]` is the state before operation n."""

    operations: list[model.Operation]
    states: list[model.Directory]


class Torture:
    """Kills one process after the other on one directory, which is emptied from time to time.

    Args:
        folder: Parent folder of the directory.
        seed: Seed of all random choices. Only the instants of the kills depend on the machine.
        passes_all_points: False if the file system needs other calls, so that some points are never passed.

    Attributes:
        kills: Number of kills per point (`random instant`, or when and which call).
    """

    def __init__(self, folder: Path, seed: int, *, passes_all_points: bool = True) -> None:
        self.chance = random.Random(seed)
        self.passes_all_points = passes_all_points
        self.aimed: Counter[str] = Counter()
        self.folder = folder / "results"
        self.kills: Counter[str] = Counter()
        self.variant = 0
        self.restart()

    def restart(self) -> None:
        """Delete the directory."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.repository = FileSystemRepository(self.folder)
        self.now = model.observe(self.repository.store)

    def run(self, count: int) -> None:
        """Kill this many processes, half of them at random instants, and check the remaining files after each kill."""
        for number in range(count):
            if number % KILLS_PER_DIRECTORY == 0:
                self.restart()
            plan = self.plan()
            if number % 2:
                # A plan may never pass its point, so aim at the point with the fewest kills until now.
                counts = self.kills if self.passes_all_points else self.aimed
                when, call = min(POINTS, key=lambda point: counts[" ".join(point)])
                self.aimed[f"{when} {call}"] += 1
                is_rare = call.startswith(("delete_", "remove_", "_emptied", "move_", "make_"))
                aim = Aim(when, call, 1 if is_rare else self.chance.randrange(1, 4))
                acknowledged, where = run_child(self.repository, plan.operations, aim)
            else:
                delay_sec = self.chance.uniform(0, 0.01)
                acknowledged, where = run_child(
                    self.repository, plan.operations, None, self.chance.randrange(4), delay_sec
                )
            self.kills[where] += 1
            self.now = check_after_kill(self.repository, plan, acknowledged, where)

    def plan(self) -> Plan:
        """Return random operations that are possible in this order."""
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
    """Execute a plan in a child process until the child is killed.

    Args:
        repository: The results directory.
        operations: The plan.
        aim: Where the child kills itself. None: the parent kills it.
        wait_for: Number of acknowledgements after which the parent kills the child.
        delay_sec: Additional time before the kill, in seconds.

    Returns:
        The number of acknowledged operations, and the point of the kill.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _work(repository, operations, aim, writing)
    os.close(writing)
    received = b""
    if aim is None:
        while received.count(b".") < wait_for and (more := os.read(reading, 1)):
            received += more
        time.sleep(delay_sec)
        os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 4096):
        received += more
    os.close(reading)
    _, status = os.waitpid(child, 0)
    acknowledgements, _, where = received.decode().partition("!")
    assert os.WIFSIGNALED(status), f"the child failed before it was killed: {where}"
    return len(acknowledgements), where or "random instant"


def _work(repository: FileSystemRepository, operations: list[model.Operation], aim: Aim | None, pipe: int) -> None:
    """Execute the plan in the forked child. Never returns."""

    def die(where: str) -> None:
        os.write(pipe, f"!{where}".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    passed = 0

    def profile(frame: FrameType, event: str, subject: object) -> None:
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
            sys.setprofile(profile)
        for operation in operations:
            model.perform(repository, operation)
            os.write(pipe, b".")
        sys.setprofile(None)
        die("after the whole plan")
    except BaseException as error:  # noqa: BLE001 - a forked child must not continue the code of its parent
        with contextlib.suppress(OSError):
            os.write(pipe, f"!{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def is_json(data: bytes) -> bool:
    """Return True if the bytes are complete JSON."""
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def check_after_kill(repository: FileSystemRepository, plan: Plan, acknowledged: int, where: str) -> model.Directory:
    """Check the files that a killed process left, clean up as a user would, and return the new state."""
    context = (
        f"killed {where}, {acknowledged} operations acknowledged, the last {plan.operations[: acknowledged + 1][-3:]}"
    )
    found = model.observe(repository.store)  # raises if a result is torn
    expected = dict(plan.states[acknowledged])
    for experiment_id, experiment in found.items():
        possible = [expected[experiment_id]]
        if acknowledged < len(plan.operations) and plan.operations[acknowledged].experiment_id == experiment_id:
            possible = model.outcomes(expected[experiment_id], plan.operations[acknowledged])
        matching = [state for state in possible if state.matches(experiment)]
        assert matching, f"{context}: {experiment} is none of {possible}"
        expected[experiment_id] = matching[-1]
        loaded = {result.process_index for result in repository.load_all_raw(experiment_id)}
        assert loaded == experiment.raw.keys(), context
        assert (repository.load_aggregated(experiment_id) is not None) is (experiment.aggregated is not None), context
    findings = list(check_store(repository))
    unpublished = [finding.key for finding in findings if finding.code == "raw.unpublished"]
    assert not {finding.code for finding in findings if finding.needs_decision} - {"raw.unpublished", "raw.rejected"}, (
        context
    )
    in_use = {finding.key.rpartition("/")[2] for finding in findings if finding.code == "leftover.in_use"}
    assert all(is_lock(name) for name in in_use), context  # a process killed before it wrote its name into its lock
    remove_leftovers(repository, findings)
    unfinished = {path for path in repository.base_path.rglob("*") if target_name(path.name)}
    assert unfinished == {repository.store.path(key) for key in unpublished}, context
    for number, path in enumerate(sorted(unfinished)):
        if complete_sections(path.read_bytes()) and not is_json(path.read_bytes()):
            path.unlink()  # a part of a record that was never acknowledged; salvage could read it
            continue
        # Follow the advice of the finding: give the file a name under which the store keeps it.
        process = (target_name(path.name) or "").partition(".")[0].removeprefix("rejected-")
        kind = "rejected" if "rejected-" in path.name else "superseded"
        path.rename(path.with_name(f"{kind}-{process.partition('-')[0]}-{time.time_ns() + number}.json.kept"))
    after = model.observe(repository.store)
    for experiment_id, experiment in after.items():
        assert expected[experiment_id].matches(experiment), f"{context}: after the clean-up there is {experiment}"
    return after
