"""The bundle in `examples/` can be made again with the same bytes, and the documentation has its digest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.checking import verify_bundle

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "smollm2_b1.zip"
PAGE = ROOT / "docs" / "how-to" / "check-a-papers-results.md"


def test_page_has_the_digest_of_the_example() -> None:
    digests = set(re.findall(r"sha256:([0-9a-f]{64})", PAGE.read_text(encoding="utf-8")))
    with opened(EXAMPLE) as source:
        found = verify_bundle(source, expect=next(iter(digests)))
    assert found.problems == [], "if the checks have changed, run 'make bundle-example'"
    assert (found.outcome, digests) == ("expected", {found.digest})


def test_script_makes_the_same_bytes_again(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("LLM_ENERGY_MEASURE_RESULTS_DIR", None)
    copies = [tmp_path / "first.zip", tmp_path / "second.zip"]
    for copy in copies:
        command = ["/bin/bash", str(ROOT / "examples" / "bundle.sh"), str(copy)]
        subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True)
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert copies[0].read_bytes() == EXAMPLE.read_bytes(), "if the checks have changed, run 'make bundle-example'"


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_front_pages_name_the_two_pages(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "how-to/publish-results-with-a-paper" in text
    assert "how-to/check-a-papers-results" in text
