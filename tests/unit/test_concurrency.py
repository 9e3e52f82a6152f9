"""Experiments that read one sensor of one machine at the same time."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.batch.verify import verify_all
from llm_energy_measure.verification.concurrency import CODE, SensorUse, shared_energies
from tests.support.command import run
from tests.support.recordings import make_recording
from tests.support.replay import ManualClock, steady_watts

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.findings import Finding

WATTS = 90.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    return FileSystemRepository(tmp_path)


def record_spans(
    repository: FileSystemRepository, clock: ManualClock, spans: dict[str, tuple[float, float]], **changes: object
) -> None:
    """Record one experiment per span (start and end in seconds), all on one machine."""
    instants = sorted((moment, name) for name, span in spans.items() for moment in span)
    open_runs: dict[str, ExitStack] = {}
    for moment, name in instants:
        clock.now = moment
        if name in open_runs:
            open_runs.pop(name).close()
        else:
            stack = open_runs[name] = ExitStack()
            sources = [steady_watts(WATTS, clock)]
            stack.enter_context(make_recording(repository, clock, experiment=name, sources=sources, **changes))


def verified(repository: FileSystemRepository) -> dict[str, Finding]:
    found = verify_all(repository, repository.list_experiments())
    return {one.experiment_id: finding for one in found for finding in one.findings if finding.code == CODE}


def test_parallel_experiments_are_named_with_an_interval(repository: FileSystemRepository, clock: ManualClock) -> None:
    """As `parallel -j4 llm-energy-measure record` starts them."""
    record_spans(repository, clock, {"a": (0, 6), "b": (0, 6), "c": (3, 6), "alone": (10, 20)})
    found = verified(repository)
    assert set(found) == {"a", "b", "c"}
    finding = found["a"]
    assert (finding.outcome, finding.severity) == ("failed", "warning")
    assert finding.found == pytest.approx(6 * WATTS)
    assert finding.expected == pytest.approx(3 / 2 * WATTS + 3 / 3 * WATTS)
    assert finding.effect_j == pytest.approx(6 * WATTS)
    assert finding.message == (
        "'b', 'c' read the same sensors during 6.0 s, so 540.0 J count in each of these experiments; the part of this "
        "experiment is between 0 J (the idle power is unknown) and 540.0 J, and equal shares give 225.0 J"
    )


def test_idle_power_raises_the_lower_end() -> None:
    uses = [
        SensorUse(experiment_id=name, sensor=("boot", "rapl package-0"), start=0, end=10, energy_j=900, idle_power_w=30)
        for name in ("a", "b")
    ]
    assert shared_energies(uses)["a"].least_j == pytest.approx((900 - 300) / 2)


def test_experiments_one_after_the_other_are_no_finding(repository: FileSystemRepository, clock: ManualClock) -> None:
    record_spans(repository, clock, {"a": (0, 6), "b": (6, 12)})
    assert verified(repository) == {}


def test_other_machine_is_no_finding(repository: FileSystemRepository, clock: ManualClock) -> None:
    record_spans(repository, clock, {"a": (0, 6)})
    clock.boot = "another"
    record_spans(repository, clock, {"b": (0, 6)})
    assert verified(repository) == {}


def test_changed_wall_clock_hides_nothing(repository: FileSystemRepository, clock: ManualClock) -> None:
    record_spans(repository, clock, {"a": (0, 6)})
    clock.wall_offset += 3600
    record_spans(repository, clock, {"b": (1, 6)})
    assert set(verified(repository)) == {"a", "b"}


def import_span(
    repository: FileSystemRepository, name: str, span: tuple[float, float], *, index: int = 0, **fields: Any
) -> None:
    """Save a record as an importer makes it: without boot id and sensors, with 90 W of the CPU of the host."""
    record = RawProcessResult.of(
        name, index, start=span[0], end=span[1], cpu_energy_j=WATTS * (span[1] - span[0]), **fields
    )
    energy = msgspec.structs.replace(record.energy_metrics, cpu_scope="host")
    repository.save_raw(name, msgspec.structs.replace(record, energy_metrics=energy))


def test_imports_of_one_host_and_time_are_named(repository: FileSystemRepository) -> None:
    import_span(repository, "a", (0, 10), host="n1")
    import_span(repository, "b", (5, 15), host="n1")
    import_span(repository, "later", (20, 30), host="n1")
    import_span(repository, "elsewhere", (0, 10), host="n2")
    found = verified(repository)
    assert set(found) == {"a", "b"}
    assert found["a"].message.startswith("'b' read the same sensors during 5.0 s, so 450.0 J count in each")
    assert found["a"].expected == pytest.approx(WATTS * 7.5)
    checked = run("-o", repository.base_path, "results", "check")
    assert "raw.shared_sensor  raw/a: 'b' read the same sensors" in checked.out


def test_imports_of_unknown_hosts_are_no_finding(repository: FileSystemRepository) -> None:
    """They can be of different machines. The import reports runs that overlap."""
    for name in ("a", "b"):
        import_span(repository, name, (0, 10))
    assert verified(repository) == {}


def test_times_in_whole_seconds_are_no_overlap(repository: FileSystemRepository) -> None:
    """One tool writes the end in whole seconds, and the start is the end minus the duration."""
    import_span(repository, "a", (0, 10), host="n1")
    import_span(repository, "b", (9.1, 20), host="n1")
    assert verified(repository) == {}


def test_processes_of_one_import_count_the_host_once(repository: FileSystemRepository) -> None:
    for index in (0, 1):
        import_span(repository, "a", (0, 10), index=index, host="n1")
    import_span(repository, "b", (0, 10), host="n1")
    for finding in verified(repository).values():
        assert finding.found == pytest.approx(WATTS * 10)
        assert finding.effect_j == pytest.approx(WATTS * 10)
        assert finding.expected == pytest.approx(WATTS * 5)


def test_imports_of_one_gpu_and_time_are_named(repository: FileSystemRepository) -> None:
    for name, uuid in (("a", "GPU-1"), ("b", "GPU-1"), ("c", "GPU-2")):
        record = RawProcessResult.of(name, start=0, end=10, gpu_energy_j=500.0, gpu_uuid=uuid)
        energy = msgspec.structs.replace(record.energy_metrics, gpu_scope="device")
        repository.save_raw(name, msgspec.structs.replace(record, energy_metrics=energy))
    assert set(verified(repository)) == {"a", "b"}


def test_check_and_verify_commands_name_the_others(repository: FileSystemRepository, clock: ManualClock) -> None:
    record_spans(repository, clock, {"a": (0, 6), "b": (0, 6)})
    checked = run("-o", repository.base_path, "results", "check")
    assert checked.status == 0
    assert "raw.shared_sensor  raw/a: 'b' read the same sensors during 6.0 s" in checked.out
    assert {one.code for one in check_store(repository, ["a"])} == set()  # one experiment has no other to compare with
    done = run("-o", repository.base_path, "results", "verify", "--all")
    assert done.status == 0
    assert done.out.splitlines()[-1] == ("counted the same joules, so do not add their energies (-v explains): a, b")
    assert run("-q", "-o", repository.base_path, "results", "verify", "--all").out == ""
    assert "so 540.0 J count in each" in run("-v", "-o", repository.base_path, "results", "verify", "--all").err
    assert run("-o", repository.base_path, "results", "verify", "--all", "--fail-on", CODE).status == 1


SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=2, max_size=8)


@given(SPANS)
def test_equal_shares_sum_to_the_energy_of_the_sensor(spans: list[tuple[int, int]]) -> None:
    uses = [
        SensorUse(
            experiment_id=str(number),
            sensor=("boot", "rapl package-0"),
            start=start,
            end=start + length,
            energy_j=WATTS * length,
            idle_power_w=10.0,
        )
        for number, (start, length) in enumerate(spans)
    ]
    shared = shared_energies(uses)
    covered = {second for start, length in spans for second in range(start, start + length)}
    alone_j = sum(use.energy_j for use in uses if use.experiment_id not in shared)
    assert sum(one.equal_j for one in shared.values()) + alone_j == pytest.approx(WATTS * len(covered), rel=0.1)
    for one in shared.values():
        assert one.least_j is not None
        assert 0 <= one.least_j <= one.equal_j <= one.all_j * (1 + 1e-9)
        assert one.common_j <= one.all_j * (1 + 1e-9)
