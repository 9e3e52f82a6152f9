"""Tests of bulk aggregation: states of experiments, rewritten aggregates, and failures."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from llm_energy_measure import constants
from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.domain.experiment import AggregatedSummary, UnreadableFile, summary_of
from llm_energy_measure.exceptions import (
    AggregationError,
    ConfigurationError,
    IncompleteExperimentError,
    LLMEnergyMeasureError,
    StorageError,
)
from llm_energy_measure.results import (
    FileSystemRepository,
    aggregate_all,
    recover_all,
    strategies,
)
from llm_energy_measure.results.batch.bulk import AggregationOutcome
from llm_energy_measure.results.batch.state import inspect_experiment
from llm_energy_measure.results.store.checkpoints import keep_partial
from llm_energy_measure.storage.folder import store_time_ns
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import factories
from tests.support.aggregation import aggregate_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llm_energy_measure.domain.experiment import RawProcessResult


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    """Return a repository with two processes of one experiment."""
    repository = FileSystemRepository(tmp_path)
    for record in factories.raws(2):
        repository.save_raw("exp_7", record)
    return repository


def raw_file(repository: FileSystemRepository, process: int = 0) -> Path:
    return repository.base_path / "raw" / "exp_7" / f"process_{process}.json"


def aggregate_file(repository: FileSystemRepository) -> Path:
    return repository.base_path / "aggregated" / "exp_7.json"


def status(repository: FileSystemRepository) -> str:
    return inspect_experiment(repository, "exp_7").status


def save_external(repository: FileSystemRepository) -> bytes:
    """Save an aggregate of another tool."""
    repository.save_aggregated(factories.aggregated())
    return aggregate_file(repository).read_bytes()


# State of an experiment


def test_experiment_without_an_aggregate_is_pending(repository: FileSystemRepository) -> None:
    assert inspect_experiment(repository, "exp_7").aggregated is None
    assert status(repository) == "pending"
    assert status(FileSystemRepository(repository.base_path / "nothing")) == "pending"


def test_aggregated_experiment_is_current(repository: FileSystemRepository) -> None:
    outcome = aggregate_one(repository, "exp_7")
    assert (outcome.result, outcome.unreadable, outcome.error) == ("aggregated", [], None)
    assert outcome.aggregated is not None
    assert outcome.aggregated.total_energy_j == 4193.0
    state = inspect_experiment(repository, "exp_7")
    assert (state.status, state.changes, state.problem) == ("current", None, None)
    assert type(state.aggregated) is AggregatedSummary


def test_new_raw_file_makes_an_aggregate_stale(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    repository.save_raw("exp_7", factories.raw("exp_7", 2))
    state = inspect_experiment(repository, "exp_7")
    assert state.status == "stale"
    assert state.changes is not None
    assert (state.changes.added, state.changes.removed, state.changes.changed) == (["process_2.json"], [], [])


def test_other_bytes_of_the_same_size_make_an_aggregate_stale(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    path = raw_file(repository)
    changed = path.read_bytes().replace(b"1971.5", b"1971.6")
    assert len(changed) == path.stat().st_size
    path.write_bytes(changed)
    state = inspect_experiment(repository, "exp_7")
    assert state.status == "stale"
    assert state.changes is not None
    assert state.changes.changed == ["process_0.json"]


def test_removed_raw_file_makes_an_aggregate_stale(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    raw_file(repository, 1).unlink()
    state = inspect_experiment(repository, "exp_7")
    assert state.status == "stale"
    assert state.changes is not None
    assert state.changes.removed == ["process_1.json"]


def test_file_rewritten_with_the_same_bytes_leaves_it_current(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    data = raw_file(repository).read_bytes()
    raw_file(repository).unlink()
    raw_file(repository).write_bytes(data)
    assert status(repository) == "current"


def test_unrelated_files_leave_an_aggregate_current(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    for name in ("notes.txt", ".completed_0", "process_x.json", "process_01.json"):
        raw_file(repository).with_name(name).write_bytes(b"?")
    assert status(repository) == "current"


def test_aggregate_without_sources_is_external_and_never_stale(repository: FileSystemRepository) -> None:
    save_external(repository)
    raw_file(repository, 1).unlink()
    assert status(repository) == "external"


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"experiment_id": "exp_7"}'])
def test_invalid_aggregate_is_unreadable_with_a_reason(repository: FileSystemRepository, content: bytes) -> None:
    save_external(repository)
    aggregate_file(repository).write_bytes(content)
    state = inspect_experiment(repository, "exp_7")
    assert (state.status, state.aggregated) == ("unreadable", None)
    assert state.problem


# Aggregates that are written again


def test_current_aggregate_is_rewritten_by_force_only(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    before = aggregate_file(repository).stat().st_ino
    outcome = aggregate_one(repository, "exp_7")
    assert outcome.result == "current"
    assert outcome.aggregated is not None
    assert aggregate_file(repository).stat().st_ino == before
    assert aggregate_one(repository, "exp_7", force=True).result == "aggregated"
    assert aggregate_file(repository).stat().st_ino != before


def test_stale_aggregate_is_rewritten(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    repository.save_raw("exp_7", factories.raw("exp_7", 2))
    outcome = aggregate_one(repository, "exp_7")
    assert outcome.aggregated is not None
    assert outcome.aggregated.aggregation.num_processes == 3
    assert status(repository) == "current"


def test_torn_aggregate_is_rewritten_and_kept(repository: FileSystemRepository) -> None:
    save_external(repository)
    aggregate_file(repository).write_bytes(b'{"torn')
    assert aggregate_one(repository, "exp_7").result == "aggregated"
    assert aggregate_file(repository).with_name("superseded-exp_7-1.json.kept").read_bytes() == b'{"torn'


def test_external_aggregate_is_replaced_by_force_only_and_kept(repository: FileSystemRepository) -> None:
    theirs = save_external(repository)
    outcome = aggregate_one(repository, "exp_7")
    assert outcome.result == "external"
    assert aggregate_file(repository).read_bytes() == theirs
    assert aggregate_one(repository, "exp_7", force=True).result == "aggregated"
    assert aggregate_file(repository).with_name("superseded-exp_7-1.json.kept").read_bytes() == theirs
    assert status(repository) == "current"
    aggregate_one(repository, "exp_7", force=True)
    assert sorted(path.name for path in aggregate_file(repository).parent.iterdir()) == [
        "exp_7.json",
        "superseded-exp_7-1.json.kept",
    ]


def test_failed_aggregation_keeps_an_external_aggregate(repository: FileSystemRepository) -> None:
    theirs = save_external(repository)
    raw_file(repository, 0).unlink()
    with pytest.raises(IncompleteExperimentError):
        aggregate_one(repository, "exp_7", force=True)
    assert [path.read_bytes() for path in aggregate_file(repository).parent.iterdir()] == [theirs]


@pytest.mark.parametrize("force", [False, True])
def test_strict_failure_keeps_the_old_aggregate(repository: FileSystemRepository, force: bool) -> None:
    aggregate_one(repository, "exp_7")
    before = aggregate_file(repository).read_bytes()
    raw_file(repository, 0).write_bytes(b"")
    with pytest.raises(IncompleteExperimentError) as caught:
        aggregate_one(repository, "exp_7", force=force)
    assert caught.value.report is not None
    assert caught.value.report.missing == [0]
    assert aggregate_file(repository).read_bytes() == before


def test_unreadable_file_leaves_a_partial_aggregate_current(repository: FileSystemRepository) -> None:
    raw_file(repository, 1).write_bytes(b"{")
    outcome = aggregate_one(repository, "exp_7", strict=False)
    assert [file.name for file in outcome.unreadable] == ["process_1.json"]
    assert outcome.aggregated is not None
    assert outcome.aggregated.is_lower_bound is True
    assert status(repository) == "current"
    raw_file(repository, 1).write_bytes(b"[")
    assert status(repository) == "stale", "its bytes are others now"


# Options that an aggregate remembers


class Greatest:
    """A strategy of another package: the maximum of each figure."""

    name = "greatest"

    def combine(self, results: Sequence[RawProcessResult]) -> strategies.Totals:
        return strategies.Totals(
            total_tokens=None,
            total_energy_j=max(result.energy_metrics.total_energy_j or 0 for result in results),
            total_inference_time_sec=None,
            avg_tokens_per_second=None,
            total_flops=None,
        )


@pytest.fixture
def greatest(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Install a package that adds the strategy with an entry point."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "largest_rule-1.dist-info").mkdir()
    (folder / "largest_rule-1.dist-info" / "METADATA").write_text("Name: largest-rule\nVersion: 1\n")
    (folder / "largest_rule-1.dist-info" / "entry_points.txt").write_text(
        "[llm_energy_measure.strategies]\ngreatest = largest_rule:RULE\n"
    )
    source = Path(__file__).read_text(encoding="utf-8")
    rule = source.partition("class Greatest:")[2].partition("\n\n\n@pytest")[0]
    (folder / "largest_rule.py").write_text(
        "from __future__ import annotations\nfrom llm_energy_measure.results import strategies\n\n"
        f"class Greatest:{rule}\n\nRULE = Greatest()\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield "greatest"
    import sys

    sys.modules.pop("largest_rule", None)


def test_another_strategy_rewrites_an_aggregate_and_is_remembered(
    repository: FileSystemRepository, greatest: str
) -> None:
    aggregate_one(repository, "exp_7")
    outcome = aggregate_one(repository, "exp_7", strategy=greatest)
    assert outcome.result == "aggregated"
    assert outcome.aggregated is not None
    assert (outcome.aggregated.total_energy_j, outcome.aggregated.aggregation.method) == (2221.5, "greatest")
    assert aggregate_one(repository, "exp_7").result == "current"
    assert aggregate_one(repository, "exp_7", strategy=greatest).result == "current"

    repository.save_raw("exp_7", factories.raw("exp_7", 2))
    outcome = aggregate_one(repository, "exp_7")
    assert outcome.aggregated is not None
    assert (outcome.aggregated.total_energy_j, outcome.aggregated.aggregation.method) == (2471.5, "greatest")
    outcome = aggregate_one(repository, "exp_7", strategy=constants.DEFAULT_STRATEGY)
    assert outcome.aggregated is not None
    assert outcome.aggregated.total_energy_j == 1971.5 + 2221.5 + 2471.5


def test_unknown_strategy_changes_nothing(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    before = aggregate_file(repository).read_bytes()
    for force in (False, True):
        with pytest.raises(ConfigurationError, match="'nonsense': the strategy is unknown"):
            aggregate_one(repository, "exp_7", strategy="nonsense", force=force)
    assert aggregate_file(repository).read_bytes() == before


def test_missing_strategy_fails_only_the_aggregates_that_need_it(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    stored = repository.load_aggregated("exp_7")
    assert stored is not None
    gone = structs.replace(stored.aggregation, method="gone")
    repository.save_aggregated(structs.replace(stored, aggregation=gone))
    assert aggregate_one(repository, "exp_7").result == "current"
    repository.save_raw("exp_7", factories.raw("exp_7", 2))
    with pytest.raises(ConfigurationError, match="'gone': the strategy is unknown"):
        aggregate_one(repository, "exp_7")
    assert aggregate_one(repository, "exp_7", strategy=constants.DEFAULT_STRATEGY).result == "aggregated"


def test_expected_number_of_processes_is_remembered(repository: FileSystemRepository) -> None:
    with pytest.raises(IncompleteExperimentError):
        aggregate_one(repository, "exp_7", expected_processes=3)
    first = aggregate_one(repository, "exp_7", expected_processes=3, strict=False)
    assert first.aggregated is not None
    assert first.aggregated.is_lower_bound is True
    assert aggregate_one(repository, "exp_7", expected_processes=3, strict=False).result == "current"
    with pytest.raises(IncompleteExperimentError, match="2 of 3 processes"):
        aggregate_one(repository, "exp_7")  # a current aggregate may still be a lower bound

    raw_file(repository).write_bytes(raw_file(repository).read_bytes() + b"\n")
    with pytest.raises(IncompleteExperimentError, match="2 of 3 processes"):
        aggregate_one(repository, "exp_7")
    other = aggregate_one(repository, "exp_7", expected_processes=2)
    assert other.aggregated is not None
    assert other.aggregated.is_lower_bound is False


def test_another_expected_number_rewrites_an_aggregate(repository: FileSystemRepository) -> None:
    aggregate_one(repository, "exp_7")
    assert aggregate_one(repository, "exp_7", expected_processes=2).result == "aggregated", "it was a guess"
    assert aggregate_one(repository, "exp_7", expected_processes=2).result == "current"
    with pytest.raises(IncompleteExperimentError):
        aggregate_one(repository, "exp_7", expected_processes=5)


def test_invalid_expected_number_is_refused(repository: FileSystemRepository) -> None:
    with pytest.raises(ConfigurationError, match="expected_processes is 0; pass an integer"):
        aggregate_one(repository, "exp_7", expected_processes=0)
    aggregate_one(repository, "exp_7")
    with pytest.raises(ConfigurationError, match="expected_processes is 0; pass an integer"):
        aggregate_one(repository, "exp_7", expected_processes=0)


def test_unreadable_manifest_is_reported_and_loses_no_measurement(repository: FileSystemRepository) -> None:
    raw_file(repository).with_name("manifest.json").write_bytes(b"{")
    with pytest.raises(IncompleteExperimentError, match=r"manifest\.json .*; pass the number of processes"):
        aggregate_one(repository, "exp_7")  # the expected number is unknown
    outcome = aggregate_one(repository, "exp_7", strict=False)
    assert [file.name for file in outcome.unreadable] == ["manifest.json"]
    assert outcome.aggregated is not None
    assert outcome.aggregated.total_energy_j == 4193.0
    assert any("manifest.json" in warning for warning in outcome.aggregated.aggregation.warnings)


# Many experiments


def test_aggregate_all_continues_after_a_failure(repository: FileSystemRepository) -> None:
    repository.save_raw("alone", factories.raw("alone", 1))
    repository.save_raw("whole", factories.raw("whole"))
    found = {outcome.experiment_id: outcome for outcome in aggregate_all(repository)}
    assert {name: outcome.result for name, outcome in found.items()} == {
        "alone": "failed",
        "exp_7": "aggregated",
        "whole": "aggregated",
    }
    assert isinstance(found["alone"].error, IncompleteExperimentError)
    assert [outcome.result for outcome in aggregate_all(repository)] == ["failed", "current", "current"]


def test_named_experiments_that_are_absent_fail(repository: FileSystemRepository) -> None:
    outcomes = list(aggregate_all(repository, ["exp_7", "nope", "..", "exp_7"]))
    assert [outcome.result for outcome in outcomes] == ["aggregated", "failed", "failed", "current"]
    assert isinstance(outcomes[1].error, AggregationError)


def test_aggregate_all_is_lazy(repository: FileSystemRepository) -> None:
    repository.save_raw("whole", factories.raw("whole"))
    outcomes = aggregate_all(repository)
    assert not (repository.base_path / "aggregated").exists()
    assert next(outcomes).experiment_id == "exp_7"
    assert repository.list_aggregated() == ["exp_7"]


# Without opening files


def set_aggregate_mtime(repository: FileSystemRepository, later_ns: int) -> None:
    """Set the mtime of the aggregate relative to the ctime of its raw folder, which no program can set."""
    ns = raw_file(repository).parent.stat().st_ctime_ns + later_ns
    os.utime(aggregate_file(repository), ns=(ns, ns))


def wait_for_tick(repository: FileSystemRepository) -> None:
    """Wait for the next tick of the clock of the file system."""
    before = store_time_ns(repository.store, "aggregated")
    while store_time_ns(repository.store, "aggregated") == before:
        time.sleep(0.001)


@pytest.fixture
def up_to_date(repository: FileSystemRepository) -> FileSystemRepository:
    """Return a repository with an aggregate that is newer than its raw folder."""
    list(aggregate_all(repository))
    set_aggregate_mtime(repository, 1)
    return repository


def test_folder_older_than_its_aggregate_is_not_opened(up_to_date: FileSystemRepository) -> None:
    for process in range(2):
        raw_file(up_to_date, process).write_bytes(b"edited in place")
    [outcome] = aggregate_all(up_to_date)
    assert (outcome.result, outcome.aggregated) == ("current", None)
    [outcome] = aggregate_all(up_to_date, rehash=True)
    assert outcome.result == "failed"


@pytest.mark.parametrize("later_ns", [0, -1])
def test_folder_of_the_same_tick_or_later_is_opened(up_to_date: FileSystemRepository, later_ns: int) -> None:
    raw_file(up_to_date, 1).unlink()
    raw_file(up_to_date).write_bytes(b"")
    set_aggregate_mtime(up_to_date, later_ns)
    [outcome] = aggregate_all(up_to_date)
    assert outcome.result == "failed"


def test_unchanged_folder_is_opened_once_only(up_to_date: FileSystemRepository) -> None:
    set_aggregate_mtime(up_to_date, -(10**9))
    wait_for_tick(up_to_date)
    [outcome] = aggregate_all(up_to_date)
    assert (outcome.result, outcome.aggregated is not None) == ("current", True)
    [outcome] = aggregate_all(up_to_date)
    assert (outcome.result, outcome.aggregated) == ("current", None)


def test_replaced_folder_is_opened_at_any_age(up_to_date: FileSystemRepository) -> None:
    elsewhere = up_to_date.base_path / "elsewhere"
    shutil.copytree(raw_file(up_to_date).parent, elsewhere)
    (elsewhere / "process_1.json").write_bytes(b"")
    os.utime(elsewhere, (1000, 1000))
    wait_for_tick(up_to_date)
    raw_file(up_to_date).parent.rename(up_to_date.base_path / "raw" / "put away")
    elsewhere.rename(raw_file(up_to_date).parent)
    [outcome] = aggregate_all(up_to_date)
    assert outcome.result == "failed"


def test_copy_of_a_stale_experiment_is_stale(up_to_date: FileSystemRepository, tmp_path: Path) -> None:
    """After `cp -r`, an aggregate is newer than its raw results even if it is stale."""
    up_to_date.save_raw("exp_7", factories.raw("exp_7", 2))
    copy = FileSystemRepository(tmp_path / "copy")
    for name in ("raw", "aggregated"):
        wait_for_tick(up_to_date)
        shutil.copytree(up_to_date.base_path / name, copy.base_path / name, copy_function=shutil.copyfile)
    assert query_catalogue(copy, lambda catalogue: [row.status for row in catalogue.summaries(Query())]) == ["stale"]
    [outcome] = aggregate_all(copy)
    assert outcome.aggregated is not None
    assert outcome.aggregated.aggregation.num_processes == 3


def test_empty_file_is_not_an_aggregate(up_to_date: FileSystemRepository) -> None:
    aggregate_file(up_to_date).write_bytes(b"")
    [outcome] = aggregate_all(up_to_date)
    assert outcome.result == "aggregated"


@pytest.mark.parametrize(
    "options", [{"force": True}, {"rehash": True}, {"expected_processes": 2}, {"strategy": "sum_energy_avg_throughput"}]
)
def test_folder_is_opened_if_mtimes_are_not_enough(up_to_date: FileSystemRepository, options: dict[str, Any]) -> None:
    [outcome] = aggregate_all(up_to_date, **options)
    assert outcome.aggregated is not None


def test_aggregate_has_the_time_at_which_reading_began(repository: FileSystemRepository) -> None:
    """A raw file that arrives during aggregation makes its folder newer than the aggregate."""

    class Late(LocalStore):
        """A store into which another host saves a result during the write of the aggregates."""

        def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> dict[str, str]:
            FileSystemRepository(repository.base_path).save_raw("exp_7", factories.raw("exp_7", 2))
            return super().put_many(values, mtime_ns=mtime_ns)

    late = FileSystemRepository(repository.base_path, store=Late(repository.base_path))
    assert [outcome.result for outcome in aggregate_all(late)] == ["aggregated"]
    assert raw_file(repository).parent.stat().st_mtime_ns >= aggregate_file(repository).stat().st_mtime_ns
    [outcome] = aggregate_all(repository)
    assert outcome.aggregated is not None
    assert outcome.aggregated.aggregation.num_processes == 3


def test_deleted_aggregates_are_written_again(repository: FileSystemRepository) -> None:
    """The folder was deleted too, after this repository had created it."""
    for _ in range(2):
        assert [outcome.result for outcome in aggregate_all(repository)] == ["aggregated"]
        shutil.rmtree(repository.base_path / "aggregated")
    assert aggregate_one(repository, "exp_7").result == "aggregated"
    assert repository.list_aggregated() == ["exp_7"]


def test_aggregate_all_skips_folders_without_results(repository: FileSystemRepository) -> None:
    (repository.base_path / "raw" / "empty").mkdir()
    (repository.base_path / "raw" / "other" / "process_0.json").mkdir(parents=True)
    (repository.base_path / "raw" / "a file").write_bytes(b"")
    assert [outcome.experiment_id for outcome in aggregate_all(repository)] == ["exp_7"]


# Batches and several processes


def many(repository: FileSystemRepository, number: int = 30) -> list[str]:
    names = [f"many_{index:02d}" for index in range(number)]
    for name in names:
        for record in factories.raws(2, name):
            repository.save_raw(name, record)
    (repository.base_path / "raw" / "many_07" / "process_1.json").write_bytes(b"{")
    return ["exp_7", *names]


EXECUTORS: dict[str, dict[str, Any]] = {
    "one": {"jobs": 1},
    "two processes": {"jobs": 2},
    "threads": {"executor": ThreadPoolExecutor(3), "jobs": 3},
    "spawned processes": {"executor": ProcessPoolExecutor(2, mp_context=get_context("spawn"))},
    "default": {},
    "auto": {"jobs": "auto"},
}


@pytest.mark.parametrize("how", EXECUTORS)
def test_result_does_not_depend_on_jobs_and_batches(
    repository: FileSystemRepository, tmp_path_factory: pytest.TempPathFactory, how: str
) -> None:
    names = many(repository)
    single = FileSystemRepository(tmp_path_factory.mktemp("single") / "results")
    shutil.copytree(repository.base_path, single.base_path)
    found = list(aggregate_all(repository, **EXECUTORS[how]))
    assert [outcome.experiment_id for outcome in found] == names
    assert {outcome.experiment_id for outcome in found if outcome.result != "aggregated"} == {"many_07"}
    assert isinstance(found[8].error, IncompleteExperimentError)
    assert "many_07" in str(found[8].error)
    assert {type(outcome.aggregated) for outcome in found} == {AggregatedSummary, type(None)}
    for name in single.list_experiments():
        if name != "many_07":
            aggregate_one(single, name)
            assert single.read_aggregated(name) == repository.read_aggregated(name)
    assert [outcome.result for outcome in aggregate_all(repository, strict=False, **EXECUTORS[how])].count(
        "current"
    ) == 30


def test_store_in_memory_gives_the_same_aggregates() -> None:
    repository = FileSystemRepository("unused", store=MemoryStore())
    for record in factories.raws(2):
        repository.save_raw("exp_7", record)
    assert [outcome.result for outcome in aggregate_all(repository)] == ["aggregated"]
    [outcome] = aggregate_all(repository)
    assert (outcome.result, outcome.aggregated is not None) == ("current", True), "no stamps: by its digests"


def test_experiment_that_cannot_be_stored_fails_alone(repository: FileSystemRepository) -> None:
    class Refusing(LocalStore):
        """A store that refuses one of the aggregates."""

        def put_many(self, values: Mapping[str, bytes], *, mtime_ns: int | None = None) -> dict[str, str]:
            if "aggregated/many_03.json" in values:
                raise StorageError("cannot write", "no space is left", "make room")
            return super().put_many(values, mtime_ns=mtime_ns)

    many(repository)
    refusing = FileSystemRepository(repository.base_path, store=Refusing(repository.base_path))
    found = {outcome.experiment_id: outcome for outcome in aggregate_all(refusing, strict=False)}
    assert {name for name, outcome in found.items() if outcome.result != "aggregated"} == {"many_03"}
    assert isinstance(found["many_03"].error, StorageError)
    assert not refusing.has_aggregated("many_03")
    assert refusing.has_aggregated("many_04")


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "two"])
def test_invalid_number_of_jobs_is_refused(repository: FileSystemRepository, jobs: Any) -> None:
    with pytest.raises(ConfigurationError, match="jobs is .*; use 1 or more"):
        list(aggregate_all(repository, jobs=jobs))


@pytest.mark.parametrize(
    "outcome",
    [
        AggregationOutcome(experiment_id="a", result="aggregated", aggregated=summary_of(factories.full_aggregated())),
        AggregationOutcome(
            experiment_id="a",
            result="current",
            aggregated=summary_of(factories.aggregated(unknown_fields={"/future/x": [1, {"é": None}]})),
        ),
        AggregationOutcome(
            experiment_id="a",
            result="failed",
            unreadable=[UnreadableFile(name="process_0.json", reason="torn")],
            error=LLMEnergyMeasureError("a", "b", "c"),
        ),
    ],
)
def test_outcome_survives_pickling(outcome: AggregationOutcome) -> None:
    again = pickle.loads(pickle.dumps(outcome))  # noqa: S301 - our own
    assert structs.replace(again, error=None) == structs.replace(outcome, error=None)
    assert str(again.error) == str(outcome.error)


def test_interrupted_run_continues_with_the_rest(repository: FileSystemRepository) -> None:
    names = many(repository)
    outcomes = aggregate_all(repository, strict=False)
    done = [next(outcomes).experiment_id for _ in range(3)]
    del outcomes
    results = {outcome.experiment_id: outcome.result for outcome in aggregate_all(repository, strict=False)}
    assert list(results) == names
    assert all(results[name] == "current" for name in done)
    assert set(results.values()) == {"current", "aggregated"}


def test_recover_all_equals_recover_raw(repository: FileSystemRepository) -> None:
    many(repository, 8)
    (repository.base_path / "raw" / "many_03" / "manifest.json").write_bytes(b"[")
    keep_partial(repository.store, "many_04", factories.raw("many_04", 5))
    (repository.base_path / "raw" / "empty").mkdir()
    found = dict(recover_all(repository))
    assert list(found) == repository.list_experiments()
    for name, recovery in found.items():
        assert recovery == repository.recover_raw(name)


def test_strict_run_refuses_the_lower_bound_of_an_earlier_run(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    for name in ("partial", "whole"):
        repository.save_raw(name, factories.raw(name, world_size=2 if name == "partial" else 1))
    wait_for_tick(repository)  # else the mtimes of the complete experiment are too recent to be trusted
    assert [outcome.result for outcome in aggregate_all(repository, strict=False)] == ["aggregated"] * 2
    for _ in range(2):
        partial, whole = aggregate_all(repository, strict=True)
        assert (partial.result, type(partial.error)) == ("failed", IncompleteExperimentError)
        assert whole.result == "current"
    assert [outcome.result for outcome in aggregate_all(repository, strict=False)] == ["current"] * 2
