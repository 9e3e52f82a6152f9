"""The project's texts contain no word that its writing rules forbid in every sense."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# CONTRIBUTING.md is not searched, because it lists the forbidden words.
PATTERNS = ("README.md", "CHANGELOG.md", "SECURITY.md", "docs/**/*", "examples/**/*", "src/**/*")
FORBIDDEN = re.compile(
    r"\b(nobody|somebody|whoever|whatever|anybody|anew|amiss|thereof|in\s+earnest|beside)\b", re.IGNORECASE
)


def line_number(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def test_texts_contain_no_forbidden_word() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line_number(text, match.start())}: {match[0]}"
        for pattern in PATTERNS
        for path in sorted(ROOT.glob(pattern))
        if path.suffix in {".md", ".py", ".sh", ".txt"}
        for text in [path.read_text(encoding="utf-8")]
        for match in FORBIDDEN.finditer(text)
    ]
    assert found == []
