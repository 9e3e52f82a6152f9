"""Save and load the power samples of a process, in `samples-process_<i>.csv.gz` next to its result.

The file is CSV in gzip: `time_s,device,power_w`, then `temperature_c`, `clock_mhz` and `throttle` if they are known.
`time_s` is the number of seconds since the start of the record. Equal samples give equal bytes. No total is computed
from the samples.
"""

from __future__ import annotations

import csv
import gzip
import heapq
import io
import math
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from llm_energy_measure.domain.power_trace import PowerTrace
from llm_energy_measure.exceptions import ResultCorruptError, ResultNotFoundError
from llm_energy_measure.results.store import layout
from llm_energy_measure.results.store.raw_folder import bytes_of, keep_copy
from llm_energy_measure.storage.base import Store

_REQUIRED = ["time_s", "device", "power_w"]
_OPTIONAL = ["temperature_c", "clock_mhz", "throttle"]
_MAX_TEXT_BYTES = 1024 * 1024 * 1024
"""Limit of the decompressed text. Ten samples per second of each of eight GPUs give 200 MB per day."""


def save_samples(
    store: Store, experiment_id: str, process_index: int, traces: Sequence[PowerTrace], *, overwrite: bool = False
) -> bool:
    """Store the samples of a process, and return True if the file is new or was replaced.

    Without `overwrite`, an existing file is not changed. With `overwrite`, a replaced file is kept as
    `superseded-samples-process_<i>-<n>.csv.gz.kept`.
    """
    folder = layout.folder_in(store, experiment_id)
    key, data = layout.samples_key(folder, process_index), encode_samples(traces)
    if store.create(key, data):
        return True
    if not overwrite or bytes_of(store, key) == data:
        return False
    keep_copy(store, key, lambda number: layout.superseded_samples_key(folder, process_index, number))
    store.put(key, data)
    return True


def load_samples(store: Store, experiment_id: str, process_index: int) -> list[PowerTrace]:
    """Return the samples of a process, one trace per device; empty if the process has no samples.

    Raises:
        ResultCorruptError: The file is damaged.
    """
    key = layout.samples_key(layout.folder_in(store, experiment_id), process_index)
    try:
        return decode_samples(store.get(key), key)
    except ResultNotFoundError:
        return []


def encode_samples(traces: Sequence[PowerTrace]) -> bytes:
    """Return the bytes of the file. Its rows are sorted by time, then by the position of the device in `traces`."""
    optional = [
        name
        for name, column in zip(_OPTIONAL, ("temperatures", "clocks", "throttles"), strict=True)
        if any(getattr(trace, column) is not None for trace in traces)
    ]
    buffer = io.BytesIO()
    # The gzip header contains no file name, time or platform, so that equal samples give equal bytes.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_REQUIRED, *optional])
        rows = (_rows(number, trace, optional) for number, trace in enumerate(traces))
        writer.writerows(row for _, _, row in heapq.merge(*rows, key=lambda item: item[:2]))
    return buffer.getvalue()


def _rows(number: int, trace: PowerTrace, optional: Sequence[str]) -> Iterator[tuple[float, int, list[str]]]:
    """Yield time, number of the trace and cells of each sample."""
    cells_of: dict[str, Iterable[str]] = {
        "temperature_c": repeat("") if trace.temperatures is None else map(_cell, trace.temperatures),
        "clock_mhz": repeat("") if trace.clocks is None else map(_cell, trace.clocks),
        "throttle": repeat("") if trace.throttles is None else trace.throttles,
    }
    samples = zip(trace.times, trace.powers, strict=True)
    for (moment, power_w), *cells in zip(samples, *(cells_of[name] for name in optional), strict=False):
        yield moment, number, [_cell(moment), trace.device, _cell(power_w), *cells]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(value).removesuffix(".0")


def decode_samples(data: bytes, name: str) -> list[PowerTrace]:
    """Return the traces in the bytes of a file, one per device, in the order of their first rows.

    Raises:
        ResultCorruptError: The file is cut off, or a row has an invalid cell.
    """
    doing = f"cannot load {name}"
    advice = "run the process or the import again to have its samples"
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            return _traces(csv.reader(_lines(packed), strict=True))
    except (EOFError, OSError, zlib.error, csv.Error, UnicodeDecodeError, ValueError) as error:
        raise ResultCorruptError(doing, f"the samples are damaged ({error})", advice) from error


def _lines(packed: gzip.GzipFile) -> Iterator[str]:
    """Yield the lines of the text. Raise ValueError if the text exceeds the limit."""
    size = 0
    while line := packed.readline(1_000_000):
        size += len(line)
        if size > _MAX_TEXT_BYTES:
            msg = f"the text has more than {_MAX_TEXT_BYTES // 2**20} MiB"
            raise ValueError(msg)
        yield line.decode()


def _traces(rows: Iterable[list[str]]) -> list[PowerTrace]:
    iterator = iter(rows)
    header = next(iterator, [])
    optional = header[3:]
    if header[:3] != _REQUIRED or optional != [name for name in _OPTIONAL if name in optional]:
        msg = f"the columns are {', '.join(header[:9])}"
        raise ValueError(msg)
    columns: dict[str, tuple[array[float], array[float], dict[str, list[str]]]] = {}
    for row in iterator:
        if len(row) != len(header):
            msg = f"a row has {len(row)} cells, and the header has {len(header)}"
            raise ValueError(msg)
        times, powers, others = columns.setdefault(
            row[1], (array("d"), array("d"), {column: [] for column in optional})
        )
        times.append(_number(row[0]))
        powers.append(_number(row[2]))
        for column, cell in zip(optional, row[3:], strict=True):
            others[column].append(cell)
    return [
        PowerTrace(
            device=device,
            times=times,
            powers=powers,
            temperatures=_known_numbers(others.get("temperature_c", [])),
            clocks=_known_numbers(others.get("clock_mhz", [])),
            throttles=others.get("throttle") if any(others.get("throttle", [])) else None,
        )
        for device, (times, powers, others) in columns.items()
    ]


def _known_numbers(cells: Sequence[str]) -> array[float] | None:
    """Return the numbers in the cells, with `nan` for an empty cell; None if all cells are empty."""
    return array("d", (_number(cell) if cell else math.nan for cell in cells)) if any(cells) else None


def _number(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        msg = f"the cell {cell!r} is not a finite number"
        raise ValueError(msg)
    return value
