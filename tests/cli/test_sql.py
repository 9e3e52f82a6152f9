"""`results sql` and `results export --format parquet`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from pyarrow import parquet

from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
from tests.support.command import MODULE, PATIENCE_SEC, in_one_process, run

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "select experiment_id as id, total_energy_j as j from experiments order by 1 limit 2"


def test_sql_prints_a_table(results: Path) -> None:
    done = run("-o", results, "results", "sql", QUERY)
    assert (done.status, done.err) == (0, "2 rows\n")
    assert [line.split() for line in done.out.splitlines() if "─" not in line] == [
        ["id", "j"], ["llama_c0", "4250"], ["llama_c1", "4270"],
    ]  # fmt: skip


def test_sql_reads_the_current_results(results: Path) -> None:
    count = "select count(*) as n from experiments"
    assert run("-o", results, "results", "sql", count, "--format", "json").json() == [{"n": 3}]
    run("-o", results, "aggregate", "mistral")
    assert run("-o", results, "results", "sql", count, "--format", "json").json() == [{"n": 4}]


def test_sql_writes_csv_json_and_parquet(results: Path, tmp_path: Path) -> None:
    assert (
        run("-o", results, "results", "sql", QUERY, "--format", "csv").out == "id,j\nllama_c0,4250.0\nllama_c1,4270.0\n"
    )
    assert run("-o", results, "results", "sql", QUERY, "--format", "json").json()[1] == {"id": "llama_c1", "j": 4270.0}
    done = run("-o", results, "results", "sql", QUERY, "--to", tmp_path / "x.parquet")
    assert done.err == f"2 rows written to {tmp_path / 'x.parquet'}\n"
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist()[0] == {"id": "llama_c0", "j": 4250.0}
    assert run("-o", results, "results", "sql", QUERY, "--format", "parquet").status == 2


def test_sql_refuses_a_suffix_of_another_table_format(results: Path, tmp_path: Path) -> None:
    done = run("-o", results, "results", "sql", "no query", "--to", tmp_path / "x.jsonl")
    assert (done.status, list(tmp_path.glob("x*"))) == (2, [])
    assert "cannot write a .jsonl file; use .csv, .json, .parquet, or choose the format with --format" in done.err


def test_sql_prints_sums_lists_and_maps(results: Path) -> None:
    run("-o", results, "results", "tag", "llama_c0", "paper=fig3")
    query = (
        "select sum(total_tokens) as t, sum(1.25) as x, gpus, tags, null as n from experiments "
        "where experiment_id = 'llama_c0' group by all"
    )
    [row] = run("-o", results, "results", "sql", query, "--format", "json").json()
    gpus = ["NVIDIA A100-PCIE-40GB"]
    assert row == {"t": 16484, "x": 1.25, "gpus": gpus, "tags": {"paper": "fig3"}, "n": None}
    csv = run("-o", results, "results", "sql", query, "--format", "csv").out
    assert csv.splitlines()[1] == '16484,1.25,"[""NVIDIA A100-PCIE-40GB""]","{""paper"":""fig3""}",'
    shown = run("-o", results, "results", "sql", query).out.splitlines()[2]
    assert shown.split() == ["16484", "1.25", "NVIDIA", "A100-PCIE-40GB", "paper=fig3", "-"]


def test_sql_prints_intervals_and_nested_values(results: Path) -> None:
    query = (
        "select end_time - start_time as lasted, -interval 90 second as late, interval '14 months 3 days' as long, "
        "interval 0 day as none, [sum(total_tokens)] as s, {'m': map {'a': 1.5}, 'u': [null], 'k': map {[1]: 2}} as m "
        "from experiments where experiment_id = 'llama_c0' group by all"
    )
    [row] = run("-o", results, "results", "sql", query, "--format", "json").json()
    assert row == {
        "lasted": "PT41.5S", "late": "PT-90S", "long": "P14M3D", "none": "PT0S",
        "s": [16484], "m": {"m": {"a": 1.5}, "u": [None], "k": {"[1]": 2}},
    }  # fmt: skip
    shown = run("-o", results, "results", "sql", query).out.splitlines()[2]
    assert shown.split() == ["PT41.5S", "PT-90S", "P14M3D", "PT0S", "16484", "m=a=1.5,", "u=-,", "k=[1]=2"]
    csv = run("-o", results, "results", "sql", query, "--format", "csv").out
    assert csv.splitlines()[1].startswith("PT41.5S,PT-90S,P14M3D,PT0S,[16484],")


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_sql_refuses_repeated_column_names(results: Path, tmp_path: Path, form: str) -> None:
    done = run("-o", results, "results", "sql", "select 1 as a, 2 as a", "--to", tmp_path / f"x.{form}")
    assert (done.status, list(tmp_path.glob("x.*"))) == (1, [])
    assert "several columns have the name 'a'" in done.err


def test_sql_reports_types_that_parquet_does_not_have(results: Path, tmp_path: Path) -> None:
    done = run("-o", results, "results", "sql", "select interval 1 day as i", "--to", tmp_path / "x.parquet")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("error: cannot write the rows as parquet: ")


def test_sql_reports_a_missing_dataset(results: Path, tmp_path: Path) -> None:
    done = run("-o", results, "results", "sql", "select 1", "--dataset", tmp_path / "none")
    assert (done.status, done.out) == (1, "")
    assert "there is no dataset in" in done.err
    (tmp_path / "empty").mkdir()
    count = "select count(*) as n from experiments"
    assert run("-o", tmp_path / "empty", "results", "sql", count, "--format", "json").json() == [{"n": 0}]
    assert list((tmp_path / "empty").iterdir()) == []


def test_sql_escapes_formulas_and_escape_sequences(results: Path) -> None:
    query = "select '=1+1' as a, chr(27) || '[31m' as b"
    assert run("-o", results, "results", "sql", query, "--format", "csv").out == "a,b\n'=1+1,\\x1b[31m\n"
    assert "\x1b" not in run("-o", results, "results", "sql", query).out


@pytest.mark.parametrize("query", ["select * from '/etc/passwd'", "drop view experiments", "select"])
def test_an_invalid_query_is_one_error(results: Path, query: str) -> None:
    done = run("-o", results, "results", "sql", query)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: cannot run the query: ")
    assert done.err.count("\n") == 1


def test_sql_reads_an_exported_dataset(results: Path, tmp_path: Path) -> None:
    done = run("-o", results, "results", "export", "--format", "parquet", "--to", tmp_path / "data")
    assert (done.status, done.err) == (0, f"1 month written to {tmp_path / 'data'}, 0 unchanged, 0 removed\n")
    done = run("-o", results, "results", "export", "--format", "parquet", "--to", tmp_path / "data")
    assert done.err == f"0 months written to {tmp_path / 'data'}, 1 unchanged, 0 removed\n"
    FileSystemRepository(results).save_raw("llama_c0", factories.raw("llama_c0", 2))
    counted = run(
        "results", "sql", "select count(*) as n from processes", "--dataset", tmp_path / "data", "--format", "json"
    )
    assert counted.json() == [{"n": 6}]


def test_an_empty_dataset_is_not_written(tmp_path: Path) -> None:
    done = run("-o", tmp_path, "results", "export", "--format", "parquet", "--to", tmp_path / "data")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: nothing to export: no experiment in ")
    assert list(tmp_path.iterdir()) == []
    assert run("-o", tmp_path, "results", "export", "--format", "parquet", "--to", "").status == 2


def test_sql_reports_an_unreadable_aggregate(results: Path) -> None:
    (results / "aggregated" / "llama_c1.json").write_bytes(b"{")
    done = run("-o", results, "results", "sql", "select count(*) as n from experiments", "--format", "json")
    assert (done.status, done.json()) == (1, [{"n": 2}])
    assert "warning: left out: cannot load aggregated result llama_c1.json" in done.err


@pytest.mark.parametrize("more", [["llama_c0"], ["--raw"], ["--per-process"]])
def test_parquet_exports_only_all_experiments(results: Path, tmp_path: Path, more: list[str]) -> None:
    done = run("-o", results, "results", "export", "--format", "parquet", "--to", tmp_path / "data", *more)
    assert done.status == 2
    assert not (tmp_path / "data").exists()


ALL_TYPES = "select * from test_all_types()"


def test_sql_prints_values_of_all_types(results: Path, tmp_path: Path) -> None:
    # In a child process, because another test of this process can have imported pandas, which changes pyarrow's values.
    command = ("-o", results, "results", "sql", ALL_TYPES)
    shown, as_json, csv, done = in_one_process(
        command,
        (*command, "--format", "json"),
        (*command, "--format", "csv"),
        (*command, "--to", tmp_path / "all.parquet"),
    )
    assert (shown.status, shown.err) == (0, "3 rows\n")
    rows = as_json.json()
    assert (rows[1]["uhugeint"], rows[1]["hugeint"]) == (str(2**128 - 1), 2**127 - 1)
    assert (rows[0]["date"], rows[1]["bit"]) == ("5877642-06-25 (BC)", "10101")
    assert rows[2] == dict.fromkeys(rows[2])
    assert (csv.status, csv.err) == (0, "")
    assert done.status in (0, 1)
    assert "bug" not in done.err


@pytest.mark.parametrize(
    "value",
    ["map {true: 1}", "map {date '2026-01-01': 1}", "[timestamp 'infinity']", "'a'::blob", "[1::uhugeint]", "null"],
)
def test_sql_prints_unusual_values(results: Path, value: str) -> None:
    for form in ("table", "json", "csv"):
        done = run("-o", results, "results", "sql", f"select {value} as x", "--format", form)
        assert done.status == 0, done.err


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            "select hash(range) || repeat('x', 50) as h from range(5000000) order by 1",
            "it needs more memory than",
        ),
        ("select range from range(100000000)", "the result has more than 0.05 GB"),
    ],
)
def test_sql_refuses_to_use_more_memory(results: Path, query: str, words: str) -> None:
    done = run("-o", results, "results", "sql", query, "--memory-limit", "200MB")
    assert (done.status, done.out) == (1, "")
    assert words in done.err
    assert "raise --memory-limit" in done.err


@pytest.mark.parametrize("size", ["", "-1", "0", "many", "1e400", "1 parsec"])
def test_sql_refuses_a_limit_that_is_no_size(results: Path, size: str) -> None:
    assert run("-o", results, "results", "sql", "select 1", "--memory-limit", size).status == 2


@pytest.mark.parametrize("delay_sec", [0.0, 0.3, 1.0])  # while DuckDB is imported, is prepared, or runs the query
def test_ctrl_c_interrupts_a_query(results: Path, delay_sec: float) -> None:
    endless = "select count(*) from range(10000000) a, range(10000000) b where (a.range * b.range) % 7 = 3"
    command = [*MODULE, "-o", str(results), "results", "sql", endless]
    script = (
        "import os, signal, sys, threading, time\n"
        "from llm_energy_measure.cli.main import main\n"
        "def interrupt():\n"
        "    while 'duckdb' not in sys.modules: time.sleep(0.01)\n"
        f"    time.sleep({delay_sec})\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command[len(MODULE) :]],
        capture_output=True,
        timeout=PATIENCE_SEC,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr.strip()) == (130, "error: interrupted; finished work is kept")


def test_sql_uses_the_cache_if_the_dataset_has_a_link(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (results / "dataset").mkdir()
    (results / "dataset" / "processes").symlink_to(outside, target_is_directory=True)
    done = run("-o", results, "results", "sql", "select count(*) > 0 as n from processes", "--format", "json")
    assert (done.status, done.json()) == (0, [{"n": True}])
    link = results / "dataset" / "processes"
    assert (
        f"{link}: it is a symbolic link, not a folder; move it away; the query uses the dataset {tmp_path}" in done.err
    )
    assert list(outside.iterdir()) == []
