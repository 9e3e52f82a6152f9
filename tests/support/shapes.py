"""Records written as files of other tools, and the value that an import must give to every field.

A shape draws the fields that the files of a tool store, as values by path. `energy_metrics.devices[].energy_j` is a
path through a list of records, and its value is a list. The shape also lists the value of every other field, so that a
new field of a record needs a decision for each shape. Both together are the record that the import must return.
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

FILE_FIELDS = ("origin.file", "origin.sha256", "origin.row")
"""Fields that depend on the written file, in every shape."""


class Shape(msgspec.Struct, kw_only=True):
    """The files of one tool, and the part of a record that they store.

    Attributes:
        stored: Paths of the fields that the files store unchanged.
        derived: Value that an import gives to every other field: a value, a function of the stored values, or a
            pattern for an id that is computed from the content.
        strategy: Draws the stored values of the records of one import, in the order of the import.
        write: Writes the records into a folder, and returns the arguments of `read` that the user must pass.
        finish: Adds to a record the configuration that an import builds from its other fields.
        folder: Returns the name of the folder for the files.
    """

    stored: frozenset[str]
    derived: dict[str, Any]
    strategy: st.SearchStrategy[list[Values]]
    write: Callable[[Path, list[RawProcessResult]], dict[str, Any]]
    finish: Callable[[list[RawProcessResult]], list[RawProcessResult]] = lambda records: records
    folder: Callable[[list[RawProcessResult]], str] = lambda _: "files"

    def records(self, drawn: list[Values]) -> list[RawProcessResult]:
        """Return the records with these stored values."""
        return self.finish([build({**values, **self._derived_values(values)}) for values in drawn])

    def _derived_values(self, values: Values) -> Values:
        assert set(values) == self.stored, set(values) ^ self.stored
        derived = {path: value(values) if callable(value) else value for path, value in self.derived.items()}
        return {**dict.fromkeys(FILE_FIELDS), **derived}


def field_paths(kind: type[msgspec.Struct] = RawProcessResult, prefix: str = "") -> Iterator[str]:
    """Yield the path of each field of a record, and of the records inside it."""
    for info in msgspec.structs.fields(kind):
        inner, is_list = _inside(info.type)
        if inner is None:
            yield prefix + info.name
        else:
            yield from field_paths(inner, f"{prefix}{info.name}{'[]' if is_list else ''}.")


def value_at(record: msgspec.Struct, path: str) -> Any:
    """Return the value at a path. A path through a list has a list of the known values."""
    found: Any = record
    for name in path.split("."):
        if isinstance(found, list):
            found = [getattr(item, name) for item in found if getattr(item, name) is not None] or None
        else:
            found = getattr(found, name.removesuffix("[]"), None)
    return found


def build(values: Values, kind: Any = RawProcessResult, prefix: str = "") -> Any:
    """Return the record of these values. An inner record without a known value is None."""
    fields = {}
    for info in msgspec.structs.fields(kind):
        path = prefix + info.name
        inner, is_list = _inside(info.type)
        if inner is None:
            is_unset = values[path] is None and info.default is msgspec.UNSET
            fields[info.name] = msgspec.UNSET if is_unset else values[path]
            continue
        below = {name: value for name, value in values.items() if name.startswith((f"{path}.", f"{path}[]."))}
        if all(value is None for value in below.values()) and type(None) in typing.get_args(_bare(info.type)):
            fields[info.name] = None
        elif all(value is None for value in below.values()) and info.default is msgspec.UNSET:
            fields[info.name] = msgspec.UNSET
        elif is_list:
            [number] = {len(value) for value in below.values() if isinstance(value, list)}
            of_each = [
                {name: value[index] if isinstance(value, list) else value for name, value in below.items()}
                for index in range(number)
            ]
            fields[info.name] = [build(one, inner, f"{path}[].") for one in of_each]
        else:
            fields[info.name] = build(below, inner, f"{path}.")
    return kind(**fields)


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _inside(annotation: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """Return the record type of a field, or None, and whether the field is a list of such records."""
    annotation = _bare(annotation)
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else [annotation]
    for option in map(_bare, options):
        is_list = typing.get_origin(option) is list
        inner = _bare(typing.get_args(option)[0]) if is_list else option
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner, is_list
    return None, False


def near(guess: float, gives: Callable[[float], float], wanted: float) -> float:
    """Return the number near a guess for which a function returns exactly the wanted value."""
    lower = higher = guess
    for _ in range(8):
        for candidate in (lower, higher):
            if gives(candidate) == wanted:
                return candidate
        lower, higher = math.nextafter(lower, -math.inf), math.nextafter(higher, math.inf)
    message = f"nothing near {guess!r} gives {wanted!r}"
    raise AssertionError(message)


def null(prefix: str, names: str) -> Values:
    """Return fields that are None."""
    return dict.fromkeys((f"{prefix}{name}" for name in names.split()), None)


def for_each(path: str, value: Callable[[Any], Any]) -> Callable[[Values], Any]:
    """Return a value for each item of a stored list; None if there is no list."""
    return lambda values: None if values[path] is None else [value(item) for item in values[path]]


def if_known(path: str, value: Any) -> Callable[[Values], Any]:
    """Return a value if the stored field is known; otherwise None."""
    return lambda values: None if values[path] is None else value


def copy_of(path: str) -> Callable[[Values], Any]:
    """Return the value of a stored field."""
    return lambda values: values[path]


def derived_id(tool: str) -> Values:
    """Return the fields of a record whose id is computed from the content."""
    return {"experiment_id": re.compile(rf"{tool}-[A-Za-z0-9._-]+"), "process_index": 0}


# Fields that no file of another tool stores.
ABSENT: Values = {
    "schema_version": SCHEMA_VERSION,
    **null("", "gpu_is_mig gpu_mig_profile energy_measurement_warning gpu_power_limit_w error_type"),
    "cli_overrides": {},
    "config_warnings": [],
    "unknown_fields": msgspec.UNSET,
    "origin.experiment_id": None,  # only a merge writes it
    **null("inference_metrics.", "latency_per_token_ms"),
    **null("energy_metrics.", "window.start window.end window.duration_sec idle_power_w"),
    **null("energy_metrics.devices[].", "gpu_id gpu_power_limit_w mig_profile"),
    **null("compute_metrics.", "flops_per_token flops_per_second model_memory_mb flops_method flops_confidence"),
    **null("clock.", "boot_id wall_start_sec monotonic_start_sec wall_end_sec monotonic_end_sec"),
    **null("clock.", "store_id store_start_sec store_end_sec store_error_sec"),
    **null("launcher.", "job_id step_id node local_rank attempt"),
    **null("phases[].", "name duration_sec occurrences total_energy_j gpu_energy_j cpu_energy_j ram_energy_j"),
    **null("phases[].", "input_tokens output_tokens"),
    # Only the recorder hands a sensor over, and integrates power.
    **null("energy_metrics.sensors[].window.", "start end duration_sec"),
    **null("energy_metrics.sensors[].", "uncertainty_j"),
    # Only the recorder sees the machine.
    "energy_metrics.idle_power_end_w": None,
    **null("recording_environment.", "recorder_version python_version system cpu_model cpu_count cpu_governor"),
    **null("recording_environment.", "container gpu_driver cuda_version engine engine_config"),
    **{
        f"energy_metrics.devices[].evidence.{end}.{name}": None
        for end in ("start", "end")
        for name in ("temperature_c", "clock_mhz", "throttle", "power_limit_w", "persistence_mode")
    },
    **null("energy_metrics.devices[].evidence.samples.", "samples interval_sec power_min_w power_max_w throttled"),
    **null("energy_metrics.devices[].evidence.samples.", "temperature_max_c temperature_first_c temperature_last_c"),
    **null("energy_metrics.devices[].evidence.samples.", "clock_min_mhz clock_max_mhz clock_first_mhz clock_last_mhz"),
}
LAUNCHER = null("launcher.", "name")
STATUS = null("", "status")
VERSIONS = null("", "library_versions")
NAMES = null("", "backend backend_version model_name")
WORLD = null("", "world_size")
# Only the recorder writes these.
SKETCHES = {
    f"inference_metrics.latency_measurements.sketches.{samples}.{name}": None
    for samples in ("ttft_ms", "itl_full_ms", "itl_trimmed_ms")
    for name in ("count", "sum_ms", "min_ms", "max_ms", "zero_count", "first_bucket", "bucket_counts")
}
OTHER_LATENCY = SKETCHES | null(
    "inference_metrics.latency_measurements.", "total_output_tokens excluded_tokens warmup_requests_excluded"
)
LATENCY = {
    **OTHER_LATENCY,
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
    """Return scope and provenance of all components; those that are not given are None."""
    names = (f"{part}_{fact}" for part in ("total", "gpu", "cpu", "ram") for fact in ("scope", "provenance"))
    return {f"energy_metrics.{name}": scope_of.get(name) for name in names}
