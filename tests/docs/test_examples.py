"""Every example in the README files and in docstrings is run, in a folder that holds a copy of `examples/results`."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import llm_energy_measure
from llm_energy_measure.cli.main import cli, results

ROOT = Path(__file__).resolve().parents[2]
PYTHON_PAGES = [
    "README.md",
    "docs/verification.md",
    "docs/recording.md",
    "docs/importing.md",
    *(f"src/llm_energy_measure/{folder}/README.md" for folder in ("catalogue", "domain", "results")),
]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(llm_energy_measure.__path__, "llm_energy_measure.")
    if not module.name.endswith("__main__")
)


@pytest.fixture
def tour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "examples" / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_ENERGY_MEASURE_RESULTS_DIR", raising=False)
    return tmp_path


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def matches(expected: str, got: str) -> bool:
    """As doctest compares: `...` stands for anything; trailing blanks don't count."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n"

    return doctest.OutputChecker().check_output(tidy(expected), tidy(got), doctest.ELLIPSIS)


@pytest.mark.parametrize("page", PYTHON_PAGES)
@pytest.mark.usefixtures("tour")
def test_python_examples_print_what_their_comments_say(page: str) -> None:
    code = "\n".join(blocks(page, "python"))
    assert code
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), {"__name__": "example"})  # noqa: S102 - running examples is the point
    promised = [line.partition("  # ")[2] for line in code.splitlines() if line.lstrip().startswith("print(")]
    assert printed.getvalue().splitlines() == promised


@pytest.mark.parametrize("page", ["README.md", "docs/querying.md"])
def test_shell_examples_show_what_the_commands_print(page: str, tour: Path) -> None:
    # One copy of the results serves the whole tour: each command finds what the one before it left.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    tours = blocks(page, "console")
    commands = [command for block in tours for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    assert commands
    for command in commands:
        line, _, expected = command.partition("\n")
        status = int(match[1]) if (match := re.search(r"# exit (\d)$", line)) else 0
        done = subprocess.run(  # noqa: S602 - our own page, and a pipe needs a shell
            line,
            shell=True,
            cwd=tour,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
            stdin=subprocess.DEVNULL,
            executable="/bin/bash",
        )
        assert done.returncode == status, (line, done.stdout)
        assert sorted_if_mixed(expected) == sorted_if_mixed(done.stdout) or matches(expected, done.stdout), (
            f"$ {line}\n{done.stdout}"
        )


def sorted_if_mixed(text: str) -> list[str]:
    """Lines in order of the alphabet: stdout and stderr reach a pipe in an order of their own."""
    return sorted(line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("tour")
def test_docstring_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("page", ["README.md", "docs/recording.md"])
def test_shell_examples_that_need_nothing_else_run(page: str, tour: Path) -> None:
    """The recipes, which need launchers and frameworks, are checked for their syntax below."""
    text = (ROOT / page).read_text(encoding="utf-8").partition("## Recipes")[0]
    found = [
        block for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "make " not in block
    ]
    assert found
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in found:
        done = subprocess.run(
            ["/bin/bash", "-euc", block],
            cwd=tour,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (block, done.stdout, done.stderr)


def test_recipes_have_no_error_of_syntax() -> None:
    for code in blocks("docs/recording.md", "py"):
        compile(code, "docs/recording.md", "exec")
    for block in blocks("docs/recording.md", "sh"):
        subprocess.run(["/bin/bash", "-nc", block], check=True)


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [*cli.lazy, *(f"results {name}" for name in results.lazy)]
    assert [
        name for name in commands if name != "results" and not re.search(rf"llm-energy-measure (-o \w+ )?{name}", text)
    ] == []
