"""Laws of attribution for processes of any scope on any hosts, and honest runs, which must have no failed check."""

from __future__ import annotations

import math
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import ClockEvidence
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.verify import verify_experiment
from tests.support import factories, strategies
from tests.support.aggregation import aggregate_one

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult

BOARDS = [
    *("NVIDIA A100-PCIE-40GB", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "4 x NVIDIA A40", "AMD Instinct MI250X"),
    *("NVIDIA GH200 480GB", None),
]
scopes = st.sampled_from([None, "device", "process", "host"])
readings = st.one_of(st.none(), st.just(0.0), st.floats(0.1, 1e5))


@st.composite
def spans(draw: st.DrawFn) -> Any:
    start = factories.START + timedelta(seconds=draw(st.integers(0, 4)) * 10)
    return factories.timestamps(start, float(draw(st.integers(1, 4))) * 10)


def devices(joules: float, count: int, host: str = "a") -> list[DeviceEnergy]:
    return [
        DeviceEnergy(gpu_id=index, gpu_uuid=f"GPU-{host}-{index}", gpu_name=BOARDS[0], energy_j=joules / count)
        for index in range(count)
    ]


@st.composite
def processes(draw: st.DrawFn) -> RawProcessResult:
    parts = [draw(readings) for _ in range(3)]
    known = [part for part in parts if part is not None]
    total = draw(st.sampled_from([math.fsum(known), math.fsum(known) + 50.0, 10.0, None]))
    host = draw(st.sampled_from(["a", "b", "c"]))
    uuid = draw(st.sampled_from([None, f"GPU-{host}", f"MIG-GPU-{host}/1/0", f"MIG-GPU-{host}/2/0"]))
    return factories.raw(
        process_index=draw(st.integers(0, 50)),
        host=host,
        gpu_id=draw(st.sampled_from([None, 0, 1])),
        gpu_uuid=uuid,
        gpu_name=draw(st.sampled_from(BOARDS)),
        timestamps=draw(spans()),
        energy_metrics=factories.energy(
            total_energy_j=total,
            gpu_energy_j=parts[0],
            cpu_energy_j=parts[1],
            ram_energy_j=parts[2],
            duration_sec=draw(st.sampled_from([None, 0.0, 5.0, 20.0])),
            window=draw(st.one_of(st.none(), spans())),
            total_scope=draw(scopes),
            gpu_scope=draw(scopes),
            cpu_scope=draw(scopes),
            ram_scope=draw(scopes),
            devices=devices(parts[0], draw(st.integers(1, 4)), host) if parts[0] and draw(st.booleans()) else None,
        ),
    )


@st.composite
def crowds(draw: st.DrawFn) -> list[RawProcessResult]:
    """Draw processes of one host that imply about the power that its boards can draw. One more board decides."""
    records = []
    for index in range(draw(st.integers(1, 6))):
        record, span = draw(processes()), draw(spans())
        gpu_j = draw(st.sampled_from([None, 0.0, 150.0, 250.0, 300.0, 600.0]))
        energy = msgspec.structs.replace(
            record.energy_metrics,
            gpu_energy_j=None if gpu_j is None else gpu_j * (span.duration_sec or 0.0),
            gpu_scope=draw(st.sampled_from([None, None, None, "host", "device"])),
            total_scope=draw(st.sampled_from([None, None, "host"])),
            cpu_energy_j=draw(readings),
            window=span,
            duration_sec=None,
            devices=draw(st.sampled_from([None, None, devices(500.0, 2)])) if gpu_j else None,
        )
        parts = (energy.gpu_energy_j, energy.cpu_energy_j, energy.ram_energy_j)
        energy = msgspec.structs.replace(energy, total_energy_j=math.fsum(part or 0.0 for part in parts))
        board = draw(st.sampled_from([BOARDS[0], BOARDS[0], None, "2 x NVIDIA A100-PCIE-40GB", "NVIDIA GH200 480GB"]))
        records.append(
            msgspec.structs.replace(record, process_index=index, host="a", gpu_name=board, energy_metrics=energy)
        )
    return records


experiments = st.one_of(
    st.lists(processes(), min_size=1, max_size=8, unique_by=lambda record: record.process_index), crowds()
)


def attributed(records: list[RawProcessResult]) -> AggregatedResult:
    return aggregate_results(factories.EXPERIMENT, records)


@given(st.one_of(experiments, st.lists(strategies.raw_records(), min_size=1, unique_by=lambda r: r.process_index)))
def test_the_attributed_total_never_exceeds_the_plain_sum(records: list[RawProcessResult]) -> None:
    result = aggregate_results("x", records, allow_mixed=True)
    assert (result.attributed_bounds_j is None) == (result.total_energy_j is None)
    assert (result.attributed_energy_j is None) == (result.attribution_status == "undetermined")
    if result.attributed_bounds_j is None:
        return
    assert result.total_energy_j is not None
    low, high = result.attributed_bounds_j
    assert 0 <= low <= high <= result.total_energy_j
    if result.attributed_energy_j is not None:
        assert low <= result.attributed_energy_j <= high
        assert result.attribution_factor is None or result.attribution_factor >= 1
    parts = [result.attributed_gpu_energy_j, result.attributed_cpu_energy_j, result.attributed_ram_energy_j]
    assert math.fsum(part or 0.0 for part in parts) <= result.total_energy_j * (1 + 1e-5) + 1e-6


@given(experiments, st.randoms(use_true_random=False))
def test_the_order_of_processes_never_matters(records: list[RawProcessResult], order: random.Random) -> None:
    one, other = attributed(records), attributed(order.sample(records, len(records)))
    for name in ("attributed_energy_j", "attributed_bounds_j", "attribution_factor", "findings"):
        assert getattr(one, name) == getattr(other, name), name


@given(experiments)
def test_totals_of_separate_hosts_add_up(records: list[RawProcessResult]) -> None:
    together = attributed(records)
    apart = [attributed([r for r in records if r.host == host]) for host in sorted({r.host or "" for r in records})]
    bounds = [result.attributed_bounds_j for result in apart if result.attributed_bounds_j is not None]
    for end in (0, 1):
        if together.attributed_bounds_j is not None:
            expected = math.fsum(each[end] for each in bounds)
            assert together.attributed_bounds_j[end] == pytest.approx(expected, rel=1e-9, abs=1e-6)
    points = [result.attributed_energy_j for result in apart if result.total_energy_j is not None]
    if points and all(result.attribution_basis == [] and result.attributed_energy_j is not None for result in apart):
        known = math.fsum(point or 0.0 for point in points)
        assert together.attributed_energy_j == pytest.approx(known, rel=1e-9, abs=1e-6)


@given(experiments, st.data())
def test_a_second_copy_of_a_host_reading_changes_nothing(records: list[RawProcessResult], data: st.DataObject) -> None:
    host_scope = {f"{name}_scope": "host" for name in ("total", "gpu", "cpu", "ram")}
    index = data.draw(st.integers(0, len(records) - 1))
    energy = msgspec.structs.replace(records[index].energy_metrics, **host_scope)
    records = [*records]
    records[index] = msgspec.structs.replace(records[index], energy_metrics=energy)
    copies = [
        msgspec.structs.replace(records[index], process_index=100 + n) for n in range(data.draw(st.integers(1, 3)))
    ]
    assert_same_energy(attributed(records), attributed([*records, *copies]))


@given(experiments, st.data())
def test_a_second_copy_of_one_component_of_a_host_changes_nothing(
    records: list[RawProcessResult], data: st.DataObject
) -> None:
    """The copy names the same GPUs as the original, so it does not prove another board."""
    index = data.draw(st.integers(0, len(records) - 1))
    name = data.draw(st.sampled_from(["gpu", "cpu", "ram"]))
    joules = data.draw(st.floats(0.1, 1e5))
    known = msgspec.structs.replace(records[index].energy_metrics, **{f"{name}_energy_j": joules})
    total = math.fsum(part or 0.0 for part in (known.gpu_energy_j, known.cpu_energy_j, known.ram_energy_j))
    scoped: dict[str, Any] = {f"{name}_scope": "host"}
    energy = msgspec.structs.replace(known, total_energy_j=total, **scoped)
    records = [*records]
    records[index] = msgspec.structs.replace(records[index], energy_metrics=energy)
    alone: dict[str, Any] = dict.fromkeys(("gpu_energy_j", "cpu_energy_j", "ram_energy_j", "total_scope"))
    alone |= {f"{name}_energy_j": joules, "total_energy_j": joules, **scoped}
    if name != "gpu" and energy.devices is not None:
        alone["devices"] = [msgspec.structs.replace(device, energy_j=None) for device in energy.devices]
    copies = [
        msgspec.structs.replace(
            records[index], process_index=100 + n, energy_metrics=msgspec.structs.replace(energy, **alone)
        )
        for n in range(data.draw(st.integers(1, 3)))
    ]
    assert_same_energy(attributed(records), attributed([*records, *copies]))


def assert_same_energy(one: AggregatedResult, more: AggregatedResult) -> None:
    for name in ("", "_gpu", "_cpu", "_ram"):
        expected, found = (getattr(result, f"attributed{name}_energy_j") for result in (one, more))
        assert found == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-6)), name
    if one.attributed_bounds_j is not None:
        assert more.attributed_bounds_j == pytest.approx(one.attributed_bounds_j, rel=1e-9, abs=1e-6)


@given(experiments, st.randoms(use_true_random=False))
def test_the_numbers_of_processes_never_matter(records: list[RawProcessResult], order: random.Random) -> None:
    numbers = order.sample(range(51), len(records))
    renumbered = [
        msgspec.structs.replace(record, process_index=number) for record, number in zip(records, numbers, strict=True)
    ]
    one, other = attributed(records), attributed(renumbered)
    for name in ("attributed_energy_j", "attributed_gpu_energy_j", "attributed_cpu_energy_j"):
        expected = getattr(one, name)
        assert getattr(other, name) == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-6)), name


@st.composite
def honest_runs(draw: st.DrawFn) -> list[RawProcessResult]:
    """Draw processes that each measured their own GPU: equal to 0.1 %, and never above the limit of the board."""
    hosts = draw(st.integers(1, 4))
    says_scope, says_host = draw(st.booleans()), hosts > 1 or draw(st.booleans())
    ids = draw(st.sampled_from(["uuid", "index", "both"]))
    boards = draw(
        st.lists(
            st.sampled_from(["NVIDIA A100-PCIE-40GB", "NVIDIA H100 80GB HBM3", "NVIDIA L4"]), min_size=1, max_size=2
        )
    )
    limits = {"NVIDIA A100-PCIE-40GB": 250.0, "NVIDIA H100 80GB HBM3": 700.0, "NVIDIA L4": 72.0}
    load = draw(st.floats(0.2, 0.99))
    seconds = draw(st.floats(1.0, 600.0))
    count = draw(st.integers(hosts, 16))
    # NTP keeps the hosts' clocks together, and a reading of the store's is as exact as it says.
    ahead = draw(st.lists(st.floats(-0.4, 0.4), min_size=hosts, max_size=hosts))
    error_sec = draw(st.sampled_from([0.006, 0.5, 1.1]))
    knows_store = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    records = []
    for index in range(count):
        host, local = index % hosts, index // hosts
        board = boards[local % len(boards)]
        watts = limits[board] * load * (1 + draw(st.floats(-0.0005, 0.0005)))
        span = factories.timestamps(factories.START + timedelta(milliseconds=draw(st.integers(0, 200))), seconds)
        tokens = factories.inference(
            total_tokens=1000, input_tokens=400, output_tokens=600, inference_time_sec=seconds,
            tokens_per_second=1000 / seconds, latency_per_token_ms=seconds,
        )  # fmt: skip
        energy_j = watts * seconds
        start_sec = factories.START.timestamp()
        wrong_sec = draw(st.floats(-error_sec, error_sec))
        clock = ClockEvidence(
            boot_id=f"boot-{host}",
            wall_start_sec=start_sec + ahead[host],
            monotonic_start_sec=100.0 * host,
            wall_end_sec=start_sec + ahead[host] + seconds,
            monotonic_end_sec=100.0 * host + seconds,
            store_id="shared",
            store_start_sec=start_sec + wrong_sec,
            store_end_sec=start_sec + seconds + wrong_sec,
            store_error_sec=error_sec,
        )
        records.append(
            factories.raw(
                process_index=index,
                world_size=count,
                host=f"node-{host}" if says_host else None,
                gpu_id=local if ids != "uuid" else None,
                gpu_uuid=f"GPU-{host}-{local}" if ids != "index" else None,
                gpu_name=board,
                timestamps=span,
                clock=clock if knows_store[index] else None,
                inference_metrics=tokens,
                energy_metrics=factories.energy(
                    total_energy_j=energy_j,
                    gpu_energy_j=energy_j,
                    cpu_energy_j=None,
                    ram_energy_j=None,
                    gpu_power_w=watts,
                    cpu_power_w=None,
                    duration_sec=seconds,
                    energy_per_token_j=energy_j / 1000,
                    window=span,
                    gpu_scope="device" if says_scope else None,
                    gpu_provenance="measured",
                ),
            )
        )
    return records


@given(honest_runs())
def test_honest_run_has_no_failed_check(records: list[RawProcessResult]) -> None:
    result = attributed(records)
    assert result.findings is not None
    assert [finding for finding in result.findings if finding.outcome == "failed"] == []
    assert result.attributed_bounds_j is not None
    assert result.attributed_bounds_j[1] == result.total_energy_j
    if records[0].energy_metrics.gpu_scope is not None:
        assert (result.attributed_energy_j, result.attribution_status) == (result.total_energy_j, "exact")
    assert result.attributed_energy_j in (result.total_energy_j, None)
    assert result.aggregation.warnings == []
    assert result.aggregation.gpu_attribution_verified is True


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(processes(), strategies.raw_records()), min_size=1, max_size=3, unique_by=lambda r: r.process_index
    )
)
def test_aggregate_follows_from_its_raw_files(tmp_path: Path, records: list[RawProcessResult]) -> None:
    with TemporaryDirectory(dir=tmp_path) as folder:
        repository = FileSystemRepository(folder)
        first = records[0]
        for record in records:
            alike = {"launcher": None, "experiment_id": "x", "model_name": first.model_name, "backend": first.backend}
            repository.save_raw("x", msgspec.structs.replace(record, **alike))
        aggregate_one(repository, "x", strict=False)
        [finding] = [f for f in verify_experiment(repository, "x").findings if f.code == "aggregate.recomputed"]
    assert (finding.outcome, finding.message) == ("passed", "")
