"""Texts of records as labels: unprintable characters are escaped, and long texts are cut."""

from __future__ import annotations

import re
import textwrap

from llm_energy_measure.security import UNPRINTABLE

MOST_CHARACTERS = 300
"""Greatest length of a text in a report. An experiment id has at most 200 characters."""

_MOST_IN_FIGURE = 36
_MOST_IN_LINE = 44
_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")


def readable(text: object, most: int = MOST_CHARACTERS) -> str:
    r"""Return a text with unprintable characters escaped, for example as `\u202e`, and its middle cut if it is long.

    Example:
        >>> readable("a\u202eb"), readable("abcdefghij", 5)
        ('a\\u202eb', 'ab…ij')
    """
    content = str(text)
    if len(content) > most:
        half = (most - 1) // 2
        content = f"{content[: most - 1 - half]}…{content[len(content) - half :]}"
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), content)


def in_two_lines(text: str) -> str:
    """Return the name of a row for matplotlib, in up to two lines that end between words."""
    words = readable(text, 2 * _MOST_IN_LINE - 6)
    lines = textwrap.wrap(words, _MOST_IN_LINE, break_on_hyphens=False) or [""]
    if len(lines) > 2:  # a long word did not fit into the rest of its line
        lines = [lines[0], readable(" ".join(lines[1:]), _MOST_IN_LINE)]
    return "\n".join(map(_without_formula, lines))


def for_matplotlib(text: str) -> str:
    r"""Return a text as a label that matplotlib shows unchanged.

    Without changes, `$` would begin a formula, and a legend would hide a label that begins with `_`.

    Example:
        >>> for_matplotlib("a$b$")
        'a\\$b\\$'
    """
    return _without_formula(readable(text, _MOST_IN_FIGURE))


def _without_formula(text: str) -> str:
    label = text.replace("$", r"\$")
    return f"\u2009{label}" if label.startswith("_") else label
