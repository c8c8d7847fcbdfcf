"""Golden rows for the GRPO formulas, in f64, each formula written out in plain torch and differentiated by autograd.

    python benches/peer/grpo_goldens.py              # rewrites tests/golden/grpo.json

Fields of tests/golden/grpo.json:

advantages[]     rewards (G); each of the following has G values, or is null where the formula has no value for that G
    group_std         (r_i - mean) / (std + 1e-4), std with n - 1; all 0 where max == min
    group_std_verl    the same with eps 1e-6
    population_std    (r_i - mean) / std, std with n, no eps: the other reading of the GRPO paper; null where max == min
    mean_only         r_i - mean (no std: Dr. GRPO)
    raw               r_i (no baseline at all)
    leave_one_out     r_i - mean of the others; null for G = 1
    reinforce_lite    clamp((r_i - mean of the others) / (std of the others (n - 1) + 1e-8), -2, 2); 0 where max == min; null for G < 3

surrogate[]      lp, lp_old, advantage, eps_low, eps_high -> ratio = exp(lp - lp_old)
    value             min(ratio A, clip(ratio, 1 - eps_low, 1 + eps_high) A), to be maximised
    grad              d value / d lp
    clipped           "low" (ratio < 1 - eps_low and A < 0), "high" (ratio > 1 + eps_high and A > 0), or null: where grad vanishes

aggregation[]    name, losses [[...]] (one list of token losses per sequence), mask [[0|1]] (tokens that count), max_length, batches
                 (lists of sequence indices: the local batches into which the global batch is cut)
    grpo              mean over sequences of (sum of the masked losses / max(1, number of masked tokens))
    dapo              sum of the masked losses / number of masked tokens in the global batch
    bnpo              mean over local batches of (sum of the masked losses / number of masked tokens in that batch)
    dr_grpo           sum of the masked losses / (number of sequences * max_length)
                      each {value, grad [[...]]}: d value / d losses, which is also the weight of each token
                      Sequences without advantage stand there with losses of 0 and count in each denominator; sequences whose tokens are all
                      masked (overlong) count as sequences, not as tokens.

kl[]             d = lp_ref - lp -> k1, abs, k2, k3, each {value, grad}: grad is d value / d lp, lp_ref constant; no clamping
kl_full[]        logits, logits_ref (V): the two distributions at temperature 1, p ours and q the reference
    full              {value, grad}: sum_v p (ln p - ln q) = KL(p || q) and its gradient by `logits`
    reverse           {value, grad}: KL(q || p)
    expected_value    {k1, abs, k2, k3}: E_p of the sampled estimator; k1 and k3 give full's value
    expected_grad     {k1, abs, k2, k3}: E_p of the estimator's gradient by `logits`, the sampled token held fixed, which is what a loss
                      on samples follows: k1's is 0, k2's is full's, k3's is reverse's
"""

import json
from pathlib import Path

import torch

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "grpo.json"
REWARDS = [
    [90, 80, 70, 60], [1, 0, 0, 0], [1, 1, 0, 0, 1, 0, 0, 0], [0.7] * 8, [0.0] * 4, [1.0] * 4, [3, -0.5, -1, -3],
    [1.0, 0.1, 0.0, 1.0, 0.8], [1] + [-1] * 9, [-1] * 10, [0.1, 0.8], [1.0], [1.0, 1.0, 1.0, 0.999],
]
RATIO_ROWS = [  # lp, lp_old
    (-1.0, -1.0), (-0.9, -1.0), (-1.1, -1.0), (-0.75, -1.0), (-0.79, -1.0), (-0.5, -1.0), (-1.3, -1.0), (-2.0, -1.0),
    (-0.01, -4.0), (-9.0, -0.5),
]
KL_ROWS = [0.0, 1e-3, -1e-3, 0.1, -0.1, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 8.0, -8.0]


# Advantages. TRL GRPOTrainer (scale_rewards, eps 1e-4) and verl core_algos.compute_grpo_outcome_advantage (eps 1e-6): sample std.


def group_std(r, eps):
    return torch.zeros_like(r) if r.max() == r.min() else (r - r.mean()) / (r.std(correction=1) + eps)


def population_std(r):
    return None if r.max() == r.min() else (r - r.mean()) / r.std(correction=0)


def others(r):  # (G, G - 1): row i without r_i
    return torch.stack([torch.cat((r[:i], r[i + 1 :])) for i in range(len(r))])


def leave_one_out(r):  # TRL RLOOTrainer, verl compute_rloo_outcome_advantage
    return None if len(r) < 2 else r - others(r).mean(1)


def reinforce_lite(r):  # the Reinforce-Lite post: one graded sample against the rest of its group, here for each sample in turn
    if len(r) < 3:
        return None
    if r.max() == r.min():
        return torch.zeros_like(r)
    rest = others(r)
    return ((r - rest.mean(1)) / (rest.std(1, correction=1) + 1e-8)).clamp(-2, 2)


def advantage_row(rewards):
    r = torch.tensor(rewards, dtype=torch.float64)
    row = dict(group_std=group_std(r, 1e-4), group_std_verl=group_std(r, 1e-6), population_std=population_std(r), mean_only=r - r.mean(),
               raw=r, leave_one_out=leave_one_out(r), reinforce_lite=reinforce_lite(r))
    if r.max() == r.min():  # the differences are 0, not the last bit of a mean
        row |= {k: torch.zeros_like(r) for k in ("mean_only", "leave_one_out") if row[k] is not None}
    return dict(rewards=[float(x) for x in rewards], **{k: None if v is None else v.tolist() for k, v in row.items()})


# The clipped surrogate. TRL GRPOTrainer._compute_loss, verl compute_policy_loss; clip-higher: DAPO.


def surrogate_row(lp, lp_old, advantage, low, high):
    x = torch.tensor(lp, dtype=torch.float64, requires_grad=True)
    ratio = (x - lp_old).exp()
    value = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    value.backward()
    clipped = "low" if ratio < 1 - low and advantage < 0 else "high" if ratio > 1 + high and advantage > 0 else None
    assert (x.grad == 0) == (clipped is not None or advantage == 0)
    return dict(lp=lp, lp_old=lp_old, advantage=advantage, eps_low=low, eps_high=high, ratio=ratio.item(), value=value.item(),
                grad=x.grad.item(), clipped=clipped)


# Aggregation. TRL's loss_type of the same names; dapo's token mean over the global batch is verl's "token-mean".


def aggregate(kind, losses, mask, max_length, batches):
    sums = torch.stack([(l * m).sum() for l, m in zip(losses, mask)])
    counts = torch.stack([m.sum() for m in mask])
    if kind == "grpo":
        return (sums / counts.clamp(min=1)).mean()
    if kind == "dapo":
        return sums.sum() / counts.sum()
    if kind == "bnpo":
        return torch.stack([sums[b].sum() / counts[b].sum().clamp(min=1) for b in batches]).mean()
    return sums.sum() / (len(losses) * max_length)


def aggregation_row(name, losses, mask, max_length, batches):
    row = dict(name=name, losses=losses, mask=mask, max_length=max_length, batches=batches)
    for kind in ("grpo", "dapo", "bnpo", "dr_grpo"):
        leaves = [torch.tensor(l, dtype=torch.float64, requires_grad=True) for l in losses]
        value = aggregate(kind, leaves, [torch.tensor(m, dtype=torch.float64) for m in mask], max_length, batches)
        value.backward()
        row[kind] = dict(value=value.item(), grad=[l.grad.tolist() for l in leaves])
    return row


def aggregation_rows():
    ragged = [[0.5, -1.0, 2.0], [1.5], [0.25, 0.75, -0.5, 1.0, 3.0], [-2.0, 0.125]]
    ones = [[1] * len(l) for l in ragged]
    unmasked_part = [[0, 1, 1], [1], [1, 1, 0, 1, 1], [1, 1]]
    overlong = [[1, 1, 1], [1], [0] * 5, [1, 1]]
    no_advantage = [ragged[0], [0.0], ragged[2], [0.0, 0.0]]
    whole, halves, uneven = [[0, 1, 2, 3]], [[0, 1], [2, 3]], [[0, 1, 2], [3]]
    yield aggregation_row("one local batch", ragged, ones, 8, whole)
    yield aggregation_row("two local batches", ragged, ones, 8, halves)
    yield aggregation_row("uneven local batches, some tokens masked", ragged, unmasked_part, 5, uneven)
    yield aggregation_row("an overlong sequence masked", ragged, overlong, 5, halves)
    yield aggregation_row("two sequences without advantage", no_advantage, ones, 8, halves)


# KL estimators. Schulman's note "Approximating KL divergence" (k1, k2, k3); verl kl_penalty names them kl, mse, low_var_kl, abs, full.


def estimators(d):
    return dict(k1=-d, abs=d.abs(), k2=d.square() / 2, k3=d.exp() - d - 1)


def kl_row(d):
    row = dict(d=d)
    for name in ("k1", "abs", "k2", "k3"):
        lp = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
        value = estimators(d - lp)[name]  # lp_ref - lp with lp_ref = d at lp = 0
        value.backward()
        row[name] = dict(value=value.item(), grad=lp.grad.item())
    return row


def with_gradient(function, logits):
    x = logits.clone().requires_grad_()
    value = function(torch.log_softmax(x, -1))
    value.backward()
    return dict(value=value.item(), grad=x.grad.tolist())


def kl_full_row(logits, logits_ref):
    x, ref = (torch.tensor(v, dtype=torch.float64) for v in (logits, logits_ref))
    lp, lq = torch.log_softmax(x, -1), torch.log_softmax(ref, -1)
    p, q = lp.exp(), lq.exp()
    row = dict(logits=logits, logits_ref=logits_ref, full=with_gradient(lambda l: (l.exp() * (l - lq)).sum(), x),
               reverse=with_gradient(lambda l: (q * (lq - l)).sum(), x), expected_value={}, expected_grad={})
    for name in ("k1", "abs", "k2", "k3"):
        sampled = with_gradient(lambda l: (p * estimators(lq - l)[name]).sum(), x)  # p constant: the samples are given
        row["expected_value"][name], row["expected_grad"][name] = sampled["value"], sampled["grad"]
    close = lambda a, b: torch.allclose(torch.tensor(a), torch.tensor(b), atol=1e-12)
    assert close(row["expected_value"]["k1"], row["full"]["value"]) and close(row["expected_value"]["k3"], row["full"]["value"])
    assert close(row["expected_grad"]["k1"], [0.0] * len(logits))
    assert close(row["expected_grad"]["k2"], row["full"]["grad"]) and close(row["expected_grad"]["k3"], row["reverse"]["grad"])
    return row


def main():
    clips = ((0.2, 0.2), (0.2, 0.28), (10.0, 10.0))  # symmetric, clip-higher, R1's nearly open one
    golden = dict(
        advantages=[advantage_row(r) for r in REWARDS],
        surrogate=[surrogate_row(lp, old, a, *clip) for clip in clips for lp, old in RATIO_ROWS for a in (1.0, -1.0, 0.5, -1.7, 0.0)],
        aggregation=list(aggregation_rows()),
        kl=[kl_row(d) for d in KL_ROWS],
        kl_full=[kl_full_row([0.5, -1.0, 2.0, 0.0], [0.4, -0.5, 1.0, 0.3]), kl_full_row([3.0, -3.0, 0.2], [-2.0, 1.0, 0.5])],
    )
    first = golden["advantages"][0]
    assert [round(a, 3) for a in first["group_std"]] == [1.162, 0.387, -0.387, -1.162], first
    assert [round(a, 3) for a in first["population_std"]] == [1.342, 0.447, -0.447, -1.342], first
    lines = [f'"{key}": [\n' + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]" for key, rows in golden.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print({key: len(rows) for key, rows in golden.items()})


if __name__ == "__main__":
    main()
