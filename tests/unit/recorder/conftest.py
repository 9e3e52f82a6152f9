"""Fixtures of the recorder's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository
from tests.support.replay import ManualClock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    return FileSystemRepository(tmp_path / "results")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
