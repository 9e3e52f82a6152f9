"""Keep the catalogue up to date while many experiments are aggregated, so that the next `results list` is fast.

A row is trusted only if its mtimes were older than a tick of the file system's clock when the row was written.
Therefore rows are written some seconds after the aggregates, and the next `results list` reads only the experiments of
the last seconds. After 20,000 new aggregates or more, the catalogue is refreshed at the end. The next `results list`
then compares only the mtimes of the folders `raw`, `aggregated` and `tags`.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from llm_energy_measure.catalogue.paths import is_on_network
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.results.batch.bulk import AggregationOutcome
from llm_energy_measure.results.repository import FileSystemRepository

if TYPE_CHECKING:
    from llm_energy_measure.catalogue.index import Catalogue


# Number of rows that are written together. `results list` reads fewer experiments in less than a second.
_MIN_ROWS = 2_000
# Least time between the outcome of an aggregation and the write of its row: more than a tick of the file system's
# clock. An aggregate is stored before its outcome is yielded.
_MIN_AGE_SEC = 4.0
# Least number of new aggregates for a scan at the end. With fewer new aggregates, the next `results list` compares the
# mtimes of all experiments in less than a second. Users would notice the pause before the scan.
_MIN_SCANNED = 20_000


def keep_catalogue(
    repository: FileSystemRepository,
    outcomes: Iterable[AggregationOutcome],
    *,
    min_rows: int = _MIN_ROWS,
    min_age_sec: float = _MIN_AGE_SEC,
    min_scanned: int = _MIN_SCANNED,
) -> Iterator[AggregationOutcome]:
    """Yield the outcomes, and write the rows of new aggregates into the catalogue.

    Errors of the catalogue are ignored, because the next `results list` reports them and rebuilds the file.

    Args:
        repository: The results directory.
        outcomes: The outcomes of `aggregate_all`.
        min_rows: Number of rows that are written together. With fewer new aggregates, nothing is written.
        min_age_sec: Least age of an outcome when its row is written, in seconds. At the end of the outcomes, all
            remaining rows are written.
        min_scanned: Least number of new aggregates for a scan at the end, which follows a pause of two seconds.
    """
    new_aggregates = 0
    waiting: deque[tuple[float, str]] = deque()
    with _Follower(repository) as follower:
        for outcome in outcomes:
            if outcome.result == "aggregated":
                new_aggregates += 1
                waiting.append((time.monotonic(), repository.folder_of(outcome.experiment_id)))
                if len(waiting) >= min_rows and waiting[min_rows - 1][0] <= time.monotonic() - min_age_sec:
                    follower.update([waiting.popleft()[1] for _ in range(min_rows)])
            yield outcome
        if follower.has_written:
            follower.update([folder for _, folder in waiting])
        if follower.has_written and new_aggregates >= min_scanned:
            follower.scan()


class _Follower(contextlib.ExitStack):
    """Writes rows into the catalogue, which is opened for the first update and closed with this context.

    Attributes:
        has_written: True after a successful update. False before the first update and after an error.
    """

    def __init__(self, repository: FileSystemRepository) -> None:
        super().__init__()
        self.has_written = False
        self._repository = repository
        # On a network file system, rows are trusted only after an hour, because the clock of the server may differ.
        self._is_usable = repository.store.supports_mtime and not is_on_network(repository.base_path)
        self._catalogue: Catalogue | None = None

    def update(self, folders: list[str]) -> None:
        """Write the rows of these experiments. After an error, later calls do nothing."""
        with self._ignored_errors():
            if self._is_usable:
                self._open().update(folders)
                self.has_written = True

    def scan(self) -> None:
        """Wait until the mtimes of the folders are older than a tick (`TICK_SEC`), then refresh the catalogue."""
        from llm_energy_measure.catalogue.index import TICK_SEC

        with self._ignored_errors():
            time.sleep(TICK_SEC + 0.1)
            self._open().refresh()

    @contextlib.contextmanager
    def _ignored_errors(self) -> Iterator[None]:
        # A late import, because few aggregations need SQLite.
        import sqlite3

        try:
            yield
        except (sqlite3.Error, OSError, LLMEnergyMeasureError, TypeError, ValueError):  # a damaged value has any type
            self._is_usable = self.has_written = False

    def _open(self) -> Catalogue:
        from llm_energy_measure.catalogue.index import Catalogue, database_path

        if self._catalogue is None:
            path = database_path(self._repository)
            if path is None:
                raise ValueError("the store of the results is not a directory, so it has no catalogue file")
            catalogue = Catalogue(self._repository, path)
            self._catalogue = self.enter_context(contextlib.closing(catalogue))
            catalogue.require_intact()
        return self._catalogue
