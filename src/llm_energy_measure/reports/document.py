"""The parts of a report, as plain values. `html.py` writes these values as a page."""

from __future__ import annotations

from msgspec import Struct

from llm_energy_measure.reports.plots import Plot
from llm_energy_measure.reports.tables import Table


class Field(Struct, frozen=True):
    """A name and its value."""

    name: str
    value: str


class Details(Struct, frozen=True, kw_only=True):
    """A part of a report that is hidden until the reader opens it.

    Attributes:
        anchor: Id in the document.
        title: Title. The page shows `verdict` after the title.
        verdict: Verdict on the experiment.
        fields: Facts.
        tables: Tables.
        sentences: Findings and problems.
    """

    anchor: str
    title: str
    verdict: str
    fields: list[Field] = []
    tables: list[Table] = []
    sentences: list[str] = []


class Section(Struct, frozen=True, kw_only=True):
    """A section of a report.

    Attributes:
        name: Id in the document.
        title: Title.
        paragraphs: Sentences.
        fields: Facts.
        plots: Figures.
        tables: Tables.
        commands: Command lines.
        details: Parts that are hidden until the reader opens them.
    """

    name: str
    title: str
    paragraphs: list[str] = []
    fields: list[Field] = []
    plots: list[Plot] = []
    tables: list[Table] = []
    commands: list[str] = []
    details: list[Details] = []


class Report(Struct, frozen=True, kw_only=True):
    """A report."""

    title: str
    sections: list[Section]
