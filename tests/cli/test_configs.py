"""Configuration keys on the command line: `results configs`, and `config.KEY` in `results list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.command import on_terminal, run

CONFIGS: dict[str, dict[str, Any]] = {
    "b1": {"batching": {"batch_size": 1}, "precision": "float16", "streaming": True, "seed": 1},
    "b8": {"batching": {"batch_size": 8}, "precision": "float16", "streaming": False, "seed": 2},
    "b8_int8": {"batching": {"batch_size": 8}, "precision": "int8", "streaming": False, "extra": {"x": [1]}},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    repository = FileSystemRepository(tmp_path / "results")
    for number, (name, config) in enumerate(CONFIGS.items()):
        joules = factories.energy(total_energy_j=100.0 * (number + 1))
        repository.save_raw(name, factories.raw(name, effective_config=config, energy_metrics=joules, world_size=1))
    list(aggregate_all(repository))
    return repository.base_path


def test_configs_lists_varying_keys_with_values_and_counts(results: Path) -> None:
    done = run("-o", results, "results", "configs")
    rows = [line.split("  ") for line in done.out.splitlines()[2:]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["config.batching.batch_size", "1 (1), 8 (2)", "2", "yes"],
        ["config.extra.x", "[1] (1), - (2)", "1", "yes"],
        ["config.precision", "float16 (2), int8 (1)", "2", "yes"],
        ["config.streaming", "false (2), true (1)", "2", "yes"],
        ["config.seed", "1 (1), 2 (1), - (1)", "2", "no"],
    ]
    assert done.err == "5 keys of 3 experiments\n"


def test_configs_json_has_typed_values_and_all_keys_on_request(results: Path) -> None:
    arguments = ("--where", "config.batch_size = 8", "--json")
    found = {one["key"]: one for one in run("-o", results, "results", "configs", *arguments).json()}
    assert found.keys() == {"config.precision", "config.extra.x", "config.seed"}
    assert found["config.seed"] == {
        "key": "config.seed",
        "separates_repeats": False,
        "absent": 1,
        "values": [{"value": 2, "experiments": 1}],
    }
    every = {one["key"]: one for one in run("-o", results, "results", "configs", "--all-keys", *arguments).json()}
    assert every["config.streaming"]["values"] == [{"value": False, "experiments": 2}]


def test_configs_of_one_configuration_names_the_option_for_all_keys(results: Path) -> None:
    done = run("-o", results, "results", "configs", "--where", "id = b1")
    assert (done.status, done.out) == (0, "")
    assert "--all-keys lists its keys" in done.err


def test_configs_names_the_experiments_that_are_not_aggregated(tmp_path: Path) -> None:
    FileSystemRepository(tmp_path).save_raw("new", factories.raw("new", effective_config={"batch_size": 8}))
    done = run("-o", tmp_path, "results", "configs", "--all-keys")
    assert (done.status, done.out) == (0, "")
    assert done.err == "0 keys of 0 experiments; 1 not aggregated yet ('aggregate --all' aggregates them)\n"


def test_configs_fit_the_terminal(results: Path) -> None:
    repository = FileSystemRepository(results)
    for number in range(30):
        config = {"a_rather_long_name_of_a_section": {"value": f"text {number}" * 9}}
        repository.save_raw(f"x{number}", factories.raw(f"x{number}", effective_config=config))
    list(aggregate_all(repository))
    done = on_terminal("-o", results, "results", "configs", columns=80)
    table = done.shown.partition("columns left out")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "separates" in table


def test_list_filters_sorts_and_groups_by_configuration_keys(results: Path) -> None:
    def ids(*arguments: str) -> list[str]:
        return [
            row["id"] for row in run("-o", results, "results", "list", "--json", "--columns", "id", *arguments).json()
        ]

    assert ids("--where", "config.batch_size >= 8") == ["b8", "b8_int8"]
    assert ids("--sort", "config.batch_size", "--reverse") == ["b8_int8", "b8", "b1"]
    groups = run("-o", results, "results", "list", "--by", "model,config.batch_size,config.streaming", "--json").json()
    assert [list(group["by"].values())[1:] for group in groups] == [[1, True], [8, False]]
    table = run("-o", results, "results", "list", "--by", "config.streaming").out
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["false", "true"]


def test_columns_replace_the_usual_columns(results: Path) -> None:
    columns = "id,config.batch_size,config.streaming,energy,date,tag.x"
    done = run("-o", results, "results", "list", "--columns", columns, "--where", "id = b8")
    header, _, row = done.out.splitlines()
    assert header.split() == columns.split(",")
    assert row.split() == ["b8", "8", "false", "200", "J", "2026-01-16", "19:39", "-"]
    [answer] = run("-o", results, "results", "list", "--columns", columns, "--where", "id = b8", "--json").json()
    assert answer == {
        "id": "b8",
        "config.batch_size": 8,
        "config.streaming": False,
        "energy": 200.0,
        "tag.x": None,
        "date": "2026-01-16T19:39:58.225937Z",
    }


def test_columns_with_groups_are_wrong_usage(results: Path) -> None:
    done = run("-o", results, "results", "list", "--columns", "id", "--totals")
    assert (done.status, "omit --by and --totals" in done.err) == (2, True)


@pytest.mark.parametrize("option", ["--where", "--sort", "--by", "--columns"])
def test_ambiguous_and_unknown_keys_are_errors_that_name_keys(results: Path, option: str) -> None:
    repository = FileSystemRepository(results)
    repository.save_raw("z", factories.raw("z", effective_config={"data": {"batch_size": 4}}))
    list(aggregate_all(repository))
    ending = " > 1" if option == "--where" else ""
    done = run("-o", results, "results", "list", option, f"config.batch_size{ending}")
    assert (done.status, done.out) == (1, "")
    assert "is ambiguous: config.batching.batch_size, config.data.batch_size match; use one of these names" in done.err
    done = run("-o", results, "results", "list", option, f"config.presision{ending}")
    assert (done.status, "did you mean config.precision?" in done.err) == (1, True)
