"""A model of a results directory as a plain value: the effect of each operation, and the observed content.

An interrupted operation leaves the state before it, the state after it, or one of the states between them that
`outcomes` returns. Any other state is a lost or a torn result.
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
from llm_energy_measure.storage.temporary import is_lock, target_name
from tests.support import factories

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.storage.base import Store

IDS = ("exp", "a/b", "Z.9")
LATE = 1000  # index of a process without a result
LARGE_EVERY = 16  # one of 16 variants has 250 kB

Results = dict[int, int]  # process index -> variant


class Operation(NamedTuple):
    """One call of the repository.

    Attributes:
        kind: `save`, `conflict`, `overwrite`, `begin`, `aggregate` or `delete`.
        experiment_id: Id of the experiment.
        number: Process index; for `begin` the attempt; for `aggregate` the number of other aggregates in the batch.
        variant: A number that identifies the content of this operation.
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
        kept: Results that overwrites replaced or conflicts refused, as (index, variant).
        attempt: Attempt in the manifest. None without a manifest.
        earlier: Results of earlier attempts.
        aggregated: Results that the aggregate was computed from.
    """

    raw: Results = field(default_factory=dict)
    kept: frozenset[tuple[int, int]] = frozenset()
    attempt: int | None = None
    earlier: Mapping[int, Results] = field(default_factory=dict)
    aggregated: Results | None = None

    def matches(self, found: Experiment) -> bool:
        """Return True if the observed state is this state. It may have more kept results, but not fewer."""
        same = replace(found, kept=self.kept) == self
        return same and self.kept <= found.kept


Directory = dict[str, Experiment]  # by id; an empty `Experiment` means that nothing is stored


def record(operation: Operation) -> RawProcessResult:
    """Return the record of a `save`, `conflict` or `overwrite`."""
    prompt = "x" * 250_000 if operation.variant % LARGE_EVERY == 1 else "x"
    return factories.raw(
        operation.experiment_id,
        operation.number,
        gpu_name=f"variant {operation.variant}",
        effective_config={"prompt": prompt},
    )


def perform(repository: FileSystemRepository, operation: Operation) -> None:
    """Call the repository."""
    kind, experiment_id, index, _ = operation
    if kind == "begin":
        # A process without a result joins the current attempt, or begins the next one.
        repository.begin_experiment(Manifest(experiment_id=experiment_id, attempt=index), process_index=LATE)
    elif kind == "aggregate":
        result = aggregate_results(experiment_id, repository.load_all_raw(experiment_id))
        # Save it alone, or in a batch with an aggregate that no test reads.
        repository.save_all_aggregated([result, factories.aggregated("filler")] if index else [result])
    elif kind == "delete":
        repository.delete_experiment(experiment_id)
    elif kind == "conflict":
        try:
            repository.save_raw(experiment_id, record(operation))
        except ResultExistsError:
            return
        raise AssertionError("a different result was replaced without an error")
    else:
        repository.save_raw(experiment_id, record(operation), overwrite=kind == "overwrite")


def outcomes(before: Experiment, operation: Operation) -> list[Experiment]:
    """Return the states of a call in order: before, between its steps, and after it."""
    kind, _, index, variant = operation
    if kind in ("save", "conflict", "overwrite"):
        states = [before]
        if before.attempt is None:
            states.append(replace(before, attempt=0))
        owned = states[-1]
        if kind == "conflict":
            return [*states, replace(owned, kept=owned.kept | {(index, variant)})]
        replaced = {(index, owned.raw[index])} if owned.raw.get(index, variant) != variant else set()
        return [*states, replace(owned, raw={**owned.raw, index: variant}, kept=owned.kept | replaced)]
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
    """Return an operation that is possible in the state `now`. No other operation may have this `variant`."""
    kinds = ["save"] * 4 + ["begin"]
    if now.raw:
        kinds += ["overwrite"] * 3 + ["conflict", "aggregate", "aggregate", "delete"]
    between_attempts = now.attempt is None and now.earlier  # the next attempt must begin before it saves
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


# Observe the store without the repository


def observe(store: Store) -> Directory:
    """Return the observed state of each of `IDS`. Raises if a file with the name of a result is torn."""
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
        decoded = codec.decode_aggregated(store.get(f"aggregated/{folder}.json"), folder)
        aggregated = {result.process_index: _variant(result.gpu_name) for result in decoded.process_results}
    return Experiment(raw=raw, kept=frozenset(kept), attempt=attempt, earlier=earlier, aggregated=aggregated)


def _folder(store: Store, prefix: str) -> tuple[Results, set[tuple[int, int]], int | None]:
    raw: Results = {}
    kept = set()
    attempt = None
    for name in (entry.name for entry in store.list(prefix)):
        data = store.get(f"{prefix}/{name}")
        target = target_name(name)
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
        elif target is not None and process_index_of(target) is not None:
            kept |= _unpublished(data)
        else:
            assert target is not None or is_lock(name), f"unexpected file name {name}"
    return raw, kept, attempt


def _unpublished(data: bytes) -> set[tuple[int, int]]:
    """Return the replaced result in a complete unfinished file: its rename to the new name did not happen."""
    try:
        found = json.loads(data)
    except ValueError:
        return set()
    return {(found["process_index"], _variant(found["gpu_name"]))}


def _variant(gpu_name: str | None) -> int:
    assert gpu_name is not None
    return int(gpu_name.removeprefix("variant "))
