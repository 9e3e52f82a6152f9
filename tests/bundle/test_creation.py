"""What a bundle contains: the selection, the verdicts, the date; and the errors of its creation."""

from __future__ import annotations

import os
import shutil
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import UNSET

from llm_energy_measure.bundle.contents import LeftOut, Selection
from llm_energy_measure.bundle.creation import BundleOptions, create_bundle
from llm_energy_measure.cli.bundle_selection import select
from llm_energy_measure.domain.environment import Environment
from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ConfigurationError, ExportError, ResultExistsError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.storage.objects import ObjectStore
from tests.support import bundles, factories

if TYPE_CHECKING:
    from pathlib import Path

REPEATS = ["llama_c0", "llama_c1", "llama_c2"]


def created(results: Path, target: Path, found: list[str] | None = None, **options: Any) -> dict[str, bytes]:
    """Files of a new bundle."""
    selection = Selection(found=REPEATS if found is None else found)
    create_bundle(FileSystemRepository(results), target, selection, BundleOptions(**options))
    return bundles.unpacked(target)


def document(data: bytes) -> Any:
    return msgspec.json.decode(data)


def test_files_of_an_experiment_are_packed_byte_by_byte(results: Path, tmp_path: Path) -> None:
    files = created(results, tmp_path / "a.zip")
    stored = {
        f"data/{path.relative_to(results)}": path.read_bytes()
        for path in results.rglob("*")
        if path.is_file() and path.name.startswith(("process", "manifest", "llama"))
    }
    packed = {name: data for name, data in files.items() if name.startswith(("data/raw", "data/agg", "data/tags"))}
    assert packed == {name: data for name, data in stored.items() if "torn" not in name}


def test_bytes_do_not_depend_on_time_order_or_permissions(results: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.zip"
    created(results, first)
    copy = tmp_path / "copy"
    shutil.copytree(results, copy, copy_function=shutil.copyfile)
    for path in copy.rglob("*.json"):
        path.chmod(0o600)
        os.utime(path, (0, 0))
    second = tmp_path / "second.zip"
    created(copy, second, found=REPEATS[::-1])
    assert first.read_bytes() == second.read_bytes()


def test_date_is_that_of_the_newest_result(results: Path, tmp_path: Path) -> None:
    repository = FileSystemRepository(results)
    start = datetime(2026, 3, 30, 23, 59, 50, tzinfo=UTC)
    repository.save_raw("late", factories.raw("late", timestamps=factories.timestamps(start)))
    info = created(results, tmp_path / "a.zip", found=[*REPEATS, "late"])["bag-info.txt"]
    assert b"Bagging-Date: 2026-03-31\n" in info
    crate = document(bundles.unpacked(tmp_path / "a.zip")["data/ro-crate-metadata.json"])
    assert crate["@graph"][1]["datePublished"] == "2026-03-31"
    assert b"Bagging-Date: 2027-01-01\n" in created(results, tmp_path / "b.zip", date="2027-01-01")["bag-info.txt"]


def test_bundle_without_any_date_asks_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "raw" / "empty"
    folder.mkdir(parents=True)
    (folder / "process_0.json").touch()
    with pytest.raises(ConfigurationError, match="no record has a date; state it: --date"):
        created(tmp_path / "results", tmp_path / "a.zip", found=["empty"])
    files = created(tmp_path / "results", tmp_path / "b.zip", found=["empty"], date="2026-01-01")
    assert files["data/raw/empty/process_0.json"] == b""
    assert document(files["data/verdicts.jsonl"])["verdict"] == "unreadable"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip", "results"]


def test_only_passed_leaves_out_other_verdicts_and_says_so(results: Path, tmp_path: Path) -> None:
    repository = FileSystemRepository(results)
    repository.save_raw("single", factories.raw("single", world_size=1))
    list(aggregate_all(repository, ["single"]))
    files = created(results, tmp_path / "a.zip", found=["single", "torn"], only_passed=True)
    selection = document(files["data/selection.json"])
    assert selection["left_out"] == [
        {
            "experiment_id": "torn",
            "reason": "--only-passed: its verdict is partial",
            "configuration": None,
            "attempt": None,
        }
    ]
    assert not any(name.startswith("data/raw/torn") for name in files)
    assert b"Left out:     1 (data/selection.json has the reasons)" in files["README.txt"]
    with pytest.raises(ConfigurationError, match="no experiment is selected; select other experiments, or omit"):
        created(results, tmp_path / "b.zip", found=["torn"], only_passed=True)


def test_readme_counts_verdicts_that_are_not_complete(results: Path, tmp_path: Path) -> None:
    files = created(results, tmp_path / "a.zip", found=["torn"])
    assert b"Not complete: 1 partial (data/verdicts.jsonl has the reasons)" in files["README.txt"]


def test_earlier_attempts_are_left_out_by_name(results: Path, tmp_path: Path) -> None:
    repository = FileSystemRepository(results)
    repository.begin_experiment(Manifest(experiment_id="llama_c0", attempt=1))
    repository.save_raw("llama_c0", factories.raw("llama_c0"))
    selection = Selection(found=REPEATS)
    create_bundle(repository, tmp_path / "a.zip", selection)
    reason = "an earlier attempt, which a rerun replaced"
    assert selection.left_out == [LeftOut(experiment_id="llama_c0", reason=reason, attempt=0)]


def test_files_of_other_programs_are_left_out_by_name(results: Path, tmp_path: Path) -> None:
    folder = results / "raw" / "llama_c0"
    (folder / "generated_text.json").write_text("secret")
    (folder / "notes").mkdir()
    files = created(results, tmp_path / "a.zip")
    assert b"secret" not in (tmp_path / "a.zip").read_bytes()
    assert document(files["data/selection.json"])["files_left_out"] == {
        "raw/llama_c0/generated_text.json": "not a file that this tool stores",
        "raw/llama_c0/notes": "not a file that this tool stores",
    }


def test_environment_counts_what_the_records_state(whole: Path) -> None:
    stated = document(bundles.unpacked(whole)["data/environment.json"])["stated_by_the_records"]
    assert stated == [
        {
            "processes": 6,
            "gpu_name": "NVIDIA A100-PCIE-40GB",
            "backend": "pytorch",
            "backend_version": "transformers=4.57.6",
        }
    ]


def test_environment_has_that_of_the_records(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    machine = Environment(python_version="3.13.1", gpu_driver="580.65")
    for process, driver in enumerate((machine, machine, UNSET)):
        repository.save_raw("e", factories.raw("e", process, host="node-1", recording_environment=driver))
    files = created(tmp_path / "results", tmp_path / "a.zip", found=["e"])
    stated = document(files["data/environment.json"])["stated_by_the_records"]
    assert [one["processes"] for one in stated] == [1, 2]
    assert "recording_environment" not in stated[0]
    known = {name: value for name, value in stated[1]["recording_environment"].items() if value is not None}
    assert known == {"python_version": "3.13.1", "gpu_driver": "580.65"}


def test_unsafe_suffix_of_the_citation_file_is_named(results: Path, tmp_path: Path) -> None:
    citation = tmp_path / "cite.c f"
    citation.write_text("cff-version: 1.2.0\n")
    with pytest.raises(ConfigurationError, match=r"data/CITATION\.c f: .*; rename .*cite\.c f$"):
        created(results, tmp_path / "a.zip", citation=citation)


def test_licence_and_citation_are_in_metadata_and_readme(results: Path, tmp_path: Path) -> None:
    citation = tmp_path / "my.cff"
    citation.write_text("cff-version: 1.2.0\n")
    files = created(results, tmp_path / "a.zip", licence="CC-BY-4.0", citation=citation)
    assert files["data/CITATION.cff"] == b"cff-version: 1.2.0\n"
    assert b"Licence:      CC-BY-4.0\nCitation:     data/CITATION.cff\n" in files["README.txt"]
    root = document(files["data/ro-crate-metadata.json"])["@graph"][1]
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert {"@id": "CITATION.cff"} in root["hasPart"]
    with pytest.raises(ConfigurationError, match="cannot read the citation file .*no.cff: No such file"):
        created(results, tmp_path / "b.zip", citation=tmp_path / "no.cff")


def test_report_is_about_the_packed_files(results: Path, tmp_path: Path) -> None:
    def render(repository: FileSystemRepository) -> bytes:
        return f"<p>{repository.base_path.name}: {', '.join(repository.list_experiments())}</p>".encode()

    files = created(results.rename(tmp_path / "other"), tmp_path / "a.zip", report=render)
    assert files["data/report.html"] == b"<p>data: llama_c0, llama_c1, llama_c2</p>"


def test_bundle_from_a_bucket_has_the_same_bytes(results: Path, tmp_path: Path) -> None:
    obstore = pytest.importorskip("obstore")
    client = obstore.store.MemoryStore()
    for path in results.rglob("*.json"):
        obstore.put(client, str(path.relative_to(results)), path.read_bytes())
    address = "s3://bucket/results"
    bucket = FileSystemRepository(address, store=ObjectStore(address, client=client, sleep=lambda _: None))
    targets = [tmp_path / "bucket.zip", tmp_path / "folder.zip"]
    for repository, target in zip((bucket, FileSystemRepository(results)), targets, strict=True):
        selection = select(repository, [], "tag.paper = fig3")
        assert [one.experiment_id for one in selection.left_out] == ["llama_c2", "torn"]
        create_bundle(repository, target, selection)
    assert targets[0].read_bytes() == targets[1].read_bytes()


def test_existing_target_is_not_replaced(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    target.write_text("mine")
    with pytest.raises(ResultExistsError, match="the file exists; remove it, or use another name"):
        created(results, target)
    assert target.read_text() == "mine"


def test_target_folder_that_does_not_exist_is_named(results: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot create .*no/a.zip: No such file or directory; choose a folder"):
        created(results, tmp_path / "no" / "a.zip")


def test_link_in_a_folder_of_results_is_not_followed(results: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (results / "raw" / "llama_c0" / "process_5.json").symlink_to(secret)
    with pytest.raises((StorageError, ConfigurationError)):
        created(results, tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "secret"]


def test_folder_name_that_windows_cannot_open_is_refused(results: Path, tmp_path: Path) -> None:
    """Earlier releases could create these names."""
    shutil.copytree(results / "raw" / "torn", results / "raw" / "aux.1")
    with pytest.raises(ConfigurationError, match=r"data/raw/aux.1/manifest.json: Windows cannot open 'aux.1'"):
        created(results, tmp_path / "a.zip", found=["aux.1"])
    assert not (tmp_path / "a.zip").exists()


def test_progress_covers_all_experiments(results: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def shown(items: Any, total: int) -> Any:
        assert total == 3
        for item in items:
            seen.append(item)
            yield item

    create_bundle(FileSystemRepository(results), tmp_path / "a.zip", Selection(found=REPEATS), with_progress=shown)
    assert seen == REPEATS


def test_archive_has_the_canonical_order(whole: Path) -> None:
    with zipfile.ZipFile(whole) as archive:
        names = archive.namelist()
    assert names[0] == "bagit.txt"
    assert names[1:6] == [
        "data/aggregated/llama_c0.json",
        "data/raw/llama_c0/manifest.json",
        "data/raw/llama_c0/process_0.json",
        "data/raw/llama_c0/process_1.json",
        "data/tags/llama_c0.json",
    ]
    assert names[-4:] == ["README.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"]
