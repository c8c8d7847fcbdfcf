"""Golden numbers for the decoder: four small random checkpoints and what transformers computes with them.

    python benches/peer/parity_goldens.py            # rewrites tests/golden/{qwen2,qwen3,llama,qwen2-sharded}*

tests/golden/<name>/            a checkpoint folder as `save_pretrained` writes it (f32). `config.v4.json` says the same in the
                                spelling of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`), which is what nearly
                                all published checkpoints carry; the script checks that both give the same logits.
tests/golden/<name>.safetensors, with i in 0..3 for the sequences of 64, 71 and 17 tokens, each run alone and unpadded:
    ids.i          (T,) i64       token ids
    mask.i         (T,) u8        1 where the token at this place is a target, i.e. predicted from the place before; never at 0
    logits.i       (T, V)         logits.i[t] is the distribution of the token at t + 1
    loss           ()             sum over the masked targets of all three sequences of -ln p(token), divided by their number
    grad.<name>    of the loss, one per parameter of the checkpoint file (tied embeddings: once, both uses added)
    logprobs_t07.0 (T - 1,)       ln softmax(logits / 0.7)[next token] of sequence 0; entry t belongs to token t + 1
    entropy.0      (T - 1,)       entropy in nats of softmax(logits / 0.7): of the distribution that is sampled
    entropy_t1.0   (T - 1,)       the same at temperature 1
Only in qwen2.safetensors:
    w.0            (T - 1,)       weights of a policy gradient
    pg_grad.<name> gradient of -(sum_t w_t * logprobs_t07_t), one per parameter
    kl_full.0      (T - 1,)       sum_v pi (ln pi - ln ref) at temperature 1; ref is the same model, every tensor times 1.05
    kl_full_t07.0  (T - 1,)       the same, both distributions at temperature 0.7

Everything is f32 on one thread with eager attention; the seeds below fix it for one torch version.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.utils import logging

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
LENGTHS, PROMPTS = (64, 71, 17), (20, 9, 12)
TEMPERATURE, REFERENCE_SCALE = 0.7, 1.05
SHAPE = dict(vocab_size=96, hidden_size=48, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, dtype="float32", bos_token_id=0, eos_token_id=1)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
CONFIGS = {  # name: (seed, config, size of a shard)
    "qwen2": (2, Qwen2Config(**SHAPE, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=10000.0)), "1GB"),
    "qwen3": (3, Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=False,
                             rope_parameters=dict(rope_type="default", rope_theta=1000000.0)), "1GB"),
    "llama": (4, LlamaConfig(**SHAPE, tie_word_embeddings=False, rms_norm_eps=1e-5, rope_parameters=LLAMA3), "1GB"),
    "qwen2-sharded": (5, Qwen2Config(**SHAPE, tie_word_embeddings=False,
                                     rope_parameters=dict(rope_type="default", rope_theta=1000000.0)), "120KB"),
}


def randomise(model, seed):
    """Matrices N(0, 0.2), norm weights N(1, 0.2), biases N(0, 0.2): loud enough that a wrong bias, norm or rotation shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (1.0 if "norm" in name else 0.0))


def old_spelling(folder):
    """Writes config.v4.json: the same configuration as transformers 4 spelled it."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    config["transformers_version"] = "4.51.0"
    (folder / "config.v4.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save(model, folder, shard):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    old_spelling(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def check_folder(folder, ids, logits):
    """Both spellings of the configuration load without a missing tensor and give the same logits."""
    for config in ("config.json", "config.v4.json"):
        copy = folder.with_name(folder.name + ".check")
        shutil.copytree(folder, copy)
        (copy / "config.json").write_text((folder / config).read_text())
        model, info = AutoModelForCausalLM.from_pretrained(copy, attn_implementation="eager", output_loading_info=True)
        shutil.rmtree(copy)
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        assert torch.equal(model(ids[None]).logits[0], logits), (folder, config)


def sequences(seed, vocab):
    generator = torch.Generator().manual_seed(1000 + seed)
    for length, prompt in zip(LENGTHS, PROMPTS):
        ids = torch.randint(0, vocab, (length,), generator=generator)
        yield ids, (torch.arange(length) >= prompt).to(torch.uint8)


def gradients(model, value, prefix):
    """d value / d parameter by checkpoint name; each must be finite and not zero."""
    model.zero_grad()
    value.backward(retain_graph=True)
    out = {f"{prefix}.{name}": p.grad.detach().clone() for name, p in model.named_parameters()}
    for name, grad in out.items():
        assert grad.isfinite().all() and grad.abs().max() > 1e-4, (name, grad.abs().max())
    return out


def distribution(logits, temperature):
    return torch.log_softmax(logits[:-1] / temperature, dim=-1)  # (T - 1, V)


def entropy(logp):
    return -(logp.exp() * logp).sum(-1)


def policy_gradient(model, logprobs, seed):
    w = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(2000 + seed))
    return {"w.0": w, **gradients(model, -(w * logprobs).sum(), "pg_grad")}


def full_kl(model, folder, ids):
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(REFERENCE_SCALE)
        ours, theirs = model(ids[None]).logits[0], reference(ids[None]).logits[0]
    out = {}
    for key, temperature in (("kl_full.0", 1.0), ("kl_full_t07.0", TEMPERATURE)):
        p, q = distribution(ours, temperature), distribution(theirs, temperature)
        out[key] = (p.exp() * (p - q)).sum(-1)
    return out


def golden(name, seed, config, shard):
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    randomise(model, seed)
    folder = GOLDEN / name
    save(model, folder, shard)

    out, total, count, logits = {}, 0.0, 0, []
    for i, (ids, mask) in enumerate(sequences(seed, config.vocab_size)):
        logits.append(model(ids[None]).logits[0])  # (T, V)
        taken = distribution(logits[i], 1.0).gather(-1, ids[1:, None])[:, 0]  # (T - 1,)
        total, count = total - (taken * mask[1:]).sum(), count + int(mask[1:].sum())
        out |= {f"ids.{i}": ids, f"mask.{i}": mask, f"logits.{i}": logits[i].detach()}
    loss = total / count
    ids = out["ids.0"]
    check_folder(folder, ids, out["logits.0"])

    tempered = distribution(logits[0], TEMPERATURE)
    logprobs = tempered.gather(-1, ids[1:, None])[:, 0]
    out |= {"loss": loss.detach(), **gradients(model, loss, "grad")}
    out |= {"logprobs_t07.0": logprobs.detach(), "entropy.0": entropy(tempered).detach()}
    out["entropy_t1.0"] = entropy(distribution(logits[0], 1.0)).detach()
    if name == "qwen2":
        out |= policy_gradient(model, logprobs, seed) | full_kl(model, folder, ids)
    save_file({k: v.contiguous() for k, v in out.items()}, GOLDEN / f"{name}.safetensors")
    (GOLDEN / f"{name}.safetensors").chmod(0o644)

    stored = {k for file in folder.glob("*.safetensors") for k in load_file(file)}
    assert stored == {k[5:] for k in out if k.startswith("grad.")}, stored
    norm = sum(v.square().sum() for k, v in out.items() if k.startswith("grad.")).sqrt()
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {count} targets, loss {loss:.4f} (ln V 4.564), "
          f"|grad| {norm:.3f}, logits std {out['logits.0'].std():.2f}, entropy(T .7) {out['entropy.0'].mean():.2f}"
          + (f", KL {out['kl_full.0'].mean():.4f}" if "kl_full.0" in out else ""))


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for name, (seed, config, shard) in CONFIGS.items():
        golden(name, seed, config, shard)
