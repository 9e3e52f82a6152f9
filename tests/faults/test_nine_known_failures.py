"""Nine failures of the tool that defined this file format. A docstring describes a failure that we must not have."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import (
    ExperimentIdError,
    IncompleteExperimentError,
    InvalidResultError,
    LLMEnergyMeasureError,
    UnsafePathError,
)
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.store.layout import raw_key
from llm_energy_measure.security import is_safe_path, validate_path
from tests.support import factories
from tests.support.command import as_process, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXP = factories.EXPERIMENT


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    return FileSystemRepository(tmp_path / "results")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("experiment_id", ["..", ".", "...", "../..", "/", "../x"])
def test_1_an_id_that_names_a_parent_folder_stays_in_raw(
    repository: FileSystemRepository, tmp_path: Path, experiment_id: str
) -> None:
    """The sanitiser returns `..` unchanged: a save writes outside `raw/`, and a deletion removes all results."""
    repository.save_raw(EXP, factories.raw())
    (tmp_path / "mine.txt").write_bytes(b"mine")
    before = files(tmp_path)
    for work in (
        lambda: repository.save_raw(experiment_id, factories.raw(experiment_id)),
        lambda: repository.delete_experiment(experiment_id),
    ):
        try:
            work()
        except ExperimentIdError:
            pass
        else:
            assert experiment_id.strip(".")
    after = files(tmp_path)
    assert after.items() >= before.items()
    assert all(name.startswith("results/raw/") and ".." not in name.split("/") for name in after.keys() - {"mine.txt"})


def test_2_a_sibling_with_the_same_prefix_is_outside(tmp_path: Path) -> None:
    """Paths are compared as text, and `results-evil` starts with `results`."""
    inside, outside = tmp_path / "results", tmp_path / "results-evil"
    outside.mkdir()
    assert str(outside).startswith(str(inside))
    assert not is_safe_path(inside, outside / "process_0.json")
    assert is_safe_path(inside, inside / "process_0.json")
    for path in (outside, "../results-evil/process_0.json"):
        with pytest.raises(UnsafePathError, match="it is outside"):
            validate_path(path, inside)


def test_3_ids_that_share_a_folder_name_do_not_overwrite_each_other(repository: FileSystemRepository) -> None:
    """`a/b` and `a_b` have the same folder, and the second result of process 0 replaces the first."""
    path = repository.save_raw("a/b", factories.raw("a/b"))
    before = path.read_bytes()
    for index in range(2):
        with pytest.raises(ExperimentIdError, match="its folder 'a_b' belongs to the experiment 'a/b'") as refused:
            repository.save_raw("a_b", factories.raw("a_b", index))
        kept: Path = vars(refused.value)["kept"]
        assert b'"a_b"' in kept.read_bytes()
    assert path.read_bytes() == before
    assert [record.experiment_id for record in repository.load_all_raw("a/b")] == ["a/b"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_4_save_refuses_numbers_that_json_cannot_represent(repository: FileSystemRepository, value: float) -> None:
    """NaN is written as `NaN` or null: the save succeeds, and the file never loads again."""
    record = factories.raw(energy_metrics=factories.energy(total_energy_j=value))
    with pytest.raises(InvalidResultError, match="energy_metrics.total_energy_j is") as refused:
        repository.save_raw(EXP, record)
    assert repository.list_raw(EXP) == []
    # The store keeps the measurement.
    kept: Path = vars(refused.value)["kept"]
    assert repr(value).encode() in kept.read_bytes()
    assert b'"total_tokens": 8192' in kept.read_bytes()
    path = repository.save_raw(EXP, factories.raw())
    assert repository.load_raw(path) == factories.raw()


def test_5_a_result_of_another_experiment_is_refused(repository: FileSystemRepository) -> None:
    """`save_raw("exp_7", record of "other")` stores it, and a file that was copied into the folder is loaded."""
    with pytest.raises(ExperimentIdError, match="the record's own id is 'other'"):
        repository.save_raw(EXP, factories.raw("other"))
    assert repository.list_raw(EXP) == []
    repository.save_raw(EXP, factories.raw())
    other = repository.save_raw("other", factories.raw("other", 1))
    shutil.copy(other, repository.store.path(raw_key(EXP, 1)))
    recovery = repository.recover_raw(EXP)
    assert [record.process_index for record in recovery.results] == [0]
    assert [(file.name, file.reason) for file in recovery.unreadable] == [
        ("process_1.json", "it is a result of another experiment, 'other'")
    ]


def test_6_results_of_two_experiments_are_not_summed() -> None:
    """All records are added up under the given id, without a check of their own ids."""
    ours, theirs = factories.raw(), factories.raw("other", 1)
    for records in ([ours, theirs], [theirs, ours], [theirs]):
        with pytest.raises(LLMEnergyMeasureError, match="other"):
            aggregate_results(EXP, records)
    assert aggregate_results(EXP, [ours]).total_energy_j == ours.energy_metrics.total_energy_j


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.unlink(),
    ],
    ids=["empty", "torn", "missing"],
)
def test_7_a_failed_aggregation_exits_with_1(
    repository: FileSystemRepository, damage: Callable[[Path], object]
) -> None:
    """The command prints the error and exits with 0, so a script continues."""
    for record in factories.raws(3, world_size=3):
        repository.save_raw(EXP, record)
    damage(repository.store.path(raw_key(EXP, 1)))
    for arguments in (["aggregate", EXP], ["aggregate", "--all"], ["aggregate", "unknown"]):
        done = as_process("-o", repository.base_path, *arguments)
        assert done.status == 1
        assert "error: " in done.err
    assert not repository.has_aggregated(EXP)


def test_8_strict_aggregation_checks_completeness(repository: FileSystemRepository) -> None:
    """`--strict` has no effect: three of four processes count as complete."""
    for index in (0, 1, 3):
        repository.save_raw(EXP, factories.raw(process_index=index, world_size=4))
    records = repository.load_all_raw(EXP)
    with pytest.raises(IncompleteExperimentError, match="3 of 4 processes") as refused:
        aggregate_results(EXP, records, strict=True)
    report = refused.value.report
    assert report is not None
    assert report.missing == [2]
    lenient = aggregate_results(EXP, records)
    assert lenient.is_lower_bound
    assert run("-o", repository.base_path, "aggregate", EXP).status == 1
    assert not repository.has_aggregated(EXP)


def test_9_delete_removes_a_folder_with_unrelated_files(repository: FileSystemRepository) -> None:
    """The results are removed one by one; then `rmdir` raises, because the folder has other files."""
    for record in factories.raws(2):
        repository.save_raw(EXP, record)
    folder = repository.base_path / "raw" / EXP
    (folder / ".completed_0").touch()
    (folder / "notes.txt").write_bytes(b"mine")
    (folder / "plots" / "deep").mkdir(parents=True)
    (folder / "plots" / "deep" / "x.png").touch()
    done = run("-o", repository.base_path, "results", "delete", EXP, "--yes")
    assert (done.status, "Traceback" in done.err) == (0, False)
    assert list((repository.base_path / "raw").iterdir()) == []
    assert repository.delete_experiment(EXP) is False
    assert repository.list_experiments() == []
