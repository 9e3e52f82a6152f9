"""A bar on stderr with rate and remaining time. Imported only where a person sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Task

ItemT = TypeVar("ItemT")

# The bar has to go while something is said, or both would stand in one line. Once a few times a second is enough.
_HOLD_SEC = 0.2


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """The rate, once there is one."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def with_bar(items: Iterable[ItemT], doing: str, total: int) -> Iterator[ItemT]:
    """The items, with a bar on stderr that is out of the way while they are used.

    Args:
        items: What to pass on.
        doing: What is being done.
        total: How many there will be.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    held: list[ItemT] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total)
        since = time.monotonic()
        for item in items:
            held.append(item)
            progress.advance(task)
            if time.monotonic() - since >= _HOLD_SEC:
                progress.stop()
                yield from held
                held.clear()
                progress.start()
                since = time.monotonic()
    yield from held
