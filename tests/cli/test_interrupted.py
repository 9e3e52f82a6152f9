"""Experiments whose processes were all killed are listed, and their checkpoints can be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.store import codec
from tests.support import factories
from tests.support.command import run

SCRIPT = """
import os, sys
from llm_energy_measure import record
with record("exp_7", results_dir=sys.argv[1], sources=[], environ={}, checkpoint_sec=None) as run:
    run.add_tokens(input=1, output=2)
    run._checkpoint()
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    return tmp_path


def test_killed_experiment_is_listed_as_interrupted(results: Path) -> None:
    assert "exp_7" not in run("-o", results, "results", "list").out
    listed = run("-o", results, "results", "list", "--all").out
    [row] = [line for line in listed.splitlines() if line.startswith("exp_7")]
    assert "interrupted" in row


def test_verify_all_names_a_killed_experiment_like_list(results: Path) -> None:
    repository = FileSystemRepository(results)
    repository.begin_experiment(Manifest(experiment_id="no_checkpoint", expected_processes=2))
    (results / "raw" / "empty").mkdir()
    repository.save_raw("measured", factories.raw("measured"))
    done = run("-o", results, "results", "verify", "--all")
    assert done.status == 0
    assert "interrupted, no process has a result: exp_7, no_checkpoint" in done.out.splitlines()
    assert "3 experiments verified" in done.err
    assert "2 interrupted" in done.err
    documents = run("-o", results, "results", "verify", "--all", "--json").json()
    found = {row["experiment_id"]: row["verdict"] for row in documents}
    listed = run("-o", results, "results", "list", "--all", "--json").json()
    assert found.keys() == {row["experiment_id"] for row in listed}
    assert (found["exp_7"], found["no_checkpoint"]) == ("interrupted", "interrupted")


def test_verify_reports_a_killed_experiment_as_a_warning(results: Path) -> None:
    FileSystemRepository(results).begin_experiment(Manifest(experiment_id="no_checkpoint", expected_processes=2))
    done = run("-o", results, "results", "verify", "no_checkpoint")
    assert done.status == 0
    assert done.out.splitlines()[0] == "no_checkpoint: interrupted, plain sum -"
    assert "warning completeness.missing_process: no process has a result" in done.out
    assert "2 processes are expected" in done.out
    for name in ("no_checkpoint", "exp_7"):
        assert run("-o", results, "results", "verify", name, "--fail-on", "completeness").status == 1


def test_aggregate_names_a_killed_experiment_and_the_command(results: Path) -> None:
    every = run("-o", results, "aggregate", "--all")
    assert every.status == 0
    assert "exp_7: no process has a result" in every.err
    assert "0 aggregated, 0 skipped, 0 failed, 1 interrupted" in every.err
    one = run("-o", results, "aggregate", "exp_7")
    assert one.status == 1
    assert "run 'llm-energy-measure aggregate exp_7 --no-strict' to use the last checkpoints" in one.err


def test_no_strict_says_that_there_is_no_checkpoint(results: Path) -> None:
    FileSystemRepository(results).begin_experiment(Manifest(experiment_id="early", expected_processes=1))
    done = run("-o", results, "aggregate", "early", "--no-strict")
    assert done.status == 1
    assert (
        "it has no results and no checkpoints: its processes were killed, or have not ended; run the experiment again"
        in done.err
    )


def test_no_strict_uses_the_checkpoints_of_a_killed_experiment(results: Path) -> None:
    done = run("-v", "-o", results, "aggregate", "--all", "--no-strict")
    assert done.status == 0
    assert "0 of 1 processes" in done.out
    assert "3 tokens" in done.out


@pytest.fixture
def unpublished(results: Path) -> Path:
    """An experiment whose process was killed after the temporary file of its result was complete."""
    done = factories.raw("exp_7", world_size=1)
    path = results / "raw" / "exp_7" / temporary_name_of_a_dead_process("process_0.json")
    path.write_bytes(codec.encode_raw(done))
    return results


def temporary_name_of_a_dead_process(name: str) -> str:
    code = "import sys; from llm_energy_measure.storage.temporary import unique_suffix; print(unique_suffix(), end='')"
    suffix = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    return f".{name}{suffix}"


def test_list_and_aggregate_name_an_unpublished_result(unpublished: Path) -> None:
    """sbatch kills a plain python some milliseconds after SIGTERM."""
    sentence = "is a complete result that process 0 could not publish; 'llm-energy-measure aggregate exp_7 --no-strict'"
    assert sentence in run("-o", unpublished, "results", "list", "--all").err
    assert sentence in run("-o", unpublished, "aggregate", "--all").err
    one = run("-o", unpublished, "aggregate", "exp_7")
    assert one.status == 1
    assert sentence in one.err


@pytest.mark.parametrize("which", ["exp_7", "--all"])
def test_no_strict_adopts_an_unpublished_result(unpublished: Path, which: str) -> None:
    assert run("-o", unpublished, "aggregate", which, "--no-strict").status == 0
    names = {path.name for path in (unpublished / "raw" / "exp_7").iterdir() if not path.name.startswith("claim-")}
    assert names == {"manifest.json", "process_0.json"}  # neither the temporary file nor the checkpoint is left
    repository = FileSystemRepository(unpublished)
    assert repository.load_all_raw("exp_7") == [factories.raw("exp_7", world_size=1)]
    aggregated = repository.load_aggregated("exp_7")
    assert aggregated is not None
    assert aggregated.is_lower_bound is False


def test_salvage_adopts_an_unpublished_result(unpublished: Path) -> None:
    run("-o", unpublished, "results", "check", "--salvage")
    assert FileSystemRepository(unpublished).load_all_raw("exp_7") == [factories.raw("exp_7", world_size=1)]
    assert "could not publish" not in run("-o", unpublished, "results", "list", "--all").err


def test_torn_unpublished_result_is_not_adopted(unpublished: Path) -> None:
    [path] = (unpublished / "raw" / "exp_7").glob(".process_0.json~*")
    path.write_bytes(path.read_bytes()[:-20])
    assert "could not publish" not in run("-o", unpublished, "results", "list", "--all").err
    run("-o", unpublished, "aggregate", "exp_7", "--no-strict")
    assert not FileSystemRepository(unpublished).has_raw("exp_7")
