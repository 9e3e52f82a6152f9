"""Tests with hostile entries in a results directory: no command follows them out of it, blocks, or crashes.

Each command runs in a child process with a time limit. A secret file outside must not be shown, changed or deleted.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.constants import MAX_FILE_BYTES
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store import codec
from tests.support import factories
from tests.support.children import open_folder, outcome_in_child
from tests.support.command import Done, run

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["open_folder"]  # a fixture

EXP = factories.EXPERIMENT
SECRET = b"a secret outside"
PATIENCE_SEC = 120
LIMIT_BYTES = 300 * 2**20  # that a child may allocate in addition to the memory of its parent


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "process_1.json")


def link_up(path: Path, _outside: Path) -> None:
    path.symlink_to("../../../outside/process_1.json")


def dangling_link(path: Path, _outside: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path, _outside: Path) -> None:
    path.symlink_to(path.name)


def link_to_a_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside, target_is_directory=True)


def link_to_a_device(path: Path, _outside: Path) -> None:
    path.symlink_to("/dev/zero")


def hard_link(path: Path, outside: Path) -> None:
    path.hardlink_to(outside / "process_1.json")


def fifo(path: Path, _outside: Path) -> None:
    os.mkfifo(path)


def device(path: Path, _outside: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero has no end
    except PermissionError:
        pytest.skip("needs the privilege to create a device")


def unix_socket(path: Path, _outside: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def folder(path: Path, _outside: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "process_0.json").write_bytes(b"junk")


def sparse(path: Path, _outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**43)


def almost_too_large(path: Path, _outside: Path) -> None:
    with path.open("wb") as file:
        file.write(b'{"a": "')
        file.truncate(MAX_FILE_BYTES + 1)


def brackets(path: Path, _outside: Path) -> None:
    path.write_bytes(b"[" * 3_000_000)


def quotes(path: Path, _outside: Path) -> None:
    path.write_bytes(b'"' * 1_000_001)


def backslashes(path: Path, _outside: Path) -> None:
    path.write_bytes(b'{"a": "' + b"\\" * 1_000_001)


def digits(path: Path, _outside: Path) -> None:
    path.write_bytes(b'{"process_index": ' + b"9" * 1_000_000 + b"}")


KINDS = [
    *(link, link_up, dangling_link, link_to_itself, link_to_a_folder, link_to_a_device, hard_link),
    *(fifo, device, unix_socket, folder, sparse, almost_too_large, brackets, quotes, backslashes, digits),
]
PLACES = [f"raw/{EXP}/process_1.json", f"raw/{EXP}/manifest.json", f"aggregated/{EXP}.json", f"tags/{EXP}.json"]
HIDDEN = ".process_5.json~00000000-00000000-1-0123abcd"
PLACES += [f"raw/{EXP}/{HIDDEN}", f"raw/{EXP}/rejected-process_0-1.json.kept"]


def make_store(base: Path) -> tuple[Path, Path]:
    """Create a results directory with two experiments, and a folder outside with the same file names."""
    outside, results = base / "outside", base / "results"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(SECRET)
    # The files outside are valid results: a command that followed a link would show them.
    spy = factories.raw(process_index=1, model_name="outside-model")
    (outside / "process_1.json").write_bytes(codec.encode_raw(spy))
    (outside / "process_0.json").write_bytes(codec.encode_raw(factories.raw(model_name="outside-model")))
    repository = FileSystemRepository(results)
    repository.save_raw(EXP, factories.raw())
    repository.save_raw("clean", factories.raw("clean"))
    (results / "aggregated").mkdir()
    (results / "tags").mkdir()
    return results, outside


def contents(outside: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mode) for path in outside.iterdir()}


def commands(results: Path) -> list[list[object]]:
    target = results.parent / "merged"
    return [
        ["-o", results, "results", "list", "--all"],
        ["-o", results, "results", "show", EXP],
        ["-o", results, "results", "show", EXP, "--raw"],
        ["-o", results, "results", "repeats"],
        ["-o", results, "results", "check"],
        ["-o", results, "results", "check", "--clean", "--salvage"],
        ["-o", results, "aggregate", "--all", "--no-strict"],
        ["-o", results, "results", "export", "--to", "-"],
        ["-o", target, "results", "merge", results],
        ["-o", results, "results", "merge", target],
        ["-o", results, "results", "delete", EXP, "--yes"],
        ["-o", results, "results", "check"],
    ]


def run_all(results: Path) -> list[tuple[list[object], Done]]:
    import resource
    import signal

    statm = Path("/proc/self/statm")
    if statm.exists():  # on Linux, where the kernel enforces the limit
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, used + LIMIT_BYTES))
    signal.alarm(PATIENCE_SEC)  # the signal ends the child, and the parent gets EOFError
    return [(arguments, run(*arguments)) for arguments in commands(results)]


def require_no_crash_and_no_secret(done: list[tuple[list[object], Done]]) -> None:
    for arguments, (status, out, err) in done:
        assert status in (0, 1), (arguments, err)
        assert "this is a bug" not in err, (arguments, err)
        assert "Traceback" not in err, (arguments, err)
        assert SECRET.decode() not in out + err, arguments


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_command_follows_a_hostile_file_blocks_or_crashes(
    tmp_path: Path, place: str, kind: Callable[[Path, Path], None]
) -> None:
    results, outside = make_store(tmp_path)
    (results / place).unlink(missing_ok=True)
    kind(results / place, outside)
    before = contents(outside)
    done = outcome_in_child(lambda: run_all(results))
    assert isinstance(done, list), done
    require_no_crash_and_no_secret(done)
    assert contents(outside) == before
    if kind is not hard_link:  # a hard link does not differ from any other name of the file
        assert not any("outside-model" in said.out for _, said in done)
    # Each list shows the other experiment, and the merge copies it.
    assert all("clean" in said.out for arguments, said in done if "list" in arguments)
    assert (tmp_path / "merged" / "raw" / "clean" / "process_0.json").is_file()


@pytest.mark.parametrize("place", [f"raw/{EXP}", "raw", "aggregated", "tags"])
@pytest.mark.parametrize("kind", [link_to_a_folder, link_to_itself, dangling_link, fifo, unix_socket, sparse])
def test_no_command_follows_a_hostile_entry_in_place_of_a_folder(
    tmp_path: Path, place: str, kind: Callable[[Path, Path], None]
) -> None:
    results, outside = make_store(tmp_path)
    (results / place).rename(tmp_path / "away")
    kind(results / place, outside)
    before = contents(outside)
    done = outcome_in_child(lambda: run_all(results))
    assert isinstance(done, list), done
    require_no_crash_and_no_secret(done)
    assert contents(outside) == before
    assert not any("outside-model" in said.out for _, said in done)


def test_save_aggregate_and_delete_follow_no_link(tmp_path: Path) -> None:
    results, outside = make_store(tmp_path)
    repository = FileSystemRepository(results)
    before = contents(outside)
    (results / "raw" / "linked").symlink_to(outside)
    (results / "raw" / EXP / "process_1.json").symlink_to(outside / "process_1.json")
    (results / "aggregated" / "clean.json").symlink_to(outside / "process_1.json")
    (results / "raw" / EXP / "process_2.json").hardlink_to(outside / "process_1.json")
    repository.save_raw(EXP, factories.raw(process_index=2), overwrite=True)
    for work in (
        lambda: repository.save_raw("linked", factories.raw("linked")),
        lambda: repository.save_raw("linked", factories.raw("linked"), overwrite=True),
        lambda: repository.save_raw(EXP, factories.raw(process_index=1)),
        lambda: repository.save_raw(EXP, factories.raw(process_index=1), overwrite=True),
        lambda: list(aggregate_all(repository, force=True)),
        lambda: repository.delete_experiment("linked"),
        lambda: repository.delete_experiment(EXP),
    ):
        try:
            work()
        except OSError:
            continue
        except ValueError as refused:
            assert "symbolic link" in str(refused) or "can't be read" in str(refused)  # noqa: PT017 - some succeed
    assert contents(outside) == before


def test_no_command_crashes_at_a_folder_without_permissions(open_folder: Path, tmp_path: Path) -> None:
    for arguments in commands(make_store(tmp_path)[0]):
        run(*arguments)  # imports all modules now: the unprivileged child may not be able to read them
    results, _ = make_store(open_folder)
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (results / "raw" / EXP).chmod(0)
    done = outcome_in_child(lambda: run_all(results), unprivileged=True)
    assert isinstance(done, list), done
    (results / "raw" / EXP).chmod(0o755)
    require_no_crash_and_no_secret(done)
    assert (results / "raw" / EXP / "process_0.json").is_file()
