"""Check of powers that no hardware can draw. The ceilings hold for all devices and hosts and need no table."""

from __future__ import annotations

from collections.abc import Iterator

from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.verification.codes import failed, not_checked, passed, seconds, watts
from llm_energy_measure.verification.processes import Evidence, Process

BOARD_CEILING_W = 3000.0
"""No board draws more, in watts. The highest limits of 2025 are 1,400 W (NVIDIA GB300, AMD MI355X)."""

HOST_CEILING_W = 50_000.0
"""No host draws more, in watts. An NVIDIA DGX B200 draws at most 14.3 kW (its data sheet), a Cerebras CS-2 23 kW."""


def check_ceilings(evidence: Evidence) -> Iterator[Finding]:
    """Check that no process implies or reports a power above the ceiling of its boards or of a host."""
    code = "plausibility.impossible_power"
    checked = False
    wrong: list[tuple[int, str, float, float]] = []
    for process in evidence.processes:
        for name, power_w, ceiling_w in _powers(process):
            checked = True
            if power_w > ceiling_w:
                wrong.append((process.index, name, power_w, ceiling_w))
                break
    if not wrong:
        yield passed(code) if checked else not_checked(code, "no process has a power, or an energy with a time")
        return
    index, name, power_w, ceiling_w = wrong[0]
    others = f" ({len(wrong) - 1} more processes too)" if len(wrong) > 1 else ""
    message = (
        f"process {index} {name} {watts(power_w)}, but the hardware can draw at most {watts(ceiling_w)}{others}; "
        "a unit of its energy, power or time is wrong"
    )
    yield failed(code, message, expected=ceiling_w, found=power_w, processes=(entry[0] for entry in wrong))


def _powers(process: Process) -> Iterator[tuple[str, float, float]]:
    """Yield, for each power of a process, how it is known, the power and its ceiling, both in watts."""
    energy, length_sec = process.energy, process.length_sec
    gpu_ceiling_w = HOST_CEILING_W
    if process.gpu_scope in ("device", "process") and process.boards.is_certain:
        gpu_ceiling_w = min(HOST_CEILING_W, BOARD_CEILING_W * max(1, process.boards.number, len(process.gpus)))
    if energy.gpu_power_w is not None:
        yield "reports a GPU power of", energy.gpu_power_w, gpu_ceiling_w
    if energy.cpu_power_w is not None:
        yield "reports a CPU power of", energy.cpu_power_w, HOST_CEILING_W
    if not length_sec:
        return
    over = f"over {seconds(length_sec)} implies"
    for device in energy.devices or ():
        if device.energy_j is not None:
            yield f"has a GPU whose energy {over}", device.energy_j / length_sec, BOARD_CEILING_W
    if energy.gpu_energy_j is not None:
        yield f"has a GPU energy that {over}", energy.gpu_energy_j / length_sec, gpu_ceiling_w
    if energy.total_energy_j is not None:
        yield f"has a total energy that {over}", energy.total_energy_j / length_sec, HOST_CEILING_W
