"""Import the profile export of NVIDIA AIPerf, with the energy of its GPU telemetry.

Up to AIPerf 0.5, the file has the minimum and the maximum of each energy counter. Their difference is the energy of the
run. Later versions write only the increase of the counter. The field `total_gpu_energy` contains the same joules, so
it is used only if the telemetry has no energy. Two telemetry endpoints can report one GPU, so each UUID counts once.

Source: AIPerf 0.3 to 0.13, `profile_export_aiperf.json`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from llm_energy_measure.domain.experiment import Status
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics, Provenance
from llm_energy_measure.domain.units import ENERGY_UNITS
from llm_energy_measure.importers.benchmark import Benchmark, Document
from llm_energy_measure.importers.json_text import as_object
from llm_energy_measure.importers.record_parts import component
from llm_energy_measure.importers.report import Notes
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import as_integer, as_number, as_text

_DEVICE_ENERGIES = ("nvidia_energy_consumption", "amd_energy_consumption", "energy_consumption")
_TOTALS = ("nvidia_total_gpu_energy", "amd_total_gpu_energy", "total_gpu_energy")
_METRICS = {"request_count", "benchmark_duration", "request_throughput", "output_token_throughput"}
_SCRAPE_SEC = 0.666
"""Time in seconds that `total_gpu_energy` covers in addition to the benchmark: two intervals of the telemetry."""
_TOLERANCE = 0.05


def _recognises(source: ImportSource) -> bool:
    return "input_config" in source.fields and not _METRICS.isdisjoint(source.fields)


def _status(document: Document, notes: Notes) -> Status | None:
    """Return `interrupted` for a cancelled run and `partial` for an incomplete run; None for a complete run."""
    if document.get("was_cancelled") is True:
        notes.add("incomplete_run", "the run was cancelled")
        return "interrupted"
    if document.get("is_complete") is False:
        notes.add("incomplete_run", "the run is not complete")
        return "partial"
    return None


def _joules(metric: object) -> float | None:
    """Return the energy of a metric in joules; None if it is unknown or 0. AIPerf writes 0 for a reset counter."""
    found = as_object(metric)
    factor = ENERGY_UNITS.get(str(found.get("unit")))
    low, high = as_number(found.get("min")), as_number(found.get("max"))
    value = high - low if high is not None and low is not None else as_number(found.get("avg"))
    return value * factor if factor is not None and value is not None and value > 0 else None


def _gpus(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield the endpoint and the telemetry of each GPU."""
    endpoints = as_object(as_object(document.get("telemetry_data")).get("endpoints"))
    for endpoint, content in endpoints.items():
        for gpu in as_object(as_object(content).get("gpus")).values():
            yield endpoint, as_object(gpu)


def _host(document: Document) -> str | None:
    """Return the host of the GPUs; None if it is unknown or if there are several."""
    hosts = {as_text(gpu.get("hostname")) for _, gpu in _gpus(document)}
    return hosts.pop() if len(hosts) == 1 else None


def _devices(document: Document, notes: Notes) -> list[DeviceEnergy]:
    """Return the energy of each GPU in the telemetry. A GPU whose UUID two endpoints report is returned once."""
    devices: dict[object, DeviceEnergy] = {}
    for endpoint, gpu in _gpus(document):
        metrics = as_object(gpu.get("metrics"))
        energies = [joules for name in _DEVICE_ENERGIES if (joules := _joules(metrics.get(name))) is not None]
        uuid, index = as_text(gpu.get("gpu_uuid")), as_integer(gpu.get("gpu_index"))
        device = DeviceEnergy(
            gpu_id=index,
            gpu_uuid=uuid,
            gpu_name=as_text(gpu.get("gpu_name")),
            energy_j=energies[0] if energies else None,
            provenance="measured" if energies else None,
        )
        devices.setdefault(uuid or (as_text(gpu.get("hostname")) or endpoint, index), device)
    unknown = [device for device in devices.values() if device.energy_j is None]
    if unknown and len(unknown) < len(devices):
        names = ", ".join(str(device.gpu_uuid or device.gpu_id) for device in unknown)
        found = f"the total does not include the GPUs without energy: {names}"
        notes.warn("partial_total", found, is_repair=True)
    return list(devices.values())


def _energy(document: Document, notes: Notes) -> EnergyMetrics | None:
    """Return the energy of the GPUs from the telemetry, or else from the totals of the run; None if it is unknown."""
    duration_sec = _value(document, "benchmark_duration")
    devices = _devices(document, notes)
    known = [device.energy_j for device in devices if device.energy_j is not None]
    stated = [joules for name in _TOTALS if (joules := _joules(document.get(name))) is not None]
    total_j: float | None = math.fsum(known) if known else None
    if total_j is not None and stated and not math.isclose(total_j, math.fsum(stated), rel_tol=_TOLERANCE):
        found = f"the telemetry of the GPUs sums to {total_j:g} J, but the total of the run is {math.fsum(stated):g} J"
        notes.add("own_aggregate_differs", f"{found}; the sum over the GPUs is imported")
    provenance: Provenance | None = None
    if total_j is not None:
        provenance, length_sec = "measured", duration_sec
    elif stated:
        # The total is the increase of a counter, or mean power times duration. The file does not state which of the
        # two it is, so the provenance is None.
        total_j = math.fsum(stated)
        length_sec = None if duration_sec is None else duration_sec + _SCRAPE_SEC
    else:
        return None
    parts: dict[str, Any] = {}
    for name in ("total", "gpu"):
        parts |= component(name, total_j, "device", provenance)
    power_w = total_j / length_sec if length_sec else None
    return EnergyMetrics(**parts, duration_sec=length_sec, gpu_power_w=power_w, devices=devices or None)


def _value(document: Document, name: str) -> float | None:
    return as_number(as_object(document.get(name)).get("avg"))


AIPERF = Benchmark(
    name="aiperf",
    looks_for="JSON with input_config and request_count or benchmark_duration",
    covers="device; measured, if the file has GPU telemetry",
    unknown="energy without telemetry (until joined); backend",
    needs=frozenset(("input_config",)),
    mapping=(
        "start=start_time",
        "end=end_time",
        "model_name={input_config.endpoint.model_names.0}",
        "input_tokens={total_isl.avg}",
        "output_tokens={total_osl.avg}",
        "inference_time_sec={benchmark_duration.avg}",
        "time_to_first_token_ms={time_to_first_token.avg}",
        "tokens_per_second={total_token_throughput.avg}",
    ),
    recognises=_recognises,
    energy=_energy,
    host=_host,
    status=_status,
)
