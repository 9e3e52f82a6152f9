"""A state machine that compares the repository with plain values, with crashes and disk errors as steps."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.state import source_changes
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import model
from tests.support.faulty_store import CrashedError, FaultyStore

if TYPE_CHECKING:
    from tests.support.faulty_store import Fault, When

ids = st.sampled_from(model.IDS)
seeds = st.integers(0, 2**16)
MOST_STEPS = 6


class CrashMachine(RuleBasedStateMachine):
    """Each operation has the effect of the model. An interrupted operation leaves one of its intermediate states."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.repository = FileSystemRepository(store=self.store)
        self.expected = model.observe(self.store)
        self.variant = 0

    def operation(self, experiment_id: str, seed: int) -> model.Operation:
        self.variant += 1
        chance = random.Random(seed)
        return model.random_operation(chance, experiment_id, self.expected[experiment_id], self.variant)

    @rule(experiment_id=ids, seed=seeds)
    def work(self, experiment_id: str, seed: int) -> None:
        operation = self.operation(experiment_id, seed)
        model.perform(self.repository, operation)
        self.expected[experiment_id] = model.outcomes(self.expected[experiment_id], operation)[-1]

    @rule(
        experiment_id=ids,
        seed=seeds,
        at=st.integers(0, MOST_STEPS),
        when=st.sampled_from(["before", "after"]),
        fault=st.sampled_from(["crash", "EIO"]),
    )
    def fail(self, experiment_id: str, seed: int, at: int, when: When, fault: Fault) -> None:
        operation = self.operation(experiment_id, seed)
        faulty = FaultyStore(self.store, at, when, fault)
        try:
            model.perform(FileSystemRepository(store=faulty), operation)
        except (CrashedError, StorageError) as error:
            note(f"{operation} was cut short {when} {faulty.steps[-1]}: {error!r}")
        found = model.observe(self.store)[experiment_id]
        fitting = [state for state in model.outcomes(self.expected[experiment_id], operation) if state.matches(found)]
        assert fitting, f"{operation} has left {found}"
        self.expected[experiment_id] = fitting[-1]

    @rule(experiment_id=ids)
    def load(self, experiment_id: str) -> None:
        expected = self.expected[experiment_id]
        loaded = self.repository.load_all_raw(experiment_id)
        assert {result.process_index: result.gpu_name for result in loaded} == {
            index: f"variant {variant}" for index, variant in expected.raw.items()
        }
        assert self.repository.has_raw(experiment_id) is bool(expected.raw)
        aggregated = self.repository.load_aggregated(experiment_id)
        assert (aggregated is None) is (expected.aggregated is None)
        if aggregated is not None and expected.aggregated is not None:
            assert {result.process_index for result in aggregated.process_results} == expected.aggregated.keys()
            assert bool(source_changes(self.repository, aggregated)) is (expected.aggregated != expected.raw)

    @invariant()
    def what_is_there_is_what_was_acknowledged(self) -> None:
        for experiment_id, found in model.observe(self.store).items():
            assert self.expected[experiment_id].matches(found)


TestCrashes = CrashMachine.TestCase
TestCrashes.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
