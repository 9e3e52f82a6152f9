"""Merging results directories: each file is copied or reported as a conflict, and none is replaced."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import Launcher, Manifest
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.batch.merge import MergedFile, merge_results
from llm_energy_measure.results.store import codec
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT


def plant(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def snapshot(repository: FileSystemRepository) -> dict[str, bytes]:
    base = repository.base_path
    return {str(path.relative_to(base)): path.read_bytes() for path in sorted(base.rglob("*")) if path.is_file()}


def merge(target: FileSystemRepository, source: FileSystemRepository) -> dict[str, str]:
    return {merged.key: merged.outcome for merged in merge_results(target, source)}


@pytest.fixture
def source(tmp_path: Path) -> FileSystemRepository:
    """Return the directory of one host: results, kept records, aggregates and tags."""
    source = FileSystemRepository(tmp_path / "source")
    source.begin_experiment(Manifest(experiment_id=EXP, expected_processes=4))
    for record in factories.raws(2):
        source.save_raw(EXP, record)
    source.save_raw(EXP, factories.raw(gpu_name="again"), overwrite=True)
    with pytest.raises(ResultsError):
        source.save_raw(EXP, factories.raw(gpu_name="refused"))
    plant(source.base_path / "raw" / EXP / "partial-process_1.json", codec.encode_raw(factories.raw(process_index=1)))
    # Another tool may write a byte order mark, tabs, no final newline, and unknown fields.
    document = {**factories.document(factories.raw("other")), "new": [1]}
    plant(source.base_path / "raw" / "other" / "process_0.json", b"\xef\xbb\xbf\t" + factories.as_bytes(document))
    plant(source.base_path / "raw" / "other" / "process_1.json", b'{"torn')
    list(aggregate_all(source, strict=False))
    plant(source.base_path / "aggregated" / "superseded-other-1.json.kept", b"{}")
    plant(source.base_path / "aggregated" / "only.json", codec.encode_aggregated(factories.aggregated("only")))
    plant(source.base_path / "tags" / f"{EXP}.json", b'{"tags": ["a"]}')
    return source


@pytest.fixture
def target(tmp_path: Path) -> FileSystemRepository:
    return FileSystemRepository(tmp_path / "target")


def test_merge_copies_all_bytes_and_does_not_change_the_source(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    before = snapshot(source)
    outcomes = merge(target, source)
    assert set(outcomes.values()) == {"copied"}
    assert snapshot(target) == snapshot(source) == before
    assert sorted(outcomes) == sorted(before)


def test_second_merge_changes_nothing(target: FileSystemRepository, source: FileSystemRepository) -> None:
    merge(target, source)
    before = snapshot(target)
    assert set(merge(target, source).values()) == {"same"}
    assert set(merge(source, source).values()) == {"same"}
    assert snapshot(target) == snapshot(source) == before


def test_interrupted_merge_is_completed_by_the_next(
    tmp_path: Path, target: FileSystemRepository, source: FileSystemRepository
) -> None:
    merge(target, source)
    whole = snapshot(target)
    for done in range(len(whole)):
        interrupted = FileSystemRepository(tmp_path / f"after {done}")
        copied = list(itertools.islice(merge_results(interrupted, source), done))
        assert len(copied) == done
        assert snapshot(interrupted).items() <= whole.items()  # threads copy ahead
        present = len(snapshot(interrupted))
        counts = Counter(merge(interrupted, source).values())
        assert counts == Counter(same=present, copied=len(whole) - present) - Counter()
        assert snapshot(interrupted) == whole


@pytest.mark.parametrize("kind", ["link", "misnamed"])
def test_results_that_cannot_be_merged_are_reported(
    target: FileSystemRepository, source: FileSystemRepository, kind: str, tmp_path: Path
) -> None:
    folder = source.base_path / "raw" / EXP
    if kind == "link":
        moved = folder.rename(tmp_path / "scratch")
        folder.symlink_to(moved)
    else:
        folder = folder.rename(folder.with_name("my exp"))
    assert merge(target, source)[f"raw/{folder.name}"] == "failed"
    assert run("-o", target.base_path, "results", "merge", source.base_path).status == 1


@pytest.mark.parametrize("prefix", [(), ("--prefix", "night")])
def test_renamed_folder_and_aggregate_are_reported_and_not_copied(
    target: FileSystemRepository, source: FileSystemRepository, prefix: tuple[str, ...]
) -> None:
    base = source.base_path
    (base / "raw" / EXP).rename(base / "raw" / "renamed")
    (base / "aggregated" / f"{EXP}.json").rename(base / "aggregated" / "renamed.json")
    done = run("-o", target.base_path, "results", "merge", base, *prefix)
    assert done.status == 1
    assert f"it has a result of another experiment, {EXP!r}; name it {EXP!r} in the source directory" in done.err
    assert f"it is the aggregate of {EXP!r}; name it {EXP!r} in the source directory" in done.err
    assert [name for name in snapshot(target) if "renamed" in name] == []
    assert any("other" in name for name in snapshot(target))


def interrupted_deletion(repository: FileSystemRepository) -> None:
    folder = repository.base_path / "raw" / EXP
    folder.rename(folder.with_name(f".{EXP}~deleted"))


def test_experiment_deleted_in_the_source_is_not_copied(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    interrupted_deletion(source)
    assert not [key for key in merge(target, source) if EXP in key]


def test_experiment_deleted_in_the_target_is_not_restored(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    target.save_raw(EXP, factories.raw(process_index=3))
    plant(target.base_path / "tags" / f"{EXP}.json", b'{"tags": ["old"]}')
    interrupted_deletion(target)
    assert has_no_conflict(target, source)
    assert [record.process_index for record in target.load_all_raw(EXP)] == [0, 1]
    assert target.store.get(f"tags/{EXP}.json") == b'{"tags": ["a"]}'


def has_no_conflict(target: FileSystemRepository, source: FileSystemRepository) -> bool:
    return "conflict" not in merge(target, source).values()


def test_archived_attempt_is_not_merged(target: FileSystemRepository, source: FileSystemRepository) -> None:
    merge(target, source)
    folder = target.base_path / "raw" / EXP
    folder.rename(folder.with_name(f".{EXP}~attempt-0"))  # the next attempt has not written its manifest yet
    assert merge(target, source)[f"raw/{EXP}"] == "failed"
    assert not folder.exists()


def test_unrelated_and_unfinished_files_are_not_copied(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    ours = snapshot(source)
    for name in (".completed_0", "notes.txt", "process_07.json", "claim-rapl.json"):
        plant(source.base_path / "raw" / EXP / name, b"junk")
    plant(source.base_path / "raw" / "not an id" / "notes.txt", b"junk")
    plant(source.base_path / "raw" / f".{EXP}~00000000-00000000-1-0123abcd" / "process_0.json", b"junk")
    plant(source.base_path / "aggregated" / "notes.txt", b"junk")
    plant(source.base_path / "multi_cycle" / "x.json", b"junk")
    plant(source.base_path / ".catalogue.sqlite", b"junk")
    (source.base_path / "aggregated" / "folder.json").mkdir()
    (source.base_path / "raw" / EXP / "process_5.json").mkdir()
    assert set(merge(target, source).values()) == {"copied"}
    assert snapshot(target) == ours


@pytest.mark.parametrize(
    "key",
    [f"raw/{EXP}/.process_3.json~00000000-00000000-1-0123abcd", f"raw/.{EXP}~attempt-0/process_0.json"],
)
def test_unfinished_files_and_earlier_attempts_are_not_copied(
    target: FileSystemRepository, source: FileSystemRepository, key: str
) -> None:
    ours = snapshot(source)
    plant(source.base_path / key, b"junk")
    merge(target, source)
    assert snapshot(target) == ours


def test_processes_of_several_hosts_are_merged(target: FileSystemRepository, tmp_path: Path) -> None:
    manifest = Manifest(experiment_id="a/b", expected_processes=4)
    for host in range(2):
        node = FileSystemRepository(tmp_path / f"node{host}")
        node.begin_experiment(manifest)
        for index in (2 * host, 2 * host + 1):
            node.save_raw("a/b", factories.raw("a/b", index, host=f"node{host}"))
        outcomes = merge(target, node)
        assert outcomes["raw/a_b/manifest.json"] == ("same" if host else "copied")
    assert [record.process_index for record in target.load_all_raw("a/b")] == [0, 1, 2, 3]
    assert [outcome.result for outcome in aggregate_all(target)] == ["aggregated"]
    assert list(check_store(target)) == []


def conflicts(target: FileSystemRepository, source: FileSystemRepository) -> list[MergedFile]:
    """Return the conflicts of a merge, and check that no file of the target has changed."""
    before = snapshot(target)
    merged = list(merge_results(target, source))
    after = snapshot(target)
    assert {key: after[key] for key in before} == before
    return [one for one in merged if one.outcome == "conflict"]


def test_different_content_is_a_conflict_and_the_merge_continues(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    target.begin_experiment(Manifest(experiment_id=EXP, expected_processes=4))
    target.save_raw(EXP, factories.raw(gpu_name="third"))
    conflict, whole = conflicts(target, source)
    assert (conflict.key, conflict.reason) == (f"raw/{EXP}/process_0.json", "the target has a different result")
    assert whole.key == f"raw/{EXP}"
    assert whole.reason == "the target has results of another run, so no file of this experiment was copied"
    # Process 1 of the other run would complete this run, and the sum would be of two halves.
    assert [record.process_index for record in target.load_all_raw(EXP)] == [0]
    assert target.has_raw("other")


def test_partial_record_is_not_replaced(target: FileSystemRepository, source: FileSystemRepository) -> None:
    plant(target.base_path / "raw" / EXP / "partial-process_1.json", b"mine")
    assert [conflict.key for conflict in conflicts(target, source)] == [f"raw/{EXP}/partial-process_1.json"]


@pytest.mark.parametrize("kind", ["rejected", "superseded"])
def test_kept_file_gets_a_number_that_is_free_in_the_target(
    target: FileSystemRepository, source: FileSystemRepository, kind: str
) -> None:
    folder = target.base_path / "raw" / EXP
    theirs = (source.base_path / "raw" / EXP / f"{kind}-process_0-1.json.kept").read_bytes()
    plant(folder / f"{kind}-process_0-1.json.kept", b"mine")
    assert conflicts(target, source) == []
    assert (folder / f"{kind}-process_0-2.json.kept").read_bytes() == theirs
    again = {merged.key: merged for merged in merge_results(target, source)}[f"raw/{EXP}/{kind}-process_0-1.json.kept"]
    assert (again.outcome, again.reason) == ("same", f"stored as {kind}-process_0-2.json.kept")
    assert not (folder / f"{kind}-process_0-3.json.kept").exists()


def test_manifests_of_one_run_from_different_nodes_do_not_conflict(tmp_path: Path) -> None:
    repositories = [FileSystemRepository(tmp_path / node) for node in ("n1", "n2")]
    for index, repository in enumerate(repositories):
        launcher = Launcher(name="slurm", job_id="7", node=repository.base_path.name)
        repository.begin_experiment(Manifest(experiment_id=EXP, expected_processes=2, launcher=launcher), index)
        repository.save_raw(EXP, factories.raw(process_index=index))
    outcomes = {merged.key: merged for merged in merge_results(*repositories)}
    assert outcomes[f"raw/{EXP}/manifest.json"].outcome == "same"
    assert outcomes[f"raw/{EXP}/manifest.json"].reason == "the manifests describe the same run"
    assert outcomes[f"raw/{EXP}/process_1.json"].outcome == "copied"


def test_manifest_with_more_fields_is_a_conflict(target: FileSystemRepository, source: FileSystemRepository) -> None:
    target.save_raw(EXP, factories.raw(process_index=3))
    (conflict,) = conflicts(target, source)
    assert conflict.key == f"raw/{EXP}/manifest.json"
    assert conflict.reason == "the source manifest describes the same run with more fields; compare the two files"


def test_different_external_aggregate_conflicts_in_spite_of_results(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    target.save_raw("other", factories.raw("other", process_index=2))
    external = codec.encode_aggregated(factories.aggregated("other"))
    plant(source.base_path / "aggregated" / "other.json", external)
    plant(target.base_path / "aggregated" / "other.json", external.replace(b"16484", b"16485"))
    assert "aggregated/other.json" in {conflict.key for conflict in conflicts(target, source)}


def test_different_tags_are_a_conflict(target: FileSystemRepository, source: FileSystemRepository) -> None:
    plant(target.base_path / "tags" / f"{EXP}.json", b"{}")
    assert [conflict.key for conflict in conflicts(target, source)] == [f"tags/{EXP}.json"]


@pytest.mark.parametrize("has_manifest", [True, False])
def test_ids_that_share_a_folder_are_refused(
    target: FileSystemRepository, source: FileSystemRepository, *, has_manifest: bool
) -> None:
    for repository, name in ((target, "a/b"), (source, "a_b")):
        if has_manifest:
            repository.begin_experiment(Manifest(experiment_id=name))
        repository.save_raw(name, factories.raw(name, 0 if name == "a/b" else 1))
    list(aggregate_all(source, strict=False))
    plant(source.base_path / "tags" / "a_b.json", b"{}")
    plant(source.base_path / "aggregated" / "superseded-a_b-1.json.kept", b"{}")
    found = conflicts(target, source)
    assert found[0].key == "raw/a_b"
    assert found[0].reason == "the folder belongs to experiment 'a/b' in the target and to 'a_b' in the source"
    # The derived files of the experiment are not copied either.
    assert {one.key for one in found[1:]} == {
        *("aggregated/a_b.json", "aggregated/superseded-a_b-1.json.kept", "tags/a_b.json")
    }
    assert not [key for key in snapshot(target) if "a_b" in key and not key.startswith("raw/")]
    assert [record.experiment_id for record in target.load_all_raw("a/b")] == ["a/b"]


def test_aggregate_of_another_id_is_not_copied_alone(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    target.save_raw("a_b", factories.raw("a_b"))
    source.save_aggregated(factories.aggregated("a/b"))
    assert [conflict.key for conflict in conflicts(target, source)] == ["aggregated/a_b.json"]


@pytest.mark.parametrize(
    "theirs",
    [
        Manifest(experiment_id=EXP, expected_processes=4, attempt=1),
        Manifest(experiment_id=EXP, expected_processes=8),
        Manifest(experiment_id=EXP, config_digest="b" * 64),
    ],
)
def test_two_runs_of_one_id_are_not_mixed(
    target: FileSystemRepository, source: FileSystemRepository, theirs: Manifest
) -> None:
    target.begin_experiment(msgspec.structs.replace(theirs))
    manifest = source.base_path / "raw" / EXP / "manifest.json"
    manifest.write_bytes(
        codec.encode_manifest(Manifest(experiment_id=EXP, expected_processes=4, config_digest="a" * 64))
    )
    target.save_raw(EXP, factories.raw(process_index=2))
    found = conflicts(target, source)
    assert f"raw/{EXP}" in {one.key for one in found}
    assert [record.process_index for record in target.load_all_raw(EXP)] == [2]


def test_aggregate_that_can_be_recomputed_is_no_conflict(target: FileSystemRepository, tmp_path: Path) -> None:
    node = FileSystemRepository(tmp_path / "node")
    for repository, index in ((target, 0), (node, 1)):
        repository.save_raw(EXP, factories.raw(process_index=index))
        list(aggregate_all(repository, strict=False))
    mine = (target.base_path / "aggregated" / f"{EXP}.json").read_bytes()
    assert conflicts(target, node) == []
    assert (target.base_path / "aggregated" / f"{EXP}.json").read_bytes() == mine
    assert [finding.code for finding in check_store(target)] == ["aggregate.stale"]


def test_merge_never_replaces_an_external_aggregate(target: FileSystemRepository, source: FileSystemRepository) -> None:
    target.save_aggregated(factories.aggregated("only", total_tokens=1))
    assert [conflict.key for conflict in conflicts(target, source)] == ["aggregated/only.json"]


def test_unreadable_and_unwritable_files_are_reported(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    (source.base_path / "raw" / "links").mkdir()
    (source.base_path / "raw" / "links" / "process_0.json").symlink_to("../other/process_0.json")
    (target.base_path / "raw").mkdir(parents=True)
    (target.base_path / "raw" / "other").write_bytes(b"a file")
    outcomes = merge(target, source)
    assert {key for key, outcome in outcomes.items() if outcome == "failed"} == {
        *("raw/links/process_0.json", "raw/other", "aggregated/other.json", "aggregated/superseded-other-1.json.kept"),
    }
    assert outcomes[f"raw/{EXP}/process_0.json"] == "copied"


# Any two directories

RESULTS = st.dictionaries(
    st.tuples(st.sampled_from(["a/b", "a_b", "exp", "x"]), st.integers(0, 2)), st.integers(0, 1), max_size=6
)


def filled(base: Path, contents: dict[tuple[str, int], int]) -> FileSystemRepository:
    repository = FileSystemRepository(base)
    for (name, index), variant in contents.items():
        try:
            repository.save_raw(name, factories.raw(name, index, gpu_name=f"gpu {variant}"))
        except ResultsError:
            for refused in (base / "raw").glob("*/rejected-*"):
                refused.unlink()
    return repository


def results_of(repository: FileSystemRepository) -> dict[str, bytes]:
    return {key: data for key, data in snapshot(repository).items() if "/process_" in key}


@settings(max_examples=40)
@given(mine=RESULTS, theirs=RESULTS)
def test_each_result_is_merged_or_reported_as_a_conflict(
    tmp_path_factory: pytest.TempPathFactory,
    mine: dict[tuple[str, int], int],
    theirs: dict[tuple[str, int], int],
) -> None:
    base = tmp_path_factory.mktemp("merge")
    target, source = filled(base / "target", mine), filled(base / "source", theirs)
    before, others = results_of(target), results_of(source)
    outcomes = merge(target, source)
    after = results_of(target)
    assert after.items() >= before.items()
    for key, data in others.items():
        found = {outcomes.get(key), outcomes.get(key.rpartition("/")[0])}
        assert after.get(key) == data or "conflict" in found
    assert results_of(source) == others
    assert not [finding for finding in check_store(target) if finding.needs_decision]

    if "conflict" not in outcomes.values():
        other_way = FileSystemRepository(base / "other way")
        shutil.copytree(source.base_path, other_way.base_path) if source.base_path.exists() else None
        assert "conflict" not in merge(other_way, filled(base / "mine", mine)).values()
        assert snapshot(other_way) == snapshot(target)
    shutil.rmtree(base)


# The command


def test_aggregate_of_fewer_results_is_stale_after_the_merge(
    target: FileSystemRepository, source: FileSystemRepository
) -> None:
    """The copied aggregate has a later mtime than the results in the target, which it does not include."""
    target.begin_experiment(Manifest(experiment_id=EXP, expected_processes=4))
    target.save_raw(EXP, factories.raw(process_index=3))
    merge(target, source)
    outcomes = {outcome.experiment_id: outcome for outcome in aggregate_all(target, strict=False)}
    made = outcomes[EXP].aggregated
    assert made is not None
    assert made.aggregation.num_processes == 3


def test_command_merges_and_prints_a_summary(target: FileSystemRepository, source: FileSystemRepository) -> None:
    before = len(snapshot(source))
    done = run("-o", target.base_path, "results", "merge", source.base_path)
    assert (done.status, done.out) == (0, "")
    assert done.err == f"{before} copied, 0 same, 0 conflict, 0 failed\n"
    again = run("results", "merge", source.base_path, source.base_path, "-o", target.base_path)
    assert (again.status, again.err) == (0, f"0 copied, {2 * before} same, 0 conflict, 0 failed\n")


def test_command_names_a_conflict_and_fails(target: FileSystemRepository, source: FileSystemRepository) -> None:
    target.save_raw(EXP, factories.raw(gpu_name="third"))
    done = run("-o", target.base_path, "results", "merge", source.base_path)
    assert done.status == 1
    key = source.base_path / "raw" / EXP / "process_0.json"
    assert f"error: conflict: {key}: the target has a different result\n" in done.err
    assert target.has_raw("other")


def test_command_needs_existing_directories(target: FileSystemRepository, source: FileSystemRepository) -> None:
    done = run("-o", target.base_path, "results", "merge", source.base_path, target.base_path / "absent")
    assert done.status == 1
    assert "absent: the directory does not exist; give the path of a results directory" in done.err
    assert not target.base_path.exists()
    assert run("-o", target.base_path, "results", "merge").status == 2
