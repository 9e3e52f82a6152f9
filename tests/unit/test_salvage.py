"""What a torn result still holds is had on request, marked as what it is, and never taken for a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import ResultCorruptError, ResultExistsError, ResultNotFoundError
from llm_energy_measure.results import FileSystemRepository, codec
from llm_energy_measure.results.salvage import TOOL, salvage_raw, whole_sections
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

EXP = "exp_7"
WHOLE = codec.encode_raw(factories.raw(EXP))


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    repository = FileSystemRepository(tmp_path)
    repository.save_raw(EXP, factories.raw(EXP))
    return repository


def tear(repository: FileSystemRepository, data: bytes) -> Path:
    (path,) = repository.list_raw(EXP)
    path.write_bytes(data)
    return path


def test_every_prefix_yields_only_sections_that_are_whole() -> None:
    whole = whole_sections(WHOLE)
    names = list(whole)
    for length in range(0, len(WHOLE), 7):
        sections = whole_sections(WHOLE[:length])
        assert list(sections) == names[: len(sections)]
        assert all(sections[name] == whole[name] for name in sections)


def test_a_number_that_may_be_cut_short_is_left_out() -> None:
    assert whole_sections(b'{"a": 1, "b": 12') == {"a": 1}


@pytest.mark.parametrize("data", [b"", b"null", b"[1, 2", b"\xff\xfe", b'{"a"', b'{1: 2, "b": 3'])
def test_what_is_no_torn_object_has_no_sections(data: bytes) -> None:
    assert whole_sections(data) == {}


def test_a_result_torn_after_its_energy_keeps_it_and_says_what_it_is(repository: FileSystemRepository) -> None:
    torn = WHOLE[: WHOLE.index(b'"compute_metrics"')]
    path = tear(repository, torn)
    kept = salvage_raw(repository, EXP, 0)
    assert kept == path.with_name("partial-process_0.json")
    record = repository.load_raw(kept)
    assert record.energy_metrics == factories.raw(EXP).energy_metrics
    assert record.compute_metrics is None
    assert record.energy_measurement_warning is not None
    assert "salvaged from a torn file; lost: compute_metrics" in record.energy_measurement_warning
    assert record.origin is not None
    assert (record.origin.tool, record.origin.file, record.origin.sha256) == (TOOL, path.name, codec.digest(torn))
    assert path.read_bytes() == torn, "the torn file stays as it is"
    assert repository.recover_raw(EXP).results == [], "a partial record is no result"
    assert salvage_raw(repository, EXP, 0) == kept, "asked for twice, it is the same"


def test_what_is_whole_or_too_little_is_not_salvaged(repository: FileSystemRepository) -> None:
    with pytest.raises(ResultCorruptError, match="nothing is wrong with it"):
        salvage_raw(repository, EXP, 0)
    with pytest.raises(ResultNotFoundError):
        salvage_raw(repository, EXP, 1)
    tear(repository, WHOLE[: WHOLE.index(b'"timestamps"')])
    with pytest.raises(ResultCorruptError, match="it ends before timestamps"):
        salvage_raw(repository, EXP, 0)


def test_an_older_partial_record_is_not_replaced(repository: FileSystemRepository) -> None:
    path = tear(repository, WHOLE[: WHOLE.index(b'"compute_metrics"')])
    path.with_name("partial-process_0.json").write_bytes(b"a checkpoint")
    with pytest.raises(ResultExistsError):
        salvage_raw(repository, EXP, 0)
    assert path.with_name("partial-process_0.json").read_bytes() == b"a checkpoint"


@pytest.mark.parametrize("odd", [b'"energy_measurement_warning": 5,', b'"zz": "\\ud800",'])
def test_hostile_sections_are_refused_or_left_out_in_a_sentence(repository: FileSystemRepository, odd: bytes) -> None:
    at = WHOLE.index(b'"timestamps"')
    tear(repository, WHOLE[:at] + odd + WHOLE[at : WHOLE.index(b'"compute_metrics"')])
    try:
        record = repository.load_raw(salvage_raw(repository, EXP, 0))
    except ResultCorruptError:
        return
    assert record.energy_metrics == factories.raw(EXP).energy_metrics
