"""Aggregates that another program changed: every command says `altered`, and none uses their figures as complete."""

from __future__ import annotations

import csv
import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from pyarrow import parquet

from llm_energy_measure.exceptions import ResultAlteredError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.verification.codes import joules
from tests.support.command import run
from tests.support.faults_of_records import honest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "llama_c1"


@pytest.fixture(scope="session")
def complete_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three aggregated experiments without any finding of severity error, and with known energy."""
    folder = tmp_path_factory.mktemp("complete") / "results"
    repository = FileSystemRepository(folder)
    for name in ("llama_c0", NAME, "llama_c2"):
        for record in honest():
            repository.save_raw(name, msgspec.structs.replace(record, experiment_id=name))
    assert [outcome.result for outcome in aggregate_all(repository)] == ["aggregated"] * 3
    return folder


@pytest.fixture
def results(complete_results: Path, tmp_path: Path) -> Path:
    """Return a copy of `complete_results`, which the test may change."""
    return shutil.copytree(complete_results, tmp_path / "results")


TRUE_J = sum(record.energy_metrics.total_energy_j or 0.0 for record in honest())
HALF_J = TRUE_J / 2


def halve_total(document: dict[str, Any]) -> None:
    document["total_energy_j"] /= 2


def halve_process(document: dict[str, Any]) -> None:
    document["process_results"][1]["energy_metrics"]["total_energy_j"] /= 2


def change_host(document: dict[str, Any]) -> None:
    document["process_results"][0]["host"] = "other"


def edit(results: Path, change: Callable[[dict[str, Any]], object], **layout: Any) -> Path:
    """Change the aggregate of an experiment with another JSON writer."""
    path = results / "aggregated" / f"{NAME}.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document, **layout))
    return path


@pytest.fixture(params=[halve_total, halve_process, change_host])
def altered(results: Path, request: pytest.FixtureRequest) -> Path:
    edit(results, request.param, indent=4, sort_keys=True)
    return results


@pytest.fixture
def halved(results: Path) -> Path:
    edit(results, halve_total)
    return results


def verdicts(results: Path, *arguments: str) -> dict[str, str]:
    listed = run("-o", results, "results", "list", "--json", *arguments).json()
    return {row["experiment_id"]: row["verdict"] for row in listed}


def test_list_says_altered_and_shows_no_figure_of_it(altered: Path) -> None:
    done = run("-o", altered, "results", "list", "--json")
    assert done.status == 1
    [row] = [row for row in done.json() if row["experiment_id"] == NAME]
    assert (row["status"], row["verdict"], row["total_energy_j"]) == ("altered", "altered", None)
    assert f"aggregated/{NAME}.json is altered" in done.err
    assert f"run 'llm-energy-measure results verify {NAME}'" in done.err


def test_list_finds_an_edit_after_an_earlier_list(results: Path) -> None:
    assert verdicts(results)[NAME] == "complete"
    edit(results, halve_total)
    assert verdicts(results, "--rehash")[NAME] == "altered"
    assert verdicts(results, "--rehash")["llama_c0"] == "complete"


def test_condition_selects_altered_experiments(halved: Path) -> None:
    done = run("-o", halved, "results", "list", "--where", "verdict = altered", "--json")
    assert [row["experiment_id"] for row in done.json()] == [NAME]


def test_totals_leave_the_altered_figure_out(halved: Path) -> None:
    [group] = run("-o", halved, "results", "list", "--totals", "--json").json()
    assert (group["experiments"], group["unknown_energy"]) == (3, 1)


@pytest.mark.parametrize("option", [("--totals",), ("--by", "model"), ("--totals", "--json"), ("--limit", "0")])
def test_status_shows_that_totals_contain_an_altered_result(halved: Path, option: tuple[str, ...]) -> None:
    done = run("-o", halved, "results", "list", *option)
    assert done.status == 1
    if option == ("--limit", "0"):
        assert "1 more problem not shown" in done.err
    else:
        assert f"aggregated/{NAME}.json is altered" in done.err
    if option == ("--totals",):
        header, _, row = done.out.splitlines()
        assert header.split()[:2] == ["experiments", "energy"]
        assert row.split()[:2] == ["3", "≥"], "the energy of the altered result is missing"
    others = run("-o", halved, "results", "list", *option, "--where", "verdict = complete")
    assert (others.status, "altered" in others.err) == (0, False)


def test_reformatted_aggregate_keeps_its_verdict(results: Path) -> None:
    edit(results, dict.copy, indent=1, sort_keys=True)
    assert verdicts(results)[NAME] == "complete"
    assert run("-o", results, "results", "check").status == 0
    done = run("-o", results, "results", "verify", NAME)
    assert (done.status, "complete" in done.out) == (0, True)


def test_aggregate_of_an_earlier_release_is_unsealed(results: Path) -> None:
    def unseal(document: dict[str, Any]) -> None:
        del document["values_sha256"], document["processes_sha256"]

    edit(results, unseal)
    assert verdicts(results)[NAME] == "unsealed"
    assert run("-o", results, "results", "show", NAME).out.splitlines()[1].split() == ["verdict", "unsealed"]
    assert run("-o", results, "results", "verify", NAME, "--json").json()[0]["verdict"] == "unsealed"
    assert run("-o", results, "results", "export", NAME, "--to", "-").status == 0
    assert run("-o", results, "aggregate", NAME, "--force").status == 0
    assert verdicts(results)[NAME] == "complete"


def test_show_names_the_verdict_and_fails(altered: Path) -> None:
    done = run("-o", altered, "results", "show", NAME)
    assert done.status == 1
    assert done.out.splitlines()[1].split() == ["verdict", "altered"]
    assert "is altered" in done.err


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_export_leaves_the_altered_experiment_out(altered: Path, form: str) -> None:
    done = run("-o", altered, "results", "export", "--to", "-", "--format", form)
    assert done.status == 1
    assert NAME not in done.out
    assert "llama_c0" in done.out
    assert f"aggregated result {NAME}.json: it is altered: another program changed its values" in done.err


def test_export_of_the_altered_experiment_alone_writes_nothing(halved: Path, tmp_path: Path) -> None:
    assert run("-o", halved, "results", "export", NAME, "--to", tmp_path / "t.csv").status == 1
    assert not (tmp_path / "t.csv").exists()


def test_export_of_raw_results_is_not_affected(altered: Path) -> None:
    done = run("-o", altered, "results", "export", NAME, "--raw", "--to", "-")
    assert done.status == 0
    assert len(list(csv.DictReader(io.StringIO(done.out)))) == len(honest())


def test_repeats_leave_the_altered_experiment_out(altered: Path) -> None:
    done = run("-o", altered, "results", "repeats", "--json")
    assert done.status == 1
    found = done.json()
    assert all(NAME not in group["experiment_ids"] for group in found["groups"])
    assert f"aggregated/{NAME}.json is altered" in found["left_out"][NAME]


def test_sql_shows_the_verdict_and_no_figures(altered: Path) -> None:
    query = "select verdict, total_energy_j from experiments where experiment_id = 'llama_c1'"
    done = run("-o", altered, "results", "sql", query, "--format", "json")
    assert done.status == 1
    assert done.json() == [{"verdict": "altered", "total_energy_j": None}]
    assert f"left out: cannot load aggregated result {NAME}.json" in done.err


def test_sql_rewrites_a_dataset_that_another_program_changed(results: Path, tmp_path: Path) -> None:
    query = "select sum(total_energy_j) as j from experiments"
    total = run("-o", results, "results", "sql", query, "--format", "json").json()
    [part] = (results / "dataset" / "experiments").glob("*/*.parquet")
    shutil.copytree(results / "dataset", tmp_path / "copy")
    changed = parquet.read_table(part).slice(1)
    for path in (part, *(tmp_path / "copy" / "experiments").glob("*/*.parquet")):
        parquet.write_table(changed.replace_schema_metadata(parquet.read_metadata(path).metadata), path)
    done = run("-o", results, "results", "sql", query, "--format", "json")
    assert (done.status, done.json()) == (0, total)
    done = run("results", "sql", query, "--format", "json", "--dataset", tmp_path / "copy")
    assert done.status == 1
    assert "part-0.parquet was changed after the export" in done.err


def test_sql_ignores_months_that_another_program_added(results: Path) -> None:
    query = "select count(*) as n from experiments"
    assert run("-o", results, "results", "sql", query, "--format", "json").json() == [{"n": 3}]
    [part] = (results / "dataset" / "experiments").glob("*/*.parquet")
    added = part.parent.with_name("month=1999-01") / part.name
    added.parent.mkdir()
    parquet.write_table(parquet.read_table(part).replace_schema_metadata(None), added)
    assert run("-o", results, "results", "sql", query, "--format", "json").json() == [{"n": 3}]
    assert added.exists()


def test_check_names_the_altered_aggregate(altered: Path) -> None:
    done = run("-o", altered, "results", "check", "--json")
    assert done.status == 1
    [finding] = [finding for finding in done.json() if finding["code"] == "aggregate.altered"]
    assert finding["key"] == f"aggregated/{NAME}.json"
    assert "llm-energy-measure aggregate" in finding["advice"]


def test_verify_names_the_value_in_the_file_and_the_true_one(halved: Path) -> None:
    done = run("-o", halved, "results", "verify", NAME)
    assert done.status == 1
    assert done.out.startswith(f"{NAME}: altered, plain sum 32.01 kJ")
    assert f"the file claims {joules(HALF_J)}, and {joules(TRUE_J)} follows from the raw files" in done.out
    assert f"total_energy_j is {HALF_J} in the aggregate, and {TRUE_J} if it is recomputed" in done.out


def test_verify_names_each_differing_field(results: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["total_energy_j"] = document["plain_energy_j"] = 1.0
        document["effective_config"]["batch_size"] = 99
        document["process_results"][1]["energy_metrics"]["total_energy_j"] = 2.0

    edit(results, change)
    [verdict] = run("-o", results, "results", "verify", NAME, "--json").json()
    assert verdict["verdict"] == "altered"
    found = {finding["message"] for finding in verdict["findings"] if finding["outcome"] == "failed"}
    for message in (
        f"total_energy_j is 1.0 in the aggregate, and {TRUE_J} if it is recomputed",
        f"plain_energy_j is 1.0 in the aggregate, and {TRUE_J} if it is recomputed",
        "process_1.json, energy_metrics.total_energy_j is 2.0 in the aggregate, and 8001.0 in the raw file",
    ):
        assert message in found
    assert any(message.startswith("effective_config.batch_size is 99 in the aggregate") for message in found)


def test_verify_reports_an_altered_value_that_no_raw_file_gives(results: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["assumptions"] = {"hosts": 1}

    edit(results, change)
    [verdict] = run("-o", results, "results", "verify", NAME, "--json").json()
    assert verdict["verdict"] == "altered"


@pytest.mark.parametrize("arguments", [["--all"], [NAME]])
def test_aggregate_repairs_the_aggregate_and_keeps_the_file(altered: Path, arguments: list[str]) -> None:
    path = altered / "aggregated" / f"{NAME}.json"
    edited = path.read_bytes()
    done = run("-o", altered, "aggregate", *arguments)
    assert done.status == 0
    assert f"{NAME}: another program changed values of the aggregate" in done.err
    assert json.loads(path.read_bytes())["total_energy_j"] == TRUE_J
    assert path.with_name(f"superseded-{NAME}-1.json.kept").read_bytes() == edited
    assert verdicts(altered)[NAME] == "complete"


def test_altered_aggregate_without_raw_files_stays_altered(halved: Path) -> None:
    for path in (halved / "raw" / NAME).iterdir():
        path.unlink()
    (halved / "raw" / NAME).rmdir()
    assert verdicts(halved)[NAME] == "altered"
    assert run("-o", halved, "aggregate", NAME).status == 1
    done = run("-o", halved, "results", "verify", NAME)
    assert done.out.startswith(f"{NAME}: altered")
    assert f"the file claims {joules(HALF_J)}, and an unknown energy follows from the raw files" in done.out


def test_loading_an_altered_aggregate_raises(altered: Path) -> None:
    repository = FileSystemRepository(altered)
    for load in (repository.load_aggregated, repository.load_summary):
        with pytest.raises(ResultAlteredError, match=f"{NAME}.json: it is altered: another program changed its values"):
            load(NAME)


def test_altered_experiment_can_be_deleted(altered: Path) -> None:
    assert FileSystemRepository(altered).delete_experiment(NAME) is True
    assert NAME not in verdicts(altered)
