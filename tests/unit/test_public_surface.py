"""The public API: the names that scripts import, and the calls that they make."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path

import pytest

import llm_energy_measure
from llm_energy_measure import constants, exceptions, results, security
from llm_energy_measure.domain import experiment, metrics
from tests.support import factories

PUBLIC = {
    "FileSystemRepository",
    "RepeatStatistics",
    "ResultsExporter",
    "VerifiedExperiment",
    "aggregate_all",
    "aggregate_results",
    "calculate_efficiency_metrics",
    "export_aggregated_to_csv",
    "export_raw_to_csv",
    "export_to_csv",
    "export_to_json",
    "flatten_model",
    "group_repeats",
    "recover_all",
    "repeat_statistics",
    "verify_all",
}


def test_all_lists_exactly_the_public_names() -> None:
    assert set(results.__all__) == PUBLIC
    assert results.__all__ == sorted(results.__all__)
    for name in results.__all__:
        assert getattr(results, name).__doc__, name
    assert set(results._MODULES) == set(results.__all__)
    assert set(dir(results)) >= set(results.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        results.nonsense  # noqa: B018 - the test is of the attribute access


def test_star_import_gives_the_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from llm_energy_measure.results import *", namespace)  # noqa: S102 - a star import works at module level only
    assert set(namespace) - {"__builtins__"} == set(results.__all__)


def test_other_names_that_scripts_import_exist() -> None:
    assert constants.SCHEMA_VERSION == "2.0.0"
    assert llm_energy_measure.__version__
    assert llm_energy_measure.__all__ == ["__version__", "load", "record"]
    assert callable(llm_energy_measure.load)
    for name in ("sanitize_experiment_id", "is_safe_path", "validate_path"):
        assert callable(getattr(security, name))
    for name in ("RawProcessResult", "AggregatedResult", "AggregationMetadata", "Timestamps"):
        assert hasattr(experiment, name), name
    for name in ("InferenceMetrics", "EnergyMetrics", "ComputeMetrics", "LatencyMeasurements"):
        assert hasattr(metrics, name), name
    for name in ("ConfigurationError", "AggregationError", "LLMEnergyMeasureError"):
        assert issubclass(getattr(exceptions, name), Exception)


def test_repository_has_its_public_methods() -> None:
    repository = results.FileSystemRepository
    for name, arguments in {
        "save_raw": ["experiment_id", "result"],
        "list_raw": ["experiment_id"],
        "load_raw": ["path"],
        "load_all_raw": ["experiment_id"],
        "save_aggregated": ["result"],
        "load_aggregated": ["experiment_id"],
        "list_experiments": [],
        "list_aggregated": [],
        "has_raw": ["experiment_id"],
        "has_aggregated": ["experiment_id"],
        "delete_experiment": ["experiment_id"],
    }.items():
        found = inspect.signature(getattr(repository, name)).parameters.values()
        positional = [parameter.name for parameter in found if parameter.kind == parameter.POSITIONAL_OR_KEYWORD]
        assert positional == ["self", *arguments], name
        assert getattr(repository, name).__doc__, name


@pytest.mark.parametrize("kind", [str, Path])
def test_documented_calls_of_the_api_work(
    tmp_path: Path, kind: type[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_energy_measure.results import (
        FileSystemRepository,
        aggregate_results,
        calculate_efficiency_metrics,
        export_to_csv,
        export_to_json,
    )

    monkeypatch.chdir(tmp_path)
    repo = FileSystemRepository(base_path=kind("results"))
    experiment_id = "exp/7"
    for result in factories.raws(4, experiment_id):
        path = repo.save_raw(experiment_id, result)
        assert path.is_file()
    assert [path.name for path in repo.list_raw(experiment_id)] == [f"process_{index}.json" for index in range(4)]
    assert repo.list_raw("unknown") == []
    assert repo.load_raw(kind(repo.list_raw(experiment_id)[1])) == factories.raw(experiment_id, 1)
    raw_results = repo.load_all_raw(experiment_id)
    assert repo.load_aggregated(experiment_id) is None
    assert (repo.has_raw(experiment_id), repo.has_aggregated(experiment_id)) == (True, False)

    aggregated = aggregate_results(experiment_id, raw_results)
    assert repo.save_aggregated(aggregated) == Path("results/aggregated/exp_7.json")
    assert repo.load_aggregated(experiment_id) == aggregated
    assert (repo.list_experiments(), repo.list_aggregated()) == (["exp_7"], ["exp_7"])

    efficiency = calculate_efficiency_metrics(aggregated)
    assert list(efficiency) == [
        *("tokens_per_joule", "joules_per_token", "flops_per_joule", "tokens_per_second", "effective_batch_throughput")
    ]
    assert efficiency["effective_batch_throughput"] == pytest.approx(4 * efficiency["tokens_per_second"])
    assert efficiency["tokens_per_joule"] * efficiency["joules_per_token"] == pytest.approx(1)
    assert math.isfinite(efficiency["flops_per_joule"])

    assert export_to_csv([aggregated], kind("output.csv")) == Path("output.csv")
    assert export_to_json([aggregated], kind("output.json")) == Path("output.json")
    assert Path("output.csv").read_text().count("\n") == 2
    assert repo.delete_experiment(experiment_id) is True
    assert repo.delete_experiment(experiment_id) is False
    assert repo.list_experiments() == repo.list_aggregated() == []


def test_repository_has_the_same_default_directory_as_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(constants.RESULTS_DIR_ENV, raising=False)
    assert results.FileSystemRepository().base_path == Path("results")
    monkeypatch.setenv(constants.RESULTS_DIR_ENV, str(tmp_path))
    assert results.FileSystemRepository().base_path == tmp_path
    assert results.FileSystemRepository("elsewhere").base_path == Path("elsewhere")


def test_package_imports_no_large_dependency() -> None:
    """A measuring process pays for each import: no terminal, data frame or array library."""
    code = "import sys, llm_energy_measure.results; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        set(done.stdout.split()) & {"rich", "click", "numpy", "pandas", "polars", "pyarrow", "torch", "asyncio"}
        == set()
    )
    code = "import sys, llm_energy_measure; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "msgspec" not in done.stdout
