"""`aggregate --assume`: facts that the records don't contain."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.cli.assume import parse_assumptions
from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.metrics import Timestamps
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository, aggregate_all, aggregate_results
from llm_energy_measure.results.batch.verify import verify_experiment
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT
START = datetime(2026, 1, 16, 19, 40, tzinfo=UTC)
NO_SCOPE = {
    "gpu_energy_j": 1000.0,
    "cpu_energy_j": None,
    "ram_energy_j": None,
    "duration_sec": 10.0,
    "gpu_scope": None,
    "total_scope": None,
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two processes of one host with equal GPU energy and no scope: one reading of the host, or two GPUs."""
    repository = FileSystemRepository(tmp_path / "results")
    for index in range(2):
        energy = factories.energy(
            total_energy_j=1000.0, gpu_energy_j=1000.0, cpu_energy_j=None, ram_energy_j=None, duration_sec=10.0
        )
        record = factories.raw(process_index=index, host="a", gpu_id=index, gpu_name=None, energy_metrics=energy)
        repository.save_raw(EXP, record)
    return repository.base_path


def stored(results: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((results / "aggregated" / f"{EXP}.json").read_text(encoding="utf-8"))
    return document


def test_an_assumption_decides_and_is_recorded(results: Path) -> None:
    assert run("-o", results, "aggregate", EXP).status == 0
    without = stored(results)
    assert (without["attribution_status"], without["attributed_energy_j"]) == ("undetermined", None)
    assert "assumptions" not in without
    done = run("-o", results, "aggregate", EXP, "--assume", "gpu-scope=host")
    assert done.status == 0
    assert f"{EXP}: assumed gpu-scope=host: each process read all GPUs of its host" in done.err
    assumed = stored(results)
    assert assumed["attributed_energy_j"] == pytest.approx(1000.0)
    assert assumed["attribution_status"] == "estimated"
    assert "assumed" in str(assumed["attribution_basis"])
    assert assumed["assumptions"] == {"gpu_scope": "host", "hosts": None, "boards": None, "board": None}
    for command in ("list", "show", "verify"):
        names = [] if command == "list" else [EXP]
        assert "over-counted (assumed)" in run("-o", results, "results", command, *names).out
    verdict = verify_experiment(FileSystemRepository(results), EXP)
    assert verdict.attributed_energy_j == pytest.approx(1000.0)
    assert [one.outcome for one in verdict.findings if one.code == "aggregate.recomputed"] == ["passed"]


@pytest.mark.parametrize("host", ["a", None])
@pytest.mark.parametrize("watts", [450, 900], ids=["undetermined", "estimated"])
def test_over_count_that_stated_boards_prove_is_marked(tmp_path: Path, host: str | None, watts: int) -> None:
    """Four boards of 250 W: four readings of 450 W need more of them, and each reading of 900 W needs all."""
    repository = FileSystemRepository(tmp_path / "results")
    for index in range(4):
        energies: dict[str, Any] = {**NO_SCOPE, "total_energy_j": 12.5 * watts, "gpu_energy_j": 12.5 * watts}
        energy = factories.energy(**energies)
        times = Timestamps(start=START, end=START + timedelta(seconds=10), duration_sec=10.0)
        facts: dict[str, Any] = {
            "host": host,
            "gpu_id": index,
            "gpu_name": "NVIDIA A100-PCIE-40GB",
            "timestamps": times,
        }
        repository.save_raw(EXP, factories.raw(process_index=index, energy_metrics=energy, **facts))
    assert run("-o", repository.base_path, "aggregate", EXP, "--assume", "boards=4").status == 0
    for command in ("list", "show", "verify"):
        names = [] if command == "list" else [EXP]
        assert "over-counted (assumed)" in run("-o", repository.base_path, "results", command, *names).out


def test_an_assumption_is_kept_until_it_is_replaced(results: Path) -> None:
    repository = FileSystemRepository(results)
    run("-o", results, "aggregate", EXP, "--assume", "gpu-scope=host")
    [outcome] = aggregate_all(repository, [EXP])
    assert outcome.result == "current"
    [outcome] = aggregate_all(repository, [EXP], force=True)
    assert outcome.aggregated is not None
    assert outcome.aggregated.assumptions == Assumptions(gpu_scope="host")
    [outcome] = aggregate_all(repository, [EXP], assume=Assumptions(gpu_scope="host"))
    assert outcome.result == "current"
    done = run("-o", results, "aggregate", EXP, "--assume", "gpu-scope=device")
    assert done.status == 0
    assert "only the GPU that it names (if a process read more GPUs, the energy is too high)" in done.err
    assert stored(results)["attributed_energy_j"] == pytest.approx(2000.0)
    assert run("-o", results, "aggregate", EXP, "--assume", "none").status == 0
    assert "assumptions" not in stored(results)


def test_aggregate_results_takes_assumptions(results: Path) -> None:
    raw = FileSystemRepository(results).load_all_raw(EXP)
    result = aggregate_results(EXP, raw, assume=Assumptions(gpu_scope="device"))
    assert result.attributed_energy_j == pytest.approx(2000.0)
    assert result.assumptions == Assumptions(gpu_scope="device")


def test_all_keys_are_parsed() -> None:
    words = ["gpu-scope=process", "hosts=2", "boards=8", "board=NVIDIA A100-PCIE-40GB"]
    expected = Assumptions(gpu_scope="process", hosts=2, boards=8, board="NVIDIA A100-PCIE-40GB")
    assert parse_assumptions(words) == expected
    assert parse_assumptions(["none"]) == parse_assumptions([]) == Assumptions()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gpu_scope=host"], r"'gpu_scope' is not a fact that can be assumed; did you mean gpu-scope=\.\.\.\?"),
        (["colour=red"], "use one of gpu-scope, hosts, boards, board"),
        (["gpu-scope=node"], "'node' is not a scope; use one of"),
        (["hosts=0"], "'0' is not a whole number from 1 to 1,000,000; use a whole number, such as 2"),
        (["hosts="], "'' is not a whole number"),
        (["boards=1.5"], "'1.5' is not a whole number"),
        (["hosts=1", "hosts=2"], "hosts is stated twice; state hosts once"),
        (["board= "], "the name is empty"),
        (["board=4"], "'4' is not the name of a board; for a number of boards, write boards=4"),
        (["none", "hosts=1"], "'none' is not a fact"),
    ],
)
def test_a_wrong_assumption_is_one_sentence(words: list[str], message: str, results: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_assumptions(words)
    arguments = [argument for word in words for argument in ("--assume", word)]
    done = run("-o", results, "aggregate", EXP, *arguments)
    assert done.status == 2
    assert "--assume" in done.err
