"""Output on a terminal: tables that fit, uncut numbers, a progress bar that is removed, and colours."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from llm_energy_measure.cli.progress import with_progress_bar
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.command import as_process, on_terminal, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Repeats with a long id, a long model name, double-width letters and long numbers."""
    repository = FileSystemRepository(tmp_path / "wide")
    for cycle in range(2):
        for process in range(2):
            name = f"an_experiment_with_a_rather_long_name_that_goes_on_c{cycle}"
            record = factories.full_raw(
                name,
                process,
                model_name="organisation/模型-with-a-long-name-8x22B-instruct",
                host=f"node-{process}.cluster.example.org",
                energy_metrics=factories.energy(process, total_energy_j=123456.78 + cycle),
                inference_metrics=factories.inference(process, total_tokens=123_456_789_012),
                world_size=2,
            )
            repository.save_raw(name, record)
    assert [outcome.result for outcome in aggregate_all(repository)] == ["aggregated", "aggregated"]
    return tmp_path / "wide"


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_message_of_wrong_usage_wraps_between_words(tmp_path: Path, columns: int) -> None:
    (tmp_path / "raw").mkdir()
    shown = on_terminal("-o", tmp_path, "results", "export", "--to", "x.xlsx", columns=columns).shown
    lines = shown.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("Error: "))
    assert all(line.startswith("  ") for line in lines[first + 1 :])
    assert max(map(len, lines)) <= columns
    assert " ".join(" ".join(lines[first:]).split()).endswith(
        "cannot write a .xlsx file; use .csv, .json, .jsonl, .ndjson, .tex, .md, or choose the format with --format"
    )


NAME = "an_experiment_with_a_rather_long_name_that_goes_on_c0"


@pytest.mark.parametrize("columns", [200, 120, 80, 60, 40])
@pytest.mark.parametrize("command", ["results list", f"results show {NAME}", "results repeats"])
def test_tables_fit_the_terminal_and_no_number_is_cut(wide: Path, command: str, columns: int) -> None:
    # Plain sums have no footnote. A footnote may wrap, because it is a sentence.
    done = on_terminal("-q", "-o", wide, *command.split(), "--energy", "plain", columns=columns)
    assert done.status == 0
    lines = done.shown.splitlines()
    if "show" in command:
        lines = lines[lines.index("") :]
    if "repeats" in command:  # the lines below the table are sentences
        lines = [line for line in lines if not line.startswith(("±:", "energies are", "all runs:", "ignored keys"))]
    # If the numbers do not fit, each row is printed as fields, and a long text may wrap.
    is_table = any("──" in line for line in lines)
    assert is_table or columns <= 80
    if is_table:
        assert max(map(cell_len, lines)) <= columns
    for number in {"results list": ["246.9 kJ"], "results repeats": ["246.91"]}.get(command, []):
        assert number in done.shown
    if "show" in command:
        assert "123.5 kJ" in done.shown


def test_a_narrow_terminal_leaves_out_less_important_columns(wide: Path) -> None:
    header = on_terminal("-q", "-o", wide, "results", "list", columns=100).shown.splitlines()[0].split()
    assert header[0] == "id"
    assert "date" not in header
    assert {"processes", "energy", "tokens/J", "verdict"} <= set(header)


def test_columns_that_are_left_out_are_named(wide: Path) -> None:
    lines = on_terminal("-o", wide, "results", "list", "--energy", "plain", columns=100).shown.splitlines()
    assert " ".join(" ".join(lines[-3:-1]).split()) == (
        "columns left out because the terminal is too narrow: date, warnings, tokens/s/process, tokens, model; "
        "--json prints all columns"
    )
    assert lines[-1] == "2 experiments"
    assert "left out" not in on_terminal("-o", wide, "results", "list", columns=300).shown


def test_a_table_in_a_pipe_has_no_width_limit(wide: Path) -> None:
    done = as_process("-o", wide, "results", "list", env={"COLUMNS": "20"})
    assert "organisation/模型-with-a-long-name-8x22B-instruct" in done.out
    assert NAME in done.out
    assert "date" in done.out.splitlines()[0]


def test_colours_are_printed_only_on_a_terminal(results: Path) -> None:
    assert "\x1b[1m" in on_terminal("-o", results, "results", "list").out
    assert "\x1b" not in on_terminal("-o", results, "results", "list", env={"NO_COLOR": "1"}).out
    assert "\x1b" not in as_process("-o", results, "results", "list").out
    assert "\x1b" not in as_process("-o", results, "results", "list", env={"FORCE_COLOR": "1"}).out


def test_the_progress_bar_is_removed(results: Path) -> None:
    done = on_terminal("-v", "-o", results, "aggregate", "--all", "--force", columns=300)
    assert "aggregating" in done.out
    lines = screen(done.out)
    assert [line for line in lines if not line.startswith("error: cannot aggregate 'torn' strictly")] == [
        "llama_c0: 2 of 2 processes, 2.25 kJ to 4.25 kJ (undetermined), 16,484 tokens",
        "llama_c1: 2 of 2 processes, 2.26 kJ to 4.27 kJ (undetermined), 16,484 tokens",
        "llama_c2: 2 of 2 processes, 2.27 kJ to 4.29 kJ (undetermined), 16,484 tokens",
        "mistral: 2 of 2 processes, 2.221 kJ to 4.193 kJ (undetermined), 16,484 tokens",
        "4 aggregated, 0 skipped, 1 failed",
    ]
    assert len(lines) == 6


def test_quiet_commands_show_no_progress_bar(results: Path, tmp_path: Path) -> None:
    assert run("-o", results, "results", "delete", "torn", "--yes").status == 0
    for command in (
        ("aggregate", "--all", "--force"),
        ("results", "sync", str(tmp_path / "copy")),
        ("import", str(results / "raw" / "llama_c0"), "--dry-run"),
        ("bundle", "create", "--to", str(tmp_path / "paper.zip")),
    ):
        assert "\x1b" not in on_terminal("-q", "-o", results, *command).out


def test_the_progress_bar_shows_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")

    def slow() -> Iterator[int]:
        for number in range(40):
            time.sleep(0.02)
            yield number

    assert list(with_progress_bar(slow(), "aggregating", 4_000)) == list(range(40))
    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"aggregating .*[1-9][0-9]?/4000 .*[0-9]+/s .*[0-9]:[0-9]{2}:[0-9]{2}", shown)


def screen(sent: str) -> list[str]:
    """Return the lines on a terminal after this output; it supports line ends, erasing a line and moving up."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", sent):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif part.endswith("A"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line for line in lines if line]


def test_data_go_to_stdout_while_the_progress_bar_is_shown(results: Path) -> None:
    read, write = os.pipe()
    done = on_terminal("-v", "-o", results, "aggregate", "--all", "--force", stdout=write)
    os.close(write)
    with os.fdopen(read) as stdout:
        piped = stdout.read()
    assert [line.split(":")[0] for line in piped.splitlines()] == ["llama_c0", "llama_c1", "llama_c2", "mistral"]
    assert "\x1b" not in piped
    assert "llama_c0:" not in done.out
    assert "4 aggregated" in done.out


def test_a_piped_stderr_has_no_progress_bar(results: Path) -> None:
    assert "aggregating" not in run("-o", results, "aggregate", "--all", "--force").err
