"""The `Benchmark` of each tool whose JSON results are imported.

Sources: vLLM `bench serve --save-result [--save-detailed] [--append-result]` (2025-03 to 0.25.1), `bench throughput
--output-json` with the energy fields of pull request 56354, `bench latency --output-json`; TensorRT-LLM
`benchmark_serving`, whose server writes `energy` if `enable_energy_metrics` is set (pull request 11855); SGLang
`bench_serving --output-file` (0.5.23); InferenceX `agg_<name>.json`; TokenPowerBench.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import Status
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics
from llm_energy_measure.importers.benchmark import Benchmark, Document, Documents
from llm_energy_measure.importers.json_text import as_object, top_level_fields
from llm_energy_measure.importers.record_parts import component
from llm_energy_measure.importers.report import Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import as_integer, as_number

_SERVE_FIELDS = frozenset(("date", "model_id", "tokenizer_id", "num_prompts", "request_rate"))
_TENSORRT_LLM_FIELD = "request_goodput:"
"""A field that only TensorRT-LLM writes. The colon is part of its name."""
_PER_REQUEST = frozenset(("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"))
"""Fields with a value for each request. A record stores the latencies as samples; the texts are personal data."""

_CLIENT = (
    "input_tokens=total_input_tokens",
    "output_tokens=total_output_tokens",
    "inference_time_sec=duration",
    "time_to_first_token_ms=mean_ttft_ms",
)
_SERVE = (
    *_CLIENT,
    "model_name=model_id",
    "config_name=label",
    "backend=backend",
    "end=date",
    "tokens_per_second=total_token_throughput",
)


def _serve_status(document: Document, notes: Notes) -> Status | None:
    """Return `failed` if no request succeeded, otherwise None. Refuse the warm-up of `vllm bench sweep serve`."""
    if document.get("run_number") == -1:
        raise RefusedInputError("no_measurement", "it is the warm-up of a sweep (run_number is -1)")
    if as_integer(document.get("completed")) != 0:
        return None
    failed = as_integer(document.get("failed"))
    requests = failed or document.get("num_prompts")
    notes.add("run_failed", f"none of {'the' if requests is None else requests} requests succeeded")
    return "failed"


VLLM = Benchmark(
    name="vllm",
    looks_for="JSON objects with date, model_id, tokenizer_id, num_prompts and request_rate",
    covers="device, if the server wrote its energy",
    unknown="energy (until joined, in most versions), host, GPU",
    needs=_SERVE_FIELDS,
    mapping=(
        *_SERVE,
        "energy_j=gpu_energy_j",
        "gpu_energy_j=gpu_energy_j",
        "duration_sec=gpu_energy_duration_s",
        "gpu_power_w=gpu_avg_power_w",
    ),
    end_pattern="%Y%m%d-%H%M%S",
    dropped=_PER_REQUEST,
    status=_serve_status,
)

TENSORRT_LLM = Benchmark(
    name="trtllm",
    looks_for="JSON objects with the fields of vllm and request_goodput: (the colon is part of the name)",
    covers="device; on several nodes, extrapolated from one node",
    unknown="host, GPU, energy if the server did not count it",
    needs=_SERVE_FIELDS,
    # On several nodes, the server extrapolates the energy of its own node to all nodes. The file does not state
    # whether the server did so, and therefore the provenance is unknown.
    mapping=(
        *_SERVE,
        "energy_j={energy.total_energy_j}",
        "gpu_energy_j={energy.total_energy_j}",
        "gpu_power_w={energy.total_gpu_power_w}",
        # The server counts energy for another length of time than the client measures. This length is energy / power.
        "duration_sec={energy.total_energy_j}/{energy.total_gpu_power_w}",
    ),
    end_pattern="%Y%m%d-%H%M%S",
    dropped=_PER_REQUEST,
    recognises=lambda source: set(source.first_fields) >= {*_SERVE_FIELDS, _TENSORRT_LLM_FIELD},
    status=_serve_status,
)

VLLM_THROUGHPUT = Benchmark(
    name="vllm-throughput",
    looks_for="JSON with elapsed_time, num_requests and total_num_tokens",
    covers="device; measured, if the version has energy fields",
    unknown="model, time of day, host; input and output tokens, if the file has no energy fields",
    needs=frozenset(("elapsed_time", "num_requests", "total_num_tokens")),
    mapping=(
        "total_tokens=total_num_tokens",
        "output_tokens=gpu_energy_j/gpu_energy_per_output_token_j",
        "inference_time_sec=elapsed_time",
        "tokens_per_second=tokens_per_second",
        "energy_j=gpu_energy_j",
        "gpu_energy_j=gpu_energy_j",
        "duration_sec=gpu_energy_duration_s",
        "gpu_power_w=gpu_avg_power_w",
    ),
    provenance="measured",
)

VLLM_LATENCY = Benchmark(
    name="vllm-latency",
    looks_for="JSON with avg_latency, latencies and percentiles",
    covers="no energy",
    unknown="energy (until joined), tokens, model, time of day, host",
    needs=frozenset(("avg_latency", "latencies", "percentiles")),
    mapping=(),
)

SGLANG = Benchmark(
    name="sglang",
    looks_for="JSON lines with total_output_tokens_retokenized",
    covers="no energy",
    unknown="energy (until joined), model, time of day, host",
    needs=frozenset(("backend", "duration", "completed", "total_output_tokens_retokenized")),
    mapping=(*_CLIENT, "backend=backend", "config_name=tag", "tokens_per_second=total_throughput"),
    dropped=_PER_REQUEST | {"server_info"},
    status=_serve_status,
)


def _inferencex_documents(source: ImportSource) -> Documents:
    """Yield the objects of a file, which is one object or a list of objects."""
    document = source.json()
    for item in document if isinstance(document, list) else [document]:
        yield item if isinstance(item, dict) else RefusedInputError("torn", "it is not a JSON object")


def _inferencex_status(document: Document, notes: Notes) -> Status | None:
    """Add a note if the energy is not usable. The status is always None."""
    if document.get("power_valid") == 0:
        notes.warn("invalid_power", "power_valid is 0: the benchmark refused its own power samples")
    elif "total_gpu_energy_j" in document and document.get("power_metric_schema_version") is None:
        found = "power_metric_schema_version is missing: joules per token may cover only the prefill or the decode GPUs"
        notes.warn("invalid_power", found)
    return None


_INFERENCEX_FIELDS = frozenset(("hw", "conc", "model", "framework", "tput_per_gpu"))

INFERENCEX = Benchmark(
    name="inferencex",
    looks_for="a JSON object or list with hw, conc, model, framework and tput_per_gpu",
    covers="device; integrated",
    unknown="time of day, host, which GPUs",
    needs=_INFERENCEX_FIELDS,
    mapping=(
        "model_name=model",
        "backend=framework",
        "gpu_name=hw",
        "compute_precision=precision",
        "energy_j=total_gpu_energy_j",
        "gpu_energy_j=total_gpu_energy_j",
        "gpu_power_w=avg_total_gpu_power_w",
        "duration_sec=total_gpu_energy_j/avg_total_gpu_power_w",
        "inference_time_sec=total_gpu_energy_j/avg_total_gpu_power_w",
        # The term 0*power_metric_schema_version makes the tokens null in a file without this version. In these files,
        # joules per token may cover all GPUs, or only the GPUs for prefill or for decode.
        "input_tokens=total_gpu_energy_j/joules_per_input_token + 0*power_metric_schema_version",
        "output_tokens=total_gpu_energy_j/joules_per_output_token + 0*power_metric_schema_version",
        "time_to_first_token_ms=1000*mean_ttft",  # InferenceX writes seconds
    ),
    provenance="integrated",
    recognises=lambda source: bool(source.items) and _names_of(source) >= _INFERENCEX_FIELDS,
    documents=_inferencex_documents,
    status=_inferencex_status,
)


def _names_of(source: ImportSource) -> set[str]:
    """Return the names of the fields of the first object of a file."""
    return set(source.fields) or set(top_level_fields(bytes(source.items[0])))


_SHORT_SEC = 16.0
"""Duration in seconds. The energy of a shorter run gets a warning that it includes idle power.

The tool records power from 2 s before to 2 s after the run. The mean leaves out 10 % of this time at each end. For a
run of 16 s, 10 % of these 20 s are exactly the 2 s of idle power.
"""
_GPU_POWER = re.compile(r"gpu([0-9]{1,3})(?:_power_watts)?")


def _power_bench_documents(source: ImportSource) -> Documents:
    """Yield each result, with its key in the file as the field `model`, or as `batch` in newer files."""
    document = source.json()
    for name, results in document.items() if isinstance(document, dict) else ():
        for result in results if isinstance(results, list) else [results]:
            if isinstance(result, dict):
                kind = "batch" if "duration_s" in result else "model"
                yield {kind: name, "duration": result.get("duration_s"), **result}
            else:
                yield RefusedInputError("torn", f"{name[:40]} is not a JSON object")


def _is_power_bench(source: ImportSource) -> bool:
    """Return True if the first field of the file is a result of TokenPowerBench, or a list of results."""
    first = next((bytes(value) for value in source.fields.values()), b"")
    if first[:1] == b"[":
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            first = bytes(msgspec.json.decode(first, type=list[msgspec.Raw])[:1][0])
    names = top_level_fields(first) if first[:1] == b"{" else {}
    return names.keys() >= {"duration", "gpu_avg_power", "gpu_energy"} or names.keys() >= {"duration_s", "gpu_energy_j"}


def _power_bench_energy(document: Document, notes: Notes) -> EnergyMetrics | None:
    """Return the energies of a result. An energy of 0 was not measured and is None.

    A missing total is the sum of the known components. A total without the memory energy is replaced by this sum.
    """
    joules: dict[str, float | None] = {}
    for name, field in (("total", "total"), ("gpu", "gpu"), ("cpu", "cpu"), ("ram", "dram")):
        joules[name] = as_number(document.get(f"{field}_energy", document.get(f"{field}_energy_j"))) or None
    known = [value for name, value in joules.items() if name != "total" and value is not None]
    without_ram = sum(joules[name] or 0.0 for name in ("gpu", "cpu"))
    if joules["total"] is None:
        joules["total"] = math.fsum(known) if known else None
    elif joules["ram"] is not None and math.isclose(joules["total"], without_ram, rel_tol=1e-6):
        notes.repair("total_from_components", "total_energy is gpu + cpu; the total of the record is gpu + cpu + dram")
        joules["total"] = math.fsum(known)
    duration_sec = as_number(document.get("duration"))
    devices = []
    powers = {**document, **as_object(document.get("per_gpu_power_w"))}
    for name in sorted(powers, key=lambda name: (len(name), name)):
        match, power_w = _GPU_POWER.fullmatch(name), as_number(powers[name])
        if match and power_w is not None and duration_sec is not None:
            energy_j = power_w * duration_sec
            devices.append(DeviceEnergy(gpu_id=int(match[1]), energy_j=energy_j, provenance="integrated"))
    parts: dict[str, Any] = {}
    for name, value in joules.items():
        parts |= component(name, value, "host", "integrated")
    gpu_power_w = as_number(document.get("gpu_avg_power"))
    if gpu_power_w is None and joules["gpu"] is not None and duration_sec:
        gpu_power_w = joules["gpu"] / duration_sec
    return EnergyMetrics(**parts, duration_sec=duration_sec, gpu_power_w=gpu_power_w, devices=devices or None)


def _power_bench_status(document: Document, notes: Notes) -> Status | None:
    """Add a note if the run is so short that its energy includes idle power. The status is always None."""
    duration_sec = as_number(document.get("duration"))
    if duration_sec is not None and duration_sec < _SHORT_SEC:
        found = f"the run lasted {duration_sec:g} s, but its power is a mean from 2 s before the run to 2 s after it"
        notes.warn("idle_included", f"{found}, so the energy includes idle power")
    return None


TOKEN_POWER_BENCH = Benchmark(
    name="tokenpowerbench",
    looks_for="a JSON object of results with duration, gpu_avg_power and gpu_energy",
    covers="host; integrated: the mean power of all boards times the duration",
    unknown="input tokens, time of day, host name",
    needs=frozenset(("duration",)),
    mapping=(
        "model_name=model",
        "config_name=batch",
        "output_tokens=total_output_tokens",
        "inference_time_sec=duration",
    ),
    dropped=frozenset(("responses", "outputs", "prompts")),
    recognises=_is_power_bench,
    documents=_power_bench_documents,
    energy=_power_bench_energy,
    status=_power_bench_status,
)
