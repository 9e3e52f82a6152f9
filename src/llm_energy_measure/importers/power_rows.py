"""Read the rows of power logs in all their layouts as `Sample`s.

Source: nvidia-smi `--query-gpu --format=csv[,nounits][,noheader]` and `dmon [-o DT] [--format csv]`; `dcgmi dmon -e
155,156`; amd-smi `metric -p`, `metric -E` and `monitor -p` with `--csv`; InferenceX `gpu_metrics.csv`; tables with a
time and one power column, or one power column per GPU or per server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource, split_row
from llm_energy_measure.importers.values import from_epoch, parse_number, parse_time

_TIMES = ("timestamp", "timestamp_s", "timestamp_unix", "time", "datetime")
_HOSTS = ("hostname", "host")
_UUIDS = ("uuid", "gpu_uuid")
_DEVICES = ("index", "gpu_index", "gpu", *_UUIDS, "pci.bus_id", "gpu_bus_id", "serial", "gpu_serial")
_DRAW = re.compile(r"power\.draw(?:\.instant|\.average)?(?: \[W\])?")
_AMD_DRAW = ("socket_power", "power_usage", "current_socket_power", "average_socket_power")
_POWER = re.compile(r"(?!.*(?:limit|cap|max|min|avg_total)).*power.*(?:_w|_watts| \[w\])", re.IGNORECASE)
_WIDE = re.compile(r"GPU ?([0-9]{1,3})", re.IGNORECASE)
_SERVER = re.compile(r"([A-Za-z0-9-]+)_watts")
_NOT_A_SERVER = re.compile(r"total|gpu|cpu|ram|mem|dram|soc|package|system|psu|board", re.IGNORECASE)
_TEMPERATURES = ("temperature.gpu", "gtemp", "hotspot_temperature", "edge_temperature", "TMPTR")
_CLOCKS = ("clocks.sm [MHz]", "clocks.current.sm [MHz]", "clocks.sm", "pclk", "gfx_clk", "SMCLK")
_THROTTLES = (
    *("clocks_throttle_reasons.active", "clocks_event_reasons.active", "throttle", "throttle_status"),
    "throttle_reasons",
)
_MISSING = ("", "n/a", "[n/a]", "[not supported]", "[unknown error]", "nan", "-")
_BLANK_J = 1e15
_MAX_W = 1e6
"""Limits in J and in W. A greater value is unknown, because DCGM writes huge numbers for unknown values."""
_NUMBER_WITH_UNIT = re.compile(r"([^ ]*?) ?(?:W|MHz|C)?")
_HEADER_BYTES = 8192
_SMI_TIME = re.compile(r"[0-9]{4}/[0-9]{2}/[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?")
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a local time without zone is counted from a local epoch


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a log, by position in a row.

    Attributes:
        names: The header.
        time: Position of the time; None if the rows have no time.
        date: Position of the date; None if the column of the time contains the date.
        host: Position of the host name.
        device: Position of the GPU index, or else of the UUID, bus id or serial number.
        uuid: Position of the UUID.
        powers: By position of each power column (in watts): the device in the name of the column, or None.
        counter: Position of a cumulative energy.
        counter_factor: Joules per unit of the counter.
        temperature: Position of the temperature of the GPU.
        clock: Position of the clock of the streaming multiprocessors.
        throttle: Position of the throttle reasons.
        is_host: Whether each power column is a server.
        is_text: Whether spaces separate the cells.
        has_entity: Whether each row begins with the entity of DCGM, such as `GPU 0`.
    """

    names: tuple[str, ...]
    time: int | None = None
    date: int | None = None
    host: int | None = None
    device: int | None = None
    uuid: int | None = None
    powers: dict[int, str | None] = {}
    counter: int | None = None
    counter_factor: float = 1.0
    temperature: int | None = None
    clock: int | None = None
    throttle: int | None = None
    is_host: bool = False
    is_text: bool = False
    has_entity: bool = False


class Sample(NamedTuple):
    """One reading of one device; None is unknown.

    Attributes:
        moment: Seconds since 1970, in UTC if `is_utc` is True, otherwise in local time; None if the log has no times.
        is_utc: Whether the time is in UTC.
        host: Host name.
        device: GPU index, GPU UUID, name of a server, or empty.
        uuid: GPU UUID, or empty.
        power_w: Power in watts.
        counter_j: Cumulative energy in joules.
        temperature_c: Temperature in degrees Celsius.
        clock_mhz: Clock in megahertz.
        throttle: Throttle reasons.
    """

    moment: float | None
    is_utc: bool
    host: str | None
    device: str
    uuid: str
    power_w: float | None
    counter_j: float | None
    temperature_c: float | None
    clock_mhz: float | None
    throttle: str


class IgnoredRows:
    """The rows of a log that are left out.

    Attributes:
        first: Line of the first ignored row; 0 if no row is ignored.
        number: Number of ignored rows.
    """

    def __init__(self) -> None:
        self.first = 0
        self.number = 0

    def add(self, line: int) -> None:
        """Count a row."""
        self.first = self.first or line
        self.number += 1


def columns_of(names: Sequence[str]) -> Columns | None:
    """Return the columns of a CSV header; None if it is the header of another table."""
    time = _position(names, _TIMES)
    if time is None or "energy_consumed" in names:
        return None
    wide = {position: match[1] for position, name in enumerate(names) if (match := _WIDE.fullmatch(name))}
    if wide and len(wide) == len(names) - 1:
        return Columns(names=tuple(names), time=time, powers=dict(wide))
    servers = {position: match[1] for position, name in enumerate(names) if (match := _SERVER.fullmatch(name))}
    of_servers = {position: name for position, name in servers.items() if name != "total"}
    if len(servers) == len(names) - 1 and of_servers and not any(map(_NOT_A_SERVER.match, of_servers.values())):
        return Columns(names=tuple(names), time=time, powers=dict(of_servers), is_host=True)
    draws = [name for name in names if _DRAW.fullmatch(name)] or [name for name in _AMD_DRAW if name in names][:1]
    draws = draws or [name for name in names if _POWER.fullmatch(name)]
    counter = _position(names, ("total_energy_consumption",))
    if not draws and counter is None:
        return None
    columns = Columns(
        names=tuple(names),
        time=time,
        host=_position(names, _HOSTS),
        device=_position(names, _DEVICES),
        uuid=_position(names, _UUIDS),
        # Several columns can contain the power of one GPU. The shortest name is the plain power, such as power.draw.
        powers={names.index(min(sorted(draws), key=len)): None} if draws else {},
        counter=counter,
    )
    return _with_conditions(columns)


def text_columns_of(line: str) -> Columns | None:
    """Return the columns of a header of `nvidia-smi dmon` or `dcgmi dmon`; None for another line.

    Example:
        >>> columns = text_columns_of("#Date       Time        gpu    pwr  gtemp")
        >>> columns.date, columns.time, columns.device, columns.powers
        (0, 1, 2, {3: None})
    """
    if not line.startswith("#"):
        return None
    is_text = "," not in line
    names = [cell.strip() for cell in (line[1:].split() if is_text else line[1:].split(","))]
    if names[:1] == ["Entity"]:
        # In rows of `dcgmi dmon`, the entity has two words, such as `GPU 0`. A user can add the time in front of it.
        power, counter = _position(names, ("POWER",)), _position(names, ("TOTEC",))
        if power is None and counter is None:
            return None
        columns = Columns(
            names=tuple(names),
            powers={} if power is None else {power: None},
            counter=counter,
            counter_factor=1e-3,
            is_text=True,
            has_entity=True,
        )
        return _with_conditions(columns)
    power, device = _position(names, ("pwr",)), _position(names, ("gpu",))
    if power is None or device is None:
        return None
    date, time = _position(names, ("Date",)), _position(names, ("Time",))
    columns = Columns(
        names=tuple(names),
        time=None if date is None else time,
        date=date,
        device=device,
        powers={power: None},
        is_text=is_text,
    )
    return _with_conditions(columns)


def _position(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _with_conditions(columns: Columns) -> Columns:
    """Return the columns together with the positions of temperature, clock and throttle reasons."""
    wanted = {"temperature": _TEMPERATURES, "clock": _CLOCKS, "throttle": _THROTTLES}
    return msgspec.structs.replace(columns, **{name: _position(columns.names, of) for name, of in wanted.items()})


def find_columns(source: ImportSource) -> Columns | None:
    """Return the columns of the first header in the file; None if the file is no power log."""
    start = source.start[:_HEADER_BYTES]
    if b"\0" in start or start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return None
    for line in start.decode("utf-8-sig", errors="replace").splitlines()[:20]:
        columns = text_columns_of(line) or columns_of([cell.strip() for cell in split_row(line) or []])
        if columns is not None:
            return columns
    return None


def is_without_header(source: ImportSource) -> bool:
    """True if the first line is a row of `nvidia-smi --format=csv,noheader`."""
    return len(source.header) > 1 and any(map(_SMI_TIME.fullmatch, source.header))


def read_samples(source: ImportSource, stated: Columns | None, ignored: IgnoredRows) -> Iterator[Sample]:
    """Yield the samples of a log, and add each row without a valid time or power to `ignored`.

    Lines before the first header are skipped. A restarted log has several headers; each applies to the rows after it.

    Args:
        source: The log.
        stated: Columns that the user stated, for a log without header.
        ignored: Gets the line numbers.
    """
    columns = stated
    for number, line in enumerate(source.lines(), start=1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace").strip()
        header = text_columns_of(text)
        if header is not None:
            columns = header
        if header is not None or not text or text.startswith(("#", "ID ")):
            continue
        cells = None if columns is None else _cells(text, columns)
        moment, is_utc = (None, False) if cells is None or columns is None else _moment(cells, columns)
        has_time = columns is not None and (columns.time is not None or bool(cells and columns.has_entity and cells[0]))
        if cells is None or (has_time and moment is None):
            header = columns_of([cell.strip() for cell in split_row(text) or []])
            if header is None and columns is not None:
                ignored.add(number)
            columns = header or columns
        elif columns is not None:
            yield from _samples_of(cells, columns, moment, number, ignored, is_utc=is_utc)


def _samples_of(
    cells: Sequence[str],
    columns: Columns,
    moment: float | None,
    number: int,
    ignored: IgnoredRows,
    *,
    is_utc: bool,
) -> Iterator[Sample]:
    """Yield a sample for each power column of a row."""
    host = cells[columns.host] if columns.host is not None else None
    uuid = cells[columns.uuid] if columns.uuid is not None else ""
    counter = None if columns.counter is None else _value(cells[columns.counter], _BLANK_J / columns.counter_factor)
    others = (
        None if columns.temperature is None else _value(cells[columns.temperature], _MAX_W),
        None if columns.clock is None else _value(cells[columns.clock], _MAX_W),
        "" if columns.throttle is None else _known_text(cells[columns.throttle]),
    )
    for position, name in (columns.powers or {-1: None}).items():
        if columns.device is not None:
            device = cells[columns.device]
        else:
            device = name or (cells[-1] if columns.has_entity else "")
        cell = cells[position] if position >= 0 else ""
        power_w = _value(cell, _MAX_W)
        if power_w is None and cell.casefold() not in _MISSING:
            ignored.add(number)
        if columns.is_host and power_w == 0:
            power_w = None  # 0 W means that the poll of the server failed
        counter_j = None if counter is None else counter * columns.counter_factor
        yield Sample(moment, is_utc, host, device, uuid, power_w, counter_j, *others)


def _cells(text: str, columns: Columns) -> list[str] | None:
    """Return the cells of a row, as many as the header has; None if their number differs.

    For a row of DCGM, the time is the first cell, and the device is an additional last cell.
    """
    if columns.has_entity:
        words = text.split()
        entity = next((index for index, word in enumerate(words) if word.startswith("GPU")), None)
        if entity is None or len(words) != entity + 1 + len(columns.names):
            return None
        device = words[entity + 1] if words[entity] == "GPU" else f"{words[entity]} {words[entity + 1]}"
        return [" ".join(words[:entity]), *words[entity + 2 :], device]
    cells = text.split() if columns.is_text else [cell.strip() for cell in split_row(text) or []]
    return cells if len(cells) == len(columns.names) else None


def _moment(cells: Sequence[str], columns: Columns) -> tuple[float | None, bool]:
    """Return the time of a row in seconds since 1970, and whether it is in UTC; None if there is no valid time."""
    if columns.has_entity:
        text = cells[0]
    elif columns.date is not None and columns.time is not None:
        day = cells[columns.date]
        text = f"{day[:4]}-{day[4:6]}-{day[6:]} {cells[columns.time]}" if len(day) == 8 else ""
    elif columns.time is not None:
        text = cells[columns.time]
    else:
        return None, False
    number = parse_number(text)
    moment = parse_time(text) if number is None else from_epoch(number)
    if moment is None:
        return None, False
    if moment.tzinfo is None:
        return (moment - EPOCH).total_seconds(), False
    return (moment.timestamp() if number is None else number), True


def _value(cell: str, limit: float) -> float | None:
    """Return the number in a cell, without its unit; None if it is missing, negative or above the limit."""
    match = _NUMBER_WITH_UNIT.fullmatch(cell)
    number = parse_number(match[1]) if match else None
    return number if number is not None and 0 <= number < limit else None


def _known_text(cell: str) -> str:
    return "" if cell.casefold() in _MISSING else cell


def stated_columns(names: Sequence[str]) -> Columns:
    """Return the columns that the user stated for a log without header.

    Raises:
        RefusedInputError: The columns have no time or no power.
    """
    columns = columns_of(list(names))
    if columns is None:
        found = f"--columns {','.join(names)} lacks a time or a power"
        raise RefusedInputError(
            "missing_field", f"{found}; use the names of --query-gpu, with timestamp and power.draw"
        )
    return columns
