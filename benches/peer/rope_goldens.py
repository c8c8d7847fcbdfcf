"""Golden rotary angles far into a sequence: what transformers' own rotary modules compute, in f32.

    python benches/peer/rope_goldens.py              # rewrites tests/golden/rope.json

A list, one entry per model: `config` as its config.json has it, `inv_freq` (head_dim / 2), and for each of `positions` a row of `cos` and of
`sin` (head_dim / 2). An angle is position times inv_freq, rounded to f32: in f64 the angles differ by up to 1e-3 at position 16,383, which is
why these numbers reach so far. Numbers are the shortest decimals that give the f32 back.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "rope.json"
POSITIONS = [0, 1, 777, 4095, 8191, 16383]
SHAPE = dict(vocab_size=8, hidden_size=128, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
             max_position_embeddings=16384, rms_norm_eps=1e-6)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
MODELS = [
    (Qwen2Config, Qwen2RotaryEmbedding, dict(rope_theta=1000000.0)),
    (Qwen3Config, Qwen3RotaryEmbedding, dict(rope_theta=10000.0, head_dim=128)),
    (LlamaConfig, LlamaRotaryEmbedding, dict(rope_theta=500000.0, rope_scaling=LLAMA3)),
]


def numbers(tensor):
    return [float(str(x)) for x in tensor.numpy().astype(np.float32)]


def golden(config_class, module_class, own):
    fields = SHAPE | own
    module = module_class(config_class(**json.loads(json.dumps(fields))))
    cos, sin = module(torch.zeros(1, dtype=torch.float32), torch.tensor([POSITIONS]))  # (1, P, head_dim), both halves alike
    half = module.inv_freq.shape[0]
    rows = {"cos": [numbers(row[:half]) for row in cos[0]], "sin": [numbers(row[:half]) for row in sin[0]]}
    return {"config": {"model_type": config_class.model_type} | fields, "inv_freq": numbers(module.inv_freq), **rows}


if __name__ == "__main__":
    torch.set_num_threads(1)
    models = [golden(*model) for model in MODELS]
    text = json.dumps({"positions": POSITIONS, "models": models}).replace('"models": [', '"models": [\n').replace('}, {"config"', '},\n{"config"')
    OUT.write_text(text + "\n")
    print(f"{len(models)} models -> {OUT}")
