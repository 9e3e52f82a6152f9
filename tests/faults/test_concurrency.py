"""Tests of many processes that write at once without locks: no torn result, no crash, no silent loss."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.constants import HIDDEN_MARK
from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ExperimentIdError, ResultExistsError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.store import codec
from tests.support import factories
from tests.support.children import outcomes_in_children

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXP = factories.EXPERIMENT
WRITERS = 64
ROUNDS = 3
GIVE_UP_SEC = 300

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(f"*{HIDDEN_MARK}*")]


def failures(outcomes: list[object]) -> list[object]:
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]


def counts_until_complete(count: Callable[[], int]) -> list[int]:
    """Return the counts that `count` returned, until one is `WRITERS` or the time is over."""
    counts = [count()]
    give_up = time.monotonic() + GIVE_UP_SEC
    while counts[-1] < WRITERS and time.monotonic() < give_up:
        counts.append(count())
    return counts


def test_64_processes_save_while_others_read_and_aggregate(tmp_path: Path) -> None:
    records = factories.raws(WRITERS, effective_config={"prompt": "x" * 20_000})

    def read() -> int:
        recovery = FileSystemRepository(tmp_path).recover_raw(EXP)
        assert recovery.unreadable == []
        assert recovery.results == [records[result.process_index] for result in recovery.results]
        return len(recovery.results)

    def aggregate() -> int:
        repository = FileSystemRepository(tmp_path)
        found = repository.load_all_raw(EXP)
        if found:
            repository.save_aggregated(aggregate_results(EXP, found))
        loaded = repository.load_aggregated(EXP)
        return 0 if loaded is None else len(loaded.process_results)

    saves = [partial(FileSystemRepository(tmp_path).save_raw, EXP, record) for record in records]
    others = [partial(counts_until_complete, count) for count in (read, aggregate)]
    outcomes = outcomes_in_children([*saves, *others])
    assert failures(outcomes) == []
    for seen in outcomes[WRITERS:]:
        assert isinstance(seen, list)
        assert seen == sorted(seen)
        assert seen[-1] == WRITERS
    repository = FileSystemRepository(tmp_path)
    assert repository.load_all_raw(EXP) == records
    assert leftovers(tmp_path) == []
    assert list(check_store(repository)) == []


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_one_of_two_writers_wins_and_the_other_record_is_kept(tmp_path: Path, round_: int) -> None:
    records = [factories.raw(gpu_name=f"writer {number} of round {round_}") for number in range(2)]
    outcomes = outcomes_in_children([partial(FileSystemRepository(tmp_path).save_raw, EXP, one) for one in records])
    [loser] = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, ResultExistsError)]
    assert FileSystemRepository(tmp_path).load_all_raw(EXP) == [records[1 - loser]]
    refused = outcomes[loser]
    assert isinstance(refused, ResultExistsError)
    assert refused.kept is not None
    assert f"writer {loser} of round" in refused.kept.read_text(encoding="utf-8")
    digests = tuple(codec.digest(codec.encode_raw(records[number])) for number in (1 - loser, loser))
    assert refused.digests == digests
    assert leftovers(tmp_path) == []


def test_concurrent_overwrites_keep_all_records(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    repository.save_raw(EXP, factories.raw())
    records = [factories.raw(gpu_name=f"writer {number}") for number in range(16)]
    saves = [partial(repository.save_raw, EXP, record, overwrite=True) for record in records]
    assert failures(outcomes_in_children(saves)) == []
    everything = [*(tmp_path / "raw" / EXP).glob("superseded-*"), *repository.list_raw(EXP)]
    names = sorted(repository.load_raw(path).gpu_name or "" for path in everything)
    assert names == sorted([factories.raw().gpu_name or "", *(record.gpu_name or "" for record in records)])
    assert leftovers(tmp_path) == []


def test_a_folder_never_has_results_of_two_ids(tmp_path: Path) -> None:
    for round_ in range(ROUNDS * 4):
        base = tmp_path / str(round_)
        ids = ["a/b", "a_b"] * 4
        saves = [
            partial(FileSystemRepository(base).save_raw, experiment_id, factories.raw(experiment_id, index))
            for index, experiment_id in enumerate(ids)
        ]
        outcomes = outcomes_in_children(saves)
        refused = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Exception)}
        assert {type(error) for error in refused.values()} <= {ExperimentIdError}, refused
        repository = FileSystemRepository(base)
        found = [repository.load_raw(path) for path in repository.list_raw("a_b")]
        assert len({result.experiment_id for result in found}) <= 1
        # Each record is either in the folder, or the error of its writer names the kept file.
        assert {result.process_index for result in found} == set(range(8)) - refused.keys()
        for index, error in refused.items():
            assert isinstance(error, ExperimentIdError)
            assert error.kept is not None
            assert f'"process_index": {index}' in error.kept.read_text(encoding="utf-8")


def test_concurrent_begins_of_one_run_all_succeed(tmp_path: Path) -> None:
    manifests = [Manifest(experiment_id="a/b", expected_processes=16)] * 16
    begins = [
        partial(FileSystemRepository(tmp_path).begin_experiment, manifest, index)
        for index, manifest in enumerate(manifests)
    ]
    assert failures(outcomes_in_children(begins)) == []
    assert FileSystemRepository(tmp_path).load_manifest("a/b") == manifests[0]


def test_concurrent_begins_of_different_runs_have_one_winner(tmp_path: Path) -> None:
    manifests = [Manifest(experiment_id=EXP, config_digest=str(number) * 64) for number in range(8)]
    begins = [partial(FileSystemRepository(tmp_path).begin_experiment, manifest) for manifest in manifests]
    outcomes = outcomes_in_children(begins)
    [won] = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert {type(outcome) for outcome in failures(outcomes)} == {ResultExistsError}
    assert FileSystemRepository(tmp_path).load_manifest(EXP) == manifests[won]


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_concurrent_begins_of_a_later_attempt_keep_the_earlier_one(tmp_path: Path, round_: int) -> None:
    attempt = round_ + 1
    repository = FileSystemRepository(tmp_path)
    repository.begin_experiment(Manifest(experiment_id=EXP, attempt=round_))
    before = factories.raws(3, gpu_name="of the earlier attempt")
    for record in before:
        repository.save_raw(EXP, record)

    def begin_and_save(index: int) -> None:
        own = FileSystemRepository(tmp_path)
        own.begin_experiment(Manifest(experiment_id=EXP, attempt=attempt), index)
        own.save_raw(EXP, factories.raw(process_index=index, gpu_name="of the next attempt"))

    outcomes = outcomes_in_children([partial(begin_and_save, index) for index in range(8)])
    assert failures(outcomes) == []
    assert [result.gpu_name for result in repository.load_all_raw(EXP)] == ["of the next attempt"] * 8
    manifest = repository.load_manifest(EXP)
    assert manifest is not None
    assert manifest.attempt == attempt
    earlier = tmp_path / "raw" / f".{EXP}~attempt-{round_}"
    assert [repository.load_raw(path) for path in sorted(earlier.glob("process_*.json"))] == before
    # If another process moves the folder during the write of a manifest, the unfinished file stays in it.
    unfinished = {path.parent for path in tmp_path.rglob(f".*.json{HIDDEN_MARK}*")}
    assert unfinished <= {earlier}


def test_result_saved_during_a_deletion_is_stored_or_deleted(tmp_path: Path) -> None:
    for round_ in range(ROUNDS):
        base = tmp_path / str(round_)
        repository = FileSystemRepository(base)
        repository.save_raw(EXP, factories.raw())
        saves = [
            partial(FileSystemRepository(base).save_raw, EXP, factories.raw(process_index=index))
            for index in range(1, 8)
        ]
        outcomes = outcomes_in_children([*saves, partial(repository.delete_experiment, EXP)])
        assert failures(outcomes) == []
        assert 0 not in {result.process_index for result in repository.load_all_raw(EXP)}
        assert leftovers(base) == []
