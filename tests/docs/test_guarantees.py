"""`docs/explanation/guarantees.md` names a test for each promise, and each of these tests exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "guarantees.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[a-z_/]+\.py)::(\w+)`", PAGE)))


def names_in(path: Path) -> set[str]:
    """Functions of a test file, and the names of its state machines."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    assert name in names_in(ROOT / file)


def test_every_promise_names_its_test() -> None:
    promises = PAGE.partition("## Promises")[2].partition("## File systems")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and line != "| promise | test |"]
    assert len(rows) > 20
    assert [row for row in rows if "`tests/" not in row] == []
