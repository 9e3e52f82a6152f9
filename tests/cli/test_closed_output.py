"""A closed or full output, and signals: each command finishes its work, prints one sentence and exits with a status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy_measure.cli.main import bundle as bundle_command
from llm_energy_measure.cli.main import cli
from llm_energy_measure.cli.main import results as results_command
from llm_energy_measure.cli.streams import FINISHES_WORK
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.store.codec import encode_raw
from tests.support import factories
from tests.support.command import MODULE, PATIENCE_SEC, run

ONLY_PRINT = {
    "configs",
    "doctor",
    "order",
    "results",
    "schema",
    "list",
    "show",
    "repeats",
    "report",
    "plot",
    "export",
    "sql",
}
PENDING = ("mistral", "llama_c3", "llama_c4")


@pytest.fixture
def pending(results: Path) -> Path:
    """Return results of which three complete experiments are not aggregated."""
    repository = FileSystemRepository(results)
    repository.delete_experiment("torn")
    for name in PENDING[1:]:
        repository.save_raw(name, factories.raw(name))
    return results


def into_closed_pipe(*arguments: object) -> tuple[int, str]:
    """Run the command with an stdout that has no reader; return its status and its messages."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*MODULE, *map(str, arguments)],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_SEC,
            check=False,
            text=True,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("more", [(), ("--json",), ("--jobs", "2")], ids=str)
def test_aggregate_finishes_after_its_output_is_closed(pending: Path, more: tuple[str, ...]) -> None:
    status, messages = into_closed_pipe("-v", "-o", pending, "aggregate", "--all", *more)
    assert "cannot print all output: the program that read the pipe has exited; the command has finished" in messages
    assert "Traceback" not in messages
    assert status == 128 + signal.SIGPIPE
    assert set(PENDING) <= set(FileSystemRepository(pending).list_aggregated())


def test_a_failure_has_precedence_over_a_closed_output(pending: Path) -> None:
    (pending / "raw" / "mistral" / "process_0.json").write_bytes(b"{")
    status, messages = into_closed_pipe("-v", "-o", pending, "aggregate", "--all")
    assert status == 1
    assert "2 aggregated, 3 skipped, 1 failed" in messages
    assert "cannot print all output" in messages


def test_other_commands_finish_after_their_output_is_closed(pending: Path, tmp_path: Path) -> None:
    (pending / "raw" / ".process_0.json~00000000-00000000-1-00000000").write_bytes(b"")
    description = tmp_path / "power.csv"
    description.write_text("time,power\n")
    other = tmp_path / "other"
    for arguments in (
        ["-o", other, "results", "merge", pending, "-v"],
        ["-o", pending, "results", "tag", "mistral", "paper=fig3"],
        ["-o", pending, "results", "check", "--clean"],
        ["-o", pending, "results", "verify", "--all"],
        ["-o", pending, "results", "delete", "mistral", "--yes"],
    ):
        status, messages = into_closed_pipe(*arguments)
        assert "Traceback" not in messages
        assert status in (0, 1, 128 + signal.SIGPIPE), messages
    left = FileSystemRepository(pending).list_experiments()
    assert FileSystemRepository(other).list_experiments() == [*left, "mistral"]
    assert not FileSystemRepository(pending).has_raw("mistral")


def test_every_command_that_works_finishes_its_work() -> None:
    for group in (cli, results_command, bundle_command):
        for name in group.lazy.keys() - {"bundle"}:
            command = group.get_command(None, name)  # type: ignore[arg-type]  # the context is not used
            assert command is not None
            assert hasattr(command.callback, FINISHES_WORK) == (name not in ONLY_PRINT), name


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_output_is_reported_after_the_work(pending: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*MODULE, "-v", "-o", str(pending), "aggregate", "--all"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"cannot print all output: No space left on device; the command has finished its work" in done.stderr
    assert set(PENDING) <= set(FileSystemRepository(pending).list_aggregated())


def test_work_continues_without_stderr(pending: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        command = [*MODULE, "-v", "-o", str(pending), "aggregate", "--all"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=closed, check=False)
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == len(PENDING)


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated by SIGTERM")]
)
def test_a_signal_gives_one_message_and_its_status(tmp_path: Path, number: signal.Signals, words: str) -> None:
    data = encode_raw(factories.raw("NAME"))
    for index in range(400):
        folder = tmp_path / "raw" / f"exp_{index:03d}"
        folder.mkdir(parents=True)
        (folder / "process_0.json").write_bytes(data.replace(b"NAME", folder.name.encode()))
    command = [*MODULE, "-o", str(tmp_path), "aggregate", "--all", "--jobs", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # wait until the aggregation has started
        process.send_signal(number)
        message = process.communicate(timeout=PATIENCE_SEC)[1].decode()
    finished = process.returncode == 0  # the signal arrived after the work
    assert finished or (message.strip(), process.returncode) == (f"error: {words}; finished work is kept", 128 + number)


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_a_terminal_without_unicode_shows_ascii(results: Path, environment: dict[str, str]) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in {"LC_ALL", "PYTHONIOENCODING"}}
    shown = b""
    for arguments in (
        ["results", "repeats", "--energy", "plain"],
        ["results", "list"],
        ["results", "show", "llama_c0"],
    ):
        command = [*MODULE, "-o", str(results), *arguments]
        shown += subprocess.run(command, env={**kept, **environment}, capture_output=True, check=False).stdout
    assert shown.isascii()
    assert b"\\x" not in shown
    assert b"\\u" not in shown
    assert b" +/- " in shown


def test_columns_of_an_ascii_terminal_are_aligned(results: Path) -> None:
    repository = FileSystemRepository(results)
    repository.save_raw("accents", factories.raw("accents", model_name="modèle…±"))
    run("-o", results, "aggregate", "accents")
    command = [*MODULE, "-o", str(results), "results", "list", "--all"]
    shown = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    lines = shown.stdout.decode("ascii").splitlines()
    [row] = [line for line in lines if line.startswith("accents")]
    assert r"mod\xe8le...+/-" in row
    assert lines[0].index("date") == row.index("2026-01-16")


def test_json_of_an_ascii_terminal_has_the_same_values(results: Path) -> None:
    FileSystemRepository(results).save_raw("accents", factories.raw("accents", model_name="modèle 🦙"))
    command = [*MODULE, "-o", str(results), "results", "show", "accents", "--raw", "--json"]
    shown = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    assert "modèle 🦙" in str(json.loads(shown.stdout))


def test_the_status_of_a_question_that_is_not_answered_is_1(results: Path) -> None:
    done = run("-o", results, "results", "delete", "mistral")
    assert done.status == 1


if sys.platform == "win32":
    pytest.skip("Windows has neither SIGPIPE nor /dev/full", allow_module_level=True)


def test_an_interrupted_merge_can_be_repeated(tmp_path: Path) -> None:
    source = tmp_path / "source"
    data = encode_raw(factories.raw("NAME"))
    for index in range(300):
        folder = source / "raw" / f"exp_{index:03d}"
        folder.mkdir(parents=True)
        (folder / "process_0.json").write_bytes(data.replace(b"NAME", folder.name.encode()))
    words = ["-o", str(tmp_path / "target"), "results", "merge", str(source)]
    with subprocess.Popen([*MODULE, "-v", *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # wait until the first file is copied
        process.send_signal(signal.SIGINT)
        message = process.communicate(timeout=PATIENCE_SEC)[1]
    assert "Traceback" not in message
    assert process.returncode in (0, 130)  # 0 if the signal arrived after the work
    assert run(*words).status == 0
    assert len(FileSystemRepository(tmp_path / "target").list_experiments()) == 300
    assert not list((tmp_path / "target").rglob(".*~*"))
