"""Energy sources: what each opens, and what it says where it can't."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.doctor import examine_sources
from llm_energy_measure.recorder.place import find_place
from llm_energy_measure.recorder.sources import Setting, get_source, open_sources, source_names
from llm_energy_measure.recorder.sources.amdsmi import AmdSmi
from llm_energy_measure.recorder.sources.codecarbon import CodeCarbon
from llm_energy_measure.recorder.sources.cpu_model import CpuModel
from llm_energy_measure.recorder.sources.nvml import Nvml
from llm_energy_measure.recorder.sources.rapl import Rapl
from llm_energy_measure.recorder.sources.zeus import Zeus
from tests.support.children import open_folder, outcome_in_child
from tests.support.devices import Board, FakeAmdSmi, FakeNvml, FakeTracker, FakeZeus, Slice
from tests.support.replay import ManualClock, ReplaySource, sensor, steady_watts

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.recorder.sources import Sensor

__all__ = ["open_folder"]  # a fixture


def setting(*, w_per_core: Any = None, gpus: Any = None, **environ: str) -> Setting:
    return Setting(environ=environ, place=find_place(environ), w_per_core=w_per_core, gpus=gpus)


def boards(count: int = 2, **changes: Any) -> list[Board]:
    return [Board(index=index, uuid=f"GPU-{index}a2b", **changes) for index in range(count)]


def meanings(sensors: list[Sensor]) -> list[tuple[str, str, str, str]]:
    return [(one.instance, one.component, one.scope, one.provenance) for one in sensors]


# NVML


def test_nvml_reads_the_counter_of_each_gpu() -> None:
    nvml = FakeNvml(boards())
    source = Nvml(nvml)
    sensors = source.open(setting())
    assert meanings(sensors) == [
        ("GPU-0a2b", "gpu", "device", "measured"),
        ("GPU-1a2b", "gpu", "device", "measured"),
    ]
    nvml.boards[1].energy_mj = 2_500_500.0
    assert [one.read() for one in sensors] == [1000.0, 2500.5]
    device = sensors[1].device
    assert device is not None
    assert (device.gpu_id, device.gpu_name, device.gpu_power_limit_w, device.mig_profile) == (
        *(1, "NVIDIA A100-SXM4-40GB"),
        *(400.0, None),
    )
    source.close()
    source.close()
    assert nvml.initialised == 0


def test_nvml_samples_power_where_there_is_no_counter() -> None:
    [sensor_] = Nvml(FakeNvml(boards(1, energy_mj=None))).open(setting())
    assert (sensor_.quantity, sensor_.provenance, sensor_.read()) == ("power", "integrated", 200.0)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["GPU-1a2b"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1"}, ["GPU-1a2b"]),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, ["GPU-1a2b", "GPU-0a2b"]),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, ["GPU-1a2b"]),
    ],
)
def test_nvml_reads_the_process_s_own_gpus(environ: dict[str, str], expected: list[str]) -> None:
    assert [one.instance for one in Nvml(FakeNvml(boards())).open(setting(**environ))] == expected


def test_nvml_reads_the_gpus_that_the_caller_names() -> None:
    assert [one.instance for one in Nvml(FakeNvml(boards())).open(setting(gpus=("1",)))] == ["GPU-1a2b"]


@pytest.mark.parametrize("missing", ["9", "GPU-f", "MIG-f"])
def test_the_list_ends_at_the_first_gpu_that_is_not_there_as_for_cuda(missing: str) -> None:
    told = setting(CUDA_VISIBLE_DEVICES=f"1,{missing},0")
    assert [one.instance for one in Nvml(FakeNvml(boards())).open(told)] == ["GPU-1a2b"]
    [note] = told.notes
    assert note.startswith(f"CUDA_VISIBLE_DEVICES is read up to {missing}, which is not here (")


def test_a_mig_slice_is_read_on_its_board() -> None:
    board = Board(
        index=0, uuid="GPU-0a2b", slices=[Slice(uuid="MIG-5f", name=b"NVIDIA A100-SXM4-40GB MIG 1g.5gb".decode())]
    )
    [sensor_] = Nvml(FakeNvml([board])).open(setting(CUDA_VISIBLE_DEVICES="MIG-5f"))
    device = sensor_.device
    assert device is not None
    assert (device.gpu_uuid, device.mig_profile, device.gpu_id) == ("MIG-5f", "1g.5gb", 0)
    assert sensor_.sees == "GPU-0a2b"
    assert sensor_.read() == 1000.0


def test_old_libraries_answer_in_bytes_and_not_everything() -> None:
    [sensor_] = Nvml(FakeNvml(boards(1, name=b"Tesla V100", limit_mw=None))).open(setting())
    assert sensor_.device is not None
    assert (sensor_.device.gpu_name, sensor_.device.gpu_power_limit_w) == ("Tesla V100", None)


@pytest.mark.parametrize(
    ("nvml", "environ", "told"),
    [
        (FakeNvml([], has_driver=False), {}, "Driver Not Loaded; check that nvidia-smi works here"),
        (FakeNvml(boards()), {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES shows this process none"),
        (FakeNvml(boards()), {"CUDA_VISIBLE_DEVICES": "7"}, "Invalid Argument"),
        (FakeNvml(boards()), {"CUDA_VISIBLE_DEVICES": "GPU-f"}, "Not Found"),
        (FakeNvml(boards(1, energy_mj=None, power_mw=None)), {}, "Not Supported"),
    ],
)
def test_nvml_says_why_not(nvml: FakeNvml, environ: dict[str, str], told: str) -> None:
    source = Nvml(nvml)
    with pytest.raises(RecorderError, match=told):
        source.open(setting(**environ))
    source.close()
    assert nvml.initialised == 0


def test_a_gpu_that_falls_off_the_bus_raises_where_it_is_read() -> None:
    nvml = FakeNvml(boards(1))
    [sensor_] = Nvml(nvml).open(setting())
    nvml.boards[0].is_lost = True
    with pytest.raises(nvml.NVMLError, match="GPU is lost"):
        sensor_.read()


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is not None, reason="pynvml is installed here")
def test_message_names_missing_nvml_package() -> None:
    with pytest.raises(RecorderError, match="the package nvidia-ml-py is not installed; pip install nvidia-ml-py"):
        Nvml().open(setting())


# RAPL


def zone(folder: Path, zone_name: str, name: str, joules: float, range_j: float = 262143.328850) -> Path:
    """A zone as Linux shows it; returns the file of its counter."""
    place = folder / zone_name
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "energy_uj").write_text(f"{round(joules * 1e6)}\n")
    (place / "max_energy_range_uj").write_text(f"{round(range_j * 1e6)}\n")
    return place / "energy_uj"


def two_sockets(folder: Path) -> None:
    for socket in range(2):
        zone(folder, f"intel-rapl:{socket}", f"package-{socket}", 100.0 + socket)
        zone(folder, f"intel-rapl:{socket}:0", "core", 60.0)
        zone(folder, f"intel-rapl:{socket}:1", "uncore", 1.0)
        zone(folder, f"intel-rapl:{socket}:2", "dram", 10.0 + socket, range_j=65712.999613)
    zone(folder, "intel-rapl:2", "psys", 5000.0)
    zone(folder, "intel-rapl-mmio:0", "package-0", 100.0)
    (folder / "intel-rapl").mkdir()


def test_rapl_reads_packages_and_memory_and_nothing_twice(tmp_path: Path) -> None:
    two_sockets(tmp_path)
    sensors = Rapl(tmp_path).open(setting())
    assert sorted(meanings(sensors)) == [
        ("dram-0", "ram", "host", "measured"),
        ("dram-1", "ram", "host", "measured"),
        ("package-0", "cpu", "host", "measured"),
        ("package-1", "cpu", "host", "measured"),
    ]
    read = {one.instance: (one.read(), one.range_j) for one in sensors}
    assert read["package-1"] == pytest.approx((101.0, 262143.328850))
    assert read["dram-1"] == pytest.approx((11.0, 65712.999613))


def test_rapl_explains_the_permission(open_folder: Path) -> None:
    two_sockets(open_folder)
    for path in open_folder.glob("*/energy_uj"):
        path.chmod(0o400)
    refused = outcome_in_child(lambda: Rapl(open_folder).open(setting()), unprivileged=True)
    assert isinstance(refused, RecorderError)
    assert "is readable for root alone, as Linux has it since 5.10" in refused.found
    assert "chmod a+r" in refused.advice


@pytest.mark.parametrize("text", ["", "x"])
def test_rapl_that_reads_no_number_is_refused(tmp_path: Path, text: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1.0).write_text(text)
    with pytest.raises(RecorderError, match="check the kernel's module intel_rapl_msr"):
        Rapl(tmp_path).open(setting())


def test_rapl_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="can't be listed .*; read it on the machine itself: a virtual machine"):
        Rapl(tmp_path / "powercap").open(setting())
    with pytest.raises(RecorderError, match="it has no package; load the kernel's module"):
        Rapl(tmp_path).open(setting())


# The others


@pytest.mark.parametrize("counter_name", ["energy_accumulator", "power"])
def test_amdsmi_multiplies_ticks_and_resolution(counter_name: str) -> None:
    smi = FakeAmdSmi(["a-1", "a-2-nameless"], counter_name)
    source = AmdSmi(smi)
    sensors = source.open(setting())
    assert meanings(sensors) == [("a-1", "gpu", "device", "measured"), ("a-2-nameless", "gpu", "device", "measured")]
    assert sensors[0].read() == pytest.approx(15.3)
    assert [one.device.gpu_name for one in sensors if one.device] == ["AMD Instinct MI300X", None]
    source.close()
    assert [one.instance for one in AmdSmi(smi).open(setting(ROCR_VISIBLE_DEVICES="1"))] == ["a-2-nameless"]
    with pytest.raises(RecorderError, match="no AMD GPU is visible to this process; check ROCR_VISIBLE_DEVICES"):
        AmdSmi(smi).open(setting(HIP_VISIBLE_DEVICES=""))
    assert [one.instance for one in AmdSmi(smi).open(setting(ROCR_VISIBLE_DEVICES="0,7,1"))] == ["a-1"]


def test_zeus_reads_what_it_finds() -> None:
    sensors = Zeus(FakeZeus(gpus=2, cpus=2)).open(setting(CUDA_VISIBLE_DEVICES="3,5"))
    assert meanings(sensors) == [
        ("gpu-3", "gpu", "device", "measured"),
        ("gpu-5", "gpu", "device", "measured"),
        ("cpu-0", "cpu", "host", "measured"),
        ("dram-0", "ram", "host", "measured"),
        ("cpu-1", "cpu", "host", "measured"),
    ]
    assert [one.read() for one in sensors] == [5.0, 5.001, 5.0, 0.5, 5.0]
    assert [one.device.gpu_id for one in sensors if one.device] == [3, 5]


def test_zeus_without_a_gpu_reads_the_rest_and_without_anything_says_so() -> None:
    assert len(Zeus(FakeZeus(gpus=0, cpus=1)).open(setting())) == 2
    with pytest.raises(RecorderError, match="RuntimeError: No gpu found; RuntimeError: No cpu found"):
        Zeus(FakeZeus(gpus=0, cpus=0)).open(setting())


def test_codecarbon_s_tasks_add_up() -> None:
    clock = ManualClock()
    tracker = FakeTracker(clock.monotonic)
    source = CodeCarbon(lambda: tracker, now=clock.monotonic)
    sensors = source.open(setting())
    assert meanings(sensors) == [
        ("cpu", "cpu", "host", "modelled"),
        ("ram", "ram", "host", "modelled"),
        ("gpu", "gpu", "host", "measured"),
    ]
    assert not any(one.is_cheap for one in sensors)
    for second in range(1, 4):
        clock.now = float(second)
        assert [one.read() for one in sensors] == pytest.approx([100.0 * second, 10.0 * second, 200.0 * second])
    source.close()
    assert tracker.task is None


def test_codecarbon_that_cannot_start_is_refused() -> None:
    def broken() -> Any:
        raise ValueError("no hardware")

    source = CodeCarbon(broken)
    with pytest.raises(RecorderError, match="ValueError: no hardware"):
        source.open(setting())
    source.close()


def test_the_model_is_never_called_measured() -> None:
    [sensor_] = CpuModel(cpu_seconds=lambda: 2.5).open(setting(w_per_core=4.0))
    assert (sensor_.read(), sensor_.scope, sensor_.provenance) == (10.0, "process", "modelled")
    [stated] = CpuModel(cpu_seconds=lambda: 2.0).open(setting(LLM_ENERGY_MEASURE_W_PER_CORE="5"))
    assert stated.read() == 10.0


@pytest.mark.parametrize("watts", ["x", "-1", "nan", "inf", "0.0"])
def test_the_model_wants_a_number_and_says_so_also_where_others_measure(watts: str) -> None:
    wrong, told = (
        setting(LLM_ENERGY_MEASURE_W_PER_CORE=watts),
        "was stated as the watts of a core; state a number above 0",
    )
    clock = ManualClock()
    measuring = steady_watts(50.0, clock)
    with pytest.raises(ConfigurationError, match=told):
        open_sources([measuring, "cpu_model"], wrong)
    assert not measuring.is_open
    [check] = examine_sources(wrong, clock, sources=["cpu_model"])
    assert (check.works, check.advice) == (False, "state a number above 0")


def test_the_model_has_no_power_of_its_own() -> None:
    with pytest.raises(RecorderError, match="nobody stated the watts of a core"):
        CpuModel().open(setting())


# All of them


def test_each_of_our_sources_is_had_by_its_name() -> None:
    assert [get_source(name).name for name in source_names()] == source_names()


def test_sources_of_other_packages_come_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "meters-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: meters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[llm_energy_measure.sources]\nwall = meters_of_tests:Wall\nmade = meters_of_tests:make\n"
        "torn = meters_of_tests:nothing\nno_source = meters_of_tests:NUMBER\nrapl = meters_of_tests:Wall\n"
    )
    (tmp_path / "meters_of_tests.py").write_text(
        "class Wall:\n    name = 'wall'\n    def open(self, setting): return []\n    def close(self): pass\n"
        "def make(): return Wall()\nNUMBER = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert source_names()[-4:] == ["made", "no_source", "torn", "wall"]
    assert get_source("wall").name == get_source("made").name == "wall"
    assert isinstance(get_source("rapl"), Rapl)
    for name in ("torn", "no_source"):
        with pytest.raises(ConfigurationError, match="correct the package that provides it"):
            get_source(name)


def test_no_two_sources_measure_the_same_component() -> None:
    everything = ReplaySource(sensor(lambda: 1.0, component="total", instance="wall"))
    opened = open_sources([steady_watts(1.0), steady_watts(2.0, component="ram"), everything], setting())
    assert [one.component for one in opened.sensors] == ["cpu", "ram", "total"]
    opened = open_sources([everything, steady_watts(1.0)], setting())
    assert [one.component for one in opened.sensors] == ["total"]


def test_doctor_says_what_works_and_what_does_not() -> None:
    clock = ManualClock()

    def dead() -> float:
        raise OSError("gone")

    broken = ReplaySource(sensor(dead, instance="package-1"))
    checks = examine_sources(
        setting(), clock, sources=[steady_watts(50.0, clock), ReplaySource(refuses=True), broken, "nope"]
    )
    assert [check.works for check in checks] == [True, False, True, False]
    assert checks[0].sensors[0].power_w == pytest.approx(50.0)
    assert (checks[1].problem, checks[1].advice) == ("there is nothing to replay", "record something first")
    assert (checks[2].sensors[0].power_w, checks[2].sensors[0].problem) == (None, "OSError: gone")
    assert checks[3].problem == "there is no such source"


def test_doctor_survives_any_machine() -> None:
    checks = examine_sources(setting(), ManualClock())
    assert [check.source for check in checks] == source_names()
    assert all(check.works or (check.problem and check.advice) for check in checks)
