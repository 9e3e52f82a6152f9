"""The parts of `examples/gpu/check.py`, with a fake of NVML."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.recorder.sources.nvml import Nvml
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.verify import verify_experiment
from llm_energy_measure.results.store.samples import load_samples
from tests.support.devices import Board, FakeNvml
from tests.support.recordings import make_recording
from tests.support.replay import ManualClock

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).resolve().parents[3] / "examples/gpu/check.py"
UUID = "GPU-0a1b2c3d-1111-2222-3333-444455556666"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SteadyNvml(FakeNvml):
    """A board whose counter rises by its power."""

    def __init__(self, board: Board, clock: ManualClock, counter_w: float) -> None:
        super().__init__([board])
        self.clock = clock
        self.counter_w = counter_w

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any) -> float:  # noqa: N802 - the name in pynvml
        assert device in self.boards
        return 1e6 + self.clock.now * self.counter_w * 1e3


def run(folder: Path, counter_w: float) -> None:
    clock, board = ManualClock(), Board(index=0, uuid=UUID, name="NVIDIA H200", power_mw=400_000.0)
    nvml = SteadyNvml(board, clock, counter_w)
    repository = FileSystemRepository(folder)
    arguments: dict[str, Any] = {"sources": [Nvml(nvml)], "samples": True, "idle_sec": 10.0, "host": "secret-host"}
    with make_recording(repository, clock, experiment="gpu_check", **arguments):
        clock.sleep(60)


def test_counter_and_samples_agree_and_names_are_replaced(tmp_path: Path, check: ModuleType) -> None:
    private, out = tmp_path / "private", tmp_path / "out"
    run(private, 400.0)
    assert check.publish(private, out) is True
    text = (out / "report.txt").read_text()
    assert "GPU NVIDIA H200, driver 550.54.15" in text
    assert "counter 24000.0 J, integral of the power samples 24000.0 J, difference +0.00%" in text
    written = b"".join(path.read_bytes() for path in out.rglob("*.json"))
    boot = ManualClock().boot
    assert boot is not None
    for name in ("secret-host", UUID, boot):
        assert name.encode() not in written
    repository = FileSystemRepository(out)
    [trace] = load_samples(repository.store, "gpu_check", 0)
    [result] = repository.load_all_raw("gpu_check")
    assert trace.device == result.gpu_uuid != UUID
    assert verify_experiment(repository, "gpu_check").outcome == "passed"


def test_difference_above_five_percent_is_reported(tmp_path: Path, check: ModuleType) -> None:
    run(tmp_path / "private", 300.0)
    assert check.publish(tmp_path / "private", tmp_path / "out") is False
    assert "difference +33.33%" in (tmp_path / "out" / "report.txt").read_text()


def test_doctor_runs_without_a_gpu(check: ModuleType) -> None:
    assert "nvml" in check.doctor()
