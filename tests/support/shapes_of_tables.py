"""Shapes of run tables of experiment-runner, and of logs of EnergiBridge."""

from __future__ import annotations

import csv
import io
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import RawProcessResult
from tests.support.shapes import (
    ABSENT,
    COMPUTE,
    DEVICES,
    INFERENCE,
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
    for_each,
    null,
    scopes,
)
from tests.support.shapes_of_logs import joules, kwh_as_j, machine_options, maybe, names, seconds
from tests.support.shapes_of_power import ENERGY, INDEX, SENSOR

COLUMNS = {"total": "energy_consumed", "gpu": "gpu_energy", "cpu": "cpu_energy", "ram": "ram_energy"}
settings = st.one_of(st.integers(-9, 9), st.sampled_from(["llama", "a, b", 'say "x"', "x y"]))


@st.composite
def run_tables(draw: st.DrawFn) -> list[Values]:
    host, found = draw(maybe(names)), []
    for run in range(draw(st.integers(1, 2))):
        factors = {"model": draw(settings), "batch size": draw(settings)}
        found += [
            {
                "host": host,
                "config_name": f"run_{run}",
                "effective_config": {**factors, "cycle_id": repetition},
                "energy_metrics.duration_sec": draw(maybe(seconds)),
                **{f"energy_metrics.{part}_energy_j": draw(kwh_as_j) for part in COLUMNS},
            }
            for repetition in range(draw(st.integers(1, 3)))
        ]
    return found


def write_run_table(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    columns = [f"codecarbon__{name}" for name in COLUMNS.values()]
    writer.writerow(["__run_id", "__done", "model", "batch size", "codecarbon__duration", *columns])
    for record in records:
        energy, config = record.energy_metrics, record.effective_config
        run = f"{record.config_name}_repetition_{config['cycle_id']}"
        values = [getattr(energy, f"{part}_energy_j") / 3.6e6 for part in COLUMNS]
        duration = "" if energy.duration_sec is None else repr(energy.duration_sec)
        writer.writerow([run, "DONE", config["model"], config["batch size"], duration, *map(repr, values)])
    (folder / "run_table.csv").write_text(file.getvalue(), encoding="utf-8")
    return machine_options(records)


RUN_TABLE = Shape(
    stored=frozenset(
        [
            *("host", "config_name", "effective_config", "energy_metrics.duration_sec"),
            *(f"energy_metrics.{part}_energy_j" for part in COLUMNS),
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
        **LATENCY,
        **COMPUTE,
        **SENSORS,
        **DEVICES,
        **derived_id("experiment-runner"),
        **null("", "gpu_id gpu_uuid gpu_name"),
        "origin.tool": "experiment-runner",
        **null("origin.", "version"),
        **null("timestamps.", "start end"),
        "timestamps.duration_sec": copy_of("energy_metrics.duration_sec"),
        **null("energy_metrics.", "gpu_power_w cpu_power_w emissions_kg_co2 energy_per_token_j"),
        **scopes(),
    },
    strategy=run_tables(),
    write=write_run_table,
)


@st.composite
def bridge_logs(draw: st.DrawFn) -> list[Values]:
    gpus = draw(st.integers(1, 3))
    duration = float(draw(st.integers(1, 5)))
    return [
        {
            "host": draw(maybe(names)),
            "timestamps.start": draw(st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1))).replace(
                microsecond=0, tzinfo=UTC
            ),
            "timestamps.duration_sec": duration,
            "energy_metrics.cpu_energy_j": draw(joules),
            "energy_metrics.ram_energy_j": draw(joules),
            INDEX: list(range(gpus)),
            ENERGY: [float(draw(st.integers(0, 1000))) * duration for _ in range(gpus)],
        }
    ]


def write_bridge(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    [record] = records
    energy, span = record.energy_metrics, record.timestamps
    assert span.start is not None
    assert span.duration_sec is not None
    devices = energy.devices or []
    gpus = [f"GPU{device.gpu_id}_POWER (mWatts)" for device in devices]
    lines = [",".join(["Delta", "Time", "CORE0_ENERGY (J)", "PACKAGE_ENERGY (J)", "DRAM_ENERGY (J)", *gpus])]
    for second in range(int(span.duration_sec) + 1):
        is_last = second == span.duration_sec
        powers = [1000 * (device.energy_j or 0.0) / span.duration_sec for device in devices]
        counters = [(value or 0.0) if is_last else 0.0 for value in (energy.cpu_energy_j, energy.ram_energy_j)]
        moment = int((span.start + timedelta(seconds=second)).timestamp() * 1000)
        lines.append(",".join(["1000", str(moment), "1", *map(repr, [*counters, *powers])]))
    (folder / "log.csv").write_text("\n".join(lines))
    return machine_options(records)


def gpu_j(values: Values) -> float:
    return math.fsum(values[ENERGY])


def total_j(values: Values) -> float:
    parts = [values[f"energy_metrics.{part}_energy_j"] for part in ("cpu", "ram")]
    return math.fsum([*parts, *values[ENERGY]])


def of_sensors(counters: Any, gpu: Any) -> Any:
    """Return two values for the counters, and one for each GPU."""
    return lambda values: [*counters, *[gpu for _ in values[ENERGY]]]


ENERGIBRIDGE = Shape(
    stored=frozenset(
        [
            *("host", "timestamps.start", "timestamps.duration_sec", INDEX, ENERGY),
            *("energy_metrics.cpu_energy_j", "energy_metrics.ram_energy_j"),
        ]
    ),
    derived={
        **{path: value for path, value in ABSENT.items() if path != INDEX},
        **NAMES,
        **WORLD,
        **LAUNCHER,
        **STATUS,
        **VERSIONS,
        **INFERENCE,
        **LATENCY,
        **COMPUTE,
        **derived_id("energibridge"),
        **null("", "config_name gpu_uuid gpu_name"),
        "gpu_id": lambda values: 0 if len(values[INDEX]) == 1 else None,
        "effective_config": {},
        "origin.tool": "energibridge",
        **null("origin.", "version"),
        "timestamps.end": lambda values: (
            values["timestamps.start"] + timedelta(seconds=values["timestamps.duration_sec"])
        ),
        "energy_metrics.duration_sec": copy_of("timestamps.duration_sec"),
        "energy_metrics.total_energy_j": total_j,
        "energy_metrics.gpu_energy_j": gpu_j,
        "energy_metrics.gpu_power_w": lambda values: sum(values[ENERGY]) / values["timestamps.duration_sec"],
        "energy_metrics.cpu_power_w": lambda values: (
            values["energy_metrics.cpu_energy_j"] / values["timestamps.duration_sec"]
        ),
        **null("energy_metrics.", "emissions_kg_co2 energy_per_token_j"),
        **null("energy_metrics.devices[].", "gpu_uuid gpu_name"),
        "energy_metrics.devices[].provenance": for_each(ENERGY, lambda _: "integrated"),
        **scopes(
            gpu_scope="device",
            gpu_provenance="integrated",
            cpu_scope="host",
            cpu_provenance="measured",
            ram_scope="host",
            ram_provenance="measured",
        ),
        f"{SENSOR}source": of_sensors(["energibridge"] * 2, "energibridge"),
        f"{SENSOR}instance": lambda values: [
            *("PACKAGE_ENERGY (J)", "DRAM_ENERGY (J)"),
            *(f"GPU{index}_POWER (mWatts)" for index in values[INDEX]),
        ],
        f"{SENSOR}component": of_sensors(["cpu", "ram"], "gpu"),
        f"{SENSOR}scope": of_sensors(["host", "host"], "device"),
        f"{SENSOR}provenance": of_sensors(["measured", "measured"], "integrated"),
        f"{SENSOR}energy_j": lambda values: [
            *(values[f"energy_metrics.{part}_energy_j"] for part in ("cpu", "ram")),
            *values[ENERGY],
        ],
        f"{SENSOR}samples": lambda values: [int(values["timestamps.duration_sec"]) + 1] * (2 + len(values[ENERGY])),
        f"{SENSOR}sampling_rate_hz": of_sensors([1.0, 1.0], 1.0),
        f"{SENSOR}problems": lambda values: [[] for _ in range(2 + len(values[ENERGY]))],
        **null(SENSOR, "counter_start_j counter_end_j counter_range_j wraps"),
    },
    strategy=bridge_logs(),
    write=write_bridge,
)
