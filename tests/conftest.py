"""Set the Hypothesis profiles, and find the real results of other tools."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Generator

REAL_DATA = "LLM_ENERGY_MEASURE_REAL_DATA"

# A shell starts a background job with SIGINT ignored, and children inherit this. Some tests interrupt a process.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No profile has a deadline: other work on the machine can make any example slow.
settings.register_profile("default", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the collected tests out of each garbage collection: they live until the end of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real results. Tests read this folder and write nothing into it."""
    value = os.environ.get(REAL_DATA)
    if not value:
        pytest.skip(f"{REAL_DATA} is not set")
    folder = Path(value).resolve()
    if not folder.is_dir():
        pytest.fail(f"{REAL_DATA} names no folder: {value!r}; correct the variable, or unset it to skip these tests")
    return folder
