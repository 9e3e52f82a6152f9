"""A server and its client in one experiment; ranks of Ray Train."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_energy_measure.recorder.ranks import find_rank
from llm_energy_measure.recorder.ray_rank import with_ray_rank
from llm_energy_measure.results import FileSystemRepository
from tests.support.aggregation import aggregate_one

ROOT = Path(__file__).resolve().parents[3]
SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["stream"] and asked["stream_options"]["include_usage"]
        self.send_response(200)
        self.end_headers()
        for word in ("a", "b", "c"):
            self.event({"choices": [{"delta": {"content": word}}], "usage": None})
        self.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
        self.wfile.write(b"data: [DONE]\\n\\n")

    def event(self, document):
        self.wfile.write(b"data: " + json.dumps(document).encode() + b"\\n\\n")

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_server_and_client_are_one_experiment(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LLM_ENERGY_MEASURE_RESULTS_DIR": str(tmp_path / "r")}
    words = ["record", "--experiment", "serve_1", "--process-index", "0", "--world-size", "2", "--model", "m"]
    command = [sys.executable, "-m", "llm_energy_measure", *words, "--source", "cpu_model", "--w-per-core", "4", "--"]
    server = subprocess.Popen(
        [*command, sys.executable, str(tmp_path / "server.py")], env=environ, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        client = [sys.executable, str(ROOT / "examples/serving/client.py"), f"http://127.0.0.1:{port}", "m", "serve_1"]
        done = subprocess.run(client, env=environ, check=True, capture_output=True, text=True, timeout=120)
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert "process_1.json: 40 tokens" in done.stdout
    repository = FileSystemRepository(tmp_path / "r")
    assert [result.status for result in repository.load_all_raw("serve_1")] == ["interrupted", "completed"]
    aggregated = aggregate_one(repository, "serve_1").aggregated
    assert aggregated is not None
    assert aggregated.total_tokens == 4 * 10
    assert aggregated.total_energy_j is not None
    assert aggregated.latency_stats is not None
    assert aggregated.latency_stats.ttft_samples == 4


def test_client_without_server_ends_and_records_nothing(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LLM_ENERGY_MEASURE_RESULTS_DIR": str(tmp_path / "r")}
    client = [sys.executable, str(ROOT / "examples/serving/client.py"), "http://127.0.0.1:9", "m", "serve_1", "0"]
    done = subprocess.run(client, env=environ, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("error: http://127.0.0.1:9 does not answer: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r").exists()


class Context:
    """The context of a worker of Ray Train."""

    def get_world_rank(self) -> int:
        return 3

    def get_world_size(self) -> int:
        return 4

    def get_local_rank(self) -> int:
        return 1

    def get_local_world_size(self) -> int:
        return 2

    def get_node_rank(self) -> int:
        return 1


def ray(get_context: Any) -> dict[str, Any]:
    return {"ray.train": SimpleNamespace(get_context=get_context)}


def test_rank_of_a_ray_train_worker_is_detected() -> None:
    environ = with_ray_rank({"RAY_JOB_ID": "01000000"}, ray(Context))
    rank = find_rank(environ)
    assert (rank.process_index, rank.world_size, rank.local_world_size) == (3, 4, 2)
    assert rank.launcher is not None
    assert (rank.launcher.name, rank.launcher.job_id, rank.launcher.local_rank) == ("ray", "01000000", 1)


def outside() -> None:
    raise RuntimeError("`get_context` can only be called inside a training function")


@pytest.mark.parametrize(
    ("environ", "modules"),
    [({}, {}), ({}, ray(outside)), ({}, ray(lambda: None)), ({"RANK": "0", "WORLD_SIZE": "1"}, ray(Context))],
)
def test_other_processes_keep_their_environment(environ: dict[str, str], modules: dict[str, Any]) -> None:
    assert with_ray_rank(environ, modules) is environ
