"""Check the arguments of a recording when it is created, so that a wrong value raises an error before the run."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from msgspec import Struct

from llm_energy_measure.domain.experiment import Status
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.recorder.attempt import NewAttempt
from llm_energy_measure.recorder.config import storable_text
from llm_energy_measure.recorder.metrics import ModelDescription
from llm_energy_measure.recorder.sources import Source

_CONFIDENCES = ("high", "medium", "low")


class Options(Struct, kw_only=True, frozen=True):
    """The checked arguments of `record`. The docstring of `Recording` describes each argument."""

    model_name: str
    config: object
    config_name: str | None
    cli_overrides: Mapping[str, Any] | None
    backend: str | None
    backend_version: str | None
    sources: Sequence[str | Source] | None
    require_energy: bool
    w_per_core: float | None
    gpus: Sequence[str | int] | None
    idle_sec: float
    interval_sec: float | None
    checkpoint_sec: float | None
    samples: bool
    process_index: int | None
    world_size: int | None
    attempt: int | NewAttempt | None
    host: str | None


def check_options(experiment_id: str, given: Mapping[str, Any]) -> Options:
    """Check the options among the given arguments, and return them. Raises `ConfigurationError` for a wrong value."""
    doing = f"cannot record {experiment_id!r}"
    options = {name: given[name] for name in Options.__struct_fields__}
    for name in ("model_name", "config_name", "backend", "backend_version", "host"):
        if options[name] is not None or name == "model_name":
            options[name] = check_text(doing, name, options[name])
    for name in ("process_index", "world_size", "attempt"):
        is_word = name == "attempt" and options[name] in get_args(NewAttempt)
        if options[name] is not None and not is_word:
            options[name] = _integer(doing, name, options[name])
    for name in ("interval_sec", "checkpoint_sec"):
        if options[name] is not None:
            options[name] = _number(doing, name, options[name], "a number above 0, or None")
    options["idle_sec"] = _number(doing, "idle_sec", options["idle_sec"], "0 or more", min_is_zero=True)
    _one_of(doing, "samples", options["samples"], (True, False))
    if options["w_per_core"] is not None:
        options["w_per_core"] = _number(doing, "w_per_core", options["w_per_core"], "a number of watts above 0")
    if options["sources"] is not None:
        options["sources"] = _list(doing, "sources", options["sources"], (str, Source), "names or Source objects")
    if options["gpus"] is not None:
        options["gpus"] = _list(doing, "gpus", options["gpus"], (str, int), "indices or UUIDs")
    return Options(**options)


def check_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `describe_model` that are not None. Raises `ConfigurationError` for a wrong value."""
    doing = "cannot describe the model"
    model = {name: given[name] for name in ModelDescription.__struct_fields__ if given[name] is not None}
    if "parameters" in model:
        model["parameters"] = _number(doing, "parameters", model["parameters"], "a number above 0")
    for name in ("memory_mb", "flops_total"):
        if name in model:
            model[name] = _number(doing, name, model[name], "0 or more", min_is_zero=True)
    if "precision" in model:
        model["precision"] = _precision(doing, model["precision"])
    if "flops_method" in model:
        model["flops_method"] = check_text(doing, "flops_method", model["flops_method"])
    if "flops_confidence" in model:
        _one_of(doing, "flops_confidence", model["flops_confidence"], _CONFIDENCES)
    return model


def check_status(status: object, error_type: object) -> tuple[Status, str | None]:
    """Return status and error type of a run. Raises `ConfigurationError` for a wrong value."""
    doing = "cannot mark the run"
    choices = [name for name in get_args(Status) if name != "partial"]
    found: Status = _one_of(doing, "status", status, choices)
    return found, None if error_type is None else check_text(doing, "error_type", error_type)


def check_text(doing: str, name: str, value: object) -> str:
    """Return a text that a record can store. Raises `ConfigurationError` if the value is not a text or is empty."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(doing, f"{name} is {value!r}", "give a text")
    return storable_text(value)


def _precision(doing: str, value: object) -> str:
    """Return the name of a number format, from a text or from an object of a framework such as `torch.float16`."""
    name = value.__name__ if isinstance(value, type) else str(value).removeprefix("torch.")
    if not name.strip() or name.startswith("<"):
        raise ConfigurationError(
            doing, f"precision is {value!r}", "give the name of a number format, such as 'float16'"
        )
    return check_text(doing, "precision", name)


def _integer(doing: str, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigurationError(doing, f"{name} is {value!r}", "give a whole number") from error


def _number(doing: str, name: str, value: Any, wanted: str, *, min_is_zero: bool = False) -> float:
    """Return a finite number above 0; with `min_is_zero`, also 0. A text is rejected, although float() accepts it."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not (0 < number < math.inf or (number == 0 and min_is_zero)):
        raise ConfigurationError(doing, f"{name} is {value!r}", f"choose {wanted}")
    return number


def _list(doing: str, name: str, value: Any, kinds: tuple[type, ...], wanted: str) -> list[Any]:
    if not isinstance(value, str):
        items = list(value) if isinstance(value, Iterable) else [None]
        if all(isinstance(item, kinds) for item in items):
            return items
    raise ConfigurationError(doing, f"{name} is {value!r}", f"give a list of {wanted}")


def _one_of(doing: str, name: str, value: Any, choices: Sequence[object]) -> Any:
    if value not in choices:
        raise ConfigurationError(doing, f"{name} is {value!r}", f"choose from {', '.join(map(str, choices))}")
    return value
