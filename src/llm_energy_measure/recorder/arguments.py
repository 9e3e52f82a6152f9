"""What a caller says of a run, checked when it is said: an odd value must not cost the result at the end."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from msgspec import Struct

from llm_energy_measure.domain.experiment import Status
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.recorder.sources import Source

UNKNOWN_MODEL = "unknown"

_TEXTS = ("model_name", "config_name", "backend", "backend_version", "host")
_WHOLE = ("process_index", "world_size", "attempt")
# Where an argument of `describe_model` has another name than the fact.
_FIELDS = {"precision": "compute_precision", "memory_mb": "model_memory_mb"}
_CONFIDENCES = ("high", "medium", "low")


class Options(Struct, kw_only=True, frozen=True):
    """What `record` was asked; see there."""

    model_name: str = UNKNOWN_MODEL
    config: object = None
    config_name: str | None = None
    cli_overrides: Mapping[str, Any] | None = None
    backend: str | None = None
    backend_version: str | None = None
    sources: Sequence[str | Source] | None = None
    require_energy: bool = False
    w_per_core: float | None = None
    gpus: Sequence[str | int] | None = None
    idle_sec: float = 0.0
    interval_sec: float | None = 0.1
    checkpoint_sec: float | None = 5.0
    process_index: int | None = None
    world_size: int | None = None
    attempt: int | None = None
    host: str | None = None


def checked_options(experiment_id: str, given: Mapping[str, Any]) -> Options:
    """The options among what was given, by their names. Raises `ConfigurationError` for one that can't be."""
    doing = f"cannot record {experiment_id!r}"
    options = {name: value for name, value in given.items() if name in Options.__struct_fields__}
    for name in _TEXTS:
        if options[name] is not None or name == "model_name":
            options[name] = _text(doing, name, options[name])
    for name in _WHOLE:
        if options[name] is not None:
            options[name] = _whole(doing, name, options[name])
    for name in ("interval_sec", "checkpoint_sec"):
        if options[name] is not None:
            options[name] = _number(doing, name, options[name], "above 0, or None")
    options["idle_sec"] = _number(doing, "idle_sec", options["idle_sec"], "0 or more")
    if options["w_per_core"] is not None:
        options["w_per_core"] = _number(doing, "w_per_core", options["w_per_core"], "a power above 0, in W")
    if options["sources"] is not None:
        options["sources"] = _several(doing, "sources", options["sources"], (str, Source), "names or sources")
    if options["gpus"] is not None:
        options["gpus"] = _several(doing, "gpus", options["gpus"], (str, int), "indices or UUIDs")
    return Options(**options)


def checked_model(said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of a model, without what is None.

    Args:
        said: By the names of the arguments of `describe_model`.

    Returns:
        By the names of `ModelFacts`.

    Raises:
        ConfigurationError: Something can't be.
    """
    doing = "cannot describe the model"
    facts = {name: value for name, value in said.items() if value is not None}
    for name, wanted in (
        ("parameters", "a number above 0"),
        ("memory_mb", "0 or more"),
        ("flops_total", "0 or more"),
    ):
        if name in facts:
            facts[name] = _number(doing, name, facts[name], wanted)
    if "precision" in facts:
        facts["precision"] = _precision(doing, facts["precision"])
    if "flops_method" in facts:
        facts["flops_method"] = _text(doing, "flops_method", facts["flops_method"])
    if "flops_confidence" in facts:
        _one_of(doing, "flops_confidence", facts["flops_confidence"], _CONFIDENCES)
    return {_FIELDS.get(name, name): value for name, value in facts.items()}


def checked_phase(name: object) -> str:
    """The name of a phase. Raises `ConfigurationError` if it is none."""
    return _text("cannot begin a phase", "its name", name)


def checked_status(status: object, error_type: object) -> tuple[Status, str | None]:
    """How a run ended. Raises `ConfigurationError` if it can't have."""
    doing = "cannot mark the run"
    ends = [name for name in get_args(Status) if name != "partial"]
    found: Status = _one_of(doing, "status", status, ends)
    return found, None if error_type is None else _text(doing, "error_type", error_type)


def _text(doing: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(doing, f"{name} is {value!r}", "give a text")
    # Half of a surrogate pair, from an undecodable argument, is no text that can be stored.
    return value.encode("utf-8", "backslashreplace").decode()


def _precision(doing: str, value: object) -> str:
    """The name of a number format: a text, or what a framework has for it, such as `torch.float16`."""
    name = value.__name__ if isinstance(value, type) else str(value).removeprefix("torch.")
    if not name.strip() or name.startswith("<"):
        raise ConfigurationError(doing, f"precision is {value!r}", "give its name, such as 'float16'")
    return _text(doing, "precision", name)


def _whole(doing: str, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigurationError(doing, f"{name} is {value!r}", "give a whole number") from error


def _number(doing: str, name: str, value: Any, wanted: str) -> float:
    try:
        # A text is no number, even where float() reads one from it.
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not (0 < number < math.inf or (number == 0 and wanted == "0 or more")):
        raise ConfigurationError(doing, f"{name} is {value!r}", f"choose {wanted}")
    return number


def _several(doing: str, name: str, value: Any, kinds: tuple[type, ...], wanted: str) -> list[Any]:
    if not isinstance(value, str):
        try:
            found = list(value)
        except TypeError:
            found = [None]
        if all(isinstance(one, kinds) for one in found):
            return found
    raise ConfigurationError(doing, f"{name} is {value!r}", f"give a list of {wanted}")


def _one_of(doing: str, name: str, value: Any, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise ConfigurationError(doing, f"{name} is {value!r}", f"choose from {', '.join(choices)}")
    return value
