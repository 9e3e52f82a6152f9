"""The software and the machine of a run, and the settings of its serving engine."""

from __future__ import annotations

import dataclasses
import enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import UNSET

from llm_energy_measure.recorder.engines import engine_of_command, engine_of_object
from llm_energy_measure.recorder.environment import environment_of
from llm_energy_measure.recorder.sources.nvml import Nvml
from tests.support.devices import Board, FakeNvml
from tests.support.recordings import load_result, make_recording

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.environment import Environment
    from llm_energy_measure.results import FileSystemRepository
    from tests.support.replay import ManualClock


def environment(repository: FileSystemRepository) -> Environment:
    found = load_result(repository).recording_environment
    assert found is not UNSET
    return found


def test_facts_come_from_the_files_of_linux(tmp_path: Path) -> None:
    for cpu, governor in enumerate(("powersave", "performance", "powersave")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 9654\n")
    (tmp_path / ".dockerenv").touch()
    found = environment_of({}, [], tmp_path)
    assert (found.cpu_governor, found.cpu_model, found.container) == (
        "performance,powersave",
        "AMD EPYC 9654",
        "docker",
    )
    assert found.python_version is not None
    assert found.gpu_driver is None


@pytest.mark.parametrize(
    ("environ", "container"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"APPTAINER_CONTAINER": "/x.sif"}, "apptainer"),
        ({"container": "lxc"}, "lxc"),
        ({}, None),
    ],
)
def test_container_of_the_environment(tmp_path: Path, environ: dict[str, str], container: str | None) -> None:
    assert environment_of(environ, [], tmp_path).container == container


def test_record_has_driver_and_versions(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock, sources=[Nvml(FakeNvml([Board(index=0, uuid="GPU-a")]))]):
        clock.sleep(1)
    found = environment(repository)
    assert (found.gpu_driver, found.cuda_version) == ("550.54.15", "12.4")
    assert found.recorder_version is not None
    assert found.engine is None


@pytest.mark.parametrize(
    ("command", "name", "settings"),
    [
        (
            ["/opt/bin/vllm", "serve", "org/model", "--tensor-parallel-size=4", "--seed", "-1", "--api-key", "sk-1"],
            "vllm",
            {"arguments": "org/model", "tensor-parallel-size": "4", "seed": "-1", "api-key": "(removed)"},
        ),
        (
            ["python3", "-m", "sglang.launch_server", "--model-path", "m", "--tp", "2", "--enable-metrics"],
            "sglang",
            {"model-path": "m", "tp": "2", "enable-metrics": "true"},
        ),
        (["env", "A=1", "llama-server", "-m", "m.gguf", "-ngl", "99"], "llama.cpp", {"m": "m.gguf", "ngl": "99"}),
    ],
)
def test_engine_of_a_command(command: list[str], name: str, settings: dict[str, Any]) -> None:
    found = engine_of_command(command)
    assert found is not None
    assert (found.name, found.settings) == (name, settings)


@pytest.mark.parametrize("command", [[], ["python", "generate.py"], ["echo", "vllm"], ["python", "-m"]])
def test_other_command_has_no_engine(command: list[str]) -> None:
    assert engine_of_command(command) is None


class Kind(enum.Enum):
    AUTO = "auto"


@dataclasses.dataclass
class CacheConfig:
    block_size: int = 16
    dtype: Kind = Kind.AUTO
    limit: float = float("inf")
    tensors: object = dataclasses.field(default_factory=object)
    _hidden: int = 1


def test_engine_of_an_object_is_flat(repository: FileSystemRepository, clock: ManualClock) -> None:
    engine = SimpleNamespace(
        llm_engine=SimpleNamespace(
            vllm_config={"cache": CacheConfig(), "sizes": [1, 2], "api_key": "sk-1", "deep": {"a": {"b": None}}}
        )
    )
    with make_recording(repository, clock) as run:
        run.describe_engine(engine)
    assert environment(repository).engine_config == {
        "cache.block_size": 16,
        "cache.dtype": "auto",
        "cache.limit": "inf",
        "sizes": "1, 2",
        "api_key": "(removed)",
        "deep.a.b": None,
    }


@pytest.mark.parametrize(
    "name", ["api-key", "api_key", "hf_token", "hf-token", "ssl-keyfile-password", "client_secret"]
)
def test_values_of_secret_settings_are_removed(name: str) -> None:
    found = engine_of_command(["vllm", "serve", f"--{name}", "x1", f"--{name.upper()}=x2"])
    assert found is not None
    assert set(found.settings.values()) == {"(removed)"}
    assert engine_of_object({"model": {name: "x3"}}).settings == {f"model.{name}": "(removed)"}


def test_all_values_of_a_secret_setting_are_removed() -> None:
    found = engine_of_command(["vllm", "serve", "m", "--api-key", "k1", "k2", "--seed", "-1"])
    assert found is not None
    assert found.settings == {"arguments": "m", "api-key": "(removed)", "seed": "-1"}
    assert engine_of_object({"hf_token": None}).settings == {"hf_token": None}


@pytest.mark.parametrize("name", ["max-num-batched-tokens", "tokenizer", "tokenizer-mode", "max_total_tokens"])
def test_settings_about_tokens_are_no_secrets(name: str) -> None:
    found = engine_of_command(["vllm", "serve", f"--{name}", "8192"])
    assert found is not None
    assert found.settings == {name: "8192"}
    assert engine_of_object({name: 8192}).settings == {name: 8192}


def test_engine_of_a_cyclic_object_is_bounded() -> None:
    cyclic: dict[str, Any] = {"a": 1}
    cyclic["self"] = cyclic
    assert len(engine_of_object(cyclic).settings) <= 10
    assert len(engine_of_object({str(number): number for number in range(10_000)}).settings) == 500
