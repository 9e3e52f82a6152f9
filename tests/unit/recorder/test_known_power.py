"""Boards of known power: the energy is within 0.1 %, in any order of CUDA_VISIBLE_DEVICES and with uneven ranks."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_energy_measure.recorder.sources.nvml import Nvml
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from tests.support.devices import Board, FakeNvml, Slice
from tests.support.recordings import make_recording, torchrun_environ
from tests.support.replay import ManualClock

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

POWERS_W = [100.0 + 37.0 * index for index in range(8)]


class SteadyBoards(FakeNvml):
    """Boards whose counters rise by their powers, in whole millijoules as NVML gives them."""

    def __init__(self, clock: ManualClock, slices: int = 0) -> None:
        names = [[Slice(uuid=f"MIG-{i}-{part}", name="A100 MIG 1g.5gb") for part in range(slices)] for i in range(8)]
        super().__init__([Board(index=index, uuid=f"GPU-{index}", slices=names[index]) for index in range(8)])
        self.clock = clock

    def _answer(self, device: Any, value: float | None) -> float:
        if value is not None and value == device.energy_mj:
            return float(int(1e6 + self.clock.now * POWERS_W[device.index] * 1e3))
        return super()._answer(device, value)


def record_all(
    repository: FileSystemRepository, clock: ManualClock, nvml: FakeNvml, visible: str, ends: list[float]
) -> list[RawProcessResult]:
    """Record one process per end (s), all at once; return the results."""
    stacks = [ExitStack() for _ in ends]
    for rank, stack in enumerate(stacks):
        environ = {**torchrun_environ(rank, len(ends)), "CUDA_VISIBLE_DEVICES": visible}
        stack.enter_context(make_recording(repository, clock, sources=[Nvml(nvml)], environ=environ))
    for end, stack in sorted(zip(ends, stacks, strict=True), key=lambda pair: pair[0]):
        clock.now = end
        stack.close()
    return repository.load_all_raw("exp_7")


ORDERS = st.permutations(range(8))
ENDS = st.lists(st.floats(1.0, 60.0), min_size=2, max_size=8)


@settings(max_examples=25, deadline=None)
@given(order=ORDERS, ends=ENDS, by_uuid=st.booleans())
def test_each_rank_measures_its_gpu_in_any_order(order: list[int], ends: list[float], *, by_uuid: bool) -> None:
    clock = ManualClock()
    visible = ",".join(f"GPU-{index}" if by_uuid else str(index) for index in order)
    with tempfile.TemporaryDirectory() as folder:
        results = record_all(FileSystemRepository(folder), clock, SteadyBoards(clock), visible, ends)
    truths = [POWERS_W[order[rank]] * end for rank, end in enumerate(ends)]
    for rank, (result, truth_j) in enumerate(zip(results, truths, strict=True)):
        assert result.gpu_uuid == f"GPU-{order[rank]}"
        assert result.energy_metrics.total_energy_j == pytest.approx(truth_j, rel=1e-3)
    total = aggregate_results("exp_7", results)
    assert total.attributed_energy_j == pytest.approx(sum(truths), rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(ends=st.lists(st.floats(1.0, 60.0), min_size=2, max_size=4))
def test_slices_of_one_board_measure_it_once_until_the_last_ends(ends: list[float]) -> None:
    clock = ManualClock()
    nvml = SteadyBoards(clock, slices=4)
    visible = ",".join(f"MIG-3-{part}" for part in range(len(ends)))
    with tempfile.TemporaryDirectory() as folder:
        results = record_all(FileSystemRepository(folder), clock, nvml, visible, ends)
    total = aggregate_results("exp_7", results)
    assert total.total_energy_j == pytest.approx(POWERS_W[3] * max(ends), rel=1e-3)
