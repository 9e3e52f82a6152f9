"""Facts about the model that a recording stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llm_energy_measure.exceptions import ConfigurationError
from tests.support.recordings import load_result, make_recording, torchrun_environ

if TYPE_CHECKING:
    from llm_energy_measure.results import FileSystemRepository
    from tests.support.replay import ManualClock


def test_flops_are_estimated_from_parameters_or_stated(repository: FileSystemRepository, clock: ManualClock) -> None:
    for index, facts in enumerate(
        ({"parameters": 1e9}, {"parameters": 1e9, "flops_total": 7e12, "flops_method": "profiler"})
    ):
        with make_recording(repository, clock, environ=torchrun_environ(index, 2)) as run:
            clock.now += 2.0
            run.add_tokens(input=10, output=10)
            run.describe_model(precision="float16", **facts)  # type: ignore[arg-type]  # numbers and a text
    estimated, given = (load_result(repository, index).compute_metrics for index in range(2))
    assert estimated is not None
    assert given is not None
    assert (estimated.flops_total, estimated.flops_method, estimated.flops_confidence) == (
        4e10,
        "parameter_estimate",
        "low",
    )
    assert (estimated.flops_per_second, estimated.flops_per_token) == (2e10, 2e9)
    assert (given.flops_total, given.flops_method, given.flops_confidence) == (7e12, "profiler", None)
    assert given.compute_precision == "float16"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"parameters": "135M"}, "parameters is '135M'; choose a number above 0"),
        ({"parameters": 0}, "parameters is 0"),
        ({"precision": object()}, "precision is <object"),
        ({"precision": ""}, "precision is ''"),
        ({"flops_total": float("nan")}, "flops_total is nan; choose 0 or more"),
        ({"flops_total": 10**400}, "flops_total is 1000"),
        ({"memory_mb": "3"}, ": memory_mb is '3'"),
        ({"flops_method": 3}, "flops_method is 3; give a text"),
        ({"flops_confidence": "sure"}, "flops_confidence is 'sure'; choose from high, medium, low"),
    ],
)
def test_wrong_model_fact_is_refused_and_changes_nothing(
    repository: FileSystemRepository, clock: ManualClock, facts: dict[str, Any], message: str
) -> None:
    with make_recording(repository, clock) as run, pytest.raises(ConfigurationError, match=message):
        run.describe_model(**{"precision": "int8", **facts})
    assert load_result(repository).compute_metrics is None


class TorchType:
    """A number format whose text is that of torch.float16."""

    def __str__(self) -> str:
        return "torch.float16"


@pytest.mark.parametrize("precision", ["float16", TorchType(), np.float16, np.dtype("float16")])
def test_precision_accepts_types_of_frameworks(
    repository: FileSystemRepository, clock: ManualClock, precision: object
) -> None:
    with make_recording(repository, clock) as run:
        run.describe_model(precision=precision)
    computed = load_result(repository).compute_metrics
    assert computed is not None
    assert computed.compute_precision == "float16"
