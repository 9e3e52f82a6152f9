"""`record` measures an unchanged command. `doctor` shows which sensors work."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.recorder.command import TreeTime
from llm_energy_measure.recorder.running import OUTER_ENV
from llm_energy_measure.recorder.sources import source_names
from llm_energy_measure.results import FileSystemRepository
from tests.support.aggregation import aggregate_one
from tests.support.command import MODULE, as_process, run

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

ALONE = {"RANK": "", "WORLD_SIZE": "", "SLURM_STEP_ID": "", "LLM_ENERGY_MEASURE_W_PER_CORE": ""}
BURN_SEC = 0.5
BURN = f"import time\nend = time.process_time() + {BURN_SEC}\nwhile time.process_time() < end: pass"
PATIENCE_SEC = 60


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALONE:
        monkeypatch.delenv(name, raising=False)


def saved(folder: Path) -> RawProcessResult:
    [path] = (folder / "raw").glob("*/process_0.json")
    return FileSystemRepository(folder).load_raw(path)


def test_a_command_is_measured_with_its_children(tmp_path: Path) -> None:
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n{BURN}"
    done = as_process(
        *("-o", tmp_path, "record", "--experiment", "exp_7", "--model", "m", "--w-per-core", "10", "--"),
        *(sys.executable, "-c", child),
    )
    assert (done.status, done.out) == (0, "")
    assert "warning: cpu energy is modelled, not measured (cpu_model 10 W per core)" in done.err
    assert re.search(r"raw/exp_7/process_0\.json: completed, [\d.]+ m?J in", done.err)
    result = saved(tmp_path)
    energy_j = result.energy_metrics.total_energy_j
    assert energy_j is not None
    assert energy_j >= 2 * 0.3 * 10
    assert (result.experiment_id, result.model_name, result.status) == ("exp_7", "m", "completed")
    assert result.cli_overrides == {"command": [sys.executable, "-c", child]}
    assert (result.inference_metrics, result.energy_metrics.total_provenance) == (None, "modelled")
    assert aggregate_one(FileSystemRepository(tmp_path), "exp_7").result == "aggregated"


def test_a_recording_inside_a_command_names_the_outer_experiment(tmp_path: Path) -> None:
    """Both count the CPU time of the inner process."""
    outer = ["record", "--experiment", "outer", "--source", "cpu_model", "--w-per-core", "10"]
    inner = [*MODULE, "-o", str(tmp_path), "record", "--experiment", "inner", "--source", "cpu_model"]
    done = as_process(
        "-o", tmp_path, *outer, "--", "sh", "-c", f"{shlex.join([*inner, '--w-per-core', '10'])} -- true; :"
    )
    assert done.status == 0
    found = "experiment 'outer' also measures the energy of this process, so do not add both energies"
    assert f"warning: inner: {found}" in done.err.splitlines()
    repository = FileSystemRepository(tmp_path)
    [result] = repository.load_all_raw("inner")
    assert found in (result.energy_measurement_warning or "")
    verified = run("-o", tmp_path, "results", "verify", "inner")
    assert f"warning provenance.tool_warning: process 0: {found}" in verified.out
    [result] = repository.load_all_raw("outer")
    assert "also measures" not in (result.energy_measurement_warning or "")


@pytest.mark.parametrize("outer", ["0 outer", "x outer", "outer", "999999999 outer"])
def test_outer_recording_of_another_machine_warns_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: str
) -> None:
    """A batch system can copy the variable to another machine."""
    monkeypatch.setenv(OUTER_ENV, outer)
    arguments = ["-o", tmp_path, "record", "--experiment", "e", "--source", "cpu_model", "--w-per-core", "10"]
    done = as_process(*arguments, "--", "true")
    assert "also measures" not in done.err


def test_a_recording_inside_one_without_energy_warns_of_nothing(tmp_path: Path) -> None:
    outer = ["record", "--experiment", "outer", "--no-energy", "--"]
    inner = [*MODULE, "-o", str(tmp_path), "record", "--experiment", "inner", "--source", "cpu_model"]
    done = as_process("-o", tmp_path, *outer, *inner, "--w-per-core", "10", "--", "true")
    assert done.status == 0
    assert "also measures" not in done.err


def test_a_record_without_energy_prints_one_warning(tmp_path: Path) -> None:
    def lines(*more: str) -> list[str]:
        arguments = (
            "-o",
            tmp_path / "".join(more),
            *more,
            "record",
            "--experiment",
            "e",
            "--source",
            "cpu_model",
            "--",
        )
        return as_process(*arguments, "true").err.splitlines()

    messages = lines()
    assert messages[0] == (
        "warning: e: no energy sensor works here, so the energy of this run is unknown; "
        "run 'llm-energy-measure doctor' for the reasons, or state the power of a CPU core with --w-per-core "
        "(w_per_core); --require-energy (require_energy=True) refuses such a run"
    )
    assert [line.partition(": ")[2].partition(",")[0] for line in messages[1:]] == ["completed"]
    assert lines("-q") == messages[:1]
    assert "the power per core is not stated" in lines("-v")[1]


def test_the_command_keeps_its_streams_and_exit_status(tmp_path: Path) -> None:
    code = "import sys\nprint('out', sys.argv[1:])\nprint('err', file=sys.stderr)\nsys.exit(3)"
    done = as_process("-o", tmp_path, "-q", "record", "--no-energy", sys.executable, "-c", code, "--flag", "-o", "x")
    assert (done.status, done.out) == (3, "out ['--flag', '-o', 'x']\n")
    assert done.err == "err\n"
    result = saved(tmp_path)
    assert (result.status, result.error_type) == ("failed", "exit status 3")
    assert re.fullmatch(r"python[\d.]*-\d{8}T\d{6}Z-\d+", result.experiment_id)


def test_the_command_keeps_its_exit_status_if_nothing_can_be_saved(tmp_path: Path) -> None:
    results, spare = tmp_path / "results", tmp_path / "spare"
    spoil = f"rm -r {results}/raw; touch {results}/raw; exit 3"
    done = as_process(
        *("-o", results, "record", "--experiment", "exp_7", "--no-energy", "--", "sh", "-c", spoil),
        env={"LLM_ENERGY_MEASURE_FALLBACK_DIR": str(spare)},
    )
    assert done.status == 3
    assert f"copy it with 'llm-energy-measure results merge {spare}'" in done.err
    printed = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert [(record["experiment_id"], record["error_type"]) for record in printed] == [("exp_7", "exit status 3")]
    assert saved(spare).error_type == "exit status 3"


def test_show_prints_energy_tokens_and_verdict(tmp_path: Path) -> None:
    done = as_process(
        *("-o", tmp_path, "record", "--show", "--experiment", "e", "--no-energy", "--", "true"),
    )
    assert done.status == 0
    assert re.search(r"^energy unknown, - tokens, unknown energy per token, verdict \w+$", done.err, re.MULTILINE)


def test_show_prints_the_energy_without_idle_energy(tmp_path: Path) -> None:
    done = as_process(
        *("-o", tmp_path, "record", "--show", "--experiment", "e", "--w-per-core", "4", "--source", "cpu_model"),
        *("--idle", "0.05", "--samples", "--", sys.executable, "-c", "print(sum(range(10**6)))"),
    )
    assert done.status == 0
    assert re.search(r"^energy [0-9.e-]+ \w*J \([0-9.e-]+ \w*J without idle energy\), - tokens", done.err, re.MULTILINE)
    assert "no samples are recorded" in done.err


def test_removed_results_directory_is_created_again(tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = as_process("-o", results, "record", "--experiment", "exp_7", "--no-energy", "--", "rm", "-r", results)
    assert done.status == 0
    assert saved(results).status == "completed"


def test_a_command_killed_by_a_signal_is_interrupted(tmp_path: Path) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    done = as_process("-o", tmp_path, "record", "--no-energy", "--", sys.executable, "-c", code)
    assert done.status == 128 + signal.SIGKILL
    assert (saved(tmp_path).status, saved(tmp_path).error_type) == ("interrupted", "SIGKILL")


@pytest.mark.parametrize(
    ("number", "ended"),
    [(signal.SIGTERM, ("interrupted", "SIGTERM")), (signal.SIGUSR1, ("failed", "exit status 5"))],
)
def test_signals_are_forwarded_to_the_command(tmp_path: Path, number: signal.Signals, ended: tuple[str, str]) -> None:
    ready = tmp_path / "ready"
    code = (
        f"import signal, sys, time\nsignal.signal({int(number)}, lambda *_: sys.exit(5))\n"
        f"open({str(ready)!r}, 'w').close()\ntime.sleep({PATIENCE_SEC})"
    )
    arguments = ["-o", str(tmp_path / "results"), "record", "--no-energy", "--", sys.executable, "-c", code]
    process = subprocess.Popen([*MODULE, *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_SEC
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(PATIENCE_SEC) == 5
    result = saved(tmp_path / "results")
    assert (result.status, result.error_type) == ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_start_prevents_the_start(tmp_path: Path, number: signal.Signals) -> None:
    results, ran = tmp_path / "results", tmp_path / "ran"
    measuring = ["record", "--experiment", "e", "--w-per-core", "1", "--idle", str(PATIENCE_SEC)]
    process = subprocess.Popen(
        [*MODULE, "-o", str(results), *measuring, "--", "touch", str(ran)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + PATIENCE_SEC
    while not list(results.glob("raw/e/claim-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(PATIENCE_SEC / 2) == 128 + number
    assert not ran.exists()
    assert list(results.glob("raw/e/process_*")) == []


def test_a_command_that_cannot_run_exits_as_in_a_shell(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo hi\n")
    arguments = ["-o", tmp_path / "results", "record", "--experiment", "e", "--no-energy", "--", tmp_path / "script"]
    refused = as_process(*arguments)
    assert (refused.status, "it is not executable" in refused.err) == (126, True)
    (tmp_path / "script").chmod(0o755)
    refused = as_process(*arguments)
    assert (refused.status, "Exec format error; check the command" in refused.err) == (126, True)
    assert (saved(tmp_path / "results").status, "Traceback" in refused.err) == ("failed", False)


def test_ranks_come_from_the_launcher_or_from_options(tmp_path: Path) -> None:
    launcher = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    done = as_process("-o", tmp_path, "record", "--no-energy", "--", "true", env=launcher)
    assert (done.status, "--experiment ID" in done.err) == (2, True)
    assert as_process("-o", tmp_path, "record", "--experiment", "e", "--no-energy", "true", env=launcher).status == 0
    options = ["--experiment", "e", "--no-energy", "--process-index", "0", "--world-size", "2"]
    assert as_process("-o", tmp_path, "record", *options, "true").status == 0
    assert [path.name for path in FileSystemRepository(tmp_path).list_raw("e")] == ["process_0.json", "process_1.json"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Give the command to measure after --"),
        (["--", "no-such-program-anywhere"], 127, "cannot run 'no-such-program-anywhere': there is no such program"),
        (["--source", "nope", "--", "true"], 1, "there is no such source; choose from nvml, amdsmi, rapl"),
        (["--source", "cpu_model", "--require-energy", "--", "true"], 1, "the power per core is not stated"),
        (["--w-per-core", "0", "--", "true"], 2, "--w-per-core"),
        (["--process-index", "3", "--", "true"], 1, "set both process_index and world_size"),
    ],
)
def test_invalid_arguments_start_no_command(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    done = run("-o", tmp_path / "results", "record", *arguments)
    assert done.status == status
    assert message in done.err
    assert not (tmp_path / "results").exists()


def test_a_used_experiment_id_needs_an_attempt(tmp_path: Path) -> None:
    arguments = ["-o", tmp_path / "results", "record", "--experiment", "e", "--no-energy", "--"]
    assert as_process(*arguments, "true").status == 0
    done = as_process(*arguments, "touch", tmp_path / "ran")
    assert (done.status, "process 0 already has a result" in done.err) == (1, True)
    assert not (tmp_path / "ran").exists()
    assert "pass attempt='next' (--attempt next)" in done.err
    arguments.insert(-1, "--attempt=1")
    assert as_process(*arguments, "touch", tmp_path / "ran").status == 0
    assert FileSystemRepository(tmp_path / "results").list_attempts("e") == [0]


def test_the_cpu_time_of_a_process_tree_never_decreases() -> None:
    cpu_time = TreeTime()
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])"
    process = subprocess.Popen([sys.executable, "-c", child])
    cpu_time.pid = process.pid
    seen = [cpu_time()]
    while process.poll() is None:
        seen.append(cpu_time())
        time.sleep(0.01)
    cpu_time.pid = None
    seen.append(cpu_time())
    assert seen == sorted(seen)
    assert max(seen[:-1]) > BURN_SEC / 5  # while the grandchild was running
    assert seen[-1] >= BURN_SEC


def test_doctor_reports_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("doctor", "--json", "--w-per-core", "4")
    assert done.status == 0
    checks = {check["source"]: check for check in done.json()}
    assert list(checks) == source_names()
    [model] = checks["cpu_model"]["sensors"]
    assert (model["provenance"], model["scope"], model["power_w"] >= 0) == ("modelled", "process", True)
    for check in checks.values():
        assert check["works"] or (check["problem"] and check["advice"]), check
    shown = run("doctor", "--w-per-core", "4")
    assert "cpu_model  4 W per core" in shown.out
    for name, check in checks.items():
        if not check["works"]:
            assert f"{name} does not work: {check['problem'][:20]}" in shown.out
    assert "sources that 'record' uses by default: " in shown.err
    assert json.loads(json.dumps(list(checks.values()))) == done.json()


def test_doctor_says_how_to_use_a_source_that_is_no_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table alone looks as if `record` would measure with it. An installed CodeCarbon is such a source."""
    info = tmp_path / "wall_meter-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wall-meter\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[llm_energy_measure.sources]\nwall = wall_meter_of_doctor:make\n")
    code = "from tests.support.replay import steady_watts\ndef make(): return steady_watts(5.0)\n"
    (tmp_path / "wall_meter_of_doctor.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = run("doctor", "--w-per-core", "4").out.splitlines()
    assert "wall works, but only with --source wall (sources=['wall'])" in lines
    assert not any(line.startswith("cpu_model works") for line in lines)


def test_doctor_says_that_a_directory_is_not_checked(tmp_path: Path) -> None:
    for place in (str(tmp_path), f"file://{tmp_path}"):
        assert f"{place}: a directory; only buckets are checked\n" in run("-o", place, "doctor").err
    assert "missing: the directory does not exist; only buckets are checked\n" in run("-o", "missing", "doctor").err
    assert "only buckets are checked" not in run("doctor").err


def test_config_and_tags_are_recorded(tmp_path: Path) -> None:
    settings = ("--config", "batching.batch_size=8", "--config", "precision=float16", "--config", "stop=[1]")
    done = run(
        *("-o", tmp_path, "record", "--experiment", "e", "--no-energy", *settings, "--tag", "commit=a1b2c3d"),
        *("--tag", "night=1", "--", "true"),
    )
    assert done.status == 0
    assert saved(tmp_path).effective_config == {
        "batching": {"batch_size": 8},
        "precision": "float16",
        "stop": [1],
    }
    assert run("-o", tmp_path, "results", "tag", "e").out.split() == ["commit", "a1b2c3d", "night", "1"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--config", "batch_size"), "it is not a setting"),
        (("--config", "a..b=1"), "it is not a setting"),
        (("--config", "a=1", "--config", "a.b=2"), "the key has another value already"),
        (("--config", "a.b=1", "--config", "a=2"), "the key has another value already"),
        (("--tag", "commit="), "its value is empty; write commit=VALUE"),
        (("--tag", "1x=y"), "is not a valid tag name"),
    ],
)
def test_invalid_settings_and_tags_are_wrong_usage(tmp_path: Path, option: tuple[str, ...], message: str) -> None:
    done = run("-o", tmp_path, "record", "--experiment", "e", "--no-energy", *option, "--", "touch", tmp_path / "ran")
    assert (done.status, message in done.err, (tmp_path / "ran").exists()) == (2, True, False)
