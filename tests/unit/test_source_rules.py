"""Rules for the source: sizes, names of tests, a reason for each lint exception, three core dependencies."""

from __future__ import annotations

import ast
import functools
import re
import sys
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
MAX_TEST_MODULE_LINES = 650
MAX_TEST_NAME = 70
MAX_RESULTS_ENTRIES = 10

DECODED_WITHOUT_RECORDS = {"dict[str, msgspec.Raw]", "list[msgspec.Raw]"}

CODE = re.compile(r'"[A-Z]+[0-9]*",')
EXCEPTION_COMMENT = re.compile(
    r"#\s{0,2}(?:noqa(?P<lint>: *[A-Z]+[0-9]+(?:, *[A-Z]+[0-9]+)*)?|type: ignore(?P<types>\[[a-z, -]+\])?)"
    r"(?P<reason>.*)"
)


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@functools.cache
def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the functions of a file."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def classes(path: Path) -> list[ast.ClassDef]:
    """Return the classes of a file."""
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef)]


def assigned_names(node: ast.ClassDef) -> set[str]:
    """Return the names that the body of a class assigns."""
    targets = [target for line in node.body if isinstance(line, ast.Assign) for target in line.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def function_lengths() -> dict[str, int]:
    """Return the lines of each function from `def` to its end, with the docstring and without decorators."""
    lengths = {}
    for path in MODULES:
        for node in functions(path):
            assert node.end_lineno is not None
            where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            lengths[where] = node.end_lineno - node.lineno + 1
    return lengths


def test_no_function_is_longer_than_the_limit() -> None:
    assert {where: lines for where, lines in function_lengths().items() if lines > MAX_FUNCTION_LINES} == {}


def test_most_functions_are_short() -> None:
    """The 95th percentile by nearest rank: 19 of 20 functions have at most this many lines."""
    lengths = sorted(function_lengths().items(), key=lambda item: item[1])
    assert lengths, f"no functions found under {SOURCE}"
    rank = -(-95 * len(lengths) // 100)
    assert lengths[rank - 1][1] <= P95_FUNCTION_LINES, lengths[rank - 1 :]


@pytest.mark.parametrize(("paths", "limit"), [(MODULES, MAX_MODULE_LINES), (SCRIPTS, MAX_TEST_MODULE_LINES)])
def test_no_module_is_longer_than_the_limit(paths: list[Path], limit: int) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_bytes().splitlines()) for path in paths}
    assert {path: lines for path, lines in lengths.items() if lines > limit} == {}


def test_source_checks_capabilities_and_no_class_of_a_store() -> None:
    """`isinstance` and `type` would exclude stores of other packages, which have the same capabilities."""
    stores = {node.name for path in MODULES for node in classes(path) if "supports_paths" in assigned_names(node)}
    assert {"LocalStore", "MemoryStore", "ObjectStore"} <= stores
    names = "|".join(stores)
    pattern = re.compile(rf"is(instance|subclass)\(.*\b({names})\b|\btype\(.*\b({names})\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in MODULES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == [], "check a flag of the `Store` protocol, such as `supports_paths`"


def test_decoders_of_records_are_created_at_import() -> None:
    """msgspec can crash if several threads use a class of records first at the same time."""
    found = []
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner = {id(node) for function in functions(path) for node in ast.walk(function)}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            types = [ast.unparse(one.value) for one in call.keywords if one.arg == "type"]
            if name.endswith("json.decode") and not set(types) <= DECODED_WITHOUT_RECORDS:
                found.append(f"{path.name}:{call.lineno} decodes {types[0]}")
            if name.endswith("json.Decoder") and id(call) in inner:
                found.append(f"{path.name}:{call.lineno} creates a decoder in a function")
    assert found == []


def test_results_package_has_few_entries() -> None:
    """The package `results` stores and aggregates. Code that only formats text is in a layer above."""
    entries = sorted(path.name for path in (SOURCE / "results").iterdir() if path.name != "__pycache__")
    assert len(entries) <= MAX_RESULTS_ENTRIES, entries


def test_names_of_tests_are_short() -> None:
    long_names = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in SCRIPTS
        for node in functions(path)
        if node.name.startswith("test_") and len(node.name) > MAX_TEST_NAME
    ]
    assert long_names == [], f"name the behaviour in at most {MAX_TEST_NAME} characters"


def test_each_ruff_ignore_has_its_reason(pyproject: dict[str, Any]) -> None:
    lint = pyproject["tool"]["ruff"]["lint"]
    codes = [*lint["ignore"], *(code for codes in lint["per-file-ignores"].values() for code in codes)]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[tool.ruff.lint]")[2].partition("[tool.ruff.lint.pydocstyle]")[0]
    lines = [line.strip() for line in section.splitlines() if CODE.match(line.strip())]
    assert len(lines) == len(codes), "write each code on a separate line"
    assert [line for line in lines if not re.search(r"  # \S+ ?\S+", line)] == []


def test_tests_patch_only_the_standard_library() -> None:
    """A test of our own modules passes arguments instead: a clock, a store, a limit."""
    patched = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SCRIPTS
        for name in re.findall(r"monkeypatch\.setattr\(\s*\"?(\w+)", path.read_text(encoding="utf-8"))
        if name not in sys.stdlib_module_names
    ]
    assert patched == []


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_each_lint_or_type_exception_has_its_code_and_reason(path: Path) -> None:
    """The reason follows the codes, or is on the line above. Adjacent lines with the same codes need one reason."""
    above = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        found = EXCEPTION_COMMENT.search(line)
        if found:
            codes = found["lint"] or found["types"]
            where = f"{path.relative_to(ROOT)}:{number}: {found[0]}"
            assert codes, f"{where}: write the codes"
            same_as_above = (last := EXCEPTION_COMMENT.search(above)) and codes in (last["lint"], last["types"])
            assert re.search(r"\w", found["reason"]) or above.startswith("# ") or same_as_above, (
                f"{where}: write the reason"
            )
        above = line.strip()


def test_core_dependencies_are_three(pyproject: dict[str, Any]) -> None:
    """Users install the package next to any other package, in the environment of the measured process."""
    requirements = pyproject["project"]["dependencies"]
    names = [re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in requirements]
    assert sorted(names) == ["click", "msgspec", "rich"]
