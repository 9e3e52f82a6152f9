"""Globs and `--where` of the commands that work on several experiments, and natural order of ids."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
from tests.support.command import on_terminal, run

if TYPE_CHECKING:
    from pathlib import Path


def exported(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [row["experiment_id"] for row in csv.DictReader(file)]


def test_export_selects_by_glob_and_condition(results: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    for arguments, expected in (
        (["llama_c*"], ["llama_c0", "llama_c1", "llama_c2"]),
        (["llama_c[12]", "llama_c0"], ["llama_c1", "llama_c2", "llama_c0"]),
        (["--where", "id !~ c1"], ["llama_c0", "llama_c2"]),
        (["llama_c1", "llama_c2", "--where", "id !~ c1"], ["llama_c2"]),
    ):
        done = run("-o", results, "results", "export", "--to", table, *arguments)
        assert (done.status, exported(table)) == (0, expected), arguments
    assert run("-o", results, "results", "export", "--raw", "--to", table, "--where", "model ~ mistral").status == 0
    assert exported(table) == ["mistral", "mistral"]


def test_export_suggests_the_prefix_of_a_configuration_key(tmp_path: Path) -> None:
    FileSystemRepository(tmp_path).save_raw("a", factories.raw("a", world_size=1, effective_config={"batch_size": 4}))
    run("-o", tmp_path, "aggregate", "a")
    for name, advice in (("batch_size", "did you mean config.batch_size?"), ("zzz", "omit --columns to see all names")):
        done = run("-o", tmp_path, "results", "export", "--to", "-", "--columns", name)
        assert (done.status, advice in done.err) == (2, True), done.err


def test_verify_selects_by_glob_and_condition(results: Path) -> None:
    done = run("-o", results, "results", "verify", "--where", "id = llama_c0", "--json")
    assert [one["experiment_id"] for one in done.json()] == ["llama_c0"]
    done = run("-o", results, "results", "verify", "llama_*", "--json")
    assert [one["experiment_id"] for one in done.json()] == ["llama_c0", "llama_c1", "llama_c2"]
    assert run("-o", results, "results", "verify", "--all", "--where", "id = llama_c0").status == 2


def test_tag_sets_tags_of_several_experiments(results: Path) -> None:
    done = run("-o", results, "results", "tag", "llama_c0", "mistral", "paper=fig3", "x=1")
    assert (done.status, done.out, done.err) == (0, "", "2 experiments tagged\n")
    assert run("-o", results, "results", "tag", "--where", "tag.paper = fig3", "x=").status == 0
    assert run("-o", results, "results", "tag", "llama_*", "--note", "warm").err == "3 experiments tagged\n"
    done = run("-o", results, "results", "tag", "llama_c0", "llama_c1", "mistral")
    assert done.out == "llama_c0: paper=fig3, note: warm\nllama_c1: note: warm\nmistral: paper=fig3\n"
    found = run("-o", results, "results", "tag", "*_c0", "--json").json()
    assert [one["tags"] for one in found] == [{"paper": "fig3"}]


def test_a_wrong_assignment_changes_no_tag(results: Path) -> None:
    done = run("-o", results, "results", "tag", "llama_c0", "llama_c1", "a=b", "nonsense")
    assert (done.status, done.err) == (1, "error: cannot set the tag 'nonsense': it has no '='; write key=value\n")
    assert not (results / "tags").exists()
    assert run("-o", results, "results", "tag", "--note", "x").status == 2


def test_delete_lists_what_it_deletes_and_needs_yes(results: Path) -> None:
    repository = FileSystemRepository(results)
    listed = "llama_c0: 2 raw results\nllama_c2: 2 raw results\n"
    selection = ("-o", results, "results", "delete", "--where", "id ~ llama and id !~ c1")
    done = run(*selection, "--dry-run")
    assert (done.status, done.out) == (0, listed)
    assert done.err == "2 experiments would be deleted; nothing was deleted\n"
    done = run(*selection)
    assert (done.status, done.out) == (1, listed)
    assert done.err.startswith("error: cannot delete 2 experiments: stdin is not a terminal")
    assert "nothing was deleted" in on_terminal(*selection, typed="n\n").shown
    assert len(repository.list_experiments()) == 5
    done = run(*selection, "--yes")
    assert (done.status, done.out) == (0, "")
    assert done.err.endswith("2 experiments deleted\n")
    assert repository.list_experiments() == ["llama_c1", "mistral", "torn"]
    assert run("-o", results, "results", "delete", "--yes").status == 2


def test_repeats_select_by_glob(results: Path) -> None:
    done = run("-o", results, "results", "repeats", "llama_c[01]", "--metrics", "tokens_per_s", "--json")
    assert [group["experiment_ids"] for group in done.json()["groups"]] == [["llama_c0", "llama_c1"]]


@pytest.mark.parametrize("command", ["export --to t.csv", "verify", "tag", "delete --yes", "repeats"])
def test_a_selection_of_nothing_is_one_sentence(results: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.parent)
    done = run("-o", results, "results", *command.split(), "x*")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("error: no experiment matches 'x*': ")
    done = run("-o", results, "results", *command.split(), "--where", "colour = red")
    assert done.status == 2
    assert "there is no column 'colour'" in done.err
    if command != "repeats":
        done = run("-o", results, "results", *command.split(), "--where", "id = x")
        assert (done.status, done.err.count("\n")) == (1, 1)
        assert done.err.startswith("error: no experiment is selected: none matches 'id = x'")
        assert done.err.endswith('; for a part of it, write "id ~ x"\n')
    assert len(FileSystemRepository(results).list_experiments()) == 5


def test_ids_are_in_natural_order(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    names = ["a_c10", "a_c2", "a_c1", "b", "a_c100", "B"]
    for name in names[:5]:
        repository.save_raw(name, factories.raw(name))
    assert run("-o", tmp_path, "-q", "aggregate", "--all").status == 0
    expected = ["a_c1", "a_c2", "a_c10", "a_c100", "b"]
    assert [row["experiment_id"] for row in run("-o", tmp_path, "results", "list", "--json").json()] == expected
    down = run("-o", tmp_path, "results", "list", "--json", "--sort", "id", "--reverse").json()
    assert [row["experiment_id"] for row in down] == expected[::-1]
    assert run("-o", tmp_path, "results", "export", "--to", tmp_path / "t.csv").status == 0
    assert exported(tmp_path / "t.csv") == expected
    verified = json.loads(run("-o", tmp_path, "results", "verify", "--all", "--json").out)
    assert [one["experiment_id"] for one in verified] == expected


HEADERS = [
    "id",
    "model",
    "processes",
    "energy",
    "tokens",
    "tokens/s/process",
    "tokens/J",
    "verdict",
    "warnings",
    "date",
]


def test_every_title_sorts_selects_and_groups(results: Path) -> None:
    titles = run("-o", results, "results", "list").out.splitlines()[0].split()
    assert titles == HEADERS
    for title in titles:
        assert run("-o", results, "results", "list", "--sort", title, "--reverse").status == 0, title
        assert run("-o", results, "results", "list", "--where", f"{title} is not unknown").status == 0, title
        assert run("-o", results, "results", "list", "--columns", title).status == 0, title
        by = run("-o", results, "results", "list", "--by", title, "--json")
        assert (by.status, sum(group["experiments"] for group in by.json())) == (0, 3), title
    for title in ("model", "experiments", "energy", "tokens", "tokens/J", "without energy", "lower bounds"):
        assert run("-o", results, "results", "list", "--by", "model", "--sort", title).status == 0, title


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("energy < 4.256 kJ", 1),
        ("energy < 4256 J", 1),
        ("energy<4.256kJ", 1),
        ("energy > 1.182 Wh and energy < 0.01 kWh", 2),
        ("not energy >= 4.256 kJ or id = llama_c2", 2),
        ("duration_sec > 1 ms", 3),
        ("avg_energy_per_token_j in (257.8 mJ/token, 0.2584324193 J/token)", 0),
        ("tokens > 1e3", 3),
        ("tokens = 16484 tokens", 3),
    ],
)
def test_conditions_accept_quantities(results: Path, condition: str, count: int) -> None:
    done = run("-o", results, "results", "list", "--where", condition, "--json")
    assert (done.status, len(done.json())) == (0, count)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("energy < 3 s", "the unit 's' does not fit energy, which has the unit J; use one of mJ, J, kJ, MJ"),
        ("energy < 3 lb", "the unit 'lb' does not fit energy"),
        ("processes > 2 J", "the unit 'J' does not fit processes, which has no unit; omit the unit"),
        ("enrgy > 2", "there is no column 'enrgy'; did you mean energy or energy_j"),
    ],
)
def test_a_wrong_unit_or_column_is_one_sentence(results: Path, condition: str, message: str) -> None:
    done = run("-o", results, "results", "list", "--where", condition)
    assert done.status == 2
    assert message in " ".join(done.err.split())


def test_an_unknown_column_names_at_most_five_others(results: Path) -> None:
    for option in ("--by", "--sort", "--where", "--columns"):
        for name in ("tokens_per", "qqqqqqqq"):
            value = f"{name} = 1" if option == "--where" else name
            done = run("-o", results, "results", "list", option, value)
            assert done.status == 2
            assert done.err.count(" or ") <= 5
            assert len(done.err) < 400


def test_a_column_has_one_unit_and_unit_selects_it(results: Path) -> None:
    repository = FileSystemRepository(results)
    for name, joules in (("small", 20.0), ("large", 2.0e6)):
        repository.save_raw(name, factories.raw(name, energy_metrics=factories.energy(total_energy_j=joules)))
    run("-q", "-o", results, "aggregate", "small", "large")
    for arguments, unit in (([], "kJ"), (["--unit", "Wh"], "Wh"), (["--unit", "mJ"], "mJ")):
        done = run("-o", results, "results", "list", "--columns", "id,energy", "--energy", "plain", *arguments)
        rows = [line.split() for line in done.out.splitlines()[2:]]
        assert [row[-1] for row in rows] == [unit] * 5
        values = {row[0]: float(row[-2].replace(",", "")) for row in rows}
        factor = {"kJ": 1e3, "Wh": 3600.0, "mJ": 1e-3}[unit]
        assert values["small"] * factor == pytest.approx(20, rel=1e-3)
        assert values["large"] * factor == pytest.approx(2e6, rel=1e-3)
    done = run("-o", results, "results", "list", "--by", "model", "--unit", "kWh")
    assert " kWh" in done.out
    done = run("-o", results, "results", "show", "llama_c0", "--unit", "Wh", "--energy", "plain")
    assert "1.181 Wh" in done.out
    assert " J" not in done.out.split("process  host")[1]
    assert run("-o", results, "results", "list", "--unit", "s").status == 2


def test_quiet_verify_prints_only_errors(results: Path) -> None:
    done = run("-q", "-o", results, "results", "verify", "llama_*")
    assert (done.status, done.out, done.err) == (0, "", "")
    path = results / "raw" / "llama_c0" / "process_0.json"
    path.write_bytes(path.read_bytes().replace(b'"host"', b'"Host"'))
    done = run("-q", "-o", results, "results", "verify", "llama_*")
    assert (done.status, done.err) == (1, "")
    assert done.out.startswith("llama_c0: ")
    assert "severity" not in done.out
