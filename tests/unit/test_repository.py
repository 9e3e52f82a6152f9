"""Tests of `FileSystemRepository`: stored, listed, refused and kept records."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_energy_measure.constants import HIDDEN_MARK, RESULTS_DIR_ENV
from llm_energy_measure.domain.experiment import AggregatedResult, Manifest, RawProcessResult
from llm_energy_measure.exceptions import (
    ExperimentIdError,
    InvalidResultError,
    ResultCorruptError,
    ResultExistsError,
    ResultNotFoundError,
    ResultsError,
    StorageError,
    UnsafePathError,
)
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.state import source_changes
from llm_energy_measure.results.store import codec
from tests.support import factories

EXP = factories.EXPERIMENT
IMPOSSIBLE_IDS = ["", " \t", ".", "..", "...", "x" * 201, "x" * 300, "superseded-x-1"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def repository(base: Path) -> FileSystemRepository:
    return FileSystemRepository(base)


def save_all(repository: FileSystemRepository, *records: RawProcessResult) -> list[Path]:
    return [repository.save_raw(record.experiment_id, record) for record in records]


def aggregate(repository: FileSystemRepository, experiment_id: str = EXP) -> AggregatedResult:
    recovery = repository.recover_raw(experiment_id)
    return aggregate_results(experiment_id, recovery.results, unreadable=recovery.unreadable)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plant(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# Save and load


def test_file_without_newer_fields_has_the_same_content(repository: FileSystemRepository, base: Path) -> None:
    older = json.loads(codec.encode_raw(factories.raw()))
    del older["phases"], older["status"]
    path = plant(base / "raw" / EXP / "process_0.json", json.dumps(older).encode())
    before = path.read_bytes()
    assert repository.save_raw(EXP, repository.load_raw(path)) == path
    assert path.read_bytes() == before
    assert names(path.parent) == ["manifest.json", "process_0.json"]


def test_saved_record_is_loaded(repository: FileSystemRepository, base: Path) -> None:
    path = repository.save_raw(EXP, factories.full_raw())
    assert path == base / "raw" / "exp_7" / "process_0.json"
    assert repository.load_raw(path) == repository.load_raw(str(path)) == factories.full_raw()
    assert repository.load_all_raw(EXP) == [factories.full_raw()]
    assert names(path.parent) == ["manifest.json", "process_0.json"]


def test_reading_creates_no_folder(repository: FileSystemRepository, base: Path) -> None:
    assert repository.list_experiments() == repository.list_aggregated() == []
    assert repository.list_raw(EXP) == []
    assert repository.load_all_raw(EXP) == []
    assert repository.load_aggregated(EXP) is None
    assert repository.load_manifest(EXP) is None
    assert repository.has_raw(EXP) is repository.has_aggregated(EXP) is repository.delete_experiment(EXP) is False
    assert not base.exists()


def test_path_may_be_text_or_come_from_the_environment(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_all(FileSystemRepository(str(base)), factories.raw())
    monkeypatch.setenv(RESULTS_DIR_ENV, str(base))
    assert FileSystemRepository().list_experiments() == [EXP]
    monkeypatch.setenv(RESULTS_DIR_ENV, "")
    assert FileSystemRepository().base_path == Path("results")


def test_second_save_of_the_same_record_changes_nothing(repository: FileSystemRepository) -> None:
    path = repository.save_raw(EXP, factories.raw())
    before = path.stat()
    assert repository.save_raw(EXP, factories.raw()) == path
    assert repository.save_raw(EXP, factories.raw(), overwrite=True) == path
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert names(path.parent) == ["manifest.json", "process_0.json"]


def test_loaded_record_can_be_saved_in_another_store(repository: FileSystemRepository, tmp_path: Path) -> None:
    path = repository.save_raw(EXP, factories.full_raw(unknown_fields={"/new": 1}))
    copy = FileSystemRepository(tmp_path / "copy").save_raw(EXP, repository.load_raw(path))
    assert copy.read_bytes() == path.read_bytes()


def test_different_content_is_refused_and_kept(repository: FileSystemRepository, base: Path) -> None:
    path = repository.save_raw(EXP, factories.raw())
    stored = path.read_bytes()
    other = factories.raw(gpu_name="another")
    with pytest.raises(ResultExistsError, match="a different result is stored") as caught:
        repository.save_raw(EXP, other)
    assert path.read_bytes() == stored
    assert caught.value.path == path
    assert caught.value.digests == (codec.digest(stored), codec.digest(codec.encode_raw(other)))
    assert caught.value.kept == base / "raw" / "exp_7" / "rejected-process_0-1.json.kept"
    assert str(caught.value.kept) in str(caught.value)
    kept = json.loads(caught.value.kept.read_bytes())
    assert kept["record"]["gpu_name"] == "another"
    assert kept["rejected"] == [caught.value.found]


def test_overwrite_keeps_the_replaced_record(repository: FileSystemRepository, base: Path) -> None:
    versions = [factories.raw(gpu_name=f"gpu {number}") for number in range(3)]
    for version in versions:
        repository.save_raw(EXP, version, overwrite=True)
    folder = base / "raw" / "exp_7"
    assert names(folder) == [
        "manifest.json",
        "process_0.json",
        "superseded-process_0-1.json.kept",
        "superseded-process_0-2.json.kept",
    ]
    assert [(folder / name).read_bytes() for name in names(folder) if name != "manifest.json"] == [
        codec.encode_raw(versions[number]) for number in (2, 0, 1)
    ]
    assert repository.load_all_raw(EXP) == [versions[2]]


@pytest.mark.parametrize("torn", [b"", b"{", b"null"])
def test_torn_file_is_replaced_by_overwrite_only_and_kept(repository: FileSystemRepository, torn: bytes) -> None:
    path = plant(repository.base_path / "raw" / EXP / "process_0.json", torn)
    with pytest.raises(ResultExistsError):
        repository.save_raw(EXP, factories.raw())
    assert path.read_bytes() == torn
    repository.save_raw(EXP, factories.raw(), overwrite=True)
    assert repository.load_all_raw(EXP) == [factories.raw()]
    assert path.with_name("superseded-process_0-1.json.kept").read_bytes() == torn


def test_unreadable_entry_is_a_conflict_and_the_record_is_kept(repository: FileSystemRepository) -> None:
    (repository.base_path / "raw" / EXP / "process_0.json").mkdir(parents=True)
    with pytest.raises(ResultExistsError, match="an unreadable file has this name") as caught:
        repository.save_raw(EXP, factories.raw())
    assert caught.value.kept is not None
    assert json.loads(caught.value.kept.read_bytes())["record"]["process_index"] == 0


# Refused records


def test_invalid_record_is_kept_and_the_error_names_the_file(repository: FileSystemRepository) -> None:
    record = factories.raw(process_index=3, energy_metrics=factories.energy(total_energy_j=float("nan")))
    with pytest.raises(InvalidResultError, match="total_energy_j is nan") as caught:
        repository.save_raw(EXP, record)
    kept = caught.value.kept
    assert kept == repository.base_path / "raw" / EXP / "rejected-process_3-1.json.kept"
    assert str(caught.value).endswith(f"; the record is kept in {kept}")
    assert str(caught.value) == f"{caught.value.doing}: {caught.value.found}; {caught.value.advice}"
    document = json.loads(kept.read_bytes())
    assert document["rejected"] == list(caught.value.problems)
    assert document["record"]["energy_metrics"]["total_energy_j"] == "nan"
    assert document["record"]["model_name"] == record.model_name
    assert repository.list_raw(EXP) == []
    assert repository.list_experiments() == []


def refused_file(repository: FileSystemRepository, **changes: Any) -> str:
    with pytest.raises(ResultsError) as caught:
        repository.save_raw(EXP, factories.raw(**changes))
    kept = getattr(caught.value, "kept", None)
    assert kept is not None
    return str(kept.relative_to(repository.base_path))


def test_refused_records_get_new_numbers_and_equal_ones_are_kept_once(repository: FileSystemRepository) -> None:
    nan, negative = factories.energy(total_energy_j=float("nan")), factories.energy(total_energy_j=-1.0)
    refused = [refused_file(repository, energy_metrics=metrics) for metrics in (nan, negative, nan, negative)]
    assert refused == [f"raw/exp_7/rejected-process_0-{number}.json.kept" for number in (1, 2, 1, 2)]


@pytest.mark.parametrize("index", [-1, True, "../../x", None, 1.5, 10**30])
def test_invalid_index_names_no_file(repository: FileSystemRepository, index: object) -> None:
    assert refused_file(repository, process_index=index) == "raw/exp_7/rejected-process_unknown-1.json.kept"


def test_unrelated_file_does_not_prevent_keeping_a_refused_record(repository: FileSystemRepository) -> None:
    (repository.base_path / "raw" / EXP / "rejected-process_0-1.json.kept").mkdir(parents=True)
    assert refused_file(repository, config_name=7) == "raw/exp_7/rejected-process_0-2.json.kept"


@pytest.mark.parametrize("measured", [{"total_energy_j": 12.5, "process_index": 0}, [12.5], None, 12.5])
def test_object_that_is_no_record_is_refused_and_kept(repository: FileSystemRepository, measured: Any) -> None:
    for experiment_id in (EXP, ""):
        with pytest.raises((InvalidResultError, ExperimentIdError)) as caught:
            repository.save_raw(experiment_id, measured)
        kept: Path = getattr(caught.value, "kept")  # noqa: B009 - mypy knows no common type with this attribute
        assert kept.name == "rejected-process_unknown-1.json.kept"
        assert json.loads(kept.read_bytes())["record"] == measured
        if experiment_id:
            assert f"it is a {type(measured).__name__}, not a RawProcessResult" in str(caught.value)


def test_record_of_another_id_is_refused_and_kept(repository: FileSystemRepository) -> None:
    with pytest.raises(ExperimentIdError, match="the record's own id is 'other'") as caught:
        repository.save_raw(EXP, factories.raw("other"))
    assert caught.value.kept == repository.base_path / "raw" / EXP / "rejected-process_0-1.json.kept"
    assert repository.list_experiments() == []


@pytest.mark.parametrize("experiment_id", IMPOSSIBLE_IDS)
def test_every_method_refuses_an_invalid_id_and_save_keeps_the_record(
    repository: FileSystemRepository, experiment_id: str
) -> None:
    for method in (
        *(repository.list_raw, repository.load_all_raw, repository.recover_raw, repository.has_raw),
        *(repository.load_aggregated, repository.has_aggregated, repository.delete_experiment),
        repository.load_manifest,
    ):
        with pytest.raises(ExperimentIdError, match="^cannot use the experiment id: .*; use another id$"):
            method(experiment_id)
    with pytest.raises(ExperimentIdError):
        repository.save_aggregated(factories.aggregated(experiment_id))
    with pytest.raises(ExperimentIdError) as caught:
        repository.save_raw(experiment_id, factories.raw(experiment_id))
    assert caught.value.kept == repository.base_path / "raw" / "_unnamed" / "rejected-process_0-1.json.kept"
    assert json.loads(caught.value.kept.read_bytes())["record"]["experiment_id"] == experiment_id
    assert repository.list_experiments() == []


# Ids


@pytest.mark.parametrize(
    ("experiment_id", "folder"),
    [
        ("exp/with/slashes", "exp_with_slashes"),
        ("/etc/passwd", "_etc_passwd"),
        ("../../up", ".._.._up"),
        ("a\0b\nc", "a_b_c"),
        ("müller", "m_ller"),
        ("実験", "__"),
        (".hidden", ".hidden"),
        ("x" * 200, "x" * 200),
    ],
)
def test_every_valid_id_names_a_folder_inside(
    repository: FileSystemRepository, base: Path, experiment_id: str, folder: str
) -> None:
    path = repository.save_raw(experiment_id, factories.raw(experiment_id))
    repository.save_aggregated(aggregate(repository, experiment_id))
    assert path == base / "raw" / folder / "process_0.json"
    assert sorted(str(found.relative_to(base)) for found in base.rglob("*") if found.is_file()) == [
        f"aggregated/{folder}.json",
        f"raw/{folder}/manifest.json",
        f"raw/{folder}/process_0.json",
    ]
    assert repository.list_experiments() == repository.list_aggregated() == [folder]
    for name in (experiment_id, folder):
        assert repository.has_raw(name)
        assert repository.has_aggregated(name)
        assert repository.load_all_raw(name)[0].experiment_id == experiment_id
        loaded = repository.load_aggregated(name)
        assert loaded is not None
        assert loaded.experiment_id == experiment_id
    assert repository.delete_experiment(experiment_id)


def test_id_with_the_folder_of_another_experiment_is_refused(repository: FileSystemRepository) -> None:
    save_all(repository, factories.raw("a/b"))
    repository.save_aggregated(aggregate(repository, "a/b"))
    with pytest.raises(ExperimentIdError, match="folder 'a_b' belongs to the experiment 'a/b'") as caught:
        repository.save_raw("a_b", factories.raw("a_b", 1))
    assert caught.value.kept == repository.base_path / "raw" / "a_b" / "rejected-process_1-1.json.kept"
    with pytest.raises(ExperimentIdError, match="belongs to the experiment 'a/b'"):
        repository.save_aggregated(factories.aggregated("a_b"))
    for method in (repository.load_all_raw, repository.load_aggregated, repository.delete_experiment):
        with pytest.raises(ExperimentIdError, match="belongs to the experiment 'a/b'"):
            method("a b")
    assert len(repository.load_all_raw("a/b")) == 1


def test_ids_that_differ_in_case_are_not_mixed(repository: FileSystemRepository, tmp_path: Path) -> None:
    save_all(repository, factories.raw("Exp"))
    (tmp_path / "Case").touch()
    if (tmp_path / "case").exists():
        with pytest.raises(ExperimentIdError, match="belongs to the experiment 'Exp'"):
            repository.save_raw("exp", factories.raw("exp", 1))
    else:
        save_all(repository, factories.raw("exp", 1))
        assert [record.process_index for record in repository.load_all_raw("exp")] == [1]


# Lists and unrelated files


def test_lists_are_sorted(repository: FileSystemRepository) -> None:
    save_all(
        repository, *(factories.raw("b", index) for index in (10, 9, 2, 0)), factories.raw("a"), factories.raw("C")
    )
    assert repository.list_experiments() == ["C", "a", "b"]
    assert [path.name for path in repository.list_raw("b")] == [f"process_{index}.json" for index in (0, 2, 9, 10)]
    assert [record.process_index for record in repository.load_all_raw("b")] == [0, 2, 9, 10]


def plant_strangers(base: Path) -> None:
    for name in (
        *(".completed_0", "process_x.json", "process_07.json", "process_-1.json", "process_1.json.bak", "notes.txt"),
        *("process_.json", "Process_1.json", "process_1.JSON", "process_1.json\n", "process_²5.json", "process_٣.json"),
        *(
            "rejected-process_1-1.json.kept",
            "superseded-process_1-1.json.kept",
            "partial-process_1.json",
            "claim-rapl.json",
        ),
        *(f".process_1.json{HIDDEN_MARK}123-abcd", f"process_1.json{HIDDEN_MARK}", f"process_{'9' * 30}.json"),
    ):
        plant(base / "raw" / EXP / name, b"junk")
    (base / "raw" / EXP / "process_3.json").mkdir()
    (base / "raw" / "empty").mkdir()
    for name in ("notes.txt", f".{EXP}{HIDDEN_MARK}123-abcd/process_0.json", "not an id/process_0.json"):
        plant(base / "raw" / name, b"junk")
    for name in ("notes.txt", ".json", f".x.json{HIDDEN_MARK}1-a", "superseded-y-1.json.kept", "b c.json", "x.JSON"):
        plant(base / "aggregated" / name, b"junk")
    (base / "aggregated" / "folder.json").mkdir()
    plant(base / ".catalogue.sqlite", b"junk")


def test_unrelated_files_change_nothing(repository: FileSystemRepository, base: Path) -> None:
    plant_strangers(base)
    save_all(repository, factories.raw(), factories.raw(process_index=12))
    repository.save_aggregated(aggregate(repository))
    assert repository.list_experiments() == repository.list_aggregated() == [EXP]
    assert [path.name for path in repository.list_raw(EXP)] == ["process_0.json", "process_12.json"]
    assert repository.recover_raw(EXP).unreadable == []
    assert len(repository.load_all_raw(EXP)) == 2


def test_delete_removes_unrelated_files_and_no_other_experiment(repository: FileSystemRepository, base: Path) -> None:
    plant_strangers(base)
    mine = [EXP, "exp_7x", "exp_7-1"]
    save_all(repository, *(factories.raw(name) for name in mine))
    for name in mine:
        repository.save_aggregated(aggregate(repository, name))
        plant(base / "aggregated" / f"superseded-{name}-1.json.kept")
        plant(base / "tags" / f"{name}.json")
    assert repository.delete_experiment(EXP) is True
    assert repository.list_experiments() == repository.list_aggregated() == ["exp_7-1", "exp_7x"]
    left = {
        str(path.relative_to(base)) for path in base.rglob("*") if EXP in path.name and HIDDEN_MARK not in path.name
    }
    assert left == {
        *("raw/exp_7x", "aggregated/exp_7x.json", "aggregated/superseded-exp_7x-1.json.kept", "tags/exp_7x.json"),
        *("raw/exp_7-1", "aggregated/exp_7-1.json", "aggregated/superseded-exp_7-1-1.json.kept", "tags/exp_7-1.json"),
    }
    assert repository.delete_experiment(EXP) is False


@pytest.mark.parametrize("what", ["raw", "aggregated", "tags"])
def test_each_part_of_an_experiment_can_be_deleted(repository: FileSystemRepository, base: Path, what: str) -> None:
    path = plant(base / what / (f"{EXP}.json" if what != "raw" else f"{EXP}/process_0.json"))
    assert repository.delete_experiment(EXP) is True
    assert not path.exists()


# Unreadable files


def damage(repository: FileSystemRepository) -> None:
    """Save processes 0 to 6, and make 1 to 5 unreadable for different reasons."""
    folder = save_all(repository, *factories.raws(7))[0].parent
    (folder / "process_1.json").write_bytes(b"")
    (folder / "process_2.json").write_bytes((folder / "process_2.json").read_bytes()[:-9])
    (folder / "process_3.json").write_bytes(codec.encode_raw(factories.raw("other", 3)))
    (folder / "process_4.json").write_bytes(codec.encode_raw(factories.raw(process_index=6)))
    (folder / "process_5.json").unlink()
    (folder / "process_5.json").symlink_to(folder / "process_0.json")


REASONS = {
    "process_1.json": "the file is empty (0 bytes)",
    "process_2.json": "it is not valid JSON",
    "process_3.json": "it is a result of another experiment, 'other'",
    "process_4.json": "it is the result of process 6",
    "process_5.json": "it is a symbolic link",
}


def test_recover_raw_returns_readable_and_names_unreadable_files(repository: FileSystemRepository) -> None:
    damage(repository)
    recovery = repository.recover_raw(EXP)
    assert recovery.results == [factories.raw(), factories.raw(process_index=6)]
    assert [file.name for file in recovery.unreadable] == list(REASONS)
    for file in recovery.unreadable:
        assert file.reason.startswith(REASONS[file.name])
    torn = recovery.unreadable[1]
    data = repository.list_raw(EXP)[2].read_bytes()
    assert (torn.size_bytes, torn.sha256) == (len(data), codec.digest(data))
    assert (recovery.unreadable[4].size_bytes, recovery.unreadable[4].sha256) == (None, None)


def test_load_all_raw_names_all_unreadable_files_in_one_error(repository: FileSystemRepository) -> None:
    damage(repository)
    with pytest.raises(ResultCorruptError) as caught:
        repository.load_all_raw(EXP)
    assert str(caught.value).startswith("cannot load all raw results of 'exp_7': process_1.json: the file is empty")
    assert list(caught.value.unreadable) == list(REASONS)
    for name, reason in REASONS.items():
        assert f"{name}: {reason}" in str(caught.value)


def test_one_unreadable_file_hides_no_other(repository: FileSystemRepository) -> None:
    damage(repository)
    assert repository.has_raw(EXP)
    assert len(repository.list_raw(EXP)) == 7
    partial = aggregate(repository)
    assert partial.is_lower_bound
    assert partial.completeness is not None
    assert partial.completeness.missing == [1, 2, 3, 4, 5]


def test_pipe_does_not_block(repository: FileSystemRepository) -> None:
    folder = save_all(repository, factories.raw())[0].parent
    os.mkfifo(folder / "process_1.json")
    answer = threading.Thread(target=repository.recover_raw, args=[EXP], daemon=True)
    answer.start()
    answer.join(60)
    assert not answer.is_alive()
    assert repository.recover_raw(EXP).unreadable[0].reason == "it is not a regular file"
    with pytest.raises(UnsafePathError, match="not a regular file"):
        repository.load_raw(folder / "process_1.json")


@pytest.mark.parametrize("what", ["folder of the experiment", "folder of all experiments"])
def test_links_out_of_the_store_are_not_followed(repository: FileSystemRepository, tmp_path: Path, what: str) -> None:
    outside = FileSystemRepository(tmp_path / "outside")
    target = save_all(outside, factories.raw())[0]
    link = repository.base_path / "raw" / (EXP if what == "folder of the experiment" else "")
    link.parent.mkdir(parents=True)
    link.symlink_to(target.parent if what == "folder of the experiment" else target.parent.parent)
    for method in (repository.list_raw, repository.load_all_raw, repository.has_raw, repository.delete_experiment):
        with pytest.raises(UnsafePathError, match="is a symbolic link; replace the link with the folder"):
            method(EXP)
    with pytest.raises(UnsafePathError, match="is a symbolic link"):
        repository.save_raw(EXP, factories.raw(process_index=1))
    assert names(target.parent) == ["manifest.json", "process_0.json"]


def test_results_directory_may_be_a_link(repository: FileSystemRepository, tmp_path: Path) -> None:
    save_all(repository, factories.raw())
    (tmp_path / "link").symlink_to(repository.base_path)
    assert len(FileSystemRepository(tmp_path / "link").load_all_raw(EXP)) == 1


def test_linked_aggregate_is_not_followed(repository: FileSystemRepository, tmp_path: Path) -> None:
    target = plant(tmp_path / "a.json", codec.encode_aggregated(factories.aggregated()))
    link = repository.base_path / "aggregated" / f"{EXP}.json"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(UnsafePathError, match="symbolic link"):
        repository.load_aggregated(EXP)


def test_load_raw_takes_any_path(repository: FileSystemRepository, tmp_path: Path) -> None:
    path = plant(tmp_path / "elsewhere" / "any name", codec.encode_raw(factories.raw("other", 9)))
    (tmp_path / "link").symlink_to(path)
    assert repository.load_raw(path) == repository.load_raw(tmp_path / "link") == factories.raw("other", 9)


def test_path_that_is_no_result_is_refused_in_one_sentence(repository: FileSystemRepository, tmp_path: Path) -> None:
    with pytest.raises(ResultNotFoundError, match="the file was not found; check the spelling"):
        repository.load_raw(tmp_path / "absent.json")
    with pytest.raises(UnsafePathError, match="not a regular file"):
        repository.load_raw(tmp_path)
    with pytest.raises(ResultCorruptError, match="^cannot load raw result .*/torn.json: the file is empty"):
        repository.load_raw(plant(tmp_path / "torn.json"))


# Invalid results directories


@pytest.mark.parametrize("where", ["", "raw", "aggregated"])
def test_file_in_place_of_a_folder_is_refused_in_one_sentence(
    repository: FileSystemRepository, base: Path, where: str
) -> None:
    plant(base / where)
    asks = {"raw": [repository.list_experiments], "aggregated": [repository.list_aggregated]}
    calls = asks.get(where) or [*asks["raw"], *asks["aggregated"]]
    for call in calls:
        with pytest.raises(StorageError, match="^cannot list .*; use a folder as the results directory$"):
            call()
    if where != "aggregated":
        with pytest.raises(StorageError, match="; use a folder as the results directory$"):
            repository.save_raw(EXP, factories.raw())


# Aggregates


def test_saved_aggregate_is_loaded(repository: FileSystemRepository, base: Path) -> None:
    save_all(repository, *factories.raws(3))
    made = aggregate(repository)
    assert repository.save_aggregated(made) == base / "aggregated" / "exp_7.json"
    assert repository.load_aggregated(EXP) == made
    assert repository.has_aggregated(EXP)
    assert names(base / "aggregated") == ["exp_7.json"]


def test_own_aggregate_is_replaced(repository: FileSystemRepository, base: Path) -> None:
    save_all(repository, *factories.raws(2))
    repository.save_aggregated(aggregate(repository))
    save_all(repository, factories.raw(process_index=2))
    repository.save_aggregated(aggregate(repository))
    loaded = repository.load_aggregated(EXP)
    assert loaded is not None
    assert loaded.aggregation.num_processes == 3
    assert names(base / "aggregated") == ["exp_7.json"]


@pytest.mark.parametrize(
    "older", [codec.encode_aggregated(factories.aggregated()), b"", b"{"], ids=["another tool's", "empty", "torn"]
)
def test_aggregate_of_another_tool_is_kept(repository: FileSystemRepository, base: Path, older: bytes) -> None:
    save_all(repository, *factories.raws(2))
    made = aggregate(repository)
    for number in (1, 2):
        plant(base / "aggregated" / "exp_7.json", older)
        repository.save_aggregated(made)
        assert (base / "aggregated" / f"superseded-exp_7-{number}.json.kept").read_bytes() == older
    assert repository.load_aggregated(EXP) == made
    assert repository.list_aggregated() == [EXP]


def test_unreadable_aggregate_differs_from_none(repository: FileSystemRepository, base: Path) -> None:
    plant(base / "aggregated" / "exp_7.json", b"{")
    assert repository.has_aggregated(EXP)
    with pytest.raises(ResultCorruptError, match="^cannot load aggregated result exp_7.json"):
        repository.load_aggregated(EXP)


def test_aggregate_with_another_id_is_refused(repository: FileSystemRepository, base: Path) -> None:
    plant(base / "aggregated" / "exp_7.json", codec.encode_aggregated(factories.aggregated("other")))
    with pytest.raises(ResultCorruptError, match="it is the aggregate of 'other'"):
        repository.load_aggregated(EXP)


@pytest.mark.parametrize("strange", [True, False])
def test_invalid_number_is_not_saved(repository: FileSystemRepository, strange: bool) -> None:
    with pytest.raises(InvalidResultError, match="total_energy_j"):
        repository.save_aggregated(factories.aggregated(total_energy_j=float("nan") if strange else -1.0))
    assert not repository.has_aggregated(EXP)


# Stale aggregates


def test_aggregate_is_stale_if_its_sources_differ(repository: FileSystemRepository) -> None:
    paths = save_all(repository, *factories.raws(4))
    paths[1].write_bytes(b"")
    made = aggregate(repository)
    assert not source_changes(repository, made)
    repository.save_aggregated(made)
    save_all(repository, factories.raw(process_index=11), factories.raw(process_index=9))
    paths[0].unlink()
    paths[1].write_bytes(codec.encode_raw(factories.raw(process_index=1)))
    paths[2].write_bytes(paths[2].read_bytes() + b"\n")
    paths[3].write_bytes(b"")
    loaded = repository.load_aggregated(EXP)
    assert loaded is not None
    changes = source_changes(repository, loaded)
    assert changes
    assert changes.added == ["process_11.json", "process_9.json"]
    assert changes.removed == ["process_0.json"]
    assert changes.changed == ["process_1.json", "process_2.json", "process_3.json"]


@pytest.mark.parametrize("field", ["added", "removed", "changed"])
def test_any_single_difference_makes_an_aggregate_stale(repository: FileSystemRepository, field: str) -> None:
    paths = save_all(repository, *factories.raws(2))
    made = aggregate(repository)
    if field == "added":
        save_all(repository, factories.raw(process_index=2))
    elif field == "removed":
        paths[1].unlink()
    else:
        paths[1].write_bytes(b"")
    changes = source_changes(repository, made)
    assert changes
    assert [name for name in ("added", "removed", "changed") if getattr(changes, name)] == [field]


def test_file_that_was_always_unreadable_makes_nothing_stale(repository: FileSystemRepository) -> None:
    damage(repository)
    assert not source_changes(repository, aggregate(repository))


def test_aggregate_of_another_tool_is_never_stale(repository: FileSystemRepository) -> None:
    save_all(repository, *factories.raws(3))
    assert not source_changes(repository, factories.aggregated())


# Manifests


def test_load_manifest_reads_the_manifest(repository: FileSystemRepository, base: Path) -> None:
    manifest = Manifest(experiment_id=EXP, expected_processes=4)
    path = plant(base / "raw" / EXP / "manifest.json", msgspec.json.encode(manifest))
    assert repository.load_manifest(EXP) == manifest
    path.write_bytes(b'{"experiment_id": "exp_7", "expected_processes": 0}')
    with pytest.raises(ResultCorruptError, match="^cannot load manifest raw/exp_7/manifest.json"):
        repository.load_manifest(EXP)
