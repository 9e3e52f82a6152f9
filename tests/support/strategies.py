"""Hypothesis strategies of valid records: every known field, and unknown fields at every level."""

from __future__ import annotations

import math
import typing
from datetime import UTC, timedelta, timezone
from typing import Any

import msgspec
from hypothesis import strategies as st

from llm_energy_measure.domain.device_state import DeviceEvidence, DeviceState, DeviceSummary
from llm_energy_measure.domain.environment import Environment
from llm_energy_measure.domain.experiment import (
    AggregatedResult,
    AggregationMetadata,
    ClockEvidence,
    CompletenessReport,
    ImportOrigin,
    Launcher,
    RawProcessResult,
    SourceFile,
    Status,
    UnreadableFile,
)
from llm_energy_measure.domain.findings import Finding, Outcome
from llm_energy_measure.domain.latency import LatencyMeasurements, LatencySketches, LatencyStatistics
from llm_energy_measure.domain.metrics import (
    Component,
    ComputeMetrics,
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    Phase,
    Provenance,
    Scope,
    SensorReading,
    Timestamps,
)
from llm_energy_measure.domain.sketch import SketchBuilder

if typing.TYPE_CHECKING:
    from datetime import datetime

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
counts = st.integers(0, 2**63 - 1)
amounts = st.floats(0, 1e300, allow_subnormal=False)
numbers = st.floats(allow_nan=False, allow_infinity=False)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
experiment_ids = st.text("abcXYZ019._-/ é", min_size=1, max_size=12).filter(lambda text: text.strip(" ._-/") != "")
zones: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.just(UTC),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
objects = st.dictionaries(texts, json_values, max_size=3)
# Names that no record has. They contain both characters that JSON pointers escape.
unknown_names = st.text("~/ü0", max_size=4).map(lambda text: f"new {text}")


def _or_none(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


@st.composite
def spans(draw: st.DrawFn) -> Timestamps:
    """Draw timestamps in order, in one time zone or without one."""
    start: datetime = draw(st.datetimes(min_value=_year(2000), max_value=_year(2100), timezones=zones))
    seconds = draw(st.floats(0, 1e6))
    end = draw(_or_none(st.just(start + timedelta(seconds=seconds))))
    known = draw(_or_none(st.just(start)))
    return Timestamps(start=known, end=end, duration_sec=draw(_or_none(st.just(seconds))))


def _year(year: int) -> datetime:
    from datetime import datetime

    return datetime(year, 1, 1)


samples = st.lists(amounts, max_size=4)
sketches = st.lists(amounts, min_size=1, max_size=4).map(lambda found: SketchBuilder().add(found).sketch())
latency_measurements = st.builds(
    LatencyMeasurements,
    ttft_ms=samples,
    itl_full_ms=samples,
    itl_trimmed_ms=samples,
    request_count=_or_none(counts),
    total_output_tokens=_or_none(counts),
    excluded_tokens=_or_none(counts),
    streaming_mode=_or_none(st.booleans()),
    warmup_requests_excluded=_or_none(counts),
    sketches=st.one_of(st.just(msgspec.UNSET), st.builds(LatencySketches, ttft_ms=_or_none(sketches))),
)
inference_metrics = st.builds(
    InferenceMetrics,
    total_tokens=counts,
    input_tokens=counts,
    output_tokens=counts,
    inference_time_sec=_or_none(amounts),
    tokens_per_second=_or_none(amounts),
    latency_per_token_ms=_or_none(amounts),
    time_to_first_token_ms=_or_none(amounts),
    latency_measurements=_or_none(latency_measurements),
)
provenances = _or_none(st.sampled_from(typing.get_args(Provenance)))
scopes = _or_none(st.sampled_from(typing.get_args(Scope)))
device_states = st.builds(
    DeviceState,
    temperature_c=_or_none(amounts),
    clock_mhz=_or_none(amounts),
    throttle=_or_none(st.lists(texts, max_size=2)),
    power_limit_w=_or_none(amounts),
    persistence_mode=_or_none(st.booleans()),
)
device_summaries = st.builds(
    DeviceSummary,
    samples=counts,
    power_max_w=_or_none(amounts),
    clock_first_mhz=_or_none(amounts),
    throttled=_or_none(st.dictionaries(texts, st.floats(0, 1), max_size=2)),
)
device_evidence = st.builds(
    DeviceEvidence,
    start=_or_none(device_states),
    end=_or_none(device_states),
    samples=st.one_of(st.just(msgspec.UNSET), device_summaries),
)
devices = st.builds(
    DeviceEnergy,
    evidence=st.one_of(st.just(msgspec.UNSET), device_evidence),
    gpu_id=_or_none(st.integers(0, 16)),
    gpu_uuid=_or_none(texts),
    gpu_name=_or_none(texts),
    gpu_power_limit_w=_or_none(amounts),
    mig_profile=_or_none(texts),
    energy_j=_or_none(amounts),
    provenance=provenances,
)
sensors = st.builds(
    SensorReading,
    source=texts,
    instance=_or_none(texts),
    component=st.sampled_from(typing.get_args(Component)),
    scope=scopes,
    provenance=provenances,
    energy_j=_or_none(amounts),
    counter_start_j=_or_none(amounts),
    counter_end_j=_or_none(amounts),
    counter_range_j=_or_none(amounts),
    wraps=_or_none(counts),
    samples=_or_none(counts),
    sampling_rate_hz=_or_none(amounts),
    problems=st.lists(texts, max_size=2),
)
phases = st.builds(
    Phase,
    name=texts,
    duration_sec=_or_none(amounts),
    occurrences=_or_none(counts),
    total_energy_j=_or_none(amounts),
    gpu_energy_j=_or_none(amounts),
    cpu_energy_j=_or_none(amounts),
    ram_energy_j=_or_none(amounts),
    input_tokens=_or_none(counts),
    output_tokens=_or_none(counts),
)
energy_metrics = st.builds(
    EnergyMetrics,
    total_energy_j=_or_none(amounts),
    duration_sec=_or_none(amounts),
    gpu_energy_j=_or_none(amounts),
    cpu_energy_j=_or_none(amounts),
    ram_energy_j=_or_none(amounts),
    gpu_power_w=_or_none(amounts),
    cpu_power_w=_or_none(amounts),
    emissions_kg_co2=_or_none(amounts),
    energy_per_token_j=_or_none(amounts),
    window=_or_none(spans()),
    total_scope=scopes,
    total_provenance=provenances,
    gpu_scope=scopes,
    gpu_provenance=provenances,
    cpu_scope=scopes,
    cpu_provenance=provenances,
    ram_scope=scopes,
    ram_provenance=provenances,
    devices=_or_none(st.lists(devices, max_size=2)),
    idle_power_w=_or_none(amounts),
    sensors=_or_none(st.lists(sensors, max_size=2)),
    idle_power_end_w=st.one_of(st.just(msgspec.UNSET), amounts),
)
environments = st.builds(
    Environment,
    python_version=_or_none(texts),
    cpu_count=_or_none(counts),
    engine_config=_or_none(st.dictionaries(texts, texts, max_size=2)),
)
compute_metrics = st.builds(
    ComputeMetrics,
    flops_total=_or_none(amounts),
    flops_per_token=_or_none(amounts),
    flops_per_second=_or_none(amounts),
    peak_memory_mb=_or_none(amounts),
    model_memory_mb=_or_none(amounts),
    flops_method=_or_none(texts),
    flops_confidence=_or_none(texts),
    compute_precision=_or_none(texts),
)
clocks = st.builds(
    ClockEvidence,
    boot_id=_or_none(texts),
    wall_start_sec=_or_none(numbers),
    monotonic_start_sec=_or_none(numbers),
    wall_end_sec=_or_none(numbers),
    monotonic_end_sec=_or_none(numbers),
    store_id=_or_none(texts),
    store_start_sec=_or_none(numbers),
    store_end_sec=_or_none(numbers),
    store_error_sec=_or_none(amounts),
)
launchers = st.builds(
    Launcher,
    name=_or_none(texts),
    job_id=_or_none(texts),
    step_id=_or_none(texts),
    node=_or_none(texts),
    local_rank=_or_none(counts),
    attempt=_or_none(counts),
)
origins = st.builds(
    ImportOrigin,
    tool=texts,
    version=_or_none(texts),
    file=_or_none(texts),
    sha256=_or_none(digests),
    row=_or_none(counts),
    experiment_id=st.one_of(st.just(msgspec.UNSET), texts),
)


@st.composite
def raw_records(
    draw: st.DrawFn,
    experiment_id: st.SearchStrategy[str] = experiment_ids,
    process_index: st.SearchStrategy[int] = st.integers(0, 300),  # noqa: B008 - a strategy is immutable
) -> RawProcessResult:
    """Draw a raw record: each field has any valid value, and unknown fields are at any level."""
    known = draw(
        st.builds(
            RawProcessResult,
            experiment_id=experiment_id,
            backend=_or_none(texts),
            backend_version=_or_none(texts),
            process_index=process_index,
            gpu_id=_or_none(st.integers(0, 16)),
            gpu_name=_or_none(texts),
            gpu_is_mig=_or_none(st.booleans()),
            gpu_mig_profile=_or_none(texts),
            energy_measurement_warning=_or_none(texts),
            config_name=_or_none(texts),
            model_name=_or_none(texts),
            timestamps=spans(),
            inference_metrics=_or_none(inference_metrics),
            energy_metrics=energy_metrics,
            compute_metrics=_or_none(compute_metrics),
            effective_config=objects,
            cli_overrides=objects,
            config_warnings=st.lists(texts, max_size=2),
            world_size=_or_none(st.integers(1, 512)),
            host=_or_none(texts),
            gpu_uuid=_or_none(texts),
            gpu_power_limit_w=_or_none(amounts),
            clock=_or_none(clocks),
            launcher=_or_none(launchers),
            origin=_or_none(origins),
            status=_or_none(st.sampled_from(typing.get_args(Status))),
            error_type=_or_none(texts),
            library_versions=_or_none(st.dictionaries(texts, texts, max_size=2)),
            phases=_or_none(st.lists(phases, max_size=2)),
            recording_environment=st.one_of(st.just(msgspec.UNSET), environments),
            unknown_fields=st.just(msgspec.UNSET),
        )
    )
    return msgspec.structs.replace(known, unknown_fields=draw(_unknown_fields(known)))


odd_numbers = st.one_of(
    st.sampled_from(
        [math.nan, math.inf, -math.inf, 1.7e308, 5e-324, -1.0, -0.0, 10**9, 10**400, -(10**400), True, "7"]
    ),
    st.floats(),
)


@st.composite
def records_with_odd_numbers(draw: st.DrawFn, record: RawProcessResult) -> RawProcessResult:
    """Draw a record in which one to three numbers are replaced by any number that Python has."""
    for place in draw(st.lists(st.sampled_from(list(_paths_of_numbers(record))), min_size=1, max_size=3, unique=True)):
        record = _with_number(record, place, draw(odd_numbers))
    return record


def _paths_of_numbers(value: object, place: tuple[str | int, ...] = ()) -> typing.Iterator[tuple[str | int, ...]]:
    """Yield the path of each number in a record, at any depth."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _paths_of_numbers(getattr(value, name), (*place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths_of_numbers(item, (*place, index))
    elif type(value) in (int, float):
        yield place


def _with_number(value: Any, place: tuple[str | int, ...], number: object) -> Any:
    """Return a copy of a record, or of a list in it, with another number at one path."""
    if not place:
        return number
    first, *rest = place
    if isinstance(value, list):
        return [_with_number(item, tuple(rest), number) if index == first else item for index, item in enumerate(value)]
    name = str(first)
    return msgspec.structs.replace(value, **{name: _with_number(getattr(value, name), tuple(rest), number)})


sources = st.builds(SourceFile, name=texts, size_bytes=counts, sha256=digests)
unreadable_files = st.builds(
    UnreadableFile, name=texts, reason=texts, size_bytes=_or_none(counts), sha256=_or_none(digests)
)
completeness_reports = st.builds(
    CompletenessReport,
    expected_processes=counts,
    expected_from=texts,
    found_processes=counts,
    missing=st.lists(counts, max_size=2),
    unexpected=st.lists(counts, max_size=2),
    unreadable=st.lists(unreadable_files, max_size=2),
)
latency_statistics = st.builds(
    LatencyStatistics,
    **{
        name: counts if name.endswith("_samples") else _or_none(amounts) for name in LatencyStatistics.__struct_fields__
    },
)
metadata = st.builds(
    AggregationMetadata,
    method=texts,
    num_processes=counts,
    temporal_overlap_verified=st.booleans(),
    gpu_attribution_verified=st.booleans(),
    warnings=st.lists(texts, max_size=2),
)


values_found = st.one_of(st.none(), numbers, texts)
findings = st.builds(
    Finding,
    code=texts,
    outcome=st.sampled_from(typing.get_args(Outcome)),
    reason=_or_none(texts),
    message=texts,
    expected=values_found,
    found=values_found,
    effect_j=_or_none(amounts),
    processes=st.lists(counts, max_size=2),
)


@st.composite
def aggregated_records(draw: st.DrawFn) -> AggregatedResult:
    """Draw an aggregate: each field has any valid value, and unknown fields are at any level."""
    span = draw(spans())
    known = draw(
        st.builds(
            AggregatedResult,
            experiment_id=experiment_ids,
            backend=_or_none(texts),
            backend_version=_or_none(texts),
            aggregation=metadata,
            total_tokens=_or_none(counts),
            total_energy_j=_or_none(amounts),
            total_inference_time_sec=_or_none(amounts),
            avg_tokens_per_second=_or_none(amounts),
            avg_energy_per_token_j=_or_none(amounts),
            total_flops=_or_none(amounts),
            model_name=_or_none(texts),
            process_results=st.lists(raw_records(), max_size=2),
            start_time=_or_none(st.just(span.start)),
            end_time=st.just(span.end),
            effective_config=objects,
            cli_overrides=objects,
            config_warnings=st.lists(texts, max_size=2),
            latency_stats=_or_none(latency_statistics),
            is_lower_bound=_or_none(st.booleans()),
            completeness=_or_none(completeness_reports),
            sources=_or_none(st.lists(sources, max_size=2)),
            plain_energy_j=_or_none(amounts),
            partial_energy_j=_or_none(amounts),
            attributed_energy_j=_or_none(amounts),
            attributed_bounds_j=_or_none(st.tuples(amounts, amounts)),
            attribution_factor=_or_none(st.floats(1, 1e6)),
            attribution_rule=_or_none(texts),
            attributed_gpu_energy_j=_or_none(amounts),
            attributed_cpu_energy_j=_or_none(amounts),
            attributed_ram_energy_j=_or_none(amounts),
            findings=_or_none(st.lists(findings, max_size=2)),
            unknown_fields=st.just(msgspec.UNSET),
        )
    )
    return msgspec.structs.replace(known, unknown_fields=draw(_unknown_fields(known)))


@st.composite
def _unknown_fields(draw: st.DrawFn, record: msgspec.Struct) -> dict[str, Any] | msgspec.UnsetType:
    """Draw unknown fields of a record by JSON pointer. Each is in an existing object."""
    places = st.tuples(st.sampled_from(list(_objects_inside(record))), unknown_names)
    fields = draw(st.dictionaries(places, json_values, max_size=3))
    pointers = {
        f"{parent}/{name.replace('~', '~0').replace('/', '~1')}": value for (parent, name), value in fields.items()
    }
    return pointers or msgspec.UNSET


def _objects_inside(value: object, pointer: str = "") -> typing.Iterator[str]:
    """Yield the JSON pointers of all records in a record. Raw records keep their own unknown fields, so skip them."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _objects_inside(item, f"{pointer}/{index}")
    elif isinstance(value, msgspec.Struct):
        yield pointer
        for name in value.__struct_fields__:
            if name != "process_results":
                yield from _objects_inside(getattr(value, name), f"{pointer}/{name}")
