"""The callback for the Trainer of Hugging Face transformers, with a fake of its base class."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.trainer import trainer_callback
from tests.support.recordings import load_result, torchrun_environ
from tests.support.replay import steady_watts

if TYPE_CHECKING:
    from llm_energy_measure.results import FileSystemRepository
    from tests.support.replay import ManualClock


class TrainerCallback:
    """The base class has a method for each event; the trainer calls all of them."""

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Nothing to do."""


@pytest.fixture
def _transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("transformers")
    module.TrainerCallback = TrainerCallback
    monkeypatch.setitem(sys.modules, "transformers", module)


@pytest.mark.usefixtures("_transformers")
@pytest.mark.parametrize(("rank", "tokens"), [(0, 640), (1, None)])
def test_callback_measures_a_training(
    repository: FileSystemRepository, clock: ManualClock, rank: int, tokens: int | None
) -> None:
    callback = trainer_callback(
        "exp_7",
        model_name="m",
        repository=repository,
        clock=clock,
        environ=torchrun_environ(rank, 2),
        sources=[steady_watts(50.0, clock)],
        interval_sec=None,
        checkpoint_sec=None,
    )
    assert TrainerCallback in type(callback).__mro__
    state, logs = SimpleNamespace(num_input_tokens_seen=1000), {"loss": 1.0}  # resumed from a checkpoint
    callback.on_train_begin(None, state, None, model=None)
    clock.now += 2.0
    state.num_input_tokens_seen += 640
    callback.on_step_end(None, state, None)
    callback.on_log(None, state, None, logs=logs)
    callback.on_train_end(None, state, None)
    result = load_result(repository, rank)
    assert (result.status, result.energy_metrics.total_energy_j) == ("completed", 100.0)
    assert logs == {"loss": 1.0, "energy_j": 100.0}
    assert (result.inference_metrics and result.inference_metrics.input_tokens) == tokens


def test_missing_transformers_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RecorderError, match="the package transformers cannot be imported .*; install transformers"):
        trainer_callback("exp_7")
