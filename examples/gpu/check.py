"""Check the recorder on a machine with an NVIDIA GPU, in a few minutes and without downloads.

    python examples/gpu/check.py OUT

1. `doctor` shows the sensors.
2. A transformers model with random weights generates text; `record --samples --idle` measures it.
3. The NVML counter is compared with the integral of the power samples.
4. Hosts, boot ids and UUIDs in the results are replaced by pseudonyms, so that OUT can be published.

Needs torch with CUDA, transformers and nvidia-ml-py. The exit status is 1 if the two energies differ by more than 5 %.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from llm_energy_measure import record
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.power_trace import PowerTrace, integrate
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.store.samples import load_samples, save_samples

EXPERIMENT = "gpu_check"
TOLERANCE = 0.05
MEASURED_SEC = 60.0
IDLE_SEC = 10.0
PROMPT_TOKENS, NEW_TOKENS, BATCH = 128, 128, 16


def doctor() -> str:
    """Return the output of `llm-energy-measure doctor`."""
    done = subprocess.run(
        [sys.executable, "-m", "llm_energy_measure", "doctor"], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def generate(results: Path) -> None:
    """Record a model with random weights for about a minute."""
    import time

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
    )
    model = LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()
    prompts = torch.randint(0, 32_000, (BATCH, PROMPT_TOKENS), device="cuda")
    with record(
        EXPERIMENT,
        model_name="llama-1.1b-random",
        config={"batch_size": BATCH, "prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS},
        results_dir=results,
        samples=True,
        idle_sec=IDLE_SEC,
        require_energy=True,
    ) as run:
        run.describe_model(parameters=sum(one.numel() for one in model.parameters()), precision=torch.bfloat16)
        with run.phase("warmup"), torch.inference_mode():
            model.generate(prompts, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        end = time.monotonic() + MEASURED_SEC
        while time.monotonic() < end:
            with torch.inference_mode():
                model.generate(prompts, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
            torch.cuda.synchronize()
            run.add_tokens(input=BATCH * PROMPT_TOKENS, output=BATCH * NEW_TOKENS)


def compare(result: RawProcessResult, traces: list[PowerTrace]) -> list[dict[str, Any]]:
    """Return, for each GPU, its counter and the integral of its power samples over the same time, in joules."""
    duration_sec = result.timestamps.duration_sec or 0.0
    rows = []
    for device in result.energy_metrics.devices or []:
        trace = next((one for one in traces if one.device == device.gpu_uuid), None)
        integral = None
        if trace is not None and len(trace.times) > 1:
            # The first and the last sample are some milliseconds outside of the window; the edges are interpolated.
            start, end = max(0.0, trace.times[0]), min(duration_sec, trace.times[-1])
            integral = integrate(trace.times, trace.powers, start, end)
        counter_j, integral_j = device.energy_j, None if integral is None else integral.value
        difference = None if not counter_j or integral_j is None else integral_j / counter_j - 1
        rows.append(
            {"gpu": device.gpu_name, "counter_j": counter_j, "integral_j": integral_j, "difference": difference}
        )
    return rows


def pseudonym(text: str) -> str:
    """Return a pseudonym that is equal for equal texts."""
    return hashlib.sha256(f"llm-energy-measure example: {text}".encode()).hexdigest()[:12]


def pseudonymised(result: RawProcessResult, traces: list[PowerTrace]) -> tuple[RawProcessResult, list[PowerTrace]]:
    """Return result and samples without the names of the machine: host, boot id, store and UUIDs."""
    document = msgspec.to_builtins(result)
    names: dict[str, str] = {}

    def replace(text: object, kind: str) -> None:
        if isinstance(text, str) and text:
            names[text] = f"{kind}-{pseudonym(text)}"

    replace(document.get("host"), "host")
    clock = document.get("clock") or {}
    replace(clock.get("boot_id"), "boot")
    replace(clock.get("store_id"), "store")
    replace((document.get("launcher") or {}).get("node"), "node")
    uuids = {
        document.get("gpu_uuid"),
        *(one.get("gpu_uuid") for one in document["energy_metrics"].get("devices") or []),
    }
    for uuid in [*uuids, *(trace.device for trace in traces if re.match("GPU-|MIG-", trace.device))]:
        replace(uuid, "GPU")
    text = msgspec.json.encode(document).decode()
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(json.dumps(name)[1:-1], names[name])
    record_without = msgspec.json.decode(text.encode(), type=RawProcessResult)
    system = record_without.recording_environment
    if system is not msgspec.UNSET and system.system is not None:
        # The release of a kernel can name a cloud or a site.
        plain = msgspec.structs.replace(system, system=system.system.split()[0])
        record_without = msgspec.structs.replace(record_without, recording_environment=plain)
    return record_without, [msgspec.structs.replace(one, device=names.get(one.device, one.device)) for one in traces]


def report(result: RawProcessResult, rows: list[dict[str, Any]]) -> str:
    """Return the comparison as text."""
    driver = result.recording_environment.gpu_driver if result.recording_environment is not msgspec.UNSET else None
    energy = result.energy_metrics
    lines = [f"GPU {result.gpu_name}, driver {driver}", f"duration {result.timestamps.duration_sec or 0:.1f} s"]
    for row in rows:
        figures = [row["counter_j"], row["integral_j"]]
        texts = ["unknown" if value is None else f"{value:.1f} J" for value in figures]
        difference = "unknown" if row["difference"] is None else f"{row['difference']:+.2%}"
        lines.append(f"counter {texts[0]}, integral of the power samples {texts[1]}, difference {difference}")
    adjusted = energy.idle_adjusted_energy_j
    lines.append(f"idle-adjusted energy {'unknown' if adjusted is None else f'{adjusted:.1f} J'}")
    return "\n".join(lines) + "\n"


def publish(private: Path, out: Path) -> bool:
    """Compare, write the results without names to a new directory, and return whether the energies agree."""
    repository = FileSystemRepository(private)
    [result] = repository.load_all_raw(EXPERIMENT)
    traces = load_samples(repository.store, EXPERIMENT, 0)
    rows = compare(result, traces)
    plain, plain_traces = pseudonymised(result, traces)
    public = FileSystemRepository(out)
    public.save_raw(EXPERIMENT, plain)
    save_samples(public.store, EXPERIMENT, 0, plain_traces)
    (out / "report.txt").write_text(report(plain, rows), encoding="utf-8")
    return all(row["difference"] is not None and abs(row["difference"]) <= TOLERANCE for row in rows) and bool(rows)


def main(out: str) -> int:
    """Run all steps."""
    private = Path(out).with_name(f"{Path(out).name}-private")
    print(doctor())
    generate(private)
    agrees = publish(private, Path(out))
    print((Path(out) / "report.txt").read_text(encoding="utf-8"))
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
