"""The generated parts of the pages are complete, and the tables that are written by hand match the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docs.generated import NOTE, PARTS, PLACEHOLDER, fill
from llm_energy_measure import importers, results
from llm_energy_measure.bundle.outcomes import CODES as BUNDLE_CODES
from llm_energy_measure.catalogue.query import ALIASES
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.importers.mapping import FIELDS
from llm_energy_measure.results import aggregate_results
from llm_energy_measure.results.batch.checking import CODES as FILE_CODES
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, RAW_COLUMNS
from llm_energy_measure.results.strategies import strategy_names
from llm_energy_measure.verification.attribution import RULE
from llm_energy_measure.verification.registry import CHECKS
from tests.support import factories

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXPECTED: dict[str, Iterable[str]] = {
    "aliases": ALIASES,
    "bundle-codes": BUNDLE_CODES,
    "checks": CHECKS,
    "file-findings": FILE_CODES,
    "experiment-columns": [column.name for column in AGGREGATED_COLUMNS],
    "process-columns": [column.name for column in RAW_COLUMNS],
    "import-formats": importers.format_names(),
    "query-columns": COLUMNS.keys() - {column.name for column in AGGREGATED_COLUMNS},
    "reason-codes": importers.CODES,
    "table-fields": FIELDS,
}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("part", PARTS)
def test_generated_part_names_each_entry_of_its_registry(part: str) -> None:
    text = PARTS[part]()
    assert [name for name in EXPECTED[part] if f"`{name}`" not in text] == []


@pytest.mark.parametrize("code", CHECKS)
def test_each_check_has_meaning_rule_and_advice(code: str) -> None:
    check = CHECKS[code]
    for text in (check.meaning, check.rule, check.advice):
        assert text[0].isupper()
        assert text.endswith(".")


def test_each_generated_part_is_on_exactly_one_page() -> None:
    used = [name for path in DOCS.rglob("*.md") for name in PLACEHOLDER.findall(path.read_text(encoding="utf-8"))]
    assert sorted(used) == sorted(PARTS)


def test_source_of_a_page_with_generated_parts_says_how_to_build_it() -> None:
    for path in DOCS.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        is_generated = PLACEHOLDER.search(text) is not None or ".. click::" in text
        assert text.count(NOTE) == is_generated, path
        assert NOTE not in fill(text)


def test_import_formats_are_listed_in_the_order_of_trial() -> None:
    section = fill(page("reference/import-formats.md")).partition("## Formats\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == importers.format_names()
    assert re.findall(r"^### ([a-z-]+)$", section, re.MULTILINE) == importers.format_names()[:-1]


def test_table_of_strategies_lists_the_built_in_ones() -> None:
    assert re.findall(r"^\| `([a-z_]+)`", page("reference/strategies.md"), re.MULTILINE) == strategy_names()


def test_attribution_page_names_the_rule_in_force() -> None:
    assert f"`{RULE}`" in page("explanation/attribution.md")


def test_custom_strategy_of_the_how_to_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page("how-to/add-a-strategy.md").replace("\n   ", "\n")
    [code] = re.findall(r"^```python\n# ([a-z_.]+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    [entry] = re.findall(r'^```toml\n\[project\.entry-points\."(.*?)"\]\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
    (tmp_path / code[0]).write_text(code[1], encoding="utf-8")
    info = tmp_path / "pairs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pairs\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{entry[0]}]\n{entry[1]}".replace('"', ""), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = aggregate_results(factories.EXPERIMENT, factories.raws(4), strategy="pairs_share_tokens")
    assert result.total_tokens == 8192 + 8392
    assert result.total_energy_j == result.plain_energy_j
    assert result.aggregation.method == "pairs_share_tokens"


def test_page_of_the_api_has_each_public_name() -> None:
    text = page("reference/python-api.md")
    modules = (results, importers)
    missing = {f"{module.__name__}.{name}" for module in modules for name in module.__all__ if f".{name}\n" not in text}
    assert missing == {"llm_energy_measure.importers.CODES"}  # the page of import formats lists the codes
