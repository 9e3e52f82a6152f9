"""Write a report as one HTML page: no network, no server, a strict content security policy, readable without CSS."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from llm_energy_measure.reports.document import Report
from llm_energy_measure.reports.drawing import missing
from llm_energy_measure.reports.images import page_svg
from llm_energy_measure.reports.labels import readable
from llm_energy_measure.reports.plots import data_table, thinned

_TEMPLATE, _STYLE, _SCRIPT = "report.html.jinja", "report.css", "report.js"
_MOST_TEXT = 4_000


def encode_report(report: Report) -> bytes:
    """Return a report as HTML. Equal reports give equal bytes.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    try:
        from jinja2 import BaseLoader, Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise missing("jinja2") from error
    style, script = _text(_STYLE), _text(_SCRIPT)
    environment = Environment(
        loader=BaseLoader(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else readable(value, _MOST_TEXT),
    )
    environment.filters["svg"] = lambda plot: Markup(page_svg(plot))  # noqa: S704 - matplotlib escaped the names
    environment.filters["short"] = readable
    environment.filters["data"] = data_table
    environment.filters["thinned"] = thinned
    page = environment.from_string(_text(_TEMPLATE)).render(
        report=report,
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - a file of this package
        policy=content_policy(style, script),
    )
    return page.encode()


def content_policy(style: str, script: str) -> str:
    """Return the content security policy of a page with one style and one script: nothing else is loaded or run."""
    sources = {"style-src": _digest(style), "script-src": _digest(script)}
    found = "; ".join(f"{name} '{digest}'" for name, digest in sources.items())
    return f"default-src 'none'; {found}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _text(name: str) -> str:
    return (resources.files("llm_energy_measure.reports") / "templates" / name).read_text(encoding="utf-8")
