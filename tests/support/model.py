"""What a results directory holds, as a plain value: what each operation makes of it, and what is really there.

An operation that was cut short has left what was there before, what it makes, or one of the states in between that
`outcomes` names. Nothing else is a result that survives.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from llm_energy_measure.constants import MANIFEST_NAME
from llm_energy_measure.domain.experiment import Manifest, process_index_of
from llm_energy_measure.exceptions import ResultExistsError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.store import codec, layout
from llm_energy_measure.storage.atomic import target_name
from tests.support import factories

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.storage.base import Store

IDS = ("exp", "a/b", "Z.9")
LATE = 1000  # no process that has a result
LARGE_EVERY = 16  # one variant in so many has a quarter of a megabyte

Results = dict[int, int]  # process index -> variant


class Operation(NamedTuple):
    """One call of the repository.

    Attributes:
        kind: `save`, `conflict`, `overwrite`, `begin`, `aggregate` or `delete`.
        experiment_id: Of which experiment.
        number: The process, for `begin` the attempt, for `aggregate` how many others in the same batch.
        variant: What tells the content from that of every other operation.
    """

    kind: str
    experiment_id: str
    number: int = 0
    variant: int = 0


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        raw: Visible results.
        kept: What overwrites replaced and conflicts refused, as (index, variant).
        attempt: The manifest's, or None where there is no manifest.
        earlier: Results of earlier attempts.
        aggregated: Results that the aggregate was made from.
    """

    raw: Results = field(default_factory=dict)
    kept: frozenset[tuple[int, int]] = frozenset()
    attempt: int | None = None
    earlier: Mapping[int, Results] = field(default_factory=dict)
    aggregated: Results | None = None

    def is_held_by(self, found: Experiment) -> bool:
        """True if what was found is this, with more kept beside at most: what is kept may not get less."""
        same = replace(found, kept=self.kept) == self
        return same and self.kept <= found.kept


Directory = dict[str, Experiment]  # by id; an experiment of which nothing is there stands for itself


def record(operation: Operation) -> RawProcessResult:
    """The record of a `save`, `conflict` or `overwrite`."""
    prompt = "x" * 250_000 if operation.variant % LARGE_EVERY == 1 else "x"
    return factories.raw(
        operation.experiment_id,
        operation.number,
        gpu_name=f"variant {operation.variant}",
        effective_config={"prompt": prompt},
    )


def perform(repository: FileSystemRepository, operation: Operation) -> None:
    """Make the call."""
    kind, experiment_id, index, _ = operation
    if kind == "begin":
        # A process that comes late: it joins those of this attempt, or begins the next one.
        repository.begin_experiment(Manifest(experiment_id=experiment_id, attempt=index), process_index=LATE)
    elif kind == "aggregate":
        made = aggregate_results(experiment_id, repository.load_all_raw(experiment_id))
        # Alone, or in a batch with one that nobody looks at.
        repository.save_all_aggregated([made, factories.aggregated("filler")] if index else [made])
    elif kind == "delete":
        repository.delete_experiment(experiment_id)
    elif kind == "conflict":
        try:
            repository.save_raw(experiment_id, record(operation))
        except ResultExistsError:
            return
        raise AssertionError("a different result was replaced without a word")
    else:
        repository.save_raw(experiment_id, record(operation), overwrite=kind == "overwrite")


def outcomes(before: Experiment, operation: Operation) -> list[Experiment]:
    """The states that a call goes through: what was there, what is there in between, and last what it makes."""
    kind, _, index, variant = operation
    if kind in ("save", "conflict", "overwrite"):
        states = [before]
        if before.attempt is None:
            states.append(replace(before, attempt=0))
        pinned = states[-1]
        if kind == "conflict":
            return [*states, replace(pinned, kept=pinned.kept | {(index, variant)})]
        replaced = {(index, pinned.raw[index])} if pinned.raw.get(index, variant) != variant else set()
        return [*states, replace(pinned, raw={**pinned.raw, index: variant}, kept=pinned.kept | replaced)]
    if kind == "begin":
        if before.attempt is None or before.attempt >= index:
            return [before, before if before.attempt is not None else replace(before, attempt=index)]
        earlier = {**before.earlier, before.attempt: before.raw}
        moved = replace(before, raw={}, kept=frozenset(), attempt=None, earlier=earlier)
        return [before, moved, replace(moved, attempt=index)]
    if kind == "aggregate":
        return [before, replace(before, aggregated=before.raw)]
    return [before, Experiment()]


def random_operation(chance: random.Random, experiment_id: str, now: Experiment, variant: int) -> Operation:
    """An operation that makes sense now; `variant` must be new."""
    kinds = ["save"] * 4 + ["begin"]
    if now.raw:
        kinds += ["overwrite"] * 3 + ["conflict", "aggregate", "aggregate", "delete"]
    between_attempts = now.attempt is None and now.earlier  # a run begins before it saves
    kind = "begin" if between_attempts else chance.choice(kinds)
    if kind in ("overwrite", "conflict"):
        return Operation(kind, experiment_id, chance.choice(sorted(now.raw)), variant)
    if kind == "save":
        index = chance.randrange(6)
        return Operation(kind, experiment_id, index, now.raw.get(index, variant))
    if kind == "begin":
        least = now.attempt if now.attempt is not None else max(now.earlier, default=-1) + 1
        return Operation(kind, experiment_id, least + chance.randrange(2))
    return Operation(kind, experiment_id, chance.randrange(2) if kind == "aggregate" else 0)


# What is really there, looked up without the repository


def observe(store: Store) -> Directory:
    """What a store holds for each of `IDS`. Whatever looks like a result has to be whole, or it raises."""
    return {experiment_id: _observe(store, layout.folder_name(experiment_id)) for experiment_id in IDS}


def _observe(store: Store, folder: str) -> Experiment:
    if store.list(f"raw/.{folder}~deleted") and not store.list(f"raw/{folder}"):
        return Experiment()
    raw, kept, attempt = _folder(store, f"raw/{folder}")
    earlier = {}
    for entry in store.list("raw"):
        match = re.fullmatch(rf"\.{re.escape(folder)}~attempt-([0-9]+)", entry.name)
        if match:
            earlier[int(match[1])] = _folder(store, f"raw/{entry.name}")[0]
    aggregated = None
    if any(entry.name == f"{folder}.json" for entry in store.list("aggregated")):
        made = codec.decode_aggregated(store.get(f"aggregated/{folder}.json"), folder)
        aggregated = {result.process_index: _variant(result.gpu_name) for result in made.process_results}
    return Experiment(raw=raw, kept=frozenset(kept), attempt=attempt, earlier=earlier, aggregated=aggregated)


def _folder(store: Store, prefix: str) -> tuple[Results, set[tuple[int, int]], int | None]:
    raw: Results = {}
    kept = set()
    attempt = None
    for name in (entry.name for entry in store.list(prefix)):
        data = store.get(f"{prefix}/{name}")
        meant_for = target_name(name)
        if process_index_of(name) is not None:
            result = codec.decode_raw(data, name)
            raw[result.process_index] = _variant(result.gpu_name)
        elif name.startswith("superseded-"):
            result = codec.decode_raw(data, name)
            kept.add((result.process_index, _variant(result.gpu_name)))
        elif name.startswith("rejected-"):
            refused = json.loads(data)["record"]
            kept.add((refused["process_index"], _variant(refused["gpu_name"])))
        elif name == MANIFEST_NAME:
            attempt = codec.decode_manifest(data, name).attempt
        elif meant_for is not None and process_index_of(meant_for) is not None:
            kept |= _unpublished(data)
        else:
            assert meant_for is not None, f"{name} is no name of ours"
    return raw, kept, attempt


def _unpublished(data: bytes) -> set[tuple[int, int]]:
    """What an unfinished file holds, if it is whole: a replaced result on its way to its new name."""
    try:
        found = json.loads(data)
    except ValueError:
        return set()
    return {(found["process_index"], _variant(found["gpu_name"]))}


def _variant(gpu_name: str | None) -> int:
    assert gpu_name is not None
    return int(gpu_name.removeprefix("variant "))
