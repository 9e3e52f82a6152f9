"""A browser and the pages that the tests open. Without Playwright or Chromium, all tests are skipped by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.command import run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "results"
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "50 % $x_1$ & \\frac", "{{ 7 * 7 }}")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return Chromium of the system. `make test-browser` installs Playwright, and apt or Google the browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-browser")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed; tried: {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        # Chromium has no sandbox for root, as in a container.
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def report_of(folder: Path, target: Path, *options: str) -> Path:
    """Write the report of a results directory, and return its path."""
    done = run("-o", folder, "results", "report", *options, "--to", target)
    assert done.status == 0, done.err
    return target


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `examples/results`, with a comparison, a range, and enough rows for a filter."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, folder / "results")
    repository = FileSystemRepository(folder / "results")
    for record in factories.raws(2, "wide", world_size=2):
        repository.save_raw("wide", record)
    assert {one.result for one in aggregate_all(repository, strict=False)} == {"aggregated"}
    key = "config.batching_options.batch_size"
    sides = ("--compare", f"{key} = 1", f"{key} = 4")
    return report_of(folder / "results", folder / "report.html", *sides)


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of experiments with hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    repository = FileSystemRepository(folder / "results")
    for number, text in enumerate(HOSTILE):
        name = f"exp {number} {text}"
        record = factories.raw(name, 0, model_name=text, host=text, backend=text, effective_config={text: text})
        repository.save_raw(name, record)
    assert {one.result for one in aggregate_all(repository)} == {"aggregated"}
    return report_of(folder / "results", folder / "report.html")
