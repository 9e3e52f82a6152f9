"""`docs/verification.md` has every reason code, and `docs/strategies.md` an example that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llm_energy_measure.results import aggregate_results
from llm_energy_measure.results.strategies import strategy_names
from llm_energy_measure.verification.attribution import RULE
from llm_energy_measure.verification.codes import CODES
from tests.support import factories

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "verification.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `([a-z_]+\.[a-z_]+)`\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_the_page_has_the_codes_of_the_registry_and_no_others() -> None:
    assert list(SECTIONS) == list(CODES)
    assert f"`{RULE}`" in PAGE


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_its_meaning_check_source_example_and_advice(code: str) -> None:
    text = " ".join(SECTIONS[code].split())
    assert text[:1].upper() + text[1:] == text
    assert CODES[code][1:] in text
    for word in ("- Check: ", "- Source: ", "- Example: ", "- What to do: "):
        assert len(text.partition(word)[2]) > 5, word


def test_the_strategies_of_the_table_are_those_that_there_are() -> None:
    page = (DOCS / "strategies.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z_]+)`", page, re.MULTILINE) == strategy_names()


def test_a_strategy_of_one_s_own_is_added_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "strategies.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n# ([a-z_.]+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [entry] = re.findall(r'^```toml\n\[project\.entry-points\."(.*?)"\]\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
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
