"""Text in Markdown, LaTeX and HTML, with special characters and unprintable characters escaped."""

from __future__ import annotations

import html as _html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from llm_energy_measure.security import UNPRINTABLE

_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")
# In Markdown, `&` begins an entity only in front of a name.
_MARKDOWN = re.compile(r"[\\|*_`<\[#~$]|&(?=\w+;)")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    # The default font of LaTeX prints other characters for `<`, `>` and `|`.
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "\xa0": "~",
    "\xb0": r"$^\circ$",
    "\xb1": r"$\pm$",
    "\xb5": r"$\mu$",
    "\xb7": r"$\cdot$",
    "\xd7": r"$\times$",
    "\xf7": r"$\div$",
    "\u03b1": r"$\alpha$",
    "\u03b2": r"$\beta$",
    "\u03bb": r"$\lambda$",
    "\u03bc": r"$\mu$",
    "\u03c3": r"$\sigma$",
    "\u2192": r"$\to$",
    "\u2212": "$-$",
    "\u2248": r"$\approx$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
}
# pdflatex prints these characters without a package, except the letters of `_UNKNOWN_TO_LATEX`.
_KNOWN_TO_LATEX = re.compile("[ -~\xa1\xa3\xa7\xa9\xae\xb6\xbf-\u017e\u2013\u2014\u2018\u2019\u201c\u201d\u2026]")
_UNKNOWN_TO_LATEX = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲų")


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
    return printable(_MARKDOWN.sub(lambda found: "&lt;" if found[0] == "<" else f"\\{found[0]}", text))


def markdown_table(
    headers: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> Iterator[str]:
    """Yield the lines of a Markdown table. The notes are a list below the table.

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
    yield _latex_row([title for title, _ in headers])
    yield "\\midrule"
    yield from map(_latex_row, rows)
    yield "\\bottomrule"
    yield "\\end{tabular}"
    yield from (f"% {printable(note)}" for note in notes)


def _latex_row(cells: Sequence[str]) -> str:
    row = " & ".join(map(latex, cells))
    # LaTeX reads `*` or `[` at the start of a row as an argument of the preceding `\\` or rule.
    return f"{'{}' if row.lstrip().startswith(('[', '*')) else ''}{row} \\\\"


def latex(text: str) -> str:
    r"""Return text that LaTeX shows unchanged. A character that needs a package becomes an escape, such as `\u4e2d`.

    Example:
        >>> latex("batch_size: 62.6 ± 2.7 µJ"), latex("café 中")
        ('batch\\_size: 62.6 $\\pm$ 2.7 $\\mu$J', 'café \\textbackslash{}u4e2d')
    """
    signs = "".join(map(_latex_sign, unicodedata.normalize("NFC", text)))
    return re.sub("-(?=-)", "-{}", signs)  # LaTeX prints two hyphens as one dash


def _latex_sign(character: str) -> str:
    found = _LATEX.get(character)
    if found is not None:
        return found
    if _KNOWN_TO_LATEX.fullmatch(character) and character not in _UNKNOWN_TO_LATEX:
        return character
    return "".join(_LATEX.get(sign, sign) for sign in character.encode("unicode_escape").decode("ascii"))
