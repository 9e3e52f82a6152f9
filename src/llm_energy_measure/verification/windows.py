"""Checks of energy windows: energy and tokens must cover the same time, else joules per token are meaningless."""

from __future__ import annotations

from collections.abc import Iterator

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.verification.codes import failed, not_checked, passed, seconds
from llm_energy_measure.verification.processes import Evidence

TOLERANCE = 0.1
"""Greatest difference between energy window (or run) and inference time, as a fraction of the inference time."""


def check_windows(evidence: Evidence) -> Iterator[Finding]:
    """Check that energy windows and inference times agree.

    A process without an inference time is compared with the longest inference time of the experiment.
    """
    times = [None if inference is None else inference.inference_time_sec for inference in evidence.inference_metrics]
    longest = None if all(times) else max(filter(None, times), default=None)
    wrong: list[tuple[int, float, float]] = []
    unknown: list[RawProcessResult] = []
    checked = False
    for process, time in zip(evidence.processes, times, strict=True):
        if not process.energy.total_energy_j:
            continue
        record, window, inference_sec = process.record, process.window_sec, time or longest
        if window is None:
            unknown.append(record)
        elif inference_sec:
            checked = True
            if abs(window - inference_sec) > TOLERANCE * inference_sec:
                wrong.append((record.process_index, window, inference_sec))
    yield _mismatch(wrong, checked=checked)
    yield _unknown(unknown)


def _inference_sec(record: RawProcessResult) -> float | None:
    return record.inference_metrics.inference_time_sec if record.inference_metrics is not None else None


def _mismatch(wrong: list[tuple[int, float, float]], *, checked: bool) -> Finding:
    code = "window.mismatch"
    if not wrong:
        reason = "no process has both an energy window and an inference time"
        return passed(code) if checked else not_checked(code, reason)
    process, window, inference_sec = max(wrong, key=lambda entry: (abs(entry[1] - entry[2]) / entry[2], -entry[0]))
    others = f" ({len(wrong) - 1} more processes differ)" if len(wrong) > 1 else ""
    message = (
        f"process {process} measured energy over {seconds(window)}, but inference took {seconds(inference_sec)}"
        f"{others}; joules per token don't describe the inference"
    )
    return failed(code, message, expected=inference_sec, found=window, processes=(entry[0] for entry in wrong))


def _unknown(unknown: list[RawProcessResult]) -> Finding:
    code = "window.unknown"
    if not unknown:
        return passed(code)
    for record in unknown:
        run, inference_sec = record.timestamps.duration_sec, _inference_sec(record)
        if run and inference_sec and abs(run - inference_sec) > TOLERANCE * inference_sec:
            message = (
                f"no energy window is recorded; process {record.process_index} ran for {seconds(run)}, and inference "
                f"took {seconds(inference_sec)}; joules per token depend on which of the two times the energy covers"
            )
            processes = (one.process_index for one in unknown)
            return failed(code, message, expected=inference_sec, found=run, processes=processes)
    reason = "no energy window is recorded, but no process shows a difference between run and inference"
    return not_checked(code, reason, processes=(record.process_index for record in unknown))
