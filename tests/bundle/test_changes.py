"""Every change of a bundle is found: each byte, and each file that is removed, added or exchanged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.bundle import names
from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.checking import check_whole, verify_bundle
from llm_energy_measure.bundle.contents import Selection
from llm_energy_measure.bundle.creation import BundleOptions, create_bundle
from llm_energy_measure.exceptions import BundleError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import bundles, factories

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.bundle.sources import Source


def is_whole(source: Source) -> bool:
    try:
        return not check_whole(source).problems
    except BundleError:
        return False


def archive_is_whole(path: Path) -> bool:
    try:
        with opened(path) as source:
            return is_whole(source)
    except BundleError:
        return False


def test_each_flipped_byte_of_an_archive_is_found(small: Path, tmp_path: Path) -> None:
    """All bytes of the headers, and each tenth byte of the contents; the next test changes all bytes of those.

    `make test-bundle` changes each byte.
    """
    step = 1 if os.environ.get("LLM_ENERGY_MEASURE_BUNDLE_TESTS") == "long" else 10
    copy = tmp_path / "copy.zip"
    data = small.read_bytes()
    copy.write_bytes(data)
    assert archive_is_whole(copy)
    missed = []
    contents = bundles.content_positions(small)
    with copy.open("r+b", buffering=0) as file:
        for position, byte in enumerate(data):
            if position in contents and position % step:
                continue
            file.seek(position)
            file.write(bytes([byte ^ 1]))
            if archive_is_whole(copy):
                missed.append(position)
            file.seek(position)
            file.write(bytes([byte]))
    assert missed == []
    assert archive_is_whole(copy)


@pytest.mark.parametrize("mask", [1, 0x20])
def test_each_flipped_byte_of_an_unzipped_file_is_found(small: Path, mask: int) -> None:
    """An archive has a CRC for each entry. The unzipped files have only the manifests."""
    source = bundles.Files(bundles.unpacked(small))
    assert is_whole(source)
    for name, data in list(source.contents.items()):
        missed = []
        for position, byte in enumerate(data):
            source.contents[name] = data[:position] + bytes([byte ^ mask]) + data[position + 1 :]
            if is_whole(source):
                missed.append(position)
        assert missed == [], name
        source.contents[name] = data


def test_each_removed_file_is_found(whole: Path) -> None:
    files = bundles.unpacked(whole)
    for name in files:
        rest = bundles.Files({other: data for other, data in files.items() if other != name})
        found = verify_bundle(rest)
        assert found.outcome in ("incomplete", "refused"), name
        assert name in {problem.name for problem in found.problems}, name


def test_each_added_file_is_found(whole: Path) -> None:
    files = bundles.unpacked(whole)
    folders = {name.rpartition("/")[0] for name in files}
    for folder in folders:
        added = f"{folder}/added.txt" if folder else "added.txt"
        found = verify_bundle(bundles.Files({**files, added: b"x"}))
        assert (found.outcome, [problem.code for problem in found.problems]) == ("changed", ["file.unlisted"]), added
        assert found.problems[0].name == added


def test_each_exchange_of_two_files_is_found(whole: Path) -> None:
    files = bundles.unpacked(whole)
    ordered = list(files)
    for number, first in enumerate(ordered):
        for second in ordered[number + 1 :]:
            if files[first] != files[second]:
                changed = {**files, first: files[second], second: files[first]}
                assert not is_whole(bundles.Files(changed)), (first, second)


def test_truncated_archive_is_found_at_each_length(small: Path, tmp_path: Path) -> None:
    data = small.read_bytes()
    copy = tmp_path / "copy.zip"
    copy.write_bytes(data)
    for length in range(len(data) - 1, -1, -97):
        with copy.open("r+b") as file:
            file.truncate(length)
        assert not archive_is_whole(copy), length


def test_appended_bytes_are_found(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zip"
    for extra in (b"\0", b"x" * 100, small.read_bytes()):
        copy.write_bytes(small.read_bytes() + extra)
        assert not archive_is_whole(copy)
        copy.write_bytes(extra + small.read_bytes())
        assert not archive_is_whole(copy)


def edited_and_rebuilt(results: Path, target: Path) -> Path:
    """Pack results in which one energy was halved and everything that follows from it was computed again."""
    repository = FileSystemRepository(results)
    halved = factories.energy(0, total_energy_j=1000.0)
    repository.save_raw("llama_c0", factories.raw("llama_c0", 0, energy_metrics=halved), overwrite=True)
    for kept in (results / "raw" / "llama_c0").glob("superseded-*"):
        kept.unlink()
    list(aggregate_all(repository))
    return create_bundle(repository, target, Selection(found=["llama_c0", "llama_c1", "llama_c2"])).path


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_expect_finds_a_consistent_change(whole: Path, results: Path, tmp_path: Path, change: str) -> None:
    """A bundle that was made again from changed results is whole; only the digest of the paper shows the change."""
    with opened(whole) as source:
        digest = verify_bundle(source).digest
    if change == "edited":
        path = edited_and_rebuilt(results, tmp_path / "edited.zip")
    else:
        selection = Selection(found=["llama_c0", "llama_c1"])
        path = create_bundle(FileSystemRepository(results), tmp_path / "deleted.zip", selection).path
    with opened(path) as source:
        assert verify_bundle(source).outcome == "unsigned"
        found = verify_bundle(source, expect=digest)
    assert (found.outcome, [problem.code for problem in found.problems]) == ("changed", ["digest.differs"])


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_signature_finds_a_consistent_change(
    signed: Path, results: Path, signers: Path, tmp_path: Path, change: str
) -> None:
    files = bundles.unpacked(signed)
    if change == "edited":
        other = bundles.unpacked(edited_and_rebuilt(results, tmp_path / "edited.zip"))
    else:
        selection = Selection(found=["llama_c0", "llama_c1"])
        path = create_bundle(FileSystemRepository(results), tmp_path / "deleted.zip", selection, BundleOptions()).path
        other = bundles.unpacked(path)
    changed = {**other, names.SIGNATURE: files[names.SIGNATURE]}
    found = verify_bundle(bundles.Files(changed), allowed_signers=signers)
    assert (found.outcome, [problem.code for problem in found.problems]) == (
        "signature-invalid",
        ["signature.invalid"],
    )


def test_edit_with_new_manifests_changes_a_verdict(whole: Path) -> None:
    files = bundles.unpacked(whole)
    name = "data/raw/llama_c0/process_0.json"
    assert b"2000.0" in files[name]
    files[name] = files[name].replace(b"2000.0", b"1000.0")
    found = verify_bundle(bundles.Files(bundles.listed_again(files)))
    assert (found.outcome, found.problems[0].name) == ("verdict-differs", "llama_c0")
    assert "the recomputed verdict is stale, the stored verdict is undetermined" in found.problems[0].message
