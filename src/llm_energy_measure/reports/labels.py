"""Texts of records as labels: unprintable characters are escaped, and long texts are cut."""

from __future__ import annotations

import re

from llm_energy_measure.security import UNPRINTABLE

MOST_CHARACTERS = 300
"""Greatest length of a text in a report. An experiment id has at most 255 characters."""

_MOST_IN_FIGURE = 36
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


def for_matplotlib(text: str) -> str:
    r"""Return a text as a label. A dollar sign would begin a formula, and a label that begins with `_` is hidden.

    Example:
        >>> for_matplotlib("a$b$")
        'a\\$b\\$'
    """
    label = readable(text, _MOST_IN_FIGURE).replace("$", r"\$")
    return f"\u2009{label}" if label.startswith("_") else label
