"""What `bundle create` and `bundle verify` print in the same way: progress, long lists, and verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from llm_energy_measure.cli import terminal

MAX_LISTED = 12
"""Number of names in a message. The files of the bundle and --json have all names."""


def with_progress(doing: str) -> Callable[[Iterator[str], int], Iterator[str]]:
    """Return a function that shows a progress bar over items, if stderr is a terminal and there are several."""

    def shown(items: Iterator[str], total: int) -> Iterator[str]:
        if not terminal.shows_progress() or total < 2:
            return items
        # Only a command on a terminal needs this import.
        from llm_energy_measure.cli.progress import with_progress_bar

        return with_progress_bar(items, doing, total)

    return shown


def listed(words: Sequence[str], separator: str = ", ") -> str:
    """Return words as one text; if there are many words, only the first words.

    Example:
        >>> listed(["a", "b"])
        'a, b'
    """
    more = f"{separator}and {len(words) - MAX_LISTED:,} more" if len(words) > MAX_LISTED else ""
    return separator.join(words[:MAX_LISTED]) + more


def unclean_text(unclean: Mapping[str, str]) -> str:
    """Return the experiments with their verdicts; if there are many, the number of each verdict.

    Example:
        >>> unclean_text({"exp_7": "partial"})
        'exp_7 (partial)'
    """
    if len(unclean) <= MAX_LISTED:
        return ", ".join(f"{folder} ({verdict})" for folder, verdict in sorted(unclean.items()))
    counts = Counter(unclean.values())
    numbers = ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(counts.items()))
    return f"{numbers}; data/verdicts.jsonl names the experiments"
