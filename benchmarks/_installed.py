"""Compile the package, so that a benchmark measures it as an installer leaves it: with bytecode."""

from __future__ import annotations

import compileall
from pathlib import Path

import llm_energy_measure


def compile_package() -> None:
    """Write the bytecode that pip writes at installation. Without bytecode, each process compiles its imports.

    With `PYTHONDONTWRITEBYTECODE`, Python never writes bytecode, so most of the measured start-up would be compilation.
    """
    compileall.compile_dir(Path(llm_energy_measure.__file__).parent, quiet=1)
