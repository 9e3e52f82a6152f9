"""Text in Markdown and LaTeX, with special characters escaped."""

from __future__ import annotations

from llm_energy_measure.cli import terminal

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


def markdown(text: str) -> str:
    r"""Return text that Markdown shows unchanged.

    Example:
        >>> markdown("batch_size=8 | x")
        'batch\\_size=8 \\| x'
    """
    for sign in ("\\", "|", "*", "_", "`", "<", "[", "#"):
        text = text.replace(sign, "&lt;" if sign == "<" else "\\" + sign)
    return terminal.escape(text)


def latex(text: str) -> str:
    r"""Return text that LaTeX shows unchanged.

    Example:
        >>> latex("batch_size: 62.6 ± 2.7")
        'batch\\_size: 62.6 $\\pm$ 2.7'
    """
    return "".join(_LATEX.get(character, character) for character in terminal.escape(text))
