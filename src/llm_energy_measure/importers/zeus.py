"""Import window logs of Zeus: one CSV line for each measured window, with the energy of each GPU.

Newer versions write `start_time` in seconds since 1970. Older versions write the value of a monotonic clock, which has
no relation to the time of day. GPU numbers are indices within CUDA_VISIBLE_DEVICES, so the GPUs are unknown unless the
caller states their UUIDs. Each window is an experiment. Windows can overlap, so their energies are never added.

Source: Zeus, `ZeusMonitor(log_file=...)`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics, Timestamps
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import require_unique_columns
from llm_energy_measure.importers.record_parts import component, imported_record
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource, split_row
from llm_energy_measure.importers.values import add_seconds, from_epoch, identifier, parse_number
from llm_energy_measure.verification.ceilings import BOARD_CEILING_W

TOOL = "zeus"

_FIRST = ["start_time", "window_name", "elapsed_time"]
_GPU = re.compile(r"gpu(0|[1-9][0-9]{0,2})_energy")


def _recognises(source: ImportSource) -> bool:
    gpus = source.header[3:]
    return source.header[:3] == _FIRST and bool(gpus) and all(_GPU.fullmatch(name) for name in gpus)


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each window."""
    [source] = sources
    header = source.header
    require_unique_columns(header, header)
    for row, text in source.rows():
        with report.refusing(source.path, row=row):
            notes = Notes()
            record = _record(_cells(text, header), header, options, source, row, notes=notes)
            _note_powers(record.energy_metrics, header, notes)
            source.note_undecodable(record, notes)
            yield report.record(source.path, record, notes, row=row)


def _cells(line: str, header: Sequence[str]) -> list[str]:
    """Return the cells of a line; refuse a line with another number of cells, or with an invalid number."""
    found = split_row(line)
    if found is None:
        raise RefusedInputError("shifted", "a quote in the line is not closed, or a cell is too long")
    cells = [cell.strip() for cell in found]
    if len(cells) != len(header):
        raise RefusedInputError("shifted", f"the line has {len(cells)} cells, but the header has {len(header)}")
    for name, cell in zip(header, cells, strict=True):
        value = 0.0 if name == "window_name" else parse_number(cell)
        if value is None:
            raise RefusedInputError("torn", f"{name} is {cell[:40]!r}, which is not a number")
        if value < 0 and (name == "elapsed_time" or (len(header) == 4 and name != "start_time")):
            raise RefusedInputError("impossible_value", f"{name} is {cell}, which is negative")
    return cells


def _record(
    cells: Sequence[str], header: Sequence[str], options: Options, source: ImportSource, row: int, *, notes: Notes
) -> RawProcessResult:
    start_sec, window, elapsed_sec = float(cells[0]), cells[1], float(cells[2])
    energies: dict[int, float | None] = {}
    for name, cell in zip(header[3:], cells[3:], strict=True):
        joules = float(cell)
        energies[int(name[3:].removesuffix("_energy"))] = joules if joules >= 0 else None
        if joules < 0:
            found = f"{name} is {cell}, which is negative, so it is null"
            notes.warn("damaged_cells", f"{found}, and the total is without this GPU", is_repair=True)
    known = [joules for joules in energies.values() if joules is not None]
    if not known:
        raise RefusedInputError("impossible_value", f"the energies of all GPUs are negative: {', '.join(cells[3:])}")
    start = from_epoch(start_sec)
    end = None if start is None else add_seconds(start, elapsed_sec)
    if start is not None and end is None:
        found = f"elapsed_time is {cells[2]} s, so the window that starts at {start.isoformat()} would end"
        raise RefusedInputError("impossible_value", f"{found} after the last year of the calendar")
    devices = [
        DeviceEnergy(
            gpu_uuid=options.gpu_uuid(index), energy_j=joules, provenance=None if joules is None else "measured"
        )
        for index, joules in energies.items()
    ]
    digest = hashlib.sha256("\n".join([*header, *cells]).encode()).hexdigest()[:8]
    return imported_record(
        identifier(TOOL, window, digest),
        gpu_uuid=devices[0].gpu_uuid if len(devices) == 1 else None,
        config_name=window or None,
        energy_measurement_warning=notes.warning,
        timestamps=Timestamps(start=start, end=end, duration_sec=elapsed_sec),
        energy_metrics=gpu_counters(sum(known), devices, elapsed_sec),
        effective_config={TOOL: {"start_time": start_sec, "visible_gpus": list(energies)}},
        origin=source.origin(TOOL, row=row),
    )


def _note_powers(energy: EnergyMetrics, header: Sequence[str], notes: Notes) -> None:
    """Add a note for each GPU whose energy implies more power than any board draws."""
    for name, device in zip(header[3:], energy.devices or [], strict=True):
        power_w = device.energy_j / energy.duration_sec if device.energy_j and energy.duration_sec else 0.0
        if power_w > BOARD_CEILING_W:
            found = f"{name} is {device.energy_j:g} J in {energy.duration_sec:g} s, which is {power_w:g} W"
            notes.add(
                "implausible_power", f"{found}; no board draws more than {BOARD_CEILING_W:g} W, so check the counter"
            )


def gpu_counters(gpu_energy_j: float, devices: list[DeviceEnergy], duration_sec: float | None) -> EnergyMetrics:
    """Return energy metrics as Zeus measures them: the total is the sum of the energy counters of the GPUs.

    Args:
        gpu_energy_j: Energy of all GPUs, in joules.
        devices: Energy of each GPU, if it is known.
        duration_sec: Length of the window, in seconds.
    """
    return EnergyMetrics(
        **component("total", gpu_energy_j, "device", "measured"),
        **component("gpu", gpu_energy_j, "device", "measured"),
        duration_sec=duration_sec,
        devices=devices or None,
    )


FORMAT = Format(
    name=TOOL,
    looks_for="a CSV header start_time,window_name,elapsed_time,gpu0_energy",
    recognises=_recognises,
    read=_read,
    covers="device",
    unknown="model, tokens, host, which GPUs (the index counts visible GPUs), time of day in older logs",
)
