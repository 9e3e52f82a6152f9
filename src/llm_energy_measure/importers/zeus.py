"""Window logs of Zeus: a line for each measured window, with the energy of each GPU.

`start_time` is the time since 1970 in newer versions and an arbitrary monotonic clock in older ones, which tells no
time of day. GPUs are numbered as the measuring process saw them (CUDA_VISIBLE_DEVICES): which boards they are is
unknown unless the caller says so. Each window is an experiment of its own; windows can overlap and are never added.

Source: Zeus, `ZeusMonitor(log_file=...)`.
"""

from __future__ import annotations

import csv
import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics, Timestamps
from llm_energy_measure.importers.cells import identifier, number_in, shifted
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import RefusedFileError, require_once
from llm_energy_measure.importers.loss import LossReport, Remarks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm_energy_measure.importers.bounded import Original
TOOL = "zeus"

_FIRST = ["start_time", "window_name", "elapsed_time"]
_GPU = re.compile(r"gpu(0|[1-9][0-9]{0,2})_energy")
_EPOCH_SEC = 1e9
"""A monotonic clock would have to run for 31 years to read as much."""


def _recognises(original: Original) -> bool:
    header = original.header
    return header[:3] == _FIRST and len(header) > len(_FIRST) and all(_GPU.fullmatch(name) for name in header[3:])


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """One record for each window."""
    [original] = originals
    header = original.header
    require_once(header, header)
    for row, line in enumerate(original.lines(), start=1):
        bare = line.rstrip("\r\n")
        if row == 1 or not bare:
            continue
        problem, cells = _problem(bare, header)
        if problem:
            code = "shifted" if len(cells) != len(header) else "impossible_value" if "negative" in problem else "torn"
            report.refuse(original.shown, code, problem, row=row)
            continue
        try:
            record = _record(cells, header, options, original, row)
        except RefusedFileError as refused:
            report.refuse(original.shown, refused.code, refused.sentence, row=row)
            continue
        remarks = Remarks()
        if original.is_replaced_in(record):
            remarks.repair("undecodable_text", "bytes in it that are no UTF-8 were replaced")
        yield report.record(original.shown, record, remarks, row=row)


def _problem(line: str, header: Sequence[str]) -> tuple[str, list[str]]:
    """The first thing that is wrong with a line, empty if nothing is; and its cells."""
    try:
        [cells] = csv.reader([line], strict=True)
    except (csv.Error, ValueError):
        return "its quotes don't close, or a cell is too long", []
    cells = [cell.strip() for cell in cells]
    if len(cells) != len(header):
        return f"it has {len(cells)} cells under {len(header)} columns", cells
    for name, cell in zip(header, cells, strict=True):
        value = number_in(cell)
        if name != "window_name" and value is None:
            return f"{name} is {cell[:40]!r}", cells
        if name not in ("window_name", "start_time") and value is not None and value < 0:
            return f"{name} is negative, {cell}", cells
    return "", cells


def _record(
    cells: Sequence[str], header: Sequence[str], options: Options, original: Original, row: int
) -> RawProcessResult:
    """The record of one window."""
    start_sec, window, elapsed = float(cells[0]), cells[1], float(cells[2])
    energies = {
        int(name.removeprefix("gpu").removesuffix("_energy")): float(cell) for name, cell in _gpus(header, cells)
    }
    start = datetime.fromtimestamp(start_sec, UTC) if _EPOCH_SEC < start_sec < 10 * _EPOCH_SEC else None
    end = None if start is None else shifted(start, elapsed)
    if start is not None and end is None:
        found = f"elapsed_time is {cells[2]}, and there is no time so long after {start.isoformat()}"
        raise RefusedFileError("impossible_value", found)
    uuids = options.gpu_uuids
    devices = [
        DeviceEnergy(gpu_uuid=uuids[index] if index < len(uuids) else None, energy_j=joules, provenance="measured")
        for index, joules in energies.items()
    ]
    digest = hashlib.sha256("\n".join([*header, *cells]).encode()).hexdigest()[:8]
    return RawProcessResult(
        experiment_id=identifier(TOOL, window, digest),
        process_index=0,
        gpu_id=None,
        gpu_uuid=devices[0].gpu_uuid if len(devices) == 1 else None,
        config_name=window or None,
        model_name=None,
        timestamps=Timestamps(start=start, end=end, duration_sec=elapsed),
        inference_metrics=None,
        energy_metrics=counted(sum(energies.values()), devices, elapsed),
        compute_metrics=None,
        effective_config={TOOL: {"start_time": start_sec, "visible_gpus": list(energies)}},
        origin=original.origin(TOOL, row=row),
    )


def counted(gpu_energy_j: float, devices: list[DeviceEnergy], duration_sec: float | None) -> EnergyMetrics:
    """Energy as Zeus counts it: of GPUs alone, by the counter of each.

    Args:
        gpu_energy_j: Energy of all GPUs, in joules.
        devices: Energy of each, where it is known.
        duration_sec: Length of the window, in seconds.
    """
    return EnergyMetrics(
        total_energy_j=gpu_energy_j,
        duration_sec=duration_sec,
        gpu_energy_j=gpu_energy_j,
        total_scope="device",
        total_provenance="measured",
        gpu_scope="device",
        gpu_provenance="measured",
        devices=devices or None,
    )


def _gpus(header: Sequence[str], cells: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(header[3:], cells[3:], strict=True))


FORMAT = Format(
    name=TOOL,
    looks_for="a CSV header start_time,window_name,elapsed_time,gpu0_energy",
    recognises=_recognises,
    read=_read,
)
