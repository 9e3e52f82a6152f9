"""Which place a text names: a folder, or a bucket and a prefix."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.storage.base import StorePath
from llm_energy_measure.storage.objects import ObjectStore
from llm_energy_measure.storage.opening import open_store, place_of


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://bucket/results/", "s3://bucket/results"),
        ("S3://bucket", "s3://bucket"),
        ("gs://bucket/a/b", "gs://bucket/a/b"),
        ("az://account/container", "az://account/container"),
    ],
)
def test_url_names_a_bucket(text: str, place: str) -> None:
    for given in (text, Path(text)):  # a path has lost a slash
        found = place_of(given)
        assert isinstance(found, StorePath)
        assert str(found) == place


@pytest.mark.parametrize("text", ["results", "/data/results", "C:/results", "a:b", "file:///data/results"])
def test_other_text_names_a_folder(text: str) -> None:
    place = place_of(text)
    assert not isinstance(place, StorePath)
    assert open_store(place).supports_paths


@pytest.mark.parametrize(
    "text", ["ftp://host/results", "az+x.y-z://a", "s3://bucket/../other", "s3://bucket/a?b", "https://host/a"]
)
def test_other_url_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (text, Path(text)):
        with pytest.raises(ConfigurationError, match=r"(use a folder, s3://|write s3://BUCKET/PREFIX)"):
            FileSystemRepository(given)
    assert list(tmp_path.iterdir()) == []


def test_variable_can_name_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ENERGY_MEASURE_RESULTS_DIR", "s3://bucket/results")
    repository = FileSystemRepository()
    assert str(repository.base_path) == "s3://bucket/results"
    assert isinstance(repository.store, ObjectStore)
    assert repository.missing_reason() is None


def test_store_of_a_bucket_can_be_sent_to_workers() -> None:
    store = copy.deepcopy(ObjectStore("s3://bucket/results"))
    assert str(store.path("raw/a")) == "s3://bucket/results/raw/a"


def test_place_in_a_bucket_is_text_and_no_path() -> None:
    place = StorePath("s3://bucket/results") / "raw" / "exp" / "process_0.json"
    assert str(place) == f"{place}" == "s3://bucket/results/raw/exp/process_0.json"
    assert (place.name, str(place.parent)) == ("process_0.json", "s3://bucket/results/raw/exp")
    assert place == copy.deepcopy(place)
    with pytest.raises(TypeError):
        open(place)  # noqa: PTH123, SIM115 - opening it as a file has to fail
