"""Convert the samples of one device of a power log from rows in file order to a trace in order of time.

All series are columns of temporary files, so that a log of any length takes little memory.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import overload

import msgspec

from llm_energy_measure.domain.power_trace import (
    GAP_SEC,
    CounterTrace,
    PowerTrace,
    mean_of_known,
    merge_equal_times,
)
from llm_energy_measure.importers.power_rows import Sample
from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.importers.sample_file import SampleColumn, SampleFile, SampleTable, in_order

_FIRST_ROWS = 10_000
_CLOSE = 0.2
"""Greatest time between two rows of one query, as a fraction of the time between two queries."""
_LEAST_GROUPS = 3
_TIME_DECIMALS = 6
"""Number of decimals of a second that are kept. A time since 1970 in a double has no more exact decimals."""


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one device in file order; an unknown value is `nan`.

    Attributes:
        moments: Seconds since 1970, in UTC or in local time.
        powers: Watts.
        counters: Cumulative energy in joules.
        temperatures: Degrees Celsius.
        clocks: Megahertz.
        throttles: Indices of the throttle reasons in `texts`.
        texts: Throttle reasons of the log; None if no sample of the device has one.
        uuid: GPU UUID, or empty.
    """

    moments: SampleColumn
    powers: SampleColumn
    counters: SampleColumn
    temperatures: SampleColumn
    clocks: SampleColumn
    throttles: SampleColumn
    texts: list[str] | None
    uuid: str

    def part(self, start: int, end: int) -> Readings:
        """Return the samples from index `start` up to, but not including, index `end`."""
        columns = {
            name: getattr(self, name)[start:end]
            for name in ("moments", "powers", "counters", "temperatures", "clocks", "throttles")
        }
        return msgspec.structs.replace(self, **columns)


class DeviceRows:
    """Collects the samples of one device.

    Args:
        file: File for the samples.
        texts: Index of each throttle reason of the log. `add` adds new reasons.

    Attributes:
        uuid: The first GPU UUID, or empty.
    """

    def __init__(self, file: SampleFile, texts: dict[str, int]) -> None:
        self._table = SampleTable(file, 6)
        self._texts = texts
        self._has_throttle = False
        self.uuid = ""

    def add(self, sample: Sample) -> None:
        """Append a sample."""
        numbers = (sample.moment, sample.power_w, sample.counter_j, sample.temperature_c, sample.clock_mhz)
        text = self._texts.setdefault(sample.throttle, len(self._texts))
        self._table.append([*(math.nan if number is None else number for number in numbers), text])
        self.uuid = self.uuid or sample.uuid
        self._has_throttle = self._has_throttle or bool(sample.throttle)

    def readings(self) -> Readings:
        """Return the samples."""
        moments, powers, counters, temperatures, clocks, throttles = self._table.columns()
        return Readings(
            moments=moments,
            powers=powers,
            counters=counters,
            temperatures=temperatures,
            clocks=clocks,
            throttles=throttles,
            texts=list(self._texts) if self._has_throttle else None,
            uuid=self.uuid,
        )


def with_equal_intervals(readings: Readings, name: str, low: float | None, high: float | None) -> Readings:
    """Return the samples of a log without times, with times at equal intervals from `low` to `high`.

    If `low` or `high` is None, the times are the numbers of the rows, from 0. With these times, only the increase of a
    counter is known.

    Raises:
        RefusedInputError: There is neither a window nor a counter, the device has a single sample, or the window ends
            before its start.
    """
    number = len(readings.moments)
    if low is None or high is None:
        if all(map(math.isnan, readings.counters)):
            found = "the rows have no time"
            advice = "pass --from and --to with the times of the first and the last row, or log the time (dmon -o DT)"
            raise RefusedInputError("missing_field", f"{found}; {advice}")
        low, high = 0.0, float(number - 1)
    if number < 2:
        raise RefusedInputError("no_measurement", f"GPU {name or '0'} has one sample; an energy needs two")
    if high <= low:
        raise RefusedInputError("impossible_value", "the window does not end after its start; correct --from and --to")
    step = high - low
    return msgspec.structs.replace(
        readings, moments=_column(low + step * index / (number - 1) for index in range(number))
    )


def segment_of(readings: Readings, low: float, high: float) -> Readings:
    """Return the part that covers the window and in which the clock does not go back.

    If no part or several parts cover the window, all samples are returned.
    """
    parts = [
        (start, end)
        for start, end in _segments(readings.moments)
        if readings.moments[start] <= low and high <= readings.moments[end - 1]
    ]
    return readings.part(*parts[0]) if len(parts) == 1 else readings


def _segments(moments: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the indices of start and end of each part in which the clock does not go back by more than `GAP_SEC`."""
    start = 0
    for index, (earlier, later) in enumerate(itertools.pairwise(moments), start=1):
        if earlier - later > GAP_SEC:
            yield start, index
            start = index
    yield start, len(moments)


def trace_of(readings: Readings, name: str, origin: float, file: SampleFile) -> PowerTrace | None:
    """Return the power samples of a device; None if no row has a power.

    Args:
        readings: Samples of the device.
        name: Name of the device.
        origin: Start of the record, in seconds since 1970. The times of the trace are relative to this start.
        file: File for the trace.
    """
    if all(map(math.isnan, readings.powers)):
        return None
    columns = (readings.powers, readings.temperatures, readings.clocks, readings.throttles)
    rows = _known_rows([_relative(readings, name, origin), *columns])
    times, powers, temperatures, clocks, throttles = SampleTable(file, 5).extend(_merged(rows)).columns()
    return PowerTrace(
        device=name,
        times=times,
        powers=powers,
        temperatures=None if all(map(math.isnan, temperatures)) else temperatures,
        clocks=None if all(map(math.isnan, clocks)) else clocks,
        throttles=None if readings.texts is None else _Texts(throttles, readings.texts),
    )


def counter_of(readings: Readings, name: str, origin: float, file: SampleFile) -> CounterTrace | None:
    """Return the energy counter of a device; None if fewer than two rows have a value. Arguments: see `trace_of`."""
    if sum(not math.isnan(value) for value in readings.counters) < 2:
        return None
    rows = _known_rows([_relative(readings, name, origin), readings.counters])
    times, joules = SampleTable(file, 2).extend(merge_equal_times(rows)).columns()
    return CounterTrace(device=name, times=times, joules=joules)


def _relative(readings: Readings, name: str, origin: float) -> SampleColumn:
    """Return the times of a device in seconds since the origin.

    Raises:
        RefusedInputError: The clock went back by more than `GAP_SEC`. Or no column names the GPU, and the times show
            several GPUs: more than 10 % of the samples have the time of another sample, or see `_rows_per_query`.
    """
    times = _column(round(moment - origin, _TIME_DECIMALS) for moment in readings.moments)
    if not name:
        found = "several rows have the same time" if _distinct(times) < 0.9 * len(times) else ""
        if not found and (number := _rows_per_query(times)) > 1:
            found = f"the rows follow each other in groups of {number}, as the rows of {number} GPUs do"
        if found:
            advice = "log index or uuid too (--query-gpu=timestamp,index,...), or add this column to the file"
            raise RefusedInputError("missing_field", f"{found}, but no column names the GPU; {advice}")
    back_sec = max((one - other for one, other in itertools.pairwise(times)), default=0.0)
    if back_sec > GAP_SEC:
        found = f"the clock of GPU {name or '0'} went back by {back_sec:.0f} s"
        advice = "pass --from and --to of a time span that only the rows before this step cover"
        raise RefusedInputError("impossible_value", f"{found}; {advice}, or only the rows after this step")
    return times


def _column(values: Iterable[float]) -> SampleColumn:
    return SampleTable(SampleFile(), 1).extend((value,) for value in values).column(0)


def _distinct(times: SampleColumn) -> int:
    """Return the number of different times."""
    rows = in_order((time,) for time in times) if _goes_back(times) else zip(times, strict=True)
    return sum(1 for _ in itertools.groupby(rows))


def _rows_per_query(times: SampleColumn) -> int:
    """Return the number of rows that one query wrote, from the first rows; 1 if the times show no such number.

    nvidia-smi queries one GPU after the other, so the rows of one query have times a few milliseconds apart, and a much
    longer time follows. The number is greater than 1 if at least nine of ten groups of close rows have the same size.
    """
    first = list(itertools.islice(times, _FIRST_ROWS))
    gaps = [later - earlier for earlier, later in itertools.pairwise(first)]
    if not gaps:
        return 1
    # With up to 16 GPUs, at least one of 16 gaps is the time between two queries.
    close_sec = sorted(gaps)[-max(1, len(gaps) // 20)] * _CLOSE
    starts = [0, *(number for number, gap in enumerate(gaps, start=1) if gap > close_sec)]
    sizes = [end - start for start, end in itertools.pairwise(starts)]  # the last group may be incomplete
    if len(sizes) < _LEAST_GROUPS:
        return 1
    size, count = Counter(sizes).most_common(1)[0]
    return size if count >= 0.9 * len(sizes) else 1


def _goes_back(times: Iterable[float]) -> bool:
    return any(later < earlier for earlier, later in itertools.pairwise(times))


def _known_rows(columns: Sequence[SampleColumn]) -> Iterator[Sequence[float]]:
    """Return the rows whose second value is known, in order of the first value."""

    def known() -> Iterator[Sequence[float]]:
        return (row for row in zip(*columns, strict=True) if not math.isnan(row[1]))

    return in_order(known()) if _goes_back(row[0] for row in known()) else known()


def _merged(rows: Iterable[Sequence[float]]) -> Iterator[Sequence[float]]:
    """Yield one row for each time, with the mean of the known values, and the last throttle reason."""
    for moment, group in itertools.groupby(rows, key=itemgetter(0)):
        members = list(group)
        values = zip(*members, strict=True)
        yield [moment, *map(mean_of_known, itertools.islice(values, 1, 4)), members[-1][4]]


class _Texts(Sequence[str]):
    """A sequence of texts, stored as a column of indices into a list of texts."""

    def __init__(self, numbers: SampleColumn, texts: list[str]) -> None:
        self._numbers = numbers
        self._texts = texts

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return _Texts(self._numbers[index], self._texts)
        return self._texts[int(self._numbers[index])]

    def __iter__(self) -> Iterator[str]:
        return (self._texts[int(number)] for number in self._numbers)
