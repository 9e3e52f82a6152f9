"""Measure the latencies of an OpenAI-compatible server as the second process of its experiment. Standard library only.

    llm-energy-measure record --experiment serve_1 --process-index 0 --world-size 2 -- vllm serve MODEL &
    python client.py http://localhost:8000 MODEL serve_1

The server's process measures the energy, and this process counts the tokens. `aggregate serve_1` joins both.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llm_energy_measure import record

PROMPTS = ["Why is the sky blue?", "Name three rivers.", "What is a joule?", "Count to five."]
CONCURRENCY = 2


def wait_for_server(url: str, wait_sec: float) -> None:
    """Return when the server answers. End the program if it does not answer within `wait_sec` seconds."""
    deadline = time.monotonic() + wait_sec
    while (problem := problem_of(url)) is not None:
        if time.monotonic() >= deadline:
            sys.exit(f"error: {url} does not answer: {problem}; start the server, or read its log")
        time.sleep(1)


def problem_of(url: str) -> OSError | None:
    """Return why the server does not answer; None if it answers."""
    try:
        urllib.request.urlopen(f"{url}/v1/models", timeout=10).close()
    except urllib.error.HTTPError as error:
        return error if error.code == 503 else None  # 503: the server still loads the model
    except OSError as error:
        return error
    return None


def events(url: str, model: str, prompt: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed answer. The last one has the numbers of tokens."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        for line in answer:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield json.loads(data)


def ask(run: record, url: str, model: str, prompt: str) -> None:
    """Send one request. Each event with text is one token for the latencies; the usage gives the exact numbers."""
    usage: dict[str, int] = {}
    with run.request() as request:
        for event in events(url, model, prompt):
            usage = event.get("usage") or usage
            if any((choice.get("delta") or {}).get("content") for choice in event.get("choices") or ()):
                request.token()
    run.add_tokens(input=usage.get("prompt_tokens", 0), output=usage.get("completion_tokens", 0))


def main(url: str, model: str, experiment: str, wait_sec: str = "600") -> None:
    """Wait for the server, send all prompts, two at a time, and record them."""
    wait_for_server(url, float(wait_sec))
    with (
        record(experiment, model_name=model, process_index=1, world_size=2, sources=[], idle_sec=0) as run,
        ThreadPoolExecutor(CONCURRENCY) as pool,
    ):
        list(pool.map(lambda prompt: ask(run, url, model, prompt), PROMPTS))
    print(f"{run.path}: {run.result.inference_metrics.total_tokens} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
