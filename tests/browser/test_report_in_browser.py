"""The report in a real browser: closed to the network, accessible, and usable with and without JavaScript."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.reports.images import page_svg
from llm_energy_measure.reports.plots import Axis, Mark, Panel, Plot, Series
from tests.browser.conftest import HOSTILE

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


class Opened:
    """A page, and what it requested and reported."""

    def __init__(self, context: Any, path: Path) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.dialogs: list[str] = []
        self.page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.goto(path.as_uri())

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Any]:
    """Return the report on a wide screen."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Opened(context, report).page
    context.close()


def names_of(page: Any, table: str = "experiments-table") -> list[str]:
    """Return the first cells of the visible rows of a table."""
    cells: list[str] = page.locator(f"#{table} tbody tr:not([hidden]) th").all_inner_texts()
    return cells


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_page_requests_nothing_and_reports_no_error(browser: Any, report: Path, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    found = Opened(context, report)
    assert found.requests == [report.as_uri()]
    assert found.messages == []
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_violation(browser: Any, report: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make test-browser")
    # axe itself is a script that the policy of the page forbids.
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = Opened(context, report).page
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    context.close()
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []


def test_a_click_sorts_numbers_by_value(opened: Any) -> None:
    button = opened.locator("#experiments-table thead button", has_text="J/output token")
    button.click()
    assert names_of(opened)[:2] == ["smollm2_b4_c0", "smollm2_b4_c1"]
    assert opened.locator("#experiments-table th[aria-sort=ascending]").inner_text().startswith("J/output token")
    button.click()
    assert names_of(opened)[0] == "wide"
    assert opened.locator("#experiments-table th[aria-sort=descending]").count() == 1


def test_the_keyboard_sorts_and_filters(opened: Any) -> None:
    button = opened.locator("#experiments-table thead button", has_text="verdict")
    button.focus()
    opened.keyboard.press("Enter")
    assert names_of(opened)[-1] == "wide"
    opened.get_by_label("Filter rows:").first.focus()
    box = opened.locator("#experiments-table-filter")
    box.focus()
    opened.keyboard.type("B1 Partial")
    assert names_of(opened) == ["smollm2_b1_crash"]
    assert opened.locator("output", has_text="1 of 6 rows").count() == 1


def test_page_is_readable_without_javascript(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert len(names_of(page)) == 6
    assert page.locator("#experiments-table td", has_text="222.7 J").first.is_visible()
    assert page.locator("svg").first.is_visible()
    assert page.locator("thead button").count() == 0
    part = page.locator("#per-output-token details")
    part.locator("summary").click()
    assert part.locator("table").is_visible()
    context.close()


def test_page_is_readable_without_its_style(browser: Any, report: Path, tmp_path: Path) -> None:
    """Another policy, as that of Jenkins, can block the style and the script of the page."""
    text = report.read_text(encoding="utf-8")
    begin, end = text.index("<style>"), text.index("</style>") + len("</style>")
    plain = tmp_path / "plain.html"
    plain.write_text(text[:begin] + text[end:], encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(plain.as_uri())
    assert len(names_of(page)) == 6
    assert page.locator("svg").first.bounding_box()["width"] > 300
    context.close()


def test_hostile_names_are_text(browser: Any, hostile_report: Path) -> None:
    context = browser.new_context()
    found = Opened(context, hostile_report)
    shown = found.page.locator("main").inner_text()
    for text in HOSTILE:
        assert text in shown
    assert found.page.locator("main script, main img").count() == 0
    assert (found.requests, found.messages, found.dialogs) == ([hostile_report.as_uri()], [], [])
    context.close()


def test_a_point_leads_to_its_row_and_a_row_to_its_details(opened: Any) -> None:
    opened.locator("#trade-off svg a").first.click()
    assert opened.evaluate("document.querySelector('tr:target th').innerText").startswith("smollm2_b")
    opened.locator("#experiments-table tbody th a", has_text="smollm2_b1_crash").click()
    assert opened.locator("details:target").get_attribute("open") is not None
    assert opened.locator("details:target li", has_text="missing process 2").first.is_visible()


def test_text_of_figures_follows_the_theme(browser: Any, report: Path) -> None:
    colours = []
    for scheme in SCHEMES:
        context = browser.new_context(color_scheme=scheme)
        page = Opened(context, report).page
        fill = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
        assert fill == page.evaluate("getComputedStyle(document.body).color")
        colours.append(fill)
        context.close()
    assert colours[0] != colours[1]


def test_print_shows_everything_without_navigation(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert not opened.locator("nav").is_visible()
    assert opened.locator("#experiments-table").is_visible()
    assert opened.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("kind", ["bars", "line", "points", "stacked", "rows"])
def test_figures_have_their_colours_under_a_strict_policy(browser: Any, tmp_path: Path, kind: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    marks = [Mark(x=float(number), y=3.0 + number, y_low=2.0, y_high=5.0 + number) for number in range(4)]
    series = [Series(name=name, marks=marks) for name in ("GPU", "CPU")]
    plot = Plot(
        name="f",
        title="t",
        description="d",
        kind=kind,
        x=Axis(label="x", categories=list("abcd")),
        y=Axis(label="y", unit="J"),
        panels=[Panel(series=series)],
    )
    policy = "default-src 'none'; style-src 'none'"
    path = tmp_path / "figure.html"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}"><title>t</title>'
    path.write_text(f"<!DOCTYPE html>{head}{page_svg(plot)}", encoding="utf-8")
    context = browser.new_context(viewport={"width": 900, "height": 700})
    found = Opened(context, path)
    with image.open(io.BytesIO(found.page.screenshot())) as screen:
        pixels = screen.convert("RGB")
        counts = {colour: number for number, colour in pixels.getcolors(maxcolors=1_000_000)}
    context.close()
    assert found.messages == []
    assert counts.get(ORANGE, 0) > 50
    assert kind == "rows" or counts.get(BLUE, 0) > 20
    assert counts.get((0, 0, 0), 0) < sum(counts.values()) / 100
