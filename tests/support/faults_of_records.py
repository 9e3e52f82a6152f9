"""For each finding code, the smallest experiment with the fault, as a function that returns records and options."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from llm_energy_measure.domain.device_state import DeviceEvidence, DeviceState, DeviceSummary
from llm_energy_measure.domain.experiment import ClockEvidence, UnreadableFile
from llm_energy_measure.domain.metrics import DeviceEnergy, SensorReading
from llm_energy_measure.results.store import codec
from tests.support import factories

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.domain.experiment import RawProcessResult

START = factories.START
Experiment = tuple[list["RawProcessResult"], dict[str, Any]]


def record(index: int = 0, seconds: float = 40.0, **changes: Any) -> RawProcessResult:
    """Return the record of a process that measured its own A100 at 200 W during inference, with all evidence."""
    span = factories.timestamps(START, seconds)
    energy = {
        "total_energy_j": 200.0 * seconds + index,
        "gpu_energy_j": 200.0 * seconds + index,
        "cpu_energy_j": None,
        "ram_energy_j": None,
        "gpu_power_w": 200.0,
        "cpu_power_w": None,
        "duration_sec": seconds,
        "window": span,
        "gpu_scope": "device",
        "total_scope": "device",
        "gpu_provenance": "measured",
        "total_provenance": "measured",
        "energy_per_token_j": None,
    } | changes.pop("energy", {})
    inference = {
        "total_tokens": 8192,
        "input_tokens": 4096,
        "output_tokens": 4096,
        "inference_time_sec": seconds,
        "tokens_per_second": 8192 / seconds,
    } | changes.pop("inference", {})
    fields: dict[str, Any] = {
        "host": "node-1",
        "gpu_uuid": f"GPU-{index}",
        "world_size": changes.pop("of", 1),
        "timestamps": span,
        "energy_metrics": factories.energy(**energy),
        "inference_metrics": factories.inference(**inference),
    }
    return factories.raw(process_index=index, **(fields | changes))


def records(count: int, **changes: Any) -> list[RawProcessResult]:
    return [record(index, of=count, **changes) for index in range(count)]


def sensor(**changes: Any) -> dict[str, Any]:
    reading = {"source": "rapl", "instance": "package-0", "component": "cpu", "scope": "host", "energy_j": 100.0}
    return {"sensors": [SensorReading(**{**reading, **changes})]}


def device(index: int = 0, **changes: Any) -> DeviceEnergy:
    """Return a GPU with its state and the summary of its samples: no throttling, no drift."""
    state = DeviceState(temperature_c=60.0, clock_mhz=1980.0, throttle=[], power_limit_w=400.0, persistence_mode=True)
    summary = {"samples": 400, "clock_first_mhz": 1980.0, "clock_last_mhz": 1975.0, "throttled": {}, **changes}
    evidence = DeviceEvidence(start=state, end=state, samples=DeviceSummary(**summary))
    return DeviceEnergy(gpu_id=index, gpu_uuid=f"GPU-{index}", evidence=evidence)


def clock(offset_sec: float, jump_sec: float = 0.0, boot: str = "b", **changes: Any) -> ClockEvidence:
    """Return the clocks of a machine whose wall clock is `offset_sec` ahead of the store's clock."""
    fields: dict[str, Any] = {
        "boot_id": boot,
        "wall_start_sec": 1e9 + offset_sec,
        "monotonic_start_sec": 1.0,
        "wall_end_sec": 1e9 + offset_sec + 40 + jump_sec,
        "monotonic_end_sec": 41.0,
        "store_id": "shared",
        "store_start_sec": 1e9,
        "store_end_sec": 1e9 + 40,
        "store_error_sec": 0.01,
    }
    return ClockEvidence(**fields | changes)


def stored(raw: RawProcessResult, without: str) -> RawProcessResult:
    """Return the record as decoded from a file that lacks the field `without`."""
    document = factories.document(raw)
    del document[without]
    return codec.decode_raw(factories.as_bytes(document), "process_0.json")


NO_SCOPE: dict[str, Any] = {"gpu_scope": None, "total_scope": None}
NO_IDS: dict[str, Any] = {"gpu_id": None, "gpu_uuid": None}
HOST: dict[str, Any] = {"gpu_scope": "host", "total_scope": "host"}
LATER = factories.timestamps(START + timedelta(seconds=100), 40.0)
NAIVE = factories.timestamps(START.replace(tzinfo=None), 40.0)
UNREADABLE = UnreadableFile(name="process_1.json", reason="it is empty")
HOUR = timedelta(hours=1)


def two(first: dict[str, Any], second: dict[str, Any]) -> Experiment:
    return [record(0, of=2, **first), record(1, of=2, **second)], {}


def one(**changes: Any) -> Experiment:
    return [record(**changes)], {}


NODE: dict[str, Any] = {"gpu_name": "4 x NVIDIA A100-PCIE-40GB", **NO_IDS}

# The check fails for each experiment.
FAILING: dict[str, Callable[[], Experiment]] = {
    "energy.over_counted": lambda: (
        records(4, energy={"gpu_energy_j": 3e4, "total_energy_j": 3e4, **NO_SCOPE}, **NODE),
        {},
    ),
    "energy.exceeds_devices": lambda: one(energy={"gpu_energy_j": 3e4, "total_energy_j": 3e4}),
    "attribution.repeated_gpu": lambda: (records(2, gpu_uuid="GPU-a"), {}),
    "attribution.shared_sensor": lambda: two(
        {"gpu_is_mig": True, "gpu_uuid": "MIG-GPU-a/1/0"}, {"gpu_is_mig": True, "gpu_uuid": "MIG-GPU-a/2/0"}
    ),
    "attribution.host_counted": lambda: (records(2, energy=HOST), {}),
    "attribution.two_names_one_host": lambda: two(
        {"clock": clock(0), "gpu_uuid": "GPU-a"},
        {"clock": clock(0, boot="c"), "host": "node-2", "gpu_uuid": "GPU-a"},
    ),
    "attribution.contradictory": lambda: two(
        {"energy": HOST}, {"energy": {"gpu_energy_j": 3000.0, "total_energy_j": 3000.0, **HOST}}
    ),
    "completeness.missing_process": lambda: ([record(0, of=2)], {}),
    "completeness.unreadable_file": lambda: ([record(0, of=2)], {"unreadable": [UNREADABLE]}),
    "completeness.unexpected_process": lambda: (records(2), {"expected_processes": 1}),
    "completeness.world_size": lambda: ([record(0, of=2), record(1, of=3)], {}),
    "completeness.no_energy": lambda: one(energy={"total_energy_j": None}),
    "completeness.sensor_time": lambda: two(
        {"energy": sensor()}, {"energy": sensor(energy_j=None, problems=["claimed"]) | {"window": LATER}}
    ),
    "completeness.unfinished_process": lambda: one(status="failed", error_type="OutOfMemoryError"),
    "completeness.duplicate_process": lambda: two(
        {"gpu_uuid": "GPU-a", "gpu_id": 0}, {"gpu_uuid": "GPU-a", "gpu_id": 0, "energy": {"total_energy_j": 8000.0,
         "gpu_energy_j": 8000.0}},
    ),
    "time.no_overlap": lambda: two({}, {"timestamps": LATER}),
    "time.short_overlap": lambda: two(
        {"timestamps": factories.timestamps(START, 600.0)},
        {"timestamps": factories.timestamps(START + timedelta(seconds=599), 600.0)},
    ),
    "time.impossible_span": lambda: one(timestamps=factories.timestamps(START, end=START - HOUR, duration_sec=None)),
    "time.mixed_offsets": lambda: two({}, {"timestamps": NAIVE}),
    "time.naive_stamps": lambda: two({"timestamps": NAIVE}, {"timestamps": NAIVE, "host": "node-2"}),
    "time.duration_mismatch": lambda: one(timestamps=factories.timestamps(START, 40.0, duration_sec=50.0)),
    "time.clock_jump": lambda: one(clock=clock(0, jump_sec=-30.0)),
    "time.clock_offset": lambda: two({"clock": clock(0)}, {"host": "node-2", "clock": clock(5.0, boot="c")}),
    "window.mismatch": lambda: one(inference={"inference_time_sec": 4.0}),
    "window.unknown": lambda: one(
        energy={"window": None, "duration_sec": None}, inference={"inference_time_sec": 9.5, "tokens_per_second": 862.0}
    ),
    "plausibility.power_above_limit": lambda: one(energy={"gpu_power_w": 329.0}),
    "plausibility.impossible_power": lambda: one(energy={"gpu_power_w": 3500.0}),
    "plausibility.power_contradicts_energy": lambda: one(energy={"gpu_power_w": 0.0}),
    "plausibility.below_idle": lambda: one(energy={"idle_power_w": 300.0}),
    "plausibility.components": lambda: one(energy={"cpu_energy_j": 500.0}),
    "plausibility.throughput": lambda: one(inference={"tokens_per_second": 5000.0}),
    "plausibility.tokens": lambda: one(inference={"output_tokens": 9000}),
    "plausibility.missing_gpu_energy": lambda: two({}, {"energy": {"gpu_energy_j": 0.0}}),
    "plausibility.outlier": lambda: (
        [*records(3), record(3, of=4, energy={"total_energy_j": 900.0, "gpu_energy_j": 900.0})], {}
    ),
    "counter.reset": lambda: one(energy=sensor(counter_start_j=50.0, counter_end_j=20.0)),
    "counter.wrap": lambda: one(energy=sensor(counter_start_j=50.0, counter_end_j=20.0, counter_range_j=100.0)),
    "counter.cumulative": lambda: one(energy=sensor(energy_j=5100.0, counter_start_j=5000.0, counter_end_j=5100.0)),
    "counter.lost": lambda: one(energy=sensor(problems=["sensor_lost"])),
    "counter.gap": lambda: one(energy=sensor(problems=["sampling_gap"])),
    "counter.mismatch": lambda: one(
        energy=sensor(source="nvml", component="gpu", energy_j=None, counter_start_j=50.0, counter_end_j=4050.0)
    ),
    "likeness.model": lambda: (*two({"model_name": "a"}, {"model_name": "b"})[:1], {"allow_mixed": True}),
    "likeness.backend": lambda: two({"backend_version": "1"}, {"backend_version": "2"}),
    "likeness.precision": lambda: two(
        {"compute_metrics": factories.compute(compute_precision="float16")},
        {"compute_metrics": factories.compute(compute_precision="float32")},
    ),
    "likeness.library_versions": lambda: two(
        {"library_versions": {"torch": "2.9", "numpy": "2"}}, {"library_versions": {"torch": "2.10", "numpy": "2"}}
    ),
    "likeness.batch_size": lambda: two(
        {"effective_config": {"batching": {"batch_size": 8}}}, {"effective_config": {"batching": {"batch_size": 16}}}
    ),
    "likeness.configuration": lambda: two(
        {"effective_config": {"top_k": 1, "rank": 0}}, {"effective_config": {"top_k": 2, "rank": 1}}
    ),
    "zero.duration": lambda: one(energy={"duration_sec": 0.0}),
    "zero.energy": lambda: one(energy={"total_energy_j": 0.0, "gpu_energy_j": 0.0}),
    "zero.energy_per_token": lambda: one(energy={"energy_per_token_j": 0.0}),
    "zero.peak_memory": lambda: one(compute_metrics=factories.compute(peak_memory_mb=0.0)),
    "zero.cpu_power": lambda: one(energy={"cpu_energy_j": 100.0, "cpu_power_w": 0.0, "total_energy_j": 8100.0}),
    "device.throttled": lambda: one(energy={"devices": [device(throttled={"sw_thermal_slowdown": 0.25})]}),
    "device.drift": lambda: one(energy={"devices": [device(clock_first_mhz=1980.0, clock_last_mhz=1500.0)]}),
    "zero.cpu_energy": lambda: one(energy={"cpu_energy_j": 0.0, "cpu_power_w": 90.0}),
    "provenance.schema_version": lambda: ([stored(record(), "schema_version")], {}),
}  # fmt: skip

# The check could not decide for each experiment; its finding has a reason.
NOT_CHECKED: dict[str, Callable[[], Experiment]] = {
    "energy.over_counted": lambda: (records(2, gpu_name="Zephyr 9000", energy=NO_SCOPE), {}),
    "energy.exceeds_devices": lambda: one(gpu_name="Zephyr 9000"),
    "attribution.repeated_gpu": lambda: two({"gpu_id": None}, {"gpu_uuid": None}),
    "attribution.module_sensor": lambda: one(
        gpu_name="NVIDIA GH200 480GB", energy={"cpu_energy_j": 100.0, "total_energy_j": 8100.0}
    ),
    "attribution.scope_unknown": lambda: (records(2, energy=NO_SCOPE), {}),
    "attribution.hosts_unknown": lambda: (records(2, energy=HOST, host=None, **NO_IDS), {}),
    "attribution.window_unknown": lambda: two(
        {"energy": HOST}, {"energy": HOST | {"window": factories.timestamps(START + timedelta(seconds=20), 40.0)}}
    ),
    "identity.repeated_gpu": lambda: (records(2, gpu_uuid="GPU-a"), {}),
    "identity.mig_slice": lambda: one(gpu_is_mig=True, gpu_uuid="MIG-1"),
    "identity.unnamed_gpu": lambda: one(**NO_IDS),
    "completeness.missing_process": lambda: ([record(0, of=None)], {}),
    "time.naive_stamps": lambda: one(timestamps=NAIVE),
    "time.no_overlap": one,
    "time.duration_mismatch": lambda: one(timestamps=factories.timestamps(START, end=None)),
    "time.clock_jump": lambda: one(clock=None),
    "time.clock_offset": lambda: two({}, {"host": "node-2", "timestamps": factories.timestamps(START + HOUR, 40.0)}),
    "window.mismatch": lambda: one(energy={"window": None, "duration_sec": None}),
    "window.unknown": lambda: one(energy={"window": None, "duration_sec": None}),
    "plausibility.outlier": one,
    "counter.recorded": one,
    "provenance.modelled": lambda: one(energy={"gpu_provenance": "modelled"}),
    "provenance.unknown": lambda: one(energy={"gpu_provenance": None, "total_provenance": None}),
    "provenance.tool_warning": lambda: one(energy_measurement_warning="sampled once"),
    "suspicion.identical_readings": lambda: (records(2, energy=NO_SCOPE), {}),
}


def honest() -> list[RawProcessResult]:
    """Return four processes that pass every check."""
    energy = {"idle_power_w": 50.0, **sensor(counter_start_j=50.0, counter_end_j=150.0)}
    versions = {"torch": "2.9"}
    return [
        record(index, of=4, clock=clock(0), energy={**energy, "devices": [device(index)]}, library_versions=versions)
        for index in range(4)
    ]
