"""Processes on several hosts record one experiment into one bucket; a lost network loses no result."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure import record
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.uploads import uploads_folder
from llm_energy_measure.results.batch.verify import verify_experiment
from llm_energy_measure.verification.verdicts import verdict_of
from tests.support import buckets
from tests.support.command import run
from tests.support.replay import steady_watts

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.recorder.recording import Recording
    from tests.support.fault_proxy import Fault, FaultProxy

WATTS = 100.0
SCRIPT = """
import sys, time
from pathlib import Path
from llm_energy_measure import record
from tests.support.replay import OtherMachineClock, steady_watts
rank, folder = int(sys.argv[1]), Path(sys.argv[3])
environ = {
    "RANK": str(rank), "LOCAL_RANK": str(rank % 2), "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": str(rank // 2), "TORCHELASTIC_RUN_ID": "job_1", "TORCHELASTIC_RESTART_COUNT": "0",
    "LLM_ENERGY_MEASURE_FALLBACK_DIR": sys.argv[3],
}
node = f"node_{rank // 2}"


def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)


# The first process of each host reads its sensor. It begins first and ends last, so that it reads the whole time.
if rank % 2:
    wait_for(f"began_{rank - 1}")
with record("exp", results_dir=sys.argv[2], environ=environ, host=node, clock=OtherMachineClock(node),
            sources=[steady_watts(100.0)], checkpoint_sec=0.2) as run:
    (folder / f"began_{rank}").touch()
    run.add_tokens(input=10, output=20)
    wait_for(f"ended_{rank + 1}" if rank % 2 == 0 else f"began_{rank - 1}")
(folder / f"ended_{rank}").touch()
print(run.path)
"""


def start(rank: int, url: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(rank), url, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_hosts_record_one_experiment(url: str, tmp_path: Path) -> None:
    processes = [start(rank, url, tmp_path) for rank in range(4)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert [out.strip() for out, _ in outputs] == [f"{url}/raw/exp/process_{rank}.json" for rank in range(4)]
    repository = FileSystemRepository(url)
    records = repository.load_all_raw("exp")
    assert [record.process_index for record in records] == [0, 1, 2, 3]
    assert {record.host for record in records} == {"node_0", "node_1"}
    [outcome] = aggregate_all(repository)
    assert outcome.error is None
    assert outcome.result == "aggregated"
    verified = verify_experiment(repository, "exp")
    assert verified.outcome == "passed", [finding for finding in verified.findings if finding.problem]
    aggregated = repository.load_aggregated("exp")
    assert aggregated is not None
    assert verdict_of(aggregated) == "complete", aggregated.aggregation.warnings
    spans_sec = [span_sec(records[:2]), span_sec(records[2:])]
    assert aggregated.total_energy_j == pytest.approx(WATTS * sum(spans_sec), rel=0.05), "each host counts once"
    assert aggregated.attributed_energy_j == pytest.approx(aggregated.total_energy_j)


def span_sec(records: list[RawProcessResult]) -> float:
    """Return the time from the first start to the last end of the processes of a host, on its monotonic clock."""
    clocks = [record.clock for record in records if record.clock is not None]
    starts = [clock.monotonic_start_sec for clock in clocks if clock.monotonic_start_sec is not None]
    ends = [clock.monotonic_end_sec for clock in clocks if clock.monotonic_end_sec is not None]
    return max(ends) - min(starts)


def recording(url: str, folder: Path, **changes: Any) -> Recording:
    """Return a recording into a bucket that saves a checkpoint every 0.1 s."""
    environ = {"LLM_ENERGY_MEASURE_FALLBACK_DIR": str(folder)}
    options: dict[str, Any] = {"environ": environ, "sources": [steady_watts(WATTS)], "checkpoint_sec": 0.1, **changes}
    return record("exp", results_dir=url, **options)


def energies_of_checkpoints(repository: FileSystemRepository) -> list[float]:
    found = [record.energy_metrics.total_energy_j for record in repository.recover_raw("exp").partials]
    return [joules for joules in found if joules is not None]


def test_checkpoints_are_in_the_bucket_while_the_block_runs(url: str, tmp_path: Path) -> None:
    reader = FileSystemRepository(url)
    with recording(url, tmp_path) as run:
        run.add_tokens(input=10, output=20)
        seen: list[float] = []
        end = time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < end:
            seen += [joules for joules in energies_of_checkpoints(reader) if joules not in seen]
            time.sleep(0.02)
        assert len(seen) == 2, "a later checkpoint replaces the first one"
        assert reader.load_all_raw("exp") == []
    assert reader.recover_raw("exp").partials == []
    [result] = reader.load_all_raw("exp")
    assert result.energy_metrics.total_energy_j is not None
    assert 0 <= seen[0] < seen[1] <= result.energy_metrics.total_energy_j


def test_second_process_with_the_same_rank_is_refused(url: str, tmp_path: Path) -> None:
    """The lock is in the bucket: another host sees it."""
    ranks = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    folders = [tmp_path / name for name in ("first", "second")]
    first, second = (
        recording(url, folder, environ={**ranks, "LLM_ENERGY_MEASURE_FALLBACK_DIR": str(folder)}) for folder in folders
    )
    with (
        first,
        pytest.raises(RecorderError, match=r"already records this rank; give each process its own rank"),
        second,
    ):
        pytest.fail("the block must not run")
    assert [record.process_index for record in FileSystemRepository(url).load_all_raw("exp")] == [1]
    names = [entry.name for entry in FileSystemRepository(url).store.list("raw/exp")]
    assert names == ["manifest.json", "process_1.json"], "the lock is released"


@pytest.mark.skipif(not buckets.IS_LONG, reason="it takes two minutes; make test-cloud runs it")
@pytest.mark.parametrize("fault", ["reset", "hangs"])
def test_lost_network_loses_no_result(
    proxy: FaultProxy, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setenv("LLM_ENERGY_MEASURE_FALLBACK_DIR", str(tmp_path / "fallback"))
    script = tmp_path / "work.py"
    script.write_text(
        "import sys, pathlib, time\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)\n"
    )
    began, lost = tmp_path / "began", tmp_path / "lost"
    command = [sys.executable, "-m", "llm_energy_measure", "-o", url, "record", "--experiment", "exp"]
    command += ["--source", "cpu_model", "--w-per-core", "4", "--", sys.executable, str(script), str(began), str(lost)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not began.exists() and process.poll() is None:
        pass
    proxy.fault_of = lambda *_: fault
    lost.touch()
    _, errors = process.communicate(timeout=120)  # 60 s for the result and 10 s for the locks
    assert process.returncode == 0, "the measured command succeeded"
    assert f"llm-energy-measure results sync {url}" in errors
    proxy.fault_of = lambda *_: None
    [local] = uploads_folder(url, os.environ).iterdir()
    [record] = FileSystemRepository(local).load_all_raw("exp")
    assert isinstance(record, RawProcessResult)
    synced = run("results", "sync", url)
    assert (synced.status, synced.err) == (0, "1 uploaded, 0 downloaded, 0 problems\n")
    assert FileSystemRepository(url).load_all_raw("exp") == [record]
    assert list(uploads_folder(url, os.environ).iterdir()) == []
