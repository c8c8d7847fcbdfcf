"""How fast torch is on this CPU at what our benches measure. One JSON line per measurement on stdout.

    python benches/peer/speed.py                                  # everything; base at batch 256 takes most of the time
    python benches/peer/speed.py --shape tiny --what decode --batch 64 --threads 1,2

Line: {peer, shape, what, batch, tokens_per_s, threads} and details. Medians of REPEATS timed runs after an untimed one; f32.

what = decode   16 prompt tokens per row, 64 new tokens, no stop, temperature 1 over the whole vocabulary;
                tokens_per_s = batch * 64 / seconds, prefill included. `steps_only` leaves the prefill out.
    peer "transformers"   `generate` with its cache
    peer "torch-loop"     the hand-written loop below: preallocated cache, one product for q, k, v, one for gate and up
what = train    forward, cross-entropy over all tokens but the first, backward, fused AdamW; no clipping.
                tokens_per_s = tokens in the batch / seconds; 32 x 36 tokens for tiny, 4 x 256 for base.
    peer "transformers"   the faster of its sdpa and eager attention (`attention` says which)
    peer "torch-loop"     the hand-written decoder below, sdpa
what = matmul-decode, matmul-train: only the matrix products with weights of the same step, one after another, each layer with
                weights of its own; training adds both gradient products. The ceiling for tokens_per_s; `gflops` is their rate.

Shapes (Qwen2, tied embeddings, q/k/v bias, random weights):
    tiny: width 96, 2 layers, 4/2 heads, ffn 256, vocabulary 128            0.22M parameters
    base: width 768, 12 layers, 12/2 heads, ffn 2048, vocabulary 32000     97.8M parameters
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.utils import logging

REPEATS, PROMPT, NEW = 5, 16, 64
TRAIN = {"tiny": (32, 36), "base": (4, 256)}


@dataclass(frozen=True)
class Shape:
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int

    @property
    def head(self):
        return self.width // self.heads

    def products(self):
        """(inputs, outputs) of the weight products of one layer, in order."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head
        return [(self.width, qkv), (self.width, self.width), (self.width, 2 * self.ffn), (self.ffn, self.width)]


SHAPES = {"tiny": Shape(96, 2, 4, 2, 256, 128), "base": Shape(768, 12, 12, 2, 2048, 32000)}


def transformers_model(shape, attention):
    config = Qwen2Config(vocab_size=shape.vocab, hidden_size=shape.width, intermediate_size=shape.ffn, num_hidden_layers=shape.layers,
                         num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, max_position_embeddings=512,
                         tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).float().eval()


class Decoder(torch.nn.Module):
    """The same Qwen2 with packed projections; weights copied from a transformers model, so that both can be compared."""

    def __init__(self, shape, source):
        super().__init__()
        self.shape = shape
        body = source.model
        weight = lambda *tensors: torch.nn.Parameter(torch.cat([t.detach() for t in tensors]).clone())
        self.embed, self.norm = weight(body.embed_tokens.weight), weight(body.norm.weight)
        self.layers = torch.nn.ModuleList()
        for block in body.layers:
            a, m, layer = block.self_attn, block.mlp, torch.nn.Module()
            layer.norm1, layer.norm2 = weight(block.input_layernorm.weight), weight(block.post_attention_layernorm.weight)
            layer.qkv = weight(a.q_proj.weight, a.k_proj.weight, a.v_proj.weight)
            layer.bias = weight(a.q_proj.bias, a.k_proj.bias, a.v_proj.bias)
            layer.gate_up, layer.down = weight(m.gate_proj.weight, m.up_proj.weight), weight(m.down_proj.weight)
            layer.out = weight(a.o_proj.weight)
            self.layers.append(layer)
        frequency = 10000.0 ** (-torch.arange(0, shape.head, 2) / shape.head)
        angle = torch.outer(torch.arange(512).float(), frequency).repeat(1, 2)  # (positions, D)
        self.cos, self.sin = angle.cos(), angle.sin()

    def rotate(self, x, start):  # (B, H, T, D)
        end, half = start + x.shape[2], x.shape[3] // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), -1)
        return x * self.cos[start:end] + turned * self.sin[start:end]

    def qkv(self, layer, x, start):
        s, (b, t, _) = self.shape, x.shape
        h = F.linear(F.rms_norm(x, x.shape[-1:], layer.norm1, 1e-6), layer.qkv, layer.bias)
        h = h.view(b, t, s.heads + 2 * s.kv_heads, s.head).transpose(1, 2)  # (B, H + 2K, T, D)
        turned = self.rotate(h[:, : s.heads + s.kv_heads], start)  # queries and keys in one go
        return turned[:, : s.heads], turned[:, s.heads :], h[:, s.heads + s.kv_heads :]

    def mlp(self, layer, x):
        gate, up = F.linear(F.rms_norm(x, x.shape[-1:], layer.norm2, 1e-6), layer.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, layer.down)

    def block(self, layer, x, cache=None):
        """A block over whole sequences from position 0; fills `cache` where one is given."""
        q, k, v = self.qkv(layer, x, 0)
        if cache is not None:
            cache[0][:, :, : x.shape[1]], cache[1][:, :, : x.shape[1]] = k, v
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.mlp(layer, x + F.linear(h.transpose(1, 2).flatten(2), layer.out))

    def step(self, layer, x, cache, position):
        """A block over one token per row. The query heads of a key head are the rows of one batched product: no repeated keys, no
        mask. Plain products beat torch's sdpa here, whose kernel slows down at a handful of query rows."""
        s, b = self.shape, x.shape[0]
        q, k, v = self.qkv(layer, x, position)
        cache[0][:, :, position], cache[1][:, :, position] = k[:, :, 0], v[:, :, 0]
        keys, values = (c.flatten(0, 1)[:, : position + 1] for c in cache)  # (B K, T, D), views
        q = q.reshape(b * s.kv_heads, s.heads // s.kv_heads, s.head) * s.head**-0.5
        h = torch.bmm(torch.bmm(q, keys.transpose(1, 2)).softmax(-1), values)
        return self.mlp(layer, x + F.linear(h.view(b, 1, s.width), layer.out))

    def logits(self, x):
        return F.linear(F.rms_norm(x, x.shape[-1:], self.norm, 1e-6), self.embed)

    def forward(self, ids):
        x = F.embedding(ids, self.embed)
        for layer in self.layers:
            x = self.block(layer, x)
        return self.logits(x)

    @torch.inference_mode()
    def generate(self, prompt, new, sample):
        """New tokens (B, new) and the seconds spent after the prefill."""
        s, (b, t) = self.shape, prompt.shape
        caches = [torch.zeros(2, b, s.kv_heads, t + new, s.head) for _ in self.layers]
        x = F.embedding(prompt, self.embed)
        for layer, cache in zip(self.layers, caches):
            x = self.block(layer, x, cache)
        out = [sample(self.logits(x[:, -1]))]
        start = time.perf_counter()
        for position in range(t, t + new - 1):
            x = F.embedding(out[-1][:, None], self.embed)
            for layer, cache in zip(self.layers, caches):
                x = self.step(layer, x, cache, position)
            out.append(sample(self.logits(x[:, 0])))
        return torch.stack(out, 1), time.perf_counter() - start


def draw(logits):
    """One token per row from softmax(logits) by one uniform number each: a third of the time of `multinomial` on a CPU, or less."""
    cumulative = logits.softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulative, torch.rand(len(logits), 1) * cumulative[:, -1:]).clamp_(max=logits.shape[-1] - 1)[:, 0]


def seconds(run, warm=None):
    """Median of REPEATS timed runs after one of `warm` (default: the run itself), and slowest / fastest."""
    (warm or run)()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times), max(times) / min(times)


def decode(name, batch, peers):
    shape = SHAPES[name]
    model = transformers_model(shape, "sdpa")
    prompt = torch.randint(0, shape.vocab, (batch, PROMPT), generator=torch.Generator().manual_seed(7))
    loop, greedy = Decoder(shape, model), lambda logits: logits.argmax(-1)
    sampled = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)

    def hf(prompt, new, how):
        with torch.inference_mode():
            mask = torch.ones_like(prompt)
            return model.generate(prompt, attention_mask=mask, use_cache=True, max_new_tokens=new, min_new_tokens=new, **how)[:, PROMPT:]

    ours, theirs = loop.generate(prompt[:2], NEW, greedy)[0], hf(prompt[:2], NEW, dict(do_sample=False))
    assert (ours == theirs).float().mean() > 0.95, "the hand-written loop is not the same model"
    if "transformers" in peers:
        time_hf, spread = seconds(lambda: hf(prompt, NEW, sampled), lambda: hf(prompt, 4, sampled))
        yield dict(peer="transformers", tokens_per_s=batch * NEW / time_hf, spread=spread)
    if "torch-loop" in peers:
        steps = []
        time_loop, spread = seconds(lambda: steps.append(loop.generate(prompt, NEW, draw)[1]), lambda: loop.generate(prompt, 4, draw))
        steps_only = batch * (NEW - 1) / statistics.median(steps)
        yield dict(peer="torch-loop", tokens_per_s=batch * NEW / time_loop, steps_only=steps_only, spread=spread)


def train_step(model, ids, logits_of):
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def run():
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(logits_of(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimiser.step()

    return run


def train(name, peers):
    shape, (rows, length) = SHAPES[name], TRAIN[name]
    ids = torch.randint(0, shape.vocab, (rows, length), generator=torch.Generator().manual_seed(8))
    if "transformers" in peers:
        timed = {}
        for attention in ("sdpa", "eager"):
            model = transformers_model(shape, attention).train()
            timed[attention] = seconds(train_step(model, ids, lambda x, model=model: model(x, use_cache=False).logits))
        best = min(timed, key=timed.get)
        yield dict(peer="transformers", tokens_per_s=rows * length / timed[best][0], spread=timed[best][1], attention=best)
    if "torch-loop" in peers:
        loop = Decoder(shape, transformers_model(shape, "sdpa"))
        time_loop, spread = seconds(train_step(loop, ids, loop))
        yield dict(peer="torch-loop", tokens_per_s=rows * length / time_loop, spread=spread)


def matmul(name, rows, training):
    """The weight products of one step over `rows` tokens; training adds dX = dY W and dW = dY^T X for each."""
    shape = SHAPES[name]
    sizes = shape.products() * shape.layers + [(shape.width, shape.vocab)]
    work = [(torch.randn(rows, i), torch.randn(o, i), torch.randn(rows, o)) for i, o in sizes]

    def run():
        for x, w, dy in work:
            torch.matmul(x, w.T)
            if training:
                torch.matmul(dy, w)
                torch.matmul(dy.T, x)

    flops = sum(2 * rows * i * o for i, o in sizes) * (3 if training else 1)
    repeat = max(1, int(2e9 / flops))  # small sets are run several times so that one timing is not a few microseconds
    with torch.inference_mode():
        time_set, spread = seconds(lambda: [run() for _ in range(repeat)])
    yield dict(peer="torch-matmul", tokens_per_s=rows * repeat / time_set, gflops=flops * repeat / time_set / 1e9, spread=spread)


def batches(name, what, rows):
    """The rows of a product or of a decode step; the sequences of a training batch."""
    if what.endswith("decode"):
        return rows
    sequences, length = TRAIN[name]
    return [sequences * length if what == "matmul-train" else sequences]


def measurements(name, what, batch, peers):
    if what == "decode":
        yield from decode(name, batch, peers)
    elif what == "train":
        yield from train(name, peers)
    else:
        yield from matmul(name, batch, what == "matmul-train")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--shape", default="tiny,base")
    arguments.add_argument("--what", default="matmul-decode,matmul-train,train,decode")
    arguments.add_argument("--batch", default="1,64,256", help="rows of decode and matmul-decode")
    arguments.add_argument("--peer", default="transformers,torch-loop", help="of decode and train")
    arguments.add_argument("--threads", default="2")
    options = arguments.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    for name in options.shape.split(","):
        for threads in map(int, options.threads.split(",")):
            torch.set_num_threads(threads)
            for what in options.what.split(","):
                for batch in batches(name, what, [int(rows) for rows in options.batch.split(",")]):
                    for line in measurements(name, what, batch, options.peer.split(",")):
                        line = dict(peer=line.pop("peer"), shape=name, what=what, batch=batch, threads=threads, **line)
                        line |= dict(load=os.getloadavg()[0], torch=torch.__version__)
                        print(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in line.items()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
