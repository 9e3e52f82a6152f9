"""Claims: one process has a thing, and the dead have nothing."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llm_energy_measure.exceptions import RecorderError, ResultNotFoundError
from llm_energy_measure.recorder.claims import Claimant, Claims, this_process
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore
from tests.support.children import outcomes_in_children

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_energy_measure.storage.base import Store

BOOT = "8cb83392-fc0a-40f4-b649-77d192ce3fb3"


def me(process_index: int = 0, **changes: Any) -> Claimant:
    """This very process, which runs."""
    real = this_process(process_index, attempt=0, host="node-a", boot_id=BOOT)
    return msgspec.structs.replace(real, **changes)


def dead(process_index: int = 0, **changes: Any) -> Claimant:
    """A process of this machine that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return me(process_index, **{"pid": pid, "started": 1, **changes})


def claims(store: Store, claimant: Claimant) -> Claims:
    return Claims(store, "exp_7", claimant)


def test_the_first_has_it_and_the_others_are_told_who() -> None:
    store = MemoryStore()
    first = claims(store, me(0))
    assert first.take("cpu-8cb83392") is None
    assert claims(store, me(1)).take("cpu-8cb83392") == me(0)
    assert claims(store, me(1)).take("ram-8cb83392") is None
    assert [entry.name for entry in store.list("raw/exp_7")] == [
        "claim-cpu-8cb83392-1.json",
        "claim-ram-8cb83392-1.json",
    ]


def test_what_is_released_is_free_and_nothing_else_is() -> None:
    store = MemoryStore()
    first, other = claims(store, me(0)), claims(store, me(1))
    first.take("cpu")
    other.take("ram")
    first.release()
    first.release()
    assert claims(store, me(2)).take("cpu") is None
    assert claims(store, me(2)).take("ram") == me(1)


def test_a_dead_one_s_claim_does_not_count_and_stays() -> None:
    store = MemoryStore()
    claims(store, dead(0)).take("cpu")
    assert claims(store, me(1)).take("cpu") is None
    assert claims(store, me(2)).take("cpu") == me(1)
    assert [entry.name for entry in store.list("raw/exp_7")] == ["claim-cpu-1.json", "claim-cpu-2.json"]


@pytest.mark.parametrize(
    ("claimant", "is_dead"),
    [
        (me(), False),
        (me(started=1), True),  # its number is another process's now
        (me(started=None), False),
        (me(attempt=-1), True),  # of an earlier attempt
        (me(pid=2**22 + 1, pid_namespace="pid:[1]"), False),  # of another container: its number says nothing
        (me(boot_id="another"), True),  # of this machine before it was started again
        (me(boot_id="another", host="node-b"), False),  # of another machine: nobody can tell
        (me(boot_id=None), False),
        (me(attempt=1), False),  # of a later attempt
    ],
)
def test_who_is_dead(claimant: Claimant, *, is_dead: bool) -> None:
    assert claimant.is_dead(me()) is is_dead


def test_a_claim_that_cannot_be_read_is_nobody_s() -> None:
    store = MemoryStore()
    store.create("raw/exp_7/claim-cpu-1.json", b"{")
    assert claims(store, me(1)).take("cpu") is None


class Interleaved:
    """A store in which something happens right after the first list, and right before the first create."""

    def __init__(self, store: Store, after_list: Callable[[], object], before_create: Callable[[], object]) -> None:
        self._store = store
        self._after_list, self._before_create = [after_list], [before_create]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, prefix: str) -> Any:
        found = self._store.list(prefix)
        if self._after_list:
            self._after_list.pop()()
        return found

    def create(self, key: str, data: bytes) -> bool:
        if self._before_create:
            self._before_create.pop()()
        return self._store.create(key, data)


@pytest.mark.parametrize("has_dead", [False, True])
def test_a_claim_that_is_released_while_it_is_looked_at_goes_to_one(*, has_dead: bool) -> None:
    store = MemoryStore()
    if has_dead:
        claims(store, dead(9)).take("cpu")
    holder, other = claims(store, me(0)), claims(store, me(2))
    assert holder.take("cpu") is None
    outcomes = []
    late: Any = Interleaved(store, holder.release, lambda: outcomes.append(other.take("cpu")))
    outcomes.append(claims(late, me(1)).take("cpu"))
    assert outcomes == [None, me(2)]


def test_a_claim_that_is_listed_and_never_found_is_told() -> None:
    store = MemoryStore()
    store.create("raw/exp_7/claim-cpu-1.json", b"{}")

    class Ghost(Interleaved):
        def get(self, key: str) -> bytes:
            raise ResultNotFoundError("cannot read", key, "look")

    ghost: Any = Ghost(store, lambda: None, lambda: None)
    with pytest.raises(RecorderError, match="cannot claim cpu: its claims are listed and can't be found"):
        claims(ghost, me(1)).take("cpu")


def test_endless_claims_are_refused() -> None:
    store = MemoryStore()
    store.create("raw/exp_7/claim-cpu-9999999.json", b"{}")
    with pytest.raises(RecorderError, match="there are 9999999 claims of it; remove them"):
        claims(store, me(1)).take("cpu")


def test_two_processes_with_one_rank_are_told_at_once() -> None:
    store = MemoryStore()
    claims(store, me(3)).take_rank()
    claims(store, me(4)).take_rank()
    with pytest.raises(
        RecorderError, match=rf"cannot record process 3: process {os.getpid()} on host node-a is record"
    ):
        claims(store, me(3)).take_rank()


@pytest.mark.parametrize("has_dead", [False, True])
def test_of_many_at_once_exactly_one_has_it(tmp_path: Path, *, has_dead: bool) -> None:
    """Also where all of them see the claim of a dead process first."""
    store = LocalStore(tmp_path / "results")
    if has_dead:
        claims(store, dead(99)).take("cpu")
    ready = threading.Event()

    def take(index: int) -> int | None:
        holder = claims(store, this_process(index, attempt=0, host="node-a", boot_id=BOOT)).take("cpu")
        ready.wait(0.2)  # nobody may be gone while the others ask
        return None if holder is None else holder.process_index

    outcomes = outcomes_in_children([lambda index=index: take(index) for index in range(8)])  # type: ignore[misc]  # a default binds it
    winners = [index for index, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1
    assert {outcome for outcome in outcomes if outcome is not None} == set(winners)
