"""Output that `bundle create` and `bundle verify` share: progress, long lists, and verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from llm_energy_measure.cli import terminal

MAX_LISTED = 12
"""Maximum number of names in a message. The files of the bundle and the output of --json have all names."""


def with_progress(doing: str) -> Callable[[Iterator[str], int], Iterator[str]]:
    """Return a function that shows a progress bar for two or more items, if stderr is a terminal."""

    def shown(items: Iterator[str], total: int) -> Iterator[str]:
        if not terminal.shows_progress() or total < 2:
            return items
        # Only a command on a terminal needs this import.
        from llm_energy_measure.cli.progress import with_progress_bar

        return with_progress_bar(items, doing, total)

    return shown


def listed(words: Sequence[str], separator: str = ", ") -> str:
    """Return the first `MAX_LISTED` words as one text, with the number of the other words.

    Example:
        >>> listed(["a", "b"])
        'a, b'
    """
    more = f"{separator}and {len(words) - MAX_LISTED:,} more" if len(words) > MAX_LISTED else ""
    return separator.join(words[:MAX_LISTED]) + more


def unclean_text(unclean: Mapping[str, str]) -> str:
    """Return up to `MAX_LISTED` experiments with their verdicts; for more experiments, the number by verdict.

    Example:
        >>> unclean_text({"exp_7": "partial"})
        'exp_7 (partial)'
    """
    if len(unclean) <= MAX_LISTED:
        return ", ".join(f"{folder} ({verdict})" for folder, verdict in sorted(unclean.items()))
    counts = Counter(unclean.values())
    numbers = ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(counts.items()))
    return f"{numbers}; data/verdicts.jsonl names the experiments"
