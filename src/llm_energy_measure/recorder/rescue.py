"""Save a last copy of a result that cannot be saved in the results directory, for example on a full disk."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llm_energy_measure.constants import FALLBACK_DIR_ENV
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import codec


def print_line(text: str) -> bool:
    """Print a line on stderr. Return False if stderr is closed."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def rescue(record: RawProcessResult, environ: Mapping[str, str]) -> str:
    """Print a result on stderr as one line of JSON, and save it to a fallback directory.

    Args:
        record: The result.
        environ: Environment variables. `LLM_ENERGY_MEASURE_FALLBACK_DIR` names the directory; the default is a new
            folder in the directory for temporary files.

    Returns:
        One sentence that says where the result is, or that it is lost. If the fallback directory has the result, the
        sentence also says how to copy it to a results directory.
    """
    is_printed = False
    with contextlib.suppress(ValueError, TypeError):  # the record has no JSON form
        is_printed = print_line(msgspec.json.format(codec.encode_raw(record), indent=0).decode())
    given = environ.get(FALLBACK_DIR_ENV)
    try:
        folder = Path(given or tempfile.mkdtemp(prefix="llm-energy-measure-"))
        path = FileSystemRepository(folder).save_raw(record.experiment_id, record)
    except (OSError, LLMEnergyMeasureError) as error:
        where = "on stderr as one line of JSON, and not" if is_printed else "lost: it is neither on stderr nor"
        return f"the result is {where} in the fallback directory ({error})"
    return f"the result is in {path}; copy it with 'llm-energy-measure results merge {folder}'"
