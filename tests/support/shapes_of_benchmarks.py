"""Shapes of the JSON results of benchmarks, each with the fields that its tool writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import RawProcessResult
from tests.support.shapes import (
    ABSENT,
    COMPUTE,
    DEVICES,
    LATENCY,
    LAUNCHER,
    NAMES,
    SENSORS,
    STATUS,
    VERSIONS,
    WORLD,
    Shape,
    Values,
    copy_of,
    derived_id,
    if_known,
    null,
    scopes,
)
from tests.support.shapes_of_logs import (
    all_tokens,
    maybe,
    names,
    start_before,
    whole_timestamps,
    with_config,
    words,
)

INPUT, OUTPUT = "inference_metrics.input_tokens", "inference_metrics.output_tokens"
INFERENCE_SEC = "inference_metrics.inference_time_sec"
TOTAL, GPU = "energy_metrics.total_energy_j", "energy_metrics.gpu_energy_j"
WINDOW, POWER = "energy_metrics.duration_sec", "energy_metrics.gpu_power_w"
TTFT, RATE = "inference_metrics.time_to_first_token_ms", "inference_metrics.tokens_per_second"

tokens = st.integers(1, 10**9)
joules = st.floats(1, 1e9)
seconds = st.floats(0.5, 1e5)
milliseconds = st.integers(1, 10**6).map(float)


def shape(
    name: str,
    drawn: dict[str, st.SearchStrategy[Any]],
    document: Callable[[RawProcessResult], dict[str, Any]],
    *,
    derived: Values | None = None,
    finish: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found,
    wrap: Callable[[list[dict[str, Any]]], Any] = lambda found: found[0],
) -> Shape:
    """Return the shape of a benchmark.

    Args:
        name: Name of the format.
        drawn: Strategies of the stored fields.
        document: Returns the JSON object of a record.
        derived: Values of fields that an import derives, in place of None.
        finish: Returns the configuration of a JSON object.
        wrap: Returns the content of the file.
    """
    host = {"host": maybe(names)}
    strategy = st.lists(st.fixed_dictionaries({**drawn, **host}), min_size=1, max_size=1)

    def write(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
        (folder / "result.json").write_text(json.dumps(wrap([document(record) for record in records])))
        return {"host": records[0].host}

    usual = {
        **ABSENT,
        **NAMES,
        **WORLD,
        **LAUNCHER,
        **STATUS,
        **VERSIONS,
        **LATENCY,
        **COMPUTE,
        **SENSORS,
        **DEVICES,
        **null("inference_metrics.", "input_tokens output_tokens inference_time_sec tokens_per_second"),
        **null("inference_metrics.", "time_to_first_token_ms"),
        **derived_id(name),
        **null("", "config_name gpu_id gpu_uuid gpu_name"),
        "origin.tool": name,
        **null("origin.", "version"),
        **null("timestamps.", "start end"),
        "timestamps.duration_sec": copy_of(INFERENCE_SEC) if INFERENCE_SEC in drawn else None,
        "inference_metrics.total_tokens": all_tokens if INPUT in drawn else None,
        "effective_config": {},
        **null("energy_metrics.", "total_energy_j gpu_energy_j cpu_energy_j ram_energy_j duration_sec gpu_power_w"),
        **null("energy_metrics.", "cpu_power_w emissions_kg_co2 energy_per_token_j"),
        **scopes(),
        **(derived or {}),
    }
    return Shape(
        stored=frozenset([*drawn, *host]),
        derived={path: value for path, value in usual.items() if path not in {*drawn, *host}},
        strategy=strategy,
        write=write,
        finish=lambda records: [with_config(record, {name: finish(document(record))}) for record in records],
    )


def counts_of(record: RawProcessResult) -> tuple[int, int]:
    assert record.inference_metrics is not None
    return record.inference_metrics.input_tokens, record.inference_metrics.output_tokens


def inference_sec(record: RawProcessResult) -> float | None:
    return record.inference_metrics.inference_time_sec if record.inference_metrics is not None else None


def device_scopes(provenance: str | None) -> Values:
    return scopes(total_scope="device", gpu_scope="device", total_provenance=provenance, gpu_provenance=provenance)


def sglang_document(record: RawProcessResult) -> dict[str, Any]:
    metrics = record.inference_metrics
    assert metrics is not None
    return {
        "backend": record.backend,
        "tag": record.config_name,
        "duration": metrics.inference_time_sec,
        "completed": 3,
        "total_input_tokens": metrics.input_tokens,
        "total_output_tokens": metrics.output_tokens,
        "total_output_tokens_retokenized": metrics.output_tokens,
        "total_throughput": metrics.tokens_per_second,
        "mean_ttft_ms": metrics.time_to_first_token_ms,
    }


SGLANG = shape(
    "sglang",
    {
        "backend": maybe(words),
        "config_name": maybe(words),
        INPUT: tokens,
        OUTPUT: tokens,
        INFERENCE_SEC: seconds,
        RATE: maybe(seconds),
        TTFT: maybe(milliseconds),
    },
    sglang_document,
)


def throughput_document(record: RawProcessResult) -> dict[str, Any]:
    energy, (given, generated) = record.energy_metrics, counts_of(record)
    assert energy.total_energy_j is not None
    assert record.inference_metrics is not None
    return {
        "elapsed_time": inference_sec(record),
        "num_requests": 3,
        "total_num_tokens": given + generated,
        "tokens_per_second": record.inference_metrics.tokens_per_second,
        "gpu_energy_j": energy.total_energy_j,
        "gpu_energy_duration_s": energy.duration_sec,
        "gpu_avg_power_w": energy.gpu_power_w,
        "gpu_energy_per_output_token_j": energy.total_energy_j / generated,
    }


THROUGHPUT = shape(
    "vllm-throughput",
    {
        INPUT: tokens,
        OUTPUT: tokens,
        INFERENCE_SEC: seconds,
        RATE: maybe(seconds),
        TOTAL: joules,
        WINDOW: maybe(seconds),
        POWER: maybe(seconds),
    },
    throughput_document,
    derived={GPU: copy_of(TOTAL), **device_scopes("measured")},
)

LATENCY_BENCH = shape(
    "vllm-latency",
    {"effective_config": st.just({"vllm-latency": {"avg_latency": 1.5, "latencies": [1.5], "percentiles": {}}})},
    lambda _: {"avg_latency": 1.5, "latencies": [1.5], "percentiles": {}},
)


def tensorrt_document(record: RawProcessResult) -> dict[str, Any]:
    end, energy, (given, generated) = record.timestamps.end, record.energy_metrics, counts_of(record)
    return {
        "date": None if end is None else end.strftime("%Y%m%d-%H%M%S"),
        "backend": record.backend,
        "model_id": record.model_name,
        "tokenizer_id": "t",
        "num_prompts": 8,
        "request_rate": "inf",
        "request_goodput:": None,
        "duration": inference_sec(record),
        "total_input_tokens": given,
        "total_output_tokens": generated,
        "energy": {"total_energy_j": energy.total_energy_j, "total_gpu_power_w": energy.gpu_power_w},
    }


def window_of(values: Values) -> float | None:
    return None if values[POWER] is None else values[TOTAL] / values[POWER]


TENSORRT_LLM = shape(
    "trtllm",
    {
        "backend": maybe(words),
        "model_name": words,
        "timestamps.end": maybe(whole_timestamps),
        INPUT: tokens,
        OUTPUT: tokens,
        INFERENCE_SEC: seconds,
        TOTAL: joules,
        POWER: maybe(seconds),
    },
    tensorrt_document,
    derived={
        "timestamps.start": lambda values: start_before({**values, "timestamps.duration_sec": values[INFERENCE_SEC]}),
        GPU: copy_of(TOTAL),
        WINDOW: window_of,
        **device_scopes(None),
    },
)


def inferencex_document(record: RawProcessResult) -> dict[str, Any]:
    energy, (given, generated) = record.energy_metrics, counts_of(record)
    assert energy.total_energy_j is not None
    return {
        "hw": record.gpu_name,
        "conc": 4,
        "model": record.model_name,
        "framework": record.backend,
        "precision": record.compute_metrics and record.compute_metrics.compute_precision,
        "tput_per_gpu": 1.5,
        "power_valid": 1,
        "power_metric_schema_version": 2,
        "avg_total_gpu_power_w": energy.gpu_power_w,
        "total_gpu_energy_j": energy.total_energy_j,
        "joules_per_input_token": energy.total_energy_j / given,
        "joules_per_output_token": energy.total_energy_j / generated,
    }


INFERENCEX = shape(
    "inferencex",
    {
        "backend": words,
        "model_name": words,
        "gpu_name": words,
        "compute_metrics.compute_precision": maybe(words),
        INPUT: tokens,
        OUTPUT: tokens,
        TOTAL: joules,
        POWER: seconds,
    },
    inferencex_document,
    derived={
        GPU: copy_of(TOTAL),
        WINDOW: window_of,
        INFERENCE_SEC: window_of,
        "timestamps.duration_sec": window_of,
        **device_scopes("integrated"),
    },
)

UUIDS, INDICES, OF_DEVICES = (f"energy_metrics.devices[].{name}" for name in ("gpu_uuid", "gpu_id", "energy_j"))
whole_megajoules = st.integers(1, 10**6).map(lambda number: float(number) * 1e6)


@st.composite
def aiperf_runs(draw: st.DrawFn) -> list[Values]:
    gpus = draw(st.integers(1, 3))
    start = draw(whole_timestamps)
    duration = draw(seconds)
    return [
        {
            "host": draw(maybe(names)),
            "model_name": draw(maybe(words)),
            "timestamps.start": start,
            "timestamps.end": start + timedelta(seconds=draw(st.integers(0, 10**5))),
            INPUT: draw(tokens),
            OUTPUT: draw(tokens),
            INFERENCE_SEC: duration,
            TTFT: draw(maybe(milliseconds)),
            UUIDS: [f"GPU-{index}" for index in range(gpus)],
            INDICES: list(range(gpus)),
            OF_DEVICES: draw(st.lists(whole_megajoules, min_size=gpus, max_size=gpus)),
            "origin.version": draw(maybe(st.just("0.13.0"))),
        }
    ]


def aiperf_document(record: RawProcessResult) -> dict[str, Any]:
    start, end, (given, generated) = record.timestamps.start, record.timestamps.end, counts_of(record)
    metrics = record.inference_metrics
    assert metrics is not None
    assert start is not None
    assert end is not None
    gpus = {
        f"gpu_{device.gpu_id}": {
            "gpu_index": device.gpu_id,
            "gpu_uuid": device.gpu_uuid,
            "hostname": record.host,
            "metrics": {"nvidia_energy_consumption": {"unit": "MJ", "avg": (device.energy_j or 0) / 1e6}},
        }
        for device in record.energy_metrics.devices or []
    }
    return {
        "aiperf_version": record.origin and record.origin.version,
        "input_config": {"endpoint": {"model_names": [record.model_name]}},
        "start_time": start.isoformat(),
        "end_time": end.isoformat(),
        "benchmark_duration": {"unit": "sec", "avg": inference_sec(record)},
        "total_isl": {"unit": "tokens", "avg": float(given)},
        "total_osl": {"unit": "tokens", "avg": float(generated)},
        "time_to_first_token": {"unit": "ms", "avg": metrics.time_to_first_token_ms},
        "telemetry_data": {"endpoints": {"localhost:9400": {"gpus": gpus}}},
    }


def write_aiperf(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    (folder / "profile_export_aiperf.json").write_text(json.dumps(aiperf_document(records[0])))
    return {}


def sum_of_gpus(values: Values) -> float:
    return math.fsum(values[OF_DEVICES])


AIPERF = Shape(
    stored=frozenset(
        [
            *("host", "model_name", "timestamps.start", "timestamps.end", INPUT, OUTPUT, INFERENCE_SEC, TTFT),
            *(UUIDS, INDICES, OF_DEVICES, "origin.version"),
        ]
    ),
    derived={
        **{path: value for path, value in ABSENT.items() if path != INDICES},
        **null("", "backend backend_version"),
        **WORLD,
        **LAUNCHER,
        **STATUS,
        **VERSIONS,
        **LATENCY,
        **COMPUTE,
        **SENSORS,
        **derived_id("aiperf"),
        **null("", "config_name gpu_name"),
        "gpu_id": lambda values: 0 if len(values[INDICES]) == 1 else None,
        "gpu_uuid": lambda values: "GPU-0" if len(values[INDICES]) == 1 else None,
        "origin.tool": "aiperf",
        "timestamps.duration_sec": copy_of(INFERENCE_SEC),
        "inference_metrics.total_tokens": all_tokens,
        RATE: None,
        "effective_config": {},
        TOTAL: sum_of_gpus,
        GPU: sum_of_gpus,
        WINDOW: copy_of(INFERENCE_SEC),
        POWER: lambda values: sum_of_gpus(values) / values[INFERENCE_SEC],
        **null("energy_metrics.", "cpu_energy_j ram_energy_j cpu_power_w emissions_kg_co2 energy_per_token_j"),
        **null("energy_metrics.devices[].", "gpu_name"),
        "energy_metrics.devices[].provenance": if_known(OF_DEVICES, "measured"),
        **device_scopes("measured"),
    },
    strategy=aiperf_runs(),
    write=write_aiperf,
    finish=lambda records: [with_config(record, {"aiperf": aiperf_document(record)}) for record in records],
)


def power_bench_document(record: RawProcessResult) -> dict[str, Any]:
    energy = record.energy_metrics
    return {
        "duration": record.timestamps.duration_sec,
        "total_output_tokens": 5,
        "gpu_avg_power": energy.gpu_power_w,
        "total_energy": energy.total_energy_j,
        "gpu_energy": energy.gpu_energy_j,
        "cpu_energy": energy.cpu_energy_j or 0.0,
        "dram_energy": energy.ram_energy_j or 0.0,
    }


def of_host(part: str) -> Values:
    known = f"energy_metrics.{part}_energy_j"
    return {
        f"energy_metrics.{part}_scope": if_known(known, "host"),
        f"energy_metrics.{part}_provenance": if_known(known, "integrated"),
    }


def has_unclear_total(values: Values) -> bool:
    """Return True if the importer adds the memory to the total, because the total equals GPU plus CPU."""
    parts = values[GPU] + (values["energy_metrics.cpu_energy_j"] or 0.0)
    return values["energy_metrics.ram_energy_j"] is not None and math.isclose(values[TOTAL], parts, rel_tol=1e-5)


TOKEN_POWER_BENCH = shape(
    "tokenpowerbench",
    {
        "model_name": st.just("org/model"),
        "timestamps.duration_sec": st.floats(20, 1e5),
        POWER: seconds,
        TOTAL: joules,
        GPU: joules,
        "energy_metrics.cpu_energy_j": maybe(joules),
        "energy_metrics.ram_energy_j": maybe(joules),
    },
    power_bench_document,
    derived={
        WINDOW: copy_of("timestamps.duration_sec"),
        **of_host("total"),
        **of_host("gpu"),
        **of_host("cpu"),
        **of_host("ram"),
    },
    finish=lambda found: {"model": "org/model", **found},
    wrap=lambda found: {"org/model": found},
)
TOKEN_POWER_BENCH.strategy = TOKEN_POWER_BENCH.strategy.filter(lambda drawn: not any(map(has_unclear_total, drawn)))


def result_document(record: RawProcessResult) -> dict[str, Any]:
    energy, (given, generated) = record.energy_metrics, counts_of(record)
    start, metrics = record.timestamps.start, record.inference_metrics
    assert energy.total_energy_j is not None
    assert metrics is not None
    return {
        "schema_version": "3.0",
        "experiment_id": f"{record.model_name}_20260401_100000",
        "measurement_config_hash": "0123abcd",
        "engine": record.backend,
        "total_tokens": given + generated,
        "total_energy_j": energy.total_energy_j,
        "total_inference_time_sec": metrics.inference_time_sec,
        "avg_tokens_per_second": metrics.tokens_per_second,
        "avg_energy_per_token_j": energy.total_energy_j / generated,
        "energy_per_device_j": [energy.total_energy_j],
        "start_time": None if start is None else start.isoformat(),
    }


RESULT_JSON = shape(
    "llenergymeasure",
    {
        "backend": maybe(words),
        "model_name": st.just("org/model"),
        "timestamps.start": maybe(whole_timestamps),
        INPUT: tokens,
        OUTPUT: tokens,
        INFERENCE_SEC: seconds,
        RATE: maybe(seconds),
        TOTAL: joules,
    },
    result_document,
    derived={
        GPU: copy_of(TOTAL),
        WINDOW: copy_of(INFERENCE_SEC),
        OF_DEVICES: lambda values: [values[TOTAL]],
        **device_scopes(None),
    },
    finish=lambda found: {"model": "org/model", **found},
)

BENCHMARKS = {
    "llenergymeasure": RESULT_JSON,
    "sglang": SGLANG,
    "vllm-throughput": THROUGHPUT,
    "vllm-latency": LATENCY_BENCH,
    "trtllm": TENSORRT_LLM,
    "inferencex": INFERENCEX,
    "aiperf": AIPERF,
    "tokenpowerbench": TOKEN_POWER_BENCH,
}
