"""The example notebook runs: each cell in order, as Jupyter runs them, with the view of its last expression."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_cell(source: str, namespace: dict[str, Any]) -> Any:
    """Run the statements of a cell, and return the value of its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)  # noqa: S102 - the code is our example
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)  # noqa: S307 - as above


def test_each_cell_of_the_example_notebook_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(EXAMPLES / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    codes = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, Any] = {}
    runs, means, repeats, comparison, _ = (run_cell(code, namespace) for code in codes)
    assert "5 experiments, 4 complete, 1 pending" in repr(runs)
    assert [round(value, 3) for value in means] == [0.152, 0.057]
    for view in (runs, repeats, comparison):
        assert len(repr(view)) < 200
        assert "<table>" in view._repr_html_()
        assert len(view._repr_html_()) < 5000
    printed = capsys.readouterr().out
    assert printed.startswith("\\begin{tabular}{lrrl}\n\\toprule\nid & batch\\_size & energy [J] & verdict \\\\\n")
    assert printed.rstrip() == (tmp_path / "table.tex").read_text(encoding="utf-8").rstrip()


def test_outputs_are_not_stored_in_the_notebook() -> None:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
