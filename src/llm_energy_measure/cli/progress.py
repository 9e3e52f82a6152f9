"""A progress bar on stderr with rate and remaining time. The commands import this module only on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

ItemT = TypeVar("ItemT")

# The bar is hidden while the caller uses items, because output of the caller would appear in the line of the bar. With
# batches of items, the bar is hidden less often.
_BATCH_SEC = 0.2


class _Rate(ProgressColumn):
    """Column of the progress bar with the number of items per second."""

    def render(self, task: Task) -> Text:
        """Return the rate as text. The text is empty before the first measurement."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def with_progress_bar(items: Iterable[ItemT], description: str, total: int) -> Iterator[ItemT]:
    """Yield the items and show a progress bar on stderr. The bar is hidden while the caller uses an item."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    batch: list[ItemT] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total)
        batch_start = time.monotonic()
        for item in items:
            batch.append(item)
            progress.advance(task)
            if time.monotonic() - batch_start >= _BATCH_SEC:
                progress.stop()
                yield from batch
                batch.clear()
                progress.start()
                batch_start = time.monotonic()
    yield from batch
