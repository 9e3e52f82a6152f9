"""Shape of power logs: constant power of each GPU, in the layouts of several tools."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.support.shapes import (
    ABSENT,
    COMPUTE,
    INFERENCE,
    LATENCY,
    LAUNCHER,
    NAMES,
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
from tests.support.shapes_of_logs import machine_options, maybe, names, sum_of_devices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

ENERGY = "energy_metrics.devices[].energy_j"
INDEX = "energy_metrics.devices[].gpu_id"
SENSOR = "energy_metrics.sensors[]."
LOCAL_LAYOUTS = ("nvidia-smi", "dmon")
UTC_LAYOUTS = ("amd-smi", "wide")
COLUMNS = {"nvidia-smi": "power.draw [W]", "dmon": "pwr", "amd-smi": "socket_power"}


@st.composite
def power_logs(draw: st.DrawFn) -> list[Values]:
    layout = draw(st.sampled_from([*LOCAL_LAYOUTS, *UTC_LAYOUTS]))
    zone = UTC if layout in UTC_LAYOUTS else None
    seconds = draw(st.integers(1, 6))
    powers = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=4))
    start = draw(st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1))).replace(microsecond=0, tzinfo=zone)
    column = COLUMNS.get(layout) or ", ".join(f"GPU{index}" for index in range(len(powers)))
    return [
        {
            "host": draw(maybe(names)),
            "timestamps.start": start,
            "timestamps.duration_sec": float(seconds),
            INDEX: list(range(len(powers))),
            ENERGY: [float(power * seconds) for power in powers],
            "effective_config": {"power-log": {"power_column": column}},
        }
    ]


def write_log(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    [record] = records
    start, duration = record.timestamps.start, record.timestamps.duration_sec
    assert start is not None
    assert duration is not None
    column = record.effective_config["power-log"]["power_column"]
    powers = [(device.energy_j or 0) / duration for device in record.energy_metrics.devices or []]
    moments = [start + timedelta(seconds=second) for second in range(int(duration) + 1)]
    if column.startswith("GPU"):
        lines = [f"timestamp,{column.replace(' ', '')}"]
        lines += [",".join([str(moment.timestamp()), *map(str, powers)]) for moment in moments]
    else:
        row, header = ROWS[column]
        lines = [header]
        lines += [row(moment, index, power) for moment in moments for index, power in enumerate(powers)]
    (folder / "power.csv").write_text("\n".join(lines) + "\n")
    return machine_options(records)


ROWS: dict[str, tuple[Callable[[datetime, int, float], str], str]] = {
    "power.draw [W]": (
        lambda moment, index, power: f"{moment:%Y/%m/%d %H:%M:%S}.000, {index}, {power:.2f} W",
        "timestamp, index, power.draw [W]",
    ),
    "pwr": (
        lambda moment, index, power: f" {moment:%Y%m%d   %H:%M:%S}  {index}  {power:.0f}  45",
        "#Date       Time        gpu    pwr  gtemp",
    ),
    "socket_power": (
        lambda moment, index, power: f"{moment.timestamp():.0f},{index},{power:.0f},N/A",
        "timestamp,gpu,socket_power,gfx_voltage",
    ),
}


def end_of(values: Values) -> datetime:
    found: datetime = values["timestamps.start"] + timedelta(seconds=values["timestamps.duration_sec"])
    return found


def only_index(values: Values) -> int | None:
    return 0 if len(values[INDEX]) == 1 else None


POWER_LOG = Shape(
    stored=frozenset(
        ["host", "timestamps.start", "timestamps.duration_sec", INDEX, ENERGY, "effective_config"],
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
        **derived_id("power-log"),
        **null("", "config_name gpu_uuid gpu_name"),
        "gpu_id": only_index,
        "origin.tool": "power-log",
        **null("origin.", "version"),
        "timestamps.end": end_of,
        "energy_metrics.duration_sec": copy_of("timestamps.duration_sec"),
        "energy_metrics.total_energy_j": sum_of_devices,
        "energy_metrics.gpu_energy_j": sum_of_devices,
        "energy_metrics.gpu_power_w": lambda values: sum_of_devices(values) / values["timestamps.duration_sec"],
        **null("energy_metrics.", "cpu_energy_j ram_energy_j cpu_power_w emissions_kg_co2 energy_per_token_j"),
        **null("energy_metrics.devices[].", "gpu_uuid gpu_name"),
        "energy_metrics.devices[].provenance": for_each(ENERGY, lambda _: "integrated"),
        **scopes(total_scope="device", total_provenance="integrated", gpu_scope="device", gpu_provenance="integrated"),
        f"{SENSOR}source": for_each(ENERGY, lambda _: "power-log"),
        f"{SENSOR}instance": for_each(INDEX, str),
        f"{SENSOR}component": for_each(ENERGY, lambda _: "gpu"),
        f"{SENSOR}scope": for_each(ENERGY, lambda _: "device"),
        f"{SENSOR}provenance": for_each(ENERGY, lambda _: "integrated"),
        f"{SENSOR}energy_j": copy_of(ENERGY),
        f"{SENSOR}samples": lambda values: [int(values["timestamps.duration_sec"]) + 1] * len(values[ENERGY]),
        f"{SENSOR}sampling_rate_hz": for_each(ENERGY, lambda _: 1.0),
        f"{SENSOR}problems": for_each(ENERGY, lambda _: []),
        **null(SENSOR, "counter_start_j counter_end_j counter_range_j wraps"),
    },
    strategy=power_logs(),
    write=write_log,
)
