"""Records as files of other tools: what a shape of theirs carries, and what is known of every other field.

A shape draws the fields that its files tell, as values by path (`energy_metrics.devices[].energy_j`, a list for a list
of records). What an importer makes of the others stands in one explicit list, so that a new field of a record has to
be decided for each shape. Both together are the record that has to come back.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import strategies as st

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.domain.experiment import RawProcessResult

if TYPE_CHECKING:
    from collections.abc import Iterator


Values = dict[str, Any]

OF_THE_FILE = ("origin.file", "origin.sha256", "origin.row")
"""Told by the file that was written, whatever its shape."""


class Shape(msgspec.Struct, kw_only=True):
    """The files of one tool, as far as a record can be put into them.

    Attributes:
        carried: Paths of the fields that its files tell, as they are.
        told: Of every other field what an importer says: a value, a function of the values that are carried, or a
            pattern where it is derived from all of the content.
        drawn: Values of the records of one import, in the order in which they come back.
        write: Writes them into a folder, and says what the user has to say beside it.
        finish: Puts a record's own fields into its configuration, where that keeps the original as it was.
        folder: Name of the folder that they are written into.
    """

    carried: frozenset[str]
    told: dict[str, Any]
    drawn: st.SearchStrategy[list[Values]]
    write: Callable[[Path, list[RawProcessResult]], dict[str, Any]]
    finish: Callable[[list[RawProcessResult]], list[RawProcessResult]] = lambda records: records
    folder: Callable[[list[RawProcessResult]], str] = lambda _: "files"

    def records(self, drawn: list[Values]) -> list[RawProcessResult]:
        """The records of these values."""
        return self.finish([built({**values, **self._rest(values)}) for values in drawn])

    def _rest(self, values: Values) -> Values:
        assert set(values) == self.carried, set(values) ^ self.carried
        told = {path: said(values) if callable(said) else said for path, said in self.told.items()}
        return {**dict.fromkeys(OF_THE_FILE), **told}


def leaves(kind: type[msgspec.Struct] = RawProcessResult, prefix: str = "") -> Iterator[str]:
    """Path of each field of a record, and of the records inside it."""
    for info in msgspec.structs.fields(kind):
        inner, is_list = _inside(info.type)
        if inner is None:
            yield prefix + info.name
        else:
            yield from leaves(inner, f"{prefix}{info.name}{'[]' if is_list else ''}.")


def value_at(record: msgspec.Struct, path: str) -> Any:
    """What stands at a path: a list, without those that are unknown, where a list is on the way."""
    found: Any = record
    for name in path.split("."):
        if isinstance(found, list):
            found = [getattr(item, name) for item in found if getattr(item, name) is not None] or None
        else:
            found = getattr(found, name.removesuffix("[]"), None)
    return found


def built(values: Values, kind: Any = RawProcessResult, prefix: str = "") -> Any:
    """The record of these values; one inside it of which nothing is known is None."""
    fields = {}
    for info in msgspec.structs.fields(kind):
        path = prefix + info.name
        inner, is_list = _inside(info.type)
        if inner is None:
            fields[info.name] = values[path]
            continue
        below = {name: value for name, value in values.items() if name.startswith((f"{path}.", f"{path}[]."))}
        if all(value is None for value in below.values()) and type(None) in typing.get_args(_bare(info.type)):
            fields[info.name] = None
        elif is_list:
            [number] = {len(value) for value in below.values() if isinstance(value, list)}
            of_each = [
                {name: value[index] if isinstance(value, list) else value for name, value in below.items()}
                for index in range(number)
            ]
            fields[info.name] = [built(one, inner, f"{path}[].") for one in of_each]
        else:
            fields[info.name] = built(below, inner, f"{path}.")
    return kind(**fields)


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _inside(annotation: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The record type that a field holds, if any, and whether it holds a list of them."""
    annotation = _bare(annotation)
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else [annotation]
    for option in map(_bare, options):
        is_list = typing.get_origin(option) is list
        inner = _bare(typing.get_args(option)[0]) if is_list else option
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner, is_list
    return None, False


def near(guess: float, gives: Callable[[float], float], wanted: float) -> float:
    """The number next to a guess that gives what is wanted, to the last bit."""
    lower = higher = guess
    for _ in range(8):
        for candidate in (lower, higher):
            if gives(candidate) == wanted:
                return candidate
        lower, higher = math.nextafter(lower, -math.inf), math.nextafter(higher, math.inf)
    message = f"nothing near {guess!r} gives {wanted!r}"
    raise AssertionError(message)


def null(prefix: str, names: str) -> Values:
    """Fields that are unknown."""
    return dict.fromkeys((f"{prefix}{name}" for name in names.split()), None)


def each(path: str, said: Callable[[Any], Any]) -> Callable[[Values], Any]:
    """For each item of a list that is carried: what is said of it; None if there is no list."""
    return lambda values: None if values[path] is None else [said(item) for item in values[path]]


def where(path: str, said: Any) -> Callable[[Values], Any]:
    """A value, where another one is known."""
    return lambda values: None if values[path] is None else said


def same(path: str) -> Callable[[Values], Any]:
    """What is carried elsewhere."""
    return lambda values: values[path]


def derived_id(tool: str) -> Values:
    """An id made of the content."""
    return {"experiment_id": re.compile(rf"{tool}-[A-Za-z0-9._-]+"), "process_index": 0}


# What no file of another tool tells.
NOBODY: Values = {
    "schema_version": SCHEMA_VERSION,
    **null("", "gpu_is_mig gpu_mig_profile energy_measurement_warning gpu_power_limit_w error_type"),
    "cli_overrides": {},
    "config_warnings": [],
    "unknown_fields": msgspec.UNSET,
    **null("inference_metrics.", "latency_per_token_ms"),
    **null("energy_metrics.", "window.start window.end window.duration_sec idle_power_w"),
    **null("energy_metrics.devices[].", "gpu_id gpu_power_limit_w mig_profile"),
    **null("compute_metrics.", "flops_per_token flops_per_second model_memory_mb flops_method flops_confidence"),
    **null("clock.", "boot_id wall_start_sec monotonic_start_sec wall_end_sec monotonic_end_sec"),
    **null("clock.", "store_id store_start_sec store_end_sec store_error_sec"),
    **null("launcher.", "job_id step_id node local_rank attempt"),
    **null("phases[].", "name duration_sec occurrences total_energy_j gpu_energy_j cpu_energy_j ram_energy_j"),
    **null("phases[].", "input_tokens output_tokens"),
}
LAUNCHER = null("launcher.", "name")
STATUS = null("", "status")
VERSIONS = null("", "library_versions")
NAMES = null("", "backend backend_version model_name")
WORLD = null("", "world_size")
LATENCY_ELSE = null(
    "inference_metrics.latency_measurements.", "total_output_tokens excluded_tokens warmup_requests_excluded"
)
LATENCY = {
    **LATENCY_ELSE,
    **null(
        "inference_metrics.latency_measurements.", "ttft_ms itl_full_ms itl_trimmed_ms request_count streaming_mode"
    ),
}
INFERENCE = {
    **LATENCY,
    **null("inference_metrics.", "total_tokens input_tokens output_tokens inference_time_sec tokens_per_second"),
    **null("inference_metrics.", "time_to_first_token_ms"),
}
COMPUTE = null("compute_metrics.", "flops_total peak_memory_mb compute_precision")
SENSORS = {
    **null("energy_metrics.sensors[].", "source instance component scope provenance energy_j counter_start_j"),
    **null("energy_metrics.sensors[].", "counter_end_j counter_range_j wraps samples sampling_rate_hz problems"),
}
DEVICES = null("energy_metrics.devices[].", "gpu_uuid gpu_name energy_j provenance")


def scopes(**scope_of: Any) -> Values:
    """Scope and provenance of components: of each those that are named, as `total_scope="device"`, the rest unknown."""
    names = (f"{part}_{fact}" for part in ("total", "gpu", "cpu", "ram") for fact in ("scope", "provenance"))
    return {f"energy_metrics.{name}": scope_of.get(name) for name in names}
