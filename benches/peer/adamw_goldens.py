"""Golden numbers for the optimiser: ten steps of torch.optim.AdamW with clipping and a schedule.

    python benches/peer/adamw_goldens.py             # rewrites tests/golden/adamw.safetensors

The schedule, with s = 1..N the number of the step, W warm-up steps and the peak P:
    lr(s) = P * s / W                                                              s <= W
    lr(s) = P * (0.1 + 0.9 * (1 + cos(pi * (s - W) / (N - W))) / 2)                s > W; the last step has exactly P / 10
Before each step the gradients of w and b together are scaled by min(1, 1 / (norm + 1e-6)) (`torch.nn.utils.clip_grad_norm_`).
Weight decay is decoupled and on the matrix w only.

Tensors, all f32: w.0 (5, 7) and b.0 (7,) before the first step; for s in 1..10 grad.w.s, grad.b.s (before clipping), w.s, b.s (after
the step); lr (10,), norm (10,) before clipping; w.exp_avg, w.exp_avg_sq, b.exp_avg, b.exp_avg_sq: the moments after the last step;
hyper (7,): peak lr, warm-up steps, beta1, beta2, eps, weight decay of w, maximum norm.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "adamw.safetensors"
STEPS, WARMUP, PEAK, BETAS, EPS, DECAY, MAX_NORM = 10, 3, 0.05, (0.9, 0.95), 1e-8, 0.01, 1.0
SIZES = (0.02, 3.0, 0.1, 0.5, 12.0, 0.01, 1e-4, 0.3, 0.05, 1.0)  # of the gradients: some steps clip, some do not


def learning_rate(step):
    if step <= WARMUP:
        return PEAK * step / WARMUP
    return PEAK * (0.1 + 0.9 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2)


def main():
    generator = torch.Generator().manual_seed(6)
    w, b = (torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 7), (7,)))
    groups = [dict(params=[w], weight_decay=DECAY), dict(params=[b], weight_decay=0.0)]
    optimiser = torch.optim.AdamW(groups, lr=PEAK, betas=BETAS, eps=EPS, foreach=False)
    out, norms = {"w.0": w.detach().clone(), "b.0": b.detach().clone()}, []
    for step, size in enumerate(SIZES, 1):
        for name, parameter in (("w", w), ("b", b)):
            parameter.grad = torch.randn(parameter.shape, generator=generator) * size
            out[f"grad.{name}.{step}"] = parameter.grad.clone()
        norms.append(torch.nn.utils.clip_grad_norm_([w, b], MAX_NORM))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step)
        optimiser.step()
        out |= {f"w.{step}": w.detach().clone(), f"b.{step}": b.detach().clone()}
    for name, parameter in (("w", w), ("b", b)):
        out |= {f"{name}.{moment}": optimiser.state[parameter][moment].clone() for moment in ("exp_avg", "exp_avg_sq")}
    out["lr"] = torch.tensor([learning_rate(s) for s in range(1, STEPS + 1)])
    out["norm"] = torch.stack(norms)
    out["hyper"] = torch.tensor([PEAK, WARMUP, *BETAS, EPS, DECAY, MAX_NORM])
    assert all(v.isfinite().all() for v in out.values())
    save_file(out, GOLDEN)
    GOLDEN.chmod(0o644)
    print("lr", [round(v, 5) for v in out["lr"].tolist()], "norm", [round(v, 4) for v in out["norm"].tolist()])
    print("moved", [round((out[f"w.{s}"] - out[f"w.{s - 1}"]).abs().mean().item(), 5) for s in range(1, STEPS + 1)])


if __name__ == "__main__":
    main()
