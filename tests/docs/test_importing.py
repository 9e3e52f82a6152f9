"""`docs/importing.md` names every format, every reason code and every field of a table, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from llm_energy_measure import importers
from llm_energy_measure.importers.mapping import FIELDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "importing.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_format_is_listed_in_the_order_it_is_tried() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", section("Formats"), re.MULTILINE)
    assert listed == importers.format_names()


def test_every_reason_code_is_listed_with_its_meaning() -> None:
    assert dict(re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", section("Reason codes"), re.MULTILINE)) == importers.CODES


def test_every_field_of_a_table_is_listed() -> None:
    fields = PAGE.partition("\nFields: ")[2].partition(".\n")[0]
    assert set(re.findall(r"`([a-z0-9_]+)`", fields)) == set(FIELDS)
