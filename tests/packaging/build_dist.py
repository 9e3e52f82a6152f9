"""Build the source distribution and the wheel in a folder, and prove that anyone can build the same bytes.

`make dist` runs this script. It builds twice: from this checkout, and from the source distribution of the first build
(other folder, other modification times). Both builds must have the same bytes, and twine must accept them.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def source_date() -> dict[str, str]:
    """Return SOURCE_DATE_EPOCH: the variable if it is set, else the date of the last commit.

    Without both, hatchling uses a constant date.
    """
    if "SOURCE_DATE_EPOCH" in os.environ or not (ROOT / ".git").exists():
        return {}
    command = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {"SOURCE_DATE_EPOCH": done.stdout.strip()} if done.returncode == 0 else {}


def build(source: Path, target: Path, environment: dict[str, str]) -> list[Path]:
    """Build both distributions of `source` in `target`; return their paths."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"dist: FAILED: cannot build {source}\n{done.stdout}{done.stderr}")
    return sorted(target.iterdir())


def main() -> None:
    """Build, compare, check, and copy the files to the folder that the first argument names."""
    target = Path(sys.argv[1]).resolve()
    environment = {**os.environ, **source_date()}
    with tempfile.TemporaryDirectory(prefix="llm-energy-measure-dist-") as name:
        first, again, source = (Path(name) / part for part in ("first", "again", "source"))
        built = build(ROOT, first, environment)
        with tarfile.open(next(path for path in built if path.suffix == ".gz")) as archive:
            archive.extractall(source, filter="data")
        rebuilt = build(next(source.iterdir()), again, environment)
        different = [a.name for a, b in zip(built, rebuilt, strict=True) if not filecmp.cmp(a, b, shallow=False)]
        if different:
            sys.exit(f"dist: FAILED: a second build has other bytes: {', '.join(different)}")
        names = [path.name for path in built]
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *names], cwd=first, check=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(first, target)
    for path in sorted(target.iterdir()):
        print(f"dist: {path.name}: {path.stat().st_size} bytes, the same in both builds", flush=True)


if __name__ == "__main__":
    main()
