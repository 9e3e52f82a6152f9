"""Builders of observations, the input of comparisons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from llm_energy_measure.analysis.observations import Observation
from llm_energy_measure.analysis.pairing import Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime(2026, 1, 16, 12, 0, tzinfo=UTC)
COMPARABLE = {
    "model_name": "llama",
    "token_budget": "max_tokens=64",
    "energy_scope": "gpu=device",
    "provenance": "gpu=measured",
    "metric_version": "explanations@1",
    "gpu": "A100",
}


def observation(name: str, value: float | None, *, minute: float = 0.0, **changes: Any) -> Observation:
    """Return one run with this energy per token. `minute` is its start."""
    fields: dict[str, Any] = {
        "experiment_id": name,
        "configuration": {"batch_size": 1},
        "identity": {"model": "llama", "precision": "fp16"},
        "comparability": COMPARABLE,
        "start": START + timedelta(minutes=minute),
        "hosts": ["node-0"],
        "values": {"j_per_token": value, "tokens_per_s": 100.0 / value if value else None},
        "content": f"{name} {value}",
    }
    return Observation(**{**fields, **changes})


def side(
    name: str, values: Sequence[float | None], *, first: float = 0.0, step: float = 2.0, **changes: Any
) -> Selection:
    """Return the runs `name_0`, `name_1`, ... of one configuration, which start every `step` minutes."""
    runs = [
        observation(f"{name}_{number}", value, minute=first + step * number, **changes)
        for number, value in enumerate(values)
    ]
    return Selection(name, runs)


def interleaved(
    base: Sequence[float | None], new: Sequence[float | None], **changes: Any
) -> tuple[Selection, Selection]:
    """Return two sides whose runs take turns."""
    return side("old", base, **changes), side("new", new, first=1.0, **changes)
