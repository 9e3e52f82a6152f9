"""Text in Markdown, LaTeX and HTML, with special characters and unprintable characters escaped."""

from __future__ import annotations

import html as _html
import re
from collections.abc import Iterable, Iterator, Sequence

from llm_energy_measure.security import UNPRINTABLE

_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "µ": r"\textmu{}",
    "<": r"$<$",
    ">": r"$>$",
}


def printable(text: str) -> str:
    r"""Return text with unprintable characters written as escapes, for example `\x1b`."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def html(text: str) -> str:
    """Return text that HTML shows unchanged, also in an attribute in quotes.

    Example:
        >>> html("<b>")
        '&lt;b&gt;'
    """
    return _html.escape(printable(text))


def markdown(text: str) -> str:
    r"""Return text that Markdown shows unchanged.

    Example:
        >>> markdown("batch_size=8 | x")
        'batch\\_size=8 \\| x'
    """
    for sign in ("\\", "|", "*", "_", "`", "<", "[", "#"):
        text = text.replace(sign, "&lt;" if sign == "<" else "\\" + sign)
    return printable(text)


def markdown_table(
    headers: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> Iterator[str]:
    """Yield the lines of a Markdown table. The notes are a list below it.

    Args:
        headers: Title and alignment (`left` or `right`) of each column.
        rows: Cells.
        notes: Sentences.
    """
    yield f"| {' | '.join(markdown(title) for title, _ in headers)} |"
    yield f"|{'|'.join(' ---: ' if alignment == 'right' else ' --- ' for _, alignment in headers)}|"
    for row in rows:
        yield f"| {' | '.join(map(markdown, row))} |"
    yield ""
    yield from (f"- {markdown(note)}" for note in notes)


def latex_table(
    headers: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> Iterator[str]:
    """Yield the lines of a LaTeX table for the package booktabs. The notes are comments; see `markdown_table`."""
    alignments = "".join("r" if alignment == "right" else "l" for _, alignment in headers)
    yield f"\\begin{{tabular}}{{{alignments}}}"
    yield "\\toprule"
    yield f"{' & '.join(latex(title) for title, _ in headers)} \\\\"
    yield "\\midrule"
    for row in rows:
        cells = " & ".join(map(latex, row))
        # A bracket after a line end would be the argument of the line end.
        yield f"{'{}' if cells.startswith('[') else ''}{cells} \\\\"
    yield "\\bottomrule"
    yield "\\end{tabular}"
    yield from (f"% {printable(note)}" for note in notes)


def latex(text: str) -> str:
    r"""Return text that LaTeX shows unchanged.

    Example:
        >>> latex("batch_size: 62.6 ± 2.7")
        'batch\\_size: 62.6 $\\pm$ 2.7'
    """
    return "".join(_LATEX.get(character, character) for character in printable(text))
