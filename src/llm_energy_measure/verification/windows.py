"""Windows: the energy and the tokens are of the same time, or joules per token mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure.verification.codes import failed, not_checked, passed, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.verification.processes import Evidence

TOLERANCE = 0.1
"""Fraction of the inference time that the energy window may be longer or shorter."""


def check_windows(evidence: Evidence) -> Iterator[Finding]:
    """Whether energy windows and inference times agree. A process without a time of its own has the experiment's."""
    times = [None if work is None else work.inference_time_sec for work in evidence.works]
    # Only a process without a time of its own asks for it.
    longest = None if all(times) else max(filter(None, times), default=None)
    wrong: list[tuple[int, float, float]] = []
    unknown: list[RawProcessResult] = []
    checked = False
    for process, time in zip(evidence.processes, times, strict=True):
        if not process.energy.total_energy_j:
            continue
        record, window, work = process.record, process.window_sec, time or longest
        if window is None:
            unknown.append(record)
        elif work:
            checked = True
            if abs(window - work) > TOLERANCE * work:
                wrong.append((record.process_index, window, work))
    yield _mismatch(wrong, checked=checked)
    yield _unknown(unknown)


def _inference_sec(record: RawProcessResult) -> float | None:
    return record.inference_metrics.inference_time_sec if record.inference_metrics is not None else None


def _mismatch(wrong: list[tuple[int, float, float]], *, checked: bool) -> Finding:
    code = "window.mismatch"
    if not wrong:
        return passed(code) if checked else not_checked(code, "no process has both an energy window and a time")
    process, window, work = max(wrong, key=lambda entry: (abs(entry[1] - entry[2]) / entry[2], -entry[0]))
    others = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
    message = (
        f"process {process} measured energy over {seconds(window)} beside {seconds(work)} of inference{others}: "
        "joules per token hold more or less than inference"
    )
    return failed(code, message, expected=work, found=window, processes=(entry[0] for entry in wrong))


def _unknown(unknown: list[RawProcessResult]) -> Finding:
    code = "window.unknown"
    if not unknown:
        return passed(code)
    for record in unknown:
        run, work = record.timestamps.duration_sec, _inference_sec(record)
        if run and work and abs(run - work) > TOLERANCE * work:
            message = (
                f"no energy window is recorded, and process {record.process_index} ran for {seconds(run)} with "
                f"{seconds(work)} of inference: joules per token depend on which of the two the energy is of"
            )
            processes = (one.process_index for one in unknown)
            return failed(code, message, expected=work, found=run, processes=processes)
    reason = "no energy window is recorded, and nothing shows that run and inference differ"
    return not_checked(code, reason, processes=(record.process_index for record in unknown))
