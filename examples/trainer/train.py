"""Measure the training of a small language model with random weights. Needs torch, transformers and accelerate.

python examples/trainer/train.py results
torchrun --nproc-per-node 2 examples/trainer/train.py results
"""

from __future__ import annotations

import sys
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from llm_energy_measure.recorder.trainer import trainer_callback

SAMPLES = 32
LENGTH = 16


def main(results: str, w_per_core: float | None = None) -> None:
    """Train for one epoch, and store the result in the results directory."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    tokens = torch.randint(0, 128, (SAMPLES, LENGTH))
    data = [{"input_ids": one, "labels": one} for one in tokens]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=4,
            num_train_epochs=1,
            include_num_input_tokens_seen="all",
            logging_steps=2,
            report_to=[],
            save_strategy="no",
            use_cpu=not torch.cuda.is_available(),
        )
        callback = trainer_callback("train_1", model_name="llama-random", results_dir=results, w_per_core=w_per_core)
        Trainer(LlamaForCausalLM(config), arguments, train_dataset=data, callbacks=[callback]).train()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else None)
