"""Keys and file names of the values in a results directory."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.exceptions import ExperimentIdError
from llm_energy_measure.results.store import layout
from llm_energy_measure.security import former_folder_name
from tests.support import strategies

indices = st.integers(0, MAX_PROCESSES - 1)


@given(strategies.experiment_ids, indices)
def test_raw_key_names_its_process(experiment_id: str, index: int) -> None:
    folder = layout.folder_name(experiment_id)
    key = layout.raw_key(folder, index)
    assert key.startswith(f"{layout.raw_folder(folder)}/")
    assert process_index_of(key.rpartition("/")[2]) == index


@pytest.mark.parametrize(
    "name",
    [
        *(
            "process_.json",
            "process_x.json",
            "process_07.json",
            "process_00.json",
            "process_-1.json",
            "process_1.5.json",
        ),
        *("Process_1.json", "process_1.JSON", "process_1.json ", "process_1.json\n", " process_1.json", "process_1"),
        *("process_٣.json", "process_²5.json", "xprocess_1.json", "process_1000000.json", f"process_{'9' * 200}.json"),
        *("rejected-process_1-1.json", "superseded-process_1-1.json", "partial-process_1.json", ".completed_0"),
    ],
)
def test_unrelated_name_is_no_raw_result(name: str) -> None:
    assert process_index_of(name) is None


@given(strategies.experiment_ids, st.one_of(indices, st.text(), st.none()), st.integers(1, 99))
def test_other_names_of_ours_are_no_raw_result(experiment_id: str, index: object, number: int) -> None:
    """Other tools read the files that match `process_*.json`, and some read all `*.json`."""
    folder = layout.folder_name(experiment_id)
    for key in (
        layout.manifest_key(folder),
        layout.rejected_key(folder, index, number),
        layout.superseded_raw_key(folder, 3, number),
    ):
        name = key.removeprefix(f"{layout.raw_folder(folder)}/")
        assert "/" not in name
        assert not fnmatch.fnmatch(name, "process_*.json")
        assert name == "manifest.json" or not fnmatch.fnmatch(name, "*.json")


@pytest.mark.parametrize(
    ("index", "expected"), [(0, "0"), (12, "12"), (-1, "unknown"), (True, "unknown"), ("../x", "unknown")]
)
def test_file_of_a_rejected_record_names_its_process_if_known(index: object, expected: str) -> None:
    assert layout.rejected_key("exp", index, 2) == f"raw/exp/rejected-process_{expected}-2.json.kept"


@given(strategies.experiment_ids, st.integers(1, 99))
def test_name_of_an_aggregate_names_its_folder(experiment_id: str, number: int) -> None:
    folder = layout.folder_name(experiment_id)
    assert layout.aggregated_folder_of(layout.aggregated_key(folder).removeprefix("aggregated/")) == folder
    replaced = layout.superseded_aggregate_key(folder, number).removeprefix("aggregated/")
    assert layout.aggregated_folder_of(replaced) is None
    assert not fnmatch.fnmatch(replaced, "*.json")
    assert layout.superseded_aggregate_folder_of(replaced) == folder


@pytest.mark.parametrize(
    "name", ["exp", "exp.txt", ".json", "..json", "a b.json", "exp.json~", ".exp.json~1-a", "é.json"]
)
def test_unrelated_name_is_no_aggregate(name: str) -> None:
    assert layout.aggregated_folder_of(name) is None


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("superseded-expx-1.json", "expx"),
        ("superseded-expx-1.json.kept", "expx"),
        ("superseded-exp.json.kept", None),
        ("superseded-exp-1-1.json", "exp-1"),
        ("superseded-exp.json", None),
        ("superseded-exp-x.json", None),
        ("superseded-aXb-1.json", "aXb"),
    ],
)
def test_superseded_aggregate_belongs_to_its_own_experiment(name: str, folder: str | None) -> None:
    assert layout.superseded_aggregate_folder_of(name) == folder


@pytest.mark.parametrize(
    ("name", "is_folder"), [("exp_7", True), ("a b", False), ("", False), ("..", False), (".e~1", False)]
)
def test_folder_name_is_unchanged_by_sanitizing(name: str, *, is_folder: bool) -> None:
    assert layout.is_folder_name(name) is is_folder


@given(
    st.text(max_size=205)
    | st.text("a.-_01~/", max_size=9)
    | st.builds("superseded-{}-{}{}".format, st.text("a-.0", max_size=4), st.text("0a", max_size=3), st.text(".json\n"))
)
def test_folder_names_are_the_ids_that_name_themselves(name: str) -> None:
    try:
        is_unchanged = former_folder_name(name) == name
    except ExperimentIdError:
        is_unchanged = False
    assert layout.is_folder_name(name) is is_unchanged
    assert (layout.aggregated_folder_of(f"{name}.json") == name) is is_unchanged
    assert layout.aggregated_folder_of(f"{name}.json") in (None, name)


def test_records_without_a_valid_id_have_a_folder() -> None:
    assert layout.is_folder_name(layout.UNNAMED)
    with pytest.raises(ExperimentIdError):
        layout.folder_name("..")


def test_each_part_has_its_folder() -> None:
    assert (layout.manifest_key("e"), layout.tags_key("e"), layout.aggregated_key("e")) == (
        *("raw/e/manifest.json", "tags/e.json", "aggregated/e.json"),
    )
