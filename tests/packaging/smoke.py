"""Test the wheel of `make dist` in a new environment that has no development dependency.

Usage: python tests/packaging/smoke.py DIST

The tests run in a checkout, so they cannot find these defects: a file that the wheel lacks, an import of a package that
only developers install, a command that does not start.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORE = {"click", "msgspec", "rich"}
REQUIRED_BY_RICH = {"markdown-it-py", "mdurl", "pygments"}
ENVIRONMENT = {"pip", "setuptools"}  # `python -m venv` installs them (setuptools up to Python 3.11)
PACKAGED = ["py.typed", "results/README.md", "domain/README.md"]
PUBLIC_NAMES = "FileSystemRepository, aggregate_results, calculate_efficiency_metrics, export_to_csv, export_to_json"
EXPERIMENT = "smoke"
ENERGIES_J = (120.5, 180.25)


def say(text: str) -> None:
    print(f"smoke: {text}", flush=True)


def require(condition: object, sentence: str) -> None:
    if not condition:
        sys.exit(f"smoke: FAILED: {sentence}")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; return its standard output.

    The command does not get the variables that would let the new environment see another one.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LLM_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=inherited, capture_output=True, text=True, check=False
    )
    shown = " ".join([Path(command[0]).name, *map(str, command[1:])])
    require(done.returncode == 0, f"`{shown}` exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def find_wheel(dist: Path) -> Path:
    """Return the only wheel in the folder."""
    wheels = list(dist.glob("*.whl"))
    require(len(wheels) == 1, f"expected one wheel in {dist}, found {[wheel.name for wheel in wheels]}; run make dist")
    return wheels[0]


def check_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    missing = [name for name in PACKAGED if f"llm_energy_measure/{name}" not in names]
    require(not missing, f"the wheel lacks {missing}")
    others = sorted(name for name in names if not re.match(r"llm_energy_measure(-[^/]+\.dist-info)?/", name))
    require(not others, f"the wheel has files outside the package: {others}")
    require(any(name.endswith("/licenses/LICENSE") for name in names), "the wheel lacks LICENSE")
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    require(sources <= names, f"the wheel lacks modules: {sorted(sources - names)}")
    say(f"the wheel has {len(sources)} modules, {', '.join(PACKAGED)} and LICENSE")


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel in a new environment; return the folder of its commands."""
    run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    commands = folder / "env" / "bin"
    pip = (commands / "python", "-m", "pip")
    run(*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    listed = json.loads(run(*pip, "list", "--format=json", cwd=folder))
    names = {re.sub(r"[-_.]+", "-", package["name"]).lower() for package in listed}
    extra = names - CORE - REQUIRED_BY_RICH - ENVIRONMENT - {"llm-energy-measure"}
    require(not extra, f"the wheel installs more than the core dependencies: {sorted(extra)}")
    require(names >= CORE, f"the wheel doesn't require {sorted(CORE - names)}")
    say(f"installed it with only {', '.join(sorted(names - ENVIRONMENT - {'llm-energy-measure'}))}")
    return commands


def check_entry_points(commands: Path, folder: Path) -> None:
    command, python = commands / "llm-energy-measure", commands / "python"
    version = run(command, "--version", cwd=folder).strip()
    installed = run(python, "-c", "import llm_energy_measure as m; print(m.__version__)", cwd=folder).strip()
    require(installed in version, f"`--version` prints {version!r}, but the package has version {installed!r}")
    as_module = run(python, "-m", "llm_energy_measure", "--version", cwd=folder).strip()
    require(installed in as_module, f"`python -m` prints {as_module!r}, but the package has version {installed!r}")
    require("Usage" in run(command, "--help", cwd=folder), "`--help` has no usage line")
    run(python, "-W", "error", "-c", f"from llm_energy_measure.results import {PUBLIC_NAMES}", cwd=folder)
    say(f"the command, `python -m` and the public names work: {version}")


def raw_result(process_index: int, energy_j: float) -> dict[str, Any]:
    """Return a raw result of schema 2.0.0 with the required fields only."""
    return {
        "schema_version": "2.0.0",
        "experiment_id": EXPERIMENT,
        "process_index": process_index,
        "gpu_id": process_index,
        "config_name": "smoke",
        "model_name": "none",
        "timestamps": {"start": "2026-01-16T19:00:00", "end": "2026-01-16T19:00:10", "duration_sec": 10.0},
        "inference_metrics": {
            "total_tokens": 300,
            "input_tokens": 100,
            "output_tokens": 200,
            "inference_time_sec": 10.0,
            "tokens_per_second": 30.0,
            "latency_per_token_ms": 33.3,
        },
        "energy_metrics": {"total_energy_j": energy_j, "duration_sec": 10.0},
        "compute_metrics": {"flops_total": 1e12},
    }


def check_end_to_end(commands: Path, folder: Path) -> None:
    """Write two raw files in the default results directory; aggregate, list and export them with the command."""
    raw = folder / "work" / "results" / "raw" / EXPERIMENT
    raw.mkdir(parents=True)
    for index, energy_j in enumerate(ENERGIES_J):
        (raw / f"process_{index}.json").write_text(json.dumps(raw_result(index, energy_j)), encoding="utf-8")
    command, work = commands / "llm-energy-measure", folder / "work"
    run(command, "aggregate", "--all", cwd=work)
    written = work / "results" / "aggregated" / f"{EXPERIMENT}.json"
    require(written.is_file(), f"`aggregate --all` wrote no {written.relative_to(work)}")
    found = json.loads(written.read_text(encoding="utf-8"))["total_energy_j"]
    require(found == sum(ENERGIES_J), f"the aggregate has {found} J instead of {sum(ENERGIES_J)} J")
    listed = run(command, "results", "list", "--json", cwd=work)
    require(EXPERIMENT in json.dumps(json.loads(listed)), f"`results list --json` lacks {EXPERIMENT!r}: {listed}")
    exported = run(command, "results", "export", "--to", "-", cwd=work)
    is_complete = EXPERIMENT in exported and str(sum(ENERGIES_J)) in exported
    require(is_complete, f"`results export --to -` lacks the experiment or its energy: {exported}")
    recorded = ("record", "--experiment", "recorded", "--w-per-core", "4", "--", "python3", "-c", "pass")
    run(command, "-q", *recorded, cwd=work)
    found = json.loads((raw.parent / "recorded" / "process_0.json").read_text(encoding="utf-8"))
    require(found["status"] == "completed", f"`record` wrote {found['status']!r}")
    say(f"aggregated, listed and exported two processes: {sum(ENERGIES_J)} J; recorded a command")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="llm-energy-measure-smoke-") as name:
        folder = Path(name).resolve()
        wheel = find_wheel(Path(sys.argv[1]).resolve())
        check_contents(wheel)
        commands = install(wheel, folder)
        check_entry_points(commands, folder)
        check_end_to_end(commands, folder)
    say("passed")


if __name__ == "__main__":
    main()
