"""The sources and the documentation have no words that are wrong in every sense (see CONTRIBUTING.md, How to write)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# CONTRIBUTING.md and this file are not searched, because they list these words.
TOPS, ENDS = ("benchmarks", "docs", "examples", "src", "tests"), ("md", "py", "sh", "txt")
PAGES = sorted(
    path
    for pattern in ("README.md", "CHANGELOG.md", "SECURITY.md", *(f"{top}/**/*.{end}" for top in TOPS for end in ENDS))
    for path in ROOT.glob(pattern)
    if path != Path(__file__).resolve()
)
UNCLEAR = re.compile(
    r"\b(nobody|somebody|whoever|whatever|anybody|anew|amiss|thereof|thereby|wherein|beside|in earnest|by itself)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_page_has_no_unclear_word(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [f"{number}: {match[0]}" for number, line in enumerate(lines, 1) for match in UNCLEAR.finditer(line)]
    assert found == [], "write who or what does it; write next to, again, wrong"
