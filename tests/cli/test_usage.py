"""Help, shared options, exit status, streams and shell completion of all commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import jsonschema
import pytest

import llm_energy_measure
from llm_energy_measure.cli.main import bundle as bundle_command
from llm_energy_measure.cli.main import cli
from llm_energy_measure.cli.main import results as results_command
from llm_energy_measure.domain.schema import json_schema
from tests.support.command import MODULE, as_process, run

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [(), *((name,) for name in cli.lazy), *(("results", name) for name in results_command.lazy)]
COMMANDS += [("bundle", name) for name in bundle_command.lazy]
READ_NO_RESULTS = {("schema",), ("bundle", "verify"), ("bundle", "open")}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"Usage: llm-energy-measure {' '.join(command)}".strip())
    assert "Examples:\n    llm-energy-measure" in done.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_has_a_sentence_of_help(command: tuple[str, ...]) -> None:
    found: click.Command = cli
    for name in command:
        assert isinstance(found, click.Group)
        known = found.get_command(click.Context(found), name)
        assert known is not None
        found = known
    for option in found.params:
        if isinstance(option, click.Option):
            words = (option.help or "").partition(" [")[0]
            assert words.endswith("."), option.name
            assert len(words.split()) > 1, option.name
            assert option.metavar or option.is_flag or isinstance(option.type, click.Choice), option.name


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in READ_NO_RESULTS], ids=" ".join)
def test_every_command_that_reads_results_accepts_a_directory(command: tuple[str, ...]) -> None:
    assert "-o, --results-dir DIR" in run(*command, "--help").out


def test_help_lists_the_commands() -> None:
    groups = (["--help"], cli), (["results", "--help"], results_command), (["bundle", "--help"], bundle_command)
    for arguments, group in groups:
        lines = run(*arguments).out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
        assert [line.split()[0] for line in lines if line[2] != " "] == list(group.lazy)


def test_version() -> None:
    assert run("--version").out == f"llm-energy-measure, version {llm_energy_measure.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["results", "nonsense"],
        ["results", "list", "--nonsense"],
        ["results", "list", "--sort", "colour"],
        ["results", "list", "--limit", "-1"],
        ["results", "list", "--limit", "many"],
        ["results", "show"],
        ["results", "delete"],
        ["results", "export"],
        ["results", "export", "--to", "x.csv", "--raw", "--per-process"],
        ["results", "export", "--to", "x.csv", "--format", "xlsx"],
        ["aggregate"],
        ["aggregate", "--all", "llama_c0"],
        ["aggregate", "--all", "--expected-processes", "0"],
        ["aggregate", "--all", "--strategy", "nonsense"],
        ["schema"],
        ["schema", "nonsense"],
        ["-o", "", "results", "list"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_error_and_exit_status_2(
    results: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ENERGY_MEASURE_RESULTS_DIR", str(results))
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.count("Error: ") == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize("nothing", ["", " "])
@pytest.mark.parametrize(
    "arguments",
    [
        "-o {} results list",
        "results list -o {}",
        "results list --model {}",
        "results merge {}",
        "results merge other {}",
        "results export --to {}",
        "results export --to {} --format parquet",
        "results sql x --to {}",
        "results sql x --dataset {}",
        "import {}",
        "import raw {} --dry-run",
        "import raw --join {}",
        "import raw --host {}",
        "import raw --gpu-uuids {}",
        "record --experiment {} -- true",
        "record --model {} -- true",
        "record --config-name {} -- true",
        "record --backend {} -- true",
        "record --gpu {} -- true",
    ],
)
def test_an_empty_name_is_refused(results: Path, arguments: str, nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset shell variable gives an empty name, which must not select the current folder."""
    monkeypatch.setenv("LLM_ENERGY_MEASURE_RESULTS_DIR", str(results))
    monkeypatch.chdir(results)
    before = sorted(results.rglob("*"))
    done = run(*(nothing if word == "{}" else word for word in arguments.split()))
    assert (done.status, done.out) == (2, "")
    assert done.err.endswith(": the value is empty\n")
    assert sorted(results.rglob("*")) == before


@pytest.mark.parametrize("nothing", ["", " "])
@pytest.mark.parametrize(
    "arguments",
    [
        *(
            "aggregate {}",
            "results show {}",
            "results delete {} --yes",
            "results export {} --to -",
            "results tag {} a=b",
        ),
        *("results verify {}", "results check {}"),
    ],
)
def test_an_empty_id_is_refused(results: Path, arguments: str, nothing: str) -> None:
    before = sorted(results.rglob("*"))
    done = run("-o", results, *(nothing if word == "{}" else word for word in arguments.split()))
    assert (done.status, done.out) == (1, "")
    assert done.err == f"error: cannot use the experiment id: {nothing!r} is empty; use another id\n"
    assert sorted(results.rglob("*")) == before


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("list", "llm-energy-measure results list"),
        ("lst", "llm-energy-measure results list"),
        ("exprot --to x.csv", "llm-energy-measure results export' or 'llm-energy-measure results plot"),
        ("agregate --all", "llm-energy-measure aggregate"),
        ("resuls list", "llm-energy-measure results"),
        ("results lst", "llm-energy-measure results list"),
        ("results aggregate --all", "llm-energy-measure aggregate"),
        ("results import x.csv", "llm-energy-measure import"),
        ("results verfy", "llm-energy-measure results verify"),
    ],
)
def test_an_unknown_command_suggests_similar_commands(typed: str, meant: str) -> None:
    done = run(*typed.split())
    assert (done.status, done.out) == (2, "")
    word = typed.replace("results ", "").split()[0]
    assert done.err.splitlines()[-1] == f"Error: No such command {word!r}; did you mean '{meant}'?"


def test_an_unknown_command_without_similar_ones_suggests_none() -> None:
    assert run("nonsense").err.endswith("Error: No such command 'nonsense'.\n")


def test_an_unknown_strategy_is_refused_before_any_work(results: Path) -> None:
    done = run("-o", results, "aggregate", "--all", "--strategy", "mean")
    assert done.status == 2
    assert "choose one of sum_energy_avg_throughput" in done.err
    assert not (results / "aggregated" / "mistral.json").exists()


def test_results_dir_is_accepted_at_all_levels_and_the_last_wins(results: Path, tmp_path: Path) -> None:
    wanted = ["llama_c0", "llama_c1", "llama_c2"]
    for arguments in (
        ["-o", results, "results", "list", "--json"],
        ["results", "-o", results, "list", "--json"],
        ["results", "list", "--json", "-o", results],
        ["results", "list", f"--results-dir={results}", "--json"],
        ["-o", tmp_path / "nowhere", "results", "-o", tmp_path / "nowhere", "list", "--json", "-o", results],
    ):
        assert [row["experiment_id"] for row in run(*arguments).json()] == wanted, arguments
    assert run("aggregate", "llama_c0", "-o", results).status == 0


def test_the_environment_variable_sets_the_default_directory(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ENERGY_MEASURE_RESULTS_DIR", str(results))
    assert len(run("results", "list", "--json").json()) == 3
    (tmp_path / "empty").mkdir()
    assert run("results", "list", "--json", "-o", tmp_path / "empty").json() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record", "--w-per-core", "4W", "--", "true"], "'4W' is not a valid number."),
        (["aggregate", "--all", "--jobs", "x"], "'x' is not a valid whole number."),
    ],
)
def test_wrong_number_is_named_in_plain_words(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.status, message in done.err) == (2, True)


def test_the_default_directory_is_results(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_ENERGY_MEASURE_RESULTS_DIR", raising=False)
    monkeypatch.chdir(results.parent)
    assert len(run("results", "list", "--json").json()) == 3
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = run("results", "list")
    assert done.status == 1
    assert done.err == (
        "error: cannot read results in results: the directory does not exist; "
        "record or import results first, or use another -o DIR\n"
    )


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        (".", "results"),
        ("results/raw", "results"),
        ("results/aggregated", "results"),
        ("results/raw/llama_c0", "results"),
        ("elsewhere", None),
    ],
)
def test_a_folder_without_results_suggests_a_results_directory(
    results: Path, named: str, meant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    (results.parent / "elsewhere").mkdir()
    (results.parent / "elsewhere" / "notes.txt").touch()
    advice = "use another one with -o DIR" if meant is None else f"did you mean -o {meant}?"
    warning = f"warning: {named} has no results: it contains neither raw/ nor aggregated/; {advice}\n"
    for command in (["results", "list"], ["results", "list", "--json"], ["results", "check"], ["aggregate", "x"]):
        assert run("-o", named, *command).err.startswith(warning), command


def test_an_empty_folder_or_one_with_only_aggregates_has_no_warning(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("-o", tmp_path / "empty", "results", "list").err == "0 experiments\n"
    (tmp_path / "empty" / ".gitkeep").touch()
    assert run("-o", tmp_path / "empty", "results", "list").err == "0 experiments\n"
    shutil.rmtree(results / "raw")
    assert run("-o", results, "results", "list").err == "3 experiments\n"


def test_quiet_prints_only_errors_and_reasons_of_a_failure(results: Path) -> None:
    assert run("-o", results, "results", "list").err == (
        "3 experiments; 2 not aggregated yet (--all lists them, 'aggregate --all' aggregates them)\n"
    )
    assert run("-q", "-o", results, "results", "list").err == ""
    (results / "raw" / "llama_c0" / "process_1.json").write_bytes(b"")
    done = run("-q", "-o", results, "results", "list", "--rehash")
    assert done.err == "warning: llama_c0/process_1.json is unreadable: the file is empty (0 bytes)\n"


@pytest.mark.parametrize("words", [["-q", "results", "list"], ["results", "-q", "list"], ["results", "list", "-q"]])
def test_verbosity_is_accepted_at_all_levels(results: Path, words: list[str]) -> None:
    assert run("-o", results, *words).err == ""
    done = run("-o", results, "-v", *words)
    assert done.err == "", "the last option wins"
    assert run("-o", results, *words, "-v").err.startswith("3 experiments")


def test_verbose_prints_skipped_experiments(results: Path) -> None:
    assert "llama_c0 is up to date" not in run("-o", results, "aggregate", "--all").err
    assert "llama_c0 is up to date\n" in run("-v", "-o", results, "aggregate", "--all").err
    assert "llama_c0 is up to date\n" in run("-o", results, "aggregate", "--all", "-v").err


@pytest.mark.parametrize(
    "command", [["results", "show"], ["aggregate"], ["results", "delete", "--yes"], ["results", "export", "--to", "-"]]
)
def test_an_unknown_id_suggests_similar_ids(results: Path, command: list[str]) -> None:
    done = run("-o", results, *command, "lama_c1")
    assert (done.status, done.out) == (1, "")
    assert "experiment 'lama_c1' not found" in done.err
    assert "did you mean llama_c1 or " in done.err
    assert "run 'llm-energy-measure results list --all' to list all ids" in run("-o", results, *command, "zzz").err


@pytest.mark.parametrize("kind", ["raw", "aggregated"])
def test_schema_prints_the_json_schema(kind: str) -> None:
    done = run("schema", kind)
    assert (done.status, done.err) == (0, "")
    assert done.json() == json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(done.json())


def test_stdout_is_valid_json_despite_unreadable_files(results: Path) -> None:
    (results / "raw" / "llama_c0" / "process_1.json").write_bytes(b"")
    (results / "raw" / "mistral" / "process_0.json").write_bytes(b'{"a": 1')
    for arguments in (
        ["results", "list", "--all", "--json", "--rehash"],
        ["results", "show", "llama_c0", "--json"],
        ["results", "show", "llama_c0", "--raw", "--json"],
        ["results", "export", "--raw", "--to", "-", "--format", "json"],
        ["aggregate", "--all", "--rehash", "--json"],
    ):
        done = run("-o", results, *arguments)
        assert done.status == 1, arguments
        assert "process_1.json is unreadable" in done.err or "process_1.json" in done.err, arguments
        done.json()


# Shell completion


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("llm-energy-measure -o {folder} results show ", ["llama_c0", "llama_c1", "llama_c2", "mistral", "torn"]),
        ("llm-energy-measure -o {folder} results show lla", ["llama_c0", "llama_c1", "llama_c2"]),
        ("llm-energy-measure aggregate -o {folder} llama_c0 mi", ["mistral"]),
        ("llm-energy-measure results export -o {folder} --to x.csv to", ["torn"]),
        ("llm-energy-measure results delete -o {folder} zzz", []),
        ("llm-energy-measure results show -o {folder}/raw/torn/process_1.json x", []),
        ("llm-energy-measure results ", list(results_command.lazy)),
    ],
)
def test_the_shell_completes_ids(results: Path, words: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed = words.format(folder=results)
    monkeypatch.setenv("_LLM_ENERGY_MEASURE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    done = run()
    assert (done.status, done.err) == (0, "")
    assert [line.partition(",")[2] for line in done.out.split()] == wanted


@pytest.mark.parametrize(
    "words", ["import ", "import --join ", "results export --to ", "results merge ", "-o ", "results sql x --to "]
)
def test_the_shell_completes_file_names(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LLM_ENERGY_MEASURE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"llm-energy-measure {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    assert run().out == "file,\n"


# Separate processes

COMMAND = """
import sys
from llm_energy_measure.cli.main import main
try:
    main()
except SystemExit:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def _imported_by(*arguments: object) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)], capture_output=True, check=True, text=True
    )
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


def test_help_imports_neither_msgspec_nor_rich() -> None:
    assert _imported_by("--help") & {"rich", "msgspec", "csv", "json"} == set()


def test_list_json_does_not_import_rich(results: Path) -> None:
    assert _imported_by("-o", results, "results", "list", "--json") & {"rich", "pygments"} == set()


def test_python_m_runs_the_same_command() -> None:
    done = as_process("--version")
    assert done == run("--version")


@pytest.mark.parametrize(
    "arguments",
    ["results list", "results list --json", "results show llama_c0", "results export --to -", "schema raw", "--help"],
)
def test_a_closed_pipe_is_not_an_error(results: Path, arguments: str) -> None:
    """`| true` closes the pipe and reads nothing."""
    with subprocess.Popen(
        [*MODULE, "-q", "-o", str(results), *arguments.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_url_of_an_unknown_kind_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["results", "list"], ["aggregate", "--all"], ["results", "check"], ["import", str(tmp_path)]):
        done = run("-o", "ftp://bucket/results", *arguments)
        assert done.status != 0, arguments
        assert (
            "no store for the scheme 'ftp' exists; use a folder, s3://BUCKET/PREFIX, gs://... or az://..." in done.err
        )
        assert list(tmp_path.iterdir()) == []
