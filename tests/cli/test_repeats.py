"""`results repeats`: groups, metrics, formats, and the results that are left out."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.tags import change_tags
from tests.support import factories
from tests.support.command import Done, run

PARTS: dict[str, Any] = dict.fromkeys(("gpu_energy_j", "cpu_energy_j", "ram_energy_j", "gpu_power_w", "cpu_power_w"))


def add(
    results: Path, name: str, joules: float | None, number: int, *, tags: dict[str, str] | None = None, **changes: Any
) -> None:
    """Save an experiment of one process and 1,000 tokens, which starts at hour `number`."""
    repository = FileSystemRepository(results)
    fields: dict[str, Any] = {
        "timestamps": factories.timestamps(factories.START + timedelta(hours=number)),
        "energy_metrics": factories.energy(total_energy_j=joules, **PARTS),
        "inference_metrics": factories.inference(
            total_tokens=1000, output_tokens=500, tokens_per_second=100.0 + number
        ),
        "effective_config": {"batching": {"batch_size": 8}, "precision": "fp16", "seed": number},
        "world_size": 1,
    }
    repository.save_raw(name, factories.raw(name, **{**fields, **changes}))
    if tags:
        change_tags(repository.store, name, dict(tags))


def aggregate(results: Path) -> Path:
    list(aggregate_all(FileSystemRepository(results), strict=False))
    return results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return two configurations: three repeats at batch size 8, and two at batch size 1 with a lower bound."""
    folder = tmp_path / "results"
    for number, joules in enumerate((60.0, 62.0, 64.0)):
        add(folder, f"b8_{number}", joules, number, tags={"commit": "old" if number < 2 else "new"})
    one: dict[str, Any] = {"effective_config": {"batching": {"batch_size": 1}, "precision": "fp16"}}
    for number, joules in enumerate((300.0, 320.0)):
        add(folder, f"b1_{number}", joules, 10 + number, **one)
    add(folder, "b1_part", 10.0, 20, **one | {"world_size": 2})
    return aggregate(folder)


def repeats(results: Path, *arguments: str) -> Done:
    return run("-o", results, "results", "repeats", *arguments)


def groups(results: Path, *arguments: str) -> dict[str, list[str]]:
    return {group["name"]: group["experiment_ids"] for group in repeats(results, "--json", *arguments).json()["groups"]}


def lines(done: Done) -> list[str]:
    return [" ".join(line.split()) for line in done.out.splitlines() if not line.startswith("─")]


def test_table_has_one_row_per_configuration_and_one_unit_per_column(results: Path) -> None:
    done = repeats(results)
    assert (done.status, done.err) == (0, "")
    header, first, second, *notes = lines(done)
    assert header == ("configuration n j_per_token [mJ/token] CV energy [J] CV tokens_per_s [token/s] CV")
    # The t quantiles of 1 and 2 degrees of freedom are 12.706 and 4.303.
    assert first == "batch_size=1 2 310 ± 127 4.56% 310 ± 127 4.56% 110.5 ± 6.4 0.64%"
    assert second == "batch_size=8 3 62.0 ± 5.0 3.23% 62.0 ± 5.0 3.23% 101.0 ± 2.5 0.99%"
    assert notes[0].startswith("±: half of the t-based 95 % interval of the mean")
    assert "model=meta-llama/Llama-3.2-1B, precision=float16, gpus=1 x NVIDIA A100" in notes[1]
    assert notes[2] == "ignored keys that vary: config.seed; --split-by KEY separates the runs by one"
    assert notes[3].startswith("left out: b1_part: lower bound: 1 of 2 processes")


def test_json_has_statistics_in_base_units_and_reasons(results: Path) -> None:
    document = repeats(results, "--json", "--metrics", "j_per_token,j_per_output_token").json()
    assert document["units"] == {"j_per_token": "J/token", "j_per_output_token": "J/token"}
    assert document["separating"] == {"config.batching.batch_size": "batch_size"}
    assert document["ignored"] == ["config.seed"]
    [one, eight] = document["groups"]
    assert one["differs"] == {"config.batching.batch_size": 1}
    assert eight["experiment_ids"] == ["b8_0", "b8_1", "b8_2"]
    assert eight["statistics"]["j_per_token"]["mean"] == pytest.approx(0.062)
    assert eight["statistics"]["j_per_token"]["std"] == pytest.approx(0.002)
    assert eight["statistics"]["j_per_output_token"]["mean"] == pytest.approx(0.124)
    assert list(document["left_out"]) == ["b1_part"]


def test_two_nights_are_split_by_their_commit_tag(results: Path) -> None:
    assert groups(results, "--where", "config.batch_size = 8") == {"all runs": ["b8_0", "b8_1", "b8_2"]}
    by_commit = groups(results, "--where", "config.batch_size = 8", "--by", "tag.commit")
    assert by_commit == {"commit=new": ["b8_2"], "commit=old": ["b8_0", "b8_1"]}


def test_split_by_and_ignore_change_the_keys_that_separate_repeats(results: Path) -> None:
    where = ("--where", "id ~ b8")
    assert len(groups(results, "--split-by", "seed", *where)) == 3
    assert groups(results, "--ignore", "batch_size") == {"all runs": ["b8_0", "b8_1", "b8_2", "b1_0", "b1_1"]}


def test_configurations_of_one_id_stem_are_not_averaged(tmp_path: Path) -> None:
    for number, size in enumerate((1, 8)):
        add(tmp_path, f"exp_c{number}", 100.0, number, effective_config={"batch_size": size})
    assert groups(aggregate(tmp_path)) == {"batch_size=1": ["exp_c0"], "batch_size=8": ["exp_c1"]}


def test_experiments_without_configuration_are_repeats_by_id(tmp_path: Path) -> None:
    for number, name in enumerate(("a_c0", "a_c1", "b")):
        add(tmp_path, name, 100.0 + number, number, effective_config={"cycle_id": number})
    assert groups(aggregate(tmp_path)) == {"id=a": ["a_c0", "a_c1"], "id=b": ["b"]}


@pytest.mark.parametrize("changes", [{"model_name": "other"}, {"host": "h"}, {"library_versions": {"torch": "9"}}])
def test_model_hardware_and_software_separate_repeats(tmp_path: Path, changes: dict[str, Any]) -> None:
    add(tmp_path, "a", 100.0, 0)
    add(tmp_path, "b", 101.0, 1, **changes)
    assert sorted(groups(aggregate(tmp_path)).values()) == [["a"], ["b"]]


def test_csv_has_the_unit_once_and_names_runs_left_out_on_stderr(results: Path) -> None:
    done = repeats(results, "--format", "csv", "--metrics", "energy")
    table = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["config.batching.batch_size"] for row in table] == ["1", "8"]
    assert [float(row["energy [J]"]) for row in table] == [310.0, 62.0]
    assert done.out.splitlines()[0].count("J") == 1
    assert done.err.splitlines()[0].startswith("warning: left out: b1_part: lower bound")


def test_latex_table_is_escaped_and_has_a_column_per_key(tmp_path: Path) -> None:
    for number, precision in enumerate(("fp_16", "int8 & more")):
        for repeat in range(2):
            config = {"precision": precision, "batch_size": 8 - number}
            add(tmp_path, f"{number}_{repeat}", 60.0 + repeat, 2 * number + repeat, effective_config=config)
    done = repeats(aggregate(tmp_path), "--format", "latex", "--metrics", "j_per_token")
    begin, *_, end = (line for line in done.out.splitlines() if not line.startswith("%"))
    assert (begin, end) == ("\\begin{tabular}{lrr}", "\\end{tabular}")
    assert "batch\\_size & n & energy per token [mJ/token] \\\\" in done.out
    assert "7 & 2 & 60.5 $\\pm$ 6.4 \\\\" in done.out
    split = repeats(tmp_path, "--format", "latex", "--where", "config.batch_size = 7", "--split-by", "precision")
    assert "% all runs: model=" in split.out


def test_markdown_and_files_by_suffix(results: Path, tmp_path: Path) -> None:
    markdown = repeats(results, "--format", "markdown", "--metrics", "energy").out
    assert markdown.splitlines()[:3] == [
        "| batch\\_size | n | energy \\[J] |",
        "| --- | ---: | ---: |",
        "| 1 | 2 | 310 ± 127 |",
    ]
    for suffix, content in (("md", "| --- |"), ("tex", "\\toprule"), ("csv", "energy [J]"), ("json", '"groups"')):
        path = tmp_path / f"table.{suffix}"
        done = repeats(results, "--to", str(path))
        assert (done.status, done.out) == (0, "")
        assert content in path.read_text()
    assert repeats(results, "--to", str(tmp_path / "table.xyz")).status == 2


def test_undetermined_energy_is_left_out_with_the_deciding_assumption(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    for name in ("a", "b"):
        for process in range(2):
            gpu = factories.energy(process, **{**PARTS, "gpu_energy_j": 1000.0, "total_energy_j": 1000.0})
            repository.save_raw(name, factories.raw(name, process, world_size=2, energy_metrics=gpu, host="node-1"))
    aggregate(tmp_path)
    reason = repeats(tmp_path, "--json").json()["left_out"]["a"]
    found = re.search(r"llm-energy-measure (aggregate a (--assume [a-z-]+=\w+ )+--force)", reason)
    assert reason.startswith("undetermined: ")
    assert found is not None
    assert run("-o", tmp_path, *found[1].split()).status == 0
    assert groups(tmp_path) == {"all runs": ["a"]}
    plain = repeats(tmp_path, "--energy", "plain")
    assert "energies are plain sums over processes" in plain.out
    assert len(groups(tmp_path, "--metrics", "tokens_per_s")["all runs"]) == 1, "b is a copy of a"


def test_corrected_energy_is_marked(tmp_path: Path) -> None:
    host = factories.energy(total_energy_j=1000.0, gpu_energy_j=1000.0, cpu_energy_j=None, ram_energy_j=None,
                            cpu_power_w=None, gpu_scope="host", duration_sec=40.5)  # fmt: skip
    for record in factories.raws(2, "twice", host="node-1", energy_metrics=host, timestamps=factories.timestamps()):
        FileSystemRepository(tmp_path).save_raw("twice", record)
    _, row, *notes = lines(repeats(aggregate(tmp_path), "--metrics", "energy,tokens_per_s"))
    assert row.startswith("all runs 1 * 1 - ")
    assert notes[1].startswith("* corrected: ")


def test_unreadable_aggregate_is_named_and_sets_the_exit_status(results: Path) -> None:
    (results / "aggregated" / "b8_1.json").write_bytes(b"")
    done = repeats(results, "--json")
    assert done.status == 1
    assert "aggregated/b8_1.json is unreadable: the file is empty" in done.json()["left_out"]["b8_1"]
    assert [group["experiment_ids"] for group in done.json()["groups"]] == [["b1_0", "b1_1"], ["b8_0", "b8_2"]]


def test_run_without_the_figure_is_left_out(tmp_path: Path) -> None:
    add(tmp_path, "a", 100.0, 0)
    done = repeats(aggregate(tmp_path), "--metrics", "ttft_p50", "--json")
    assert done.json()["left_out"] == {"a": "no figure: the records do not give ttft_p50"}


def test_pending_experiment_is_named(results: Path) -> None:
    add(results, "b8_new", 61.0, 30)
    reason = "not aggregated; run 'llm-energy-measure aggregate b8_new'"
    assert repeats(results, "--json").json()["left_out"]["b8_new"] == reason
    assert f"left out: b8_new: {reason}" in lines(repeats(results, "--where", "config.batch_size = 8"))
    assert "b8_new" not in repeats(results, "--where", "config.batch_size = 1").out


def test_latex_table_has_interval_per_precision_and_batch_size(tmp_path: Path) -> None:
    numbers = iter(range(99))
    for precision in ("fp16", "int8"):
        for size in (1, 8):
            config = {"batching": {"batch_size": size}, "precision": precision}
            for joules in (60.0, 62.0, 64.0):
                factor = size * (2 if precision == "fp16" else 1)
                name = f"{precision}_{size}_{joules:.0f}"
                add(tmp_path, name, joules * factor, next(numbers), effective_config=config)
    done = repeats(aggregate(tmp_path), "--metrics", "j_per_token", "--format", "latex")
    table = [line for line in done.out.splitlines() if "&" in line]
    # The half width is t(0.975; 2) * 2 / sqrt(3) = 4.968 for energies of 60, 62 and 64 J.
    assert table == [
        r"batch\_size & precision & n & energy per token [mJ/token] \\",
        r"1 & fp16 & 3 & 124.0 $\pm$ 9.9 \\",
        r"1 & int8 & 3 & 62.0 $\pm$ 5.0 \\",
        r"8 & fp16 & 3 & 992 $\pm$ 79 \\",
        r"8 & int8 & 3 & 496 $\pm$ 40 \\",
    ]


def test_empty_directory_has_no_groups(tmp_path: Path) -> None:
    done = repeats(tmp_path)
    assert (done.status, done.out) == (0, "")
    assert "aggregate --all" in done.err
    assert json.loads(repeats(tmp_path, "--json").out)["groups"] == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--metrics", "joules"], 2, "there is no metric 'joules'; choose from j_per_token"),
        (["--by", "colour"], 1, "cannot group by 'colour': there is no value with this name; use tag.KEY"),
        (["--by", "batch_size"], 1, "did you mean config.batch_size?"),
        (["--split-by", "colour"], 1, "no configuration has the key 'colour'"),
        (["--where", "colour = 1"], 2, "there is no column 'colour'"),
    ],
)
def test_wrong_names_are_errors(results: Path, arguments: list[str], status: int, message: str) -> None:
    done = repeats(results, *arguments)
    assert (done.status, message in done.err) == (status, True)
