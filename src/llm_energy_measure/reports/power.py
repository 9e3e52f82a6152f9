"""Power and energy over time, from the stored samples of an experiment."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.domain.power_trace import GAP_FACTOR, GAP_SEC, PowerTrace
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.reports.plots import Axis, Mark, Panel, Plot, Series
from llm_energy_measure.reports.style import MOST_SERIES
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.samples import load_samples


def figure_of_samples(
    repository: FileSystemRepository, found: AggregatedResult, *, name: str = "power", with_energy: bool = True
) -> Plot | None:
    """Return a figure of power over the time since the start of each process; None without samples.

    Args:
        repository: The results directory.
        found: The experiment.
        name: Id of the figure in the document.
        with_energy: Whether a second panel shows the energy.
    """
    return figure_of_processes(
        repository, found.experiment_id, found.process_results, name=name, with_energy=with_energy
    )


def figure_of_processes(
    repository: FileSystemRepository,
    experiment_id: str,
    processes: Sequence[RawProcessResult],
    *,
    name: str = "power",
    with_energy: bool = True,
) -> Plot | None:
    """Return the figure of `figure_of_samples` for processes that the caller has loaded."""
    traces: list[tuple[str, PowerTrace]] = []
    notes = []
    for process in processes:
        try:
            found = load_samples(repository.store, experiment_id, process.process_index)
        except LLMEnergyMeasureError as error:
            notes.append(f"{error}")
            continue
        words = f"process {process.process_index}"
        traces += [(f"{words}, GPU {trace.device}" if trace.device else words, trace) for trace in found]
    traces = [(label, trace) for label, trace in traces if len(trace.times) > 1]
    if not traces:
        return None
    if len(traces) > MOST_SERIES:
        notes.append(f"The figure shows {MOST_SERIES} of {len(traces)} devices.")
        traces = traces[:MOST_SERIES]
    power = [Series(name=label, marks=_power(trace)) for label, trace in traces]
    panels = [Panel(title="power" if with_energy else "", series=power)]
    if with_energy:
        energy = [Series(name=label, marks=_energy(trace)) for label, trace in traces]
        panels.append(Panel(title="energy since the first sample", series=energy, y=Axis(label="energy", unit="J")))
        panels[0] = Panel(title="power", series=power, y=Axis(label="power", unit="W"))
    return Plot(
        name=name,
        title=f"Power over time: {experiment_id}",
        description=f"Power samples of {len(traces)} devices. Time 0 is the start of each process.",
        kind="line",
        x=Axis(label="time", unit="s"),
        y=Axis(label="power", unit="W"),
        panels=panels,
        by="device",
        notes=["Energy is the integral of the samples by the trapezoidal rule; gaps add nothing.", *notes]
        if with_energy
        else notes,
    )


def _gap_sec(times: Sequence[float]) -> float:
    """Return the least length of a gap, by the rule of `power_trace`."""
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return max(GAP_SEC, GAP_FACTOR * statistics.median(steps))


def _power(trace: PowerTrace) -> list[Mark]:
    """Return the samples. In a gap, a mark without a value interrupts the line."""
    gap_sec, marks, before = _gap_sec(trace.times), [], None
    for time, watts in zip(trace.times, trace.powers, strict=True):
        if before is not None and time - before > gap_sec:
            marks.append(Mark(x=(time + before) / 2, y=None))
        marks.append(Mark(x=time, y=watts))
        before = time
    return marks


def _energy(trace: PowerTrace) -> list[Mark]:
    """Return the energy since the first sample, in joules, with a mark at each sample. A gap adds no energy."""
    gap_sec, total, parts = _gap_sec(trace.times), 0.0, [Mark(x=trace.times[0], y=0.0)]
    samples = zip(trace.times, trace.powers, strict=True)
    for (before, low_w), (after, high_w) in itertools.pairwise(samples):
        if after - before <= gap_sec:
            total = math.fsum((total, (after - before) * (low_w + high_w) / 2))
        parts.append(Mark(x=after, y=total))
    return parts
