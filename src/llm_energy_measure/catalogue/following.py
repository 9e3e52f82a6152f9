"""Keep the catalogue up to date while many experiments are aggregated, so that the next list is fast.

A row is trusted only if its mtimes are older than a tick of the file system's clock. So rows are written some seconds
after the aggregates, and the next list reads only the experiments of the last seconds. After 20,000 new
aggregates or more, a last scan follows, so that the next list compares only the mtimes of three folders.
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


# Rows that are written together. If fewer experiments changed, a list reads them in less than a second.
_MIN_ROWS = 2_000
# Age of an aggregate whose row is written: more than a tick of the file system's clock, after a batch was stored.
_MIN_AGE_SEC = 4.0
# Number of new aggregates that a last scan follows. Below it, the next list compares the mtimes of all experiments in
# less than a second, and the aggregation takes only seconds, so that the pause before the scan would be noticed.
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

    Errors of the catalogue are ignored, because the next list reports them and rebuilds the file.

    Args:
        repository: The results directory.
        outcomes: The outcomes of `aggregate_all`.
        min_rows: Number of rows that are written together. With fewer new aggregates, nothing is written.
        min_age_sec: Age of the outcomes whose rows are written, in seconds. At the end of the outcomes, all rows are
            written.
        min_scanned: Number of new aggregates that a last scan follows, after a pause of two seconds.
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
    """The catalogue, which is opened for the first update and closed with this context.

    Attributes:
        has_written: Whether an update succeeded.
    """

    def __init__(self, repository: FileSystemRepository) -> None:
        super().__init__()
        self.has_written = False
        self._repository = repository
        # On a network file system, rows are trusted only after an hour, because its clock may differ.
        self._is_usable = repository.store.supports_mtime and not is_on_network(repository.base_path)
        self._catalogue: Catalogue | None = None

    def update(self, folders: list[str]) -> None:
        """Write the rows of these experiments. After an error, do nothing any more."""
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
        # Few aggregations need SQLite.
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
