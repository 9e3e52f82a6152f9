"""Store long series of numbers in a temporary file, so that a power log of any length takes little memory.

A `SampleTable` has rows of numbers. Its columns are sequences of floats that read the file in blocks.
"""

from __future__ import annotations

import heapq
import itertools
import operator
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import IO, overload

from llm_energy_measure.importers.report import RefusedInputError

_BLOCK_ROWS = 1024
_NUMBER_BYTES = 8
_IN_MEMORY_BYTES = 256 * 1024
"""A `SampleFile` with fewer bytes is kept in memory."""

_SORTED_ROWS = 16 * _BLOCK_ROWS
"""Number of rows that are sorted in memory."""


class SampleFile:
    """A temporary file without a name, for the blocks of several tables. Several threads may read it at the same time.

    Args:
        file: An open file, which is closed with this object. By default, a temporary file in `TMPDIR`.
    """

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self._lock = Lock()
        self._file = file or tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - the finalizer closes it
        weakref.finalize(self, self._file.close)
        self._size = 0

    def append(self, data: bytes) -> int:
        """Append bytes, and return their offset.

        Raises:
            RefusedInputError: The file cannot be written.
        """
        with self._lock:
            offset = self._size
            try:
                self._file.seek(offset)
                self._file.write(data)
            except OSError as error:
                found = f"its samples cannot be written into a temporary file: {error.strerror or error}"
                raise RefusedInputError("unreadable", f"{found}; set TMPDIR to a folder with free space") from error
            self._size += len(data)
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes that begin at `offset`."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


class SampleTable:
    """Rows of numbers in blocks. Only the last, incomplete block is in memory; the others are in the file.

    Args:
        file: The file for the blocks.
        width: Number of columns.
    """

    def __init__(self, file: SampleFile, width: int) -> None:
        self._file = file
        self._width = width
        self._offsets: array[int] = array("q")
        self._last: array[float] = array("d")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._offsets) * _BLOCK_ROWS + len(self._last) // self._width

    def append(self, row: Sequence[float]) -> None:
        """Append a row."""
        self._last.extend(row)
        if len(self._last) == _BLOCK_ROWS * self._width:
            columns = (self._last[number :: self._width] for number in range(self._width))
            self._offsets.append(self._file.append(b"".join(column.tobytes() for column in columns)))
            self._last = array("d")

    def extend(self, rows: Iterable[Sequence[float]]) -> SampleTable:
        """Append rows, and return the table."""
        for row in rows:
            self.append(row)
        return self

    def column(self, number: int) -> SampleColumn:
        """Return a column with the rows that the table has now."""
        return SampleColumn(self, number, range(len(self)))

    def columns(self) -> list[SampleColumn]:
        """Return all columns with the rows that the table has now."""
        return [self.column(number) for number in range(self._width)]

    def block(self, number: int, column: int) -> array[float]:
        """Return the values of a column in the block with this number."""
        if number == len(self._offsets):
            return self._last[column :: self._width]
        size = _BLOCK_ROWS * _NUMBER_BYTES
        return array("d", self._file.read(self._offsets[number] + column * size, size))


class SampleColumn(Sequence[float]):
    """A part of a column of a table: a sequence of floats that can be read several times.

    Args:
        table: The table.
        number: Number of the column.
        rows: Numbers of the rows.
    """

    def __init__(self, table: SampleTable, number: int, rows: range) -> None:
        self._table = table
        self._number = number
        self._rows = rows
        self._block: tuple[int, array[float]] = (-1, array("d"))

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> float: ...

    @overload
    def __getitem__(self, index: slice) -> SampleColumn: ...

    def __getitem__(self, index: int | slice) -> float | SampleColumn:
        """Return a value, or a part of the column."""
        if isinstance(index, slice):
            return SampleColumn(self._table, self._number, self._rows[index])
        number, place = divmod(self._rows[index], _BLOCK_ROWS)
        found, block = self._block
        if found != number:
            block = self._table.block(number, self._number)
            self._block = number, block
        return block[place]

    def __iter__(self) -> Iterator[float]:
        """Yield the values, block by block."""
        start, stop = self._rows.start, self._rows.stop
        while start < stop:
            number, place = divmod(start, _BLOCK_ROWS)
            block = self._table.block(number, self._number)[place : place + stop - start]
            yield from block
            start += len(block)


def in_order(rows: Iterable[Sequence[float]]) -> Iterator[Sequence[float]]:
    """Yield rows in order of their first values; rows with equal first values keep their order.

    At most `_SORTED_ROWS` rows are in memory at once; the others are in a temporary file.
    """
    first = operator.itemgetter(0)
    iterator = iter(rows)
    file = SampleFile()
    runs: list[SampleTable] = []
    highest = float("-inf")
    while chunk := sorted(itertools.islice(iterator, _SORTED_ROWS), key=first):
        # If no value of a chunk is less than the last value of the previous sorted run, the chunk extends this run.
        if not runs or chunk[0][0] < highest:
            runs.append(SampleTable(file, len(chunk[0])))
        runs[-1].extend(chunk)
        highest = chunk[-1][0]
    return heapq.merge(*(zip(*run.columns(), strict=True) for run in runs), key=first)
