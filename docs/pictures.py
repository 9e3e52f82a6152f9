"""Make the pictures of the documentation from `examples/results`: `make pictures`. It needs Playwright and Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    """Write `report.png`, the upper part of a report, and `figure.svg`, one figure."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        results, report = Path(folder) / "results", Path(folder) / "report.html"
        shutil.copytree(ROOT / "examples" / "results", results)

        def run(*arguments: str) -> None:
            command = [sys.executable, "-m", "llm_energy_measure", "-o", str(results), *arguments]
            subprocess.run(command, check=True)

        run("aggregate", "--all", "--no-strict", "-q")
        run("results", "report", "--by", "config.batch_size", "--base", "1", "--to", str(report))
        run("results", "plot", "--x", "config.batch_size", "--kind", "bars", "--to", str(PICTURES / "figure.svg"))
        take_picture(report, PICTURES / "report.png")


def take_picture(page_path: Path, target: Path) -> None:
    """Write a picture of the upper part of a page."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit(f"pictures: no browser is installed; tried: {', '.join(BROWSERS)}")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 845})
        page.goto(page_path.as_uri())
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    main()
