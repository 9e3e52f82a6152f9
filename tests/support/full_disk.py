"""Save results on a small disk until it is full, and print the outcome as JSON.

Usage: unshare -Urm python -m tests.support.full_disk FOLDER    (mounts a small tmpfs on FOLDER)
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure.constants import HIDDEN_MARK
from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from tests.support import factories

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = "1m"
EXP = factories.EXPERIMENT
BALLAST_BYTES = 650_000


def refusal(work: Callable[[], object]) -> str:
    """Return the message of the error on a full disk."""
    try:
        work()
    except StorageError as error:
        if error.errno == errno.ENOSPC:
            return str(error)
        raise
    raise AssertionError("the disk is not full")


def fill(repository: FileSystemRepository, prompt: str) -> tuple[int, str]:
    """Save results until the disk is full; return the number of saved results and the error message."""
    saved = 0
    while saved < 10_000:
        record = factories.raw(process_index=saved, effective_config={"prompt": prompt})
        try:
            repository.save_raw(EXP, record)
        except StorageError as error:
            if error.errno == errno.ENOSPC:
                return saved, str(error)
            raise
        saved += 1
    raise AssertionError("the disk is not full")


def work_through(disk: Path) -> dict[str, object]:
    """Fill the disk, read the results, free space, save again; return the outcome of each step."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(BALLAST_BYTES))
    repository = FileSystemRepository(disk / "results")
    saved, sentence = fill(repository, "x" * 10_000)
    with (disk / "rest").open("wb", buffering=0) as rest:  # fill the last page, so that no further byte fits
        try:
            while rest.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    records = repository.load_all_raw(EXP)
    overwriting = factories.raw(gpu_name="another", effective_config={"prompt": "y" * 10_000})
    outcome = {
        "saved": saved,
        "sentence": sentence,
        "loaded": [record.process_index for record in records],
        "overwrite": refusal(lambda: repository.save_raw(EXP, overwriting, overwrite=True)),
        "aggregate": refusal(lambda: repository.save_aggregated(aggregate_results(EXP, records))),
        "first_file_is_unchanged": repository.load_all_raw(EXP)[0] == records[0],
        "unfinished": [path.name for path in disk.rglob(f"*{HIDDEN_MARK}*")],
        "aggregated": repository.list_aggregated(),
    }
    ballast.unlink()
    repository.save_raw(EXP, factories.raw(process_index=saved))
    repository.save_raw(EXP, overwriting, overwrite=True)
    everything = repository.load_all_raw(EXP)
    repository.save_aggregated(aggregate_results(EXP, everything))
    return {**outcome, "loaded_after": len(everything), "aggregated_after": repository.list_aggregated()}


def main() -> None:
    """Mount the disk and print the outcome."""
    disk = Path(sys.argv[1])
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    subprocess.run(command, check=True)
    sys.stdout.write(json.dumps(work_through(disk)))


if __name__ == "__main__":
    main()
