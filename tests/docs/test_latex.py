"""The LaTeX document of the documentation compiles with the tables that the commands of the documentation write."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.command import run

ROOT = Path(__file__).resolve().parents[2]


def command_of(page: str) -> list[str]:
    """Return the command of a page that writes paper.tex."""
    match = re.search(r"^\$ llm-energy-measure (.* --to paper\.tex.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert match
    return shlex.split(match[1])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_document_of_the_docs_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples" / "results", tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "how-to" / "export-a-table.md").read_text("utf-8")
    [document] = re.findall(r"^```latex\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    Path("article.tex").write_text(document, encoding="utf-8")
    assert run("-q", "-o", "demo", "aggregate", "--all", "--no-strict").status == 0
    for words in (command_of("README.md"), command_of("docs/how-to/export-a-table.md")):
        assert run(*words).status == 0
        command = ["pdflatex", "-interaction=nonstopmode", "article.tex"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-3000:]
        assert Path("article.pdf").stat().st_size > 1000
