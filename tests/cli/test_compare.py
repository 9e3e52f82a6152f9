"""`results compare` and `results order`: selections, formats, exit status."""

from __future__ import annotations

import os
import shlex
import subprocess
import xml.etree.ElementTree as ET
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.tags import change_tags
from tests.support import factories
from tests.support.command import MODULE, Done, on_terminal, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FAST = [2000.0, 2010.0, 1990.0, 2005.0, 1995.0]
SLOW = [value * 1.1 for value in FAST]


def save(repository: FileSystemRepository, name: str, joules: float, minute: int, **changes: Any) -> None:
    """Save the record of one process whose energy is known."""
    record = factories.raw(
        name,
        timestamps=factories.timestamps(factories.START + timedelta(minutes=minute)),
        energy_metrics=factories.energy(total_energy_j=joules, gpu_energy_j=joules, cpu_energy_j=0.0, ram_energy_j=0.0),
        world_size=1,
        **changes,
    )
    repository.save_raw(name, record)


def sweep(folder: Path, commits: dict[str, Sequence[float]], *, sizes: Sequence[int] = (1, 8), **changes: Any) -> Path:
    """Create results: for each commit and batch size, one run per energy. Runs of the commits take turns."""
    repository = FileSystemRepository(folder)
    tags = []
    for index, (commit, energies) in enumerate(commits.items()):
        for size in sizes:
            for number, joules in enumerate(energies):
                name = f"{commit}_b{size}_c{number}"
                save(
                    repository,
                    name,
                    joules * size,
                    10 * number + index,
                    effective_config={"batch_size": size},
                    **changes,
                )
                tags.append((name, commit))
    assert {outcome.result for outcome in aggregate_all(repository)} == {"aggregated"}
    for name, commit in tags:
        change_tags(repository.store, name, {"commit": commit})
    return folder


@pytest.fixture(scope="module")
def two_commits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tmp_path_factory.mktemp("commits") / "results", {"aaa": FAST, "bbb": SLOW})


def compared(results: Path, *arguments: object) -> Done:
    return run("-o", results, "results", "compare", *arguments)


def by_commit(results: Path, *arguments: object) -> Done:
    return compared(results, "--by", "tag.commit", "--base", "aaa", *arguments)


def test_table_has_one_row_for_each_common_configuration(two_commits: Path) -> None:
    done = by_commit(two_commits)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "energy per token (j_per_token, lower is better)"
    assert lines[1:3] == ["base: tag.commit = aaa", "new:  tag.commit = bbb"]
    assert lines[3].split("  ")[0] == "configuration"
    assert "base (n=5)" in lines[3]
    assert lines[5].startswith("batch_size=1")
    assert "+10.0 %" in lines[5]
    assert lines[5].split()[-2:] == ["<0.001", "worse"]
    assert "geometric mean of 2 common configurations: +10.0 %" in lines
    assert "p is adjusted for 2 rows (Holm); the interval is not adjusted" in lines


@pytest.mark.parametrize("columns", [200, 120, 80, 60, 40])
def test_table_fits_the_terminal(two_commits: Path, columns: int) -> None:
    done = on_terminal(
        *("-q", "-o", two_commits, "results", "compare", "--by", "tag.commit", "--base", "aaa"), columns=columns
    )
    assert done.status == 0
    lines = done.shown.splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("geometric mean"))
    assert max(map(cell_len, lines[3:end])) <= columns


def test_conditions_and_directories_select_the_sides(two_commits: Path, tmp_path: Path) -> None:
    """The same comparison, selected by two conditions and by two directories."""
    expected = by_commit(two_commits, "--format", "json").json()["tables"][0]["rows"]
    conditions = compared(two_commits, "tag.commit = aaa", "tag.commit = bbb", "--format", "json")
    assert conditions.json()["tables"][0]["rows"] == expected
    base, new = sweep(tmp_path / "a", {"aaa": FAST}), sweep(tmp_path / "b", {"bbb": SLOW})
    directories = run("results", "compare", base, new, "--format", "json")
    [table] = directories.json()["tables"]
    assert [row["ratio"] for row in table["rows"]] == [row["ratio"] for row in expected]
    assert table["candidate"] == str(new)


def test_long_condition_is_no_file_name(two_commits: Path) -> None:
    long = " or ".join(["tag.commit = bbb"] * 300)
    assert compared(two_commits, "tag.commit = aaa", long, "--fail-on", "worse").status == 3


def test_gate_exits_with_3_only_if_its_condition_is_met(two_commits: Path, tmp_path: Path) -> None:
    assert by_commit(two_commits, "--fail-on", "worse").status == 3
    assert by_commit(two_commits, "--fail-on", "undecided,confounded").status == 0
    swapped = compared(two_commits, "--by", "tag.commit", "--base", "bbb", "--fail-on", "worse,undecided")
    assert (swapped.status, swapped.out.count("better")) == (0, 3)  # two rows and the heading
    same = sweep(tmp_path / "same", {"aaa": FAST, "bbb": [value * 1.001 for value in FAST]})
    assert by_commit(same, "--fail-on", "worse,undecided").status == 0
    first, second = sweep(tmp_path / "one", {"aaa": FAST}), sweep(tmp_path / "two", {"bbb": SLOW})
    assert run("results", "compare", first, second, "--fail-on", "confounded").status == 0


def test_gate_keeps_its_exit_status_if_the_reader_of_stdout_exits(two_commits: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    options = ["--by", "tag.commit", "--base", "aaa", "--fail-on", "worse"]
    done = subprocess.run(
        [*MODULE, "-o", two_commits, "results", "compare", *options], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == 3
    assert b"cannot print all output" in done.stderr


def test_nightly_gate_is_confounded_and_still_works(tmp_path: Path) -> None:
    """All runs of the base are older, so each row has the mark next to its verdict."""
    old = sweep(tmp_path / "old", {"aaa": FAST}, sizes=[1])
    repository = FileSystemRepository(tmp_path / "new")
    for number, joules in enumerate(SLOW):
        save(repository, f"new_{number}", joules, 1000 + number, effective_config={"batch_size": 1})
    assert {outcome.result for outcome in aggregate_all(repository)} == {"aggregated"}
    done = run("results", "compare", old, tmp_path / "new", "--fail-on", "worse")
    assert done.status == 3
    assert "worse, confounded" in done.out
    assert "confounded: all runs of one side started before all runs of the other; 'llm-energy-measure" in done.out
    assert run("results", "compare", old, tmp_path / "new", "--fail-on", "confounded").status == 3
    assert run("results", "compare", old, tmp_path / "new", "--fail-on", "undecided").status == 0


def test_one_repeat_has_no_verdict_and_counts_as_undecided(tmp_path: Path) -> None:
    results = sweep(tmp_path / "results", {"aaa": FAST, "bbb": SLOW[:1]}, sizes=[1])
    done = by_commit(results, "--fail-on", "worse")
    assert done.status == 0
    assert "no verdict (n=1)" in done.out
    assert "warning: one run on a side" in done.out
    assert by_commit(results, "--fail-on", "undecided").status == 3


def test_several_candidates_and_metrics_have_one_table_each(tmp_path: Path) -> None:
    results = sweep(tmp_path / "results", {"aaa": FAST, "bbb": SLOW, "ccc": FAST[::-1]}, sizes=[1])
    done = by_commit(results, "--metric", "energy", "--metric", "power", "--format", "json")
    document = done.json()
    assert [(table["candidate"], table["metric"]) for table in document["tables"]] == [
        (f"tag.commit = {commit}", metric) for commit in ("bbb", "ccc") for metric in ("energy", "power")
    ]
    assert document["tests"] == 4


def test_candidates_are_sorted_by_value(tmp_path: Path) -> None:
    results = sweep(tmp_path / "results", {"aaa": FAST}, sizes=[1, 8, 32, 128])
    document = compared(results, "--by", "config.batch_size", "--base", "1", "--format", "json").json()
    assert [table["candidate"] for table in document["tables"]] == [
        f"config.batch_size = {size}" for size in (8, 32, 128)
    ]


def test_junit_has_a_failure_for_each_row_that_meets_a_condition(two_commits: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.xml"
    done = by_commit(two_commits, "--fail-on", "worse", "--to", target)
    assert (done.status, done.out) == (3, "")
    assert done.err == f"2 rows (2 worse) written to {target}\n"
    [suite] = ET.parse(target).getroot()  # noqa: S314 - the test wrote this file
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "2", "0")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["batch_size=1", "batch_size=8"]
    assert [failure.get("message") for failure in suite.iter("failure")] == ["worse: +10.0 %"] * 2
    by_commit(two_commits, "--to", target)
    assert ET.parse(target).getroot()[0].get("failures") == "0"  # noqa: S314 - as above


def test_markdown_escapes_names(two_commits: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.md"
    assert by_commit(two_commits, "--to", target).status == 0
    lines = target.read_text(encoding="utf-8").splitlines()
    assert "| configuration | base (n=5) | new (n=5) | change | 95 % CI | p (Holm) | verdict |" in lines
    assert any(line.startswith("| batch\\_size=1 | ") and "| &lt;0.001 | worse |" in line for line in lines)


def test_table_in_a_file_equals_the_printed_one(two_commits: Path, tmp_path: Path) -> None:
    by_commit(two_commits, "--to", tmp_path / "table.txt")
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == by_commit(two_commits).out
    assert by_commit(two_commits, "--to", "-").out == by_commit(two_commits).out


def test_no_file_is_written_through_a_link_in_the_results(tmp_path: Path) -> None:
    results = sweep(tmp_path / "results", {"aaa": FAST, "bbb": SLOW}, sizes=[1])
    (tmp_path / "outside").mkdir()
    (results / "reports").symlink_to(tmp_path / "outside")
    for done in (
        by_commit(results, "--to", results / "reports" / "table.md"),
        run("-o", results, "results", "repeats", "--to", results / "reports" / "table.md"),
    ):
        assert done.status == 1
        assert "is a symbolic link" in done.err
    assert list((tmp_path / "outside").iterdir()) == []


def test_unlike_runs_are_refused_unless_the_field_may_vary(tmp_path: Path) -> None:
    base = sweep(tmp_path / "a", {"aaa": FAST}, gpu_name="NVIDIA A100")
    new = sweep(tmp_path / "b", {"bbb": SLOW}, gpu_name="NVIDIA H100")
    done = run("results", "compare", base, new, "--fail-on", "worse")
    assert (done.status, done.out) == (1, "")
    assert "gpu is 'NVIDIA A100' in aaa_b1_c0 and 'NVIDIA H100' in bbb_b1_c0" in done.err
    assert run("results", "compare", base, new, "--vary", "gpu", "--fail-on", "worse").status == 3


def test_unlike_candidate_does_not_stop_the_comparison_of_others(tmp_path: Path) -> None:
    results = sweep(tmp_path / "results", {"aaa": FAST, "bbb": SLOW}, sizes=[1])
    repository = FileSystemRepository(results)
    for number, joules in enumerate(FAST):
        save(repository, f"ccc_{number}", joules, 7, model_name="other", effective_config={"batch_size": 1})
        change_tags(repository.store, f"ccc_{number}", {"commit": "ccc"})
    list(aggregate_all(repository))
    done = by_commit(results, "--vary", "model", "--ignore", "model")
    assert done.status == 0
    done = by_commit(results, "--ignore", "model")
    assert done.status == 4
    assert "worse" in done.out
    unlike = "not compared: tag.commit = ccc (j_per_token): cannot compare these runs: model_name is "
    assert unlike in " ".join(done.out.split())
    document = by_commit(results, "--ignore", "model", "--json").json()
    [refused] = document["not_compared"]
    assert (refused["field"], len(refused["values"])) == ("model_name", 2)
    assert by_commit(results, "--ignore", "model", "--fail-on", "worse").status == 3
    report = tmp_path / "report.xml"
    assert "1 row (1 worse); 1 not compared" in by_commit(results, "--ignore", "model", "--to", report).err
    errors = ET.parse(report).getroot().iter("error")  # noqa: S314 - the command wrote this file
    assert [error.get("message", "")[:25] for error in errors] == ["cannot compare these runs"]


def test_pending_experiments_are_named(tmp_path: Path) -> None:
    results = sweep(tmp_path / "results", {"aaa": FAST, "bbb": SLOW}, sizes=[1])
    repository = FileSystemRepository(results)
    save(repository, "bbb_new", 2000.0, 90, effective_config={"batch_size": 1})
    pending = "not aggregated; run 'llm-energy-measure aggregate bbb_new'"
    done = by_commit(results)
    assert (done.status, done.err) == (0, f"warning: left out: bbb_new has no tag.commit: {pending}\n")
    change_tags(repository.store, "bbb_new", {"commit": "bbb"})
    [table] = by_commit(results, "--json").json()["tables"]
    assert [(one["experiment_id"], one["reason"]) for one in table["left_out"]] == [("bbb_new", pending)]


def test_ignored_key_of_one_side_does_not_separate_runs(tmp_path: Path) -> None:
    """The candidate has a key that the base lacks, and its runs differ in it."""
    base = sweep(tmp_path / "base", {"aaa": FAST}, sizes=[8])
    repository = FileSystemRepository(tmp_path / "new")
    for number, joules in enumerate(SLOW):
        save(repository, f"new_{number}", joules * 8, number, effective_config={"batch_size": 8, "trial": number})
    assert {outcome.result for outcome in aggregate_all(repository)} == {"aggregated"}
    done = run("results", "compare", base, tmp_path / "new")
    assert (done.status, done.out) == (1, "")
    assert "trial is 0 in new_0 and 1 in new_1, on the same side; " in done.err
    assert "pass --ignore trial" in done.err
    assert run("results", "compare", base, tmp_path / "new", "--ignore", "trial", "--fail-on", "worse").status == 3


def test_paired_test_by_tag(two_commits: Path, tmp_path: Path) -> None:
    results = sweep(tmp_path / "results", {"aaa": FAST, "bbb": SLOW[::-1]}, sizes=[1])
    for commit in ("aaa", "bbb"):
        for number in range(5):
            run("-o", results, "results", "tag", f"{commit}_b1_c{number}", f"block={number}")
    done = by_commit(results, "--block", "tag.block")
    assert "paired over 5 blocks" in done.out
    assert "warning: 1 common blocks: the test is not paired" in by_commit(two_commits, "--block", "date").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give BASE and CAND, or --by COLUMN with --base VALUE."),
        (["tag.commit = aaa"], "Give BASE and CAND"),
        (["a = 1", "b = 2", "--base", "x"], "Give BASE and CAND"),
        (["--by", "tag.commit"], "--by COLUMN needs --base VALUE"),
        (["x", "--by", "tag.commit", "--base", "aaa"], "--by COLUMN needs --base VALUE"),
        (["--by", "colour", "--base", "aaa"], "there is no column 'colour'; use tag.KEY, config.KEY, "),
        (["--by", "config.colour", "--base", "aaa"], "no configuration has the key 'colour'"),
        (["resluts", "tag.commit = aaa"], "'resluts' is neither a directory nor a condition: there is no"),
        (["aaa_b1_c0", "tag.commit = aaa"], 'to select an experiment, write "id = aaa_b1_c0"'),
        (["old/", "tag.commit = aaa"], "there is no directory with this name; give an existing directory"),
        (["a b", "tag.commit = aaa"], "there is no column 'a'"),
        (["--by", "batch_size", "--base", "1"], "there is no column 'batch_size'; did you mean config.batch_size?"),
        (["--by", "config.model", "--base", "1"], "no configuration has the key 'model'; did you mean model"),
        (["tag.commit = aaa", "tag.commit = bbb", "--block", "colour"], "there is no column 'colour'"),
        (["tag.commit = aaa", "tag.commit = bbb", "--vary", "colour"], "no configuration has the key 'colour'"),
        (["tag.commit = aaa", "tag.commit = bbb", "--ignore", "colour"], "cannot ignore: no configuration has the key"),
        (["--by", "tag.commit", "--base", "aaa", "--where", "x"], "Invalid value for --where: cannot filter by '(x)'"),
        (["a", "b", "--margin", "3"], "'3' is not a margin between 0 and 1; write 3% or 0.03"),
        (["a", "b", "--margin", "some"], "'some' is not a margin"),
        (["a", "b", "--fail-on", "better"], "'better' is not one of worse, undecided, confounded"),
        (["a", "b", "--metric", "colour"], "'colour' is not one of"),
    ],
)
def test_wrong_usage_exits_with_2(two_commits: Path, arguments: list[str], message: str) -> None:
    done = compared(two_commits, *arguments)
    assert (done.status, done.out) == (2, "")
    assert message in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "tag.commit", "--base", "ccc"], "no run has the value 'ccc'; choose the base from: aaa, bbb"),
        (["--by", "tag.x", "--base", "ccc"], "no run has the value 'ccc'"),
        (
            ["tag.commit = aaa", "tag.commit = ccc"],
            "cannot compare 'tag.commit = ccc': no aggregated experiment matches; = compares the whole text; ",
        ),
        (["tag.commit = aaa", "tag.commit = aaa"], "each run is left out, for example aaa_b1_c0: copy"),
        (["missing/", "tag.commit = aaa"], "missing/"),
    ],
)
def test_comparison_that_is_not_possible_exits_with_1(two_commits: Path, arguments: list[str], message: str) -> None:
    done = compared(two_commits, *arguments, "--fail-on", "worse")
    assert (done.status, done.out) == (2 if arguments[0] == "missing/" else 1, "")
    assert message in done.err


def test_runs_without_an_aggregate_name_the_command_that_aggregates_them(tmp_path: Path) -> None:
    save(FileSystemRepository(tmp_path), "old", 1000.0, 0)
    done = compared(tmp_path, "id = old", "id ~ x")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "error: cannot compare 'id = old': old is not aggregated; run 'llm-energy-measure aggregate --all'\n"
    )


def test_plain_sums_are_compared_on_request(two_commits: Path) -> None:
    done = by_commit(two_commits, "--energy", "plain")
    assert done.out.startswith("energy per token from plain sums (j_per_token, lower is better)\n")


def test_margin_is_a_percentage_or_a_fraction(two_commits: Path) -> None:
    for margin in ("12%", "12 %", "0.12", ".12"):
        document = by_commit(two_commits, "--margin", margin, "--format", "json").json()
        assert document["margin"] == pytest.approx(0.12)
        assert {row["verdict"] for row in document["tables"][0]["rows"]} == {"equivalent"}


def test_order_prints_shell_lines_of_randomised_blocks() -> None:
    done = run("results", "order", "b1=python run.py", "b4=torchrun run.py --id {id}", "--repeats", "2", "--seed", "1")
    assert (done.status, done.err) == (0, "")
    assert (
        done.out
        == run(
            "results", "order", "b1=python run.py", "b4=torchrun run.py --id {id}", "--repeats", "2", "--seed", "1"
        ).out
    )
    lines = done.out.splitlines()
    assert lines[0] == "# Randomised blocks; --seed 1 prints this order again."
    recorded = "llm-energy-measure record --experiment b1_c{} --config-name b1 --tag block={} -- python run.py"
    blocks = [lines[2:4], lines[5:7], lines[8:10]]
    assert [lines[1], lines[4], lines[7]] == [
        *("# Warm-up: leave these runs out of the comparison.", "# Block 1", "# Block 2"),
    ]
    assert sorted(blocks[0]) == ["python run.py", "torchrun run.py --id b4_warmup"]
    for number in range(2):
        assert sorted(blocks[number + 1]) == [recorded.format(number, number + 1), f"torchrun run.py --id b4_c{number}"]


def test_order_prints_json_with_the_seed() -> None:
    document = run("results", "order", "./a.sh", "b=x", "--repeats", "3", "--no-warm-up", "--format", "json").json()
    runs = document["runs"]
    assert len(runs) == 6
    assert [entry["block"] for entry in runs] == [1, 1, 2, 2, 3, 3]
    assert {entry["configuration"] for entry in runs} == {"a", "b"}
    assert (
        run(
            "results",
            "order",
            "./a.sh",
            "b=x",
            "--repeats",
            "3",
            "--no-warm-up",
            "--format",
            "json",
            "--seed",
            document["seed"],
        ).json()
        == document
    )


def test_order_repeats_the_results_directory_in_its_lines(tmp_path: Path) -> None:
    folder = str(tmp_path / "my results")
    recorded = [line for line in run("-o", folder, "results", "order", "a=x").out.splitlines() if " record " in line]
    assert len(recorded) == 5
    for line in recorded:
        words = shlex.split(line)
        assert words[:4] == ["llm-energy-measure", "-o", folder, "record"]


def test_order_refuses_two_commands_of_one_name() -> None:
    done = run("results", "order", "a=x", "a=y")
    assert done.status == 2
    assert "two commands have the name 'a'" in done.err


def test_questions_of_a_paper_have_an_answer_in_the_shell(tmp_path: Path) -> None:
    """Is int8 better than fp16 at batch size 32? Did last night get worse? Which runs were left out, and why?"""
    results = tmp_path / "results"
    repository = FileSystemRepository(results)
    for minute, (precision, factor) in enumerate([("float16", 1.0), ("int8", 0.8)]):
        for size in (1, 32):
            for number, joules in enumerate(FAST):
                save(
                    repository,
                    f"{precision}_b{size}_c{number}",
                    joules * factor,
                    10 * number + minute,
                    effective_config={"batch_size": size, "fp_precision": precision},
                    compute_metrics=factories.compute(compute_precision=precision),
                )
    repository.save_raw("killed", factories.raw("killed", world_size=2, effective_config={"batch_size": 32}))
    assert sum(outcome.result == "aggregated" for outcome in aggregate_all(repository, strict=False)) == 21
    done = compared(results, "precision = float16", "precision = int8", "--where", "config.batch_size = 32")
    assert done.status == 0
    assert done.out.splitlines()[7].split()[-2:] == ["<0.001", "better"]
    assert "left out of base: killed: lower bound: 1 of 2 processes" in done.out

    done = run("-o", results, "results", "repeats", "--metrics", "j_per_token", "--format", "latex")
    assert done.status == 0
    assert done.out.count(r"\pm") == 4

    last_night = sweep(tmp_path / "nightly", {"bbb": SLOW}, sizes=[1, 32])
    baseline = sweep(tmp_path / "baseline", {"aaa": FAST}, sizes=[1, 32])
    assert run("results", "compare", baseline, last_night, "--fail-on", "worse").status == 3
    assert run("results", "compare", last_night, baseline, "--fail-on", "worse").status == 0
