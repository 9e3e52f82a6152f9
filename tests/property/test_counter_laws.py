"""Laws of the energy of one counter that several processes read."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from llm_energy_measure.verification.energy_windows import Window
from llm_energy_measure.verification.overlap import count_once
from llm_energy_measure.verification.readings import Reading

TIMES = st.floats(0, 10, allow_subnormal=False)


def reading(process: int, start: float, length_sec: float, energy_j: float) -> Reading:
    window = Window(start, start + length_sec, is_exact=True, length_sec=length_sec, started=start, is_naive=False)
    return Reading(process=process, component="gpu", energy_j=energy_j, scope="host", source="recorded", window=window)


@given(
    st.lists(st.tuples(TIMES, st.floats(0.1, 10), st.floats(1, 1000)), min_size=2, max_size=5),
    st.none() | st.floats(0.1, 10_000),
)
@example([(0.0, 10.0, 1.0), (0.01, 9.99, 0.9)], None)  # the limit was 0.4 % below the largest reading
def test_greatest_energy_is_at_least_each_reading(
    found: list[tuple[float, float, float]], limit_w: float | None
) -> None:
    readings = [reading(process, *values) for process, values in enumerate(found)]
    counted = count_once(readings, limit_w)
    assert counted.high_j >= max(one.energy_j for one in readings)
    assert counted.low_j <= counted.high_j
    if counted.point_j is not None:
        assert counted.low_j <= counted.point_j <= counted.high_j
