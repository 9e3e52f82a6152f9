"""The bundle names each experiment of a selected configuration that is not in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import bundles, factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path


def save(
    repository: FileSystemRepository, name: str, processes: int, *, aggregate: bool = True, **changes: Any
) -> None:
    for record in factories.raws(processes, name, world_size=2, **changes):
        repository.save_raw(name, record)
    if aggregate:
        [outcome] = aggregate_all(repository, [name], strict=False)
        assert outcome.error is None


def selection(folder: Path, target: Path, *arguments: str) -> Any:
    done = run("-o", folder, "bundle", "create", *arguments, "--to", target)
    assert done.status == 0, done.err
    return msgspec.json.decode(bundles.unpacked(target)["data/selection.json"])


def left_out(folder: Path, target: Path, *arguments: str) -> list[str]:
    return [one["experiment_id"] for one in selection(folder, target, *arguments)["left_out"]]


def test_repeat_that_lacks_a_process_is_named(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    save(repository, "good", 2)
    save(repository, "lower_bound", 1)
    save(repository, "pending", 1, aggregate=False)
    assert left_out(tmp_path / "results", tmp_path / "a.zip", "good") == ["lower_bound", "pending"]
    assert left_out(tmp_path / "results", tmp_path / "b.zip", "pending") == ["good", "lower_bound"]


def test_other_configurations_are_not_named(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    save(repository, "good", 2)
    save(repository, "larger", 2, effective_config={"batch_size": 16})
    save(repository, "larger_pending", 1, aggregate=False, effective_config={"batch_size": 16})
    save(repository, "other_model", 2, model_name="mistral")
    save(repository, "other_model_lower_bound", 1, model_name="mistral")
    assert left_out(tmp_path / "results", tmp_path / "a.zip", "good") == []
    assert left_out(tmp_path / "results", tmp_path / "b.zip", "larger") == ["larger_pending"]


def test_experiment_without_a_known_configuration_is_named_apart(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    save(repository, "good", 2)
    torn = tmp_path / "results" / "raw" / "torn"
    torn.mkdir()
    (torn / "process_0.json").touch()
    found = selection(tmp_path / "results", tmp_path / "a.zip", "good")
    assert (found["left_out"], found["unknown_configuration"]) == ([], ["torn"])
    done = run("-o", tmp_path / "results", "bundle", "create", "good", "--to", tmp_path / "b.zip")
    assert "left out, configuration unknown: 1 other experiment" in done.err
    assert "left out, configuration unknown: 1 other experiment" in run("bundle", "verify", tmp_path / "b.zip").out


def test_bytes_do_not_depend_on_the_order_of_the_ids(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    save(repository, "one", 2)
    save(repository, "two", 2)
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    assert selection(tmp_path / "results", first, "two", "one")["requested_ids"] == ["one", "two"]
    selection(tmp_path / "results", second, "one", "two", "one")
    assert first.read_bytes() == second.read_bytes()


def test_condition_selects_experiments_that_are_not_aggregated(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    save(repository, "good", 2)
    save(repository, "pending", 2, aggregate=False)
    found = selection(tmp_path / "results", tmp_path / "a.zip", "--where", "status = pending")
    assert (found["condition"], found["found"]) == ("status = pending", ["pending"])
    assert [one["experiment_id"] for one in found["left_out"]] == ["good"]


def test_ids_with_other_characters_are_selected_by_id(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    save(repository, "a/b c", 2)
    found = selection(tmp_path / "results", tmp_path / "a.zip", "a/b c")
    assert (found["requested_ids"], found["found"]) == (["a/b c"], ["a_b_c"])
    found = selection(tmp_path / "results", tmp_path / "b.zip", "--where", 'id = "a/b c"')
    assert found["found"] == ["a_b_c"]
