"""`results check`: its findings and advice, and the leftovers that it removes."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.results import FileSystemRepository, aggregate_all, aggregate_results
from llm_energy_measure.results.batch.checking import CODES, StoreFinding, check_store, remove_leftovers
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.samples import encode_samples
from llm_energy_measure.storage import temporary
from tests.support import factories
from tests.support.children import open_folder, outcome_in_child
from tests.support.command import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["open_folder"]  # a fixture

EXP = factories.EXPERIMENT
RAW = codec.encode_raw(factories.raw())
UNUSED_PID = 2**22 + 1  # above the maximum pid of Linux
OTHER = "00000000"


def leftover(name: str, *, host: str | None = None, boot: str | None = None, pid: int = UNUSED_PID) -> str:
    """Return the name of an unfinished file, by default of an ended process of this boot."""
    here, now = temporary._machine()
    return f".{name}~{host or here}-{boot or now}-{pid}-0123abcd"


def plant(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    """Return a directory without findings: one aggregated experiment of two processes."""
    repository = FileSystemRepository(tmp_path / "results")
    for record in factories.raws(2):
        repository.save_raw(EXP, record)
    assert [outcome.result for outcome in aggregate_all(repository)] == ["aggregated"]
    return repository


def raw_file(repository: FileSystemRepository, name: str = "process_2.json", data: bytes = b"") -> str:
    """Write a file into the folder of the experiment, and return its key."""
    plant(repository.base_path / "raw" / EXP / name, data)
    return f"raw/{EXP}/{name}"


def found(repository: FileSystemRepository, *ids: str) -> list[tuple[str, str]]:
    return [(finding.code, finding.key) for finding in check_store(repository, ids or None)]


def changed(**changes: object) -> bytes:
    return factories.as_bytes({**factories.document(factories.raw(process_index=2)), **changes})


def torn(repository: FileSystemRepository) -> str:
    return raw_file(repository, data=RAW[:-20])


def torn_inside_a_letter(repository: FileSystemRepository) -> str:
    return raw_file(repository, data=b'{"model_name": "m\xc3')


def overwritten_in_part(repository: FileSystemRepository) -> str:
    return raw_file(repository, data=RAW.replace(b"pytorch", b"py\xff\xfech"))


def empty(repository: FileSystemRepository) -> str:
    return raw_file(repository, data=b"")


def invalid(repository: FileSystemRepository) -> str:
    return raw_file(repository, data=changed(model_name=7))


def other_experiment(repository: FileSystemRepository) -> str:
    return raw_file(repository, data=changed(experiment_id="other"))


def other_process(repository: FileSystemRepository) -> str:
    return raw_file(repository, data=changed(process_index=3))


def not_a_file(repository: FileSystemRepository) -> str:
    key = raw_file(repository, "target.txt", RAW)
    (repository.base_path / "raw" / EXP / "process_2.json").symlink_to("target.txt")
    return key.replace("target.txt", "process_2.json")


def linked_experiment(repository: FileSystemRepository) -> str:
    """The user moved the experiment to another disk. No list contains it any more."""
    (repository.base_path.parent / "other disk").mkdir()
    (repository.base_path / "raw" / "moved").symlink_to(repository.base_path.parent / "other disk")
    return "raw/moved"


def misnamed(repository: FileSystemRepository) -> str:
    return raw_file(repository, "process_02.json", RAW)


def rejected(repository: FileSystemRepository) -> str:
    with pytest.raises(ResultsError) as refused:
        repository.save_raw(EXP, factories.raw(gpu_name="another"))
    assert (repository.base_path / "raw" / EXP / "rejected-process_0-1.json.kept") == getattr(
        refused.value, "kept", None
    )
    return f"raw/{EXP}/rejected-process_0-1.json.kept"


def superseded(repository: FileSystemRepository) -> str:
    repository.save_raw(EXP, factories.raw(gpu_name="another"), overwrite=True)
    list(aggregate_all(repository))
    return f"raw/{EXP}/superseded-process_0-1.json.kept"


def earlier_attempt(repository: FileSystemRepository) -> str:
    repository.begin_experiment(Manifest(experiment_id="again"))
    repository.begin_experiment(Manifest(experiment_id="again", attempt=1))
    return "raw/.again~attempt-0"


def partial(repository: FileSystemRepository) -> str:
    return raw_file(repository, "partial-process_2.json", RAW)


def unpublished(repository: FileSystemRepository) -> str:
    return raw_file(repository, leftover("process_2.json"), codec.encode_raw(factories.raw(process_index=2)))


def id_conflict(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "raw" / "a_b" / "process_0.json", codec.encode_raw(factories.raw("a/b")))
    plant(repository.base_path / "raw" / "a_b" / "process_1.json", codec.encode_raw(factories.raw("a_b", 1)))
    return "raw/a_b"


def id_conflict_with_a_manifest(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "raw" / "a_b" / "process_1.json", codec.encode_raw(factories.raw("a_b", 1)))
    plant(repository.base_path / "raw" / "a_b" / "manifest.json", codec.encode_manifest(Manifest(experiment_id="a/b")))
    return "raw/a_b"


def manifest_unreadable(repository: FileSystemRepository) -> str:
    return raw_file(repository, "manifest.json", b"{")


def manifest_other(repository: FileSystemRepository) -> str:
    return raw_file(repository, "manifest.json", codec.encode_manifest(Manifest(experiment_id="other")))


def experiment_misnamed(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "raw" / "not an id" / "process_0.json", RAW)
    return "raw/not an id"


def aggregate_stale(repository: FileSystemRepository) -> str:
    repository.save_raw(EXP, factories.raw(process_index=2))
    return f"aggregated/{EXP}.json"


def aggregate_unreadable(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "aggregated" / f"{EXP}.json", b"[]")
    return f"aggregated/{EXP}.json"


def aggregate_altered(repository: FileSystemRepository) -> str:
    list(aggregate_all(repository, [EXP], strict=False))
    path = repository.base_path / "aggregated" / f"{EXP}.json"
    path.write_bytes(path.read_bytes().replace(b'"total_tokens": ', b'"total_tokens": 1', 1))
    return f"aggregated/{EXP}.json"


def aggregate_of_another(repository: FileSystemRepository) -> str:
    data = codec.encode_aggregated(aggregate_results("other", [factories.raw("other")]))
    plant(repository.base_path / "aggregated" / f"{EXP}.json", data)
    return f"aggregated/{EXP}.json"


def aggregate_superseded(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "aggregated" / f"superseded-{EXP}-1.json.kept", b"{}")
    return f"aggregated/superseded-{EXP}-1.json.kept"


def leftover_file(repository: FileSystemRepository) -> str:
    return raw_file(repository, leftover("process_2.json"), RAW[:100])


def leftover_of_another_boot(repository: FileSystemRepository) -> str:
    key = raw_file(repository, leftover("process_2.json", boot=OTHER, pid=os.getpid()), RAW[:100])
    os.utime(repository.base_path / key, (1, 1))
    return key


def in_use_by_another_container(repository: FileSystemRepository) -> str:
    """The writer is of another boot id (a container of this host), and the file is newer than this boot."""
    return raw_file(repository, leftover("process_2.json", boot=OTHER), b"")


def unpublished_by_another_host(repository: FileSystemRepository) -> str:
    return raw_file(repository, leftover("process_2.json", host=OTHER), changed())


def leftover_copy(repository: FileSystemRepository) -> str:
    data = (repository.base_path / "raw" / EXP / "process_1.json").read_bytes()
    return raw_file(repository, leftover("process_1.json"), data)


def leftover_aggregate(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "aggregated" / leftover(f"{EXP}.json"), b"{")
    return f"aggregated/{leftover(f'{EXP}.json')}"


def leftover_folder(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "raw" / leftover("gone") / "process_0.json", RAW)
    return f"raw/{leftover('gone')}"


def in_use(repository: FileSystemRepository) -> str:
    return raw_file(repository, leftover("process_2.json", pid=os.getpid()), b"")


def in_use_by_another_host(repository: FileSystemRepository) -> str:
    return raw_file(repository, leftover("process_2.json", host=OTHER), b"")


def folder_in_use(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "raw" / leftover("gone", pid=os.getpid()) / "process_0.json", RAW)
    return f"raw/{leftover('gone', pid=os.getpid())}"


def rejected_but_unpublished(repository: FileSystemRepository) -> str:
    """The writer was killed before it renamed the complete file of a rejected record."""
    return raw_file(repository, leftover("rejected-process_0-1.json.kept"), b'{"rejected": [], "record": {}}')


def newer_but_unpublished(repository: FileSystemRepository) -> str:
    return raw_file(repository, leftover("process_2.json"), changed(schema_version="9.0.0"))


def unreadable_but_whole(repository: FileSystemRepository) -> str:
    """An overwrite was stopped before it kept the replaced file, which is complete JSON but not a record."""
    return raw_file(repository, leftover("process_2.json"), b"\xef\xbb\xbf" + changed(model_name=7))


def stranger_as_attempt(repository: FileSystemRepository) -> str:
    path = repository.base_path / "raw" / f".{EXP}~attempt-0"
    path.symlink_to("nowhere")
    return f"raw/{path.name}"


def tags_are_no_folder(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "tags")
    return "tags"


def aggregate_misnamed(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "aggregated" / "my exp.json")
    return "aggregated/my exp.json"


def tags_unreadable(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "tags" / f"{EXP}.json", b"{")
    return f"tags/{EXP}.json"


def linked_dataset(repository: FileSystemRepository) -> str:
    (repository.base_path / "dataset").symlink_to("nowhere")
    return "dataset"


def result_outside(repository: FileSystemRepository) -> str:
    plant(repository.base_path / "raw" / "process_0.json", codec.encode_raw(factories.raw()))
    return "raw/process_0.json"


def samples_alone(repository: FileSystemRepository) -> str:
    return raw_file(repository, "samples-process_2.csv.gz", encode_samples([]))


def samples_damaged(repository: FileSystemRepository) -> str:
    return raw_file(repository, "samples-process_0.csv.gz", encode_samples([])[:-4])


STATES: list[tuple[str, Callable[[FileSystemRepository], str]]] = [
    ("raw.torn", torn),
    ("raw.torn", torn_inside_a_letter),
    ("raw.torn", overwritten_in_part),
    ("raw.empty", empty),
    ("raw.invalid", invalid),
    ("raw.other_experiment", other_experiment),
    ("raw.other_process", other_process),
    ("raw.not_a_file", not_a_file),
    ("raw.not_a_file", linked_experiment),
    ("raw.misnamed", misnamed),
    ("raw.misnamed", result_outside),
    ("folder.unreadable", stranger_as_attempt),
    ("folder.unreadable", tags_are_no_folder),
    ("aggregate.misnamed", aggregate_misnamed),
    ("tags.unreadable", tags_unreadable),
    ("entry.unsafe", linked_dataset),
    ("raw.rejected", rejected),
    ("raw.superseded", superseded),
    ("raw.earlier_attempt", earlier_attempt),
    ("raw.partial", partial),
    ("raw.samples_alone", samples_alone),
    ("raw.samples_damaged", samples_damaged),
    ("raw.unpublished", unpublished),
    ("raw.unpublished", unpublished_by_another_host),
    ("raw.unpublished", rejected_but_unpublished),
    ("raw.unpublished", newer_but_unpublished),
    ("raw.unpublished", unreadable_but_whole),
    ("raw.id_conflict", id_conflict),
    ("raw.id_conflict", id_conflict_with_a_manifest),
    ("manifest.unreadable", manifest_unreadable),
    ("manifest.other_experiment", manifest_other),
    ("experiment.misnamed", experiment_misnamed),
    ("aggregate.stale", aggregate_stale),
    ("aggregate.altered", aggregate_altered),
    ("aggregate.unreadable", aggregate_unreadable),
    ("aggregate.unreadable", aggregate_of_another),
    ("aggregate.superseded", aggregate_superseded),
    ("leftover.file", leftover_file),
    ("leftover.file", leftover_of_another_boot),
    ("leftover.file", leftover_copy),
    ("leftover.file", leftover_aggregate),
    ("leftover.folder", leftover_folder),
    ("leftover.in_use", in_use),
    ("leftover.in_use", in_use_by_another_host),
    ("leftover.in_use", in_use_by_another_container),
    ("leftover.in_use", folder_in_use),
]
NEED_NO_DECISION = {
    *("raw.superseded", "raw.earlier_attempt", "raw.partial", "aggregate.stale", "aggregate.superseded"),
    *("leftover.file", "leftover.folder", "leftover.in_use", "raw.samples_alone", "raw.samples_damaged"),
}


def only_finding(repository: FileSystemRepository, code: str, key: str) -> StoreFinding:
    """Return the only finding. A stale aggregate is accepted too, because a new raw file makes it stale."""
    findings = list(check_store(repository))
    assert {(one.code, one.key) for one in findings} - {("aggregate.stale", f"aggregated/{EXP}.json")} <= {(code, key)}
    (finding,) = (one for one in findings if one.code == code)
    assert finding.key == key
    return finding


@pytest.mark.parametrize(("code", "make"), STATES, ids=[make.__name__ for _, make in STATES])
def test_each_state_has_its_code_and_advice(
    repository: FileSystemRepository, code: str, make: Callable[[FileSystemRepository], str]
) -> None:
    finding = only_finding(repository, code, make(repository))
    assert finding.message
    assert finding.advice
    assert finding.needs_decision is (code not in NEED_NO_DECISION)
    assert finding.is_removable is (code in ("leftover.file", "leftover.folder"))


def test_each_code_has_a_state_here() -> None:
    elsewhere = {"raw.unreadable", "raw.shared_sensor"}  # in a child; tests/unit/test_concurrency.py
    assert {code for code, _ in STATES} | elsewhere == set(CODES)
    assert all(CODES.values())
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", code) for code in CODES)


def test_file_without_read_permission_is_unreadable(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder / "results")
    path = repository.save_raw(EXP, factories.raw())
    path.chmod(0)
    key = f"raw/{EXP}/process_0.json"
    assert outcome_in_child(lambda: found(repository), unprivileged=True) == [("raw.unreadable", key)]
    path.chmod(0o644)
    path.parent.chmod(0)
    outcome = outcome_in_child(lambda: found(repository), unprivileged=True)
    path.parent.chmod(0o755)
    assert outcome == [("raw.unreadable", f"raw/{EXP}")]


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_entry_that_is_no_file_is_reported(repository: FileSystemRepository, kind: str) -> None:
    path = repository.base_path / "raw" / EXP / "process_2.json"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    assert only_finding(repository, "raw.not_a_file", f"raw/{EXP}/process_2.json").needs_decision


def test_byte_order_mark_does_not_make_a_record_torn(repository: FileSystemRepository) -> None:
    only_finding(repository, "raw.invalid", raw_file(repository, data=b"\xef\xbb\xbf" + changed(model_name=7)))


def test_clean_store_has_no_finding(repository: FileSystemRepository, tmp_path: Path) -> None:
    assert found(repository) == []
    repository.begin_experiment(Manifest(experiment_id="a/b", expected_processes=1))
    repository.save_raw("a/b", factories.raw("a/b"))
    assert found(repository) == []
    assert found(FileSystemRepository(tmp_path / "absent")) == []


def test_unrelated_files_give_no_finding(repository: FileSystemRepository) -> None:
    for name in (".completed_0", "notes.txt", "claim-rapl.json"):
        raw_file(repository, name, b"junk")
    plant(repository.base_path / "raw" / "notes.txt")
    plant(repository.base_path / "raw" / "not an id" / "notes.txt")
    plant(repository.base_path / "aggregated" / "notes.txt")
    assert found(repository) == []


def test_experiment_is_checked_by_id_or_folder_name(repository: FileSystemRepository) -> None:
    key = torn(repository)
    id_conflict(repository)
    leftover_folder(repository)
    stale = ("aggregate.stale", f"aggregated/{EXP}.json")
    assert found(repository, EXP) == [("raw.torn", key), stale]
    assert found(repository, "a/b") == found(repository, "a_b") == [("raw.id_conflict", "raw/a_b")]
    assert found(repository, "unknown") == []


def test_rejected_record_without_a_valid_id_is_found(repository: FileSystemRepository) -> None:
    with pytest.raises(ResultsError):
        repository.save_raw("..", factories.raw(".."))
    assert found(repository) == [("raw.rejected", "raw/_unnamed/rejected-process_0-1.json.kept")]


def test_check_changes_nothing(repository: FileSystemRepository) -> None:
    for make in (rejected, superseded, torn, unpublished, leftover_file, leftover_folder, in_use, aggregate_unreadable):
        make(repository)
    before = snapshot(repository.base_path)
    assert found(repository)
    assert snapshot(repository.base_path) == before


# Leftovers


def snapshot(base: Path) -> dict[str, bytes]:
    return {str(path.relative_to(base)): path.read_bytes() for path in sorted(base.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("code", "make"), STATES, ids=[make.__name__ for _, make in STATES])
def test_clean_removes_only_leftovers(
    repository: FileSystemRepository, code: str, make: Callable[[FileSystemRepository], str]
) -> None:
    before = snapshot(repository.base_path)
    key = make(repository)
    full = snapshot(repository.base_path)
    removed = remove_leftovers(repository, check_store(repository))
    if code in ("leftover.file", "leftover.folder"):
        assert removed == [key]
        assert snapshot(repository.base_path) == before
        assert found(repository) == []
    else:
        assert removed == []
        assert snapshot(repository.base_path) == full


def test_second_clean_removes_nothing(repository: FileSystemRepository) -> None:
    leftover_file(repository)
    leftover_folder(repository)
    findings = list(check_store(repository))
    assert len(remove_leftovers(repository, findings)) == 2
    assert remove_leftovers(repository, findings) == []


def test_copy_is_a_leftover_only_while_the_original_exists(repository: FileSystemRepository) -> None:
    key = leftover_copy(repository)
    (repository.base_path / "raw" / EXP / "process_1.json").unlink()
    only_finding(repository, "raw.unpublished", key)


def visible(repository: FileSystemRepository) -> object:
    """Return all values that a reader can load from the directory."""
    experiments = repository.list_experiments()
    return (
        experiments,
        {name: [path.read_bytes() for path in repository.list_raw(name)] for name in experiments},
        {name: repository.recover_raw(name) for name in experiments},
        {name: repository.read_aggregated(name) for name in repository.list_aggregated()},
    )


NAMES = st.sampled_from(
    ["process_0.json", "process_2.json", "rejected-process_0-1.json.kept", "manifest.json", "x.json"]
)
HIDDEN = st.builds(
    lambda name, host, boot, pid: leftover(name, host=host, boot=boot, pid=pid),
    NAMES,
    st.sampled_from([None, OTHER]),
    st.sampled_from([None, OTHER]),
    st.sampled_from([os.getpid(), UNUSED_PID]),
)
CONTENTS = st.sampled_from([b"", RAW, RAW[:-1], RAW[:60], b"{}", b"null", changed(), b'{"rejected": []}'])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(files=st.dictionaries(NAMES | HIDDEN, CONTENTS, max_size=6))
def test_clean_keeps_visible_results_and_the_only_complete_copy(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    repository = FileSystemRepository(tmp_path_factory.mktemp("removed"))
    for name, data in files.items():
        plant(repository.base_path / "raw" / EXP / name, data)
        plant(repository.base_path / "aggregated" / name, data)
    before = visible(repository)
    removed = remove_leftovers(repository, check_store(repository))
    assert visible(repository) == before
    left = snapshot(repository.base_path / "raw").values()
    for name, data in files.items():
        kept = (repository.base_path / "raw" / EXP / name).exists()
        assert kept or (name.startswith(".") and OTHER not in name.split("~")[1].split("-")[0])
        assert kept or data in left or not is_whole(data) or "manifest" in name or name.startswith(".x")
    assert all("/." in key for key in removed)


def test_clean_keeps_a_result_whose_copy_has_the_name_of_another_process(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    for name in ("process_0.json", leftover("process_2.json")):
        plant(repository.base_path / "raw" / EXP / name, changed(process_index=2))
    assert remove_leftovers(repository, check_store(repository)) == []
    assert [record.process_index for record in repository.recover_raw(EXP).unpublished] == [2]


def is_whole(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except msgspec.DecodeError:
        return False
    return True


# The command


def test_check_prints_findings_and_fails_only_if_one_needs_a_decision(repository: FileSystemRepository) -> None:
    base = repository.base_path
    clean = run("-o", base, "results", "check")
    assert (clean.status, clean.out) == (0, "")
    assert clean.err == "0 findings, 0 of them need a decision\n"
    removed = leftover_file(repository)
    done = run("-o", base, "results", "check")
    assert done.status == 0
    assert done.out.startswith(f"leftover.file  {removed}: ")
    key = torn(repository)
    done = run("results", "check", EXP, "-o", base)
    assert done.status == 1
    assert f"raw.torn  {key}: " in done.out
    assert done.err.endswith("3 findings, 1 of them need a decision\n")


def test_json_of_the_command_has_every_part(repository: FileSystemRepository) -> None:
    key = torn(repository)
    done = run("-o", repository.base_path, "results", "check", "--json")
    assert done.status == 1
    first = done.json()[0]
    assert (first["code"], first["key"], first["needs_person"], first["sweepable"]) == ("raw.torn", key, True, False)
    assert first["message"]
    assert first["advice"]
    assert run("-o", repository.base_path, "results", "check", "--json", "zzz").out == ""


@pytest.mark.parametrize("option", ["--clean", "--sweep"])
def test_command_removes_leftover_files(repository: FileSystemRepository, option: str) -> None:
    key = leftover_file(repository)
    done = run("-o", repository.base_path, "results", "check", option)
    assert (done.status, done.out) == (0, "")
    assert f"removed {key}\n" in done.err
    assert ("--sweep has a new name: use --clean" in done.err) is (option == "--sweep")
    assert not (repository.base_path / key).exists()


def test_command_refuses_an_unknown_experiment(repository: FileSystemRepository) -> None:
    done = run("-o", repository.base_path, "results", "check", "exp_8")
    assert done.status == 1
    assert "experiment 'exp_8' not found" in done.err
    assert "did you mean exp_7?" in done.err


def test_file_name_is_escaped_on_the_terminal(repository: FileSystemRepository) -> None:
    name = "process_\x1b[31mred\n\u202efake.json"
    raw_file(repository, name, RAW)
    plant(repository.base_path / "raw" / "x\x1b]0;t\x07" / "process_0.json", RAW)
    for arguments in ([], ["--json"]):
        done = run("-o", repository.base_path, "results", "check", *arguments)
        assert done.status == 1
        for mark in ("\x1b", "\u202e", "\x07", "\nfake"):
            assert mark not in done.out + done.err
    assert {finding["key"] for finding in json.loads(done.out)} == {f"raw/{EXP}/{name}", "raw/x\x1b]0;t\x07"}


def test_advice_for_a_stale_aggregate_without_results_is_to_keep_it(
    repository: FileSystemRepository,
) -> None:
    repository.save_raw(EXP, factories.raw())
    repository.save_aggregated(aggregate_results(EXP, repository.load_all_raw(EXP)))
    for path in repository.list_raw(EXP):
        path.unlink()
    [finding] = [found for found in check_store(repository) if found.code == "aggregate.stale"]
    assert finding.advice == f"keep the aggregate without raw files, or run 'llm-energy-measure results delete {EXP}'"


@pytest.mark.parametrize("state", [stranger_as_attempt, tags_are_no_folder])
def test_unreadable_folder_hides_no_other_folder(
    repository: FileSystemRepository, state: Callable[[FileSystemRepository], str]
) -> None:
    state(repository)
    torn_key = torn(repository)
    assert {finding.key for finding in check_store(repository)} >= {torn_key}


@pytest.mark.skipif(os.name == "nt", reason="names there are text")
def test_names_that_are_not_utf_8_are_reported_in_json_too(repository: FileSystemRepository) -> None:
    folder = os.fsencode(repository.base_path / "raw" / EXP)
    with open(folder + b"/process_\xff.json", "wb"):  # noqa: PTH123 - the name is bytes
        pass
    done = run("-o", repository.base_path, "results", "check", "--json")
    assert done.status == 1
    assert done.json()[0]["key"] == f"raw/{EXP}/process_\\xff.json"


def test_leftover_that_clean_cannot_remove_needs_a_decision(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder)
    repository.save_raw(EXP, factories.raw())
    folder = open_folder / "raw" / EXP
    folder.rename(folder.with_name(f".{EXP}~deleted"))
    (open_folder / "raw").chmod(0o555)

    def check(*options: str) -> int:
        return run("-o", open_folder, "results", "check", *options).status

    assert outcome_in_child(lambda: [check(), check("--clean")], unprivileged=True) == [0, 1]
    (open_folder / "raw").chmod(0o755)
    assert check("--clean") == 0
    assert list((open_folder / "raw").iterdir()) == []
