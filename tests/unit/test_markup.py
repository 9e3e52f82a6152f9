"""Text in LaTeX and Markdown: special characters, and tables that compile."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from llm_energy_measure import load
from llm_energy_measure.analysis.documents import ENERGY, document_of
from llm_energy_measure.analysis.markup import latex, latex_table, markdown
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.exporters import Table
from llm_energy_measure.results.store.tags import change_tags
from tests.support import factories
from tests.support.command import run

HOSTILE = (
    "_ % & # $ ~ ^ \\ { } | < > \" ' ` -- --- ?` [1] *x µ ± é ł ą ß 中 \u03b1 Ω → \u202eabc\x1b[1m é \U0001f600 \xa0."
)

needs_pdflatex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def compiled(folder: Path, body: str) -> str:
    """Return the text of the log after a document with this body has compiled without an error."""
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + body + "\n\\end{document}\n"
    (folder / "document.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-draftmode", "document.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-3000:]
    return log


@needs_pdflatex
def test_tables_of_hostile_text_compile(tmp_path: Path) -> None:
    letters = [character for number in range(0x20, 0x250) if unicodedata.category(character := chr(number)) != "Cn"]
    rows = [[HOSTILE, "* 9.19"], ["* 1", "[x]"], ["[2pt]", HOSTILE], ["", ""], *([sign, sign] for sign in letters)]
    headers = [("[title] " + HOSTILE, "left"), ("* energy [µJ]", "right")]
    table = list(latex_table(headers, rows, [HOSTILE, "≤ a note"]))
    # One page has about 40 rows, and a longer table is only a warning.
    assert "Missing character" not in compiled(tmp_path, "\n".join(table))


def test_row_keeps_star_and_bracket_that_a_line_end_would_take() -> None:
    table = list(latex_table([("[a]", "left")], [["* 9.19 J"], ["[2pt]"], [" *"], ["x*"]]))
    assert table[2:9] == [
        "{}[a] \\\\",
        "\\midrule",
        "{}* 9.19 J \\\\",
        "{}[2pt] \\\\",
        "{} * \\\\",
        "x* \\\\",
        "\\bottomrule",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("--lr", "-{}-lr"),
        ("a---b", "a-{}-{}-b"),
        ("e\u0301", "é"),
        ("ą", "\\textbackslash{}u0105"),
        ("\u202e", "\\textbackslash{}u202e"),
        ("a|b", "a$|$b"),
        ("x\n\ny", "x\\textbackslash{}n\\textbackslash{}ny"),
    ],
)
def test_latex_shows_text_unchanged_or_as_escape(text: str, wanted: str) -> None:
    assert latex(text) == wanted


def test_markdown_escapes_entities_formulas_and_strikethrough() -> None:
    assert markdown("&lt; ~~a~~ $x$") == "\\&lt; \\~\\~a\\~\\~ \\$x\\$"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return two configurations of two repeats, with hostile text in each place that a user can choose."""
    repository = FileSystemRepository(tmp_path / "results")
    for number in range(4):
        record = factories.raw(
            f"exp_{number}",
            model_name=f"model {HOSTILE}",
            config_name=HOSTILE,
            gpu_name="GPU_0 100% \u202e",
            effective_config={"batch_size": 1 + number // 2, HOSTILE: HOSTILE, f"other.{HOSTILE}": number // 2},
            timestamps=factories.timestamps(factories.START.replace(hour=number)),
        )
        repository.save_raw(f"exp_{number}", record)
        change_tags(repository.store, f"exp_{number}", {"paper": HOSTILE.replace("\x1b", "")})
    assert len(list(aggregate_all(repository, strict=False))) == 4
    return tmp_path / "results"


@needs_pdflatex
def test_written_latex_tables_compile(hostile: Path, tmp_path: Path) -> None:
    exported, repeated, chosen = (tmp_path / name for name in ("export.tex", "repeats.tex", "chosen.tex"))
    columns = "energy,id,model,config_name,gpus,config.batch_size,tag.paper"
    commands = (
        ("export", "--aggregate", "--to", exported),
        ("export", "--to", chosen, "--columns", columns),
        ("repeats", "--to", repeated),
        ("compare", "--by", "config.batch_size", "--base", "1", "--to", tmp_path / "compare.tex"),
    )
    for command in commands:
        done = run("-o", hostile, "results", *command)
        assert done.status == 0, done.err
    load(hostile).to_latex(tmp_path / "python.tex", unit="mJ")
    body = "\n\n".join(f"\\input{{{path.name}}}" for path in sorted(tmp_path.glob("*.tex")))
    assert len(re.findall("input", body)) == 5
    compiled(tmp_path, body)


def test_note_of_a_lower_bound_is_kept_next_to_another_sign() -> None:
    """The cell `* ≥ 9.19 kJ` has two signs."""
    summary = ExperimentSummary(
        experiment_id="a",
        status="current",
        verdict="partial",
        attributed_energy_j=9190.0,
        attribution_factor=2.0,
        is_lower_bound=True,
    )
    document = document_of(Table(names=[ENERGY], rows=[(9190.0,)]), [summary])
    assert document.rows == [["* ≥ 9.19"]]
    assert [note[0] for note in document.notes] == ["*", "≥"]
