"""Random changes of a bundle never raise an unexpected error, and never pass as whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.checking import verify_bundle
from llm_energy_measure.bundle.outcomes import CODES, OUTCOMES
from llm_energy_measure.bundle.zip_records import END, end_records
from llm_energy_measure.exceptions import BundleError
from tests.support import bundles

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40)), min_size=1, max_size=4)


def changed(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Replace some bytes after each position (from 0, the start, to 1, the end) by others."""
    for place, size, other in changes:
        start = int(place * len(data))
        data = data[:start] + other + data[start + size :]
    return data


@EXAMPLES
@given(changes=CHANGES)
def test_changed_archive_is_not_whole(small: Path, tmp_path: Path, changes: list[tuple[float, int, bytes]]) -> None:
    original = small.read_bytes()
    data = changed(original, changes)
    path = tmp_path / "changed.zip"
    path.write_bytes(data)
    outcome, code = "refused", ""
    try:
        with opened(path) as source:
            outcome = verify_bundle(source).outcome
    except BundleError as refused:
        code = refused.code
    assert outcome in OUTCOMES
    assert code in {"", *CODES}
    assert (outcome == "unsigned") == (data == original)


@EXAMPLES
@given(changes=CHANGES, number=st.integers(0, 100))
def test_changed_file_with_new_manifests_has_an_outcome(
    small: Path, changes: list[tuple[float, int, bytes]], number: int
) -> None:
    """The manifests agree with the changed file, so that all other code reads it."""
    files = bundles.unpacked(small)
    names = sorted(name for name in files if name.startswith("data/"))
    name = names[number % len(names)]
    files[name] = changed(files[name], changes)
    found = verify_bundle(bundles.Files(bundles.listed_again(files)))
    assert found.outcome in OUTCOMES
    assert {problem.code for problem in found.problems} <= set(CODES)


@pytest.mark.parametrize("count", [6_000_000, 2**63])
def test_archive_that_states_too_many_entries_is_refused(tmp_path: Path, count: int) -> None:
    """A sparse file of the stated size takes no space on the disk."""
    path = tmp_path / "a.zip"
    size = min(count, 6_000_000) * 47
    end = end_records(count, size, 0)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(end)
    assert len(end) > END.size
    with pytest.raises(BundleError) as refused, opened(path):
        pass
    assert refused.value.code in ("zip.size", "zip.damaged")
