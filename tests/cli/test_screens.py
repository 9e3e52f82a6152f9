"""Screens of the commands, kept in `tests/data/screens`: each width, in a pipe, with long ids, in UTF-8 and ASCII.

To write the files again after a change, run this file with UPDATE_SCREENS=1, and look at each changed screen.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from llm_energy_measure.analysis.observations import METRICS
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.command import as_process, on_terminal, run

DATA = Path(__file__).resolve().parents[1] / "data" / "screens"

# Screens of 300 experiments keep their first and last lines.
_KEPT = 8


def make(folder: Path, number: int) -> Path:
    """Make experiments of three batch sizes; every second one has an id of 60 characters, and some are partial."""
    repository = FileSystemRepository(folder)
    for index in range(number):
        batch = (1, 8, 32)[index % 3]
        stem = f"llama-3.2-1b_bfloat16_batch{batch:02}_node-gpu-cluster-a100_prompts-of-2048"
        name = f"{stem}_c{index}"[-60:] if index % 2 else f"exp_c{index}"
        start = factories.START.replace(day=1 + index % 28, hour=index % 24, minute=0, second=0, microsecond=0)
        record = factories.raw(
            name,
            host=f"node-{index % 4}",
            world_size=1 if index % 7 else 2,
            timestamps=factories.timestamps(start),
            energy_metrics=factories.energy(total_energy_j=2500.0 * (1 + index % 5) / batch + 2000.0),
            effective_config={"batch_size": batch, "seed": index},
        )
        repository.save_raw(name, record)
    assert len(list(aggregate_all(repository, strict=False))) == number
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("few") / "results", 5)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("many") / "results", 300)


def require_same(name: str, shown: str) -> None:
    path = DATA / f"{name}.txt"
    lines = shown.splitlines()
    if len(lines) > 60:
        lines = [*lines[:_KEPT], f"[{len(lines) - 2 * _KEPT} lines]", *lines[-_KEPT:]]
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    if os.environ.get("UPDATE_SCREENS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"look at {path.name}; UPDATE_SCREENS=1 writes it again"


COMMANDS = {
    "list": ("results", "list"),
    "by": ("results", "list", "--by", "model,verdict"),
    "show": ("results", "show", "exp_c0"),
    "configs": ("results", "configs", "--all-keys"),
    "repeats": ("results", "repeats"),
    "verify": ("results", "verify", "--all"),
}


# Their text follows each change of a check, so that only its width is tested.
CHANGE_WITH_CHECKS = {"show", "verify"}


@pytest.mark.parametrize("columns", [80, 100, 140])
@pytest.mark.parametrize("command", COMMANDS)
def test_screen_of_five_experiments_fits(few: Path, command: str, columns: int) -> None:
    shown = on_terminal("-o", few, *COMMANDS[command], columns=columns).shown
    assert max(map(cell_len, shown.splitlines())) <= columns
    if command not in CHANGE_WITH_CHECKS:
        require_same(f"{command}-5-{columns}", shown)


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_screen_of_300_experiments_fits(many: Path, columns: int) -> None:
    shown = on_terminal("-o", many, "results", "list", columns=columns).shown
    assert max(map(cell_len, shown.splitlines())) <= columns
    require_same(f"list-300-{columns}", shown)


def test_piped_screen_has_all_columns(few: Path) -> None:
    require_same("list-5-pipe", as_process("-o", few, "results", "list").out)


def test_repeats_in_a_pipe_fit_the_terminal_of_the_user(few: Path) -> None:
    """As in `results repeats | tail`: stdout is a pipe, and stderr is the terminal."""
    reader, writer = os.pipe()
    on_terminal("-o", few, "results", "repeats", columns=80, stdout=writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        lines = pipe.read().splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert any(line.startswith("left out: exp_c0") for line in lines)


def test_screen_of_the_c_locale_is_ascii(few: Path) -> None:
    shown = on_terminal(
        "-o", few, "results", "list", columns=80, env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    ).shown
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) <= 80
    require_same("list-5-80-c", shown)


def titles(name: str) -> list[str]:
    """Return the titles in the first line of a kept screen."""
    return re.split(r" {2,}", (DATA / f"{name}.txt").read_text("utf-8").splitlines()[0].strip())


# The titles that are no figure of one experiment.
OF_GROUPS = {"experiments", "without energy", "lower bounds"}
OF_REPEATS = {"configuration", "n", "CV"}


@pytest.mark.parametrize("width", ["80", "100", "140", "pipe", "80-c"])
def test_each_title_of_a_list_works_in_sort_where_and_by(few: Path, width: str) -> None:
    shown = titles(f"list-5-{width}")
    assert {"id", "energy"} < set(shown)
    require_usable(few, shown)


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_each_title_of_groups_and_repeats_works(few: Path, columns: int) -> None:
    groups, repeats = titles(f"by-5-{columns}"), titles(f"repeats-5-{columns}")
    assert "experiments" in groups
    for title in groups:
        require_status_0(few, "--by", "model,verdict", "--sort", title)
    require_usable(few, [title for title in groups if title not in OF_GROUPS])
    metrics = [title.partition(" [")[0] for title in repeats if title not in OF_REPEATS]
    assert metrics == ["j_per_token", "energy", "tokens_per_s"]
    require_usable(few, metrics)


def test_each_metric_of_repeats_works(tmp_path: Path) -> None:
    results = make(tmp_path / "results", 3)
    latencies = factories.latency([35.5, 36.5], [1.0, 1.5], [0.5, 1.0, 1.5])
    record = factories.raw("req_c0", inference_metrics=factories.inference(latency_measurements=latencies))
    repository = FileSystemRepository(results)
    repository.save_raw("req_c0", record)
    assert len(list(aggregate_all(repository))) == 4
    require_usable(results, list(METRICS))
    for energy in ("attributed", "plain"):
        [row] = run(
            "-o", results, "results", "list", "--where", "requests = 2", "--energy", energy, "--json",
            "--columns", ",".join(METRICS),
        ).json()  # fmt: skip
        group = run(
            "-o", results, "results", "repeats", "req_c0", "--metrics", ",".join(METRICS), "--energy", energy, "--json"
        ).json()["groups"][0]
        shown = {name: statistics["mean"] for name, statistics in group["statistics"].items()}
        assert row == pytest.approx(shown)


def require_usable(results: Path, names: list[str]) -> None:
    for name in names:
        require_status_0(results, "--sort", name)
        require_status_0(results, "--where", f"{name} is not unknown")
        require_status_0(results, "--columns", name)
        require_status_0(results, "--by", name, "--sort", name)


def require_status_0(results: Path, *arguments: str) -> None:
    done = run("-o", results, "results", "list", "--json", *arguments)
    assert (done.status, done.json() != []) == (0, True), (arguments, done.err)


def test_no_kept_screen_breaks_an_id() -> None:
    ids = {name for path in DATA.glob("list-5-*.txt") for name in re.findall(r"\S*_c[0-9]+\b", path.read_text("utf-8"))}
    assert len(ids) == 5
    assert {len(name) for name in ids} == {6, 60}
