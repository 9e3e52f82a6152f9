"""CONTRIBUTING.md and the files around it name paths, make targets and a version that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llm_energy_measure

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "llm_energy_measure"
PAGES = ("CONTRIBUTING.md", "SECURITY.md")
CODE = re.compile(r"`([^`\n]+)`")


def codes(page: str) -> list[str]:
    return CODE.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_each_named_path_exists(page: str) -> None:
    paths = [code for code in codes(page) if re.fullmatch(r"[\w.-]+(/[\w.-]*)+|[A-Z]+\.md", code)]
    assert len(paths) > 0
    assert [path for path in paths if not (ROOT / path).exists() and not (PACKAGE / path).exists()] == []


def test_each_named_make_target_exists() -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [*PAGES, ".pre-commit-config.yaml", ".github/workflows/test.yml", "README.md"]
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"(?:^|`|entry: |run: )make ((?!\s)[a-z-]+)", text, re.MULTILINE))
    assert {"test", "lint"} <= named
    assert named <= targets


@pytest.mark.parametrize("page", sorted(PACKAGE.glob("*/README.md")), ids=lambda page: page.parent.name)
def test_readme_of_package_lists_its_modules(page: Path) -> None:
    rows = "\n".join(re.findall(r"^\| .*", page.read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`(\w+(?:\.py|/))`", rows))
    modules = {path.name for path in page.parent.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.name}/" for path in page.parent.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert named == modules | folders, f"list each module in the table of {page.relative_to(ROOT)}"


def test_workflow_tests_each_supported_python() -> None:
    versions = re.findall(r"Python :: (3\.[0-9]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    [matrix] = re.findall(r"python: \[(.*)\]", workflow)
    assert re.findall(r'"(.*?)"', matrix) == versions


def test_citation_has_the_version_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [llm_energy_measure.__version__]
