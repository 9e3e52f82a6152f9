"""Shapes of files with one measurement per line or object: CodeCarbon, tables, Zeus, vLLM."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import strategies as st

from llm_energy_measure.domain.units import kwh_to_j
from llm_energy_measure.results import exporters
from tests.support.shapes import (
    ABSENT,
    COMPUTE,
    DEVICES,
    INFERENCE,
    LATENCY,
    LAUNCHER,
    NAMES,
    OTHER_LATENCY,
    SENSORS,
    STATUS,
    VERSIONS,
    WORLD,
    Shape,
    Values,
    copy_of,
    derived_id,
    for_each,
    if_known,
    near,
    null,
    scopes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

joules = st.floats(0, 1e12, allow_subnormal=False)
kwh_as_j = st.floats(1e-9, 1e6).map(kwh_to_j)
watts = st.floats(0.5, 1e5)
seconds = st.floats(0.001, 1e5)
counts = st.integers(0, 2**50)
# The export adds a character before a text that would begin a formula in a spreadsheet.
words = st.text("abcXYZ 0189._/+-é", min_size=1, max_size=12).filter(
    lambda text: text.strip() == text and not text.startswith(("+", "-"))
)
names = st.text("abcXYZ0189._", min_size=1, max_size=8).filter(lambda text: text.strip("."))
whole_timestamps = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)).map(
    lambda stamp: stamp.replace(microsecond=0)
)
moments = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
boards = st.sampled_from(["NVIDIA A100-PCIE-40GB", "NVIDIA H100", "AMD Instinct MI250X"])
plain = st.one_of(st.none(), st.booleans(), st.integers(-(2**50), 2**50), st.floats(-1e9, 1e9), words)
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def document(record: RawProcessResult, tool: str) -> dict[str, Any]:
    found: dict[str, Any] = record.effective_config[tool]
    return found


def with_config(record: RawProcessResult, config: dict[str, Any]) -> RawProcessResult:
    return msgspec.structs.replace(record, effective_config=config)


def start_before(values: Values) -> datetime | None:
    end, duration = values["timestamps.end"], values["timestamps.duration_sec"]
    return None if end is None or duration is None else end - timedelta(seconds=duration)


def is_half_watts(power_w: float | None) -> bool:
    return power_w is not None and (2 * power_w).is_integer()


def machine_options(records: Sequence[RawProcessResult]) -> dict[str, Any]:
    """Return the arguments of `read` that state the host and the GPUs."""
    devices = records[0].energy_metrics.devices or []
    uuids = [device.gpu_uuid for device in devices if device.gpu_uuid is not None]
    return {"host": records[0].host, "gpu_uuids": uuids}


# CodeCarbon, written by our exporter

OTHER_CARBON_COLUMNS = {
    "cpu_count": st.integers(1, 512).map(float),
    "ram_power": watts,
    "pue": st.just(1.0),
    "country_name": st.just("Canada"),
    "country_iso_code": st.just("CAN"),
    "cpu_model": st.just("AMD EPYC 7742"),
    "longitude": st.floats(-180, 180),
    "emissions_rate": st.floats(1e-12, 1),
}


@st.composite
def carbon_records(draw: st.DrawFn) -> list[Values]:
    host = draw(maybe(names))
    found = []
    for number in range(draw(st.integers(1, 3))):
        board, duration = draw(maybe(boards)), draw(seconds)
        rest = draw(st.fixed_dictionaries({}, optional=OTHER_CARBON_COLUMNS))
        mode, cloud = draw(st.sampled_from(["machine", "process"])), draw(st.sampled_from("YN"))
        rest |= {"run_id": f"run-{number}", "tracking_mode": mode, "on_cloud": cloud}
        components = {f"energy_metrics.{part}_energy_j": draw(maybe(kwh_as_j)) for part in ("gpu", "cpu", "ram")}
        known = [value for value in components.values() if value is not None]
        # A total that contradicts its components gives a warning. Two components without a total give a partial total.
        total = kwh_to_j(math.fsum(known) / 3.6e6) if known else draw(maybe(kwh_as_j))
        found.append(
            {
                "config_name": draw(maybe(words)),
                "host": host,
                "gpu_name": board,
                **components,
                "energy_metrics.total_energy_j": total,
                "energy_metrics.devices[].gpu_name": (board and [board] * draw(st.integers(0, 8))) or None,
                "timestamps.end": draw(whole_timestamps),
                "timestamps.duration_sec": duration,
                "energy_metrics.gpu_power_w": draw(maybe(watts)),
                "energy_metrics.cpu_power_w": draw(maybe(watts | st.just(112.5))),
                "energy_metrics.emissions_kg_co2": draw(maybe(st.floats(0, 10))),
                "effective_config": {"codecarbon": rest},
                "origin.version": draw(maybe(st.just("3.3.0"))),
            }
        )
    return found


def carbon_scope(part: str, machine: str, process: str | None) -> Callable[[Values], Any]:
    def scope(values: Values) -> str | None:
        if values[f"energy_metrics.{part}_energy_j"] is None:
            return None
        return machine if values["effective_config"]["codecarbon"]["tracking_mode"] == "machine" else process

    return scope


def is_gpu_of_host(values: Values) -> bool:
    """True if the row has GPU energy and lists one GPU: of several ones, version 3.3.0 may have read a part."""
    one_board = len(values["energy_metrics.devices[].gpu_name"] or []) == 1
    return values["energy_metrics.gpu_energy_j"] is not None and one_board


def carbon_total_scope(values: Values) -> str | None:
    scope = carbon_scope("total", "host", None)(values)
    has_gpu = values["energy_metrics.gpu_energy_j"] is not None
    return scope if not has_gpu or is_gpu_of_host(values) else None


def write_carbon(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    (folder / "emissions.csv").write_bytes(exporters.to_codecarbon(records))
    return machine_options(records)


CODECARBON = Shape(
    stored=frozenset(
        [
            *("config_name", "host", "gpu_name", "energy_metrics.devices[].gpu_name", "effective_config"),
            *("timestamps.end", "timestamps.duration_sec", "energy_metrics.total_energy_j"),
            *("energy_metrics.gpu_energy_j", "energy_metrics.cpu_energy_j", "energy_metrics.ram_energy_j"),
            *("energy_metrics.gpu_power_w", "energy_metrics.cpu_power_w", "energy_metrics.emissions_kg_co2"),
            "origin.version",
        ]
    ),
    derived={
        **ABSENT,
        **NAMES,
        **WORLD,
        **LAUNCHER,
        **STATUS,
        **VERSIONS,
        **INFERENCE,
        **COMPUTE,
        **SENSORS,
        **derived_id("codecarbon"),
        **null("", "gpu_id gpu_uuid"),
        "origin.tool": "codecarbon",
        "timestamps.start": start_before,
        "energy_metrics.duration_sec": copy_of("timestamps.duration_sec"),
        **null("energy_metrics.", "energy_per_token_j"),
        **null("energy_metrics.devices[].", "gpu_uuid energy_j provenance"),
        **scopes(
            total_scope=carbon_total_scope,
            gpu_scope=lambda values: "host" if is_gpu_of_host(values) else None,
            cpu_scope=carbon_scope("cpu", "host", "host"),
            ram_scope=carbon_scope("ram", "host", "process"),
            gpu_provenance=lambda values: (
                "measured"
                if values["energy_metrics.gpu_energy_j"] is not None and "NVIDIA" in str(values["gpu_name"])
                else None
            ),
            cpu_provenance=lambda values: (
                "modelled"
                if values["energy_metrics.cpu_energy_j"] is not None
                and is_half_watts(values["energy_metrics.cpu_power_w"])
                else None
            ),
            ram_provenance=if_known("energy_metrics.ram_energy_j", "modelled"),
        ),
    },
    strategy=carbon_records(),
    write=write_carbon,
)


# Any table, written by our exporter as JSON lines

TABLE_COLUMNS = {
    "experiment_id": ("experiment_id", "experiment_id"),
    **{
        name: (name, name)
        for name in (
            *("process_index", "world_size", "model_name", "config_name", "backend", "backend_version", "host"),
            *("gpu_id", "gpu_uuid", "gpu_name"),
        )
    },
    "start": ("start_time", "timestamps.start"),
    "end": ("end_time", "timestamps.end"),
    "duration_sec": ("energy_window_sec", "energy_metrics.duration_sec"),
    "energy_j": ("total_energy_j", "energy_metrics.total_energy_j"),
    **{
        name: (name, f"energy_metrics.{name}")
        for name in (
            *("gpu_energy_j", "cpu_energy_j", "ram_energy_j", "gpu_power_w", "cpu_power_w", "emissions_kg_co2"),
            *("energy_per_token_j", "total_scope", "gpu_scope", "cpu_scope", "ram_scope"),
        )
    },
    **{
        name: (name, f"inference_metrics.{name}")
        for name in (
            *("total_tokens", "input_tokens", "output_tokens", "inference_time_sec", "tokens_per_second"),
            "time_to_first_token_ms",
        )
    },
    **{name: (name, f"compute_metrics.{name}") for name in ("flops_total", "peak_memory_mb", "compute_precision")},
}
"""Column of the export and path in a record, for each field of a mapping."""


@st.composite
def table_records(draw: st.DrawFn) -> list[Values]:
    number = draw(st.integers(1, 4))
    scope = maybe(st.sampled_from(["device", "process", "host"]))
    found = []
    for index in range(number):
        start = draw(maybe(moments))
        tokens = draw(maybe(st.tuples(counts, counts)))
        metrics = maybe(seconds) if tokens else st.none()
        values = {
            "experiment_id": "exp",
            "process_index": index,
            "world_size": number,
            **{
                name: draw(maybe(words)) for name in ("model_name", "config_name", "backend", "backend_version", "host")
            },
            **{name: draw(maybe(words)) for name in ("gpu_uuid", "gpu_name")},
            "gpu_id": draw(maybe(st.integers(0, 16))),
            "timestamps.start": start,
            "timestamps.end": None if start is None else start + timedelta(seconds=draw(st.integers(0, 10**6))),
            "energy_metrics.duration_sec": draw(maybe(seconds)),
            **{f"energy_metrics.{part}_energy_j": draw(maybe(joules)) for part in ("total", "gpu", "cpu", "ram")},
            **{f"energy_metrics.{part}_power_w": draw(maybe(watts)) for part in ("gpu", "cpu")},
            **{f"energy_metrics.{part}_scope": draw(scope) for part in ("total", "gpu", "cpu", "ram")},
            "energy_metrics.emissions_kg_co2": draw(maybe(joules)),
            "energy_metrics.energy_per_token_j": draw(maybe(joules)),
            "inference_metrics.input_tokens": tokens and tokens[0],
            "inference_metrics.output_tokens": tokens and tokens[1],
            "inference_metrics.total_tokens": tokens and sum(tokens),
            **{
                f"inference_metrics.{name}": draw(metrics)
                for name in ("inference_time_sec", "tokens_per_second", "time_to_first_token_ms")
            },
            "compute_metrics.flops_total": draw(maybe(joules)),
            "compute_metrics.peak_memory_mb": draw(maybe(joules)),
            "compute_metrics.compute_precision": draw(maybe(words)),
        }
        if values["energy_metrics.total_energy_j"] is None:  # two components would give a partial total
            values |= {f"energy_metrics.{part}_energy_j": None for part in ("cpu", "ram")}
        found.append(values)
    return found


def write_table(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    (folder / "table.jsonl").write_bytes(exporters.to_json_lines(exporters.table_of(records)))
    return {"mapping": [f"{field}={column}" for field, (column, _) in TABLE_COLUMNS.items()]}


TABLE = Shape(
    stored=frozenset(path for _, path in TABLE_COLUMNS.values()),
    derived={
        **ABSENT,
        **LAUNCHER,
        **STATUS,
        **VERSIONS,
        **LATENCY,
        **SENSORS,
        **DEVICES,
        "timestamps.duration_sec": copy_of("energy_metrics.duration_sec"),
        "effective_config": {},
        "origin.tool": "table",
        **null("origin.", "version"),
        **null("energy_metrics.", "total_provenance gpu_provenance cpu_provenance ram_provenance"),
    },
    strategy=table_records(),
    write=write_table,
)


# Zeus


@st.composite
def zeus_windows(draw: st.DrawFn) -> list[Values]:
    gpus = draw(st.integers(1, 12))
    host = draw(maybe(names))
    uuids = draw(st.sampled_from([None, [f"GPU-{index}" for index in range(gpus)]]))
    began = st.one_of(moments.map(lambda moment: moment.timestamp()), st.floats(0, 1e6))
    return [
        {
            "config_name": draw(maybe(words)),
            "host": host,
            "timestamps.duration_sec": draw(seconds),
            "energy_metrics.devices[].energy_j": draw(st.lists(joules, min_size=gpus, max_size=gpus)),
            "energy_metrics.devices[].gpu_uuid": uuids,
            "effective_config": {"zeus": {"start_time": draw(began), "visible_gpus": list(range(gpus))}},
        }
        for _ in range(draw(st.integers(1, 3)))
    ]


def zeus_start(values: Values) -> datetime | None:
    began = values["effective_config"]["zeus"]["start_time"]
    return datetime.fromtimestamp(began, UTC) if began > 1e9 else None


def zeus_end(values: Values) -> datetime | None:
    start = zeus_start(values)
    return None if start is None else start + timedelta(seconds=values["timestamps.duration_sec"])


def sum_of_devices(values: Values) -> float:
    return sum(values["energy_metrics.devices[].energy_j"])


def only_uuid(values: Values) -> str | None:
    uuids = values["energy_metrics.devices[].gpu_uuid"]
    return uuids[0] if uuids and len(uuids) == 1 else None


def write_zeus(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    gpus = len(records[0].energy_metrics.devices or [])
    writer.writerow(["start_time", "window_name", "elapsed_time", *(f"gpu{index}_energy" for index in range(gpus))])
    for record in records:
        energies = [device.energy_j for device in record.energy_metrics.devices or []]
        began = document(record, "zeus")["start_time"]
        writer.writerow([repr(began), record.config_name, repr(record.timestamps.duration_sec), *map(repr, energies)])
    (folder / "log.csv").write_text(file.getvalue(), encoding="utf-8")
    return machine_options(records)


ZEUS = Shape(
    stored=frozenset(
        [
            *("config_name", "host", "timestamps.duration_sec", "effective_config"),
            *("energy_metrics.devices[].energy_j", "energy_metrics.devices[].gpu_uuid"),
        ]
    ),
    derived={
        **ABSENT,
        **NAMES,
        **WORLD,
        **LAUNCHER,
        **STATUS,
        **VERSIONS,
        **INFERENCE,
        **COMPUTE,
        **SENSORS,
        **derived_id("zeus"),
        **null("", "gpu_id gpu_name"),
        "gpu_uuid": only_uuid,
        "origin.tool": "zeus",
        **null("origin.", "version"),
        "timestamps.start": zeus_start,
        "timestamps.end": zeus_end,
        "energy_metrics.duration_sec": copy_of("timestamps.duration_sec"),
        "energy_metrics.total_energy_j": sum_of_devices,
        "energy_metrics.gpu_energy_j": sum_of_devices,
        **null("energy_metrics.", "cpu_energy_j ram_energy_j gpu_power_w cpu_power_w emissions_kg_co2"),
        **null("energy_metrics.", "energy_per_token_j"),
        **null("energy_metrics.devices[].", "gpu_name"),
        "energy_metrics.devices[].provenance": for_each("energy_metrics.devices[].energy_j", lambda _: "measured"),
        **scopes(total_scope="device", total_provenance="measured", gpu_scope="device", gpu_provenance="measured"),
    },
    strategy=zeus_windows(),
    write=write_zeus,
)


# vLLM, and latencies in the form of vLLM and ML.ENERGY


@st.composite
def latencies(draw: st.DrawFn) -> dict[str, Any]:
    """Draw latency samples of some requests in milliseconds, with different gaps."""
    lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    gaps = draw(
        st.lists(st.floats(1e-4, 10), min_size=sum(lengths), max_size=sum(lengths), unique_by=lambda s: s * 1e3)
    )
    full = [gap * 1e3 for gap in gaps]
    of_each = [full[sum(lengths[:index]) :][:length] for index, length in enumerate(lengths)]
    return {
        "ttft_ms": [
            sec * 1e3 for sec in draw(st.lists(st.floats(1e-4, 10), min_size=len(lengths), max_size=len(lengths)))
        ],
        "itl_full_ms": full,
        "itl_trimmed_ms": [gap for gaps_of_one in of_each for gap in gaps_of_one[1:-1]],
    }


def in_seconds(ms: float) -> float:
    return near(ms / 1e3, lambda sec: sec * 1e3, ms)


def gaps_by_request(full: Sequence[float], trimmed: Sequence[float]) -> list[list[float]]:
    """Return the gaps of each request, in seconds. The trimmed gaps lack the first and last gap of each request."""
    inner, requests = set(trimmed), list[list[float]]()
    is_open = False
    for index, gap in enumerate(full):
        if is_open:
            requests[-1].append(in_seconds(gap))
            is_open = gap in inner
        else:
            requests.append([in_seconds(gap)])
            is_open = index + 1 < len(full) and full[index + 1] in inner
    return requests


LATENCY_PATHS = [
    f"inference_metrics.latency_measurements.{name}"
    for name in ("ttft_ms", "itl_full_ms", "itl_trimmed_ms", "request_count")
]
REQUEST_COUNT = LATENCY_PATHS[-1]
METRIC_PATHS = [f"inference_metrics.{name}" for name in ("input_tokens", "output_tokens", "tokens_per_second")]
METRIC_PATHS += ["inference_metrics.time_to_first_token_ms"]


@st.composite
def client_metrics(draw: st.DrawFn, *, has_failed: bool) -> Values:
    """Draw the inference metrics that a client measures."""
    metrics: Values = dict.fromkeys([*LATENCY_PATHS, *METRIC_PATHS])
    if not has_failed and draw(st.booleans()):
        metrics |= {path: draw(counts) for path in METRIC_PATHS[:2]}
        metrics |= {path: draw(maybe(seconds)) for path in METRIC_PATHS[2:]}
        if draw(st.booleans()):
            samples = draw(latencies())
            metrics |= {f"inference_metrics.latency_measurements.{name}": found for name, found in samples.items()}
            metrics[REQUEST_COUNT] = draw(st.integers(1, 10**6))
    return metrics


def all_tokens(values: Values) -> int | None:
    tokens = [values[path] for path in METRIC_PATHS[:2]]
    return None if None in tokens else sum(tokens)


def as_client(record: RawProcessResult) -> dict[str, Any]:
    """Return the fields that results of vLLM and ML.ENERGY share."""
    metrics = record.inference_metrics
    completed = 0 if record.status == "failed" else None
    if metrics is None:
        return {} if completed is None else {"completed": completed}
    latency = metrics.latency_measurements
    return {
        "total_input_tokens": metrics.input_tokens,
        "total_output_tokens": metrics.output_tokens,
        "total_token_throughput": metrics.tokens_per_second,
        "mean_ttft_ms": metrics.time_to_first_token_ms,
        **({} if latency is None else {"completed": latency.request_count}),
    }


@st.composite
def vllm_runs(draw: st.DrawFn) -> list[Values]:
    host, found = draw(maybe(names)), []
    for number in range(draw(st.integers(1, 3))):
        status = draw(st.sampled_from([None, None, "failed"]))
        total = draw(maybe(joules))
        known = maybe(seconds) if total is not None else st.none()
        rest = draw(st.dictionaries(st.sampled_from(["endpoint_type", "burstiness", "seed", "my note"]), anything))
        rest |= {"tokenizer_id": "t", "num_prompts": 8, "request_rate": "inf", "number": number}
        found.append(
            {
                **draw(client_metrics(has_failed=status == "failed")),
                "status": status,
                "host": host,
                "backend": draw(maybe(words)),
                "config_name": draw(maybe(words)),
                "model_name": draw(maybe(words)),
                "timestamps.end": draw(maybe(whole_timestamps)),
                "timestamps.duration_sec": draw(maybe(seconds)),
                "energy_metrics.total_energy_j": total,
                "energy_metrics.duration_sec": draw(known),
                "energy_metrics.gpu_power_w": draw(known),
                "effective_config": {"vllm": rest},
            }
        )
    return found


def vllm_document(record: RawProcessResult) -> dict[str, Any]:
    end, energy = record.timestamps.end, record.energy_metrics
    return {
        **document(record, "vllm"),
        "date": None if end is None else end.strftime("%Y%m%d-%H%M%S"),
        "backend": record.backend,
        "label": record.config_name,
        "model_id": record.model_name,
        "duration": record.timestamps.duration_sec,
        "gpu_energy_j": energy.total_energy_j,
        "gpu_energy_duration_s": energy.duration_sec,
        "gpu_avg_power_w": energy.gpu_power_w,
        **as_client(record),
    }


def write_vllm(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    documents = []
    for record in records:
        found = vllm_document(record)
        latency = record.inference_metrics and record.inference_metrics.latency_measurements
        if latency:
            found["ttfts"] = [in_seconds(ms) for ms in latency.ttft_ms]
            found["itls"] = gaps_by_request(latency.itl_full_ms, latency.itl_trimmed_ms)
        documents.append(json.dumps(found))
    (folder / "result.json").write_text("\n".join(documents), encoding="utf-8")
    return machine_options(records)


VLLM = Shape(
    stored=frozenset(
        [
            *LATENCY_PATHS,
            *METRIC_PATHS,
            *("status", "host", "backend", "config_name", "model_name", "timestamps.end", "timestamps.duration_sec"),
            *("energy_metrics.total_energy_j", "energy_metrics.duration_sec", "energy_metrics.gpu_power_w"),
            "effective_config",
        ]
    ),
    derived={
        **ABSENT,
        **WORLD,
        **LAUNCHER,
        **VERSIONS,
        **OTHER_LATENCY,
        **COMPUTE,
        **SENSORS,
        **DEVICES,
        **derived_id("vllm"),
        **null("", "backend_version gpu_id gpu_uuid gpu_name"),
        "origin.tool": "vllm",
        **null("origin.", "version"),
        "timestamps.start": start_before,
        "inference_metrics.total_tokens": all_tokens,
        "inference_metrics.inference_time_sec": lambda values: (
            None if all_tokens(values) is None else values["timestamps.duration_sec"]
        ),
        "inference_metrics.latency_measurements.streaming_mode": if_known(REQUEST_COUNT, value=True),
        "energy_metrics.gpu_energy_j": copy_of("energy_metrics.total_energy_j"),
        **null("energy_metrics.", "cpu_energy_j ram_energy_j cpu_power_w emissions_kg_co2 energy_per_token_j"),
        **scopes(
            total_scope=if_known("energy_metrics.total_energy_j", "device"),
            gpu_scope=if_known("energy_metrics.total_energy_j", "device"),
        ),
    },
    strategy=vllm_runs(),
    write=write_vllm,
    finish=lambda records: [with_config(record, {"vllm": vllm_document(record)}) for record in records],
)
