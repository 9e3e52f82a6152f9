"""`results export` and `results delete`."""

from __future__ import annotations

import csv
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all, export_to_csv, export_to_json
from tests.support import factories
from tests.support.command import on_terminal, run

if TYPE_CHECKING:
    from pathlib import Path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


# export


@pytest.mark.parametrize("form", ["csv", "json"])
def test_export_writes_the_columns_of_the_library_and_facts(results: Path, tmp_path: Path, form: str) -> None:
    repository = FileSystemRepository(results)
    aggregated = [result for name in repository.list_aggregated() if (result := repository.load_aggregated(name))]
    write = {"csv": export_to_csv, "json": export_to_json}[form]
    done = run("-o", results, "results", "export", "--to", tmp_path / f"table.{form}")
    assert (done.status, done.out) == (0, "")
    assert done.err == f"3 rows written to {tmp_path / f'table.{form}'}\n"
    written, library = (tmp_path / f"table.{form}").read_text(), write(aggregated, tmp_path / "library").read_text()
    found, expected = ((json.loads(text) if form == "json" else rows(text)) for text in (written, library))
    facts = ("config_name", "precision", "gpus", "hosts", "verdict", "tags")
    assert [{name: value for name, value in row.items() if name not in facts} for row in found] == expected
    assert [name for name in found[0] if name in facts] == list(facts)


def test_export_to_stdout_prints_only_data(results: Path, tmp_path: Path) -> None:
    run("-o", results, "results", "export", "--to", tmp_path / "table.csv")
    done = run("-o", results, "results", "export", "--to", "-")
    assert (done.status, done.err) == (0, "")
    assert done.out == (tmp_path / "table.csv").read_text()
    done = run("-o", results, "results", "export", "--to", "-", "--format", "json", "llama_c2", "llama_c0")
    assert [row["experiment_id"] for row in done.json()] == ["llama_c2", "llama_c0"]


def test_the_format_comes_from_the_option_or_the_suffix(results: Path, tmp_path: Path) -> None:
    for name, arguments, is_json in [
        ("a.csv", [], False),
        ("a.JSON", [], True),
        ("a.txt", [], False),
        ("a.csv", ["--format", "json"], True),
        ("a.json", ["--format", "csv"], False),
    ]:
        run("-o", results, "results", "export", "--to", tmp_path / name, *arguments)
        assert (tmp_path / name).read_text().startswith("[") is is_json


def test_raw_writes_one_row_per_process(results: Path) -> None:
    found = rows(run("-o", results, "results", "export", "--raw", "--to", "-").out)
    assert [(row["experiment_id"], row["process_index"]) for row in found] == [
        *((f"llama_c{cycle}", str(process)) for cycle in range(3) for process in range(2)),
        ("mistral", "0"),
        ("mistral", "1"),
        ("torn", "1"),
    ]


def test_per_process_adds_columns(results: Path) -> None:
    [row] = rows(run("-o", results, "results", "export", "llama_c0", "--per-process", "--to", "-").out)
    assert [row["process_0_total_energy_j"], row["process_1_total_energy_j"]] == ["2000.0", "2250.0"]
    assert [row["process_0_gpu_id"], row["process_1_gpu_id"]] == ["0", "1"]


def test_unreadable_results_are_reported_and_others_exported(results: Path, tmp_path: Path) -> None:
    (results / "aggregated" / "llama_c1.json").write_bytes(b"")
    done = run("-o", results, "results", "export", "--to", "-")
    assert done.status == 1
    assert "llama_c1.json: the file is empty (0 bytes)" in done.err
    assert [row["experiment_id"] for row in rows(done.out)] == ["llama_c0", "llama_c2"]
    done = run("-o", results, "results", "export", "mistral", "llama_c0", "--to", tmp_path / "t.csv")
    assert done.status == 1
    assert "run 'llm-energy-measure aggregate mistral', or use --raw to export its processes" in done.err
    assert len(rows((tmp_path / "t.csv").read_text())) == 1
    (results / "raw" / "mistral" / "process_1.json").write_bytes(b"")
    done = run("-o", results, "results", "export", "mistral", "--raw", "--to", "-")
    assert done.status == 1
    assert "mistral/process_1.json is unreadable and left out" in done.err
    assert len(rows(done.out)) == 1


def test_a_failed_export_replaces_no_file(results: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a table\n")
    done = run("-o", results, "results", "export", "mistral", "nope", "--to", table)
    assert done.status == 1
    assert table.read_text() == "a table\n"


def test_an_empty_directory_gives_an_empty_table(tmp_path: Path) -> None:
    done = run("-o", tmp_path, "results", "export", "--to", "-", "--raw")
    assert done.status == 0
    assert done.out.startswith("experiment_id,process_index,")
    assert done.out.count("\n") == 1
    assert run("-o", tmp_path, "results", "export", "--to", "-", "--format", "json").json() == []


def test_an_empty_table_replaces_no_file(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("the only copy", encoding="utf-8")
    done = run("-o", tmp_path, "results", "export", "--to", table)
    assert done.status == 1
    assert "nothing to export" in done.err
    assert table.read_text(encoding="utf-8") == "the only copy"


@pytest.mark.parametrize("ending", [".parquet", ".xlsx", ".TSV", ".feather"])
def test_a_suffix_of_another_table_format_is_refused(results: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    done = run("-o", results, "results", "export", "--to", path)
    assert (done.status, done.out, path.exists()) == (2, "", False)
    assert done.err.endswith(
        f"cannot write a {ending.lower()} file; use .csv, .json, .jsonl, .ndjson, .tex, .md, "
        "or choose the format with --format\n"
    )
    assert run("-o", results, "results", "export", "--to", path, "--format", "csv").status == 0
    assert path.read_text().startswith("experiment_id,")


@pytest.mark.parametrize("name", ["table", "table.txt", "table.v2", "TABLE.CSV", ".csv"])
def test_any_other_suffix_gives_csv(results: Path, tmp_path: Path, name: str) -> None:
    assert run("-o", results, "results", "export", "--to", tmp_path / name).status == 0
    assert (tmp_path / name).read_text().startswith("experiment_id,")


def test_a_target_that_cannot_be_written_is_one_error(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for target in (tmp_path, tmp_path / "file" / "table.csv"):
        done = run("-o", results, "results", "export", "--to", target)
        assert (done.status, done.out) == (1, "")
        assert done.err.count("\n") == 1
        assert done.err.startswith(f"error: cannot write {target}: ")
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "results"]


def test_export_has_the_columns_that_group_its_rows(results: Path) -> None:
    run("-o", results, "results", "tag", "llama_c0", "paper=fig3", "b=1")
    first, *_ = run("-o", results, "results", "export", "--to", "-", "--format", "json").json()
    assert first["config_name"] == "baseline"
    assert (first["gpus"], first["verdict"], first["tags"]) == (
        "NVIDIA A100-PCIE-40GB",
        "undetermined",
        "b=1, paper=fig3",
    )
    assert first["input_tokens"] + first["output_tokens"] == first["total_tokens"]
    named = "id,tag.paper,verdict,precision,hosts,attributed_gpu_energy_j,attributed_joules_per_output_token"
    done = run("-o", results, "results", "export", "--to", "-", "--columns", named)
    assert done.out.splitlines()[0].split(",")[:3] == ["experiment_id", "tag.paper", "verdict"]
    assert [row["tag.paper"] for row in rows(done.out)] == ["fig3", "", ""]
    loaded = run("-o", results, "results", "export", "--to", "-", "--format", "json", "--per-process").json()[0]
    assert {name: loaded[name] for name in first} == first
    done = run("-o", results, "results", "export", "--to", "-", "--columns", "experiment")
    assert done.status == 2
    assert done.err.count("\n") <= 4
    assert "did you mean experiment_id" in " ".join(done.err.split())


def test_j_per_output_token_is_attributed_energy_by_output(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    record = factories.raw("e", world_size=1, host="n", energy_metrics=factories.energy(total_energy_j=500.0))
    repository.save_raw("e", record)
    run("-q", "-o", tmp_path, "aggregate", "e")
    [row] = run("-o", tmp_path, "results", "export", "--to", "-", "--format", "json").json()
    assert record.inference_metrics is not None
    expected = None if row["attributed_energy_j"] is None else row["attributed_energy_j"] / row["output_tokens"]
    assert row["attributed_joules_per_output_token"] == expected is not None
    listed = run("-o", tmp_path, "results", "list", "--where", "output_tokens > 0", "--json").json()
    assert len(listed) == 1


def test_export_of_a_stale_experiment_warns_and_exits_with_1(results: Path, tmp_path: Path) -> None:
    FileSystemRepository(results).save_raw("llama_c0", factories.raw("llama_c0", 2))
    for arguments in ([], ["llama_c0"], ["--per-process"]):
        done = run("-q", "-o", results, "results", "export", "--to", tmp_path / "t.csv", *arguments)
        assert (done.status, done.err.count("\n")) == (1, 1), arguments
        assert done.err.startswith("warning: llama_c0 is stale: raw files were added")
        assert rows((tmp_path / "t.csv").read_text())[0]["verdict"] == "stale"
    done = run("-o", results, "results", "export", "--to", tmp_path / "t.csv", "--aggregate", "llama_c0")
    assert (done.status, rows((tmp_path / "t.csv").read_text())[0]["num_processes"]) == (0, "3")


def test_export_names_ten_of_many_failed_or_stale_experiments(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    for number in range(12):
        repository.save_raw(f"e{number}", factories.raw(f"e{number}", world_size=2))
    target = tmp_path / "table.csv"
    done = run("-o", tmp_path / "results", "results", "export", "--aggregate", "--to", target)
    assert (done.status, done.err.count("error: cannot aggregate")) == (1, 10)
    assert "error: 2 more experiments failed; 'llm-energy-measure -v aggregate --all' prints each reason" in done.err
    assert len(list(aggregate_all(repository, strict=False))) == 12
    for number in range(12):
        repository.save_raw(f"e{number}", factories.raw(f"e{number}", 1, world_size=2))
    done = run("-o", tmp_path / "results", "results", "export", "--to", target)
    assert (done.status, done.err.count(" is stale: ")) == (1, 10)
    assert "warning: 2 more experiments are stale; --aggregate aggregates them first" in done.err
    assert run("-o", tmp_path / "results", "results", "export", "--aggregate", "--to", target).status == 0


def test_one_command_makes_a_paper_table_of_raw_results(results: Path, tmp_path: Path) -> None:
    shutil.rmtree(results / "aggregated")
    FileSystemRepository(results).delete_experiment("torn")
    run("-o", results, "results", "tag", "llama_c0", "note=50% & more_")
    done = run("-o", results, "results", "export", "--aggregate", "--to", tmp_path / "paper.tex")
    assert done.status == 0
    lines = (tmp_path / "paper.tex").read_text().splitlines()
    assert lines[0] == "\\begin{tabular}{llllrrrl}"
    assert lines[2].startswith("id & model & precision & GPU & tokens & energy [kJ] & ")
    assert lines[4].startswith("llama\\_c0 & meta-llama/Llama-3.2-1B & ")
    assert "$\\leq$ 4.25 & " in lines[4]
    assert all(line.count(" & ") == 7 for line in [lines[2], *lines[4:8]])
    assert lines[8:10] == ["\\bottomrule", "\\end{tabular}"]
    assert lines[10].startswith("% ≤ undetermined")
    columns = "id,tag.note,config.batch_size,energy"
    for unit in ("Wh", "J"):
        args = ("--to", tmp_path / "paper.md", "--columns", columns, "--unit", unit)
        assert run("-o", results, "results", "export", *args).status == 0
        head, rule, first, *_ = (tmp_path / "paper.md").read_text().splitlines()
        assert head == f"| id | tag.note | batch\\_size | energy \\[{unit}] |"
        assert rule == "| --- | --- | ---: | ---: |"
        assert first.startswith("| llama\\_c0 | 50% & more\\_ | 8 | ≤ ")
    assert run("-o", results, "results", "export", "--raw", "--to", tmp_path / "paper.md").status == 2


# delete


def test_delete_removes_all_files_of_the_experiment_only(results: Path) -> None:
    done = run("-o", results, "results", "delete", "llama_c0", "--yes")
    assert (done.status, done.out, done.err) == (0, "", "llama_c0 deleted, 2 raw results\n")
    assert sorted(path.name for path in (results / "raw").iterdir()) == ["llama_c1", "llama_c2", "mistral", "torn"]
    assert sorted(path.name for path in (results / "aggregated").iterdir()) == ["llama_c1.json", "llama_c2.json"]
    assert run("-o", results, "results", "delete", "llama_c0", "--yes").status == 1


def test_delete_without_a_terminal_needs_yes(results: Path) -> None:
    done = run("-o", results, "results", "delete", "llama_c0", stdin="y\n")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "error: cannot delete 'llama_c0': stdin is not a terminal, so the command cannot ask for confirmation; "
        "add --yes\n"
    )
    assert (results / "raw" / "llama_c0").is_dir()


@pytest.mark.parametrize(("answer", "is_there"), [("y\n", False), ("n\n", True), ("\n", True), ("\x04", True)])
def test_delete_asks_for_confirmation_on_a_terminal(results: Path, answer: str, is_there: bool) -> None:
    done = on_terminal("-o", results, "results", "delete", "torn", typed=answer)
    assert "Delete torn with 1 raw result? This cannot be undone. [y/N]" in done.shown
    assert done.status == int(is_there)
    assert (results / "raw" / "torn").is_dir() == is_there
    assert "Traceback" not in done.shown


def test_delete_refuses_the_folder_of_another_experiment(results: Path) -> None:
    repository = FileSystemRepository(results)
    repository.save_raw("a_b", factories.raw("a_b"))
    repository.save_aggregated(factories.aggregated("c_d"))
    for name, holder in [("a/b", "a_b"), ("c/d", "c_d")]:
        done = run("-o", results, "results", "delete", name, "--yes")
        assert done.status == 1
        assert f"belongs to the experiment {holder!r}" in done.err
    assert (results / "raw" / "a_b" / "process_0.json").exists()
    assert (results / "aggregated" / "c_d.json").exists()


def test_an_unreadable_experiment_can_be_deleted(results: Path) -> None:
    (results / "raw" / "torn" / "process_1.json").write_bytes(b"")
    (results / "aggregated" / "torn.json").write_text(json.dumps({"broken": 1}))
    assert run("-o", results, "results", "delete", "torn", "--yes").status == 0
    assert not (results / "raw" / "torn").exists()
    assert not (results / "aggregated" / "torn.json").exists()


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "pipe"])
def test_export_follows_no_link_in_the_results_directory(results: Path, tmp_path: Path, form: str, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "table").write_bytes(b"mine")
    target = results / "table"
    if kind == "link to a file":
        target.symlink_to(outside / "table")
    elif kind == "link to a folder":
        target.symlink_to(outside, target_is_directory=True)
        target = target / "table"
    else:
        os.mkfifo(target)
    done = run("-o", results, "results", "export", "--to", target, "--format", form)
    assert done.status == 1
    assert f"cannot write {target}: {results / 'table'} is a " in done.err
    assert (outside / "table").read_bytes() == b"mine"
    assert [path.name for path in outside.iterdir()] == ["table"]
