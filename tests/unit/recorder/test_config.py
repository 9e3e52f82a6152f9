"""Configurations as a record stores them."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import ConfigurationError
from tests.support.recordings import load_result, make_recording

if TYPE_CHECKING:
    from llm_energy_measure.results import FileSystemRepository
    from tests.support.replay import ManualClock


@dataclasses.dataclass
class Settings:
    batch: int
    path: object = None


class Model:
    def model_dump(self) -> dict[str, object]:
        return {"batch": 4}


class GenerationConfig:
    def to_dict(self) -> dict[str, object]:
        return {"max_new_tokens": 64}


@pytest.mark.parametrize(
    ("config", "stored"),
    [
        (None, {}),
        ({"batch": 4, 5: "five"}, {"batch": 4, "5": "five"}),
        (Settings(4, path={1}), {"batch": 4, "path": [1]}),
        (Model(), {"batch": 4}),
        (GenerationConfig(), {"max_new_tokens": 64}),
        (argparse.Namespace(batch=4, out=Path("x")), {"batch": 4, "out": "x"}),
        ({"type": int}, {"type": "<class 'int'>"}),
        ({"top_p": float("inf"), "x": [float("nan")]}, {"top_p": "inf", "x": ["nan"]}),
        ({"path": "b\udcff"}, {"path": "b\\udcff"}),
        ({"stop": {"b", "a"}}, {"stop": ["a", "b"]}),
    ],
)
def test_stored_config_of_each_type(
    repository: FileSystemRepository, clock: ManualClock, config: object, stored: dict[str, object]
) -> None:
    with make_recording(repository, clock, config=config):
        pass
    assert load_result(repository).effective_config == stored


def test_list_is_refused_as_configuration(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        pytest.raises(ConfigurationError, match="a list is not a configuration; give a mapping"),
        make_recording(repository, clock, config=[1]),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("changed", [object(), {1, "a"}, lambda: 3, SimpleNamespace(of=object())])
def test_object_with_an_address_in_its_text_is_refused(
    repository: FileSystemRepository, clock: ManualClock, changed: object
) -> None:
    with (
        pytest.raises(ConfigurationError, match="cannot record the configuration: "),
        make_recording(repository, clock, config={"x": [changed]}),
    ):
        pytest.fail("the block must not run")


def test_set_is_stored_equally_for_all_hash_seeds() -> None:
    code = (
        "from llm_energy_measure.recorder.config import stored_config\n"
        "print(stored_config({'s': set('abcdefgh'), 't': {('b', 1), ('a', 2)}}))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in "1234"
    }
    assert outputs == {f"{{'s': {list('abcdefgh')}, 't': [['a', 2], ['b', 1]]}}\n"}
