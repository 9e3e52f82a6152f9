"""Every example in the documentation, the README files and the docstrings works.

The language of a code block says how it is tested:

- `console`: each command is run, and its output is compared. `...` matches any text; `# exit N` is the exit status.
- `sh`: the block is run and has to succeed. `bash`: only the syntax is checked (it needs a launcher or a framework).
- `python`: the block is run, and each `print` shows what its comment says. If the block begins with the name of a file
  (`# name.py`), it is stored under this name instead. `py`: only the syntax is checked.

The blocks of a page run in order, in one folder that holds a copy of `examples/`. For the README of a package, the
folder also holds a copy of `examples/results/` as `results/`.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llm_energy_measure.cli.main import bundle, cli, results
from tests.support.command import run

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("README.md", "examples/README.md", "docs/**/*.md", "src/**/README.md")
    for path in ROOT.glob(pattern)
)
EXAMPLE = re.compile(r"^( *)```(\S+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"""'[^']*'|"[^"$`\\]*\"""")
SHELL = re.compile(r"[$`|&;<>(){}*?~\\]")
TESTED = {"bash", "console", "py", "python", "sh"}
NOT_CODE = {"latex", "text", "toml", "yaml", "{eval-rst}", "{toctree}"}
SOURCE = ROOT / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_ENERGY_MEASURE_RESULTS_DIR", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    return tmp_path


def examples(page: str) -> list[tuple[str, str]]:
    """Language and code of each block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(language, textwrap.dedent(code)) for _, language, code in EXAMPLE.findall(text)]


def bash(*arguments: str) -> tuple[int, str]:
    """Exit status and output (stdout and stderr) of a command of bash."""
    done = subprocess.run(
        ["/bin/bash", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout


def shown_by(line: str) -> tuple[int, list[str]]:
    """Exit status of a line, and its output in each order in which a pipe can get stdout and stderr.

    A line that is only our command runs in this process, which is fast.
    """
    words = shlex.split(line, comments=True)
    if words[0] != "llm-energy-measure" or words[1] in ("doctor", "record") or SHELL.search(QUOTED.sub("", line)):
        status, output = bash("-c", line)  # `doctor` and `record` look at their own process
        return status, [output]
    done = run(*words[1:])
    return done.status, [done.out + done.err, done.err + done.out]


def run_console(code: str) -> None:
    for command in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        line, _, expected = command.partition("\n")
        status = int(match[1]) if (match := re.search(r"# exit (\d+)$", line)) else 0
        found_status, outputs = shown_by(line)
        assert found_status == status, (line, outputs)
        assert any(sorted_lines(expected) == sorted_lines(found) or matches(expected, found) for found in outputs), (
            f"$ {line}\n{outputs[0]}"
        )


def matches(expected: str, found: str) -> bool:
    """Compare as doctest does: `...` matches any text; trailing blanks are ignored."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n"

    return doctest.OutputChecker().check_output(tidy(expected), tidy(found), doctest.ELLIPSIS)


def sorted_lines(text: str) -> list[str]:
    """The lines in alphabetical order: the order in which stdout and stderr reach a pipe is not fixed."""
    return sorted(line.rstrip() for line in text.splitlines())


def run_python(code: str, page: str, names: dict[str, object]) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), names)  # noqa: S102 - running the examples is the purpose
    promised = [line.partition("  # ")[2] for line in code.splitlines() if line.lstrip().startswith("print(")]
    assert printed.getvalue().splitlines() == promised


@pytest.mark.parametrize("page", [page for page in PAGES if TESTED & {language for language, _ in examples(page)}])
def test_examples_of_page_work(page: str, folder: Path) -> None:
    if page.startswith("src/"):
        shutil.copytree("examples/results", "results")
    names: dict[str, object] = {"__name__": "example"}
    for language, code in examples(page):
        if language == "console":
            run_console(code)
        elif language in {"sh", "bash"}:
            status, output = bash("-euc" if language == "sh" else "-nc", code)
            assert status == 0, (code, output)
        elif language == "python" and (file := re.match(r"# (\w+\.py)\n", code)):
            (folder / file[1]).write_text(code, encoding="utf-8")
        elif language == "python":
            run_python(code, page, names)
        elif language == "py":
            compile(code, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_copy_of_example_results_replaces_an_earlier_copy(page: str) -> None:
    # `cp -r examples/results demo` alone would write into `demo/results` if another page has already made `demo`.
    lines = [line for _, code in examples(page) for line in code.splitlines() if "examples/results" in line]
    copies = [line.removeprefix("$ ") for line in lines if "cp -r" in line]
    assert set(copies) <= {"rm -rf demo; cp -r examples/results demo"}


@pytest.mark.parametrize("page", PAGES)
def test_each_block_has_a_known_language(page: str) -> None:
    assert {language for language, _ in examples(page)} <= TESTED | NOT_CODE
    fences = re.findall(r"^ *```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(examples(page))


def test_make_targets_in_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("folder")
def test_docstring_examples_work(name: str) -> None:
    shutil.copytree("examples/results", "results")
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_an_example_uses_every_command() -> None:
    text = "\n".join(code for page in PAGES for _, code in examples(page))
    commands = [name for name in cli.lazy if name not in ("results", "bundle")]
    commands += [f"results {name}" for name in results.lazy] + [f"bundle {name}" for name in bundle.lazy]
    unused = [name for name in commands if not re.search(rf"llm-energy-measure (-\w( \w+)? )*{name}\b", text)]
    assert unused == []
