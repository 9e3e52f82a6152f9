"""What one recording saves."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

import llm_energy_measure
from tests.support.aggregation import aggregate_one
from tests.support.recordings import file_names, load_result, make_recording, torchrun_environ
from tests.support.replay import START_WALL, ManualClock

if TYPE_CHECKING:
    from llm_energy_measure.results import FileSystemRepository


def test_block_is_saved_as_one_result(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock, config={"config_name": "base", "batch": 4}) as run:
        assert file_names(repository) == [
            "claim-cpu-" + file_names(repository)[0][10:],
            "claim-process_0-1.json",
            "manifest.json",
        ]
        clock.now += 2.0
        run.add_tokens(input=10, output=30)
        clock.now += 2.0
    assert file_names(repository) == ["manifest.json", "process_0.json"]
    result = load_result(repository)
    assert result == run.result
    assert run.path == repository.base_path / "raw" / "exp_7" / "process_0.json"
    assert (result.status, result.error_type, result.config_name) == ("completed", None, "base")
    assert result.effective_config == {"config_name": "base", "batch": 4}
    energy, work = result.energy_metrics, result.inference_metrics
    assert (energy.total_energy_j, energy.cpu_energy_j, energy.gpu_energy_j, energy.ram_energy_j) == (
        200.0,
        200.0,
        None,
        None,
    )
    assert (energy.total_scope, energy.total_provenance, energy.cpu_power_w) == ("host", "measured", 50.0)
    assert energy.energy_per_token_j == 5.0
    assert energy.window == result.timestamps
    assert result.timestamps.duration_sec == 4.0
    assert result.timestamps.start == datetime.fromtimestamp(START_WALL, UTC)
    assert work is not None
    assert (work.total_tokens, work.tokens_per_second, work.inference_time_sec) == (40, 10.0, 4.0)
    manifest = repository.load_manifest("exp_7")
    assert manifest is not None
    assert (manifest.expected_processes, manifest.attempt) == (1, 0)
    assert manifest.config_digest is not None
    assert aggregate_one(repository, "exp_7").result == "aggregated"


def test_rank_comes_from_the_environment(repository: FileSystemRepository, clock: ManualClock) -> None:
    for index in (1, 0):
        with make_recording(repository, clock, environ=torchrun_environ(index, 2, TORCHELASTIC_RUN_ID="job")) as run:
            assert (run.rank.process_index, run.rank.world_size) == (index, 2)
    assert load_result(repository, 1).world_size == 2
    launcher = load_result(repository, 1).launcher
    assert launcher is not None
    assert (launcher.name, launcher.job_id, launcher.local_rank) == ("torchrun", "job", 1)


def test_changed_wall_clock_is_recorded_and_end_stays_after_start(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with make_recording(repository, clock):
        clock.now += 10.0
        clock.wall_offset -= 3600.0
    result = load_result(repository)
    assert result.timestamps.span is not None
    assert (result.timestamps.span[1] - result.timestamps.span[0]).total_seconds() == 10.0
    assert result.clock is not None
    assert (result.clock.wall_start_sec, result.clock.wall_end_sec) == (START_WALL, START_WALL - 3590.0)
    assert (result.clock.monotonic_start_sec, result.clock.monotonic_end_sec) == (0.0, 10.0)


def test_import_loads_no_heavy_library() -> None:
    def loaded(line: str) -> set[str]:
        code = f"import sys; {line}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    own = {name for name in loaded("import llm_energy_measure") if name.startswith("llm_energy_measure.")}
    assert own == {"llm_energy_measure._version"}
    heavy = {"asyncio", "click", "numpy", "pynvml", "rich", "torch", "amdsmi", "zeus", "codecarbon"}
    assert loaded("from llm_energy_measure import record") & heavy == set()


def test_package_has_only_its_public_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'recrod'"):
        _ = llm_energy_measure.recrod
    assert set(llm_energy_measure.__all__) == {"__version__", "load", "record"}


def test_file_has_the_current_schema_version(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run:
        pass
    assert run.path is not None
    assert json.loads(run.path.read_bytes())["schema_version"] == "2.0.0"
