"""The package as an installer leaves it: with its bytecode, which a checkout need not have."""

from __future__ import annotations

import compileall
from pathlib import Path

import llm_energy_measure


def compile_package() -> None:
    """Write the bytecode that pip writes when it installs; without it each process compiles what it imports anew.

    An environment with `PYTHONDONTWRITEBYTECODE` never gets any from running the package, and what was measured there
    as start-up was mostly the compiler.
    """
    compileall.compile_dir(Path(llm_energy_measure.__file__).parent, quiet=1)
