"""Read the GPU telemetry of NVIDIA AIPerf as samples of a power log. Each line has the values of one GPU at one time.

The energy counters are cumulative and in MJ. The file includes the warm-up, so only a window gives the energy of the
run. Two telemetry endpoints can report one GPU; only the samples of the first endpoint are used.

Source: AIPerf 0.3 to 0.13, `gpu_telemetry_export.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from llm_energy_measure.importers.json_text import as_object
from llm_energy_measure.importers.power_rows import IgnoredRows, Sample
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import as_integer, as_number, as_text, from_epoch

_POWERS = ("nvidia_power_usage", "gpu_power_usage", "amd_power")
_ENERGIES = ("nvidia_energy_consumption", "energy_consumption", "amd_energy_consumption")
_FIELDS = {"timestamp_ns", "gpu_index", "telemetry_data"}


def is_telemetry(source: ImportSource) -> bool:
    """Return True if the first object of the file has the telemetry fields of a GPU."""
    return set(source.first_fields) >= _FIELDS


def read_telemetry(source: ImportSource, ignored: IgnoredRows) -> Iterator[Sample]:
    """Yield the samples, and add the number of each damaged line to `ignored`."""
    endpoints: dict[str, str | None] = {}
    for number, line in enumerate(source.lines(), start=1):
        if not line.strip():
            continue
        try:
            document = as_object(msgspec.json.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            document = {}
        nanoseconds, index = as_number(document.get("timestamp_ns")), as_integer(document.get("gpu_index"))
        if nanoseconds is None or index is None or from_epoch(nanoseconds / 1e9) is None:
            ignored.add(number)
            continue
        uuid, host = as_text(document.get("gpu_uuid")) or "", as_text(document.get("hostname"))
        endpoint = as_text(document.get("telemetry_source_url")) or as_text(document.get("dcgm_url"))
        if endpoints.setdefault(uuid or f"{host} {index}", endpoint) != endpoint:
            continue
        data = as_object(document.get("telemetry_data"))
        megajoules = _first(data, _ENERGIES)
        counter_j = None if megajoules is None else megajoules * 1e6
        yield Sample(
            moment=nanoseconds / 1e9,
            is_utc=True,
            host=host,
            device=str(index),
            uuid=uuid,
            power_w=_first(data, _POWERS),
            counter_j=counter_j,
            temperature_c=None,
            clock_mhz=None,
            throttle="",
        )


def _first(data: dict[str, Any], names: tuple[str, ...]) -> float | None:
    """Return the first number among the values with these names; None if none of the values is a number."""
    return next((found for name in names if (found := as_number(data.get(name))) is not None), None)
