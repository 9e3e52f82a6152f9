"""Read the parts of a report: its tables, links, ids, scripts and attributes."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import NamedTuple

_EMPTY = {"meta", "link", "input", "br", "path", "use"}


class PageCell(NamedTuple):
    """The text of a cell and the numbers in its attributes."""

    text: str
    value: float | None
    low: float | None


class Page(HTMLParser):
    """The parts of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[PageCell]]] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.policy = ""
        self.text = ""
        self._table: str | None = None
        self._cell: list[str] | None = None
        self._numbers: list[float | None] = []
        self._raw: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))
        self.links += [str(value) for name, value in attrs if name in ("href", "xlink:href", "src", "srcset", "action")]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(attributes["content"])
        if tag == "table":
            self._table = str(attributes["id"])
            self.tables[self._table] = []
        elif tag == "tr" and self._table is not None:
            self.tables[self._table].append([])
        elif tag in ("td", "th") and self._table is not None:
            self._cell = []
            self._numbers = [
                None if (number := attributes.get(name)) is None else float(number)
                for name in ("data-value", "data-low")
            ]
        elif tag in ("script", "style"):
            self._raw = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = None
        elif tag in ("td", "th") and self._table is not None and self._cell is not None:
            self.tables[self._table][-1].append(PageCell("".join(self._cell), *self._numbers))
            self._cell = None
        elif tag in ("script", "style") and self._raw is not None:
            (self.scripts if tag == "script" else self.styles).append("".join(self._raw))
            self._raw = None

    def handle_data(self, data: str) -> None:
        self.text += data
        for part in (self._cell, self._raw):
            if part is not None:
                part.append(data)

    def rows(self, table: str) -> list[dict[str, PageCell]]:
        """Return the rows of a table as cells by title."""
        titles, *rows = self.tables[table]
        return [dict(zip([title.text for title in titles], row, strict=True)) for row in rows]
