"""On a terminal: tables that fit it, numbers never cut, a bar that leaves nothing behind, colour only where wanted."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from llm_energy_measure.cli.progress import with_bar
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.command import as_process, on_terminal, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Cycles with a long id, a long model, double-width letters and long numbers."""
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


NAME = "an_experiment_with_a_rather_long_name_that_goes_on_c0"


@pytest.mark.parametrize("columns", [200, 120, 80, 60, 40])
@pytest.mark.parametrize("command", ["results list", f"results show {NAME}", "results repeats"])
def test_tables_fit_the_terminal_and_no_number_is_cut(wide: Path, command: str, columns: int) -> None:
    done = on_terminal("-q", "-o", wide, *command.split(), columns=columns)
    assert done.status == 0
    lines = done.shown.splitlines()
    if "show" in command:
        lines = lines[lines.index("") :]
    # Where not even the numbers fit, each row is lines of its own, and a long text may go on in the next line.
    is_table = any("──" in line for line in lines)
    assert is_table or columns <= 80
    if is_table:
        assert max(map(cell_len, lines)) <= columns
    for number in {"results list": ["246.9 kJ", "2/2"], "results repeats": ["246.9 kJ", "12.71 J"]}.get(command, []):
        assert number in done.shown
    if "show" in command:
        assert "123.5 kJ" in done.shown


def test_what_a_narrow_terminal_leaves_out_is_least_wanted_first(wide: Path) -> None:
    header = on_terminal("-q", "-o", wide, "results", "list", columns=100).shown.splitlines()[0].split()
    assert header[0] == "id"
    assert "date" not in header
    assert {"processes", "energy", "tokens/J", "verdict"} <= set(header)


def test_what_a_narrow_terminal_leaves_out_is_named_under_the_table(wide: Path) -> None:
    lines = on_terminal("-o", wide, "results", "list", columns=100).shown.splitlines()
    assert lines[-2].startswith("not shown, the terminal is too narrow: date, tokens/s")
    assert lines[-2].endswith("; --json has them")
    assert lines[-1] == "2 experiments"
    assert "not shown" not in on_terminal("-o", wide, "results", "list", columns=300).shown


def test_what_is_piped_is_cut_to_no_width(wide: Path) -> None:
    done = as_process("-o", wide, "results", "list", env={"COLUMNS": "20"})
    assert "organisation/模型-with-a-long-name-8x22B-instruct" in done.out
    assert NAME in done.out
    assert "date" in done.out.splitlines()[0]


def test_colour_is_for_terminals_that_want_it(results: Path) -> None:
    assert "\x1b[1m" in on_terminal("-o", results, "results", "list").out
    assert "\x1b" not in on_terminal("-o", results, "results", "list", env={"NO_COLOR": "1"}).out
    assert "\x1b" not in as_process("-o", results, "results", "list").out
    assert "\x1b" not in as_process("-o", results, "results", "list", env={"FORCE_COLOR": "1"}).out


def test_the_bar_leaves_nothing_behind(results: Path) -> None:
    done = on_terminal("-o", results, "aggregate", "--all", "--force", columns=200)
    assert "aggregating" in done.out
    lines = screen(done.out)
    assert [line for line in lines if not line.startswith("error: cannot aggregate 'torn' strictly")] == [
        "llama_c0: 2 of 2 processes, 4.25 kJ, 16,484 tokens",
        "llama_c1: 2 of 2 processes, 4.27 kJ, 16,484 tokens",
        "llama_c2: 2 of 2 processes, 4.29 kJ, 16,484 tokens",
        "mistral: 2 of 2 processes, 4.193 kJ, 16,484 tokens",
        "4 aggregated, 0 skipped, 1 failed",
    ]
    assert len(lines) == 6


def test_the_bar_says_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
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

    assert list(with_bar(slow(), "aggregating", 4_000)) == list(range(40))
    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"aggregating .*[1-9][0-9]?/4000 .*[0-9]+/s .*0:0[0-9]:[0-9]{2}", shown)


def screen(sent: str) -> list[str]:
    """What a terminal that was sent this shows in the end: it knows line ends, erasing a line and going up."""
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


def test_with_the_bar_on_a_terminal_data_still_goes_where_stdout_goes(results: Path) -> None:
    read, write = os.pipe()
    done = on_terminal("-o", results, "aggregate", "--all", "--force", stdout=write)
    os.close(write)
    with os.fdopen(read) as stdout:
        piped = stdout.read()
    assert [line.split(":")[0] for line in piped.splitlines()] == ["llama_c0", "llama_c1", "llama_c2", "mistral"]
    assert "\x1b" not in piped
    assert "llama_c0:" not in done.out
    assert "4 aggregated" in done.out


def test_no_bar_where_stderr_is_piped(results: Path) -> None:
    assert "aggregating" not in run("-o", results, "aggregate", "--all", "--force").err
