"""What the house asks of its own source: sizes, reasons beside exceptions, three core dependencies."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "llm_energy_measure"
MODULES = sorted(SOURCE.rglob("*.py"))
SCRIPTS = sorted(path for name in ("tests", "examples", "benchmarks") for path in (ROOT / name).rglob("*.py"))

P95_FUNCTION_LINES = 45
MAX_FUNCTION_LINES = 80
MAX_MODULE_LINES = 600

CODE = re.compile(r'"[A-Z]+[0-9]*",')
EXCEPTION_COMMENT = re.compile(
    r"#\s{0,2}(?:noqa(?P<lint>: *[A-Z]+[0-9]+(?:, *[A-Z]+[0-9]+)*)?|type: ignore(?P<types>\[[a-z, -]+\])?)"
    r"(?P<reason>.*)"
)


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def function_lengths() -> dict[str, int]:
    """Lines of each function from its `def` to its end, docstring included, decorators not."""
    lengths = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                lengths[where] = node.end_lineno - node.lineno + 1
    return lengths


def test_no_function_is_over_the_limit() -> None:
    assert {where: lines for where, lines in function_lengths().items() if lines > MAX_FUNCTION_LINES} == {}


def test_functions_are_mostly_short() -> None:
    """The 95th percentile by nearest rank: 19 functions of 20 are no longer than that."""
    lengths = sorted(function_lengths().items(), key=lambda item: item[1])
    assert lengths, f"no functions found under {SOURCE}"
    rank = -(-95 * len(lengths) // 100)
    assert lengths[rank - 1][1] <= P95_FUNCTION_LINES, lengths[rank - 1 :]


def test_no_module_is_over_the_limit() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_bytes().splitlines()) for path in MODULES}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}


def test_each_ruff_ignore_has_its_reason(pyproject: dict[str, Any]) -> None:
    lint = pyproject["tool"]["ruff"]["lint"]
    codes = [*lint["ignore"], *(code for codes in lint["per-file-ignores"].values() for code in codes)]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[tool.ruff.lint]")[2].partition("[tool.ruff.lint.pydocstyle]")[0]
    lines = [line.strip() for line in section.splitlines() if CODE.match(line.strip())]
    assert len(lines) == len(codes), "each code stands on a line of its own"
    assert [line for line in lines if not re.search(r"  # \S+ ?\S+", line)] == []


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_each_lint_or_type_exception_has_its_code_and_reason(path: Path) -> None:
    """The reason stands behind the codes, or on the line above; the first of several like lines has it for all."""
    above = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        found = EXCEPTION_COMMENT.search(line)
        if found:
            codes = found["lint"] or found["types"]
            where = f"{path.relative_to(ROOT)}:{number}: {found[0]}"
            assert codes, f"{where}: name the codes"
            same_as_above = (last := EXCEPTION_COMMENT.search(above)) and codes in (last["lint"], last["types"])
            assert re.search(r"\w", found["reason"]) or above.startswith("# ") or same_as_above, f"{where}: say why"
        above = line.strip()


def test_core_dependencies_are_three(pyproject: dict[str, Any]) -> None:
    """A measuring process on a cluster node has to be able to install us beside anything."""
    requirements = pyproject["project"]["dependencies"]
    names = [re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in requirements]
    assert sorted(names) == ["click", "msgspec", "rich"]
