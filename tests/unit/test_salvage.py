"""Salvaged sections of torn results are partial records, and never results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import ResultCorruptError, ResultNotFoundError, ResultsError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store, remove_leftovers
from llm_energy_measure.results.batch.salvage import TOOL, complete_sections, salvage_all
from llm_energy_measure.results.store import codec
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path

EXP = "exp_7"
WHOLE = codec.encode_raw(factories.raw(EXP))


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    repository = FileSystemRepository(tmp_path)
    repository.save_raw(EXP, factories.raw(EXP))
    return repository


def salvage(repository: FileSystemRepository, process_index: int = 0) -> Path:
    """Return the new file of a salvaged result; raise its error if there is none."""
    [outcome] = salvage_all(repository, [f"raw/{EXP}/process_{process_index}.json"]).values()
    if isinstance(outcome, ResultsError):
        raise outcome
    return outcome


def tear(repository: FileSystemRepository, data: bytes) -> Path:
    (path,) = repository.list_raw(EXP)
    path.write_bytes(data)
    return path


def test_each_prefix_yields_only_complete_sections() -> None:
    whole = complete_sections(WHOLE)
    names = list(whole)
    for length in range(0, len(WHOLE), 7):
        sections = complete_sections(WHOLE[:length])
        assert list(sections) == names[: len(sections)]
        assert all(sections[name] == whole[name] for name in sections)


def test_number_that_may_be_truncated_is_left_out() -> None:
    assert complete_sections(b'{"a": 1, "b": 12') == {"a": 1}


@pytest.mark.parametrize("data", [b"", b"null", b"[1, 2", b"\xff\xfe", b'{"a"', b'{1: 2, "b": 3'])
def test_data_that_is_no_torn_object_has_no_sections(data: bytes) -> None:
    assert complete_sections(data) == {}


def test_result_torn_after_its_energy_is_salvaged_as_partial(repository: FileSystemRepository) -> None:
    torn = WHOLE[: WHOLE.index(b'"compute_metrics"')]
    path = tear(repository, torn)
    kept = salvage(repository)
    assert kept == path.with_name("partial-process_0.json")
    record = repository.load_raw(kept)
    assert record.energy_metrics == factories.raw(EXP).energy_metrics
    assert record.compute_metrics is None
    assert record.energy_measurement_warning is not None
    assert "salvaged from a torn file; lost: compute_metrics" in record.energy_measurement_warning
    assert record.origin is not None
    assert (record.origin.tool, record.origin.file, record.origin.sha256) == (TOOL, path.name, codec.digest(torn))
    assert path.read_bytes() == torn, "the torn file is unchanged"
    assert repository.recover_raw(EXP).results == [], "a partial record is not a result"
    assert salvage(repository) == kept, "a second call returns the same file"


def test_complete_or_too_short_files_are_not_salvaged(repository: FileSystemRepository) -> None:
    with pytest.raises(ResultCorruptError, match="the file is complete"):
        salvage(repository)
    with pytest.raises(ResultNotFoundError):
        salvage(repository, 1)
    tear(repository, WHOLE[: WHOLE.index(b'"timestamps"')])
    with pytest.raises(ResultCorruptError, match="the file ends before timestamps"):
        salvage(repository)


def test_older_partial_record_is_kept(repository: FileSystemRepository) -> None:
    path = tear(repository, WHOLE[: WHOLE.index(b'"compute_metrics"')])
    path.with_name("partial-process_0.json").write_bytes(b"a checkpoint")
    record = repository.load_raw(salvage(repository))
    assert (record.energy_metrics, record.status) == (factories.raw(EXP).energy_metrics, "partial")
    assert path.with_name("superseded-process_0-1.json.kept").read_bytes() == b"a checkpoint"


@pytest.mark.parametrize("odd", [b'"energy_measurement_warning": 5,', b'"zz": "\\ud800",'])
def test_hostile_sections_are_refused_or_left_out_with_a_reason(repository: FileSystemRepository, odd: bytes) -> None:
    at = WHOLE.index(b'"timestamps"')
    tear(repository, WHOLE[:at] + odd + WHOLE[at : WHOLE.index(b'"compute_metrics"')])
    try:
        record = repository.load_raw(salvage(repository))
    except ResultCorruptError:
        return
    assert record.energy_metrics == factories.raw(EXP).energy_metrics


# Unfinished files

OTHER_HOST = "~00000000-00000000-1-0123abcd"


def leave(repository: FileSystemRepository, name: str, data: bytes) -> Path:
    path = repository.base_path / "raw" / EXP / f".{name}{OTHER_HOST}"
    path.write_bytes(data)
    return path


def codes(repository: FileSystemRepository) -> dict[str, str]:
    return {finding.key.rpartition("/")[2]: finding.code for finding in check_store(repository)}


def test_torn_unpublished_file_with_the_only_energy_can_be_salvaged(
    repository: FileSystemRepository,
) -> None:
    whole = codec.encode_raw(factories.raw(EXP, 1))
    torn = leave(repository, "process_1.json", whole[: whole.index(b'"compute_metrics"')])
    assert codes(repository) == {torn.name: "raw.unpublished"}
    assert remove_leftovers(repository, check_store(repository)) == []
    done = run("-o", repository.base_path, "results", "check", "--salvage")
    assert done.status == 1
    partial = torn.with_name("partial-process_1.json")
    assert f"salvaged as {partial}" in done.err
    assert repository.load_raw(partial).energy_metrics == factories.raw(EXP, 1).energy_metrics
    assert codes(repository)[torn.name] == "leftover.in_use"  # of another host: the user removes it


def test_file_without_energy_or_with_its_result_is_a_leftover(repository: FileSystemRepository) -> None:
    whole = codec.encode_raw(factories.raw(EXP, 1))
    torn = leave(repository, "process_1.json", whole[: whole.index(b'"energy_metrics"')])
    assert codes(repository) == {torn.name: "leftover.in_use"}
    torn.unlink()
    torn = leave(repository, "process_0.json", WHOLE[: WHOLE.index(b'"compute_metrics"')])
    assert codes(repository) == {torn.name: "leftover.in_use"}


def test_complete_unpublished_result_is_saved_as_a_result(repository: FileSystemRepository) -> None:
    left = leave(repository, "process_1.json", codec.encode_raw(factories.raw(EXP, 1)))
    run("-o", repository.base_path, "results", "check", "--salvage")
    assert repository.load_all_raw(EXP) == factories.raws(2, EXP)
    assert codes(repository) == {left.name: "leftover.in_use"}


def test_salvaged_torn_result_needs_no_decision(repository: FileSystemRepository) -> None:
    tear(repository, WHOLE[: WHOLE.index(b'"compute_metrics"')])
    assert run("-o", repository.base_path, "results", "check", "--salvage").status == 1
    done = run("-o", repository.base_path, "results", "check", "--json")
    assert done.status == 0
    [torn] = [finding for finding in done.json() if finding["code"] == "raw.torn"]
    assert torn["message"].endswith("salvaged as partial-process_0.json")


def test_complete_unpublished_file_is_kept_if_a_result_exists(repository: FileSystemRepository) -> None:
    left = leave(repository, "process_0.json", codec.encode_raw(factories.raw(EXP, gpu_name="another")))
    assert codes(repository) == {left.name: "raw.unpublished"}
    run("-o", repository.base_path, "results", "check", "--salvage")
    assert left.with_name("superseded-process_0-1.json.kept").read_bytes() == left.read_bytes()
    assert codes(repository)[left.name] == "leftover.in_use"
