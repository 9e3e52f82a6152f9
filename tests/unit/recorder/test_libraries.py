"""Versions and memory of the loaded libraries."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

from llm_energy_measure.recorder.libraries import detect_backend, library_versions, peak_memory_mib
from tests.support.recordings import load_result, make_recording

if TYPE_CHECKING:
    import pytest

    from llm_energy_measure.results import FileSystemRepository
    from tests.support.replay import ManualClock


class VersionText(str):
    """A subclass of str, like the type of torch.__version__."""

    __slots__ = ()


def test_versions_backend_and_memory_of_loaded_libraries() -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 2, max_memory_allocated=lambda index: (index + 1) * 2**20
    )
    modules = {
        "torch": SimpleNamespace(__version__=VersionText("2.13.0"), cuda=cuda),
        "transformers": SimpleNamespace(__version__="5.23.0"),
        "vllm": SimpleNamespace(),
    }
    versions = library_versions(modules)
    assert versions == {"torch": "2.13.0", "transformers": "5.23.0"}
    assert {type(version) for version in versions.values()} == {str}
    assert detect_backend(versions) == ("pytorch", "transformers=5.23.0, torch=2.13.0")
    assert detect_backend({"vllm": "0.11", "torch": "2.13.0"}) == ("vllm", "vllm=0.11")
    assert detect_backend({"numpy": "2"}) == (None, None)
    assert peak_memory_mib(modules) == 3.0
    resident = peak_memory_mib({"torch": SimpleNamespace()})
    assert resident is not None
    assert resident > 1.0
    assert peak_memory_mib({}) is None


class BrokenModule:
    """A module whose attributes raise an error."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def test_library_that_raises_costs_only_its_own_facts(
    repository: FileSystemRepository, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", BrokenModule())
    monkeypatch.setitem(sys.modules, "torch", BrokenModule())
    with make_recording(repository, clock) as run:
        run.add_tokens(output=3)
    result = load_result(repository)
    assert (result.status, result.backend, result.compute_metrics) == ("completed", None, None)
    assert result.inference_metrics is not None
