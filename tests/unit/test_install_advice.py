"""The packages that messages advise to install, compared with the extras in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from llm_energy_measure.constants import EXTRA_PACKAGES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def extras() -> dict[str, list[str]]:
    """Return the package names of each extra in pyproject.toml, without versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        extra: [re.split(r"[<>=!~;\[ ]", requirement)[0] for requirement in requirements]
        for extra, requirements in project["optional-dependencies"].items()
    }


def test_advised_packages_are_those_of_the_extras() -> None:
    found = extras()
    assert {extra: packages.split() for extra, packages in EXTRA_PACKAGES.items()} == {
        extra: found[extra] for extra in EXTRA_PACKAGES
    }


def test_every_install_advice_names_packages_of_an_extra() -> None:
    known = {package for packages in extras().values() for package in packages}
    advice = [
        (path.name, arguments)
        for path in SOURCES
        for arguments in re.findall(r"pip install ([^`\"]+)[`\"]", path.read_text(encoding="utf-8"))
    ]
    assert advice
    for name, arguments in advice:
        from_constant = re.match(r"\{(?:package|EXTRA_PACKAGES\['(\w+)'\])\}", arguments)
        assert from_constant or arguments in known, (name, arguments)


def test_no_message_advises_an_extra_of_this_project() -> None:
    assert [path.name for path in SOURCES if "llm-energy-measure[" in path.read_text(encoding="utf-8")] == []
