"""A state machine that compares `FileSystemRepository` with a plain dict."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llm_energy_measure.constants import HIDDEN_MARK
from llm_energy_measure.exceptions import ResultExistsError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.state import source_changes
from llm_energy_measure.security import sanitize_experiment_id
from tests.support import factories

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

ids = st.sampled_from(["exp", "exp-1", "a/b", "Z.9"])
indices = st.sampled_from([0, 1, 2, 10])
variants = st.integers(0, 2)


class RepositoryMachine(RuleBasedStateMachine):
    """Models raw results by id and index, and each aggregate as the raw results in it."""

    def __init__(self) -> None:
        super().__init__()
        self.raw: dict[str, dict[int, RawProcessResult]] = {}
        self.aggregated: dict[str, dict[int, RawProcessResult]] = {}

    @initialize()
    def start(self) -> None:
        self.base = Path(tempfile.mkdtemp())
        self.repository = FileSystemRepository(self.base)

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    @rule(experiment_id=ids, index=indices, variant=variants)
    def save(self, experiment_id: str, index: int, variant: int) -> None:
        record = factories.raw(experiment_id, index, gpu_name=f"variant {variant}")
        stored = self.raw.setdefault(experiment_id, {}).setdefault(index, record)
        if stored == record:
            self.repository.save_raw(experiment_id, record)
        else:
            with pytest.raises(ResultExistsError):
                self.repository.save_raw(experiment_id, record)

    @rule(experiment_id=ids, index=indices, variant=variants)
    def overwrite(self, experiment_id: str, index: int, variant: int) -> None:
        record = factories.raw(experiment_id, index, gpu_name=f"variant {variant}")
        self.repository.save_raw(experiment_id, record, overwrite=True)
        self.raw.setdefault(experiment_id, {})[index] = record

    @rule(experiment_id=ids)
    def aggregate(self, experiment_id: str) -> None:
        if self.raw.get(experiment_id):
            made = aggregate_results(experiment_id, self.repository.load_all_raw(experiment_id))
            self.repository.save_aggregated(made)
            self.aggregated[experiment_id] = dict(self.raw[experiment_id])

    @rule(experiment_id=ids)
    def delete(self, experiment_id: str) -> None:
        known = experiment_id in self.raw or experiment_id in self.aggregated
        assert self.repository.delete_experiment(experiment_id) is known
        self.raw.pop(experiment_id, None)
        self.aggregated.pop(experiment_id, None)

    @rule(experiment_id=ids, index=indices)
    def lose(self, experiment_id: str, index: int) -> None:
        """Delete a file without the repository."""
        if len(self.raw.get(experiment_id, {})) > 1 and index in self.raw[experiment_id]:
            (self.base / "raw" / sanitize_experiment_id(experiment_id) / f"process_{index}.json").unlink()
            del self.raw[experiment_id][index]

    @rule(experiment_id=ids)
    def load(self, experiment_id: str) -> None:
        expected = self.raw.get(experiment_id, {})
        assert self.repository.has_raw(experiment_id) is bool(expected)
        assert [path.name for path in self.repository.list_raw(experiment_id)] == [
            f"process_{index}.json" for index in sorted(expected)
        ]
        assert self.repository.load_all_raw(experiment_id) == [expected[index] for index in sorted(expected)]

    @rule(experiment_id=ids)
    def load_aggregated(self, experiment_id: str) -> None:
        sources = self.aggregated.get(experiment_id)
        assert self.repository.has_aggregated(experiment_id) is (sources is not None)
        loaded = self.repository.load_aggregated(experiment_id)
        assert (loaded is None) is (sources is None)
        if loaded is not None and sources is not None:
            assert loaded.process_results == [sources[index] for index in sorted(sources)]
            assert bool(source_changes(self.repository, loaded)) is (sources != self.raw.get(experiment_id, {}))

    @invariant()
    def lists_are_the_keys(self) -> None:
        assert self.repository.list_experiments() == sorted(map(sanitize_experiment_id, self.raw))
        assert self.repository.list_aggregated() == sorted(map(sanitize_experiment_id, self.aggregated))

    @invariant()
    def nothing_is_left_over(self) -> None:
        assert not list(self.base.rglob(f"*{HIDDEN_MARK}*"))


TestRepository = RepositoryMachine.TestCase
TestRepository.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
