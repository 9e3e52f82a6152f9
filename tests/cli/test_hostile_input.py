"""Hostile files: one sentence per problem, the right exit status, and no escape sequence in the output."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
from tests.support.children import open_folder, outcome_in_child
from tests.support.command import Done, as_process, on_terminal, run

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["open_folder"]  # a fixture

# Escape sequences, characters that reorder or hide text, markup and emoji of rich, and a forged line.
EVIL = (
    "\x1b[31mred \x1b]0;title\x07 \x1b]8;;http://evil/\x1b\\link \x9b2J \x90q \x85 \r\x08\x7f\x00"
    " [bold]b[/bold] [red on white]x[/] :boom: \u202eesrever \u2066\u200b\ufeff\u2028"
    "\nerror: forged line\n\t%s {0} $(id)"
)
FORBIDDEN = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))] + list(
    "\u202e\u2066\u200b\u2028\ufeff"
)


def require_plain(done: Done) -> None:
    """Require output without characters that move the cursor, hide or reorder text, or forge a line."""
    shown = done.shown
    assert [hex(ord(char)) for char in FORBIDDEN if char in shown] == []
    assert "\nerror: forged" not in shown
    assert "Traceback" not in shown
    assert "this is a bug" not in shown


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Experiments in which all texts are hostile: ids, models, hosts, warnings, configuration, unknown fields, keys."""
    repository = FileSystemRepository(tmp_path / "evil")
    texts = {
        "model_name": EVIL,
        "config_name": EVIL,
        "backend": EVIL,
        "backend_version": EVIL,
        "gpu_name": EVIL,
        "host": EVIL,
        "gpu_uuid": "same" + EVIL,
        "energy_measurement_warning": EVIL,
        "config_warnings": [EVIL],
        "effective_config": {EVIL: EVIL, "cycle_id": 1},
        "cli_overrides": {EVIL: [EVIL]},
        "unknown_fields": {"/" + EVIL.replace("~", "~0").replace("/", "~1"): {EVIL: EVIL}},
    }
    for cycle in range(2):
        name = f"evil{EVIL[:40]}_c{cycle}"
        for process in range(2):
            repository.save_raw(name, factories.raw(name, process, **texts))
    folder = tmp_path / "evil" / "raw" / "torn"
    folder.mkdir()
    document = factories.document(factories.raw("torn"))
    (folder / "process_0.json").write_text(json.dumps({**document, "gpu_id": EVIL}))
    (folder / "process_1.json").write_text(json.dumps({**document, "experiment_id": EVIL}))
    (folder / "process_2.json").write_text(json.dumps({**document, "schema_version": EVIL}))
    (folder / "process_3.json").write_text(f'{{"{EVIL}": 1, "{EVIL}": 2}}')
    (folder / "process_4.json").write_text(f'["{EVIL}"')
    return tmp_path / "evil"


COMMANDS = [
    "-v aggregate --all",
    "aggregate --all --force --json",
    "results list --all",
    "results list --all --json",
    "results show {name}",
    "results show {name} --raw",
    "results show {name} --json",
    "results show {name} --raw --json",
    "results show torn",
    "results configs --all-keys",
    "results configs --all-keys --json",
    "results list --columns id,model,hosts",
    "results repeats",
    "results repeats --json",
    "results export --to -",
    "results export --to - --per-process",
    "results export --to - --format json",
    "results export --to - --raw",
    "results show zzz",
    "results delete {name} --yes",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_text_of_files_is_escaped_in_a_pipe(evil: Path, command: str) -> None:
    run("-o", evil, "aggregate", "--all")
    name = FileSystemRepository(evil).list_aggregated()[0]
    done = run("-o", evil, *command.format(name=name).split())
    assert "\x1b" not in done.out + done.err
    if "export" in command and "json" not in command:
        # A piped export is data: a line break in a quoted cell is kept, and a byte order mark leads.
        done = done._replace(out=done.out.removeprefix("\ufeff"))
        for mark in "\u202e\u2066\u200b\u2028\ufeff":
            done = done._replace(out=done.out.replace(mark, ""))
        done = done._replace(out=done.out.replace("\nerror: forged", ""))
    elif "--format json" in command:
        for mark in "\u202e\u2066\u200b\u2028\ufeff\x7f\x85\x90\x9b":
            done = done._replace(out=done.out.replace(mark, ""))
    require_plain(done)
    if "json" in command:
        done.json()


@pytest.mark.parametrize(
    "command",
    [
        "results list --all",
        "results show {name}",
        "results show {name} --raw --json",
        "results export --to - --raw",
        "results export --to - --format json",
        "aggregate --all --force",
    ],
)
@pytest.mark.parametrize("columns", [80, 1000])
def test_text_of_files_is_escaped_on_a_terminal(evil: Path, command: str, columns: int) -> None:
    run("-o", evil, "aggregate", "--all")
    name = FileSystemRepository(evil).list_aggregated()[0]
    done = on_terminal("-o", evil, *command.format(name=name).split(), columns=columns)
    if command.endswith("--raw"):
        # A line break inside a quoted cell of a table is data.
        done = done._replace(out=done.out.replace("\nerror: forged", ""))
    require_plain(done)


def test_markup_and_emoji_codes_are_printed_unchanged(evil: Path) -> None:
    run("-o", evil, "aggregate", "--all")
    for done in (run("-o", evil, "results", "list"), on_terminal("-o", evil, "results", "list", columns=2000)):
        assert "[bold]b[/bold] [red on white]x[/] :boom:" in done.shown
        assert r"\x1b[31mred" in done.shown


def test_arguments_are_escaped_in_messages(results: Path) -> None:
    for arguments in (
        ["results", "show", EVIL.replace("\0", "")],
        ["results", "list", "--sort", "\x1b[31m"],
        ["results", "list", "--so\x1b[31mrt"],
        ["\x1b[31m"],
        ["-o", "/nowhere/\x1b[31m", "results", "list"],
        ["results", "export", "--to", "/nowhere\x1b[31m\0/x"],
        ["aggregate", "--all", "--strategy", "\x1b[31m\u202e"],
    ):
        done = run("-o", results, *arguments)
        assert done.status in (1, 2)
        require_plain(done)


# Bad input: one sentence and the exit status; the other files are still processed.

DOCUMENT = factories.document(factories.raw("bad"))
DEEP = b'{"a":' * 200 + b"1" + b"}" * 200


def document(**changes: object) -> bytes:
    return json.dumps({**DOCUMENT, **changes}).encode()


BAD_FILES = {
    "empty": (b"", "the file is empty (0 bytes)"),
    "half": (document()[: len(document()) // 2], "it is not valid JSON"),
    "null": (b"null", "it contains null, not a JSON object"),
    "a list": (b"[1, 2]", "it contains a list, not a JSON object"),
    "not text": (b"\xff\xfe\x00\x01", "it is not valid JSON"),
    "NaN": (document(energy_metrics={**DOCUMENT["energy_metrics"], "total_energy_j": float("nan")}), "NaN"),
    "negative energy": (
        document(energy_metrics={**DOCUMENT["energy_metrics"], "total_energy_j": -5.0}),
        "energy_metrics.total_energy_j: Expected float >= 0.0, found -5.0",
    ),
    "a string for a number": (
        document(energy_metrics={**DOCUMENT["energy_metrics"], "total_energy_j": "5"}),
        "energy_metrics.total_energy_j: Expected float | null, got str, found '5'",
    ),
    "duplicate keys": (document()[:-1] + b', "host": 1, "host": 2}', "the key 'host' occurs twice in one object"),
    "200 levels deep": (DEEP, "it is nested more than 100 levels deep"),
    "a newer version": (document(schema_version="4.0.0"), "schema version '4.0.0' is newer than 2.0.0"),
    "no version": (document(schema_version="new"), "'new' is not a schema version"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_reported_and_others_are_processed(results: Path, case: str) -> None:
    content, reason = BAD_FILES[case]
    FileSystemRepository(results).save_raw("bad", factories.raw("bad", 1))
    (results / "raw" / "bad" / "process_0.json").write_bytes(content)

    for arguments in (["results", "list", "--all"], ["results", "show", "bad"], ["results", "show", "bad", "--raw"]):
        done = run("-o", results, *arguments)
        assert done.status == 1, arguments
        [line] = [line for line in done.err.splitlines() if line.startswith("warning: ")]
        assert line.startswith("warning: bad/process_0.json is unreadable: "), arguments
        assert reason in line
        require_plain(done)
    assert "2221" in run("-o", results, "results", "show", "bad", "--raw").out, "the readable process is shown"

    done = run("-o", results, "aggregate", "bad", "mistral")
    assert done.status == 1
    assert done.out.startswith("mistral: 2 of 2 processes")
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "process_0.json" in line
    assert reason in line
    done = run("-o", results, "aggregate", "bad", "--no-strict")
    assert (done.status, done.out) == (0, "bad: 1 of 2 processes, at least 2.221 kJ, 8,292 tokens\n")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"start": "2026-01-01T10:00:00Z", "end": "2026-01-01T09:00:00Z"}, "is before start"),
        ({"start": "2026-01-01T10:00:00Z", "end": "2026-01-01T11:00:00"}, "only one of start and end has a UTC offset"),
    ],
)
def test_impossible_timestamps_give_a_warning(results: Path, times: dict[str, str], message: str) -> None:
    folder = results / "raw" / "odd"
    folder.mkdir()
    (folder / "process_0.json").write_bytes(document(experiment_id="odd", timestamps={**times, "duration_sec": 1.0}))
    done = run("-o", results, "aggregate", "odd")
    assert done.status == 0
    assert message in done.err
    for command in ("list", "show odd", "show odd --raw", "show odd --json", "repeats", "export odd --to -"):
        done = run("-o", results, "results", *command.split())
        assert done.status == 0, command
        require_plain(done)


def test_naive_and_aware_timestamps_give_a_warning(results: Path) -> None:
    repository = FileSystemRepository(results)
    naive = factories.timestamps(factories.START.replace(tzinfo=None))
    repository.save_raw("zones", factories.raw("zones", 0))
    repository.save_raw("zones", factories.raw("zones", 1, timestamps=naive))
    done = run("-o", results, "aggregate", "zones")
    assert done.status == 0
    assert "some timestamps have a UTC offset and some have none" in done.err
    for key in ("date", "id"):
        done = run("-o", results, "results", "list", "--sort", key)
        assert done.status == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "cannot use the experiment id: '' is empty; use another id"),
        ("  ", "is empty"),
        (".", "consists of dots only"),
        ("..", "consists of dots only"),
        ("/etc/passwd", "experiment '/etc/passwd' not found"),
        ("../../etc/passwd", "not found"),
        ("i" * 300, "has 300 characters; the limit is 200"),
        ("nul\0", "not found"),
        ("\ud800", "not found"),
    ],
)
@pytest.mark.parametrize("command", ["results show", "results delete --yes", "aggregate", "results export --to -"])
def test_an_impossible_id_is_one_error(results: Path, command: str, name: str, message: str) -> None:
    done = run("-o", results, *command.split(), "--", name)
    assert (done.status, done.out) == (1, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    require_plain(done)


@pytest.mark.parametrize("command", ["results list", "results show x", "aggregate --all", "results repeats"])
def test_an_invalid_results_directory_is_one_error(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in [
        ("file", "it is not a directory"),
        ("missing", "the directory does not exist"),
        ("file/below", ""),
        ("loop", ""),
        ("n" * 300, "File name too long"),
    ]:
        done = run("-o", tmp_path / name, *command.split())
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert message in done.err
        assert done.err.count("\n") == 1
        require_plain(done)


@pytest.mark.parametrize("kind", ["raw", "aggregated"])
def test_a_file_instead_of_a_folder_is_one_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / kind).write_text("")
    for command in ("results list --all", "results show x", "aggregate --all"):
        if kind == "aggregated" and command.startswith("aggregate"):
            continue  # nothing is pending, so nothing is read there
        done = run("-o", tmp_path, *command.split())
        assert (done.status, done.out) == (1, "")
        assert "Not a directory" in done.err or "it is a file, not a folder" in done.err
        assert done.err.count("\n") == 1


def test_an_unreadable_folder_hides_no_other_experiment(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder)
    for name in ("good", "locked"):
        repository.save_raw(name, factories.raw(name))
    (open_folder / "raw").chmod(0o777)
    run("-o", open_folder, "results", "list", "--all"), run("-o", open_folder, "aggregate", "nope")  # imports all
    locked = open_folder / "raw" / "locked"
    locked.chmod(0)
    try:
        listed = outcome_in_child(
            lambda: run("-o", open_folder, "results", "list", "--all", "--json"), unprivileged=True
        )
        made = outcome_in_child(lambda: run("-v", "-o", open_folder, "aggregate", "--all"), unprivileged=True)
        shown = outcome_in_child(lambda: run("-o", open_folder, "results", "show", "locked"), unprivileged=True)
    finally:
        locked.chmod(0o777)
    assert isinstance(listed, Done), listed
    assert [(row["experiment_id"], row["status"]) for row in listed.json()] == [
        ("good", "pending"),
        ("locked", "unreadable"),
    ]
    assert listed.status == 1
    assert "Permission denied" in listed.err
    assert isinstance(made, Done), made
    assert made.status == 1
    assert made.out.startswith("good: 1 of 1 processes")
    assert "1 aggregated, 0 skipped, 1 failed" in made.err
    assert isinstance(shown, Done), shown
    assert (shown.status, shown.out) == (1, "")
    assert "Permission denied; check the permissions" in shown.err
    for done in (listed, made, shown):
        require_plain(done)


def test_an_unreadable_results_directory_is_one_error(open_folder: Path) -> None:
    (open_folder / "inner").mkdir()
    for mode, folder in ((open_folder, open_folder), (open_folder, open_folder / "inner")):
        mode.chmod(0)
        try:
            done = outcome_in_child(lambda: run("-o", folder, "results", "list"), unprivileged=True)  # noqa: B023 - run at once
        finally:
            mode.chmod(0o777)
        assert isinstance(done, Done), done
        assert (done.status, done.out) == (1, "")
        assert "Permission denied" in done.err
        assert done.err.count("\n") == 1


def test_a_failed_write_keeps_the_old_aggregate(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder)
    repository.save_raw("exp_7", factories.raw())
    run("-o", open_folder, "aggregate", "--all")
    before = (open_folder / "aggregated" / "exp_7.json").read_bytes()
    (open_folder / "aggregated").chmod(0o555)
    done = outcome_in_child(lambda: run("-o", open_folder, "aggregate", "--all", "--force"), unprivileged=True)
    assert isinstance(done, Done), done
    assert done.status == 1
    assert "0 aggregated, 0 skipped, 1 failed" in done.err
    assert "Permission denied" in done.err
    assert [path.name for path in (open_folder / "aggregated").iterdir()] == ["exp_7.json"]
    assert (open_folder / "aggregated" / "exp_7.json").read_bytes() == before


def test_a_newer_minor_version_loads_with_a_warning(results: Path) -> None:
    folder = results / "raw" / "newer"
    folder.mkdir()
    (folder / "process_0.json").write_bytes(document(experiment_id="newer", schema_version="2.1.0", added=1))
    done = as_process("-o", results, "aggregate", "newer")
    assert done.status == 0
    assert "warning: raw result newer/process_0.json has schema version '2.1.0', newer than 2.0.0" in done.err
    assert done.out.startswith("newer: 1 of 1 processes")


def test_an_ascii_terminal_gets_escaped_characters(results: Path) -> None:
    run("-o", results, "aggregate", "torn", "--no-strict")
    for encoding in ("ascii", "latin-1"):
        done = as_process("-o", results, "results", "list", env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
        assert done.status == 0, done
        assert "torn" in done.out
        assert "bug" not in done.err


def test_unknown_files_in_the_folders_are_ignored(results: Path) -> None:
    before = run("-o", results, "results", "list", "--all")
    (results / "raw" / "llama_c0" / ".completed_0").write_bytes(b"")
    (results / "raw" / "llama_c0" / "process_x.json").write_bytes(b"?")
    (results / "raw" / "llama_c0" / "notes.txt").write_bytes(b"?")
    (results / "raw" / "stray.json").write_bytes(b"?")
    (results / "aggregated" / "README").write_bytes(b"?")
    (results / "multi_cycle").mkdir()
    os.mkfifo(results / "raw" / "llama_c0" / "pipe")
    assert run("-o", results, "results", "list", "--all") == before
