"""`load`: experiments of a results directory as frames, repeats, comparisons and notebook tables."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from llm_energy_measure import load
from llm_energy_measure.catalogue import dataset
from llm_energy_measure.catalogue.dataset import write_dataset
from llm_energy_measure.catalogue.frames import to_pandas
from llm_energy_measure.exceptions import ConfigurationError, MissingExtraError, ResultNotFoundError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.tags import change_tags
from tests.support import factories

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two batch sizes with three repeats each, tags on one, and a pending experiment."""
    repository = FileSystemRepository(tmp_path / "results")
    for batch in (1, 8):
        for cycle in range(3):
            name = f"b{batch}_c{cycle}"
            joules = factories.energy(total_energy_j=2000.0 / batch + 10 * cycle)
            times = factories.timestamps(factories.START.replace(hour=batch, minute=cycle))
            config = {"batch_size": batch, "layers": [1, 2]}
            record = factories.raw(
                name, energy_metrics=joules, effective_config=config, world_size=1, timestamps=times, host="node-1"
            )
            repository.save_raw(name, record)
    list(aggregate_all(repository))
    change_tags(repository.store, "b1_c0", {"paper": "fig3", "x": "1"})
    repository.save_raw("pending", factories.raw("pending", effective_config={}))
    return repository.base_path


@pytest.mark.parametrize("with_dataset", [False, True])
def test_every_column_of_a_frame_is_scalar(folder: Path, *, with_dataset: bool) -> None:
    if with_dataset:
        write_dataset(FileSystemRepository(folder), folder / "dataset")
    for table in ("experiments", "processes", "findings"):
        frame = load(folder).to_pandas(table)
        assert len(frame) > 0
        assert len(frame.drop_duplicates()) == len(frame)
        for name in frame.columns:
            assert not frame[name].map(lambda value: isinstance(value, list | tuple | dict)).any(), name
            assert frame.groupby(name, dropna=False).size().sum() == len(frame), name


def test_a_frame_groups_merges_and_writes_files(folder: Path, tmp_path: Path) -> None:
    frame = load(str(folder)).to_pandas()
    assert list(frame["gpus"].unique()) == ["NVIDIA A100-PCIE-40GB"]
    assert frame.set_index("experiment_id").loc["b1_c0", ["tag.paper", "tag.x", "hosts"]].tolist() == [
        *("fig3", "1", "node-1")
    ]
    assert frame.groupby("config.batch_size")["attributed_energy_j"].mean().round(1).tolist() == [2010.0, 260.0]
    merged = frame.merge(load(folder).to_pandas("processes"), on="experiment_id")
    assert len(merged) == 6
    frame.to_csv(tmp_path / "frame.csv")
    frame.to_parquet(tmp_path / "frame.parquet")
    assert len(pd.read_parquet(tmp_path / "frame.parquet")) == 6


def test_a_condition_selects_rows_of_each_table(folder: Path) -> None:
    selected = load(folder, where="config.batch_size = 8")
    assert selected.ids == ["b8_c0", "b8_c1", "b8_c2"]
    assert len(selected) == 3
    assert [row.experiment_id for row in selected] == selected.ids
    for table in ("experiments", "processes", "findings"):
        assert set(selected.to_pandas(table)["experiment_id"]) == set(selected.ids), table
    assert selected.to_polars().height == 3
    assert selected.where_also("id ~ c1").ids == ["b8_c1"]
    assert "pending" in load(folder).ids


def test_to_pandas_takes_a_path_under_its_old_name_too(folder: Path) -> None:
    assert len(to_pandas(str(folder))) == len(to_pandas(folder)) == len(dataset.to_pandas(folder)) == 6  # type: ignore[operator]  # resolved at run time
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        dataset.nonsense  # noqa: B018 - the test is of the attribute access


def test_repeats_return_statistics_of_each_configuration(folder: Path) -> None:
    found = load(folder).repeats("energy")
    assert len(found) == 2
    frame = found.to_pandas()
    assert frame["n"].tolist() == [3, 3]
    assert frame["energy"].round(6).tolist() == [2010.0, 260.0]
    assert repr(found) == "<RepeatTable energy: 2 configurations>"
    assert "2.010 ± 0.025" in found._repr_html_()
    plain = load(folder, where="id ~ b1", energy="plain").repeats(["energy"], by=["tag.paper"])
    assert plain.energy == "plain"
    assert len(plain) == 2


def test_compare_takes_columns_conditions_and_loaded_experiments(folder: Path) -> None:
    runs = load(folder)
    by_column = runs.compare(by="config.batch_size", base=1)
    by_condition = runs.compare("config.batch_size = 1", "config.batch_size = 8")
    by_object = load(folder, "config.batch_size = 1").compare(load(folder, "config.batch_size = 8"))
    for found in (by_column, by_condition, by_object):
        [row] = found.records()
        assert row["verdict"] == "better"
        assert row["ratio"] == pytest.approx(260 / 2010, rel=0.01)
        assert found.to_pandas().shape[0] == len(found) == 1
        assert "better" in found._repr_html_()
    assert repr(by_column) == "<ComparisonTable base config.batch_size = 1: 1 better>"


def test_repr_is_one_short_line(folder: Path) -> None:
    text = repr(load(folder, where="model ~ llama"))
    assert text == f"<Experiments {folder} where model ~ llama: 7 experiments, 3 complete, 3 failed, 1 pending>"


def test_notebook_table_is_small_and_escaped(folder: Path) -> None:
    repository = FileSystemRepository(folder)
    for number in range(30):
        record = factories.raw(f"z{number:02}", model_name="<script>alert(1)</script>\x1b[1m")
        repository.save_raw(f"z{number:02}", record)
    html = load(folder)._repr_html_()
    assert "<script>" not in html
    assert "\x1b" not in html
    assert html.count("<tr>") == 21
    assert "17 more rows" in html
    assert "complete" in html
    assert len(html) < 12_000


def test_one_experiment_has_a_notebook_table_with_its_verdict(folder: Path) -> None:
    runs = load(folder)
    one = runs["b8_c0"]
    assert repr(one) == "<Experiment b8_c0: 250 J, failed>"
    html = one._repr_html_()
    assert '<td style="text-align: left">failed</td>' in html
    assert "attributed energy" in html
    assert (one.result, one.raw) == (one.repository.load_aggregated("b8_c0"), one.repository.load_all_raw("b8_c0"))
    assert one.verify().verdict == "failed"
    assert "checks that failed" in html
    assert runs["pending"].result is None
    with pytest.raises(ResultNotFoundError, match="cannot load the experiment 'absent'"):
        runs["absent"]


def test_views_say_that_the_directory_has_gone(folder: Path) -> None:
    runs = load(folder)
    folder.rename(folder.with_name("moved"))
    assert str(folder) in repr(runs)
    assert str(folder) in runs._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "nowhere"}, "cannot load nowhere: the directory does not exist"),
        ({"path": "file"}, "cannot load file: it is not a directory"),
        ({"where": "colour = red"}, "there is no column 'colour'"),
        ({"where": "model ~"}, "cannot filter by 'model ~'"),
        ({"energy": "both"}, "'both' is no kind of energy"),
    ],
)
def test_load_reports_a_wrong_argument(
    folder: Path, arguments: Mapping[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    Path("file").touch()
    with pytest.raises((StorageError, ConfigurationError), match=message):
        load(**{"path": ".", **arguments})


def test_wrong_names_are_one_sentence(folder: Path) -> None:
    runs = load(folder)
    with pytest.raises(ConfigurationError, match="there is no metric 'joules'"):
        runs.repeats("joules")
    with pytest.raises(ConfigurationError, match="no metric is named"):
        runs.repeats([])
    with pytest.raises(ConfigurationError, match="there is no table 'colours'"):
        runs.to_pandas("colours")
    with pytest.raises(ConfigurationError, match="there is no candidate"):
        runs.compare()
    with pytest.raises(ConfigurationError, match="`by` needs the argument `base`"):
        runs.compare(by="config.batch_size")
    with pytest.raises(ConfigurationError, match="`base` needs the argument `by`"):
        runs.compare("config.batch_size = 1", base=1)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_missing_frame_library_is_named(folder: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(name)
        return found(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    runs = load(folder)
    with pytest.raises(MissingExtraError, match=f"{library} is not installed") as caught:
        runs.to_polars() if library == "polars" else runs.to_pandas()
    assert "pip install" in caught.value.advice


def test_load_imports_no_frame_library() -> None:
    code = "import sys; from llm_energy_measure import load; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy: Sequence[str] = ("pandas", "polars", "pyarrow", "numpy", "rich", "click")
    assert set(done.stdout.split()) & set(heavy) == set()
