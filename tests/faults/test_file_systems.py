"""The guarantees of the store on real file systems. A file system that cannot be mounted here is skipped by name.

`make torture` runs these tests with 64 writers instead of 12 (`TORTURE_WRITERS`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.exceptions import ExperimentIdError, ResultExistsError, ResultsError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.store.tags import change_tags, load_tags
from tests.support import factories
from tests.support.children import outcomes_in_children
from tests.support.mounts import KINDS, mounted_or_skip

WRITERS = int(os.environ.get("TORTURE_WRITERS") or 12)
OVERWRITES = 4
EXP = factories.EXPERIMENT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind != "read-only"])
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted_or_skip(request.param, tmp_path_factory.mktemp("mounts")) as point:
        yield point


@pytest.fixture
def results(mount: Path, request: pytest.FixtureRequest) -> Path:
    return mount / request.function.__name__


def hosts_in(folder: Path) -> set[str]:
    """Return the hosts in all files of an experiment. Each record of these tests has its own host."""
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    return {name for name in (f"host-{number}." for number in range(10_000)) if name.encode() in content}


def record(number: int) -> RawProcessResult:
    return factories.raw(EXP, host=f"host-{number}.")


def test_one_of_many_writers_wins_and_every_record_is_kept(results: Path) -> None:
    def save(number: int) -> bool:
        try:
            FileSystemRepository(results).save_raw(EXP, record(number))
        except ResultExistsError as refused:
            return refused.kept is None
        return True

    outcomes = outcomes_in_children([partial(save, number) for number in range(WRITERS)])
    assert sorted(outcomes, key=str) == [False] * (WRITERS - 1) + [True]
    assert hosts_in(results / "raw" / EXP) == {f"host-{number}." for number in range(WRITERS)}
    assert {finding.code for finding in check_store(FileSystemRepository(results))} == {"raw.rejected"}


def test_concurrent_overwrites_lose_no_value(results: Path) -> None:
    FileSystemRepository(results).save_raw(EXP, record(0))

    def overwrite(writer: int) -> None:
        for number in range(OVERWRITES):
            FileSystemRepository(results).save_raw(EXP, record(1 + writer * OVERWRITES + number), overwrite=True)

    writers = WRITERS // 4
    outcomes = outcomes_in_children([partial(overwrite, writer) for writer in range(writers)])
    assert outcomes == [None] * writers
    assert hosts_in(results / "raw" / EXP) == {f"host-{number}." for number in range(1 + writers * OVERWRITES)}
    assert {finding.code for finding in check_store(FileSystemRepository(results))} == {"raw.superseded"}


def test_concurrent_changes_of_tags_are_all_kept(results: Path) -> None:
    store = FileSystemRepository(results).store
    writers = WRITERS // 4
    works = [partial(change_tags, store, EXP, {f"tag-{number}": "x"}) for number in range(writers)]
    assert not [outcome for outcome in outcomes_in_children(works) if isinstance(outcome, Exception)]
    assert set(load_tags(store, EXP).tags) == {f"tag-{number}" for number in range(writers)}


def test_all_operations_work(results: Path) -> None:
    repository = FileSystemRepository(results)
    for raw in factories.raws(2):
        repository.save_raw(EXP, raw)
    assert [outcome.result for outcome in aggregate_all(repository)] == ["aggregated"]
    assert len(repository.load_all_raw(EXP)) == 2
    assert list(check_store(repository)) == []
    assert repository.delete_experiment(EXP)
    assert repository.list_experiments() == []
    # FUSE renames a deleted file until its server has closed the file, which can be later.
    files = [path for path in results.rglob("*") if path.is_file()]
    assert [path for path in files if not path.name.startswith(".fuse_hidden")] == []


def test_ids_that_differ_in_case_are_two_experiments_or_refused(results: Path) -> None:
    repository = FileSystemRepository(results)
    repository.save_raw("Exp", factories.raw("Exp"))
    list(aggregate_all(repository))
    change_tags(repository.store, "Exp", {"a": "b"})
    try:
        repository.save_raw("exp", factories.raw("exp"))
    except ExperimentIdError:
        with pytest.raises(ExperimentIdError):
            repository.delete_experiment("exp")
    else:
        assert repository.delete_experiment("exp")
    assert [raw.experiment_id for raw in repository.load_all_raw("Exp")] == ["Exp"]
    assert repository.has_aggregated("Exp")
    assert load_tags(repository.store, "Exp").tags == {"a": "b"}


def test_read_only_mount_can_be_read_and_refuses_writes(tmp_path: Path) -> None:
    with mounted_or_skip("read-only", tmp_path) as point:
        source = FileSystemRepository(tmp_path / "read-only-files" / "source")
        source.save_raw(EXP, factories.raw())
        list(aggregate_all(source))
        repository = FileSystemRepository(point)
        assert repository.load_all_raw(EXP) == source.load_all_raw(EXP)
        assert list(check_store(repository)) == []
        for write in (
            lambda: repository.save_raw(EXP, factories.raw(process_index=1)),
            lambda: repository.delete_experiment(EXP),
            lambda: change_tags(repository.store, EXP, {"a": "b"}),
        ):
            with pytest.raises(StorageError, match="Read-only file system"):
                write()
        with pytest.raises(ResultsError):
            repository.save_aggregated(factories.aggregated(EXP))
