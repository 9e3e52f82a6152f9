"""Check the state of the GPUs during the run: throttling, and a drift of clock or power limit."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET

from llm_energy_measure.domain.device_state import POWER_CAP, SLOWDOWNS, THROTTLED, DeviceEvidence
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.verification.codes import failed, not_checked, passed, watts
from llm_energy_measure.verification.processes import Evidence

DRIFT = 0.05
"""Greatest relative change of the clock that is no drift, from the first to the last quarter of the samples."""

_NO_STATE = "no record has the state of its GPUs"


def check_devices(evidence: Evidence) -> Iterator[Finding]:
    """Check each GPU whose state was recorded."""
    known = [
        (process.index, device.gpu_uuid or str(device.gpu_id), device.evidence)
        for process in evidence.processes
        for device in process.energy.devices or ()
        if device.evidence is not UNSET
    ]
    if not known:
        return
    yield _check_throttling(known)
    yield _check_drift(known)


def _check_throttling(known: list[tuple[int, str, DeviceEvidence]]) -> Finding:
    code = "device.throttled"
    shares = {(index, name): _throttled(found) for index, name, found in known}
    if not any(one is not None for one in shares.values()):
        return not_checked(code, _NO_STATE)
    slowed = {
        place: {reason: share for reason, share in one.items() if reason in SLOWDOWNS}
        for place, one in shares.items()
        if one is not None
    }
    severity = None
    if not any(slowed.values()):
        slowed = {
            place: {reason: share for reason, share in one.items() if reason in (POWER_CAP, THROTTLED)}
            for place, one in shares.items()
            if one is not None
        }
        severity = "info"
    places = [place for place, one in slowed.items() if one]
    if not places:
        return passed(code)
    worst = max(places, key=lambda place: max(slowed[place].values()))
    reasons = ", ".join(f"{reason} in {share:.0%} of the samples" for reason, share in slowed[worst].items())
    others = f", and {len(places) - 1} more GPUs were slowed down" if len(places) > 1 else ""
    return failed(
        code,
        f"GPU {worst[1]} was slowed down: {reasons}{others}",
        expected=0.0,
        found=max(slowed[worst].values()),
        processes=[index for index, _ in places],
        severity="info" if severity == "info" else None,
    )


def _throttled(found: DeviceEvidence) -> dict[str, float] | None:
    """Return the fraction of the samples with each throttle reason; None if unknown.

    Without samples, each known state at the start and at the end of the run counts as one sample.
    """
    if found.samples is not UNSET and found.samples.throttled is not None:
        return found.samples.throttled
    states = [state.throttle for state in (found.start, found.end) if state is not None and state.throttle is not None]
    names = {reason for state in states for reason in state}
    return {name: sum(name in state for state in states) / len(states) for name in sorted(names)} if states else None


def _check_drift(known: list[tuple[int, str, DeviceEvidence]]) -> Finding:
    code = "device.drift"
    is_checked = False
    for index, name, found in known:
        limits = [state.power_limit_w if state is not None else None for state in (found.start, found.end)]
        if None not in limits:
            is_checked = True
            if limits[0] != limits[1]:
                message = f"the power limit of GPU {name} changed from {watts(limits[0])} to {watts(limits[1])}"
                return failed(code, message, expected=limits[0], found=limits[1], processes=[index])
        if found.samples is UNSET:
            continue
        first, last = found.samples.clock_first_mhz, found.samples.clock_last_mhz
        if first is None or last is None:
            continue
        is_checked = True
        if abs(last - first) > DRIFT * first:
            heat = found.samples.temperature_first_c, found.samples.temperature_last_c
            warmer = "" if None in heat else f", and its temperature from {heat[0]:.0f} to {heat[1]:.0f} °C"
            message = (
                f"the clock of GPU {name} changed from {first:.0f} MHz in the first quarter of the samples to "
                f"{last:.0f} MHz in the last quarter{warmer}"
            )
            return failed(code, message, expected=first, found=last, processes=[index])
    return passed(code) if is_checked else not_checked(code, _NO_STATE)
