"""Check of powers that no hardware can draw. The ceilings apply to all boards and hosts, so they need no table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from llm_energy_measure.domain.findings import Finding, Severity
from llm_energy_measure.verification.codes import failed, not_checked, passed, seconds, watts
from llm_energy_measure.verification.gpus import host_boards
from llm_energy_measure.verification.processes import Evidence, Process

BOARD_CEILING_W = 3000.0
"""Power that no board exceeds, in watts. The highest limits of 2025 are 1,400 W (NVIDIA GB300, AMD MI355X)."""

HOST_CEILING_W = 50_000.0
"""Power that no host exceeds, in watts.

An NVIDIA DGX B200 draws at most 14.3 kW (its data sheet), a Cerebras CS-2 23 kW.
"""

Hardware = Literal["board", "gpus", "host"]
"""One board, the GPUs of a process, or a whole host."""


class _Excess(NamedTuple):
    """A power above a ceiling, in watts. Errors sort before suspicions, and then lower process indices sort first."""

    is_suspicion: bool
    process: int
    relation: str
    power_w: float
    ceiling_w: float


def check_ceilings(evidence: Evidence) -> Iterator[Finding]:
    """Check that no process implies or reports a power above the ceiling of its boards or of a host.

    If the scope of the GPU energy or the number of boards is unknown, the process may have read more boards than it
    names. A power above the ceiling of the named boards is then a warning.
    """
    code = "plausibility.impossible_power"
    has_powers = False
    found: list[_Excess] = []
    for process in evidence.processes:
        for relation, power_w, hardware in _powers(process):
            has_powers = True
            # No ceiling is below `BOARD_CEILING_W`, so a power up to this value needs no other comparison.
            if power_w > BOARD_CEILING_W:
                ceiling_w, usual_w = _ceilings(process, hardware)
                if power_w > usual_w:
                    is_suspicion = power_w <= ceiling_w
                    limit_w = usual_w if is_suspicion else ceiling_w
                    sentence = relation.format(time=seconds(process.length_sec))
                    found.append(_Excess(is_suspicion, process.index, sentence, power_w, limit_w))
    if not found:
        yield passed(code) if has_powers else not_checked(code, "no process has a power, or an energy with a time")
        return
    first = min(found, key=lambda excess: excess[:2])
    processes = {excess.process for excess in found if excess.is_suspicion == first.is_suspicion}
    others = f" ({len(processes) - 1} more processes too)" if len(processes) > 1 else ""
    owner, cause = ("its boards", "it read more boards, or a") if first.is_suspicion else ("the hardware", "a")
    message = (
        f"process {first.process} {first.relation} {watts(first.power_w)}, but {owner} can draw at most "
        f"{watts(first.ceiling_w)}{others}; {cause} unit of its energy, power or time is wrong"
    )
    severity: Severity = "warning" if first.is_suspicion else "error"
    yield failed(code, message, expected=first.ceiling_w, found=first.power_w, processes=processes, severity=severity)


def _powers(process: Process) -> Iterator[tuple[str, float, Hardware]]:
    """Yield each power of a process: a phrase for the message, the power in watts, and the hardware that draws it.

    If an energy implies the power, the caller inserts the time at `{time}` in the phrase.
    """
    energy, length_sec = process.energy, process.length_sec
    if energy.gpu_power_w is not None:
        yield "reports a GPU power of", energy.gpu_power_w, "gpus"
    if energy.cpu_power_w is not None:
        yield "reports a CPU power of", energy.cpu_power_w, "host"
    if not length_sec:
        return
    for device in energy.devices or ():
        if device.energy_j is not None:
            yield "has a GPU whose energy implies a mean power (over {time}) of", device.energy_j / length_sec, "board"
    if energy.gpu_energy_j is not None:
        yield "has a GPU energy that implies a mean power (over {time}) of", energy.gpu_energy_j / length_sec, "gpus"
    if energy.total_energy_j is not None:
        relation = "has a total energy that implies a mean power (over {time}) of"
        yield relation, energy.total_energy_j / length_sec, "host"


def _ceilings(process: Process, hardware: Hardware) -> tuple[float, float]:
    """Return two ceilings in watts: of all boards that the process can have read, and of the boards that it names."""
    if hardware != "gpus":
        ceiling_w = BOARD_CEILING_W if hardware == "board" else HOST_CEILING_W
        return ceiling_w, ceiling_w
    number = max(1, process.boards.number, len(process.gpus))
    named_w = min(HOST_CEILING_W, BOARD_CEILING_W * number)
    if process.gpu_scope in ("device", "process") and process.boards.is_certain:
        return named_w, named_w
    stated = host_boards(process.record)
    if stated is not None:
        host_w = min(HOST_CEILING_W, BOARD_CEILING_W * max(number, stated.number))
        return host_w, host_w
    return HOST_CEILING_W, HOST_CEILING_W if process.gpu_scope == "host" else named_w
