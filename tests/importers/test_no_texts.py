"""Records hold no prompts, generated texts and keys of servers: the importers drop their fields."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_energy_measure import importers
from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.importers.texts import without_texts
from tests.support import factories

REAL_DATA = os.environ.get("LLM_ENERGY_MEASURE_REAL_DATA")
DATA = Path(__file__).parents[1] / "data"
FOLDERS = [DATA / "benchmarks", DATA / "cases", *([Path(REAL_DATA, "peers")] if REAL_DATA else [])]
SAMPLES = sorted(path for folder in FOLDERS for path in folder.rglob("*.json*"))
TEXT = "Why is the sky SECRET?"
TEXTS = {
    **dict.fromkeys(("prompt", "generated_text", "output_text", "input_text", "completion", "response"), TEXT),
    **{name: [TEXT] for name in ("prompts", "generated_texts", "responses", "outputs", "completions")},
    "messages": [{"role": "user", "content": TEXT}],
}


def with_texts(document: Any) -> Any:
    """Return a document in which each object has texts, next to its own fields."""
    if isinstance(document, list):
        return [with_texts(one) for one in document]
    return {**TEXTS, **document} if isinstance(document, dict) else document


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: "/".join(path.parts[-2:]))
def test_texts_in_a_file_are_not_in_its_records(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    changed = (
        "".join(f"{json.dumps(with_texts(json.loads(line)))}\n" for line in text.splitlines())
        if path.suffix == ".jsonl"
        else json.dumps(with_texts(json.loads(text)))
    )
    copy = tmp_path / path.parent.name / path.name
    copy.parent.mkdir()
    copy.write_text(changed, encoding="utf-8")
    assert "SECRET" in changed
    with contextlib.suppress(ImportFormatError):  # a format with exact fields, or a file that is no measurement
        imported = importers.read(copy)
        for record in imported:
            assert b"SECRET" not in msgspec.json.encode(record)
        assert "SECRET" not in str(imported.report.entries)


def test_texts_are_dropped_at_any_depth_and_numbers_and_labels_are_kept() -> None:
    kept = {"prompts": 13, "output": {"tokens": 512}, "prompt": "long", "model": TEXT}
    record = factories.raw(effective_config={"tool": [{"runs": {**kept, "Answers": [TEXT], "response": TEXT}}]})
    assert without_texts(record).effective_config == {"tool": [{"runs": kept}]}
    unchanged = factories.raw(effective_config=kept)
    assert without_texts(unchanged) is unchanged


def test_labels_of_a_run_table_are_kept() -> None:
    labels = {"output": "long", "content": "math", "question": "q12", "response": "json", "prompt": "short"}
    others = {"prompt_length": 128, "response_format": "json_object", "messages_per_s": 3.5, "dataset_name": "ShareGPT"}
    record = factories.raw(effective_config={**labels, **others, "answer": TEXT, "outputs": [TEXT]})
    assert without_texts(record).effective_config == {**labels, **others}


def test_keys_of_a_server_are_dropped() -> None:
    endpoint = {"url": "localhost:8000", "api_key": "SECRET", "headers": [["Authorization", "Bearer SECRET"]]}
    record = factories.raw(effective_config={"aiperf": {"input_config": {"endpoint": endpoint}}})
    [kept] = without_texts(record).effective_config["aiperf"]["input_config"].values()
    assert kept == {"url": "localhost:8000"}
