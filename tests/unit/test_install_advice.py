"""The packages that messages advise to install, compared with the extras in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from llm_energy_measure.constants import EXTRA_PACKAGES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted(path for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md") for path in ROOT.glob(pattern))
DEVELOPERS = {"docs", "dev"}
"""The extras for people who change this package; no message names them."""


def extras() -> dict[str, list[str]]:
    """Return the package names of each extra in pyproject.toml, without versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        extra: [re.split(r"[<>=!~;\[ ]", requirement)[0] for requirement in requirements]
        for extra, requirements in project["optional-dependencies"].items()
    }


def test_advised_packages_are_those_of_the_extras() -> None:
    found = {extra: " ".join(packages) for extra, packages in extras().items() if extra not in DEVELOPERS}
    assert found == EXTRA_PACKAGES


@pytest.mark.parametrize("paths", [SOURCES, PAGES], ids=["messages", "documentation"])
def test_install_advice_names_packages_of_an_extra(paths: list[Path]) -> None:
    """The project is on no package index: a path installs the package, and names install only other packages."""
    known = {package for packages in extras().values() for package in packages} | {"pre-commit"}
    advice = [
        (path.name, arguments)
        for path in paths
        for arguments in re.findall(r"pip\s+install\s+([^`\"\n#]*[^`\"\n# ])", path.read_text(encoding="utf-8"))
    ]
    assert len(advice) >= 9
    for name, arguments in advice:
        is_computed = re.match(r"\{(?:package|EXTRA_PACKAGES\['(\w+)'\])\}", arguments)
        is_path = re.fullmatch(r"[./]\S*", arguments)
        assert is_computed or is_path or set(arguments.split()) <= known, (name, arguments)


def test_no_message_or_page_advises_an_extra_of_this_project() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in (*SOURCES, *PAGES)}
    assert [name for name, text in texts.items() if "llm-energy-measure[" in text] == []
