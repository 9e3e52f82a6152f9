"""Energy sources: the sensors of each, and its errors."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.doctor import examine_sources
from llm_energy_measure.recorder.ranks import find_rank
from llm_energy_measure.recorder.sources import Settings, get_source, open_sources, source_names
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

    from llm_energy_measure.recorder.sources import Sensor, Source

__all__ = ["open_folder"]  # a fixture


def settings(*, w_per_core: Any = None, gpus: Any = None, **environ: str) -> Settings:
    return Settings(environ=environ, rank=find_rank(environ), w_per_core=w_per_core, gpus=gpus)


def boards(count: int = 2, **changes: Any) -> list[Board]:
    return [Board(index=index, uuid=f"GPU-{index}a2b", **changes) for index in range(count)]


def summaries(sensors: list[Sensor]) -> list[tuple[str, str, str, str]]:
    return [(one.instance, one.component, one.scope, one.provenance) for one in sensors]


# NVML


def test_nvml_reads_the_counter_of_each_gpu() -> None:
    nvml = FakeNvml(boards())
    source = Nvml(nvml)
    sensors = source.open(settings())
    assert summaries(sensors) == [
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


def test_nvml_samples_power_of_boards_without_counter() -> None:
    [sensor_] = Nvml(FakeNvml(boards(1, energy_mj=None))).open(settings())
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
def test_nvml_reads_the_gpus_of_the_process(environ: dict[str, str], expected: list[str]) -> None:
    assert [one.instance for one in Nvml(FakeNvml(boards())).open(settings(**environ))] == expected


def test_nvml_reads_the_gpus_that_the_user_selects() -> None:
    assert [one.instance for one in Nvml(FakeNvml(boards())).open(settings(gpus=("1",)))] == ["GPU-1a2b"]


@pytest.mark.parametrize("missing", ["9", "GPU-f", "MIG-f"])
def test_nvml_reads_visible_devices_up_to_a_missing_one(missing: str) -> None:
    variables = settings(CUDA_VISIBLE_DEVICES=f"1,{missing},0")
    assert [one.instance for one in Nvml(FakeNvml(boards())).open(variables)] == ["GPU-1a2b"]
    [note] = variables.notes
    assert note.startswith(f"CUDA_VISIBLE_DEVICES names {missing}, which does not exist here (")


def test_nvml_reads_a_mig_slice_on_its_board() -> None:
    board = Board(
        index=0, uuid="GPU-0a2b", slices=[Slice(uuid="MIG-5f", name=b"NVIDIA A100-SXM4-40GB MIG 1g.5gb".decode())]
    )
    [sensor_] = Nvml(FakeNvml([board])).open(settings(CUDA_VISIBLE_DEVICES="MIG-5f"))
    device = sensor_.device
    assert device is not None
    assert (device.gpu_uuid, device.mig_profile, device.gpu_id) == ("MIG-5f", "1g.5gb", 0)
    assert sensor_.board == "GPU-0a2b"
    assert sensor_.read() == 1000.0


def test_nvml_accepts_bytes_and_missing_facts() -> None:
    [sensor_] = Nvml(FakeNvml(boards(1, name=b"Tesla V100", limit_mw=None))).open(settings())
    assert sensor_.device is not None
    assert (sensor_.device.gpu_name, sensor_.device.gpu_power_limit_w) == ("Tesla V100", None)


@pytest.mark.parametrize(
    ("nvml", "environ", "message"),
    [
        (FakeNvml([], has_driver=False), {}, "Driver Not Loaded; check that nvidia-smi works here"),
        (FakeNvml(boards()), {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES shows no GPU to this process"),
        (FakeNvml(boards()), {"CUDA_VISIBLE_DEVICES": "7"}, "Invalid Argument"),
        (FakeNvml(boards()), {"CUDA_VISIBLE_DEVICES": "GPU-f"}, "Not Found"),
        (FakeNvml(boards(1, energy_mj=None, power_mw=None)), {}, "Not Supported"),
    ],
)
def test_nvml_error_gives_the_reason(nvml: FakeNvml, environ: dict[str, str], message: str) -> None:
    source = Nvml(nvml)
    with pytest.raises(RecorderError, match=message):
        source.open(settings(**environ))
    source.close()
    assert nvml.initialised == 0


def test_one_lost_gpu_does_not_drop_the_others() -> None:
    nvml = FakeNvml(boards(8))
    nvml.boards[3].is_lost = True
    sensors = Nvml(nvml).open(settings())
    assert [one.device.gpu_id for one in sensors if one.device is not None] == list(range(8))
    assert [one.read() for one in sensors if one.instance != "3"] == [1000.0] * 7
    with pytest.raises(nvml.NVMLError, match="GPU is lost"):
        sensors[3].read()


def test_all_gpus_lost_is_an_error() -> None:
    nvml = FakeNvml(boards(2))
    for board in nvml.boards:
        board.is_lost = True
    with pytest.raises(RecorderError, match="GPU is lost"):
        Nvml(nvml).open(settings())


@pytest.mark.parametrize("name", ["99", "GPU-f"])
def test_selected_gpu_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"cannot measure GPU {name}: .*; this machine has 2 GPUs; correct"):
        open_sources([Nvml(FakeNvml(boards()))], settings(gpus=("0", name)))


@pytest.mark.parametrize("gpus", [("0",), ("99", "7")])
def test_selected_gpu_that_no_source_reads_is_noted(gpus: tuple[str, ...]) -> None:
    """The energy of the CPU alone must not pass for the energy of the run."""
    lost = FakeNvml(boards(1))
    lost.boards[0].is_lost = True
    sources: list[str | Source] = ["cpu_model"] if len(gpus) > 1 else [Nvml(lost), "cpu_model"]
    opened = open_sources(sources, settings(gpus=gpus, w_per_core=10.0))
    assert [sensor.component for sensor in opened.sensors] == ["cpu"]
    note = f"GPU {', '.join(gpus)} is selected, but no source reads a GPU"
    assert opened.notes == [f"{note}; 'llm-energy-measure doctor' names the reasons"]


def test_reading_a_lost_gpu_raises() -> None:
    nvml = FakeNvml(boards(1))
    [sensor_] = Nvml(nvml).open(settings())
    nvml.boards[0].is_lost = True
    with pytest.raises(nvml.NVMLError, match="GPU is lost"):
        sensor_.read()


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is not None, reason="pynvml is installed here")
def test_message_names_the_missing_nvml_package() -> None:
    with pytest.raises(RecorderError, match="the package nvidia-ml-py cannot be imported .*; pip install nvidia-ml-py"):
        Nvml().open(settings())


# RAPL


def zone(folder: Path, zone_name: str, name: str, joules: float, range_j: float = 262143.328850) -> Path:
    """Create a zone as Linux shows it, and return the file of its counter."""
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


def test_rapl_reads_packages_and_memory_once(tmp_path: Path) -> None:
    two_sockets(tmp_path)
    sensors = Rapl(tmp_path).open(settings())
    assert sorted(summaries(sensors)) == [
        ("dram-0", "ram", "host", "measured"),
        ("dram-1", "ram", "host", "measured"),
        ("package-0", "cpu", "host", "measured"),
        ("package-1", "cpu", "host", "measured"),
    ]
    read = {one.instance: (one.read(), one.range_j) for one in sensors}
    assert read["package-1"] == pytest.approx((101.0, 262143.328850))
    assert read["dram-1"] == pytest.approx((11.0, 65712.999613))


def test_rapl_error_explains_the_permission(open_folder: Path) -> None:
    two_sockets(open_folder)
    for path in open_folder.glob("*/energy_uj"):
        path.chmod(0o400)
    refused = outcome_in_child(lambda: Rapl(open_folder).open(settings()), unprivileged=True)
    assert isinstance(refused, RecorderError)
    assert "this is the default since Linux 5.10" in refused.found
    assert "chmod a+r" in refused.advice


@pytest.mark.parametrize("text", ["", "x"])
def test_rapl_counter_that_is_not_a_number_is_refused(tmp_path: Path, text: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1.0).write_text(text)
    with pytest.raises(RecorderError, match="check the kernel module intel_rapl_msr"):
        Rapl(tmp_path).open(settings())


def test_rapl_error_on_a_machine_without_rapl(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="can't be listed .*; run on the host itself: virtual machines"):
        Rapl(tmp_path / "powercap").open(settings())
    with pytest.raises(RecorderError, match="it has no processor package; load the kernel module"):
        Rapl(tmp_path).open(settings())


# Other sources


@pytest.mark.parametrize("counter_name", ["energy_accumulator", "power"])
def test_amdsmi_multiplies_ticks_and_resolution(counter_name: str) -> None:
    smi = FakeAmdSmi(["a-1", "a-2-nameless"], counter_name)
    source = AmdSmi(smi)
    sensors = source.open(settings())
    assert summaries(sensors) == [("a-1", "gpu", "device", "measured"), ("a-2-nameless", "gpu", "device", "measured")]
    assert sensors[0].read() == pytest.approx(15.3)
    assert [one.device.gpu_name for one in sensors if one.device] == ["AMD Instinct MI300X", None]
    source.close()
    assert [one.instance for one in AmdSmi(smi).open(settings(ROCR_VISIBLE_DEVICES="1"))] == ["a-2-nameless"]
    with pytest.raises(RecorderError, match="this process sees no AMD GPU; check ROCR_VISIBLE_DEVICES"):
        AmdSmi(smi).open(settings(HIP_VISIBLE_DEVICES=""))
    assert [one.instance for one in AmdSmi(smi).open(settings(ROCR_VISIBLE_DEVICES="0,7,1"))] == ["a-1"]


def test_amdsmi_is_not_imported_without_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "amdsmi.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecorderError, match=f"this machine shows no AMD GPU .{tmp_path}/kfd does not exist"):
        AmdSmi(driver=tmp_path / "kfd").open(settings())


def test_output_of_the_import_goes_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = "import ctypes, os", "print('python')", "ctypes.CDLL(None).puts(b'library')", "os.write(1, b'descriptor')"
    (tmp_path / "amdsmi.py").write_text("\n".join((*lines, "raise KeyError('no library')")))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    with pytest.raises(RecorderError, match="libamd_smi.so can't be loaded"):
        AmdSmi(driver=tmp_path).open(settings())
    sys.stdout.write("own\n")
    out, err = capfd.readouterr()
    assert out == "own\n"
    assert sorted(err.replace("descriptor", "descriptor\n").split()) == ["descriptor", "library", "python"]


def test_zeus_reads_gpus_cpus_and_memory() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "3,5"}
    sensors = Zeus(FakeZeus(gpus=2, cpus=2), environ).open(settings(**environ))
    assert summaries(sensors) == [
        ("gpu-3", "gpu", "device", "measured"),
        ("gpu-5", "gpu", "device", "measured"),
        ("cpu-0", "cpu", "host", "measured"),
        ("dram-0", "ram", "host", "measured"),
        ("cpu-1", "cpu", "host", "measured"),
    ]
    assert [one.read() for one in sensors] == [5.0, 5.001, 5.0, 0.5, 5.0]
    assert [one.device.gpu_id for one in sensors if one.device] == [3, 5]


def test_zeus_labels_gpus_as_the_process_sees_them() -> None:
    # Zeus reads the environment of the process and not the one that the recording gets.
    sensors = Zeus(FakeZeus(gpus=4, cpus=0), {}).open(settings(CUDA_VISIBLE_DEVICES="3"))
    assert [(one.instance, one.read()) for one in sensors] == [("gpu-3", 5.003)]
    with pytest.raises(RecorderError, match="Zeus finds no device|No cpu found"):
        Zeus(FakeZeus(gpus=2, cpus=0), {"CUDA_VISIBLE_DEVICES": "0,1"}).open(settings(CUDA_VISIBLE_DEVICES="3"))


def test_zeus_works_without_gpu_and_refuses_without_device() -> None:
    assert len(Zeus(FakeZeus(gpus=0, cpus=1)).open(settings())) == 2
    with pytest.raises(RecorderError, match="RuntimeError: No gpu found; RuntimeError: No cpu found"):
        Zeus(FakeZeus(gpus=0, cpus=0)).open(settings())


def test_codecarbon_sums_its_tasks() -> None:
    clock = ManualClock()
    tracker = FakeTracker(clock.monotonic)
    source = CodeCarbon(lambda: tracker, now=clock.monotonic)
    sensors = source.open(settings())
    assert summaries(sensors) == [
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
        source.open(settings())
    source.close()


def test_cpu_model_is_modelled_energy_of_the_process() -> None:
    [sensor_] = CpuModel(cpu_seconds=lambda: 2.5).open(settings(w_per_core=4.0))
    assert (sensor_.read(), sensor_.scope, sensor_.provenance) == (10.0, "process", "modelled")
    [stated] = CpuModel(cpu_seconds=lambda: 2.0).open(settings(LLM_ENERGY_MEASURE_W_PER_CORE="5"))
    assert stated.read() == 10.0


@pytest.mark.parametrize("watts", ["x", "-1", "nan", "inf", "0.0"])
def test_cpu_model_refuses_a_wrong_power_per_core(watts: str) -> None:
    wrong, message = (
        settings(LLM_ENERGY_MEASURE_W_PER_CORE=watts),
        "the power per core is .*; state a number of watts above 0",
    )
    clock = ManualClock()
    measuring = steady_watts(50.0, clock)
    with pytest.raises(ConfigurationError, match=message):
        open_sources([measuring, "cpu_model"], wrong)
    assert not measuring.is_open
    [check] = examine_sources(wrong, clock, sources=["cpu_model"])
    assert (check.works, check.advice) == (False, "state a number of watts above 0")


def test_cpu_model_has_no_default_power() -> None:
    with pytest.raises(RecorderError, match="the power per core is not stated"):
        CpuModel().open(settings())


# All sources


def test_get_source_finds_each_built_in_source() -> None:
    assert [get_source(name).name for name in source_names()] == source_names()


def test_get_source_finds_entry_points_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_each_component_is_measured_by_one_source() -> None:
    everything = ReplaySource(sensor(lambda: 1.0, component="total", instance="wall"))
    opened = open_sources([steady_watts(1.0), steady_watts(2.0, component="ram"), everything], settings())
    assert [one.component for one in opened.sensors] == ["cpu", "ram", "total"]
    opened = open_sources([everything, steady_watts(1.0)], settings())
    assert [one.component for one in opened.sensors] == ["total"]


def test_doctor_checks_each_source() -> None:
    clock = ManualClock()

    def dead() -> float:
        raise OSError("gone")

    broken = ReplaySource(sensor(dead, instance="package-1"))
    checks = examine_sources(
        settings(), clock, sources=[steady_watts(50.0, clock), ReplaySource(fails=True), broken, "nope"]
    )
    assert [check.works for check in checks] == [True, False, True, False]
    assert checks[0].sensors[0].power_w == pytest.approx(50.0)
    assert (checks[1].problem, checks[1].advice) == ("there is no trace", "record a trace first")
    assert (checks[2].sensors[0].power_w, checks[2].sensors[0].problem) == (None, "OSError: gone")
    assert checks[3].problem == "there is no such source"


def test_doctor_works_on_this_machine() -> None:
    checks = examine_sources(settings(), ManualClock())
    assert [check.source for check in checks] == source_names()
    assert all(check.works or (check.problem and check.advice) for check in checks)
