"""The exported columns: name, type, unit and getter of each.

Exports, the catalogue and the dataset use these definitions. Values are in base units; None is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from llm_energy_measure.constants import CODECARBON_COLUMN_NAMES
from llm_energy_measure.domain.experiment import AggregatedResult, AggregatedSummary, RawProcessResult
from llm_energy_measure.domain.units import JOULES_PER_KWH, j_to_kwh, ratio

RecordT_contra = TypeVar("RecordT_contra", contravariant=True)
ColumnType = Literal["text", "integer", "number", "boolean", "time"]


class Column(Struct, Generic[RecordT_contra], frozen=True):
    """One exported column.

    Attributes:
        name: Name of the column. The name of a quantity ends in its unit or contains it.
        type: Type of the known values: `text`, `integer`, `number`, `boolean` or `time`.
        unit: Unit of the values; empty if they have none.
        getter: Function that returns the value of a record; None is unknown.
    """

    name: str
    type: ColumnType
    unit: str
    getter: Callable[[RecordT_contra], Any]


def _field(
    record_type: type[RecordT_contra], path: str, kind: ColumnType, unit: str = "", name: str | None = None
) -> Column[RecordT_contra]:
    """Return the column of the field with a dotted path. The value is None if a field on the path is None.

    Raises:
        AttributeError: The record type has no field with the first name of the path.
    """
    parts = path.split(".")
    getattr(record_type, parts[0])

    def getter(record: object) -> Any:
        for part in parts:
            record = getattr(record, part, None)
        return record

    return Column(name or parts[-1], kind, unit, getter)


_summary = partial(_field, AggregatedSummary)
_raw = partial(_field, RawProcessResult)


def model_name(result: AggregatedSummary) -> str | None:
    """Return the name of the model from the aggregate, else from its configuration; None if both have no name."""
    configured = result.effective_config.get("model_name")
    return result.model_name or (configured if isinstance(configured, str) else None)


def expected_processes(result: AggregatedSummary) -> int | None:
    """Return how many processes were expected; None if the number is unknown."""
    return None if result.completeness is None else result.completeness.expected_processes


def coverage(result: AggregatedSummary) -> float | None:
    """Return the fraction of the expected processes with a readable result, 0 to 1; None if unknown."""
    return None if result.completeness is None else result.completeness.coverage


_LATENCY = (
    *(
        _summary(f"latency_stats.ttft_{name}_ms", "number", "ms")
        for name in ("mean", "median", "p95", "p99", "min", "max")
    ),
    _summary("latency_stats.ttft_samples", "integer"),
    *(_summary(f"latency_stats.itl_{name}_ms", "number", "ms") for name in ("mean", "median", "p95", "p99")),
    _summary("latency_stats.itl_samples", "integer"),
    _summary("latency_stats.itl_full_mean_ms", "number", "ms"),
    _summary("latency_stats.itl_full_p99_ms", "number", "ms"),
)

SUMMARY_COLUMNS: tuple[Column[AggregatedSummary], ...] = (
    _summary("experiment_id", "text"),
    Column("model_name", "text", "", model_name),
    _summary("backend", "text"),
    _summary("backend_version", "text"),
    _summary("aggregation.method", "text"),
    _summary("aggregation.num_processes", "integer"),
    Column("expected_processes", "integer", "", expected_processes),
    Column("coverage", "number", "", coverage),
    _summary("is_lower_bound", "boolean"),
    _summary("total_energy_j", "number", "J"),
    _summary("attributed_energy_j", "number", "J"),
    Column(
        "attributed_low_j", "number", "J", lambda result: result.attributed_bounds_j and result.attributed_bounds_j[0]
    ),
    Column(
        "attributed_high_j", "number", "J", lambda result: result.attributed_bounds_j and result.attributed_bounds_j[1]
    ),
    _summary("attribution_factor", "number"),
    _summary("attribution_status", "text"),
    _summary("attributed_joules_per_token", "number", "J/token"),
    _summary("attributed_tokens_per_joule", "number", "token/J"),
    _summary("total_tokens", "integer", "token"),
    _summary("avg_tokens_per_second", "number", "token/s"),
    _summary("tokens_per_joule", "number", "token/J"),
    _summary("avg_energy_per_token_j", "number", "J/token"),
    _summary("total_flops", "number", "FLOP"),
    Column("flops_per_joule", "number", "FLOP/J", lambda result: ratio(result.total_flops, result.total_energy_j)),
    _summary("total_inference_time_sec", "number", "s"),
    _summary("duration_sec", "number", "s"),
    _summary("start_time", "time"),
    _summary("end_time", "time"),
    *_LATENCY,
    _summary("aggregation.temporal_overlap_verified", "boolean"),
    _summary("aggregation.gpu_attribution_verified", "boolean"),
    Column("warnings", "text", "", lambda result: "; ".join(result.aggregation.warnings) or None),
    Column("failed_checks", "text", "", lambda result: "; ".join(result.failed_codes) or None),
    _summary("schema_version", "text"),
    _summary("attributed_gpu_energy_j", "number", "J"),
    # `process_values` computes these values from the processes, because a summary does not contain the processes.
    Column("input_tokens", "integer", "token", lambda _: None),
    Column("output_tokens", "integer", "token", lambda _: None),
    Column("attributed_joules_per_output_token", "number", "J/token", lambda _: None),
)


def process_values(result: AggregatedSummary, processes: Sequence[Any]) -> dict[str, Any]:
    """Return the values that are computed from the processes of an experiment, by column name.

    Args:
        result: The aggregate.
        processes: Its processes: `RawProcessResult`, or objects with the same fields `model_name` and
            `inference_metrics`.
    """
    first = processes[0].model_name if processes else model_name(result)
    output_tokens = _sum_of_tokens(processes, "output_tokens")
    return {
        "model_name": result.model_name or first,
        "input_tokens": _sum_of_tokens(processes, "input_tokens"),
        "output_tokens": output_tokens,
        "attributed_joules_per_output_token": ratio(result.attributed_energy_j, output_tokens),
    }


def model_name_of_processes(result: AggregatedResult) -> str | None:
    """Return the name of the model from the aggregate, else from its first process, else from its configuration."""
    model: str | None = process_values(result, result.process_results)["model_name"]
    return model


def _sum_of_tokens(processes: Sequence[Any], name: str) -> int | None:
    """Return the sum of a token count over the processes; None if no process counted tokens."""
    counted = [one.inference_metrics for one in processes if one.inference_metrics is not None]
    known = [value for metrics in counted if (value := getattr(metrics, name)) is not None]
    return sum(known) if known else None


def _of_processes(name: str, result: AggregatedResult) -> Any:
    return process_values(result, result.process_results)[name]


_NEED_PROCESSES: dict[str, Column[AggregatedResult]] = {
    name: Column(name, kind, unit, partial(_of_processes, name))
    for name, kind, unit in ((column.name, column.type, column.unit) for column in SUMMARY_COLUMNS)
    if name in ("model_name", "input_tokens", "output_tokens", "attributed_joules_per_output_token")
}
AGGREGATED_COLUMNS: tuple[Column[AggregatedResult], ...] = tuple(
    _NEED_PROCESSES.get(column.name, column) for column in SUMMARY_COLUMNS
)
"""The columns of an exported table of experiments. A column that reads `process_results` is in `_NEED_PROCESSES`.

The catalogue stores `SUMMARY_COLUMNS`, which are computed from aggregates that are loaded without their processes.
"""

RAW_COLUMNS: tuple[Column[RawProcessResult], ...] = (
    _raw("experiment_id", "text"),
    _raw("process_index", "integer"),
    _raw("config_name", "text"),
    _raw("model_name", "text"),
    _raw("backend", "text"),
    _raw("backend_version", "text"),
    _raw("host", "text"),
    _raw("gpu_id", "integer"),
    _raw("gpu_uuid", "text"),
    _raw("gpu_name", "text"),
    _raw("gpu_power_limit_w", "number", "W"),
    _raw("world_size", "integer"),
    _raw("timestamps.start", "time", name="start_time"),
    _raw("timestamps.end", "time", name="end_time"),
    _raw("timestamps.duration_sec", "number", "s"),
    _raw("inference_metrics.total_tokens", "integer", "token"),
    _raw("inference_metrics.input_tokens", "integer", "token"),
    _raw("inference_metrics.output_tokens", "integer", "token"),
    _raw("inference_metrics.inference_time_sec", "number", "s"),
    _raw("inference_metrics.tokens_per_second", "number", "token/s"),
    _raw("inference_metrics.latency_per_token_ms", "number", "ms"),
    _raw("inference_metrics.time_to_first_token_ms", "number", "ms"),
    _raw("energy_metrics.total_energy_j", "number", "J"),
    _raw("energy_metrics.gpu_energy_j", "number", "J"),
    _raw("energy_metrics.cpu_energy_j", "number", "J"),
    _raw("energy_metrics.ram_energy_j", "number", "J"),
    _raw("energy_metrics.gpu_power_w", "number", "W"),
    _raw("energy_metrics.cpu_power_w", "number", "W"),
    _raw("energy_metrics.duration_sec", "number", "s", name="energy_window_sec"),
    _raw("energy_metrics.emissions_kg_co2", "number", "kg CO2eq"),
    _raw("energy_metrics.energy_per_token_j", "number", "J/token"),
    _raw("energy_metrics.idle_power_w", "number", "W"),
    _raw("energy_metrics.idle_adjusted_energy_j", "number", "J"),
    *(
        _raw(f"energy_metrics.{component}_{fact}", "text")
        for component in ("total", "gpu", "cpu", "ram")
        for fact in ("scope", "provenance")
    ),
    _raw("energy_measurement_warning", "text"),
    _raw("compute_metrics.flops_total", "number", "FLOP"),
    _raw("compute_metrics.flops_per_token", "number", "FLOP/token"),
    _raw("compute_metrics.flops_per_second", "number", "FLOP/s"),
    _raw("compute_metrics.flops_method", "text"),
    _raw("compute_metrics.flops_confidence", "text"),
    _raw("compute_metrics.compute_precision", "text"),
    _raw("compute_metrics.peak_memory_mb", "number", "MiB"),
    _raw("compute_metrics.model_memory_mb", "number", "MiB"),
    _raw("origin.tool", "text", name="origin_tool"),
    _raw("origin.file", "text", name="origin_file"),
    _raw("status", "text"),
    _raw("error_type", "text"),
    _raw("schema_version", "text"),
)

# The columns of a process that `breakdown_columns` adds to the row of its experiment.
_BREAKDOWN_NAMES = {
    *("host", "gpu_id", "gpu_uuid", "total_energy_j", "gpu_energy_j", "cpu_energy_j", "ram_energy_j"),
    *("total_tokens", "tokens_per_second", "inference_time_sec", "flops_total"),
}
_BREAKDOWN = tuple(column for column in RAW_COLUMNS if column.name in _BREAKDOWN_NAMES)


def breakdown_columns(results: Sequence[AggregatedResult]) -> tuple[Column[AggregatedResult], ...]:
    """Return the columns `process_<i>_<name>`, for each process index that occurs in the results."""
    indices = sorted({process.process_index for result in results for process in result.process_results})
    return tuple(_of_process(index, column) for index in indices for column in _BREAKDOWN)


def _of_process(index: int, column: Column[RawProcessResult]) -> Column[AggregatedResult]:
    def getter(result: AggregatedResult) -> Any:
        found = (process for process in result.process_results if process.process_index == index)
        process = next(found, None)
        return None if process is None else column.getter(process)

    return Column(f"process_{index}_{column.name}", column.type, column.unit, getter)


# The columns of CodeCarbon's emissions.csv, version 3.3.0. Source: CodeCarbon's file output.

_CODECARBON = "codecarbon"


def kwh_of(energy_j: float | None) -> float | None:
    """Return an energy in kWh; None for None.

    The conversion back to joules (times 3.6e6) gives exactly the same number, if there is a float with this property.

    Example:
        >>> kwh_of(1800000.0), kwh_of(None)
        (0.5, None)
    """
    if energy_j is None:
        return None
    kwh = j_to_kwh(energy_j)
    near = (kwh, math.nextafter(kwh, math.inf), math.nextafter(kwh, 0.0))
    return next((value for value in near if value * JOULES_PER_KWH == energy_j), kwh)


def _imported(record: RawProcessResult) -> dict[str, Any]:
    """Return the columns of an imported CodeCarbon row that have no field in a record; empty for other records."""
    found = record.effective_config.get(_CODECARBON)
    return found if isinstance(found, dict) else {}


def _duration_sec(record: RawProcessResult) -> float | None:
    """Return the duration of the energy window, in seconds; if it is unknown, the duration of the run."""
    window = record.energy_metrics.duration_sec
    return record.timestamps.duration_sec if window is None else window


def _end(record: RawProcessResult) -> datetime | None:
    """Return the end of the energy window, or of the run if the record has no window.

    An unknown end is computed as start plus duration. Start and duration are both from the energy window, or both from
    the run, because window and run can differ.
    """
    window, run = record.energy_metrics.window, record.timestamps
    start, end, duration = (
        (run.start, run.end, run.duration_sec)
        if window is None
        else (window.start, window.end, record.energy_metrics.duration_sec)
    )
    if end is None and start is not None and duration is not None:
        return start + timedelta(seconds=duration)
    return end


def has_codecarbon_row(record: RawProcessResult) -> bool:
    """Return True if the end and the duration of a record are known: a reader of CodeCarbon rows needs both."""
    return _end(record) is not None and _duration_sec(record) is not None


def _tracking_mode(record: RawProcessResult) -> str | None:
    energy = record.energy_metrics
    if energy.total_scope == "host":
        return "machine"
    return "process" if energy.ram_scope == "process" else None


def _gpu_model(record: RawProcessResult) -> str | None:
    devices = record.energy_metrics.devices
    if not devices or record.gpu_name is None:
        return record.gpu_name
    return f"{len(devices)} x {record.gpu_name}"


def _gpu_count(record: RawProcessResult) -> int | None:
    devices = record.energy_metrics.devices
    return len(devices) if devices else None


def _codecarbon_version(record: RawProcessResult) -> str | None:
    return record.origin.version if record.origin is not None and record.origin.tool == _CODECARBON else None


_CODECARBON_GETTERS: dict[str, Callable[[RawProcessResult], object]] = {
    "timestamp": _end,
    "project_name": lambda record: record.config_name,
    "duration": _duration_sec,
    "emissions": lambda record: record.energy_metrics.emissions_kg_co2,
    "cpu_power": lambda record: record.energy_metrics.cpu_power_w,
    "gpu_power": lambda record: record.energy_metrics.gpu_power_w,
    "cpu_energy": lambda record: kwh_of(record.energy_metrics.cpu_energy_j),
    "gpu_energy": lambda record: kwh_of(record.energy_metrics.gpu_energy_j),
    "ram_energy": lambda record: kwh_of(record.energy_metrics.ram_energy_j),
    "energy_consumed": lambda record: kwh_of(record.energy_metrics.total_energy_j),
    "codecarbon_version": _codecarbon_version,
    "gpu_model": _gpu_model,
    # CodeCarbon never leaves this column empty. It writes "N" if it detects no cloud.
    "on_cloud": lambda record: _imported(record).get("on_cloud") or "N",
}
# Values for records that were not imported from CodeCarbon. An imported record keeps the values of its row.
_CODECARBON_DEFAULTS: dict[str, Callable[[RawProcessResult], object]] = {
    # Each process has a separate run id, because CodeCarbon's rows with one run id are cumulative.
    "run_id": lambda record: f"{record.experiment_id}-process_{record.process_index}",
    "experiment_id": lambda record: record.experiment_id,
    "emissions_rate": lambda record: ratio(record.energy_metrics.emissions_kg_co2, _duration_sec(record)),
    "gpu_count": _gpu_count,
    "tracking_mode": _tracking_mode,
}


def _codecarbon_column(name: str) -> Column[RawProcessResult]:
    def imported_or_default(record: RawProcessResult) -> object:
        imported = _imported(record)
        if imported or name not in _CODECARBON_DEFAULTS:
            return imported.get(name)
        return _CODECARBON_DEFAULTS[name](record)

    return Column(name, "text", "", _CODECARBON_GETTERS.get(name, imported_or_default))


CODECARBON_COLUMNS: tuple[Column[RawProcessResult], ...] = tuple(
    _codecarbon_column(name) for name in CODECARBON_COLUMN_NAMES
)
