"""Fine-tuning at real shape with transformers and torch: tokens per second and peak memory of optimiser steps on one row, random weights.

    python benches/peer/finetune.py 0.5b/full/2048 [--threads 2] [--steps 3]

SHAPE/METHOD/TOKENS as in `cargo bench --bench finetune`; one JSON line. Qwen2 with tied embeddings, f32, sdpa attention, gradient checkpointing (not reentrant),
cross-entropy over all tokens but the first, clipping to a global norm of 1, fused AdamW. METHOD full, or lora: r 16 on all seven projections, by peft.
The peak is that of the process (ru_maxrss), the import of torch included. The first step is not timed.
"""

import argparse
import json
import os
import resource
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.utils import logging

SHAPES = {  # width, layers, heads, key heads, feed-forward, vocabulary, positions
    "base": (768, 12, 12, 2, 2048, 32000, 8192),
    "0.5b": (896, 24, 14, 2, 4864, 151936, 32768),
}


def model_of(shape, method):
    width, layers, heads, kv_heads, ffn, vocab, positions = SHAPES[shape]
    config = Qwen2Config(vocab_size=vocab, hidden_size=width, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
                         num_key_value_heads=kv_heads, max_position_embeddings=positions, tie_word_embeddings=True, bos_token_id=None,
                         eos_token_id=None, pad_token_id=0)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float().train()
    model.config.use_cache = False
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        model.enable_input_require_grads()
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0))
    return model, vocab


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("what")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--steps", type=int, default=3)
    options = arguments.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    shape, method, tokens = options.what.split("/")
    model, vocab = model_of(shape, method)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)
    ids = torch.randint(0, vocab, (1, int(tokens)), generator=torch.Generator().manual_seed(8))
    seconds = []
    for _ in range(options.steps + 1):
        begin = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        model(ids, labels=ids, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        seconds.append(time.perf_counter() - begin)
    seconds = sorted(seconds[1:])
    a = torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(8):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    line = dict(peer="transformers", what=options.what, threads=options.threads, trained=sum(p.numel() for p in trained),
                tokens_per_s=round(int(tokens) / statistics.median(seconds), 2), spread=round(seconds[-1] / seconds[0], 3),
                peak_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3), gflops=round(2 * 2048**3 / best / 1e9, 1),
                load=os.getloadavg()[0], torch=torch.__version__)
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
