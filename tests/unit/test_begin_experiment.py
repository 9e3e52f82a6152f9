"""Tests of `begin_experiment`: all processes agree on the run, and a rerun is refused before it starts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from llm_energy_measure.domain.experiment import Launcher, Manifest, RawProcessResult
from llm_energy_measure.exceptions import ConfigurationError, ExperimentIdError, ResultExistsError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.store import codec
from llm_energy_measure.storage.local import LocalStore
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT
FACTS: dict[str, Any] = {
    "attempt": 1,
    "expected_processes": 4,
    "launcher": Launcher(name="slurm", job_id="123"),
    "config_digest": "a" * 64,
}


def manifest(experiment_id: str = EXP, **changes: Any) -> Manifest:
    return Manifest(experiment_id=experiment_id, **{**FACTS, **changes})


def of_attempt(attempt: int | None, process_index: int = 0, **changes: Any) -> RawProcessResult:
    return factories.raw(process_index=process_index, launcher=Launcher(name="slurm", attempt=attempt), **changes)


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    return FileSystemRepository(tmp_path / "results")


def names(repository: FileSystemRepository) -> list[str]:
    raw = repository.base_path / "raw"
    return sorted(str(path.relative_to(raw)) for path in raw.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expected_processes": 0}, "Expected int >= 1"),
        ({"expected_processes": 10**9}, "Expected int <= 1000000"),
        ({"expected_processes": "4"}, "Expected int | null, got str"),
        ({"expected_processes": np.int64(4)}, "numpy.int64 is unsupported"),
        ({"attempt": -1}, "Expected int >= 0"),
        ({"launcher": "slurm"}, "Expected object | null, got str"),
        ({"experiment_id": "exp \udc80"}, "surrogates not allowed"),
    ],
)
def test_begin_refuses_a_manifest_that_could_not_be_read(
    repository: FileSystemRepository, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match="its manifest is not valid") as refused:
        repository.begin_experiment(manifest(**changes))
    assert message in refused.value.found
    assert names(repository) == []


def test_first_process_writes_the_manifest_and_the_others_accept_it(repository: FileSystemRepository) -> None:
    for index in range(4):
        repository.begin_experiment(manifest(), index)
        assert repository.load_manifest(EXP) == manifest()
    assert names(repository) == ["exp_7/manifest.json"]
    assert repository.list_experiments() == []
    for index in (3, 0):
        repository.save_raw(EXP, factories.raw(process_index=index))
    repository.begin_experiment(manifest(), 2)  # a late process changes nothing
    report = repository.recover_raw(EXP)
    assert report.manifest == manifest()
    assert [record.process_index for record in report.results] == [0, 3]


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("attempt", 0, "attempt is 1 in its manifest and 0 in this process"),
        ("expected_processes", 8, "expected_processes is 4 in its manifest and 8 in this process"),
        ("launcher", Launcher(job_id="124"), "launcher job is '123' in its manifest and '124' in this process"),
        ("config_digest", "b" * 64, f"config_digest is '{'a' * 64}' in its manifest and '{'b' * 64}' in this process"),
    ],
)
def test_begin_of_another_run_is_refused_with_both_values(
    repository: FileSystemRepository, fact: str, value: object, message: str
) -> None:
    repository.begin_experiment(manifest())
    before = names(repository), repository.load_manifest(EXP)
    with pytest.raises(ResultExistsError, match=message) as refused:
        repository.begin_experiment(manifest(EXP, **{fact: value}))
    assert refused.value.advice.startswith("use another id, or pass attempt='next' (--attempt next), which archives")
    assert (names(repository), repository.load_manifest(EXP)) == before


@pytest.mark.parametrize("fact", ["expected_processes", "launcher", "config_digest"])
def test_unknown_value_conflicts_with_no_value(repository: FileSystemRepository, fact: str) -> None:
    repository.begin_experiment(manifest())
    repository.begin_experiment(manifest(EXP, **{fact: None}))
    other = FileSystemRepository(repository.base_path / "other")
    other.begin_experiment(manifest(EXP, **{fact: None}))
    other.begin_experiment(manifest())
    assert other.load_manifest(EXP) == manifest(EXP, **{fact: None})


def test_steps_and_nodes_of_one_job_may_differ(repository: FileSystemRepository) -> None:
    for node in ("n1", "n2"):
        repository.begin_experiment(manifest(launcher=Launcher(name="slurm", job_id="123", node=node, local_rank=0)))


def test_rerun_is_refused_before_it_starts(repository: FileSystemRepository) -> None:
    repository.begin_experiment(manifest(), 0)
    repository.save_raw(EXP, factories.raw())
    with pytest.raises(ResultExistsError, match="process 0 already has a result"):
        repository.begin_experiment(manifest(), 0)
    repository.begin_experiment(manifest(), 1)


@pytest.mark.parametrize("data", [b"", b"{", b"null"])
def test_unreadable_result_counts_as_a_result(repository: FileSystemRepository, data: bytes) -> None:
    repository.begin_experiment(manifest(), 0)
    (repository.base_path / "raw" / EXP / "process_0.json").write_bytes(data)
    with pytest.raises(ResultExistsError, match="process 0 already has a result"):
        repository.begin_experiment(manifest(), 0)


def test_rerun_of_results_without_a_manifest_is_refused(repository: FileSystemRepository) -> None:
    repository.save_raw(EXP, factories.raw())
    with pytest.raises(ResultExistsError, match="process 0 already has a result"):
        repository.begin_experiment(manifest(attempt=0), 0)
    repository.begin_experiment(manifest(attempt=0), 1)  # a late process of attempt 0


def test_begin_without_a_process_allows_results_of_the_same_job_only(
    repository: FileSystemRepository,
) -> None:
    repository.begin_experiment(manifest())
    repository.begin_experiment(manifest(launcher=None))
    repository.save_raw(EXP, of_attempt(1))
    repository.begin_experiment(manifest())
    with pytest.raises(ResultExistsError, match="1 processes already have results; use another id, or pass"):
        repository.begin_experiment(manifest(launcher=None))


def results_of_another_tool(repository: FileSystemRepository) -> None:
    repository.save_raw(EXP, factories.raw())
    (repository.base_path / "raw" / EXP / "manifest.json").unlink()


@pytest.mark.parametrize("process_index", [None, 0, 1])
def test_results_without_a_manifest_belong_to_another_run(
    repository: FileSystemRepository, process_index: int | None
) -> None:
    results_of_another_tool(repository)
    with pytest.raises(ResultExistsError, match="it has results without a manifest, so their run is unknown"):
        repository.begin_experiment(manifest(attempt=0), process_index)
    assert names(repository) == ["exp_7/process_0.json"]


def test_later_attempt_archives_results_without_a_manifest(repository: FileSystemRepository) -> None:
    results_of_another_tool(repository)
    repository.begin_experiment(manifest(attempt=1), 0)
    assert names(repository) == [
        *(".exp_7~attempt-0/manifest.json", ".exp_7~attempt-0/process_0.json", "exp_7/manifest.json")
    ]


def test_no_process_restores_an_archived_attempt(repository: FileSystemRepository) -> None:
    """The manifest of the next attempt does not exist yet: its writer was killed, or has not written it yet."""
    repository.begin_experiment(manifest(attempt=0), 0)
    folder = repository.base_path / "raw" / EXP
    folder.rename(folder.with_name(f".{EXP}~attempt-0"))
    with pytest.raises(ResultExistsError, match="a later attempt has archived attempt 0") as refused:
        repository.save_raw(EXP, of_attempt(0))
    assert refused.value.kept is not None
    assert repository.list_raw(EXP) == []
    repository.begin_experiment(manifest(attempt=1), 0)
    repository.save_raw(EXP, of_attempt(1))


# Attempts


def test_later_attempt_archives_the_whole_earlier_attempt(repository: FileSystemRepository) -> None:
    repository.begin_experiment(manifest(attempt=0), 0)
    kept = repository.save_raw(EXP, of_attempt(0)).read_bytes()
    repository.save_raw(EXP, of_attempt(0, gpu_name="again"), overwrite=True)
    (repository.base_path / "raw" / EXP / "notes.txt").write_bytes(b"mine")
    before = {name.partition("/")[2] for name in names(repository)}
    for index in range(2):
        repository.begin_experiment(manifest(attempt=2), index)
    archive = repository.base_path / "raw" / f".{EXP}~attempt-0"
    assert {path.name for path in archive.iterdir()} == before
    assert (archive / "superseded-process_0-1.json.kept").read_bytes() == kept
    assert repository.load_manifest(EXP) == manifest(attempt=2)
    assert repository.list_raw(EXP) == []
    assert repository.list_experiments() == []
    repository.save_raw(EXP, of_attempt(2))
    repository.begin_experiment(manifest(attempt=3))
    assert (repository.base_path / "raw" / f".{EXP}~attempt-2" / "process_0.json").is_file()
    assert {finding.code for finding in check_store(repository)} == {"raw.earlier_attempt"}


def test_begin_of_an_earlier_attempt_is_refused(repository: FileSystemRepository) -> None:
    repository.begin_experiment(manifest(attempt=2))
    with pytest.raises(ResultExistsError, match="attempt is 2 in its manifest and 1 in this process"):
        repository.begin_experiment(manifest(attempt=1))
    assert names(repository) == ["exp_7/manifest.json"]


@pytest.mark.parametrize("attempt", [0, 2])
def test_record_of_another_attempt_is_refused_and_kept(repository: FileSystemRepository, attempt: int) -> None:
    repository.begin_experiment(manifest(attempt=1))
    found = f"its attempt is {attempt}, and the experiment is at attempt 1"
    with pytest.raises(ResultExistsError, match=found) as refused:
        repository.save_raw(EXP, of_attempt(attempt))
    kept = getattr(refused.value, "kept", None)
    assert kept == repository.base_path / "raw" / EXP / "rejected-process_0-1.json.kept"
    assert msgspec.json.decode(kept.read_bytes())["record"]["launcher"]["attempt"] == attempt
    assert repository.list_raw(EXP) == []


class Late(LocalStore):
    """A store in which the next attempt begins directly before a result gets its name."""

    def create(self, key: str, data: bytes) -> bool:
        if "/process_" in key:
            FileSystemRepository(self.root).begin_experiment(manifest(attempt=1))
        return super().create(key, data)


def test_late_record_of_an_earlier_attempt_is_refused_and_kept(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path, store=Late(tmp_path))
    repository.begin_experiment(manifest(attempt=0))
    with pytest.raises(ResultExistsError, match="its attempt is 0, and the experiment is at attempt 1"):
        repository.save_raw(EXP, of_attempt(0))
    assert "exp_7/rejected-process_0-1.json.kept" in names(repository)
    assert repository.list_raw(EXP) == []


class TooLate(LocalStore):
    """A store in which the next attempt begins and ends directly after a result gets its name."""

    def create(self, key: str, data: bytes) -> bool:
        created = super().create(key, data)
        if "/process_" in key:
            others = FileSystemRepository(self.root)
            others.begin_experiment(manifest(attempt=1))
            others.save_raw(EXP, of_attempt(1))
        return created


def test_identical_result_of_the_next_attempt_is_not_withdrawn(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path, store=TooLate(tmp_path))
    repository.begin_experiment(manifest(attempt=0))
    with pytest.raises(ResultExistsError, match="its attempt is 0, and the experiment is at attempt 1"):
        repository.save_raw(EXP, of_attempt(0))
    assert repository.load_all_raw(EXP) == [of_attempt(1)]


@pytest.mark.parametrize("attempt", [1, None])
def test_record_of_this_or_an_unknown_attempt_is_saved(repository: FileSystemRepository, attempt: int | None) -> None:
    repository.begin_experiment(manifest(attempt=1))
    repository.save_raw(EXP, of_attempt(attempt))


@pytest.mark.parametrize("experiment_id", [EXP, "a/b"])
def test_record_of_a_later_attempt_needs_no_manifest(repository: FileSystemRepository, experiment_id: str) -> None:
    for index in range(2):
        repository.save_raw(experiment_id, factories.full_raw(experiment_id, index))  # the record of attempt 1
    assert len(repository.load_all_raw(experiment_id)) == 2


def test_many_processes_begin_a_later_attempt_at_the_same_time(repository: FileSystemRepository) -> None:
    repository.begin_experiment(manifest(attempt=0))
    repository.save_raw(EXP, of_attempt(0))
    together = threading.Barrier(8)
    refused: list[Exception] = []

    def begin(index: int) -> None:
        together.wait()
        try:
            repository.begin_experiment(manifest(attempt=1), index)
            repository.save_raw(EXP, of_attempt(1, index))
        except Exception as error:  # noqa: BLE001 - the test reports any exception
            refused.append(error)

    threads = [threading.Thread(target=begin, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert [record.process_index for record in repository.load_all_raw(EXP)] == list(range(8))
    assert (repository.base_path / "raw" / f".{EXP}~attempt-0" / "process_0.json").is_file()


def test_begin_does_not_wait_for_an_existing_archive_name(repository: FileSystemRepository) -> None:
    repository.begin_experiment(manifest(attempt=0))
    repository.save_raw(EXP, of_attempt(0))
    taken = repository.base_path / "raw" / f".{EXP}~attempt-0" / "process_0.json"
    taken.parent.mkdir()
    taken.write_bytes(b"mine")
    before = names(repository)
    with pytest.raises(ResultExistsError, match="move this folder away"):
        repository.begin_experiment(manifest(attempt=1))
    assert names(repository) == before


# Owner of a folder


@pytest.mark.parametrize(("first", "second"), [("a/b", "a_b"), ("a_b", "a/b"), ("a b", "a/b")])
def test_manifest_claims_the_folder_for_the_exact_id(repository: FileSystemRepository, first: str, second: str) -> None:
    repository.begin_experiment(manifest(first))
    message = f"its folder 'a_b' belongs to the experiment '{first}'"
    for later in (manifest(second), manifest(second, attempt=9)):
        with pytest.raises(ExperimentIdError, match=message):
            repository.begin_experiment(later)
    with pytest.raises(ExperimentIdError, match=message) as refused:
        repository.save_raw(second, factories.raw(second))
    assert getattr(refused.value, "kept", None) is not None
    repository.save_raw(first, factories.raw(first))
    assert repository.load_manifest("a_b") == manifest(first)
    assert [record.experiment_id for record in repository.load_all_raw(first)] == [first]


def test_results_claim_the_folder_without_a_manifest(repository: FileSystemRepository) -> None:
    repository.save_raw("a_b", factories.raw("a_b"))
    with pytest.raises(ExperimentIdError, match="belongs to the experiment 'a_b'"):
        repository.begin_experiment(manifest("a/b"))
    assert names(repository) == ["a_b/manifest.json", "a_b/process_0.json"]


@pytest.mark.parametrize("experiment_id", ["", "..", "x" * 300])
def test_begin_refuses_an_invalid_id(repository: FileSystemRepository, experiment_id: str) -> None:
    with pytest.raises(ExperimentIdError):
        repository.begin_experiment(manifest(experiment_id))
    assert not repository.base_path.exists()


# Unreadable manifests


def put_in_the_way(repository: FileSystemRepository, kind: str, folder: str = EXP) -> None:
    path = repository.base_path / "raw" / folder / "manifest.json"
    path.parent.mkdir(parents=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere")
    elif kind == "other":
        path.write_bytes(codec.encode_manifest(manifest("other")))
    else:
        path.write_bytes({"empty": b"", "torn": b"{", "newer": b'{"experiment_id": "x", "schema_version": "9"}'}[kind])


@pytest.mark.parametrize("kind", ["empty", "torn", "newer", "other", "folder", "link"])
@pytest.mark.parametrize("experiment_id", [EXP, "exp/7"])
def test_record_is_saved_in_spite_of_a_corrupt_manifest(
    repository: FileSystemRepository, kind: str, experiment_id: str
) -> None:
    put_in_the_way(repository, kind)
    repository.begin_experiment(manifest(experiment_id), 0)
    repository.save_raw(experiment_id, factories.raw(experiment_id))
    with pytest.raises(ResultExistsError, match="process 0 already has a result"):
        repository.begin_experiment(manifest(experiment_id), 0)
    other = "exp_7" if experiment_id == "exp/7" else "exp/7"
    with pytest.raises(ExperimentIdError, match=f"belongs to the experiment '{experiment_id}'"):
        repository.begin_experiment(manifest(other))
    recovery = repository.recover_raw(experiment_id)
    assert [record.experiment_id for record in recovery.results] == [experiment_id]
    assert [file.name for file in recovery.unreadable] == ["manifest.json"]
    assert {finding.code for finding in check_store(repository)} <= {
        *("manifest.unreadable", "manifest.other_experiment")
    }
